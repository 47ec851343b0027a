//! Joins whose answer leaves members out: the room is used at once, and whole in the end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId, UserId};
use hearth_matrix::{Draft, Pdu, Place, SUPPORTED_VERSIONS, rules, seal};
use hearth_room::{MemberAction, RoomError};
use hearth_store::Standing;
use serde_json::json;

use super::{House, Net, key, lock, name, object, public_room, text, user};

/// A room of three servers, into which somebody of the fourth comes while nobody tells him who else is there.
async fn partial(version: RoomVersionId) -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), version).await;
    for n in 1..3 {
        join(&net, n, &room).await;
    }
    name_it(&net, &room).await;
    net.omit_members.store(true, Relaxed);
    for n in 0..3 {
        lock(&net.stateless).insert(name(n));
    }
    let house = net.house(3);
    house.rooms.join_through(&user(0, 3), &room, &[name(0)], CanonicalJsonObject::new()).await.expect("joins");
    deliver_all(&net).await;
    assert!(house.rooms.is_partial(&room).await.expect("reads"));
    (net, room)
}

/// A room without a name is called by some of its members: of those one would be told.
async fn name_it(net: &Net, room: &OwnedRoomId) {
    net.house(0).set(room, &user(0, 0), "m.room.name", "", json!({ "name": "The room" })).await.expect("may set");
    net.calm_down().await;
}

async fn join(net: &Net, n: usize, room: &OwnedRoomId) {
    let joined = net.house(n).rooms.join_through(&user(0, n), room, &[name(0)], CanonicalJsonObject::new()).await;
    joined.expect("joins");
    net.calm_down().await;
}

/// Delivers what there is, and does not wait for whom nobody answers.
async fn deliver_all(net: &Net) {
    loop {
        let packets = net.packets().await;
        if packets.is_empty() {
            return;
        }
        for packet in &packets {
            net.deliver(packet).await;
        }
    }
}

/// Now they tell, and the room is whole like everywhere.
async fn complete(net: &Net, room: &OwnedRoomId) {
    lock(&net.stateless).clear();
    net.calm_down().await;
    let house = net.house(3);
    assert!(!house.rooms.is_partial(room).await.expect("reads"));
    assert_eq!(house.state(room).await, net.house(0).state(room).await);
    let (here, there) = (house.tip(room).await.expect("a tip"), net.house(0).tip(room).await.expect("a tip"));
    assert_eq!((here.joined, here.invited, here.knocked), (there.joined, there.invited, there.knocked));
    assert_eq!(house.servers(room).await, net.house(0).servers(room).await);
}

#[tokio::test(start_paused = true)]
async fn a_room_without_a_name_is_called_by_members() {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V12).await;
    join(&net, 1, &room).await;
    net.omit_members.store(true, Relaxed);
    lock(&net.stateless).extend([name(0), name(1)]);
    net.house(3).rooms.join_through(&user(0, 3), &room, &[name(0)], CanonicalJsonObject::new()).await.expect("joins");
    assert!(net.house(3).rooms.is_partial(&room).await.expect("reads"));
    assert_eq!(net.house(3).membership(&room, &user(0, 1)).await.as_deref(), Some("join"));
}

#[tokio::test(start_paused = true)]
async fn a_room_is_used_before_its_members_are_known() {
    for version in SUPPORTED_VERSIONS {
        let (net, room) = partial(version.clone()).await;
        let house = net.house(3);
        assert_eq!(house.membership(&room, &user(0, 1)).await, None, "{version}");
        // One of whom nothing is known speaks, and is known by it.
        let heard = net.house(1).send(&room, &user(0, 1), "hello").await.expect("may talk");
        deliver_all(&net).await;
        assert_eq!(house.standing(&room, &heard).await, Some(Standing::Live), "{version}");
        assert_eq!(house.membership(&room, &user(0, 1)).await.as_deref(), Some("join"), "{version}");
        // And hears.
        let said = house.send(&room, &user(0, 3), "hi").await.expect("may talk");
        let topic = net.house(0).set(&room, &user(0, 0), "m.room.topic", "", json!({ "topic": "t" })).await;
        deliver_all(&net).await;
        for n in 0..3 {
            assert_eq!(net.house(n).standing(&room, &said).await, Some(Standing::Live), "{version}, {n}");
        }
        let topic = topic.expect("may set");
        assert_eq!(house.standing(&room, &topic).await, Some(Standing::Live), "{version}");
        assert!(house.rooms.is_partial(&room).await.expect("reads"), "{version}");
        complete(&net, &room).await;
        let tip = house.tip(&room).await.expect("a tip");
        assert_eq!((tip.joined, tip.joined_local), (4, 1), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_told_to_nobody() {
    let (net, room) = partial(RoomVersionId::V11).await;
    let house = net.house(3);
    let said = house.send(&room, &user(0, 3), "hi").await.expect("may talk");
    let state = house.rooms.state_before(&room, &said).await;
    assert!(matches!(state, Err(RoomError::Forbidden(_))), "{state:?}");
    let template = house.rooms.join_template(&room, &user(1, 1), &SUPPORTED_VERSIONS).await;
    assert!(matches!(template, Err(RoomError::UnknownRoom)), "{template:?}");
    let template = house.rooms.knock_template(&room, &user(1, 1), &SUPPORTED_VERSIONS).await;
    assert!(matches!(template, Err(RoomError::UnknownRoom)), "{template:?}");
    // Another user of ours comes in through those who know whether he may.
    let content = CanonicalJsonObject::new();
    house.rooms.enter(&user(1, 3), &room, false, content, vec![name(1)]).await.expect("comes in");
    deliver_all(&net).await;
    complete(&net, &room).await;
    let state = house.rooms.state_before(&room, &said).await.expect("is known by now");
    assert!(state.state.iter().any(|pdu| pdu.is_state("m.room.member", "@u0:s1.test")));
    house.rooms.join_template(&room, &user(1, 1), &SUPPORTED_VERSIONS).await.expect("is known by now");
}

#[tokio::test(start_paused = true)]
async fn any_server_may_tell_the_rest() {
    let (net, room) = partial(RoomVersionId::V10).await;
    // The one that let him in never does.
    for n in 1..3 {
        lock(&net.stateless).remove(&name(n));
    }
    net.calm_down().await;
    assert!(!net.house(3).rooms.is_partial(&room).await.expect("reads"));
    complete(&net, &room).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_it_up_again() {
    let (net, room) = partial(RoomVersionId::V12).await;
    let heard = net.house(1).send(&room, &user(0, 1), "hello").await.expect("may talk");
    deliver_all(&net).await;
    net.move_in_again(3, 2).await;
    assert!(net.house(3).rooms.is_partial(&room).await.expect("reads"));
    complete(&net, &room).await;
    assert_eq!(net.house(3).standing(&room, &heard).await, Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_before_it_is_whole_finds_it_whole_in_the_end() {
    let (net, room) = partial(RoomVersionId::V10).await;
    let house = net.house(3);
    let me = user(0, 3);
    house.rooms.change_membership(&me, &room, MemberAction::Leave, None).await.expect("leaves");
    deliver_all(&net).await;
    assert_eq!(net.house(0).membership(&room, &me).await.as_deref(), Some("leave"));
    house.rooms.enter(&me, &room, false, CanonicalJsonObject::new(), vec![name(0)]).await.expect("comes back");
    deliver_all(&net).await;
    assert!(house.rooms.is_partial(&room).await.expect("reads"));
    complete(&net, &room).await;
    assert_eq!(house.membership(&room, &me).await.as_deref(), Some("join"));
}

/// An event that claims what was true once.
async fn claiming(
    net: &Net,
    room: &OwnedRoomId,
    sender: &UserId,
    draft: Draft,
    prev: &OwnedEventId,
    auth: Vec<OwnedEventId>,
) -> Pdu {
    let house: Arc<House> = net.house(0);
    let depth = house.tip(room).await.expect("a tip").depth as u64 + 1;
    let (prev, auth) = (std::slice::from_ref(prev), &auth[..]);
    let place = Place {
        room_id: Some(room),
        sender,
        prev_events: prev,
        auth_events: auth,
        depth,
        origin_server_ts: 1_000_001,
        server_name: sender.server_name(),
        v1: None,
    };
    seal(draft, &place, &key(1), rules(&RoomVersionId::V10).expect("known")).expect("seals")
}

#[tokio::test(start_paused = true)]
async fn the_whole_state_decides_over_what_was_believed() {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V10).await;
    for n in 1..3 {
        join(&net, n, &room).await;
    }
    name_it(&net, &room).await;
    let (liar, victim) = (user(0, 1), user(0, 2));
    let levels = json!({ "users": { user(0, 0): 100, liar.clone(): 100, victim.clone(): 50 } });
    net.house(0).set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may set");
    net.calm_down().await;
    let at = |kind: &str, key: &str| (kind.to_owned(), key.to_owned());
    let before = net.house(0).state(&room).await;
    let claims = |users: &[&UserId]| {
        let mut auth = vec![before[&at("m.room.create", "")].clone(), before[&at("m.room.power_levels", "")].clone()];
        auth.extend(users.iter().map(|user| before[&at("m.room.member", user.as_str())].clone()));
        auth
    };
    // The liar is out; the fourth server does not know.
    net.house(1).rooms.change_membership(&liar, &room, MemberAction::Leave, None).await.expect("leaves");
    net.calm_down().await;
    net.omit_members.store(true, Relaxed);
    for n in 0..3 {
        lock(&net.stateless).insert(name(n));
    }
    let house = net.house(3);
    house.rooms.join_through(&user(0, 3), &room, &[name(0)], CanonicalJsonObject::new()).await.expect("joins");
    deliver_all(&net).await;
    let own_join = net.house(0).state(&room).await[&at("m.room.member", user(0, 3).as_str())].clone();

    let kick = Draft::state("m.room.member", victim.as_str(), object(json!({ "membership": "leave" })));
    let kick = claiming(&net, &room, &liar, kick, &own_join, claims(&[&liar, &victim])).await;
    house.rooms.receive(&name(1), &[kick.json.to_string()]).await.expect("the store works");
    deliver_all(&net).await;
    house.let_work().await;
    assert_eq!(house.standing(&room, &kick.event_id).await, Some(Standing::Live));
    assert_eq!(house.membership(&room, &victim).await.as_deref(), Some("leave"));

    // What the victim does then is refused for now: for all that is known he is out.
    let topic = Draft::state("m.room.topic", "", object(json!({ "topic": "mine" })));
    let auth = claims(&[&victim]);
    let sender: &UserId = &victim;
    let place = Place {
        room_id: Some(&room),
        sender,
        prev_events: std::slice::from_ref(&kick.event_id),
        auth_events: &auth,
        depth: kick.depth + 1,
        origin_server_ts: 1_000_002,
        server_name: sender.server_name(),
        v1: None,
    };
    let topic = seal(topic, &place, &key(2), rules(&RoomVersionId::V10).expect("known")).expect("seals");
    house.rooms.receive(&name(2), &[topic.json.to_string()]).await.expect("the store works");
    house.let_work().await;
    assert_eq!(house.standing(&room, &topic.event_id).await, Some(Standing::Rejected));

    lock(&net.stateless).clear();
    while house.rooms.is_partial(&room).await.expect("reads") {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    assert_eq!(house.standing(&room, &kick.event_id).await, Some(Standing::Rejected));
    assert_eq!(house.standing(&room, &topic.event_id).await, Some(Standing::Live));
    assert_eq!(house.membership(&room, &victim).await.as_deref(), Some("join"));
    assert_eq!(house.membership(&room, &liar).await.as_deref(), Some("leave"));
    assert_eq!(house.content(&room, "m.room.topic", "").await, Some(json!({ "topic": "mine" })));
    let tip = house.tip(&room).await.expect("a tip");
    assert_eq!((tip.joined, tip.extremities.len()), (3, 1));
    house.rooms.send(&user(0, 3), &room, text("on"), None, None).await.expect("may talk");
}

#[tokio::test(start_paused = true)]
async fn a_ban_from_an_earlier_stay_does_not_hold_in_the_next() {
    let net = Net::of(2, 1).await;
    let (here, there) = (net.house(0), net.house(1));
    let room = public_room(&here, RoomVersionId::V12).await;
    name_it(&net, &room).await;
    join(&net, 1, &room).await;
    let (host, first, second) = (user(0, 0), user(0, 1), user(1, 1));
    there.rooms.enter(&second, &room, false, CanonicalJsonObject::new(), vec![name(0)]).await.expect("comes in");
    net.calm_down().await;
    here.rooms.change_membership(&host, &room, MemberAction::Ban(second.clone()), None).await.expect("may");
    net.calm_down().await;
    there.rooms.change_membership(&first, &room, MemberAction::Leave, None).await.expect("leaves");
    net.calm_down().await;
    // Nobody there hears of it.
    here.rooms.change_membership(&host, &room, MemberAction::Unban(second.clone()), None).await.expect("may");
    drop(net.packets().await);
    net.omit_members.store(true, Relaxed);
    lock(&net.stateless).insert(name(0));
    for user in [&first, &second] {
        let content = CanonicalJsonObject::new();
        there.rooms.enter(user, &room, false, content, vec![name(0)]).await.expect("comes back");
    }
    assert!(there.rooms.is_partial(&room).await.expect("reads"));
    lock(&net.stateless).clear();
    net.calm_down().await;
    assert_eq!(there.membership(&room, &second).await.as_deref(), Some("join"));
    assert_eq!(there.state(&room).await, here.state(&room).await);
}
