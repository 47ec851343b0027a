//! Coming into a room through a server that lies about it, and then through one that does not.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, EventId, OwnedRoomId, RoomVersionId};
use hearth_matrix::{Draft, Pdu, Place, SUPPORTED_VERSIONS, rules, seal};
use hearth_room::{JoinAnswer, MemberAction, RoomError, Template};
use serde_json::json;

use super::{House, Lies, Net, key, lock, name, object, public_room, user};

async fn come_in(net: &Net, n: usize, room: &OwnedRoomId, through: usize) -> Result<(), RoomError> {
    net.house(n).rooms.join_through(&user(0, n), room, &[name(through)], CanonicalJsonObject::new()).await
}

async fn state_of(house: &House, room: &OwnedRoomId) -> Vec<Arc<Pdu>> {
    let mut state = Vec::new();
    for id in house.state(room).await.values() {
        state.push(house.rooms.event(room, id).await.expect("reads").expect("is there").0);
    }
    state
}

#[tokio::test(start_paused = true)]
async fn who_was_said_to_be_there_by_a_server_that_did_not_let_us_in_is_not() {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V10).await;
    for n in [1, 3] {
        come_in(&net, n, &room, 0).await.expect("joins");
        net.calm_down().await;
    }
    let before = state_of(&net.house(0), &room).await;
    let gone = user(0, 3);
    net.house(3).rooms.change_membership(&gone, &room, MemberAction::Leave, None).await.expect("leaves");
    net.calm_down().await;
    // Everything as it once was, but for who may come in.
    let json = |pdu: &Arc<Pdu>| pdu.json.to_string();
    let lied = before.iter().filter(|pdu| &*pdu.kind != "m.room.join_rules").map(json).collect();
    let answer = JoinAnswer { state: lied, auth_chain: before.iter().map(json).collect(), ..JoinAnswer::default() };
    lock(&net.lies).insert(name(1), Lies { join: Some(answer), ..Lies::default() });
    let house = net.house(2);
    let refused = come_in(&net, 2, &room, 1).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    assert_eq!(house.servers(&room).await, BTreeSet::new());
    assert!(house.told(&room, &gone).await.is_none());
    come_in(&net, 2, &room, 0).await.expect("joins");
    net.calm_down().await;
    assert_eq!(house.servers(&room).await, net.house(0).servers(&room).await);
    assert_eq!(house.state(&room).await, net.house(0).state(&room).await);
}

#[tokio::test(start_paused = true)]
async fn a_join_that_failed_says_nothing_of_the_rooms_version() {
    for (version, lied) in [(RoomVersionId::V10, RoomVersionId::V9), (RoomVersionId::V12, RoomVersionId::V11)] {
        // Also the server of who created the room may lie at first.
        for liar in [0, 1] {
            let net = Net::of(3, 1).await;
            let room = public_room(&net.house(0), version.clone()).await;
            come_in(&net, 1, &room, 0).await.expect("joins");
            net.calm_down().await;
            let joiner = user(0, 2);
            let template = net
                .house(0)
                .rooms
                .join_template(&room, &joiner, std::slice::from_ref(&version))
                .await
                .expect("may join");
            let creator = user(0, liar);
            let place = Place {
                room_id: Some(&room),
                sender: &creator,
                prev_events: &[],
                auth_events: &[],
                depth: 1,
                origin_server_ts: 1,
                server_name: creator.server_name(),
                v1: None,
            };
            let content = object(json!({ "room_version": lied.as_str(), "creator": creator }));
            let create = Draft::state("m.room.create", "", content);
            let create = seal(create, &place, &key(liar), rules(&lied).expect("known")).expect("seals");
            let answer = JoinAnswer { state: vec![create.json.to_string()], ..JoinAnswer::default() };
            let template = Template { version: lied.clone(), ..template };
            let lies = Lies { template: Some(template), join: Some(answer), ..Lies::default() };
            lock(&net.lies).insert(name(liar), lies);
            let refused = come_in(&net, 2, &room, liar).await;
            assert!(refused.is_err(), "version {version}, {liar}");
            lock(&net.lies).clear();
            come_in(&net, 2, &room, 0).await.unwrap_or_else(|error| panic!("version {version}, {liar}: {error}"));
            net.calm_down().await;
            assert_eq!(net.house(2).state(&room).await, net.house(0).state(&room).await, "version {version}");
            net.house(2).send(&room, &joiner, "here").await.expect("may talk");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn of_the_copy_of_our_join_nothing_but_signatures_is_taken() {
    for version in [RoomVersionId::V1, RoomVersionId::V2, RoomVersionId::V10] {
        let net = Net::of(3, 1).await;
        let (first, third) = (net.house(0), net.house(2));
        let (room, other) = (public_room(&first, version.clone()).await, public_room(&first, version.clone()).await);
        come_in(&net, 1, &room, 0).await.expect("joins");
        come_in(&net, 2, &other, 0).await.expect("joins");
        net.calm_down().await;
        // In old rooms another event may have the same id.
        let (place, at) = (other.clone(), third.tips(&other).await);
        let forge = move |event_id: &EventId| {
            let topic = json!({
                "type": "m.room.topic", "state_key": "", "sender": user(0, 0), "room_id": place, "depth": 9,
                "content": { "topic": "forged" }, "event_id": event_id, "origin_server_ts": 1_000_001,
                "prev_events": at.iter().map(|id| json!([id, {}])).collect::<Vec<_>>(), "auth_events": [],
                "hashes": {}, "signatures": {},
            });
            topic.to_string()
        };
        lock(&net.lies).insert(name(1), Lies { join_event: Some(Arc::new(forge)), ..Lies::default() });
        come_in(&net, 2, &room, 1).await.unwrap_or_else(|error| panic!("version {version}: {error}"));
        net.calm_down().await;
        assert_eq!(third.membership(&room, &user(0, 2)).await.as_deref(), Some("join"), "version {version}");
        assert_eq!(third.state(&room).await, first.state(&room).await, "version {version}");
        assert_eq!(third.content(&other, "m.room.topic", "").await, None, "version {version}");
        // The same where we are in already.
        let second = third.rooms.join_through(&user(1, 2), &room, &[name(1)], CanonicalJsonObject::new()).await;
        second.unwrap_or_else(|error| panic!("version {version}: {error}"));
        net.calm_down().await;
        assert_eq!(third.membership(&room, &user(1, 2)).await.as_deref(), Some("join"), "version {version}");
        assert_eq!(third.content(&other, "m.room.topic", "").await, None, "version {version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_stands_twice_in_a_state_is_there_once_and_two_for_one_place_are_no_state() {
    let net = Net::of(3, 1).await;
    let (first, third) = (net.house(0), net.house(2));
    let room = public_room(&first, RoomVersionId::V10).await;
    let mut topics = Vec::new();
    for topic in ["old", "new"] {
        topics.push(first.set(&room, &user(0, 0), "m.room.topic", "", json!({ "topic": topic })).await.expect("may"));
    }
    come_in(&net, 1, &room, 0).await.expect("joins");
    net.calm_down().await;
    let state = state_of(&first, &room).await;
    let json = |pdu: &Arc<Pdu>| pdu.json.to_string();
    let (old, _) = first.rooms.event(&room, &topics[0]).await.expect("reads").expect("is there");
    let auth_chain: Vec<String> = state.iter().map(json).collect();
    let lie = |more: Vec<String>| {
        let state = auth_chain.iter().cloned().chain(more).collect();
        let answer = JoinAnswer { state, auth_chain: auth_chain.clone(), ..JoinAnswer::default() };
        lock(&net.lies).insert(name(1), Lies { join: Some(answer), ..Lies::default() });
    };
    lie(vec![json(&old)]);
    assert!(matches!(come_in(&net, 2, &room, 1).await, Err(RoomError::BadEvent(_))));
    assert!(third.tip(&room).await.is_none());
    let of_liar = |pdu: &&Arc<Pdu>| pdu.is_state("m.room.member", "@u0:s1.test");
    lie(vec![json(state.iter().find(of_liar).expect("it is in")); 10]);
    come_in(&net, 2, &room, 1).await.expect("joins");
    assert_eq!(third.tip(&room).await.expect("a tip").joined, 3);
    lock(&net.lies).clear();
    let ban = MemberAction::Ban(user(0, 1));
    // Who lied did not tell the others of the join.
    let late = net.house(2).state(&room).await[&("m.room.member".to_owned(), user(0, 2).to_string())].clone();
    let (late, _) = third.rooms.event(&room, &late).await.expect("reads").expect("is there");
    first.rooms.receive(&name(2), &[late.json.to_string()]).await.expect("the store works");
    net.calm_down().await;
    first.rooms.change_membership(&user(0, 0), &room, ban, None).await.expect("may");
    net.calm_down().await;
    for house in [&first, &third] {
        assert_eq!(house.servers(&room).await, [name(0), name(2)].into(), "{}", house.name);
    }
}

#[tokio::test(start_paused = true)]
async fn who_drafts_a_join_says_nothing_of_who_comes_in() {
    let net = Net::of(2, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V11).await;
    let joiner = user(0, 1);
    let template = net.house(0).rooms.join_template(&room, &joiner, &[RoomVersionId::V11]).await.expect("may join");
    let mut event: serde_json::Value = serde_json::from_str(&template.event).expect("JSON");
    event["content"]["displayname"] = json!("a thief");
    event["content"]["reason"] = json!("to steal");
    event["org.example"] = json!(true);
    let template = Template { event: event.to_string(), ..template };
    lock(&net.lies).insert(name(0), Lies { template: Some(template), ..Lies::default() });
    come_in(&net, 1, &room, 0).await.expect("joins");
    net.calm_down().await;
    for house in [net.house(0), net.house(1)] {
        let content = house.content(&room, "m.room.member", joiner.as_str()).await.expect("he is in");
        assert!(content["displayname"] != "a thief" && content.get("reason").is_none(), "{content}");
        let id = &house.state(&room).await[&("m.room.member".to_owned(), joiner.to_string())];
        let (join, _) = house.rooms.event(&room, id).await.expect("reads").expect("is there");
        assert!(!join.json.contains("org.example"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_of_ours_does_not_say_that_it_comes_from_who_drafted_it() {
    for version in SUPPORTED_VERSIONS {
        let net = Net::of(2, 1).await;
        let (house, joiner) = (net.house(0), user(0, 1));
        let room = public_room(&house, version.clone()).await;
        let versions = std::slice::from_ref(&version);
        let template = house.rooms.join_template(&room, &joiner, versions).await.expect("may join");
        let mut event: serde_json::Value = serde_json::from_str(&template.event).expect("JSON");
        assert!(event.get("origin").is_none(), "version {version}: {event}");
        event["origin"] = json!(name(0));
        let template = Template { event: event.to_string(), ..template };
        lock(&net.lies).insert(name(0), Lies { template: Some(template), ..Lies::default() });
        come_in(&net, 1, &room, 0).await.unwrap_or_else(|error| panic!("version {version}: {error}"));
        net.calm_down().await;
        let joins = state_of(&house, &room).await.into_iter().find(|pdu| pdu.sender == joiner);
        let json: serde_json::Value = serde_json::from_str(&joins.expect("he is in").json).expect("JSON");
        assert!(json.get("origin").is_none(), "version {version}: {json}");
        assert_eq!(net.house(1).state(&room).await, house.state(&room).await, "version {version}");
    }
}
