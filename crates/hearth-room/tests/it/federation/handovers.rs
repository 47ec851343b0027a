//! Joins and transactions that are cut short, made for something else, or sent twice.

use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId};
use hearth_matrix::signatures::sign_event;
use hearth_matrix::{Completion, Draft, Pdu, Place, SigningKey, V1Place, complete, rules, seal};
use hearth_room::{Dropped, MemberAction, RemoteReceipt, RoomError};
use hearth_store::Standing;
use serde_json::json;
use tokio::sync::Semaphore;

use super::strangers::{TALKS, forged};
use super::{Net, joins, key, lock, name, object, public_room, user};

const VERSION: RoomVersionId = RoomVersionId::V10;

async fn come_in(net: &Net, n: usize, room: &OwnedRoomId) {
    let joined = net.house(n).rooms.join_through(&user(0, n), room, &[name(0)], CanonicalJsonObject::new()).await;
    joined.expect("joins");
    net.calm_down().await;
}

/// A join as the first server drafts it, signed by whoever.
async fn join_signed_by(net: &Net, room: &OwnedRoomId, who: (usize, usize), server: usize, key: &SigningKey) -> Pdu {
    let user = user(who.0, who.1);
    let template = net.house(0).rooms.join_template(room, &user, &[VERSION]).await.expect("may join");
    let completion = Completion {
        content: &object(json!({ "membership": "join" })),
        origin_server_ts: 1_000_001,
        server_name: &name(server),
        key,
        opaque: "join",
    };
    complete(&template.event, &completion, rules(&VERSION).expect("known")).expect("a join")
}

#[tokio::test(start_paused = true)]
async fn a_join_goes_on_when_who_asked_for_it_is_gone() {
    let net = Net::of(2, 1).await;
    let room = public_room(&net.house(0), VERSION).await;
    let gate = Arc::new(Semaphore::new(0));
    *lock(&net.gate) = Some(gate.clone());
    let (there, who) = (net.house(1), user(0, 1));
    let (rooms, joiner, wanted) = (there.rooms.clone(), who.clone(), room.clone());
    let asking =
        tokio::spawn(
            async move { rooms.enter(&joiner, &wanted, false, CanonicalJsonObject::new(), vec![name(0)]).await },
        );
    while net.asked() < 2 {
        tokio::task::yield_now().await;
    }
    asking.abort();
    assert!(asking.await.expect_err("nobody waits any more").is_cancelled());
    assert_eq!(there.membership(&room, &who).await, None);
    gate.add_permits(1);
    while there.membership(&room, &who).await.as_deref() != Some("join") {
        tokio::task::yield_now().await;
    }
    net.calm_down().await;
    assert_eq!(net.house(0).membership(&room, &who).await.as_deref(), Some("join"));
}

#[tokio::test(start_paused = true)]
async fn a_join_that_is_anothers_is_refused() {
    let net = Net::of(3, 1).await;
    let here = net.house(0);
    let (room, other) = (public_room(&here, VERSION).await, public_room(&here, VERSION).await);
    let submit = async |from: usize, room: &OwnedRoomId, join: &Pdu| {
        here.rooms.welcome(&name(from), room, &join.event_id, &join.json, false).await.map(|_| ())
    };
    let join = join_signed_by(&net, &room, (0, 1), 1, &key(1)).await;
    let refused = |outcome: Result<(), RoomError>| match outcome {
        Err(RoomError::InvalidParam(_) | RoomError::BadEvent(_) | RoomError::Forbidden(_)) => {}
        outcome => panic!("{outcome:?}"),
    };
    refused(submit(1, &other, &join).await);
    refused(submit(2, &room, &join).await);
    // Of a user of the server, but signed by another; in the name of the server, but with another key.
    refused(submit(1, &room, &join_signed_by(&net, &room, (1, 1), 2, &key(2)).await).await);
    refused(submit(1, &room, &join_signed_by(&net, &room, (1, 1), 1, &key(2)).await).await);
    let id = OwnedEventId::try_from("$another").expect("an event id");
    assert!(here.rooms.welcome(&name(1), &room, &id, &join.json, false).await.is_err());
    for room in [&room, &other] {
        assert_eq!(here.tip(room).await.expect("a tip").joined, 1);
    }
    submit(1, &room, &join).await.expect("this one is good");
    assert_eq!(here.membership(&room, &user(0, 1)).await.as_deref(), Some("join"));
}

#[tokio::test(start_paused = true)]
async fn who_is_shut_out_neither_comes_in_nor_is_heard() {
    let net = Net::of(3, 1).await;
    let here = net.house(0);
    let room = public_room(&here, VERSION).await;
    come_in(&net, 1, &room).await;
    let join = join_signed_by(&net, &room, (0, 2), 2, &key(2)).await;
    let said = here.send(&room, &user(0, 0), "hello").await.expect("may talk");
    net.calm_down().await;
    let receipt =
        || RemoteReceipt { room_id: room.clone(), user_id: user(0, 1), thread: None, event_id: said.clone(), ts: 1 };
    let is_heard = async || {
        here.rooms.receive_typing(&name(1), &room, &user(0, 1), true).await.expect("the store works");
        here.rooms.receive_receipts(&name(1), vec![receipt()]).await.expect("the store works");
        let room_id = room.clone();
        let read = here.store.read(move |tx| {
            let room = tx.rooms().by_id(&room_id)?.expect("the room");
            let user = tx.string_num("@u0:s1.test")?.expect("he is known");
            Ok((room.num, tx.receipts().own(room.num, user)?.len()))
        });
        let (num, receipts) = read.await.expect("reads");
        (!here.rooms.typing().in_room(num).users.is_empty(), receipts > 0)
    };
    let acl = json!({ "allow": ["*"], "deny": ["s1.test", "s2.test"] });
    here.set(&room, &user(0, 0), "m.room.server_acl", "", acl).await.expect("may");
    assert_eq!(is_heard().await, (false, false));
    let refused = here.rooms.welcome(&name(2), &room, &join.event_id, &join.json, false).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    let acl = json!({ "allow": ["*"], "deny": [] });
    here.set(&room, &user(0, 0), "m.room.server_acl", "", acl).await.expect("may");
    assert_eq!(is_heard().await, (true, true));
    here.rooms.welcome(&name(2), &room, &join.event_id, &join.json, false).await.expect("is let in now");
}

#[tokio::test(start_paused = true)]
async fn events_are_judged_by_who_made_them_whoever_brings_them() {
    let net = Net::of(3, 1).await;
    let here = net.house(0);
    let room = public_room(&here, VERSION).await;
    come_in(&net, 1, &room).await;
    let said = net.house(1).send(&room, &user(0, 1), "genuine").await.expect("may talk");
    drop(net.packets().await);
    let (pdu, _) = net.house(1).rooms.event(&room, &said).await.expect("reads").expect("is there");
    let mut forged: serde_json::Value = serde_json::from_str(&pdu.json).expect("JSON");
    let signature = forged["signatures"]["s1.test"].take();
    forged["signatures"] = json!({ "s2.test": signature });
    let received = here.rooms.receive(&name(2), &[forged.to_string(), pdu.json.to_string()]).await.expect("receives");
    assert!(matches!(received[0].outcome, Err(Dropped::Signature(_))), "{:?}", received[0]);
    assert_eq!(received[1].outcome, Ok(()));
    net.calm_down().await;
    assert_eq!(here.standing(&room, &said).await, Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn what_comes_twice_at_once_is_there_once() {
    let net = Net::of(2, 1).await;
    let here = net.house(0);
    let room = public_room(&here, VERSION).await;
    come_in(&net, 1, &room).await;
    net.house(1).send(&room, &user(0, 1), "once").await.expect("may talk");
    let jsons: Vec<String> = net.packets().await.into_iter().map(|packet| packet.json).collect();
    let (sender, twice) = (name(1), [jsons.clone(), jsons].concat());
    let (one, two) = tokio::join!(here.rooms.receive(&sender, &twice), here.rooms.receive(&sender, &twice));
    assert!(one.expect("receives").iter().chain(&two.expect("receives")).all(|received| received.outcome == Ok(())));
    net.calm_down().await;
    assert_eq!(here.bodies(&room).await, ["once"]);
}

#[tokio::test(start_paused = true)]
async fn who_meets_no_condition_of_a_restricted_room_is_not_vouched_for() {
    let net = Net::of(2, 1).await;
    let here = net.house(0);
    let (gate, room) = (public_room(&here, VERSION).await, public_room(&here, VERSION).await);
    here.rooms.change_membership(&user(1, 0), &room, MemberAction::Join { guest: false }, None).await.expect("may");
    let restricted = async |allow: &str| {
        let allow = json!([{ "type": "m.room_membership", "room_id": allow }]);
        let rules = json!({ "join_rule": "restricted", "allow": allow });
        here.set(&room, &user(0, 0), "m.room.join_rules", "", rules).await.expect("may");
    };
    // As it can be made of events that any member's server knows.
    let submit = async |voucher: usize| {
        let voucher = user(voucher, 0);
        let places = [&TALKS[..2], &[("m.room.join_rules", ""), ("m.room.member", voucher.as_str())]].concat();
        let content = json!({ "membership": "join", "join_authorised_via_users_server": voucher });
        let draft = Draft::state("m.room.member", user(0, 1).as_str(), object(content));
        let (tips, auth) = (here.tips(&room).await, here.places(&room, &places).await);
        let join = forged(&room, &user(0, 1), draft, &tips, &auth, 20);
        here.rooms.welcome(&name(1), &room, &join.event_id, &join.json, false).await.map(|_| ())
    };
    restricted(gate.as_str()).await;
    let refused = submit(0).await;
    assert!(matches!(refused, Err(RoomError::Forbidden(_))), "{refused:?}");
    assert_eq!(here.membership(&room, &user(0, 1)).await, None);
    restricted("!unknown:s1.test").await;
    let refused = submit(0).await;
    assert!(matches!(refused, Err(RoomError::UnableToAuthoriseJoin)), "{refused:?}");
    restricted(gate.as_str()).await;
    come_in(&net, 1, &gate).await;
    let mut levels = here.content(&room, "m.room.power_levels", "").await.expect("levels");
    levels["invite"] = json!(50);
    here.set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may");
    let refused = submit(1).await;
    assert!(matches!(refused, Err(RoomError::UnableToGrantJoin)), "{refused:?}");
    submit(0).await.expect("meets the condition");
    assert_eq!(here.membership(&room, &user(0, 1)).await.as_deref(), Some("join"));
}

#[tokio::test(start_paused = true)]
async fn an_event_id_that_names_us_gets_no_signature_for_it() {
    let net = Net::of(2, 1).await;
    let here = net.house(0);
    let room = public_room(&here, RoomVersionId::V1).await;
    let places = [&TALKS[..2], &[("m.room.join_rules", "")]].concat();
    let (tips, auth) = (here.tips(&room).await, here.places(&room, &places).await);
    let reference_hash = |_: &hearth_matrix::ruma::EventId| Some("AAAA".to_owned());
    let place = Place {
        room_id: Some(&room),
        sender: &user(0, 1),
        prev_events: &tips,
        auth_events: &auth,
        depth: 20,
        origin_server_ts: 1_000_001,
        server_name: &name(0),
        v1: Some(V1Place { opaque: "ours", reference_hash: &reference_hash }),
    };
    let rules = rules(&RoomVersionId::V1).expect("known");
    let join = seal(joins("Eve", &user(0, 1)), &place, &key(1), rules).expect("seals");
    let signed = sign_event(&join.json, &name(1), &key(1), rules).expect("signs");
    let refused = here.rooms.welcome(&name(1), &room, &join.event_id, &signed, false).await;
    assert!(matches!(refused, Err(RoomError::InvalidParam(_))), "{refused:?}");
    assert_eq!(here.membership(&room, &user(0, 1)).await, None);
}
