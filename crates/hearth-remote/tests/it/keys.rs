//! The key ring, against servers that answer, are silent, lie, and vouch for others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use hearth_matrix::SigningKey;
use hearth_matrix::ruma::ServerName;
use hearth_matrix::ruma::api::federation::discovery::get_server_version;
use hearth_remote::{Inbound, Notary, Patience, Remote, WantedKey, XMatrix};
use hearth_store::{KeyDocument, Noun, WallTime};
use http::HeaderMap;
use http::header::AUTHORIZATION;
use serde_json::{Value, json};

use crate::harness::{Handler, Matrix, PATIENT, World, counting_black_hole, full, paths, says, store};

const NOW: i64 = 1_700_000_000_000;
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

fn wanted(server: &Matrix, at: Option<i64>) -> WantedKey {
    WantedKey { server: server.name.clone(), key_id: server.key.key_id().to_owned(), at }
}

async fn has(remote: &Remote, server: &Matrix, at: Option<i64>) -> bool {
    let found = remote.keys().find(vec![wanted(server, at)]).await.unwrap();
    match found.get(&server.name, server.key.key_id(), at) {
        Some(key) => {
            assert_eq!(key, server.key.public_key());
            true
        }
        None => false,
    }
}

fn silent() -> Handler {
    Arc::new(|_| Box::pin(std::future::pending()))
}

/// Answers queries about some servers, with a signature of the notary.
fn vouching(notary: &Matrix, about: &[&Matrix], valid_until_ts: i64) -> Handler {
    let own = notary.document(NOW + DAY);
    let documents: BTreeMap<String, String> = about
        .iter()
        .map(|server| {
            let document = server.document(valid_until_ts);
            (server.name.to_string(), notary.key.sign_json(&document, notary.name.as_str()).unwrap())
        })
        .collect();
    Arc::new(move |seen| {
        let response = match seen.uri.path() {
            "/_matrix/key/v2/server" => full(200, own.clone()),
            "/_matrix/key/v2/query" => {
                let query: Value = serde_json::from_slice(&seen.body).unwrap();
                let asked = query["server_keys"].as_object().unwrap();
                assert!(asked.len() <= 100);
                let known: Vec<&str> =
                    asked.keys().filter_map(|server| documents.get(server)).map(String::as_str).collect();
                full(200, format!(r#"{{"server_keys":[{}]}}"#, known.join(",")))
            }
            _ => full(404, "{}"),
        };
        Box::pin(std::future::ready(response))
    })
}

#[tokio::test]
async fn a_key_is_asked_for_once_and_remembered() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let time = WallTime::manual(NOW);
    let server = a.start(&world, a.tells(NOW + DAY)).await;
    let store = store().await;
    let remote = Remote::open(world.config(&us), world.client(), store.clone(), time.clone()).await.unwrap();
    let all = futures_util::future::join_all((0..20).map(|_| has(&remote, &a, Some(NOW)))).await;
    assert_eq!(all, [true; 20]);
    assert_eq!(server.seen().iter().filter(|seen| seen.uri.path() == "/_matrix/key/v2/server").count(), 1);
    drop(server);
    let restarted = Remote::open(world.config(&us), world.client(), store, time).await.unwrap();
    assert!(has(&restarted, &a, Some(NOW)).await);
    assert!(has(&restarted, &a, None).await);
}

#[tokio::test]
async fn a_key_that_was_not_good_then_is_asked_for_again_but_not_at_once() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let time = WallTime::manual(NOW);
    let server = a.start(&world, a.tells(NOW + HOUR)).await;
    let remote = world.remote(&us, &time).await;
    assert!(has(&remote, &a, Some(NOW + HOUR)).await);
    assert!(!has(&remote, &a, Some(NOW + 2 * HOUR)).await);
    assert!(has(&remote, &a, None).await, "old room versions don't care");
    assert_eq!(server.seen().len(), 1);
    drop(server);
    let _server = a.start(&world, a.tells(NOW + DAY)).await;
    assert!(!has(&remote, &a, Some(NOW + 2 * HOUR)).await);
    time.advance(31_000);
    assert!(has(&remote, &a, Some(NOW + 2 * HOUR)).await);
}

#[tokio::test]
async fn nobody_is_believed_for_more_than_a_week() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let _server = a.start(&world, a.tells(NOW + 1000 * DAY)).await;
    let remote = world.remote(&us, &WallTime::manual(NOW)).await;
    assert!(has(&remote, &a, Some(NOW + 7 * DAY)).await);
    assert!(!has(&remote, &a, Some(NOW + 7 * DAY + 1)).await);
}

#[tokio::test]
async fn a_liar_is_not_believed_and_left_alone_for_a_while() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let other = Matrix::new("b.org", 3);
    let forged = a.document(NOW + DAY).replace("valid_until_ts\":", "valid_until_ts\":1");
    let time = WallTime::manual(NOW);
    for answer in [other.document(NOW + DAY), forged, "{}".to_owned(), "rubbish".to_owned()] {
        let answer: &'static str = Box::leak(answer.into_boxed_str());
        let server = a.start(&world, paths(move |path| (path.contains("key")).then(|| full(200, answer)))).await;
        let remote = world.remote(&us, &time).await;
        assert!(!has(&remote, &a, None).await);
        assert!(!has(&remote, &a, None).await);
        let asked = || server.seen().iter().filter(|seen| seen.uri.path().contains("key")).count();
        assert_eq!(asked(), 1);
        time.advance(31_000);
        assert!(!has(&remote, &a, None).await);
        assert_eq!(asked(), 2);
        time.advance(31_000);
        assert!(!has(&remote, &a, None).await);
        assert_eq!(asked(), 2, "longer each time");
    }
}

#[tokio::test]
async fn nobody_waits_for_silent_servers_if_a_notary_knows() {
    let (world, us) = (World::new(), Matrix::new("us.org", 1));
    let notary = Matrix::new("notary.org", 2);
    let servers: Vec<Matrix> = (0..120).map(|at| Matrix::new(&format!("s{at}.org"), 100 + (at / 2) as u8)).collect();
    let mut running = Vec::new();
    for (at, server) in servers.iter().enumerate() {
        // One in three answers, one is silent, one doesn't exist.
        match at % 3 {
            0 => running.push(server.start(&world, server.tells(NOW + DAY)).await),
            1 => {
                let silence = world.server("silent.org", silent()).await;
                world.names.socket(server.name.host(), 8448, silence.address);
                running.push(silence);
            }
            _ => {}
        }
    }
    let notary_server = notary.start(&world, vouching(&notary, &servers.iter().collect::<Vec<_>>(), NOW + DAY)).await;
    let mut config = world.config(&us);
    config.notaries = vec![Notary { server: notary.name.clone(), keys: BTreeMap::new() }];
    config.patience = Patience { before_notaries: Duration::ZERO, ..PATIENT };
    let time = WallTime::manual(NOW);
    let remote = Remote::open(config, world.client(), store().await, time).await.unwrap();
    let all = servers.iter().map(|server| wanted(server, Some(NOW))).collect();
    let found = remote.keys().find(all).await.unwrap();
    for server in &servers {
        assert!(found.get(&server.name, "ed25519:1", Some(NOW)).is_some(), "{}", server.name);
    }
    let queries = notary_server.seen().iter().filter(|seen| seen.uri.path().contains("query")).count();
    assert!((1..=2).contains(&queries), "in batches: {queries}");
}

#[tokio::test]
async fn patience_ends() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let _server = a.start(&world, silent()).await;
    let mut config = world.config(&us);
    config.patience = Patience { whole: Duration::from_millis(50), ..PATIENT };
    let remote = Remote::open(config, world.client(), store().await, WallTime::manual(NOW)).await.unwrap();
    assert!(!has(&remote, &a, None).await);
}

#[tokio::test]
async fn a_notary_must_sign_with_the_key_that_it_is_known_by() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let notary = Matrix::new("notary.org", 3);
    let _server = notary.start(&world, vouching(&notary, &[&a], NOW + DAY)).await;
    for (key, believed) in [(notary.key.public_key(), true), ([9; 32], false)] {
        let mut config = world.config(&us);
        let keys = BTreeMap::from([("ed25519:1".to_owned(), key)]);
        config.notaries = vec![Notary { server: notary.name.clone(), keys }];
        let remote = Remote::open(config, world.client(), store().await, WallTime::manual(NOW)).await.unwrap();
        assert_eq!(has(&remote, &a, Some(NOW)).await, believed);
    }
    // What a notary makes up is not signed by the server it is about.
    let forged = vouching(&notary, &[&Matrix { key: Matrix::new("x", 8).key, ..Matrix::new("b.org", 8) }], NOW);
    drop(_server);
    let _server = notary.start(&world, forged).await;
    let b = Matrix::new("b.org", 4);
    let mut config = world.config(&us);
    config.notaries = vec![Notary { server: notary.name.clone(), keys: BTreeMap::new() }];
    let remote = Remote::open(config, world.client(), store().await, WallTime::manual(NOW)).await.unwrap();
    let found = remote.keys().find(vec![wanted(&b, None)]).await.unwrap();
    assert_ne!(found.get(&b.name, "ed25519:1", None), Some(b.key.public_key()));
}

#[tokio::test]
async fn we_vouch_for_what_servers_said() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let time = WallTime::manual(NOW);
    let server = a.start(&world, a.tells(NOW + DAY)).await;
    let remote = world.remote(&us, &time).await;
    let nobody = ServerName::parse("nobody.org").unwrap();
    let ask = BTreeMap::from([(a.name.clone(), NOW), (us.name.clone(), NOW), (nobody, NOW)]);
    let answer = remote.vouch(ask.clone(), || true).await.unwrap();
    assert_eq!(answer.len(), 2);
    let about_a = answer.iter().find(|json| json.contains("\"server_name\":\"a.org\"")).unwrap();
    for signer in [&a, &us] {
        let key = signer.key.public_key();
        assert!(hearth_matrix::signatures::verify_json(about_a, signer.name.as_str(), "ed25519:1", &key));
    }
    // Gone, and answered for with what it said.
    drop(server);
    time.advance(30 * DAY);
    assert_eq!(remote.vouch(ask, || true).await.unwrap().len(), 2);
}

#[tokio::test]
async fn our_own_keys_are_told_with_old_ones() {
    let (world, us) = (World::new(), Matrix::new("us.org", 1));
    let time = WallTime::manual(NOW);
    let store = store().await;
    let first = Remote::open(world.config(&us), world.client(), store.clone(), time.clone()).await.unwrap();
    let told: Value = serde_json::from_str(&first.own_keys().unwrap()).unwrap();
    assert_eq!(told["old_verify_keys"], json!({}));
    time.advance(5);
    let mut config = world.config(&us);
    config.signing_key = hearth_matrix::SigningKey::from_seed([7; 32], "2").unwrap().into();
    let second = Remote::open(config, world.client(), store, time).await.unwrap();
    assert!(has(&second, &us, Some(NOW + 5)).await && !has(&second, &us, Some(NOW + 6)).await);
    let told: Value = serde_json::from_str(&second.own_keys().unwrap()).unwrap();
    assert_eq!(told["old_verify_keys"]["ed25519:1"]["expired_ts"], json!(NOW + 5));
    assert!(told["verify_keys"]["ed25519:2"].is_object() && told["verify_keys"].as_object().unwrap().len() == 1);
    assert_eq!(told["valid_until_ts"], json!(NOW + 5 + DAY));
}

#[tokio::test]
async fn a_server_with_which_we_do_not_talk_is_not_asked() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let server = a.start(&world, says("{}")).await;
    let mut config = world.config(&us);
    config.servers.denied.push("a.org".to_owned());
    let remote = Remote::open(config, world.client(), store().await, WallTime::manual(NOW)).await.unwrap();
    assert!(!has(&remote, &a, None).await);
    assert!(server.seen().is_empty());
}

#[tokio::test]
async fn a_notary_answers_about_many_and_survives_what_they_say() {
    let (world, us) = (World::new(), Matrix::new("us.org", 1));
    let time = WallTime::manual(NOW);
    // The last of very many names.
    let a = Matrix::new("zz.org", 2);
    let server = a.start(&world, a.tells(NOW + DAY)).await;
    let remote = world.remote(&us, &time).await;
    let about = |server: &Matrix| BTreeMap::from([(server.name.clone(), 0)]);
    assert_eq!(remote.vouch(about(&a), || true).await.unwrap().len(), 1);
    let mut many = about(&a);
    many.extend((0..300).map(|n| (ServerName::parse(format!("n{n}.org")).unwrap(), 0)));
    assert_eq!(remote.vouch(many, || true).await.unwrap().len(), 1);
    drop(server);
    for valid_until_ts in [i64::MIN, i64::MAX] {
        let liar = Matrix::new(&format!("liar{}.org", valid_until_ts.signum()).replace('-', "m"), 3);
        let _server = liar.start(&world, liar.tells(valid_until_ts)).await;
        for _ in 0..2 {
            remote.vouch(about(&liar), || true).await.unwrap();
            time.advance(HOUR);
        }
    }
}

#[tokio::test]
async fn a_notary_that_knows_nothing_is_not_asked_again_at_once() {
    let (world, us, notary) = (World::new(), Matrix::new("us.org", 1), Matrix::new("notary.org", 2));
    let server = notary.start(&world, vouching(&notary, &[], NOW + DAY)).await;
    let mut config = world.config(&us);
    let keys = BTreeMap::from([("ed25519:1".to_owned(), notary.key.public_key())]);
    config.notaries = vec![Notary { server: notary.name.clone(), keys }];
    let time = WallTime::manual(NOW);
    let remote = Remote::open(config, world.client(), store().await, time.clone()).await.unwrap();
    let nobody = Matrix::new("nobody.org", 3);
    let queries = || server.seen().iter().filter(|seen| seen.uri.path().contains("query")).count();
    for _ in 0..5 {
        assert!(!has(&remote, &nobody, None).await);
    }
    assert_eq!(queries(), 1);
    time.advance(61_000);
    assert!(!has(&remote, &nobody, None).await);
    assert_eq!(queries(), 2);
}

#[tokio::test]
async fn servers_that_say_nothing_of_their_keys_keep_no_request_waiting() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let _server = a.start(&world, says("{}")).await;
    let (silence, swallowed) = counting_black_hole().await;
    let remote = world.remote(&us, &WallTime::manual(NOW)).await;
    let mut lookups = tokio::task::JoinSet::new();
    let name = |n: usize| ServerName::parse(format!("n{n}.org")).unwrap();
    for n in 0..600 {
        world.names.socket(name(n).host(), 8448, silence);
    }
    // Keys of events, and those of many servers that seem to send something.
    let of_events: Vec<_> =
        (0..300).map(|n| WantedKey { server: name(n), key_id: "ed25519:1".to_owned(), at: None }).collect();
    let asking = remote.clone();
    lookups.spawn(async move { drop(asking.keys().find(of_events).await) });
    for n in 300..600 {
        let sender = Matrix { name: name(n), key: SigningKey::from_seed([3; 32], "1").unwrap() };
        let signature = XMatrix::sign(&sender.key, &sender.name, &us.name, "GET", "/", b"").unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, signature.to_header().unwrap())]);
        let asked = remote.clone();
        lookups.spawn(async move {
            let request = Inbound { method: "GET", uri: "/", headers: &headers, body: b"", address: None };
            drop(asked.authenticate(request).await);
        });
    }
    while swallowed.load(Ordering::SeqCst) < 256 {
        tokio::task::yield_now().await;
    }
    // Those that want to connect, too, are all at it by then.
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    let request = get_server_version::v1::Request::new();
    tokio::select! {
        biased;
        _ = lookups.join_next() => panic!("it was kept waiting until some were given up"),
        answer = remote.send(&a.name, request) => drop(answer.unwrap()),
    }
}

#[tokio::test]
async fn a_server_with_ever_new_keys_is_asked_less_often() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    let time = WallTime::manual(NOW);
    let sender =
        |n: u8| Matrix { key: SigningKey::from_seed([n; 32], &n.to_string()).unwrap(), ..Matrix::new("a.org", 2) };
    let current = Arc::new(AtomicU8::new(0));
    let telling = {
        let current = current.clone();
        paths(move |path| {
            path.contains("key").then(|| full(200, sender(current.load(Ordering::SeqCst)).document(NOW + DAY)))
        })
    };
    let server = a.start(&world, telling).await;
    let remote = world.remote(&us, &time).await;
    let asked = || server.seen().iter().filter(|seen| seen.uri.path().contains("key")).count();
    let enters = async |sender: &Matrix| {
        let signature = XMatrix::sign(&sender.key, &sender.name, &us.name, "GET", "/", b"").unwrap();
        let headers = HeaderMap::from_iter([(AUTHORIZATION, signature.to_header().unwrap())]);
        let request = Inbound { method: "GET", uri: "/", headers: &headers, body: b"", address: None };
        remote.authenticate(request).await.is_ok()
    };
    // A new key is found at once, and the next soon.
    assert!(enters(&sender(0)).await);
    time.advance(10_000);
    current.store(1, Ordering::SeqCst);
    assert!(enters(&sender(1)).await);
    for n in 2..60 {
        time.advance(10_000);
        current.store(n, Ordering::SeqCst);
        enters(&sender(n)).await;
    }
    assert!(asked() <= 8, "in ten minutes {} times", asked());
    // Who has been calm is asked again at once.
    time.advance(HOUR);
    assert!(enters(&sender(59)).await);
}

#[tokio::test]
async fn a_long_document_is_used_but_not_passed_on() {
    let (world, us) = (World::new(), Matrix::new("us.org", 1));
    let remote = world.remote(&us, &WallTime::manual(NOW)).await;
    for (name, kib, is_used, is_passed_on) in
        [("short.org", 10, true, true), ("long.org", 20, true, false), ("endless.org", 70, false, false)]
    {
        let server = Matrix::new(name, 2);
        let mut document: Value = serde_json::from_str(&server.document(NOW + DAY)).unwrap();
        document["org.padding"] = "x".repeat(kib * 1024).into();
        let document = server.key.sign_json(&document.to_string(), name).unwrap();
        let _server =
            server.start(&world, paths(move |path| path.contains("key").then(|| full(200, document.clone())))).await;
        assert_eq!(has(&remote, &server, Some(NOW)).await, is_used, "{name}");
        let told = remote.vouch(BTreeMap::from([(server.name.clone(), 0)]), || false).await.unwrap();
        assert_eq!(!told.is_empty(), is_passed_on, "{name}");
    }
}

#[tokio::test]
async fn an_answer_about_many_servers_is_bounded_and_what_strangers_said_long_ago_is_forgotten() {
    let (world, us) = (World::new(), Matrix::new("us.org", 1));
    let (store, time) = (store().await, WallTime::manual(NOW));
    let remote = Remote::open(world.config(&us), world.client(), store.clone(), time.clone()).await.unwrap();
    let name = |n: usize| format!("n{n:03}.org");
    let keep = store.write(Vec::<Noun>::new(), move |tx| {
        for n in 0..300 {
            let json = json!({ "server_name": name(n), "padding": "x".repeat(15 * 1024) }).to_string();
            let document = KeyDocument { json, valid_until_ts: NOW + 40 * DAY, fetched_ts: NOW };
            tx.server_keys().keep(&name(n), &[], Some(&document))?;
        }
        Ok(())
    });
    keep.await.unwrap();
    let about = |range: std::ops::Range<usize>| -> BTreeMap<_, _> {
        range.map(|n| (ServerName::parse(name(n)).unwrap(), 0)).collect()
    };
    let all = remote.vouch(about(0..400), || panic!("nobody is asked for an answer that is full")).await.unwrap();
    let bytes: usize = all.iter().map(String::len).sum();
    assert!((1_900_000..2_300_000).contains(&bytes), "{bytes} bytes about {} servers", all.len());
    assert_eq!(remote.vouch(about(299..300), || true).await.unwrap().len(), 1);
    time.advance(29 * DAY);
    remote.forget_documents().await.unwrap();
    assert_eq!(remote.vouch(about(0..1), || false).await.unwrap().len(), 1);
    time.advance(2 * DAY);
    remote.forget_documents().await.unwrap();
    assert_eq!(remote.vouch(about(0..300), || false).await.unwrap().len(), 0);
}
