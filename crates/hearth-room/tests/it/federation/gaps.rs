//! What comes late, from behind a gap: from before we came into the room, or beside that.

use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId};
use hearth_room::MemberAction;
use hearth_store::Standing;
use serde_json::json;

use super::strangers::{TALKS, forged};
use super::{House, Lies, Net, Packet, joins, lock, name, public_room, user};

const VERSIONS: [RoomVersionId; 6] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V6,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// Three servers, and a room of the first that the second is in, whose clock is ahead and whose user may set the topic.
async fn three(version: RoomVersionId) -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(3, 1).await;
    let first = net.house(0);
    let room = public_room(&first, version).await;
    come_in(&net, 1, &room).await;
    let mut levels = first.content(&room, "m.room.power_levels", "").await.expect("levels");
    levels["users"][user(0, 1).as_str()] = json!(50);
    first.set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may");
    net.calm_down().await;
    net.house(1).time.advance(3_600_000);
    (net, room)
}

async fn set_topic(net: &Net, n: usize, room: &OwnedRoomId, topic: &str) -> OwnedEventId {
    let topic = json!({ "topic": topic });
    net.house(n).set(room, &user(0, n), "m.room.topic", "", topic).await.expect("may")
}

async fn topic(house: &House, room: &OwnedRoomId) -> String {
    let content = house.content(room, "m.room.topic", "").await.expect("a topic");
    content["topic"].as_str().expect("a topic").to_owned()
}

async fn come_in(net: &Net, n: usize, room: &OwnedRoomId) {
    let joined = net.house(n).rooms.join_through(&user(0, n), room, &[name(0)], CanonicalJsonObject::new()).await;
    joined.expect("joins");
    net.calm_down().await;
}

async fn change(house: &House, who: (usize, usize), room: &OwnedRoomId, action: MemberAction) {
    house.rooms.change_membership(&user(who.0, who.1), room, action, None).await.expect("may");
}

const JOIN: MemberAction = MemberAction::Join { guest: false };

/// Packets for one server are held back, all others arrive.
async fn hold_back(net: &Net, from: usize) -> Vec<Packet> {
    let (held, others): (Vec<_>, Vec<_>) = net.packets().await.into_iter().partition(|packet| packet.to == name(from));
    for packet in &others {
        net.deliver(packet).await;
    }
    held
}

async fn packet_of(net: &Net, from: usize, to: usize, room: &OwnedRoomId, event: &OwnedEventId) -> Packet {
    let (pdu, _) = net.house(from).rooms.event(room, event).await.expect("reads").expect("is there");
    Packet { from: name(from), to: name(to), json: pdu.json.to_string() }
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_from_before_we_came_in_brings_no_old_state_back() {
    for version in VERSIONS {
        let (net, room) = three(version.clone()).await;
        let (first, third) = (net.house(0), net.house(2));
        for n in 0..20 {
            first.send(&room, &user(0, 0), &format!("{n}")).await.expect("may talk");
        }
        net.calm_down().await;
        let old = set_topic(&net, 1, &room, "old").await;
        let late = packet_of(&net, 1, 2, &room, &old).await;
        net.calm_down().await;
        set_topic(&net, 0, &room, "new").await;
        for n in 20..40 {
            first.send(&room, &user(0, 0), &format!("{n}")).await.expect("may talk");
        }
        net.calm_down().await;
        come_in(&net, 2, &room).await;
        let before = third.tip(&room).await.expect("a tip");
        net.deliver(&late).await;
        net.calm_down().await;
        assert_eq!(topic(&third, &room).await, "new", "version {version}");
        assert_eq!(third.state(&room).await, first.state(&room).await, "version {version}");
        let tip = third.tip(&room).await.expect("a tip");
        assert_eq!(tip.extremities, before.extremities, "version {version}: something follows it");
        assert_eq!(third.bodies(&room).await, Vec::<String>::new(), "what is old is no news");
        assert!(third.standing(&room, &old).await.is_some(), "version {version}: it is kept");
    }
}

#[tokio::test(start_paused = true)]
async fn what_comes_late_from_an_earlier_stay_brings_no_old_state_back() {
    for version in VERSIONS {
        let (net, room) = three(version.clone()).await;
        let (first, third) = (net.house(0), net.house(2));
        come_in(&net, 2, &room).await;
        set_topic(&net, 1, &room, "old").await;
        let late = hold_back(&net, 2).await;
        assert_eq!(late.len(), 1);
        change(&third, (0, 2), &room, MemberAction::Leave).await;
        net.calm_down().await;
        set_topic(&net, 0, &room, "new").await;
        net.calm_down().await;
        come_in(&net, 2, &room).await;
        for packet in &late {
            net.deliver(packet).await;
        }
        net.calm_down().await;
        assert_eq!(topic(&third, &room).await, "new", "version {version}");
        assert_eq!(third.state(&room).await, first.state(&room).await, "version {version}");
        assert_eq!(third.tip(&room).await.expect("a tip").extremities.len(), 1, "version {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_sent_beside_our_join_counts() {
    for version in VERSIONS {
        let (net, room) = three(version.clone()).await;
        let (first, second, third) = (net.house(0), net.house(1), net.house(2));
        net.cut(0, 1);
        change(&second, (1, 1), &room, JOIN).await;
        let said = second.send(&room, &user(1, 1), "beside").await.expect("may talk");
        let late = net.packets().await;
        for n in 0..5 {
            first.send(&room, &user(0, 0), &format!("{n}")).await.expect("may talk");
        }
        come_in(&net, 2, &room).await;
        net.heal();
        for packet in &late {
            net.deliver(packet).await;
        }
        net.deliver(&packet_of(&net, 1, 2, &room, &said).await).await;
        net.calm_down().await;
        assert_eq!(third.membership(&room, &user(1, 1)).await.as_deref(), Some("join"), "version {version}");
        assert_eq!(third.state(&room).await, first.state(&room).await, "version {version}");
        assert_eq!(third.tip(&room).await.expect("a tip").extremities.len(), 2, "version {version}");
        assert_eq!(third.bodies(&room).await, ["beside"], "version {version}: it is news");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_to_be_placed_is_history() {
    let (net, room) = three(RoomVersionId::V10).await;
    let (first, third) = (net.house(0), net.house(2));
    let old = set_topic(&net, 1, &room, "old").await;
    let late = packet_of(&net, 1, 2, &room, &old).await;
    net.calm_down().await;
    set_topic(&net, 0, &room, "new").await;
    for n in 0..1_100 {
        first.send(&room, &user(0, 0), &format!("{n}")).await.expect("may talk");
    }
    net.calm_down().await;
    come_in(&net, 2, &room).await;
    let (asked, before) = (net.asked(), third.tip(&room).await);
    net.deliver(&late).await;
    net.calm_down().await;
    assert_eq!(third.tip(&room).await, before);
    assert_eq!(third.state(&room).await, first.state(&room).await);
    assert!(net.asked() - asked < 30, "{} questions for one old event", net.asked() - asked);
}

#[tokio::test(start_paused = true)]
async fn a_redaction_that_is_history_takes_its_target_away() {
    for version in VERSIONS {
        let (net, room) = three(version.clone()).await;
        let (first, third) = (net.house(0), net.house(2));
        let said = first.send(&room, &user(0, 0), "a slip").await.expect("may talk");
        let stays = first.send(&room, &user(0, 0), "no slip").await.expect("may talk");
        first.rooms.redact(&user(0, 0), &room, &said, None, None).await.expect("may redact");
        net.calm_down().await;
        come_in(&net, 2, &room).await;
        while third.rooms.backfill(&room, i64::MAX, 100).await.expect("the store works") > 0 {}
        assert!(third.is_redacted(&room, &said).await, "version {version}");
        assert!(!third.is_redacted(&room, &stays).await, "version {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_waited_for_an_event_is_judged_when_that_comes_as_history() {
    let (net, room) = three(RoomVersionId::V10).await;
    let (first, third) = (net.house(0), net.house(2));
    // Nobody came in by the older rules: nothing that is told of the present leads to them.
    let mut rules = Vec::new();
    for n in 0..2 {
        let content = json!({ "join_rule": "public", "n": n });
        rules.push(first.set(&room, &user(0, 0), "m.room.join_rules", "", content).await.expect("may"));
    }
    net.calm_down().await;
    come_in(&net, 2, &room).await;
    for n in 0..2 {
        let events = [(rules[0].clone(), "{}".to_owned())].into();
        let lies = Lies { missing_events: Some(Vec::new()), event_auth: Some(Vec::new()), events, ..Lies::default() };
        lock(&net.lies).insert(name(n), lies);
    }
    let (tips, mut auth) = (third.tips(&room).await, third.places(&room, &TALKS).await);
    auth.push(rules[0].clone());
    let named = forged(&room, &user(0, 1), joins("Bob", &user(0, 1)), &tips, &auth, 20);
    third.rooms.receive(&name(1), &[named.json.to_string()]).await.expect("the store works");
    net.calm_down().await;
    assert_eq!(third.standing(&room, &named.event_id).await, Some(Standing::Rejected));
    lock(&net.lies).clear();
    assert!(third.rooms.backfill(&room, i64::MAX, 100).await.expect("the store works") > 0);
    net.calm_down().await;
    assert_eq!(third.standing(&room, &named.event_id).await, Some(Standing::Live));
}
