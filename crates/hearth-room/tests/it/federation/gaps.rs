//! What comes late, from behind a gap: from before we came into the room, or beside that.

use std::sync::Arc;

use hearth_matrix::Draft;
use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId};
use hearth_room::MemberAction;
use hearth_store::Standing;
use serde_json::json;

use super::strangers::{TALKS, forged};
use super::{House, Lies, Net, Packet, joins, lock, name, object, public_room, text, user};

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

/// What a server answers who is asked for history, as JSON.
async fn history_of(house: &House, room: &OwnedRoomId, before: &OwnedEventId) -> Vec<String> {
    let events = house.rooms.history_before(room, vec![before.clone()], 100).await.expect("reads");
    events.iter().map(|pdu| pdu.json.to_string()).collect()
}

async fn read_back(house: &House, room: &OwnedRoomId) {
    while house.rooms.backfill(room, i64::MAX, 100).await.expect("the store works") > 0 {}
}

#[tokio::test(start_paused = true)]
async fn what_history_does_not_lead_to_is_judged_by_the_present() {
    let (net, room) = three(RoomVersionId::V10).await;
    let (first, third) = (net.house(0), net.house(2));
    let slip = net.house(1).send(&room, &user(0, 1), "a slip").await.expect("may talk");
    net.calm_down().await;
    let auth = first.places(&room, &TALKS).await;
    let tips = first.tips(&room).await;
    first.send(&room, &user(0, 0), "between").await.expect("may talk");
    change(&first, (0, 0), &room, MemberAction::Ban(user(0, 1))).await;
    let last = first.send(&room, &user(0, 0), "last").await.expect("may talk");
    net.calm_down().await;
    come_in(&net, 2, &room).await;
    let sent = forged(&room, &user(0, 1), text("from the grave"), &tips, &auth, 12);
    let mut redaction = Draft::message("m.room.redaction", object(json!({})));
    redaction.redacts = Some(slip.clone());
    let redaction = forged(&room, &user(0, 1), redaction, &tips, &auth, 12);
    let mut backfill = history_of(&first, &room, &last).await;
    backfill.extend([&sent, &redaction].map(|pdu| pdu.json.to_string()));
    for n in 0..2 {
        lock(&net.lies).insert(name(n), Lies { backfill: Some(backfill.clone()), ..Lies::default() });
    }
    read_back(&third, &room).await;
    assert_eq!(third.standing(&room, &slip).await, Some(Standing::Live), "what it leads to has come");
    for event in [&sent, &redaction] {
        assert_eq!(third.standing(&room, &event.event_id).await, Some(Standing::SoftFailed));
    }
    assert!(!third.is_redacted(&room, &slip).await);
}

#[tokio::test(start_paused = true)]
async fn history_goes_on_behind_an_event_that_the_other_server_does_not_tell() {
    for version in VERSIONS {
        let (net, room) = three(version.clone()).await;
        let (first, third) = (net.house(0), net.house(2));
        let mut sent = Vec::new();
        for n in 0..9 {
            sent.push(first.send(&room, &user(0, 0), &format!("{n}")).await.expect("may talk"));
        }
        net.calm_down().await;
        come_in(&net, 2, &room).await;
        let mut backfill = history_of(&first, &room, &sent[8]).await;
        backfill.retain(|json| !json.contains("\"body\":\"4\""));
        for n in 0..2 {
            lock(&net.lies).insert(name(n), Lies { backfill: Some(backfill.clone()), ..Lies::default() });
        }
        read_back(&third, &room).await;
        for (n, event) in sent.iter().enumerate() {
            let standing = third.standing(&room, event).await;
            assert_eq!(standing == Some(Standing::Live), n != 4, "version {version}: {n} is {standing:?}");
        }
        assert_eq!(third.state(&room).await, first.state(&room).await, "version {version}");
        assert_eq!(third.tip(&room).await.expect("a tip").extremities.len(), 1, "version {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn history_is_asked_of_servers_that_live() {
    let net = Net::of(9, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V11).await;
    for n in 1..8 {
        come_in(&net, n, &room).await;
    }
    net.house(7).send(&room, &user(0, 7), "good morning").await.expect("may talk");
    net.calm_down().await;
    come_in(&net, 8, &room).await;
    let last = net.house(8);
    for n in 0..7 {
        lock(&net.mute).insert(name(n));
    }
    assert!(last.rooms.backfill(&room, i64::MAX, 100).await.expect("the store works") > 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_missing_is_asked_of_servers_that_live() {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V11).await;
    for n in 1..4 {
        come_in(&net, n, &room).await;
    }
    net.house(1).send(&room, &user(0, 1), "first").await.expect("may talk");
    hold_back(&net, 3).await;
    net.house(1).send(&room, &user(0, 1), "second").await.expect("may talk");
    let late = hold_back(&net, 3).await;
    lock(&net.mute).extend([name(0), name(1)]);
    lock(&net.resting).insert(name(0));
    for packet in &late {
        net.deliver(packet).await;
    }
    net.calm_down().await;
    assert_eq!(net.house(3).bodies(&room).await, ["first", "second"]);
    assert_eq!(*lock(&net.asked_in_vain), [name(1)].into(), "its sender, but nobody who failed lately");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_tells_no_history_is_not_waited_for() {
    for (silent, resting) in [(true, false), (false, true)] {
        let (net, room) = three(RoomVersionId::V11).await;
        let third = net.house(2);
        net.house(0).send(&room, &user(0, 0), "good evening").await.expect("may talk");
        net.calm_down().await;
        come_in(&net, 2, &room).await;
        lock(&net.silent).extend(silent.then(|| name(0)));
        lock(&net.silent).extend(resting.then(|| name(0)));
        lock(&net.resting).extend(resting.then(|| name(0)));
        let began = tokio::time::Instant::now();
        let came = third.rooms.backfill(&room, i64::MAX, 100).await.expect("the store works");
        let longest = std::time::Duration::from_secs(if resting { 1 } else { 5 });
        assert!(came > 0 && began.elapsed() < longest, "{came} after {:?}", began.elapsed());
    }
}
