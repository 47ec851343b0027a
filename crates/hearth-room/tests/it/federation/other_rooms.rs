//! What is said in one room of an event of another changes nothing there, and tells nothing of it.

use std::sync::Arc;

use hearth_matrix::Draft;
use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId};
use hearth_room::{CreateRoom, Preset, StateIdsAt};
use hearth_store::Standing;

use super::strangers::{TALKS, forged, lie, receive};
use super::{Lies, Net, name, new_room, public_room, text, user};

const VERSION: RoomVersionId = RoomVersionId::V10;

/// The second server comes into a room of the first.
async fn come_in(net: &Net, n: usize, room: &OwnedRoomId, through: usize) {
    let content = CanonicalJsonObject::new();
    net.house(n).rooms.join_through(&user(0, n), room, &[name(through)], content).await.expect("joins");
    net.calm_down().await;
}

/// Two rooms of the first server, which the second is in.
async fn two_rooms(net: &Net) -> (OwnedRoomId, OwnedRoomId) {
    let (one, other) = (public_room(&net.house(0), VERSION).await, public_room(&net.house(0), VERSION).await);
    come_in(net, 1, &one, 0).await;
    come_in(net, 1, &other, 0).await;
    (one, other)
}

fn redaction(target: &OwnedEventId) -> Draft {
    Draft { redacts: Some(target.clone()), ..Draft::message("m.room.redaction", CanonicalJsonObject::new()) }
}

#[tokio::test(start_paused = true)]
async fn who_creates_a_room_redacts_nothing_in_another() {
    let net = Net::of(2, 1).await;
    let here = net.house(0);
    let room = public_room(&here, VERSION).await;
    let said = here.send(&room, &user(0, 0), "stays").await.expect("may talk");
    let own = CreateRoom { creator: user(1, 0), ..new_room(VERSION, Preset::PublicChat) };
    let own = here.rooms.create(own).await.expect("a room");
    here.rooms.redact(&user(1, 0), &own, &said, None, None).await.expect("of something that may come");
    assert!(!here.is_redacted(&room, &said).await);
    // So it is with what another server sends.
    come_in(&net, 1, &own, 0).await;
    let (auth, tips) = (here.places(&own, &TALKS).await, here.tips(&own).await);
    receive(&net, &forged(&own, &user(0, 1), redaction(&said), &tips, &auth, 20)).await;
    assert!(!here.is_redacted(&room, &said).await);
}

/// A redaction in one room comes before its target in another.
async fn redacted_early(net: &Arc<Net>, directory: Option<&tempfile::TempDir>) {
    let here = net.house(0);
    let room = public_room(&here, VERSION).await;
    come_in(net, 2, &room, 0).await;
    let own = CreateRoom { creator: user(0, 1), ..new_room(VERSION, Preset::PublicChat) };
    let own = net.house(1).rooms.create(own).await.expect("a room");
    come_in(net, 0, &own, 1).await;
    let said = net.house(2).send(&room, &user(0, 2), "stays").await.expect("may talk");
    let late = net.packets().await;
    net.house(1).rooms.redact(&user(0, 1), &own, &said, None, None).await.expect("may redact there");
    net.calm_down().await;
    drop(here);
    if let Some(directory) = directory {
        net.restart(0, directory, 2).await;
    }
    for packet in &late {
        net.deliver(packet).await;
    }
    net.calm_down().await;
    let here = net.house(0);
    assert_eq!(here.standing(&room, &said).await, Some(Standing::Live));
    assert!(!here.is_redacted(&room, &said).await);
}

#[tokio::test(start_paused = true)]
async fn a_redaction_waits_for_nothing_that_comes_in_another_room() {
    redacted_early(&Net::of(3, 1).await, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redaction_waits_for_nothing_that_comes_in_another_room_after_a_restart() {
    let (net, directory) = Net::on_disk(3, 1).await;
    redacted_early(&net, Some(&directory)).await;
}

#[tokio::test(start_paused = true)]
async fn what_another_room_says_to_follow_an_event_takes_it_off_no_tip() {
    let net = Net::of(2, 1).await;
    let (room, other) = two_rooms(&net).await;
    let here = net.house(0);
    let event =
        forged(&room, &user(0, 1), text("next"), &here.tips(&room).await, &here.places(&room, &TALKS).await, 20);
    let auth = here.places(&other, &TALKS).await;
    let follows = forged(&other, &user(0, 1), text("follows"), std::slice::from_ref(&event.event_id), &auth, 21);
    let state = here.state(&other).await.into_values().collect();
    let told = StateIdsAt { state, auth_chain: Vec::new() };
    let state_ids = [(event.event_id.clone(), told)].into();
    lie(&net, Lies { missing_events: Some(Vec::new()), state_ids, ..Lies::default() });
    receive(&net, &follows).await;
    assert_eq!(here.standing(&other, &follows.event_id).await, Some(Standing::Live));
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Live));
    assert_eq!(here.tips(&room).await, [event.event_id]);
}

#[tokio::test(start_paused = true)]
async fn what_allows_an_event_is_told_of_its_own_room_only() {
    let net = Net::of(2, 1).await;
    let here = net.house(0);
    let private = here.rooms.create(new_room(VERSION, Preset::PrivateChat)).await.expect("a room");
    let room = public_room(&here, VERSION).await;
    come_in(&net, 1, &room, 0).await;
    let secret = here.state(&private).await.into_values().take(2);
    let auth: Vec<OwnedEventId> = here.places(&room, &TALKS).await.into_iter().chain(secret).collect();
    let event = forged(&room, &user(0, 1), text("curious"), &here.tips(&room).await, &auth, 20);
    lie(&net, Lies { event_auth: Some(Vec::new()), ..Lies::default() });
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Rejected));
    let chain = here.rooms.auth_chain(&room, &event.event_id).await.expect("is known");
    let names: Vec<&str> = chain.iter().map(|pdu| &*pdu.kind).collect();
    let of_state = here.places(&room, &TALKS).await;
    assert!(of_state.iter().all(|id| chain.iter().any(|pdu| pdu.event_id == *id)), "{names:?}");
    let private = here.state(&private).await;
    assert!(!private.into_values().any(|id| chain.iter().any(|pdu| pdu.event_id == id)), "{names:?}");
}
