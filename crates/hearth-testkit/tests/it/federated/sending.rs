//! What is sent to another server, as one hears it that does nothing but listen.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::put;
use hearth_api::serve::Serving;
use hearth_delivery::Task;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, ServerName};
use hearth_store::{Destination, Noun, StoreError};
use hearth_testkit::{Federation, json};
use hearth_user::presence::{PresenceState, SetPresence};

use super::*;

/// What a server that only listens has heard, and whether it took it.
#[derive(Clone)]
struct Heard {
    all: Arc<Mutex<Vec<Transaction>>>,
    takes: Arc<dyn Fn(&Value) -> bool + Send + Sync>,
    /// How it answers what it does not take.
    refusal: StatusCode,
}

#[derive(Clone, Debug, PartialEq)]
struct Transaction {
    id: String,
    body: String,
    taken: bool,
}

impl Transaction {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }

    fn has(&self, kind: &str) -> bool {
        self.json()["edus"].as_array().expect("a list").iter().any(|edu| edu["edu_type"] == kind)
    }
}

impl Heard {
    fn all(&self) -> Vec<Transaction> {
        self.all.lock().unwrap().clone()
    }

    fn transactions(&self, taken: bool) -> Vec<Value> {
        self.all().iter().filter(|transaction| transaction.taken == taken).map(Transaction::json).collect()
    }

    fn refused(&self) -> usize {
        self.transactions(false).len()
    }

    /// The messages in what it took.
    fn bodies(&self) -> Vec<String> {
        self.transactions(true).iter().flat_map(bodies).collect()
    }
}

fn bodies(transaction: &Value) -> Vec<String> {
    let pdus = transaction["pdus"].as_array().expect("a list").iter();
    pdus.filter_map(|pdu| pdu["content"]["body"].as_str().map(str::to_owned)).collect()
}

async fn hear(State(heard): State<Heard>, Path(id): Path<String>, body: String) -> (StatusCode, String) {
    let taken = (heard.takes)(&serde_json::from_str(&body).expect("JSON"));
    heard.all.lock().unwrap().push(Transaction { id, body, taken });
    match taken {
        true => (StatusCode::OK, json!({ "pdus": {} }).to_string()),
        false => (heard.refusal, json!({ "errcode": "M_BAD_JSON", "error": "Not this" }).to_string()),
    }
}

/// Puts one that only listens in a server's place, and finds fault with what it does not take.
async fn listen(
    federation: &Federation,
    n: usize,
    takes: impl Fn(&Value) -> bool + Send + Sync + 'static,
) -> (Heard, Serving) {
    listen_or(federation, n, StatusCode::BAD_REQUEST, takes).await
}

/// The same with another answer to what it does not take.
async fn listen_or(
    federation: &Federation,
    n: usize,
    refusal: StatusCode,
    takes: impl Fn(&Value) -> bool + Send + Sync + 'static,
) -> (Heard, Serving) {
    let heard = Heard { all: Arc::default(), takes: Arc::new(takes), refusal };
    let router = Router::new().route("/_matrix/federation/v1/send/{txn}", put(hear)).with_state(heard.clone());
    (heard, federation.answer_for(n, router).await)
}

fn server_name(federation: &Federation, n: usize) -> hearth_matrix::ruma::OwnedServerName {
    ServerName::parse(federation.name(n)).expect("a server name")
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn of_a_refused_transaction_only_what_is_not_taken_stays_out() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    federation.links[1].cut();
    let all = ["one", "two", "three", "four", "never this", "six", "seven", "eight"];
    for body in all {
        send(&alice, &room, body).await;
    }
    until_away(&federation, 0, 1).await;
    let takes = |transaction: &Value| !bodies(transaction).contains(&"never this".to_owned());
    let (heard, _serving) = listen(&federation, 1, takes).await;
    federation.time.advance(3_600_000);
    let rest: Vec<&str> = all.into_iter().filter(|body| *body != "never this").collect();
    until("the rest is taken", async || heard.bodies() == rest).await;
    let refused: Vec<usize> = heard.transactions(false).iter().map(|refused| bodies(refused).len()).collect();
    let is_halved = refused.is_sorted_by(|one, next| one >= next) && refused.len() <= 6 && refused.last() == Some(&1);
    assert!(is_halved, "until it was known what is not taken: {refused:?}");
    // And on.
    send(&alice, &room, "nine").await;
    until("what comes later is taken, too", async || heard.bodies().last().is_some_and(|last| last == "nine")).await;
    assert_eq!(heard.transactions(false).len(), refused.len(), "it is not tried again");
}

/// Alice and a room of hers with a member on the second server, which is away, and to which these messages are to be sent.
async fn lacking(federation: &Federation, messages: &[&str]) -> (User, String) {
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    federation.links[1].cut();
    for body in messages {
        send(&alice, &room, body).await;
    }
    until_away(federation, 0, 1).await;
    (alice, room)
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn what_others_are_judged_by_is_sent_whole_also_if_it_was_redacted_meanwhile() {
    for version in ["10", "11"] {
        let federation = Federation::start(2).await;
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": version })).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        federation.links[1].cut();
        let said = send(&alice, &room, "a secret").await;
        let (status, mut levels) = alice.get(&room_path(&room, "state/m.room.power_levels/")).await;
        assert_eq!(status, 200, "{levels}");
        (levels["invite"], levels["notes"]) = (json!(50), json!("a secret"));
        let levels = set_state(&alice, &room, "m.room.power_levels", levels).await;
        for (n, event_id) in [said, levels].iter().enumerate() {
            let path = room_path(&room, &format!("redact/{}/{n}", encoded(event_id)));
            assert_eq!(alice.put(&path, &json!({})).await.0, 200);
        }
        until_away(&federation, 0, 1).await;
        let (heard, _serving) = listen(&federation, 1, |_| true).await;
        federation.time.advance(3_600_000);
        let found = async |kind: &str| {
            let of_kind = || {
                let pdus = heard.transactions(true).into_iter().flat_map(|it| it["pdus"].as_array().cloned());
                pdus.flatten().find(|pdu| pdu["type"] == kind)
            };
            hearth_testkit::until_some("it is sent", async || of_kind()).await["content"].clone()
        };
        assert_eq!(found("m.room.message").await, json!({}));
        let levels = found("m.room.power_levels").await;
        // From version 11 on redaction keeps it, so that the rest can go.
        assert_eq!((&levels["invite"], levels["notes"] == "a secret"), (&json!(50), version == "10"), "{version}");
    }
}

/// What the first server knows of the second.
async fn known(federation: &Federation) -> Destination {
    let remote = &federation.servers[0].running().doors().remote;
    remote.destination(&server_name(federation, 1)).await.expect("the store answers").unwrap_or_default()
}

async fn until_served(federation: &Federation) {
    let (there, delivery) = (server_name(federation, 1), &federation.servers[0].running().doors().delivery);
    until("the server lacks nothing", async || {
        delivery.status(&there).await.expect("the store answers").behind.events == 0
    })
    .await;
}

/// Lets the second server be tried again, so often, each time when its time has come; how long each wait was.
async fn try_again(federation: &Federation, times: usize) -> Vec<i64> {
    let mut waits = Vec::new();
    for _ in 0..times {
        let failures = known(federation).await.failures;
        waits.push(known(federation).await.retry_ts - federation.time.now_ms());
        federation.time.advance(waits[waits.len() - 1]);
        until("it fails again", async || known(federation).await.failures > failures).await;
    }
    waits
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_server_that_refuses_everything_for_a_while_loses_nothing() {
    hearth_testkit::on_each_backend_together(2, async |mut federation| {
        let all: Vec<String> = (0..20).map(|n| format!("message {n}")).collect();
        let (alice, room) = lacking(&federation, &all.iter().map(String::as_str).collect::<Vec<_>>()).await;
        let is_ill = Arc::new(AtomicBool::new(true));
        let ill = is_ill.clone();
        let (heard, _serving) = listen(&federation, 1, move |_| !ill.load(Ordering::SeqCst)).await;
        let waits = try_again(&federation, 4).await;
        assert!(waits.is_sorted_by(|one, next| one < next), "it is left alone for longer and longer: {waits:?}");
        let before = heard.refused();
        try_again(&federation, 1).await;
        assert!(heard.refused() - before <= 10, "and not asked about all of it");
        federation.restart(0).await;
        let alice = alice.at(federation.servers[0].target().clone());
        send(&alice, &room, "and on").await;
        assert!(heard.bodies().is_empty());
        is_ill.store(false, Ordering::SeqCst);
        federation.time.advance(3_600_000);
        let expected = [all, vec!["and on".to_owned()]].concat();
        until("all is taken, in order", async || heard.bodies() == expected).await;
        until("it is well", async || known(&federation).await.failures == 0).await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn what_was_refused_by_a_server_that_recovered_since_is_sent_again() {
    let federation = Federation::start(2).await;
    lacking(&federation, &["one", "two", "three", "four"]).await;
    // Four, two and one are too many; then it is well.
    let refuses = AtomicUsize::new(3);
    let takes =
        move |_: &Value| refuses.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_err();
    let (heard, _serving) = listen(&federation, 1, takes).await;
    federation.time.advance(3_600_000);
    let sorted = || {
        let mut bodies = heard.bodies();
        bodies.sort_unstable();
        bodies
    };
    until("all are taken", async || sorted() == ["four", "one", "three", "two"]).await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn an_event_that_a_server_never_takes_is_kept_until_it_takes_another() {
    let federation = Federation::start(2).await;
    let (alice, room) = lacking(&federation, &["never this"]).await;
    let takes = |transaction: &Value| !bodies(transaction).contains(&"never this".to_owned());
    let (heard, _serving) = listen(&federation, 1, takes).await;
    try_again(&federation, 3).await;
    send(&alice, &room, "but this").await;
    federation.time.advance(3_600_000);
    until("the other is taken", async || heard.bodies() == ["but this"]).await;
    until_served(&federation).await;
    assert_eq!(known(&federation).await.failures, 0);
    let refused = heard.refused();
    send(&alice, &room, "and this").await;
    until("what comes later is taken", async || heard.bodies() == ["but this", "and this"]).await;
    assert_eq!(heard.refused(), refused, "the first is not tried again");
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn behind_many_events_that_a_server_never_takes_another_is_found() {
    let federation = Federation::start(2).await;
    let never: Vec<String> = (0..20).map(|n| format!("never {n}")).collect();
    let (alice, room) = lacking(&federation, &never.iter().map(String::as_str).collect::<Vec<_>>()).await;
    send(&alice, &room, "but this").await;
    let takes = |transaction: &Value| !bodies(transaction).iter().any(|body| body.starts_with("never"));
    let (heard, _serving) = listen(&federation, 1, takes).await;
    for _ in 0..12 {
        let failures = known(&federation).await.failures;
        federation.time.advance(3_600_000);
        until("it fails again, or takes the other", async || {
            known(&federation).await.failures > failures || heard.bodies() == ["but this"]
        })
        .await;
    }
    until_served(&federation).await;
    assert_eq!((heard.bodies(), known(&federation).await.failures), (vec!["but this".to_owned()], 0));
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn an_event_that_a_server_never_takes_does_not_fail_it_for_ever() {
    let mut federation = Federation::start(2).await;
    let (alice, room) = lacking(&federation, &["never this"]).await;
    let takes = |transaction: &Value| bodies(transaction).is_empty();
    let (heard, _serving) = listen(&federation, 1, takes).await;
    try_again(&federation, 10).await;
    assert_eq!(heard.transactions(true).len(), 0, "it is asked for nothing else");
    federation.restart(0).await;
    federation.time.advance(24 * 3_600_000);
    until("it is well", async || known(&federation).await.failures == 0).await;
    let empty = heard.transactions(true);
    assert_eq!((empty.len(), &empty[0]["pdus"], &empty[0]["edus"]), (1, &json!([]), &json!([])));
    until_served(&federation).await;
    // What comes later has its own day.
    let (alice, refused) = (alice.at(federation.servers[0].target().clone()), heard.refused());
    send(&alice, &room, "nor this").await;
    until("it fails", async || known(&federation).await.failures > 0).await;
    assert_eq!((heard.refused(), heard.transactions(true).len()), (refused + 1, 1));
}

async fn reads(user: &User, room: &str, event_id: &str) {
    let path = room_path(room, &format!("receipt/m.read/{}", encoded(event_id)));
    assert_eq!(user.post(&path, &json!({})).await.0, 200);
}

async fn types(user: &User, room: &str, typing: bool) {
    let path = room_path(room, &format!("typing/{}", encoded(&user.user_id)));
    assert_eq!(user.put(&path, &json!({ "typing": typing, "timeout": 60_000 })).await.0, 200);
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_transaction_that_is_sent_again_is_the_same_to_the_byte() {
    hearth_testkit::on_each_backend_together(2, async |mut federation| {
        let (alice, room) = lacking(&federation, &["one", "two"]).await;
        let three = send(&alice, &room, "three").await;
        reads(&alice, &room, &three).await;
        let is_ill = Arc::new(AtomicBool::new(true));
        let ill = is_ill.clone();
        let takes = move |it: &Value| !ill.load(Ordering::SeqCst) || !bodies(it).contains(&"three".to_owned());
        let (heard, _serving) = listen_or(&federation, 1, StatusCode::BAD_GATEWAY, takes).await;
        federation.time.advance(3_600_000);
        until("it is not taken", async || heard.refused() > 0).await;
        until("that is noted", async || known(&federation).await.failures > 0).await;
        try_again(&federation, 2).await;
        federation.restart(0).await;
        let alice = alice.at(federation.servers[0].target().clone());
        // What comes later does not come into it.
        send(&alice, &room, "four").await;
        types(&alice, &room, true).await;
        is_ill.store(false, Ordering::SeqCst);
        federation.time.advance(3_600_000);
        until("all are taken", async || heard.bodies() == ["one", "two", "three", "four"]).await;
        let all = heard.all();
        let tries: Vec<_> = all.iter().filter(|it| bodies(&it.json()).contains(&"three".to_owned())).collect();
        assert!(tries.len() >= 4 && tries[0].has("m.receipt"), "{tries:#?}");
        assert!(tries.iter().all(|it| (&it.id, &it.body) == (&tries[0].id, &tries[0].body)), "{tries:#?}");
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn what_is_of_the_moment_goes_by_itself_and_is_not_sent_again() {
    let federation = Federation::start(2).await;
    let (alice, room) = lacking(&federation, &["one"]).await;
    let is_ill = Arc::new(AtomicBool::new(false));
    let ill = is_ill.clone();
    let (heard, _serving) =
        listen_or(&federation, 1, StatusCode::BAD_GATEWAY, move |_| !ill.load(Ordering::SeqCst)).await;
    federation.time.advance(3_600_000);
    until_served(&federation).await;
    for n in 0..10 {
        types(&alice, &room, true).await;
        reads(&alice, &room, &send(&alice, &room, &format!("message {n}")).await).await;
        types(&alice, &room, false).await;
    }
    until_served(&federation).await;
    types(&alice, &room, true).await;
    until("typing is told", async || heard.all().last().is_some_and(|last| last.has("m.typing"))).await;
    for transaction in heard.all() {
        let is_of_the_moment = transaction.has("m.typing") || transaction.has("m.presence");
        let covers = transaction.has("m.receipt") || !bodies(&transaction.json()).is_empty();
        assert_ne!(is_of_the_moment, covers, "{transaction:#?}");
    }
    is_ill.store(true, Ordering::SeqCst);
    types(&alice, &room, false).await;
    until("it fails", async || known(&federation).await.failures > 0).await;
    is_ill.store(false, Ordering::SeqCst);
    let failed = heard.all().last().cloned().expect("it was heard");
    assert!(failed.has("m.typing") && !failed.taken);
    federation.time.advance(3_600_000);
    send(&alice, &room, "and on").await;
    until("what comes later is taken", async || heard.bodies().last().is_some_and(|last| last == "and on")).await;
    assert_eq!(heard.all().iter().filter(|it| it.id == failed.id).count(), 1);
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn an_event_that_is_not_taken_with_its_receipts_goes_without_under_another_id() {
    let federation = Federation::start(2).await;
    let (alice, room) = lacking(&federation, &["zero"]).await;
    reads(&alice, &room, &send(&alice, &room, "one").await).await;
    let (heard, _serving) = listen(&federation, 1, |it| it["edus"] == json!([])).await;
    federation.time.advance(3_600_000);
    until("the event is taken", async || heard.bodies() == ["zero", "one"]).await;
    let all = heard.all();
    let ids: Vec<&str> = all.iter().map(|it| it.id.as_str()).collect();
    let [.., refused, taken] = ids[..] else { panic!("{all:#?}") };
    assert_eq!(taken, format!("{refused}-events"));
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn who_was_away_before_a_restart_is_left_alone_after_it_until_its_time() {
    hearth_testkit::on_each_backend_together(3, async |mut federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[2].user("carol").await;
        let room = public_room(&alice).await;
        for user in [&bob, &carol] {
            must_join_via(user, &room, &federation.name(0)).await;
        }
        federation.links[1].cut();
        send(&alice, &room, "one").await;
        until_away(&federation, 0, 1).await;
        federation.restart(0).await;
        let alice = alice.at(federation.servers[0].target().clone());
        let (heard, _serving) = listen(&federation, 1, |_| true).await;
        let name = server_name(&federation, 1);
        let doors = federation.servers[0].running().doors();
        let known = doors.remote.destination(&name).await.expect("the store answers").expect("it is known");
        let waits = Task::Waits { until_ms: known.retry_ts };
        let task = async || doors.delivery.status(&name).await.expect("the store answers").task;
        until("it waits", async || task().await == waits).await;
        let two = send(&alice, &room, "two").await;
        arrives(&carol, &room, &two).await;
        assert_eq!((task().await, heard.bodies().len()), (waits, 0));
        federation.time.advance(known.retry_ts - federation.time.now_ms());
        until("its time has come", async || heard.bodies() == ["one", "two"]).await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn receipts_that_are_too_many_for_a_transaction_come_with_the_next() {
    const RECEIPTS: usize = 620;
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    let said = send(&alice, &room, "read me").await;
    arrives(&bob, &room, &said).await;
    federation.links[0].cut();
    send(&bob, &room, "all of us have read it").await;
    until_away(&federation, 1, 0).await;
    let store = &federation.servers[1].running().doors().store;
    let reads = (0..RECEIPTS).map(|n| {
        let user = format!("@u{n}:{}", federation.name(1));
        let (room, said) = (OwnedRoomId::try_from(&*room), OwnedEventId::try_from(&*said));
        store.write([Noun::Name(user.clone())], move |tx| {
            let room = tx.rooms().by_id(&room.clone().expect("a room id"))?.expect("the room is known");
            let event = tx.events().num(&room, &said.clone().expect("an event id"))?.expect("the event is known");
            let user = tx.intern(&user)?;
            tx.receipts().set(room.num, user, false, "", event, 1, true)
        })
    });
    for read in futures_util::future::join_all(reads).await {
        let read: Result<(), StoreError> = read;
        read.expect("written");
    }
    let (heard, _serving) = listen(&federation, 0, |_| true).await;
    federation.time.advance(3_600_000);
    let readers = |transaction: &Value| -> Vec<String> {
        let edus = transaction["edus"].as_array().expect("a list").iter();
        let read = edus.filter_map(|edu| edu["content"][&room]["m.read"].as_object());
        read.flat_map(|users| users.keys().cloned()).collect()
    };
    let told = || heard.transactions(true).iter().map(readers).filter(|users| !users.is_empty()).collect::<Vec<_>>();
    until("all are told", async || told().iter().map(Vec::len).sum::<usize>() >= RECEIPTS).await;
    let told = told();
    assert_eq!(told.iter().map(Vec::len).collect::<Vec<_>>(), [500, RECEIPTS - 500]);
    let mut users = told.concat();
    users.sort_unstable();
    users.dedup();
    assert_eq!(users.len(), RECEIPTS, "each of them once");
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_server_that_comes_into_a_room_is_not_told_who_had_read_what_before() {
    hearth_testkit::on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[0].user("carol").await;
        // They know each other already, so that the first need not ask the second for anything.
        must_join_via(&bob, &public_room(&alice).await, &federation.name(0)).await;
        let room = public_room(&alice).await;
        must_join_via(&carol, &room, &federation.name(0)).await;
        let old = send(&alice, &room, "old").await;
        reads(&carol, &room, &old).await;
        federation.links[1].cut();
        must_join_via(&bob, &room, &federation.name(0)).await;
        let new = send(&carol, &room, "new").await;
        reads(&alice, &room, &new).await;
        until_away(&federation, 0, 1).await;
        let (heard, _serving) = listen(&federation, 1, |_| true).await;
        federation.time.advance(3_600_000);
        until_served(&federation).await;
        let edus = || heard.transactions(true).into_iter().filter_map(|it| it["edus"].as_array().cloned()).flatten();
        let read = || edus().filter_map(|edu| edu["content"][&room]["m.read"].as_object().cloned()).flatten();
        until("the new one is told", async || read().next().is_some()).await;
        let told: Vec<_> = read().map(|(user, receipt)| (user, receipt["event_ids"].clone())).collect();
        assert_eq!(told, [(alice.user_id.clone(), json!([new]))]);
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn who_stays_online_is_told_again_before_others_forget_him() {
    let mut federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    let user_id = OwnedUserId::try_from(&*alice.user_id).expect("a user id");
    let doors = federation.servers[0].running().doors().clone();
    let name = alice.user_id.clone();
    let user =
        doors.store.read(move |tx| tx.string_num(&name)).await.expect("the store answers").expect("she is known");
    // Busy: that does not become idle.
    let set = SetPresence { state: PresenceState::Busy, explicit: true };
    let _syncs = doors.presence.begin_sync(user, &user_id, None, set).await.expect("the store answers");
    must_join_via(&bob, &room, &federation.name(0)).await;
    // His server is told now, for it has come into the room.
    federation.time.advance(5_000);
    let path = format!("/_matrix/client/v3/presence/{}/status", encoded(&alice.user_id));
    let seen = async |bob: &User| {
        let busy = async || bob.get(&path).await.1["presence"] == "org.matrix.msc3026.busy";
        until("she is seen", busy).await;
    };
    seen(&bob).await;
    federation.time.advance(24 * 60_000);
    // What is known of her there is gone with this.
    federation.restart(1).await;
    let bob = bob.at(federation.servers[1].target().clone());
    assert_eq!(bob.get(&path).await.1["presence"], "offline");
    federation.time.advance(60_000);
    seen(&bob).await;
}
