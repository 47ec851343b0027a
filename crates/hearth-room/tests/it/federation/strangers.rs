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

pub(super) fn lie(net: &Net, lies: Lies) {
    lock(&net.lies).insert(name(1), lies);
}

/// An event of the second server that stands nowhere.
pub(super) fn forged(
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

pub(super) fn made_up(n: usize) -> OwnedEventId {
    OwnedEventId::try_from(format!("${n:0>43}")).expect("an event id")
}

impl House {
    pub(super) async fn tips(&self, room: &OwnedRoomId) -> Vec<OwnedEventId> {
        let tip = self.tip(room).await.expect("a tip").extremities;
        self.store.read(move |tx| tip.iter().map(|num| tx.events().id(*num)).collect()).await.expect("reads")
    }

    pub(super) async fn places(&self, room: &OwnedRoomId, places: &[(&str, &str)]) -> Vec<OwnedEventId> {
        let state = self.state(room).await;
        places.iter().filter_map(|(kind, key)| state.get(&((*kind).into(), (*key).into())).cloned()).collect()
    }
}

pub(super) const TALKS: [(&str, &str); 3] =
    [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", "@u0:s1.test")];

pub(super) async fn receive(net: &Net, pdu: &Pdu) {
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
    let state_ids = [(made_up(1), told)].into();
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
    lie(&net, Lies { state_ids: [(made_up(1), told)].into(), ..Lies::default() });
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

#[tokio::test(start_paused = true)]
async fn what_is_no_event_holds_nobody_up_that_does_not_follow_it() {
    let (net, room) = two().await;
    let here = net.house(0);
    let auth = here.places(&room, &TALKS).await;
    let tips = here.tips(&room).await;
    let said = |body: &str, prev: &[OwnedEventId], depth| forged(&room, &user(0, 1), text(body), prev, &auth, depth);
    let good = said("good", &tips, 20);
    let bad = good.json.replace("\"body\":\"good\"", "\"body\":\"good\",\"bad\":1.5");
    let follows_good = said("follows the good one", std::slice::from_ref(&good.event_id), 21);
    let follows_bad = said("follows the bad one", &[made_up(1)], 21);
    let after = said("follows what follows it", std::slice::from_ref(&follows_bad.event_id), 22);
    let lies = Lies { missing_events: Some(vec![bad, good.json.to_string(), "{".to_owned()]), ..Lies::default() };
    lie(&net, lies);
    let asked = net.asked();
    here.rooms.receive(&name(1), &[follows_bad.json.to_string()]).await.expect("the store works");
    here.let_work().await;
    // Once for missing events: the answer was shorter than it might be, so there is no more.
    assert_eq!(net.asked() - asked, 1, "who does not tell what his event follows is asked for no state");
    receive(&net, &follows_good).await;
    receive(&net, &after).await;
    for event in [&good, &follows_good] {
        assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Live));
    }
    for event in [&follows_bad, &after] {
        assert_eq!(here.standing(&room, &event.event_id).await, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_name_of_too_many_bytes_is_rejected_and_what_follows_it_is_not() {
    let (net, room) = two().await;
    let here = net.house(0);
    let auth = here.places(&room, &TALKS).await;
    let wide = "\u{1f4a5}".repeat(70);
    let breaker = Draft::state("m.room.breaker", &wide, CanonicalJsonObject::new());
    let breaker = forged(&room, &user(0, 1), breaker, &here.tips(&room).await, &auth, 20);
    let event = forged(&room, &user(0, 1), text("hello"), std::slice::from_ref(&breaker.event_id), &auth, 21);
    lie(&net, Lies { missing_events: Some(vec![breaker.json.to_string()]), ..Lies::default() });
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &breaker.event_id).await, Some(Standing::Rejected));
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Live));
    assert!(!here.state(&room).await.contains_key(&("m.room.breaker".to_owned(), wide)));
}

#[tokio::test(start_paused = true)]
async fn what_a_torn_auth_chain_allows_is_in_no_state() {
    let (net, room) = two().await;
    let (here, bob) = (net.house(0), user(0, 1));
    let basics = here.places(&room, &[&TALKS[..2], &[("m.room.join_rules", "")]].concat()).await;
    let joined = here.places(&room, &TALKS[2..]).await;
    let mut last = joined.clone();
    let mut chain = Vec::new();
    for n in 0..5 {
        let named = Draft::state(
            "m.room.member",
            bob.as_str(),
            object(json!({ "membership": "join", "displayname": format!("{n}") })),
        );
        let pdu = forged(&room, &bob, named, &last, &[&basics[..], &last[..]].concat(), 20 + n);
        last = vec![pdu.event_id.clone()];
        chain.push(pdu);
    }
    let auth = [&basics[..2], &last[..]].concat();
    let unknown = forged(&room, &bob, text("whose state is told"), &last, &auth, 30);
    let pulled = forged(&room, &bob, text("fetched"), std::slice::from_ref(&unknown.event_id), &auth, 31);
    let sent = forged(&room, &bob, text("sent"), std::slice::from_ref(&pulled.event_id), &auth, 32);
    let mut state = here.state(&room).await;
    state.insert(("m.room.member".into(), bob.to_string()), last[0].clone());
    let told = StateIdsAt {
        state: state.into_values().collect(),
        auth_chain: chain.iter().map(|pdu| pdu.event_id.clone()).collect(),
    };
    // The second link of the chain is not to be had.
    let events = chain.iter().chain([&unknown]).filter(|pdu| pdu.event_id != chain[1].event_id);
    lie(
        &net,
        Lies {
            missing_events: Some(vec![pulled.json.to_string()]),
            state_ids: [(unknown.event_id.clone(), told)].into(),
            event_auth: Some(Vec::new()),
            events: events.map(|pdu| (pdu.event_id.clone(), pdu.json.to_string())).collect(),
            ..Lies::default()
        },
    );
    receive(&net, &sent).await;
    for pdu in &chain[1..] {
        assert_eq!(here.standing(&room, &pdu.event_id).await, None, "{}", pdu.event_id);
    }
    let auth = [&basics[..2], &joined[..]].concat();
    let after = forged(&room, &bob, text("finished"), &joined, &auth, 10);
    receive(&net, &after).await;
    assert_eq!(here.standing(&room, &after.event_id).await, Some(Standing::Live));
    let content = here.content(&room, "m.room.member", bob.as_str()).await.expect("a member");
    assert_eq!(content.get("displayname"), None);
}

#[tokio::test(start_paused = true)]
async fn what_comes_instead_of_the_event_asked_for_is_not_kept() {
    let (net, room) = two().await;
    let here = net.house(0);
    let (tips, auth) = (here.tips(&room).await, here.places(&room, &TALKS).await);
    let other = forged(&room, &user(0, 1), text("instead"), &tips, &auth, 20);
    let mut more = auth.clone();
    more.push(made_up(7));
    let event = forged(&room, &user(0, 1), text("what allows this?"), &tips, &more, 20);
    let events = [(made_up(7), other.json.to_string())].into();
    lie(&net, Lies { events, event_auth: Some(Vec::new()), ..Lies::default() });
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Rejected));
    assert_eq!(here.standing(&room, &other.event_id).await, None);
}
