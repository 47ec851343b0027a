//! Rooms with a policy server: what is asked when, and what follows from each answer.

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedServerName, RoomVersionId, ServerName};
use hearth_matrix::signatures::sign_event;
use hearth_matrix::{Draft, Pdu, Place, SigningKey, rules, seal};
use hearth_room::{MemberAction, Refusal, RoomError, Txn, Unanswered};
use hearth_store::{DeviceNum, Standing};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use super::{House, Net, key, lock, name, object, public_room, text, user};

/// The server at the end of the line is the policy server.
const POLICY: usize = 2;

/// What the policy server does.
#[derive(Default)]
pub(crate) struct Desk {
    says: Says,
    /// Who asked about which event, and how it looked then.
    asked: Vec<(OwnedServerName, Value)>,
    /// Answers wait here.
    gate: Option<Arc<Semaphore>>,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Says {
    /// It signs what is no spam.
    #[default]
    Something,
    /// It signs with another key.
    SignsWrongly,
    /// It answers without a signature.
    SignsNot,
    /// It is there and does not know the endpoint.
    IsNone,
    /// It is not there.
    Nothing,
    /// It has been asked too often.
    Busy,
}

fn policy_key() -> SigningKey {
    SigningKey::from_seed([77; 32], "policy_server").expect("a key")
}

pub(super) async fn answer(
    net: &Net,
    asker: &ServerName,
    server: &ServerName,
    event: String,
) -> Result<String, Unanswered> {
    let json: Value = serde_json::from_str(&event).expect("an event");
    let (says, gate) = {
        let mut desk = lock(&net.desk);
        desk.asked.push((asker.to_owned(), json.clone()));
        (desk.says, desk.gate.clone())
    };
    if let Some(gate) = gate {
        drop(gate.acquire().await);
    }
    let refuse = |status: u16, errcode: &str, message: &str| {
        Err(Unanswered::Refused(Refusal { status, errcode: errcode.into(), message: message.into() }))
    };
    let key = match says {
        Says::Nothing => return Err(Unanswered::Unreachable("nobody is there".into())),
        Says::IsNone => return refuse(404, "M_UNRECOGNIZED", "no such endpoint"),
        Says::Busy => return refuse(429, "M_LIMIT_EXCEEDED", "later"),
        Says::SignsNot => return Ok("{}".to_owned()),
        Says::SignsWrongly => SigningKey::from_seed([78; 32], "policy_server").expect("a key"),
        Says::Something => policy_key(),
    };
    if event.contains("spam") {
        return refuse(400, "M_FORBIDDEN", "The message appears to contain possible spam");
    }
    let signed = sign_event(&event, server, &key, rules(&RoomVersionId::V10).expect("known")).expect("signs");
    let signed: Value = serde_json::from_str(&signed).expect("JSON");
    let signature = &signed["signatures"][server.as_str()]["ed25519:policy_server"];
    Ok(json!({ server.as_str(): { "ed25519:policy_server": signature } }).to_string())
}

impl Net {
    fn says(&self, says: Says) {
        lock(&self.desk).says = says;
    }

    /// How often the policy server was asked about events that contain this.
    fn asked_about(&self, part: &str) -> usize {
        lock(&self.desk).asked.iter().filter(|(_, event)| event.to_string().contains(part)).count()
    }
}

/// Servers in a room of the first, in which the last is the policy server.
async fn with_policy() -> (Arc<Net>, OwnedRoomId) {
    let (net, room) = without_policy().await;
    set_policy(&net, &room, &name(POLICY)).await;
    net.calm_down().await;
    (net, room)
}

async fn without_policy() -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(POLICY + 1, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V10).await;
    for n in 1..=POLICY {
        join(&net, &room, n).await.expect("joins");
        net.calm_down().await;
    }
    (net, room)
}

async fn join(net: &Net, room: &OwnedRoomId, n: usize) -> Result<(), RoomError> {
    net.house(n).rooms.join_through(&user(0, n), room, &[name(0)], CanonicalJsonObject::new()).await
}

fn policy_content(via: &ServerName) -> Value {
    json!({ "via": via, "public_keys": { "ed25519": policy_key().public_key_base64() } })
}

async fn set_policy(net: &Net, room: &OwnedRoomId, via: &ServerName) -> OwnedEventId {
    net.house(0).set(room, &user(0, 0), "m.room.policy", "", policy_content(via)).await.expect("may")
}

/// The policy server's signature of an event as a server keeps it.
async fn signature(house: &House, room: &OwnedRoomId, event_id: &OwnedEventId) -> Value {
    let (pdu, _) = house.rooms.event(room, event_id).await.expect("reads").expect("is there");
    let event: Value = serde_json::from_str(&pdu.json).expect("JSON");
    event["signatures"][name(POLICY).as_str()]["ed25519:policy_server"].clone()
}

/// An event of the second server that has not asked anybody, after some others.
async fn unasked(net: &Net, room: &OwnedRoomId, draft: Draft, prev: Option<&Pdu>) -> Pdu {
    let house = net.house(0);
    let tip = house.tip(room).await.expect("a tip");
    let ids = tip.extremities.clone();
    let latest: Vec<OwnedEventId> =
        house.store.read(move |tx| ids.iter().map(|num| tx.events().id(*num)).collect()).await.expect("reads");
    let state = house.state(room).await;
    let member = user(0, 1);
    let auth = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", member.as_str())];
    let auth: Vec<OwnedEventId> =
        auth.iter().filter_map(|(kind, key)| state.get(&((*kind).to_owned(), (*key).to_owned())).cloned()).collect();
    let place = Place {
        room_id: Some(room),
        sender: &member,
        prev_events: &prev.map_or(latest, |prev| vec![prev.event_id.clone()]),
        auth_events: &auth,
        depth: prev.map_or(tip.depth as u64, |prev| prev.depth) + 1,
        origin_server_ts: 1_000_001,
        server_name: &name(1),
        v1: None,
    };
    seal(draft, &place, &key(1), rules(&RoomVersionId::V10).expect("known")).expect("seals")
}

async fn receive(net: &Net, events: &[&Pdu]) {
    let events: Vec<String> = events.iter().map(|pdu| pdu.json.to_string()).collect();
    let received = net.house(0).rooms.receive(&name(1), &events).await.expect("the store works");
    assert!(received.iter().all(|received| received.outcome.is_ok()), "{received:?}");
}

/// Waits for what the first server makes of an event; the clock is paused and runs ahead.
async fn standing(net: &Net, room: &OwnedRoomId, pdu: &Pdu) -> Standing {
    for _ in 0..20_000 {
        if let Some(standing) = net.house(0).standing(room, &pdu.event_id).await {
            return standing;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("an event was not judged");
}

async fn extremities(house: &House, room: &OwnedRoomId) -> usize {
    house.tip(room).await.expect("a tip").extremities.len()
}

#[tokio::test(start_paused = true)]
async fn an_event_of_ours_goes_out_with_the_policy_servers_signature() {
    let (net, room) = with_policy().await;
    let said = net.house(0).send(&room, &user(0, 0), "hello").await.expect("may talk");
    let named = net.house(1).set(&room, &user(0, 1), "m.room.topic", "", json!({ "topic": "mine" })).await;
    assert!(matches!(named, Err(RoomError::Forbidden(_))), "what the room forbids is not even asked about");
    assert_eq!(net.asked_about("\"mine\""), 0);
    net.calm_down().await;
    for n in 0..=POLICY {
        assert_eq!(net.house(n).standing(&room, &said).await, Some(Standing::Live), "server {n}");
        assert!(signature(&net.house(n), &room, &said).await.is_string(), "server {n}");
        assert_eq!(extremities(&net.house(n), &room).await, 1);
    }
    assert_eq!(net.asked_about("hello"), 1, "who gets it asks no more");
    let asked = lock(&net.desk).asked.pop().expect("a question").1;
    assert!(asked["hashes"].is_object() && asked["signatures"][name(0).as_str()].is_object(), "{asked}");
    assert!(asked.get("event_id").is_none() && asked.get("unsigned").is_none(), "{asked}");
}

#[tokio::test(start_paused = true)]
async fn what_the_policy_server_refuses_never_was() {
    let (net, room) = with_policy().await;
    let here = net.house(0);
    let before = here.tip(&room).await;
    let refused = here.send(&room, &user(0, 0), "spam").await.expect_err("is refused");
    let RoomError::NotSigned { server, refusal } = refused else { panic!("{refused:?}") };
    assert_eq!((server, &*refusal.errcode), (name(POLICY), "M_FORBIDDEN"));
    assert_eq!(refusal.message, "The message appears to contain possible spam");
    let named = here.set(&room, &user(0, 0), "m.room.name", "", json!({ "name": "spam" })).await;
    assert!(matches!(named, Err(RoomError::NotSigned { .. })), "state, too: {named:?}");
    let keyed = here.set(&room, &user(0, 0), "m.room.policy", "spam", json!({})).await;
    assert!(matches!(keyed, Err(RoomError::NotSigned { .. })), "a policy with a key is no policy: {keyed:?}");
    assert_eq!(here.tip(&room).await, before, "nothing of it remains");
    assert!(net.packets().await.is_empty());
    here.send(&room, &user(0, 0), "ham").await.expect("may talk");
}

#[tokio::test(start_paused = true)]
async fn without_a_good_answer_nothing_goes_out_until_the_room_does_without() {
    let (net, room) = with_policy().await;
    let here = net.house(0);
    let before = here.tip(&room).await;
    net.says(Says::Nothing);
    assert!(matches!(here.send(&room, &user(0, 0), "a").await, Err(RoomError::Unreachable(_))));
    // Many who try at once are not all made to wait for it.
    assert!(matches!(here.send(&room, &user(0, 0), "b").await, Err(RoomError::Unreachable(_))));
    assert_eq!(net.asked_about("\"b\""), 0);
    for says in [Says::SignsNot, Says::SignsWrongly, Says::IsNone, Says::Busy] {
        tokio::time::advance(Duration::from_secs(2)).await;
        net.says(says);
        assert!(matches!(here.send(&room, &user(0, 0), "c").await, Err(RoomError::NotSigned { .. })));
    }
    assert_eq!(here.tip(&room).await, before);
    net.says(Says::Nothing);
    here.set(&room, &user(0, 0), "m.room.policy", "", json!({})).await.expect("nobody is asked about that");
    assert_eq!(net.asked_about("m.room.policy"), 0);
    let said = here.send(&room, &user(0, 0), "alone").await.expect("may talk");
    net.calm_down().await;
    assert_eq!(net.house(1).standing(&room, &said).await, Some(Standing::Live));
    assert!(signature(&here, &room, &said).await.is_null());
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_not_whole_or_whose_server_is_not_there_is_none() {
    let (net, room) = without_policy().await;
    let here = net.house(0);
    net.says(Says::Nothing);
    let elsewhere = policy_content(&name(7));
    for content in [json!({ "via": name(POLICY) }), elsewhere, json!({ "via": name(POLICY), "public_keys": {} })] {
        here.set(&room, &user(0, 0), "m.room.policy", "", content.clone()).await.expect("may");
        here.send(&room, &user(0, 0), "hello").await.unwrap_or_else(|error| panic!("{content}: {error}"));
    }
    set_policy(&net, &room, &name(POLICY)).await;
    assert!(here.send(&room, &user(0, 0), "hello").await.is_err(), "this one is whole");
    net.calm_down().await;
    // The policy server goes. Its leave is not signed: for others it has not gone until it says so itself.
    let gone = net.house(POLICY).rooms.change_membership(&user(0, POLICY), &room, MemberAction::Leave, None).await;
    assert!(gone.is_err());
    tokio::time::advance(Duration::from_secs(2)).await;
    net.says(Says::Something);
    net.house(POLICY).rooms.change_membership(&user(0, POLICY), &room, MemberAction::Leave, None).await.expect("goes");
    net.calm_down().await;
    net.says(Says::Nothing);
    here.send(&room, &user(0, 0), "hello").await.expect("there is no policy server any more");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_comes_unsigned_is_asked_about_and_kept_signed() {
    let (net, room) = with_policy().await;
    let mut events: Vec<Pdu> = Vec::new();
    for n in 0..30 {
        let event = unasked(&net, &room, text(&format!("no. {n}.")), events.last()).await;
        events.push(event);
    }
    receive(&net, &events.iter().collect::<Vec<_>>()).await;
    for event in &events {
        assert_eq!(standing(&net, &room, event).await, Standing::Live);
        assert!(signature(&net.house(0), &room, &event.event_id).await.is_string());
    }
    net.calm_down().await;
    for n in 0..30 {
        assert_eq!(net.asked_about(&format!("no. {n}.")), 1);
    }
    assert_eq!(extremities(&net.house(0), &room).await, 1);
}

#[tokio::test(start_paused = true)]
async fn an_event_that_the_policy_server_refuses_is_kept_and_not_shown() {
    let (net, room) = with_policy().await;
    let before = net.house(0).tip(&room).await;
    let spam = unasked(&net, &room, text("spam"), None).await;
    receive(&net, &[&spam]).await;
    assert_eq!(standing(&net, &room, &spam).await, Standing::SoftFailed);
    assert_eq!(net.house(0).tip(&room).await, before, "it moves nothing");
    receive(&net, &[&spam]).await;
    net.calm_down().await;
    assert_eq!(net.asked_about("spam"), 1, "the refusal is remembered");
    // What follows it is an event like any other.
    let ham = unasked(&net, &room, text("ham"), Some(&spam)).await;
    receive(&net, &[&ham]).await;
    assert_eq!(standing(&net, &room, &ham).await, Standing::Live);
    assert_eq!(extremities(&net.house(0), &room).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_signature_is_none() {
    let (net, room) = with_policy().await;
    let rules = rules(&RoomVersionId::V10).expect("known");
    let wrong = SigningKey::from_seed([79; 32], "policy_server").expect("a key");
    let mut events = Vec::new();
    for body in ["ham", "spam"] {
        let event = unasked(&net, &room, text(body), None).await;
        let signed = sign_event(&event.json, &name(POLICY), &wrong, rules).expect("signs");
        let event = Pdu::from_remote(&signed, rules).expect("an event");
        receive(&net, &[&event]).await;
        events.push(event);
    }
    let wrong = |event: &Pdu| serde_json::from_str::<Value>(&event.json).expect("JSON")["signatures"].clone();
    assert_eq!(standing(&net, &room, &events[0]).await, Standing::Live);
    let kept = signature(&net.house(0), &room, &events[0].event_id).await;
    assert!(kept.is_string() && kept != wrong(&events[0])[name(POLICY).as_str()]["ed25519:policy_server"]);
    assert_eq!(standing(&net, &room, &events[1]).await, Standing::SoftFailed);
}

#[tokio::test(start_paused = true)]
async fn an_event_waits_a_little_for_a_policy_server_that_is_not_there() {
    let (net, room) = with_policy().await;
    net.says(Says::Nothing);
    let early = unasked(&net, &room, text("early"), None).await;
    receive(&net, &[&early]).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(net.house(0).standing(&room, &early.event_id).await, None, "it waits");
    net.says(Says::Busy);
    tokio::time::sleep(Duration::from_secs(10)).await;
    net.says(Says::Something);
    assert_eq!(standing(&net, &room, &early).await, Standing::Live);
    net.says(Says::Nothing);
    let late = unasked(&net, &room, text("late"), None).await;
    receive(&net, &[&late]).await;
    assert_eq!(standing(&net, &room, &late).await, Standing::SoftFailed, "not for ever");
    assert!(net.asked_about("late") < 8, "nor is it asked again and again");
    // A restart forgets nothing that matters.
    net.move_in_again(0, 5).await;
    net.says(Says::Something);
    receive(&net, &[&late]).await;
    net.calm_down().await;
    assert_eq!(net.house(0).standing(&room, &late.event_id).await, Some(Standing::SoftFailed));
}

#[tokio::test(start_paused = true)]
async fn a_slow_policy_server_delays_its_own_rooms_events_alone() {
    let (net, room) = with_policy().await;
    let other = public_room(&net.house(0), RoomVersionId::V10).await;
    join(&net, &other, 1).await.expect("joins");
    let gate = Arc::new(Semaphore::new(0));
    lock(&net.desk).gate = Some(gate.clone());
    let slow = unasked(&net, &room, text("slow"), None).await;
    receive(&net, &[&slow]).await;
    let here = net.house(0);
    let (sender, rooms, asked) = (user(0, 0), here.rooms.clone(), room.clone());
    let waits = tokio::spawn(async move { rooms.send(&sender, &asked, text("waits"), None, None).await });
    let quick = unasked(&net, &other, text("quick"), None).await;
    receive(&net, &[&quick]).await;
    assert_eq!(standing(&net, &other, &quick).await, Standing::Live);
    here.send(&other, &user(0, 0), "quick, too").await.expect("may talk");
    // In the room itself what needs no answer passes.
    let policy = policy_content(&name(POLICY));
    here.set(
        &room,
        &user(0, 0),
        "m.room.policy",
        "",
        json!({ "x": 1, "via": policy["via"], "public_keys": policy["public_keys"] }),
    )
    .await
    .expect("may");
    assert_eq!(here.standing(&room, &slow.event_id).await, None);
    assert!(!waits.is_finished());
    gate.add_permits(100);
    assert_eq!(standing(&net, &room, &slow).await, Standing::Live);
    waits.await.expect("ends").expect("may talk");
}

#[tokio::test(start_paused = true)]
async fn a_room_gets_rid_of_a_policy_server_that_is_not_there() {
    let (net, room) = with_policy().await;
    let mut levels = net.house(0).content(&room, "m.room.power_levels", "").await.expect("levels");
    levels["users"]["@u0:s1.test"] = json!(100);
    net.house(0).set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may");
    net.calm_down().await;
    net.says(Says::Nothing);
    let unsigned = unasked(&net, &room, text("unsigned"), None).await;
    let rid = unasked(&net, &room, Draft::state("m.room.policy", "", object(json!({}))), Some(&unsigned)).await;
    let after = unasked(&net, &room, text("after"), Some(&rid)).await;
    receive(&net, &[&unsigned, &rid, &after]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(
        net.house(0).standing(&room, &rid.event_id).await,
        Some(Standing::Live),
        "it does not wait for the rest"
    );
    assert_eq!(standing(&net, &room, &after).await, Standing::Live);
    assert_eq!(standing(&net, &room, &unsigned).await, Standing::SoftFailed);
}

#[tokio::test(start_paused = true)]
async fn what_is_fetched_is_asked_about_too() {
    let (net, room) = with_policy().await;
    let first = unasked(&net, &room, text("first"), None).await;
    let spam = unasked(&net, &room, text("spam"), Some(&first)).await;
    let last = unasked(&net, &room, text("last"), Some(&spam)).await;
    let lies = super::Lies {
        missing_events: Some(vec![first.json.to_string(), spam.json.to_string()]),
        ..super::Lies::default()
    };
    lock(&net.lies).insert(name(1), lies);
    receive(&net, &[&last]).await;
    assert_eq!(standing(&net, &room, &last).await, Standing::Live);
    assert_eq!(standing(&net, &room, &first).await, Standing::Live);
    assert_eq!(standing(&net, &room, &spam).await, Standing::SoftFailed);
    assert!(signature(&net.house(0), &room, &first.event_id).await.is_string());
    for body in ["first", "spam", "last"] {
        assert_eq!(net.asked_about(&format!("\"body\":\"{body}\"")), 1, "{body}");
    }
}

#[tokio::test(start_paused = true)]
async fn history_is_asked_about_and_does_not_come_while_it_cannot_be() {
    let (net, room) = without_policy().await;
    net.house(0).send(&room, &user(0, 0), "old ham").await.expect("may talk");
    let spam = net.house(0).send(&room, &user(0, 0), "old spam").await.expect("may talk");
    let ham = net.house(0).send(&room, &user(0, 0), "more old ham").await.expect("may talk");
    net.calm_down().await;
    set_policy(&net, &room, &name(POLICY)).await;
    net.calm_down().await;
    // A server that comes now knows nothing of what was.
    let store =
        hearth_store::Store::open(hearth_store::StoreOptions { url: hearth_store::DatabaseUrl::Inline, threads: 1 });
    net.move_in(3, store.await.expect("opens"), 1).await;
    join(&net, &room, 3).await.expect("joins");
    net.calm_down().await;
    let there = net.house(3);
    net.says(Says::Nothing);
    assert_eq!(there.rooms.backfill(&room, i64::MAX, 100).await.expect("asks"), 0);
    assert_eq!(there.standing(&room, &ham).await, None);
    tokio::time::sleep(Duration::from_secs(60)).await;
    net.says(Says::Something);
    assert!(there.rooms.backfill(&room, i64::MAX, 100).await.expect("asks") > 0);
    assert_eq!(there.standing(&room, &ham).await, Some(Standing::Live));
    assert_eq!(there.standing(&room, &spam).await, Some(Standing::SoftFailed));
    assert!(signature(&there, &room, &ham).await.is_string());
}

#[tokio::test(start_paused = true)]
async fn who_comes_goes_or_is_invited_is_asked_about_by_the_server_that_lets_him() {
    let (net, room) = with_policy().await;
    let (here, there) = (net.house(0), net.house(1));
    let guest = user(1, 1);
    here.rooms.change_membership(&user(0, 0), &room, MemberAction::Invite(guest.clone()), None).await.expect("may");
    net.calm_down().await;
    let invite = here.state(&room).await[&("m.room.member".to_owned(), guest.to_string())].clone();
    for house in [&here, &there] {
        assert!(signature(house, &room, &invite).await.is_string());
    }
    assert_eq!(net.asked_about("\"invite\""), 1);
    net.says(Says::Nothing);
    let refused = here.rooms.change_membership(&user(0, 0), &room, MemberAction::Invite(user(5, 1)), None).await;
    assert!(matches!(refused, Err(RoomError::Unreachable(_))), "{refused:?}");

    // A server that is not in the room yet: who lets it in asks.
    let store =
        hearth_store::Store::open(hearth_store::StoreOptions { url: hearth_store::DatabaseUrl::Inline, threads: 1 });
    net.move_in(3, store.await.expect("opens"), 1).await;
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(join(&net, &room, 3).await.is_err());
    assert_eq!(here.membership(&room, &user(0, 3)).await, None, "nothing of it remains");
    tokio::time::advance(Duration::from_secs(2)).await;
    net.says(Says::Something);
    join(&net, &room, 3).await.expect("joins");
    net.calm_down().await;
    let joined = here.state(&room).await[&("m.room.member".to_owned(), user(0, 3).to_string())].clone();
    for n in [0, 1, 3] {
        assert!(signature(&net.house(n), &room, &joined).await.is_string(), "server {n}");
    }
    let of_join = lock(&net.desk).asked.iter().filter(|(_, event)| event["state_key"] == user(0, 3).as_str()).count();
    assert_eq!(of_join, 2, "once in vain and once more, by the server that let it in");
}

#[tokio::test(start_paused = true)]
async fn a_retried_transaction_is_one_event() {
    let (net, room) = with_policy().await;
    let here = net.house(0);
    let txn = || Some(Txn { device: DeviceNum(1), txn_id: "t1".into() });
    let sender = user(0, 0);
    let send = || here.rooms.send(&sender, &room, text("once"), txn(), None);
    let (one, two) = tokio::join!(send(), send());
    let one = one.expect("may talk");
    assert_eq!(one, two.expect("may talk"));
    let asked = net.asked_about("once");
    assert_eq!(send().await.expect("may talk"), one);
    assert_eq!(net.asked_about("once"), asked, "the event is there");
    net.calm_down().await;
    let topic = json!({ "topic": "the same" });
    let set = || here.set(&room, &sender, "m.room.topic", "", topic.clone());
    let (one, two) = tokio::join!(set(), set());
    assert_eq!(one.expect("may"), two.expect("may"), "state that stands already is no second event");
    assert_eq!(net.asked_about("the same"), 1);
}

#[tokio::test(start_paused = true)]
async fn many_who_talk_at_once_make_no_more_branches_than_one_event_merges() {
    let (net, room) = with_policy().await;
    let here = net.house(0);
    let gate = Arc::new(Semaphore::new(0));
    lock(&net.desk).gate = Some(gate.clone());
    let mut under_way = tokio::task::JoinSet::new();
    for n in 0..40 {
        let (rooms, room, sender) = (here.rooms.clone(), room.clone(), user(0, 0));
        under_way.spawn(async move { rooms.send(&sender, &room, text(&format!("no. {n}")), None, None).await });
    }
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.add_permits(1000);
    while let Some(sent) = under_way.join_next().await {
        sent.expect("ends").expect("may talk");
        assert!(extremities(&here, &room).await <= 10);
    }
    here.send(&room, &user(0, 0), "last").await.expect("may talk");
    assert_eq!(extremities(&here, &room).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_room_may_name_our_own_server_and_unname_it() {
    let (net, room) = without_policy().await;
    let here = net.house(0);
    set_policy(&net, &room, &name(0)).await;
    net.says(Says::IsNone);
    assert!(matches!(here.send(&room, &user(0, 0), "hello").await, Err(RoomError::NotSigned { .. })));
    let rules = rules(&RoomVersionId::V10).expect("known");
    // What answers under our name may be something else, which is a policy server.
    net.says(Says::Something);
    let said = here.send(&room, &user(0, 0), "hello").await.expect("may talk");
    let (pdu, _) = here.rooms.event(&room, &said).await.expect("reads").expect("is there");
    let event: Value = serde_json::from_str(&pdu.json).expect("JSON");
    let ours = event["signatures"][name(0).as_str()].as_object().expect("signatures").len();
    assert_eq!(ours, 2, "beside our own: {event}");
    assert_eq!(Pdu::from_remote(&pdu.json, rules).expect("an event").event_id, said);
    net.calm_down().await;
    assert_eq!(net.house(1).standing(&room, &said).await, Some(Standing::Live));
    net.says(Says::IsNone);
    here.set(&room, &user(0, 0), "m.room.policy", "", json!({})).await.expect("may");
    here.send(&room, &user(0, 0), "alone").await.expect("may talk");
}
