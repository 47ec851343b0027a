//! Invites from one server to another: made, accepted, declined, taken back, refused.

use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomVersionId};
use hearth_matrix::{Draft, Pdu, Place, V1Place, rules, seal};
use hearth_room::{Dropped, Invitation, MemberAction, Preset, RoomError};
use hearth_store::{Membership, Noun};
use serde_json::json;

use super::{House, Net, key, lock, name, new_room, object, user};

const VERSIONS: [RoomVersionId; 6] = [
    RoomVersionId::V1,
    RoomVersionId::V2,
    RoomVersionId::V7,
    RoomVersionId::V10,
    RoomVersionId::V11,
    RoomVersionId::V12,
];

/// A private room of the first server's first user.
async fn private_room(net: &Net, version: RoomVersionId) -> OwnedRoomId {
    let mut request = new_room(version, Preset::PrivateChat);
    request.name = Some("Hall".into());
    net.house(0).rooms.create(request).await.expect("a room")
}

async fn invite(house: &House, room: &OwnedRoomId, by: OwnedUserId, target: OwnedUserId) -> Result<bool, RoomError> {
    house.rooms.change_membership(&by, room, MemberAction::Invite(target), None).await
}

async fn leave(house: &House, room: &OwnedRoomId, who: OwnedUserId) -> Result<bool, RoomError> {
    house.rooms.change_membership(&who, room, MemberAction::Leave, None).await
}

async fn enter(house: &House, room: &OwnedRoomId, who: OwnedUserId) -> Result<(), RoomError> {
    let ways = house.rooms.ways_in(&who, room, &[]).await?;
    house.rooms.join_through(&who, room, &ways, CanonicalJsonObject::new()).await
}

async fn membership(house: &House, room: &OwnedRoomId, who: &OwnedUserId) -> Option<Membership> {
    house.told(room, who).await.map(|row| row.membership)
}

/// Two servers, a room of the first, and an invite of the second's first user.
async fn invited(version: RoomVersionId, servers: usize) -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(servers, 1).await;
    let room = private_room(&net, version).await;
    invite(&net.house(0), &room, user(0, 0), user(0, 1)).await.expect("may invite");
    net.calm_down().await;
    (net, room)
}

#[tokio::test(start_paused = true)]
async fn an_invite_tells_of_the_room_and_leads_into_it() {
    for version in VERSIONS {
        let (net, room) = invited(version.clone(), 2).await;
        let (here, there) = (net.house(0), net.house(1));
        let guest = user(0, 1);
        assert_eq!(here.membership(&room, &guest).await.as_deref(), Some("invite"), "version {version}");
        let told = there.told(&room, &guest).await.expect("he is told");
        assert_eq!(told.membership, Membership::Invite);
        let stripped: Vec<serde_json::Value> =
            serde_json::from_str(&told.stripped.expect("the room's looks")).expect("JSON");
        let of = |kind: &str| stripped.iter().find(|event| event["type"] == kind).cloned().unwrap_or_default();
        assert_eq!(of("m.room.name")["content"]["name"], "Hall");
        assert!(of("m.room.create")["origin_server_ts"].is_i64(), "version {version}: {stripped:?}");
        assert!(of("m.room.name").get("origin_server_ts").is_none(), "the rest is stripped");
        let own = stripped.last().expect("the invite");
        assert_eq!((&own["state_key"], &own["content"]["membership"]), (&json!(guest), &json!("invite")));

        assert!(matches!(
            there.rooms.join(&guest, &room, false, CanonicalJsonObject::new()).await,
            Err(RoomError::UnknownRoom)
        ));
        enter(&there, &room, guest.clone()).await.expect("the invite leads in");
        net.calm_down().await;
        assert_eq!(membership(&there, &room, &guest).await, Some(Membership::Join));
        assert_eq!(there.state(&room).await, here.state(&room).await, "version {version}");
        let tip = there.tip(&room).await.expect("a tip");
        assert_eq!((tip.joined, tip.joined_local, tip.invited), (2, 1, 0), "version {version}");
        there.send(&room, &guest, "hello").await.expect("may talk");
    }
}

#[tokio::test(start_paused = true)]
async fn a_declined_invite_is_over_on_both_sides_and_may_come_again() {
    for version in VERSIONS {
        let (net, room) = invited(version.clone(), 2).await;
        let (here, there) = (net.house(0), net.house(1));
        let guest = user(0, 1);
        for round in 0..3 {
            assert!(leave(&there, &room, guest.clone()).await.expect("may leave"));
            assert!(!leave(&there, &room, guest.clone()).await.expect("is gone"), "once is enough");
            let told = there.told(&room, &guest).await.expect("is known");
            assert_eq!(told.membership, Membership::Leave);
            assert!(told.stripped.expect("the leave").contains("\"leave\""), "version {version}");
            assert_eq!(here.membership(&room, &guest).await.as_deref(), Some("leave"), "version {version}");
            assert!(enter(&there, &room, guest.clone()).await.is_err());
            let again = invite(&here, &room, user(0, 0), guest.clone()).await;
            again.unwrap_or_else(|error| panic!("version {version}, round {round}: {error}"));
            assert_eq!(membership(&there, &room, &guest).await, Some(Membership::Invite));
        }
        there.rooms.leave_all(&guest).await.expect("leaves");
        assert_eq!(here.membership(&room, &guest).await.as_deref(), Some("leave"), "version {version}");
        there.rooms.forget(&guest, &room).await.expect("may forget");
    }
}

#[tokio::test(start_paused = true)]
async fn an_invite_is_declined_also_while_nobody_hears_it() {
    let (net, room) = invited(RoomVersionId::V12, 2).await;
    let (here, there) = (net.house(0), net.house(1));
    net.cut(0, 1);
    assert!(leave(&there, &room, user(0, 1)).await.expect("may leave"));
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Leave));
    net.heal();
    assert_eq!(here.membership(&room, &user(0, 1)).await.as_deref(), Some("invite"), "nobody knows");
    // Whoever wants him asks again, in the very same words.
    invite(&here, &room, user(0, 0), user(0, 1)).await.expect("may invite");
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Invite));
    enter(&there, &room, user(0, 1)).await.expect("the invite leads in");
}

#[tokio::test(start_paused = true)]
async fn an_invite_to_a_room_that_everybody_left_is_declined() {
    let (net, room) = invited(RoomVersionId::V11, 2).await;
    leave(&net.house(0), &room, user(0, 0)).await.expect("may leave");
    net.calm_down().await;
    let there = net.house(1);
    assert!(leave(&there, &room, user(0, 1)).await.expect("may leave"));
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Leave));
    assert!(matches!(leave(&there, &room, user(1, 1)).await, Err(RoomError::Forbidden(_))), "he never was there");
}

#[tokio::test(start_paused = true)]
async fn an_invite_is_taken_back_by_who_made_it_and_by_nobody_else() {
    for version in VERSIONS {
        let net = Net::of(2, 1).await;
        let (here, there) = (net.house(0), net.house(1));
        let room = private_room(&net, version.clone()).await;
        invite(&here, &room, user(0, 0), user(1, 0)).await.expect("may invite");
        here.rooms
            .change_membership(&user(1, 0), &room, MemberAction::Join { guest: false }, None)
            .await
            .expect("may join");
        invite(&here, &room, user(1, 0), user(0, 1)).await.expect("may invite");
        invite(&here, &room, user(0, 0), user(1, 1)).await.expect("may invite");
        net.calm_down().await;
        let kick = async |target: OwnedUserId| {
            here.rooms.change_membership(&user(0, 0), &room, MemberAction::Kick(target), None).await.expect("may kick");
        };
        kick(user(0, 1)).await;
        kick(user(1, 1)).await;
        let packets = net.packets().await;
        for packet in &packets {
            net.deliver(packet).await;
        }
        assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Invite), "version {version}");
        assert_eq!(membership(&there, &room, &user(1, 1)).await, Some(Membership::Leave), "version {version}");
        // What was taken back once does not take back what comes later.
        invite(&here, &room, user(0, 0), user(1, 1)).await.expect("may invite");
        for packet in &packets {
            net.deliver(packet).await;
        }
        assert_eq!(membership(&there, &room, &user(1, 1)).await, Some(Membership::Invite), "version {version}");
        let forged = packets.iter().find(|packet| packet.json.contains("@u1:s1.test")).expect("the kick");
        let forged = forged.json.replace("\"depth\":", "\"depth\":1");
        let outcome = there.rooms.receive(&name(0), &[forged]).await.expect("the store works");
        assert!(outcome[0].outcome.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_second_user_comes_in_while_the_first_is_invited() {
    let (net, room) = invited(RoomVersionId::V12, 2).await;
    let (here, there) = (net.house(0), net.house(1));
    invite(&here, &room, user(0, 0), user(1, 1)).await.expect("may invite");
    net.cut(0, 1);
    // Of this one our room will tell, not the other way round.
    here.rooms.change_membership(&user(0, 0), &room, MemberAction::Kick(user(0, 1)), None).await.expect("may kick");
    drop(net.packets().await);
    net.heal();
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Invite));
    enter(&there, &room, user(1, 1)).await.expect("may come in");
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Leave), "the room knows better");
    invite(&here, &room, user(0, 0), user(0, 1)).await.expect("may invite");
    net.calm_down().await;
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Invite));
    there
        .rooms
        .change_membership(&user(0, 1), &room, MemberAction::Join { guest: false }, None)
        .await
        .expect("the room is here now");
    net.calm_down().await;
    assert_eq!(here.state(&room).await, there.state(&room).await);
    let tip = there.tip(&room).await.expect("a tip");
    assert_eq!((tip.joined, tip.joined_local, tip.invited), (3, 2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_invite_leads_back_into_a_room_that_was_left() {
    let (net, room) = invited(RoomVersionId::V10, 3).await;
    let (here, there) = (net.house(0), net.house(1));
    enter(&there, &room, user(0, 1)).await.expect("may come in");
    net.calm_down().await;
    invite(&there, &room, user(0, 1), user(0, 2)).await.expect("may invite");
    net.calm_down().await;
    enter(&net.house(2), &room, user(0, 2)).await.expect("may come in");
    net.calm_down().await;
    leave(&there, &room, user(0, 1)).await.expect("may leave");
    net.calm_down().await;
    here.set(&room, &user(0, 0), "m.room.topic", "", json!({ "topic": "anew" })).await.expect("may");
    invite(&here, &room, user(0, 0), user(0, 1)).await.expect("may invite");
    net.calm_down().await;
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Invite));
    // The inviter goes; others are still there.
    leave(&here, &room, user(0, 0)).await.expect("may leave");
    net.calm_down().await;
    enter(&there, &room, user(0, 1)).await.expect("another server lets him in");
    net.calm_down().await;
    assert_eq!(there.state(&room).await, net.house(2).state(&room).await);
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Join));
}

#[tokio::test(start_paused = true)]
async fn a_refused_invite_leaves_the_room_as_it_was() {
    let net = Net::of(2, 1).await;
    let (here, there) = (net.house(0), net.house(1));
    let room = private_room(&net, RoomVersionId::V12).await;
    let before = here.tip(&room).await;
    let ask = async |target: OwnedUserId| invite(&here, &room, user(0, 0), target).await.expect_err("is refused");

    let nobody = OwnedUserId::try_from("@nobody:s1.test").expect("a user id");
    assert!(matches!(ask(nobody).await, RoomError::RefusedBy { refusal, .. } if refusal.errcode == "M_FORBIDDEN"));
    let blocker = user(1, 1);
    there
        .store
        .write(vec![Noun::Name(blocker.to_string())], move |tx| {
            let user = tx.intern(blocker.as_str())?;
            tx.account_data().set(user, None, "m.invite_permission_config", r#"{"default_action":"block"}"#)
        })
        .await
        .expect("writes");
    assert!(
        matches!(ask(user(1, 1)).await, RoomError::RefusedBy { refusal, .. } if refusal.errcode == "M_INVITE_BLOCKED")
    );
    let leaver = user(0, 1);
    there
        .store
        .write(vec![Noun::Name(leaver.to_string())], move |tx| {
            let user = tx.intern(leaver.as_str())?;
            tx.accounts().deactivate(user, false)
        })
        .await
        .expect("writes");
    assert!(matches!(ask(user(0, 1)).await, RoomError::RefusedBy { refusal, .. } if refusal.errcode == "M_FORBIDDEN"));
    lock(&net.mute).insert(name(1));
    assert!(matches!(ask(user(0, 1)).await, RoomError::Unreachable(_)));
    let far = OwnedUserId::try_from("@a:nowhere.test").expect("a user id");
    assert!(matches!(ask(far).await, RoomError::Unreachable(_)));
    assert_eq!(here.tip(&room).await, before);
    assert!(matches!(invite(&here, &room, user(1, 0), user(0, 1)).await, Err(RoomError::Forbidden(_)),));
}

#[tokio::test(start_paused = true)]
async fn a_new_room_stands_whoever_of_its_invited_can_be_reached() {
    let net = Net::of(3, 1).await;
    lock(&net.mute).insert(name(2));
    let mut request = new_room(RoomVersionId::V12, Preset::TrustedPrivateChat);
    request.invite = vec![user(1, 0), user(0, 1), user(0, 2)];
    request.is_direct = true;
    let room = net.house(0).rooms.create(request).await.expect("a room");
    let (here, there) = (net.house(0), net.house(1));
    assert_eq!(here.membership(&room, &user(1, 0)).await.as_deref(), Some("invite"));
    assert_eq!(here.membership(&room, &user(0, 1)).await.as_deref(), Some("invite"));
    assert_eq!(here.membership(&room, &user(0, 2)).await, None);
    let content = here.content(&room, "m.room.member", user(0, 1).as_str()).await.expect("the invite");
    assert_eq!(content["is_direct"], true);
    enter(&there, &room, user(0, 1)).await.expect("may come in");
    there.set(&room, &user(0, 1), "m.room.topic", "", json!({ "topic": "mine, too" })).await.expect("a creator");
}

#[tokio::test(start_paused = true)]
async fn an_invite_written_as_state_goes_the_same_way() {
    let net = Net::of(2, 1).await;
    let room = private_room(&net, RoomVersionId::V11).await;
    let (here, there) = (net.house(0), net.house(1));
    let content = json!({ "membership": "invite", "is_direct": true });
    here.set(&room, &user(0, 0), "m.room.member", user(0, 1).as_str(), content).await.expect("may invite");
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Invite));
    let stranger = json!({ "membership": "invite" });
    assert!(here.set(&room, &user(1, 0), "m.room.member", user(1, 1).as_str(), stranger).await.is_err());
}

/// An invite of the first server's first user, as he pleases.
fn forged(version: &RoomVersionId, room: &OwnedRoomId, draft: Draft) -> Pdu {
    forged_by(0, version, room, draft)
}

/// The same of a server's first user.
fn forged_by(server: usize, version: &RoomVersionId, room: &OwnedRoomId, draft: Draft) -> Pdu {
    let with_hashes = matches!(version, RoomVersionId::V1 | RoomVersionId::V2);
    let place = Place {
        room_id: Some(room),
        sender: &user(0, server),
        prev_events: &[],
        auth_events: &[],
        depth: 5,
        origin_server_ts: 1_000_001,
        server_name: &name(server),
        v1: with_hashes.then_some(V1Place { opaque: "forged", reference_hash: &|_| None }),
    };
    seal(draft, &place, &key(server), rules(version).expect("known")).expect("seals")
}

fn invitation(
    version: &RoomVersionId,
    room: &OwnedRoomId,
    invite: &Pdu,
    room_state: &[serde_json::Value],
) -> Invitation {
    Invitation {
        room_id: room.clone(),
        version: version.clone(),
        event_id: invite.event_id.clone(),
        event: invite.json.to_string(),
        room_state: room_state.iter().map(ToString::to_string).collect(),
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_signed_that_is_no_proper_invite() {
    let net = Net::of(3, 1).await;
    let there = net.house(1);
    let version = RoomVersionId::V10;
    let room = OwnedRoomId::try_from("!elsewhere:s0.test").expect("a room id");
    let member = |target: &str, membership: &str| {
        Draft::state("m.room.member", target, object(json!({ "membership": membership })))
    };
    let take = async |from: usize, invitation: &Invitation| there.rooms.take_invite(&name(from), invitation).await;
    let bad = async |from: usize, invitation: Invitation, why: &str| {
        let refusal = take(from, &invitation).await.expect_err(why);
        assert!(matches!(refusal, RoomError::InvalidParam(_)), "{why}: {refusal:?}");
    };
    let good = forged(&version, &room, member("@u0:s1.test", "invite"));
    let plain = invitation(&version, &room, &good, &[]);
    bad(2, plain.clone(), "the sender is of another server").await;
    let other = OwnedRoomId::try_from("!other:s0.test").expect("a room id");
    bad(0, Invitation { room_id: other.clone(), ..plain.clone() }, "another room in the path").await;
    let not_ours = forged(&version, &room, member("@u0:s2.test", "invite"));
    bad(0, invitation(&version, &room, &not_ours, &[]), "for no user of ours").await;
    let join = forged(&version, &room, member("@u0:s1.test", "join"));
    bad(0, invitation(&version, &room, &join, &[]), "no invite").await;
    let message = forged(&version, &room, Draft::message("m.room.message", object(json!({ "body": "" }))));
    bad(0, invitation(&version, &room, &message, &[]), "no member event").await;
    let mut unsigned = plain.clone();
    unsigned.event = unsigned.event.replace("ed25519:a", "ed25519:b");
    bad(0, unsigned, "no signature by a known key").await;
    let mut changed = plain.clone();
    changed.event = changed.event.replace("\"content\":{", "\"content\":{\"reason\":\"x\",");
    bad(0, changed, "another content than was hashed").await;
    let elsewhere =
        json!({ "type": "m.room.name", "state_key": "", "sender": "@u0:s0.test", "content": {}, "room_id": other });
    bad(0, invitation(&version, &room, &good, &[elsewhere]), "state of another room").await;
    let create = |content: serde_json::Value| json!({ "type": "m.room.create", "state_key": "", "sender": "@u0:s0.test", "content": content });
    bad(0, invitation(&version, &room, &good, &[create(json!({ "room_version": "9" }))]), "of another version").await;
    let shut = create(json!({ "room_version": "10", "m.federate": false }));
    assert!(matches!(take(0, &invitation(&version, &room, &good, &[shut])).await, Err(RoomError::Forbidden(_))));
    let unknown = RoomVersionId::try_from("org.example.99").expect("a version");
    let refusal = take(0, &Invitation { version: unknown, ..plain.clone() }).await;
    assert!(matches!(refusal, Err(RoomError::UnsupportedVersion(_))));
    assert_eq!(there.told(&room, &user(0, 1)).await.map(|row| row.membership), None);

    let signed = take(0, &plain).await.expect("a proper invite");
    assert!(signed.contains("\"s1.test\":{\"ed25519:a\""));
    let since = there.told(&room, &user(0, 1)).await.expect("is told").since;
    take(0, &plain).await.expect("the same again");
    assert_eq!(there.told(&room, &user(0, 1)).await.expect("is told").since, since, "and that is no news");
}

#[tokio::test(start_paused = true)]
async fn from_version_12_on_the_create_event_is_whole_and_the_rooms_own() {
    let net = Net::of(2, 1).await;
    let there = net.house(1);
    let version = RoomVersionId::V12;
    let room = private_room(&net, version.clone()).await;
    let other = private_room(&net, version.clone()).await;
    let create = async |room: &OwnedRoomId| {
        let state = net.house(0).state(room).await;
        let id = &state[&("m.room.create".to_owned(), String::new())];
        let (pdu, _) = net.house(0).rooms.event(room, id).await.expect("reads").expect("is there");
        serde_json::from_str::<serde_json::Value>(&pdu.json).expect("JSON")
    };
    let (own, others) = (create(&room).await, create(&other).await);
    let target = Draft::state("m.room.member", "@u0:s1.test", object(json!({ "membership": "invite" })));
    let invite = forged(&version, &room, target);
    let mut stripped = own.clone();
    stripped
        .as_object_mut()
        .expect("an object")
        .retain(|key, _| ["type", "state_key", "sender", "content"].contains(&key.as_str()));
    let mut meddled = own.clone();
    meddled["signatures"] = json!({ "s0.test": { "ed25519:a": "AAAA" } });
    for (state, why) in [
        (vec![], "it is missing"),
        (vec![others.clone()], "it is of another room"),
        (vec![stripped], "it is stripped"),
        (vec![meddled], "its signature is wrong"),
        (vec![own.clone(), others], "another is beside it"),
    ] {
        let refusal = there.rooms.take_invite(&name(0), &invitation(&version, &room, &invite, &state)).await;
        assert!(matches!(refusal, Err(RoomError::InvalidParam(_))), "{why}: {refusal:?}");
    }
    there.rooms.take_invite(&name(0), &invitation(&version, &room, &invite, &[own])).await.expect("a proper invite");
}

#[tokio::test(start_paused = true)]
async fn an_invite_that_lies_about_the_room_does_not_spoil_it() {
    let net = Net::of(2, 1).await;
    let (here, there) = (net.house(0), net.house(1));
    let room = private_room(&net, RoomVersionId::V10).await;
    let lie = RoomVersionId::V1;
    let target = Draft::state("m.room.member", "@u1:s1.test", object(json!({ "membership": "invite" })));
    let lied = forged(&lie, &room, target);
    there.rooms.take_invite(&name(0), &invitation(&lie, &room, &lied, &[])).await.expect("nobody can tell");
    invite(&here, &room, user(0, 0), user(0, 1)).await.expect("may invite");
    enter(&there, &room, user(0, 1)).await.expect("may come in");
    net.calm_down().await;
    assert_eq!(here.state(&room).await, there.state(&room).await);
    assert_eq!(membership(&there, &room, &user(1, 1)).await, Some(Membership::Leave), "he never was invited");
    there.send(&room, &user(0, 1), "hello").await.expect("may talk");
}

#[tokio::test(start_paused = true)]
async fn a_room_that_we_are_in_is_not_told_of_by_invites_alone() {
    let (net, room) = invited(RoomVersionId::V11, 2).await;
    let (here, there) = (net.house(0), net.house(1));
    enter(&there, &room, user(0, 1)).await.expect("may come in");
    net.calm_down().await;
    let acl = json!({ "allow": ["*"], "deny": ["s9.test"] });
    here.set(&room, &user(0, 0), "m.room.server_acl", "", acl).await.expect("may");
    invite(&here, &room, user(0, 0), user(1, 1)).await.expect("may invite");
    assert_eq!(membership(&there, &room, &user(1, 1)).await, None, "it comes with the room's events");
    net.calm_down().await;
    assert_eq!(membership(&there, &room, &user(1, 1)).await, Some(Membership::Invite));
    assert!(invite(&here, &room, user(0, 0), user(0, 1)).await.is_err(), "he is in the room");
    leave(&there, &room, user(1, 1)).await.expect("may leave");
    net.calm_down().await;
    assert_eq!(here.membership(&room, &user(1, 1)).await.as_deref(), Some("leave"));
    let shut = json!({ "allow": ["*"], "deny": ["s0.test"] });
    here.set(&room, &user(0, 0), "m.room.server_acl", "", shut).await.expect("may");
    net.calm_down().await;
    let target = Draft::state("m.room.member", "@u1:s1.test", object(json!({ "membership": "invite" })));
    let late = forged(&RoomVersionId::V11, &room, target);
    let refusal = there.rooms.take_invite(&name(0), &invitation(&RoomVersionId::V11, &room, &late, &[])).await;
    assert!(matches!(refusal, Err(RoomError::Forbidden(_))), "{refusal:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_said_of_a_room_we_are_not_in_is_dropped() {
    let (net, room) = invited(RoomVersionId::V10, 2).await;
    let there = net.house(1);
    net.house(0).send(&room, &user(0, 0), "hello").await.expect("may talk");
    let target = Draft::state("m.room.member", "@u0:s1.test", object(json!({ "membership": "leave" })));
    let kick = forged(&RoomVersionId::V10, &room, target);
    let received = there.rooms.receive(&name(0), &[kick.json.to_string()]).await.expect("the store works");
    assert_eq!(received[0].outcome, Err(Dropped::UnknownRoom), "it names no invite that it ends");
    assert_eq!(membership(&there, &room, &user(0, 1)).await, Some(Membership::Invite));
}

#[tokio::test(start_paused = true)]
async fn who_only_hears_of_a_room_writes_nothing_into_it() {
    let (net, room) = invited(RoomVersionId::V10, 2).await;
    let there = net.house(1);
    let guest = user(0, 1);
    for membership in ["join", "leave", "knock", "invite", "ban"] {
        let content = json!({ "membership": membership });
        let refusal = there.set(&room, &guest, "m.room.member", guest.as_str(), content).await;
        assert!(matches!(refusal, Err(RoomError::Forbidden(_))), "{membership}: {refusal:?}");
    }
    assert!(matches!(there.send(&room, &guest, "hello").await, Err(RoomError::Forbidden(_))));
    assert!(matches!(invite(&there, &room, guest.clone(), user(1, 1)).await, Err(RoomError::Forbidden(_))));
    assert!(there.tip(&room).await.is_none());
    assert_eq!(membership(&there, &room, &guest).await, Some(Membership::Invite));
    // Nor does who was there once.
    enter(&there, &room, guest.clone()).await.expect("may come in");
    leave(&there, &room, guest.clone()).await.expect("may leave");
    net.calm_down().await;
    let before = there.tip(&room).await;
    for membership in ["join", "leave", "knock"] {
        let content = json!({ "membership": membership });
        assert!(there.set(&room, &guest, "m.room.member", guest.as_str(), content).await.is_err(), "{membership}");
    }
    assert_eq!(there.tip(&room).await, before);
}

#[tokio::test(start_paused = true)]
async fn at_the_limit_an_invite_of_whoever_has_most_gives_way() {
    let net = Net::of(3, 2).await;
    let there = net.house(1);
    let version = RoomVersionId::V10;
    let guest = user(0, 1);
    let room = |server: usize, n: usize| OwnedRoomId::try_from(format!("!r{n}:s{server}.test")).expect("a room id");
    let take = async |server: usize, n: usize| {
        let target = Draft::state("m.room.member", guest.as_str(), object(json!({ "membership": "invite" })));
        let invite = forged_by(server, &version, &room(server, n), target);
        let invitation = invitation(&version, &room(server, n), &invite, &[]);
        there.rooms.take_invite(&name(server), &invitation).await.expect("is taken");
    };
    for n in 0..3 {
        take(2, n).await;
    }
    for n in 0..500 {
        take(0, n).await;
    }
    take(2, 3).await;
    let is_invited =
        async |server: usize, n: usize| membership(&there, &room(server, n), &guest).await == Some(Membership::Invite);
    for n in 0..4 {
        assert!(is_invited(2, n).await, "{n}: few are not pushed out by many");
        assert_eq!(membership(&there, &room(0, n), &guest).await, Some(Membership::Leave), "{n}");
    }
    assert!(is_invited(0, 4).await && is_invited(0, 499).await);
    // What gave way may come again.
    take(0, 500).await;
    assert!(!is_invited(0, 4).await && is_invited(0, 500).await);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_of_a_room_is_bounded_and_its_looks_are_there() {
    let net = Net::of(2, 1).await;
    let there = net.house(1);
    let version = RoomVersionId::V10;
    let room = OwnedRoomId::try_from("!elsewhere:s0.test").expect("a room id");
    let content = json!({ "membership": "invite", "reason": "x".repeat(40 << 10) });
    let invite = forged(&version, &room, Draft::state("m.room.member", "@u0:s1.test", object(content)));
    let told = |kind: &str, bytes: usize| json!({ "type": kind, "state_key": "", "sender": "@u0:s0.test", "content": { "x": "x".repeat(bytes) } });
    // A topic as long as anybody writes one, and then more than that.
    let mut state = vec![told("m.room.name", 100), told("m.room.topic", 20 << 10), told("m.room.avatar", 1_000)];
    state.extend((0..50).map(|_| told("org.padding", 8 << 10)));
    state.push(told("m.room.encryption", 100));
    there.rooms.take_invite(&name(0), &invitation(&version, &room, &invite, &state)).await.expect("is taken");
    let stripped = there.told(&room, &user(0, 1)).await.expect("he is told").stripped.expect("stripped state");
    assert!(stripped.len() < 34 << 10, "{} bytes", stripped.len());
    let stripped: Vec<serde_json::Value> = serde_json::from_str(&stripped).expect("JSON");
    for kind in ["m.room.name", "m.room.topic", "m.room.avatar", "m.room.encryption"] {
        assert!(stripped.iter().any(|event| event["type"] == kind), "{kind}");
    }
    let own = stripped.last().expect("the invite");
    assert_eq!((&own["state_key"], &own["content"]), (&json!("@u0:s1.test"), &json!({ "membership": "invite" })));
}
