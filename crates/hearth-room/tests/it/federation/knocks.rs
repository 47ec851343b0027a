//! Knocks at rooms of other servers.

use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomVersionId};
use hearth_room::{MemberAction, Preset, RoomError};
use hearth_store::Membership;
use serde_json::json;

use super::{House, Lies, Net, lock, name, new_room, user};

const VERSIONS: [RoomVersionId; 4] = [RoomVersionId::V7, RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12];

/// A room of the first server's first user where one knocks.
async fn knockable(version: RoomVersionId, servers: usize) -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(servers, 1).await;
    let house = net.house(0);
    let mut request = new_room(version, Preset::PrivateChat);
    request.name = Some("Hall".into());
    let room = house.rooms.create(request).await.expect("a room");
    house.set(&room, &user(0, 0), "m.room.join_rules", "", json!({ "join_rule": "knock" })).await.expect("may");
    (net, room)
}

async fn knock(house: &House, room: &OwnedRoomId, who: OwnedUserId) -> Result<(), RoomError> {
    house.rooms.knock(&who, room, &[name(0)], Some("let me in".into())).await
}

async fn membership(house: &House, room: &OwnedRoomId, who: &OwnedUserId) -> Option<Membership> {
    house.told(room, who).await.map(|row| row.membership)
}

async fn act(house: &House, room: &OwnedRoomId, action: MemberAction) {
    house.rooms.change_membership(&user(0, 0), room, action, None).await.expect("may");
}

#[tokio::test(start_paused = true)]
async fn a_knock_is_heard_answered_and_leads_in() {
    for version in VERSIONS {
        let (net, room) = knockable(version.clone(), 2).await;
        let (here, there) = (net.house(0), net.house(1));
        let guest = user(0, 1);
        knock(&there, &room, guest.clone()).await.unwrap_or_else(|error| panic!("version {version}: {error}"));
        assert_eq!(here.membership(&room, &guest).await.as_deref(), Some("knock"));
        let content = here.content(&room, "m.room.member", guest.as_str()).await.expect("the knock");
        assert_eq!(content["reason"], "let me in");
        let told = there.told(&room, &guest).await.expect("he sees it");
        assert_eq!(told.membership, Membership::Knock);
        let stripped = told.stripped.expect("the room's looks");
        for part in ["Hall", "m.room.create", "m.room.join_rules", "let me in"] {
            assert!(stripped.contains(part), "version {version}: {part} in {stripped}");
        }
        knock(&there, &room, guest.clone()).await.expect("may knock louder");
        act(&here, &room, MemberAction::Invite(guest.clone())).await;
        net.calm_down().await;
        assert_eq!(membership(&there, &room, &guest).await, Some(Membership::Invite));
        assert!(matches!(knock(&there, &room, guest.clone()).await, Err(RoomError::Forbidden(_))), "he is invited");
        let ways = there.rooms.ways_in(&guest, &room, &[]).await.expect("reads");
        there.rooms.join_through(&guest, &room, &ways, CanonicalJsonObject::new()).await.expect("may come in");
        net.calm_down().await;
        assert_eq!(here.state(&room).await, there.state(&room).await, "version {version}");
        assert!(matches!(knock(&there, &room, guest.clone()).await, Err(RoomError::Forbidden(_))), "he is in");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_room_at_a_knock_is_of_this_room() {
    for version in VERSIONS {
        let (net, room) = knockable(version.clone(), 2).await;
        let (here, there) = (net.house(0), net.house(1));
        let other = here.rooms.create(new_room(version.clone(), Preset::PublicChat)).await.expect("a room");
        let topic = json!({ "topic": "of another room" });
        let topic = here.set(&other, &user(0, 0), "m.room.topic", "", topic).await.expect("may");
        let (topic, _) = here.rooms.event(&other, &topic).await.expect("reads").expect("is there");
        let name_id = &here.state(&room).await[&("m.room.name".to_owned(), String::new())];
        let (hall, _) = here.rooms.event(&room, name_id).await.expect("reads").expect("is there");
        let lies =
            Lies { knock_room_state: Some(vec![topic.json.to_string(), hall.json.to_string()]), ..Lies::default() };
        lock(&net.lies).insert(name(0), lies);
        knock(&there, &room, user(0, 1)).await.expect("the knock stands");
        let told = there.told(&room, &user(0, 1)).await.expect("he sees it").stripped.expect("the room's looks");
        assert!(told.contains("Hall") && !told.contains("of another room"), "version {version}: {told}");
        if version == RoomVersionId::V12 {
            let forged = hall.json.replace("Hall", "Hell");
            let lies = Lies { knock_room_state: Some(vec![forged]), ..Lies::default() };
            lock(&net.lies).insert(name(0), lies);
            knock(&there, &room, user(0, 1)).await.expect("the knock stands");
            let told = there.told(&room, &user(0, 1)).await.expect("he sees it").stripped.expect("the room's looks");
            assert!(!told.contains("Hell"), "{told}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_knock_is_taken_back() {
    for version in VERSIONS {
        let (net, room) = knockable(version.clone(), 2).await;
        let (here, there) = (net.house(0), net.house(1));
        let leave = async || there.rooms.change_membership(&user(0, 1), &room, MemberAction::Leave, None).await;
        knock(&there, &room, user(0, 1)).await.expect("may knock");
        assert!(leave().await.expect("may take it back"));
        assert_eq!(here.membership(&room, &user(0, 1)).await.as_deref(), Some("leave"), "version {version}");
        assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Leave));
        knock(&there, &room, user(0, 1)).await.expect("may knock again");
        lock(&net.mute).insert(name(0));
        assert!(leave().await.expect("also while nobody hears it"));
        assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Leave));
        lock(&net.mute).clear();
        knock(&there, &room, user(0, 1)).await.expect("and again");
        assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Knock));
    }
}

#[tokio::test(start_paused = true)]
async fn a_knock_is_refused_by_kick_and_by_ban() {
    for version in VERSIONS {
        let (net, room) = knockable(version.clone(), 2).await;
        let (here, there) = (net.house(0), net.house(1));
        let guest = user(0, 1);
        knock(&there, &room, guest.clone()).await.expect("may knock");
        act(&here, &room, MemberAction::Kick(guest.clone())).await;
        net.calm_down().await;
        assert_eq!(membership(&there, &room, &guest).await, Some(Membership::Leave), "version {version}");
        knock(&there, &room, guest.clone()).await.expect("may knock again");
        act(&here, &room, MemberAction::Ban(guest.clone())).await;
        net.calm_down().await;
        assert_eq!(membership(&there, &room, &guest).await, Some(Membership::Ban), "version {version}");
        let refusal = knock(&there, &room, guest.clone()).await;
        assert!(
            matches!(refusal, Err(RoomError::RefusedBy { ref refusal, .. }) if refusal.errcode == "M_FORBIDDEN"),
            "{refusal:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn rooms_that_hear_no_knock_say_so() {
    let (net, room) = knockable(RoomVersionId::V10, 2).await;
    let (here, there) = (net.house(0), net.house(1));
    here.set(&room, &user(0, 0), "m.room.join_rules", "", json!({ "join_rule": "invite" })).await.expect("may");
    let refusal = knock(&there, &room, user(0, 1)).await;
    assert!(
        matches!(refusal, Err(RoomError::RefusedBy { ref refusal, .. }) if refusal.errcode == "M_FORBIDDEN"),
        "{refusal:?}"
    );
    assert_eq!(membership(&there, &room, &user(0, 1)).await, None);
    let old = here.rooms.create(new_room(RoomVersionId::V6, Preset::PrivateChat)).await.expect("a room");
    here.set(&old, &user(0, 0), "m.room.join_rules", "", json!({ "join_rule": "knock" })).await.expect("may");
    assert!(knock(&there, &old, user(0, 1)).await.is_err());
    let nowhere = OwnedRoomId::try_from("!nowhere:s0.test").expect("a room id");
    let refusal = knock(&there, &nowhere, user(0, 1)).await;
    assert!(
        matches!(refusal, Err(RoomError::RefusedBy { ref refusal, .. }) if refusal.errcode == "M_NOT_FOUND"),
        "{refusal:?}"
    );
    let template = here.rooms.knock_template(&room, &user(0, 1), &[RoomVersionId::V9]).await;
    assert!(matches!(template, Err(RoomError::UnsupportedVersion(RoomVersionId::V10))));
    lock(&net.mute).insert(name(0));
    assert!(matches!(knock(&there, &room, user(0, 1)).await, Err(RoomError::Unreachable(_))));
}

#[tokio::test(start_paused = true)]
async fn who_is_shut_out_by_the_acl_may_neither_knock_nor_leave_nor_join() {
    let (net, room) = knockable(RoomVersionId::V11, 2).await;
    let (here, there) = (net.house(0), net.house(1));
    knock(&there, &room, user(0, 1)).await.expect("may knock");
    let acl = json!({ "allow": ["*"], "deny": ["s1.test"] });
    here.set(&room, &user(0, 0), "m.room.server_acl", "", acl).await.expect("may");
    let versions = [RoomVersionId::V11];
    assert!(matches!(here.rooms.knock_template(&room, &user(1, 1), &versions).await, Err(RoomError::Forbidden(_))));
    assert!(matches!(here.rooms.join_template(&room, &user(1, 1), &versions).await, Err(RoomError::Forbidden(_))));
    assert!(matches!(here.rooms.leave_template(&room, &user(0, 1)).await, Err(RoomError::Forbidden(_))));
    // He is rid of it all the same.
    there.rooms.change_membership(&user(0, 1), &room, MemberAction::Leave, None).await.expect("may leave");
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Leave));
}

#[tokio::test(start_paused = true)]
async fn nothing_but_the_event_asked_for_is_submitted() {
    let (net, room) = knockable(RoomVersionId::V10, 2).await;
    let (here, there) = (net.house(0), net.house(1));
    knock(&there, &room, user(0, 1)).await.expect("may knock");
    let state = here.state(&room).await;
    let id = &state[&("m.room.member".to_owned(), user(0, 1).to_string())];
    let (knock, _) = here.rooms.event(&room, id).await.expect("reads").expect("is there");
    let refusal = here.rooms.take_leave(&name(1), &room, id, &knock.json).await;
    assert!(matches!(refusal, Err(RoomError::InvalidParam(_))), "a knock is no leave: {refusal:?}");
    let refusal = here.rooms.welcome(&name(1), &room, id, &knock.json, false).await;
    assert!(matches!(refusal, Err(RoomError::InvalidParam(_))), "a knock is no join: {refusal:?}");
    here.rooms.take_knock(&name(1), &room, id, &knock.json).await.expect("the same again");
    let refusal = here.rooms.take_knock(&name(0), &room, id, &knock.json).await;
    assert!(matches!(refusal, Err(RoomError::InvalidParam(_))), "of another server: {refusal:?}");
    let create = &state[&("m.room.create".to_owned(), String::new())];
    let refusal = here.rooms.take_knock(&name(1), &room, create, &knock.json).await;
    assert!(matches!(refusal, Err(RoomError::InvalidParam(_))), "another id in the path: {refusal:?}");
    for nonsense in ["", "{}", "[]", "{\"type\":\"m.room.member\"}"] {
        let refusal = here.rooms.take_leave(&name(1), &room, id, nonsense).await;
        assert!(matches!(refusal, Err(RoomError::BadEvent(_))), "{nonsense}");
    }
}
