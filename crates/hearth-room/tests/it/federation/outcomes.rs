//! Each outcome of the checks, and what follows from it.

use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId};
use hearth_matrix::{Draft, Pdu, Place, rules, seal};
use hearth_room::{Dropped, MemberAction};
use hearth_store::Standing;
use serde_json::json;

use super::{House, Net, key, lock, name, object, public_room, user};

/// Two servers in a room of version 10.
async fn two() -> (Arc<Net>, OwnedRoomId) {
    of_version(RoomVersionId::V10, 2).await
}

async fn of_version(version: RoomVersionId, servers: usize) -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(servers, 1).await;
    let room = public_room(&net.house(0), version).await;
    for n in 1..servers {
        let joined = net.house(n).rooms.join_through(&user(0, n), &room, &[name(0)], CanonicalJsonObject::new()).await;
        joined.expect("joins");
        net.calm_down().await;
    }
    (net, room)
}

/// An event of the second server as anybody there could forge it.
async fn forged(house: &House, room: &OwnedRoomId, draft: Draft, auth: &[(&str, &str)]) -> Pdu {
    let auth = auth_of(house, room, auth).await;
    forged_with(house, room, draft, auth).await
}

async fn auth_of(house: &House, room: &OwnedRoomId, auth: &[(&str, &str)]) -> Vec<OwnedEventId> {
    let state = house.state(room).await;
    auth.iter().filter_map(|(kind, key)| state.get(&((*kind).to_owned(), (*key).to_owned())).cloned()).collect()
}

async fn forged_with(house: &House, room: &OwnedRoomId, draft: Draft, auth: Vec<OwnedEventId>) -> Pdu {
    let tip = house.tip(room).await.expect("a tip");
    let ids = tip.extremities.clone();
    let prev: Vec<OwnedEventId> =
        house.store.read(move |tx| ids.iter().map(|num| tx.events().id(*num)).collect()).await.expect("reads");
    let place = Place {
        room_id: Some(room),
        sender: &user(0, 1),
        prev_events: &prev,
        auth_events: &auth,
        depth: tip.depth as u64 + 1,
        origin_server_ts: 1_000_001,
        server_name: &name(1),
        v1: None,
    };
    seal(draft, &place, &key(1), rules(&RoomVersionId::V10).expect("known")).expect("seals")
}

const MESSAGE_AUTH: [(&str, &str); 3] =
    [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", "@u0:s1.test")];

fn message(body: &str) -> Draft {
    Draft::message("m.room.message", object(json!({ "msgtype": "m.text", "body": body })))
}

async fn receive(net: &Net, json: &str) -> Result<(), Dropped> {
    let house = net.house(0);
    let received = house.rooms.receive(&name(1), &[json.to_owned()]).await.expect("the store works");
    net.calm_down().await;
    received.into_iter().next().expect("one answer").outcome
}

#[tokio::test(start_paused = true)]
async fn rooms_of_every_version_are_joined_and_talked_in_across_servers() {
    for version in hearth_matrix::SUPPORTED_VERSIONS {
        let (net, room) = of_version(version.clone(), 3).await;
        for n in 0..3 {
            let said = net.house(n).send(&room, &user(0, n), "hello").await.expect("may talk");
            net.calm_down().await;
            for other in 0..3 {
                let standing = net.house(other).standing(&room, &said).await;
                assert_eq!(standing, Some(Standing::Live), "version {version}, from {n} to {other}");
            }
        }
        let state = net.house(0).state(&room).await;
        for n in 1..3 {
            assert_eq!(net.house(n).state(&room).await, state, "version {version}");
            let tip = net.house(n).tip(&room).await.expect("a tip");
            assert_eq!((tip.joined, tip.joined_local, tip.extremities.len()), (3, 1, 1), "version {version}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_no_event_or_not_signed_is_dropped() {
    let (net, room) = two().await;
    let good = forged(&net.house(1), &room, message("hi"), &MESSAGE_AUTH).await;
    let tampered = good.json.replace("ed25519:a\":\"", "ed25519:a\":\"AAAA");
    assert!(matches!(receive(&net, &tampered).await, Err(Dropped::Signature(_))));
    assert!(matches!(receive(&net, "{}").await, Err(Dropped::Malformed(_))));
    let elsewhere = good.json.replace(room.as_str(), "!elsewhere:s0.test");
    assert!(matches!(receive(&net, &elsewhere).await, Err(Dropped::UnknownRoom)));
    assert_eq!(net.house(0).standing(&room, &good.event_id).await, None);
    assert_eq!(receive(&net, &good.json).await, Ok(()));
    assert_eq!(net.house(0).standing(&room, &good.event_id).await, Some(Standing::Live));
    // Once more is nothing new.
    let before = net.house(0).tip(&room).await;
    assert_eq!(receive(&net, &good.json).await, Ok(()));
    assert_eq!(net.house(0).tip(&room).await, before);
}

#[tokio::test(start_paused = true)]
async fn an_event_with_another_content_than_it_was_hashed_with_is_taken_redacted() {
    let (net, room) = two().await;
    let good = forged(&net.house(1), &room, message("hi"), &MESSAGE_AUTH).await;
    let changed = good.json.replace("\"body\":\"hi\"", "\"body\":\"ho\"");
    assert_eq!(receive(&net, &changed).await, Ok(()));
    let (pdu, standing) = net.house(0).rooms.event(&room, &good.event_id).await.expect("reads").expect("is there");
    assert_eq!((pdu.content.get(), standing), ("{}", Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_the_acl_shuts_out_is_not_heard() {
    let (net, room) = two().await;
    let acl = json!({ "allow": ["*"], "deny": ["S1.*"] });
    net.house(0).set(&room, &user(0, 0), "m.room.server_acl", "", acl).await.expect("may");
    let event = forged(&net.house(1), &room, message("hi"), &MESSAGE_AUTH).await;
    assert!(matches!(receive(&net, &event.json).await, Err(Dropped::ShutOut(_))));
    // It stands between servers: what one brings that is not shut out is judged as always.
    let received = net.house(0).rooms.receive(&name(2), &[event.json.to_string()]).await.expect("the store works");
    assert_eq!(received[0].outcome, Ok(()));
    net.calm_down().await;
    assert_eq!(net.house(0).standing(&room, &event.event_id).await, Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn what_the_auth_events_do_not_allow_is_rejected_and_stays_unseen() {
    let (net, room) = two().await;
    let topic = Draft::state("m.room.topic", "", object(json!({ "topic": "mine" })));
    let event = forged(&net.house(1), &room, topic, &MESSAGE_AUTH).await;
    let before = net.house(0).tip(&room).await;
    assert_eq!(receive(&net, &event.json).await, Ok(()));
    assert_eq!(net.house(0).standing(&room, &event.event_id).await, Some(Standing::Rejected));
    assert_eq!(net.house(0).tip(&room).await, before, "it moves nothing");
    let unneeded = [&MESSAGE_AUTH[..], &[("m.room.join_rules", "")]].concat();
    let event = forged(&net.house(1), &room, message("hi"), &unneeded).await;
    assert_eq!(receive(&net, &event.json).await, Ok(()));
    assert_eq!(net.house(0).standing(&room, &event.event_id).await, Some(Standing::Rejected));
}

#[tokio::test(start_paused = true)]
async fn what_only_the_current_state_forbids_is_kept_and_not_shown() {
    let (net, room) = two().await;
    net.cut(0, 1);
    let (here, there) = (net.house(0), net.house(1));
    let said = there.send(&room, &user(0, 1), "still here").await.expect("may talk");
    here.rooms.change_membership(&user(0, 0), &room, MemberAction::Ban(user(0, 1)), None).await.expect("may ban");
    let packets = net.packets().await;
    net.heal();
    for packet in &packets {
        net.deliver(packet).await;
    }
    net.calm_down().await;
    assert_eq!(here.standing(&room, &said).await, Some(Standing::SoftFailed));
    assert_eq!(here.tip(&room).await.expect("a tip").extremities.len(), 1);
    assert_eq!(there.membership(&room, &user(0, 1)).await.as_deref(), Some("ban"));
}

#[tokio::test(start_paused = true)]
async fn branches_are_merged_by_what_comes_next() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    let levels = here.content(&room, "m.room.power_levels", "").await.expect("levels");
    let mut levels = levels;
    levels["users"]["@u0:s1.test"] = json!(50);
    here.set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may");
    net.calm_down().await;
    net.cut(0, 1);
    let topic = |topic: &str| json!({ "topic": topic });
    here.set(&room, &user(0, 0), "m.room.topic", "", topic("ours")).await.expect("may");
    there.set(&room, &user(0, 1), "m.room.topic", "", topic("theirs")).await.expect("may");
    there.set(&room, &user(0, 1), "m.room.name", "", json!({ "name": "Theirs" })).await.expect("may");
    let packets = net.packets().await;
    net.heal();
    for packet in &packets {
        net.deliver(packet).await;
    }
    net.calm_down().await;
    assert_eq!(here.state(&room).await, there.state(&room).await);
    assert_eq!(here.content(&room, "m.room.name", "").await, Some(json!({ "name": "Theirs" })));
    assert_eq!(here.tip(&room).await.expect("a tip").extremities.len(), 2);
    here.send(&room, &user(0, 0), "together").await.expect("may talk");
    net.calm_down().await;
    assert_eq!(here.tip(&room).await.expect("a tip").extremities.len(), 1);
    assert_eq!(there.tip(&room).await.expect("a tip").extremities.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn events_that_are_missing_are_fetched_and_shown_before_those_that_name_them() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    for n in 0..30 {
        there.send(&room, &user(0, 1), &format!("{n}")).await.expect("may talk");
    }
    let last = net.packets().await.pop().expect("a packet");
    net.deliver(&last).await;
    net.calm_down().await;
    assert_eq!(here.bodies(&room).await, (0..30).map(|n| n.to_string()).collect::<Vec<_>>());
    assert_eq!(here.tip(&room).await.expect("a tip").extremities.len(), 1);
    assert!(here.gaps(&room).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn staged_events_outlive_a_restart() {
    let (net, room) = two().await;
    let there = net.house(1);
    let first = there.send(&room, &user(0, 1), "first").await.expect("may talk");
    drop(net.packets().await);
    let second = there.send(&room, &user(0, 1), "second").await.expect("may talk");
    let packets = net.packets().await;
    lock(&net.mute).insert(name(1));
    for packet in &packets {
        net.deliver(packet).await;
    }
    let here = net.house(0);
    assert_eq!(here.standing(&room, &second).await, None, "what it follows is not to be had");
    let store = here.store.clone();
    drop(here);
    lock(&net.mute).clear();
    net.move_in(0, store, 2).await;
    net.calm_down().await;
    for event in [&first, &second] {
        assert_eq!(net.house(0).standing(&room, event).await, Some(Standing::Live));
    }
}

#[tokio::test(start_paused = true)]
async fn a_redaction_may_come_before_its_target() {
    let (net, room) = two().await;
    let there = net.house(1);
    let said = there.send(&room, &user(0, 1), "a slip").await.expect("may talk");
    there.rooms.redact(&user(0, 1), &room, &said, None, None).await.expect("may redact");
    let mut packets = net.packets().await;
    packets.reverse();
    for packet in &packets {
        net.deliver(packet).await;
    }
    net.calm_down().await;
    let here = net.house(0);
    assert!(here.is_redacted(&room, &said).await);
}

#[tokio::test(start_paused = true)]
async fn what_was_rejected_for_want_of_an_auth_event_is_judged_anew_when_it_comes() {
    let (net, room) = two().await;
    let there = net.house(1);
    let join = json!({ "membership": "join", "displayname": "Another" });
    let member_auth = [&MESSAGE_AUTH[..], &[("m.room.join_rules", "")]].concat();
    let named = Draft::state("m.room.member", "@u0:s1.test", object(join));
    let auth = forged(&there, &room, named, &member_auth).await;
    let mut names = auth_of(&there, &room, &MESSAGE_AUTH[..2]).await;
    names.push(auth.event_id.clone());
    let event = forged_with(&there, &room, message("hi"), names).await;
    let here = net.house(0);
    assert_eq!(receive(&net, &event.json).await, Ok(()));
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Rejected));
    assert_eq!(receive(&net, &auth.json).await, Ok(()));
    assert_eq!(here.standing(&room, &auth.event_id).await, Some(Standing::Live));
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn what_was_redacted_while_it_was_rejected_stays_so_when_it_stands() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    let member_auth = [&MESSAGE_AUTH[..], &[("m.room.join_rules", "")]].concat();
    let auth = forged(&there, &room, super::joins("Another", &user(0, 1)), &member_auth).await;
    let mut names = auth_of(&there, &room, &MESSAGE_AUTH[..2]).await;
    names.push(auth.event_id.clone());
    let event = forged_with(&there, &room, message("a slip"), names).await;
    assert_eq!(receive(&net, &event.json).await, Ok(()));
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Rejected));
    here.rooms.redact(&user(0, 0), &room, &event.event_id, None, None).await.expect("may redact");
    assert_eq!(receive(&net, &auth.json).await, Ok(()));
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Live));
    assert!(here.is_redacted(&room, &event.event_id).await);
}

#[tokio::test(start_paused = true)]
async fn many_branches_are_merged_by_events_that_say_nothing() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    let mut branches = Vec::new();
    for n in 0..25 {
        branches.push(forged(&there, &room, message(&format!("{n}")), &MESSAGE_AUTH).await);
    }
    let jsons: Vec<String> = branches.iter().map(|pdu| pdu.json.to_string()).collect();
    here.rooms.receive(&name(1), &jsons).await.expect("the store works");
    net.calm_down().await;
    let tip = here.tip(&room).await.expect("a tip");
    assert!(tip.extremities.len() <= 16, "{} branches", tip.extremities.len());
    // What our users say comes through whatever there is to merge.
    here.send(&room, &user(0, 0), "one").await.expect("may talk");
    here.set(&room, &user(0, 0), "m.room.topic", "", json!({ "topic": "all" })).await.expect("may");
    net.calm_down().await;
    assert_eq!(here.tip(&room).await.expect("a tip").extremities.len(), 1);
    assert_eq!(here.content(&room, "m.room.topic", "").await, Some(json!({ "topic": "all" })));
    assert_eq!(here.state(&room).await, there.state(&room).await);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_failed_lately_lets_in_only_if_nobody_else_does() {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V11).await;
    let join = async |n: usize, via: &[hearth_matrix::ruma::OwnedServerName]| {
        let joined = net.house(n).rooms.join_through(&user(0, n), &room, via, CanonicalJsonObject::new()).await;
        joined.expect("joins");
        let packets = net.packets().await;
        for packet in &packets {
            net.deliver(packet).await;
        }
        net.calm_down().await;
        let others = packets.into_iter().map(|packet| packet.from).filter(|from| *from != name(n));
        others.collect::<std::collections::BTreeSet<_>>()
    };
    join(1, &[name(0)]).await;
    net.resting.lock().expect("whole").insert(name(0));
    // Who lets somebody in tells the others of it.
    assert_eq!(join(2, &[name(0), name(1)]).await.into_iter().collect::<Vec<_>>(), [name(1)]);
    net.resting.lock().expect("whole").insert(name(1));
    assert_eq!(join(3, &[name(1)]).await.into_iter().collect::<Vec<_>>(), [name(1)]);
}

#[tokio::test(start_paused = true)]
async fn who_would_come_in_does_not_wait_for_a_silent_server_alone() {
    let net = Net::of(3, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V11).await;
    let first = net.house(1).rooms.join_through(&user(0, 1), &room, &[name(0)], CanonicalJsonObject::new()).await;
    first.expect("joins");
    net.calm_down().await;
    net.silent.lock().expect("whole").insert(name(0));
    let via = [name(0), name(1)];
    let joined = net.house(2).rooms.join_through(&user(0, 2), &room, &via, CanonicalJsonObject::new()).await;
    joined.expect("the other one lets him in");
}

#[tokio::test(start_paused = true)]
async fn hundreds_of_branches_are_merged_as_well() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    let mut jsons = Vec::new();
    for n in 0..300 {
        jsons.push(forged(&there, &room, message(&format!("{n}")), &MESSAGE_AUTH).await.json.to_string());
    }
    for part in jsons.chunks(50) {
        here.rooms.receive(&name(1), part).await.expect("the store works");
    }
    net.calm_down().await;
    let tip = here.tip(&room).await.expect("a tip");
    assert!(tip.extremities.len() <= 16, "{} branches", tip.extremities.len());
}

#[tokio::test(start_paused = true)]
async fn branches_that_nobody_of_ours_may_merge_are_bounded() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    let levels = json!({ "users": { user(0, 1).as_str(): 100 }, "events_default": 100 });
    here.set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("gives it all away");
    net.calm_down().await;
    let topic = Draft::state("m.room.topic", "", object(json!({ "topic": "on the oldest branch" })));
    let mut jsons = vec![forged(&there, &room, topic, &MESSAGE_AUTH).await.json.to_string()];
    for n in 0..150 {
        jsons.push(forged(&there, &room, message(&format!("{n}")), &MESSAGE_AUTH).await.json.to_string());
    }
    for part in jsons.chunks(50) {
        let received = here.rooms.receive(&name(1), part).await.expect("the store works");
        assert!(received.iter().all(|pdu| pdu.outcome.is_ok()));
    }
    net.calm_down().await;
    let tip = here.tip(&room).await.expect("a tip");
    assert!(tip.extremities.len() <= 51, "{} branches", tip.extremities.len());
    let expected = Some(json!({ "topic": "on the oldest branch" }));
    assert_eq!(here.content(&room, "m.room.topic", "").await, expected);
}

#[tokio::test(start_paused = true)]
async fn what_strangers_send_leaves_place_for_what_members_say() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    // Nobody has what these name, so they wait.
    let unknown = |n: usize| OwnedEventId::try_from(format!("${n:043}")).expect("an id");
    let auth = auth_of(&there, &room, &MESSAGE_AUTH).await;
    let event = |n: usize| {
        let place = Place {
            room_id: Some(&room),
            sender: &user(0, 1),
            prev_events: &[unknown(n)],
            auth_events: &auth,
            depth: 100,
            origin_server_ts: 1_000_001,
            server_name: &name(1),
            v1: None,
        };
        let rules = hearth_matrix::rules(&RoomVersionId::V10).expect("known");
        seal(message(&format!("{n}")), &place, &key(1), rules).expect("seals").json.to_string()
    };
    let events: Vec<String> = (0..60).map(event).collect();
    let taken = async |origin: usize, events: &[String]| {
        let received = here.rooms.receive(&name(origin), events).await.expect("the store works");
        received.iter().filter(|received| received.outcome.is_ok()).count()
    };
    // A server without members here passes them on.
    assert_eq!(taken(7, &events).await, 50);
    assert_eq!(taken(1, &events).await, 60);
}

#[tokio::test(start_paused = true)]
async fn a_gap_that_stays_is_crossed_with_the_state_that_the_other_server_tells() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    for n in 0..150 {
        there.send(&room, &user(0, 1), &format!("{n}")).await.expect("may talk");
        if n == 20 {
            // Nobody tells of it but the state.
            there
                .rooms
                .change_membership(&user(1, 1), &room, MemberAction::Join { guest: false }, None)
                .await
                .expect("may join");
        }
    }
    for n in 150..300 {
        there.send(&room, &user(0, 1), &format!("{n}")).await.expect("may talk");
    }
    let last = net.packets().await.pop().expect("a packet");
    net.deliver(&last).await;
    net.calm_down().await;
    assert_eq!(here.state(&room).await, there.state(&room).await);
    assert_eq!(here.tip(&room).await.expect("a tip").joined, 3);
    assert!(!here.gaps(&room).await.is_empty());
    // Whoever reads back gets what is missing.
    for _ in 0..10 {
        if here.rooms.backfill(&room, i64::MAX, 1000).await.expect("the store works") == 0 {
            break;
        }
    }
    assert_eq!(here.bodies_in_order(&room).await, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_comes_back_takes_the_room_up_as_it_is_now() {
    let (net, room) = two().await;
    let (here, there) = (net.house(0), net.house(1));
    there.rooms.change_membership(&user(0, 1), &room, MemberAction::Leave, None).await.expect("may leave");
    net.calm_down().await;
    here.set(&room, &user(0, 0), "m.room.topic", "", json!({ "topic": "alone" })).await.expect("may");
    here.send(&room, &user(0, 0), "is anybody here?").await.expect("may talk");
    net.calm_down().await;
    assert_eq!(there.content(&room, "m.room.topic", "").await, None);
    let joined = there.rooms.join_through(&user(0, 1), &room, &[name(0)], CanonicalJsonObject::new()).await;
    joined.expect("joins");
    net.calm_down().await;
    assert_eq!(here.state(&room).await, there.state(&room).await);
    let tip = there.tip(&room).await.expect("a tip");
    assert_eq!((tip.joined, tip.joined_local, tip.extremities.len()), (2, 1, 1));
    while there.rooms.backfill(&room, i64::MAX, 100).await.expect("the store works") > 0 {}
    assert_eq!(there.bodies_in_order(&room).await, ["is anybody here?"]);
}

impl House {
    /// Bodies of messages in room order.
    async fn bodies_in_order(&self, room: &OwnedRoomId) -> Vec<String> {
        let room = room.clone();
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            let mut bodies = Vec::new();
            for row in tx.events().from(room.num, hearth_store::RoomPlace::START, 1000)? {
                let pdu = tx.events().pdu(&room, row.num)?;
                let content: serde_json::Value = serde_json::from_str(pdu.content.get()).expect("JSON");
                bodies.extend(content["body"].as_str().map(str::to_owned));
            }
            Ok(bodies)
        });
        read.await.expect("reads")
    }

    /// Bodies of messages in the order of their arrival.
    pub(super) async fn bodies(&self, room: &OwnedRoomId) -> Vec<String> {
        let room = room.clone();
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            let upto = tx.position()?;
            let mut rows = tx.events().newest(room.num, hearth_store::Position(0), upto, 1000)?;
            rows.reverse();
            let mut bodies = Vec::new();
            for row in rows {
                let pdu = tx.events().pdu(&room, row.num)?;
                let content: serde_json::Value = serde_json::from_str(pdu.content.get()).expect("JSON");
                bodies.extend(content["body"].as_str().map(str::to_owned));
            }
            Ok(bodies)
        });
        read.await.expect("reads")
    }

    async fn gaps(&self, room: &OwnedRoomId) -> Vec<OwnedEventId> {
        let room = room.clone();
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            tx.events().gaps(room.num)?.into_iter().map(|(event, _)| tx.events().id(event)).collect()
        });
        read.await.expect("reads")
    }

    pub(super) async fn is_redacted(&self, room: &OwnedRoomId, event: &OwnedEventId) -> bool {
        let (room, event) = (room.clone(), event.clone());
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            Ok(tx.events().by_id(&room, &event)?.is_some_and(|row| row.redacted_by.is_some()))
        });
        read.await.expect("reads")
    }
}
