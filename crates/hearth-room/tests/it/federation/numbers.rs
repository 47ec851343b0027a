//! Events that are heard of, or judged, before what allows them comes: they get another number then, and are found by it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId};
use hearth_matrix::{Draft, Pdu};
use hearth_store::Standing;
use serde_json::json;

use super::strangers::{TALKS, forged, lie, receive};
use super::{Lies, Net, joins, lock, name, object, public_room, text, user};

const VERSION: RoomVersionId = RoomVersionId::V10;

async fn come_in(net: &Net, who: (usize, usize), room: &OwnedRoomId) {
    let content = CanonicalJsonObject::new();
    let house = net.house(who.1);
    house.rooms.enter(&user(who.0, who.1), room, false, content, vec![name(0)]).await.expect("comes in");
    net.calm_down().await;
}

/// Somebody of whom nothing is told speaks last before a join, and is part of the state that comes later.
async fn a_gap_behind_a_join(net: &Arc<Net>, last: Draft, directory: Option<&tempfile::TempDir>) {
    let room = public_room(&net.house(0), VERSION).await;
    net.house(0).set(&room, &user(0, 0), "m.room.name", "", json!({ "name": "Hall" })).await.expect("may");
    come_in(net, (0, 1), &room).await;
    match last.state_key.is_some() {
        true => net.house(1).rooms.set_state(&user(0, 1), &room, last, None).await,
        false => net.house(1).rooms.send(&user(0, 1), &room, last, None, None).await,
    }
    .expect("may talk");
    net.calm_down().await;
    net.omit_members.store(true, Relaxed);
    lock(&net.stateless).extend([name(0), name(1)]);
    let content = CanonicalJsonObject::new();
    net.house(2).rooms.enter(&user(0, 2), &room, false, content, vec![name(0)]).await.expect("comes in");
    assert!(net.house(2).rooms.is_partial(&room).await.expect("reads"));
    lock(&net.stateless).clear();
    match directory {
        Some(directory) => net.restart(2, directory, 2).await,
        None => net.move_in_again(2, 2).await,
    }
    net.calm_down().await;
    let house = net.house(2);
    assert!(!house.rooms.is_partial(&room).await.expect("reads"));
    if let Some(directory) = directory {
        drop(house);
        net.restart(2, directory, 3).await;
    }
    let house = net.house(2);
    assert!(house.rooms.backfill(&room, i64::MAX, 100).await.expect("can be read") > 0);
    net.calm_down().await;
    assert_eq!(house.state(&room).await, net.house(0).state(&room).await);
    net.omit_members.store(false, Relaxed);
}

#[tokio::test(start_paused = true)]
async fn what_lies_behind_a_join_is_found_once_its_room_is_whole() {
    for last in [text("hello"), joins("Bob", &user(0, 1))] {
        a_gap_behind_a_join(&Net::of(3, 1).await, last, None).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lies_behind_a_join_is_found_after_a_restart() {
    for last in [text("hello"), joins("Bob", &user(0, 1))] {
        let (net, directory) = Net::on_disk(3, 1).await;
        a_gap_behind_a_join(&net, last, Some(&directory)).await;
    }
}

struct Chain {
    net: Arc<Net>,
    room: OwnedRoomId,
    basics: Vec<OwnedEventId>,
    tips: Vec<OwnedEventId>,
}

impl Chain {
    /// Two users of the second server, of whom the first has all power, in a room of the first.
    async fn of(net: Arc<Net>) -> Self {
        let here = net.house(0);
        let room = public_room(&here, VERSION).await;
        come_in(&net, (0, 1), &room).await;
        come_in(&net, (1, 1), &room).await;
        let mut levels = here.content(&room, "m.room.power_levels", "").await.expect("levels");
        levels["users"][user(0, 1).as_str()] = json!(100);
        here.set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may");
        net.calm_down().await;
        let (basics, tips) = (here.places(&room, &TALKS[..2]).await, here.tips(&room).await);
        drop(here);
        // Nobody has what is forged but who sends it.
        let lies = Lies { missing_events: Some(Vec::new()), event_auth: Some(Vec::new()), ..Lies::default() };
        lie(&net, lies);
        Self { net, room, basics, tips }
    }

    fn event(&self, of: usize, draft: Draft, auth: &[&OwnedEventId], depth: u64) -> Pdu {
        let auth: Vec<OwnedEventId> = self.basics.iter().chain(auth.iter().copied()).cloned().collect();
        forged(&self.room, &user(of, 1), draft, &self.tips, &auth, depth)
    }

    /// A user of the second server with another name, on his present membership.
    async fn named(&self, of: usize, depth: u64) -> Pdu {
        let places = [("m.room.join_rules", ""), ("m.room.member", &*format!("@u{of}:s1.test"))];
        let places = self.net.house(0).places(&self.room, &places).await;
        self.event(of, joins(&format!("{depth}"), &user(of, 1)), &places.iter().collect::<Vec<_>>(), depth)
    }

    async fn standing(&self, event: &Pdu) -> Option<Standing> {
        self.net.house(0).standing(&self.room, &event.event_id).await
    }
}

/// C names E, and E names A, which comes last.
async fn judged_anew(net: Arc<Net>, directory: Option<&tempfile::TempDir>) {
    let chain = Chain::of(net).await;
    let rules = chain.net.house(0).places(&chain.room, &[("m.room.join_rules", "")]).await;
    let a = chain.named(0, 20).await;
    let e = chain.event(0, joins("E", &user(0, 1)), &[&rules[0], &a.event_id], 21);
    let c = chain.event(0, text("C"), &[&e.event_id], 22);
    for event in [&e, &c] {
        receive(&chain.net, event).await;
        assert_eq!(chain.standing(event).await, Some(Standing::Rejected));
    }
    if let Some(directory) = directory {
        chain.net.restart(0, directory, 2).await;
    }
    receive(&chain.net, &a).await;
    for event in [&a, &e, &c] {
        assert_eq!(chain.standing(event).await, Some(Standing::Live));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_rejected_because_of_a_rejected_event_is_judged_anew_with_it() {
    judged_anew(Net::of(2, 1).await, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_rejected_because_of_a_rejected_event_is_judged_anew_after_a_restart() {
    let (net, directory) = Net::on_disk(2, 1).await;
    judged_anew(net, Some(&directory)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_lacks_two_auth_events_is_judged_anew_with_each() {
    let (net, directory) = Net::on_disk(2, 1).await;
    let chain = Chain::of(net).await;
    let (sender, target) = (chain.named(0, 20).await, chain.named(1, 20).await);
    let kick = Draft::state("m.room.member", user(1, 1).as_str(), object(json!({ "membership": "leave" })));
    let kick = chain.event(0, kick, &[&sender.event_id, &target.event_id], 21);
    receive(&chain.net, &kick).await;
    assert_eq!(chain.standing(&kick).await, Some(Standing::Rejected));
    for (part, standing) in [(&sender, Standing::Rejected), (&target, Standing::Live)] {
        chain.net.restart(0, &directory, 2).await;
        receive(&chain.net, part).await;
        assert_eq!(chain.standing(part).await, Some(Standing::Live));
        assert_eq!(chain.standing(&kick).await, Some(standing));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thread_keeps_a_root_that_came_later() {
    let (net, directory) = Net::on_disk(2, 1).await;
    let chain = Chain::of(net).await;
    let rules = chain.net.house(0).places(&chain.room, &[("m.room.join_rules", "")]).await;
    let member = chain.net.house(0).places(&chain.room, &TALKS[2..]).await;
    let named = chain.named(0, 20).await;
    let root = chain.event(0, joins("root", &user(0, 1)), &[&rules[0], &named.event_id], 21);
    let content = json!({
        "body": "u0", "msgtype": "m.text", "m.mentions": { "user_ids": [user(0, 0)] },
        "m.relates_to": { "rel_type": "m.thread", "event_id": root.event_id },
    });
    let reply = chain.event(0, Draft::message("m.room.message", object(content)), &[&member[0]], 22);
    for event in [&reply, &named, &root] {
        receive(&chain.net, event).await;
        assert_eq!(chain.standing(event).await, Some(Standing::Live));
    }
    chain.net.restart(0, &directory, 2).await;
    let (room, reply) = (chain.room.clone(), reply.event_id.clone());
    let read = chain.net.house(0).store.read(move |tx| {
        let room = tx.rooms().by_id(&room)?.expect("the room");
        let user = tx.string_num(user(0, 0).as_str())?.expect("he is known");
        let thread = tx.events().by_id(&room, &reply)?.expect("the reply").thread.expect("a thread");
        let noted = tx.notifications().unread(user, &[room.num.0])?;
        let noted: Vec<_> = noted.iter().filter_map(|row| row.thread).collect();
        Ok((tx.events().id(thread)?, noted.iter().map(|num| tx.events().id(*num)).collect::<Result<Vec<_>, _>>()?))
    });
    assert_eq!(read.await.expect("reads"), (root.event_id.clone(), vec![root.event_id]));
}
