//! Servers that answer with what is not so, or with more than anybody needs.

use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};
use hearth_matrix::{Draft, Pdu, Place, V1Place, rules, seal};
use hearth_room::{MemberAction, StateIdsAt};
use hearth_store::Standing;
use serde_json::json;

use super::{House, Lies, Net, key, lock, name, object, public_room, text, user};

const VERSION: RoomVersionId = RoomVersionId::V10;

/// Two servers in a room of the first; what the second says is made up.
async fn two() -> (Arc<Net>, OwnedRoomId) {
    of_version(VERSION).await
}

async fn of_version(version: RoomVersionId) -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(2, 1).await;
    let room = public_room(&net.house(0), version).await;
    let joined = net.house(1).rooms.join_through(&user(0, 1), &room, &[name(0)], CanonicalJsonObject::new()).await;
    joined.expect("joins");
    net.calm_down().await;
    (net, room)
}

fn lie(net: &Net, lies: Lies) {
    lock(&net.lies).insert(name(1), lies);
}

/// An event of the second server that stands nowhere.
fn forged(
    room: &OwnedRoomId,
    sender: &OwnedUserId,
    draft: Draft,
    prev_events: &[OwnedEventId],
    auth_events: &[OwnedEventId],
    depth: u64,
) -> Pdu {
    let place = Place {
        room_id: Some(room),
        sender,
        prev_events,
        auth_events,
        depth,
        origin_server_ts: 1_000_001,
        server_name: &name(1),
        v1: None,
    };
    seal(draft, &place, &key(1), rules(&VERSION).expect("known")).expect("seals")
}

fn made_up(n: usize) -> OwnedEventId {
    OwnedEventId::try_from(format!("${n:0>43}")).expect("an event id")
}

impl House {
    async fn tips(&self, room: &OwnedRoomId) -> Vec<OwnedEventId> {
        let tip = self.tip(room).await.expect("a tip").extremities;
        self.store.read(move |tx| tip.iter().map(|num| tx.events().id(*num)).collect()).await.expect("reads")
    }

    async fn places(&self, room: &OwnedRoomId, places: &[(&str, &str)]) -> Vec<OwnedEventId> {
        let state = self.state(room).await;
        places.iter().filter_map(|(kind, key)| state.get(&((*kind).into(), (*key).into())).cloned()).collect()
    }
}

const TALKS: [(&str, &str); 3] = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", "@u0:s1.test")];

async fn receive(net: &Net, pdu: &Pdu) {
    net.house(0).rooms.receive(&name(1), &[pdu.json.to_string()]).await.expect("the store works");
    net.calm_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_told_does_not_decide_over_what_we_know() {
    let (net, room) = two().await;
    let here = net.house(0);
    let banned = user(1, 1);
    let come = MemberAction::Join { guest: false };
    net.house(1).rooms.change_membership(&banned, &room, come, None).await.expect("may");
    net.calm_down().await;
    let told = here.state(&room).await.into_values().collect();
    here.rooms.change_membership(&user(0, 0), &room, MemberAction::Ban(banned.clone()), None).await.expect("may");
    net.calm_down().await;
    let auth = here.places(&room, &TALKS).await;
    let mut prev = here.tips(&room).await;
    prev.push(made_up(1));
    let event = forged(&room, &user(0, 1), text("a lie"), &prev, &auth, 20);
    let told = StateIdsAt { state: told, auth_chain: Vec::new() };
    let state_ids = [(event.event_id.clone(), told.clone()), (made_up(1), told)].into();
    lie(&net, Lies { state_ids, ..Lies::default() });
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Live));
    assert_eq!(here.membership(&room, &banned).await.as_deref(), Some("ban"));
}

/// An event of a room of version 1, whose id can be chosen.
fn with_id(room: &OwnedRoomId, id: &str, draft: Draft, prev: &[OwnedEventId], auth: &[OwnedEventId]) -> Pdu {
    let reference_hash = |_: &EventId| Some("AAAA".to_owned());
    let place = Place {
        room_id: Some(room),
        sender: &user(0, 1),
        prev_events: prev,
        auth_events: auth,
        depth: 20,
        origin_server_ts: 1_000_001,
        server_name: &name(1),
        v1: Some(V1Place { opaque: id, reference_hash: &reference_hash }),
    };
    seal(draft, &place, &key(1), rules(&RoomVersionId::V1).expect("known")).expect("seals")
}

fn joins() -> Draft {
    Draft::state("m.room.member", "@u0:s1.test", object(json!({ "membership": "join" })))
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_is_not_kept() {
    let (net, room) = two().await;
    let here = net.house(0);
    let joins_auth = here.places(&room, &[&TALKS[..], &[("m.room.join_rules", "")]].concat()).await;
    let tips = here.tips(&room).await;
    let needed = forged(&room, &user(0, 1), joins(), &tips, &joins_auth, 20);
    let mut auth = here.places(&room, &TALKS[..2]).await;
    auth.push(needed.event_id.clone());
    let event = forged(&room, &user(0, 1), text("hello"), &tips, &auth, 21);
    let unrelated: Vec<Pdu> =
        (0..50).map(|n| forged(&room, &user(0, 1), joins(), &tips, &joins_auth, 100 + n)).collect();
    let chain = unrelated.iter().chain([&needed]).map(|pdu| pdu.json.to_string()).collect();
    lie(&net, Lies { event_auth: Some(chain), ..Lies::default() });
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Live));
    assert_eq!(here.standing(&room, &needed.event_id).await, Some(Standing::Outlier));
    for pdu in &unrelated {
        assert_eq!(here.standing(&room, &pdu.event_id).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn events_that_allow_each_other_in_a_circle_allow_nothing() {
    let (net, room) = of_version(RoomVersionId::V1).await;
    let here = net.house(0);
    let tips = here.tips(&room).await;
    let id = |id: &str| OwnedEventId::try_from(format!("${id}:s1.test")).expect("an event id");
    let basics = here.places(&room, &TALKS[..2]).await;
    let with = |other: &str| [&basics[..], &[id(other)]].concat();
    let circle = [
        with_id(&room, "one", joins(), &tips, &with("two")),
        with_id(&room, "two", joins(), &tips, &with("three")),
        with_id(&room, "three", joins(), &tips, &with("one")),
    ];
    let chain = circle.iter().map(|pdu| pdu.json.to_string()).collect();
    lie(&net, Lies { event_auth: Some(chain), ..Lies::default() });
    let event = with_id(&room, "event", text("hello"), &tips, &with("one"));
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Rejected));
    for pdu in &circle {
        assert_eq!(here.standing(&room, &pdu.event_id).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn what_allows_an_event_may_lie_deep_but_not_without_end() {
    let (net, room) = two().await;
    let here = net.house(0);
    let tips = here.tips(&room).await;
    let basics = here.places(&room, &TALKS[..2]).await;
    let rules = here.places(&room, &[("m.room.join_rules", "")]).await;
    let mut last = here.places(&room, &TALKS[2..]).await;
    let mut chain = Vec::new();
    for n in 0..2_000 {
        let auth = [&basics[..], &rules[..], &last[..]].concat();
        let pdu = forged(&room, &user(0, 1), joins(), &tips, &auth, 20 + n);
        last = vec![pdu.event_id.clone()];
        chain.push(pdu.json.to_string());
    }
    let deep = forged(&room, &user(0, 1), text("deep"), &tips, &[&basics[..], &last[..]].concat(), 3_000);
    // More than anybody needs, the right ones among them.
    let mut endless = chain.clone();
    endless.extend((0..20_000).map(|n| format!("{{\"n\":{n}}}")));
    lie(&net, Lies { event_auth: Some(endless), ..Lies::default() });
    let other = forged(&room, &user(0, 1), text("endless"), &tips, &[&basics[..], &last[..]].concat(), 3_001);
    receive(&net, &other).await;
    assert_eq!(here.standing(&room, &other.event_id).await, Some(Standing::Rejected));
    assert_eq!(here.standing(&room, &last[0]).await, None);
    lie(&net, Lies { event_auth: Some(chain), ..Lies::default() });
    receive(&net, &deep).await;
    assert_eq!(here.standing(&room, &deep.event_id).await, Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_larger_than_any_is_not_taken() {
    let (net, room) = two().await;
    let here = net.house(0);
    let auth = here.places(&room, &TALKS).await;
    let event = forged(&room, &user(0, 1), text("hello"), &[made_up(1)], &auth, 20);
    let state = here.state(&room).await.into_values().chain((2..200_010).map(made_up)).collect();
    let told = StateIdsAt { state, auth_chain: Vec::new() };
    lie(&net, Lies { state_ids: [(event.event_id.clone(), told)].into(), ..Lies::default() });
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &event.event_id).await, None);
}

#[tokio::test(start_paused = true)]
async fn many_gaps_at_once_cost_no_more_than_some() {
    let (net, room) = two().await;
    let here = net.house(0);
    let auth = here.places(&room, &TALKS).await;
    let gap = |n: usize| forged(&room, &user(0, 1), text("hello"), &[made_up(n)], &auth, 20);
    let pdus: Vec<String> = (0..100).map(|n| gap(n).json.to_string()).collect();
    let asked = net.asked();
    here.rooms.receive(&name(1), &pdus).await.expect("the store works");
    here.let_work().await;
    assert!(net.asked() - asked < 100, "{} questions", net.asked() - asked);
}
