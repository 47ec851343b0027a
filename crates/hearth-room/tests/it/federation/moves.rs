//! Coming into a room through a server that lies about it, and then through one that does not.

use std::collections::BTreeSet;
use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedRoomId, RoomVersionId};
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
