//! Requests to others and from others: signed, checked, and what is learned of a destination.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hearth_matrix::ruma::api::federation::discovery::get_server_version;
use hearth_matrix::ruma::api::federation::query::get_profile_information;
use hearth_matrix::ruma::api::federation::transactions::send_transaction_message;
use hearth_matrix::ruma::{MilliSecondsSinceUnixEpoch, user_id};
use hearth_remote::{AuthenticateError, Inbound, Limits, Remote, RemoteError, SendOptions, XMatrixError};
use hearth_store::WallTime;
use http::Request;

use crate::harness::{Handler, Ill, Matrix, Seen, TestServer, World, black_hole, full, paths, says, store};

const NOW: i64 = 1_700_000_000_000;
const DAY: i64 = 86_400_000;

fn version() -> get_server_version::v1::Request {
    get_server_version::v1::Request::new()
}

fn profile() -> get_profile_information::v1::Request {
    get_profile_information::v1::Request::new(user_id!("@bob:b.org").to_owned())
}

fn uri(seen: &Seen) -> String {
    seen.uri.path_and_query().unwrap().to_string()
}

async fn authenticate(remote: &Remote, seen: &Seen) -> Result<String, AuthenticateError> {
    let uri = uri(seen);
    let request =
        Inbound { method: seen.method.as_str(), uri: &uri, headers: &seen.headers, body: &seen.body, address: None };
    Ok(remote.authenticate(request).await?.to_string())
}

fn asked(server: &TestServer) -> usize {
    server.seen().iter().filter(|seen| seen.uri.path().starts_with("/_matrix/federation")).count()
}

#[tokio::test]
async fn a_signed_request_is_recognised_by_whom_it_was_meant_for() {
    let world = World::new();
    let (a, b, c) = (Matrix::new("a.org", 1), Matrix::new("b.org", 2), Matrix::new("c.org", 3));
    let time = WallTime::manual(NOW);
    let a_server = a.start(&world, a.tells(NOW + DAY)).await;
    let b_server = b.start(&world, says(r#"{"displayname":"Bob","pdus":{}}"#)).await;
    let (from_a, to_b, at_c) =
        (world.remote(&a, &time).await, world.remote(&b, &time).await, world.remote(&c, &time).await);

    let answer = from_a.send(&b.name, profile()).await.unwrap();
    assert_eq!(answer.get("displayname").unwrap(), "Bob");
    let transaction = send_transaction_message::v1::Request::new(
        "t/1".into(),
        a.name.clone(),
        MilliSecondsSinceUnixEpoch(1_u32.into()),
    );
    from_a.send(&b.name, transaction).await.unwrap();
    let seen: Vec<Seen> =
        b_server.seen().into_iter().filter(|seen| seen.uri.path().starts_with("/_matrix/federation")).collect();
    assert_eq!(seen.len(), 2);
    assert_eq!(uri(&seen[1]), "/_matrix/federation/v1/send/t%2F1");
    assert_eq!(seen[1].headers["content-type"], "application/json");
    for seen in &seen {
        assert_eq!(authenticate(&to_b, seen).await.unwrap(), "a.org");
        assert!(matches!(authenticate(&at_c, seen).await, Err(AuthenticateError::OtherDestination)));
        let mut changed = seen.clone();
        changed.method = http::Method::DELETE;
        assert!(matches!(authenticate(&to_b, &changed).await, Err(AuthenticateError::WrongSignature)));
        let mut changed = seen.clone();
        changed.body = bytes::Bytes::from_static(br#"{"a":1}"#);
        assert!(matches!(authenticate(&to_b, &changed).await, Err(AuthenticateError::WrongSignature)));
        changed.body = bytes::Bytes::from_static(b"rubbish");
        assert!(matches!(authenticate(&to_b, &changed).await, Err(AuthenticateError::NotJson)));
        let mut unsigned = seen.clone();
        unsigned.headers.remove("authorization");
        let missing = authenticate(&to_b, &unsigned).await;
        assert!(matches!(missing, Err(AuthenticateError::Header(XMatrixError::Missing))));
        // A replay to the sender itself.
        assert!(authenticate(&from_a, seen).await.is_err());
    }
    let key_requests = a_server.seen().iter().filter(|seen| seen.uri.path().contains("key")).count();
    assert_eq!(key_requests, 1);
}

#[tokio::test]
async fn an_unsigned_request_carries_no_signature() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let server = b.start(&world, says(r#"{"server":{"name":"X","version":"1"}}"#)).await;
    let remote = world.remote(&a, &WallTime::manual(NOW)).await;
    let answer = remote.send(&b.name, version()).await.unwrap();
    assert_eq!(answer.server.unwrap().name.as_deref(), Some("X"));
    assert!(server.seen().iter().all(|seen| !seen.headers.contains_key("authorization")));
}

#[tokio::test]
async fn a_key_that_ended_signs_no_request() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let _a_server = a.start(&world, a.tells(NOW + 1000)).await;
    let b_server = b.start(&world, says("{}")).await;
    let (from_a, to_b) = (world.remote(&a, &time).await, world.remote(&b, &time).await);
    from_a.send(&b.name, profile()).await.unwrap();
    let seen = b_server.seen().pop().unwrap();
    assert_eq!(authenticate(&to_b, &seen).await.unwrap(), "a.org");
    time.advance(1001);
    assert!(matches!(authenticate(&to_b, &seen).await, Err(AuthenticateError::NoKey(_))));
}

#[tokio::test]
async fn refusals_nonsense_and_silence_are_told_apart() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let big: &'static str = Box::leak("x".repeat(5000).into_boxed_str());
    type Expected = fn(&RemoteError) -> bool;
    let cases: [(u16, &'static str, Expected); 5] = [
        (403, r#"{"errcode":"M_FORBIDDEN","error":"no","more":1}"#, |error| {
            matches!(error, RemoteError::Refused { status, errcode, message, .. }
                if *status == 403 && errcode == "M_FORBIDDEN" && message == "no")
        }),
        (404, "<html>", |error| matches!(error, RemoteError::Refused { errcode, .. } if errcode.is_empty())),
        (200, "<html>", |error| matches!(error, RemoteError::Malformed(_))),
        (200, big, |error| matches!(error, RemoteError::TooLarge(1000))),
        (302, "", |error| matches!(error, RemoteError::Refused { .. })),
    ];
    for (status, body, expected) in cases {
        let server = b.start(&world, paths(move |_| Some(full(status, body)))).await;
        let remote = world.remote(&a, &WallTime::manual(NOW)).await;
        let limits = Limits { response_bytes: 1000, ..Limits::default() };
        for _ in 0..2 {
            let error = remote
                .send_with(&b.name, version(), SendOptions { limits, ..SendOptions::default() })
                .await
                .unwrap_err();
            assert!(expected(&error), "{error:?}");
        }
        assert_eq!(asked(&server), 2, "a server that answers is well");
    }
}

#[tokio::test]
async fn a_server_that_fails_is_left_alone_until_it_shows_life() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let store = store().await;
    let open = async || Remote::open(world.config(&a), world.client(), store.clone(), time.clone()).await.unwrap();
    let remote = open().await;
    let error = remote.send(&b.name, version()).await.unwrap_err();
    assert!(matches!(error, RemoteError::Unresolvable(_)), "{error:?}");

    let server = b.start(&world, says("{}")).await;
    for remote in [&remote, &open().await] {
        let error = remote.send(&b.name, version()).await.unwrap_err();
        assert!(matches!(error, RemoteError::BackingOff { until_ts } if until_ts > NOW), "{error:?}");
    }
    assert_eq!(asked(&server), 0);
    let known = remote.destination(&b.name).await.unwrap().unwrap();
    assert_eq!((known.failures, known.failing_since_ts), (1, Some(NOW)));
    assert!(known.last_error.unwrap().contains("no such name"));

    // Its own request to us is a sign of life: it is tried again, and what it is known for stays until it answers.
    remote.is_alive(&b.name).await.unwrap();
    let revived = remote.destination(&b.name).await.unwrap().unwrap();
    assert_eq!((revived.failures, revived.failing_since_ts, revived.retry_ts), (1, Some(NOW), NOW));
    assert!(revived.last_error.unwrap().contains("no such name"));
    remote.send(&b.name, version()).await.unwrap();
    let known = remote.destination(&b.name).await.unwrap().unwrap();
    assert_eq!((known.failures, known.last_success_ts, known.last_error), (0, Some(NOW), None));
}

#[tokio::test]
async fn what_answers_badly_beside_a_server_says_nothing_of_it() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let remote = world.remote(&a, &time).await;
    let aside = SendOptions { is_aside: true, ..SendOptions::default() };
    let failing = b.start(&world, paths(|_| Some(full(502, "")))).await;
    assert!(remote.send_with(&b.name, version(), aside).await.is_err());
    drop(failing);
    let hanging = b.start(&world, Arc::new(|_| Box::pin(std::future::pending()))).await;
    let limits = Limits { timeout: Duration::from_millis(200), ..Limits::default() };
    let error = remote.send_with(&b.name, version(), SendOptions { limits, ..aside }).await.unwrap_err();
    assert!(matches!(error, RemoteError::Timeout), "{error:?}");
    assert_eq!(remote.destination(&b.name).await.unwrap().map_or(0, |known| known.failures), 0);
    // That nobody is there does.
    drop(hanging);
    assert!(matches!(remote.send_with(&b.name, version(), aside).await, Err(RemoteError::Unreachable(_))));
    assert_eq!(remote.destination(&b.name).await.unwrap().unwrap().failures, 1);
}

#[tokio::test]
async fn time_or_insistence_ends_the_waiting_too() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let failing = b.start(&world, paths(|_| Some(full(502, "")))).await;
    let remote = world.remote(&a, &time).await;
    for _ in 0..3 {
        // Many at once are one failure.
        let many = (0..5).map(|_| {
            let options = SendOptions { despite_back_off: true, ..SendOptions::default() };
            remote.send_with(&b.name, version(), options)
        });
        for outcome in futures_util::future::join_all(many).await {
            assert!(matches!(outcome, Err(RemoteError::Refused { .. })));
        }
    }
    assert_eq!(remote.destination(&b.name).await.unwrap().unwrap().failures, 1);
    assert_eq!(asked(&failing), 15);
    drop(failing);
    let _server = b.start(&world, says("{}")).await;
    time.advance(10_000);
    remote.send(&b.name, version()).await.unwrap();
}

#[tokio::test]
async fn a_server_that_sends_but_never_answers_is_tried_once_a_minute() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let server = b.start(&world, paths(|_| Some(full(502, "")))).await;
    let remote = world.remote(&a, &time).await;
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    remote.on_life(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    remote.send(&b.name, version()).await.unwrap_err();
    // Ten minutes with a request of its own each second.
    for _ in 0..600 {
        remote.is_alive(&b.name).await.unwrap();
        let _ = remote.send(&b.name, version()).await;
        time.advance(1_000);
    }
    assert!((10..=15).contains(&asked(&server)), "{}", asked(&server));
    assert!(told.load(Ordering::SeqCst) <= 11);
    let known = remote.destination(&b.name).await.unwrap().unwrap();
    assert!((10..=15).contains(&known.failures) && known.failing_since_ts == Some(NOW), "{known:?}");
}

#[tokio::test]
async fn a_server_that_goes_and_comes_is_tried_at_each_sign_of_life() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let remote = world.remote(&a, &time).await;
    for _ in 0..3 {
        let failing = b.start(&world, paths(|_| Some(full(502, "")))).await;
        remote.send(&b.name, version()).await.unwrap_err();
        drop(failing);
        let _server = b.start(&world, says("{}")).await;
        time.advance(1_000);
        remote.is_alive(&b.name).await.unwrap();
        remote.send(&b.name, version()).await.unwrap();
    }
}

#[tokio::test]
async fn an_answer_after_failures_is_told() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let remote = world.remote(&a, &time).await;
    let told = Arc::new(AtomicUsize::new(0));
    let counted = told.clone();
    remote.on_life(move |_| {
        counted.fetch_add(1, Ordering::SeqCst);
    });
    remote.send(&b.name, version()).await.unwrap_err();
    let _server = b.start(&world, says("{}")).await;
    for _ in 0..2 {
        // The clock stands still.
        let options = SendOptions { despite_back_off: true, ..SendOptions::default() };
        remote.send_with(&b.name, version(), options).await.unwrap();
        assert_eq!(told.load(Ordering::SeqCst), 1);
    }
}

#[tokio::test]
async fn what_must_arrive_has_only_if_the_answer_says_so() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let request = || Request::put("https://matrix.invalid/_matrix/federation/v1/send/1").body("{}".into()).unwrap();
    // Status, body, whether it fails the server, and what is said of that.
    let cases = [
        (404, "<html>", Some("404")),
        (401, r#"{"errcode":"M_UNAUTHORIZED","error":"who?"}"#, Some("401 Unauthorized M_UNAUTHORIZED: who?")),
        (200, "<html>", Some("200 OK without a JSON object")),
        (200, "[]", Some("200 OK without a JSON object")),
        (204, "", Some("204")),
        (302, "", Some("302")),
        (400, "<html>", Some("400")),
        (400, r#"{"errcode":"M_UNRECOGNIZED","error":"what?"}"#, Some("400 Bad Request M_UNRECOGNIZED: what?")),
        (422, r#"{"error":"what?"}"#, Some("422")),
        (400, r#"{"errcode":"M_BAD_JSON","error":"no"}"#, None),
        (413, "<html>", None),
    ];
    for (status, body, failure) in cases {
        let server = b.start(&world, paths(move |_| Some(full(status, body)))).await;
        let (time, store) = (WallTime::manual(NOW), store().await);
        let remote = Remote::open(world.config(&a), world.client(), store, time.clone()).await.unwrap();
        let mut begun = 0;
        for _ in 0..60 {
            match remote.deliver(&b.name, request(), Limits::default()).await {
                Err(RemoteError::BackingOff { .. }) => {}
                Err(error) => {
                    begun += 1;
                    assert_eq!(error.is_about_content(), failure.is_none(), "{error}");
                }
                Ok(_) => panic!("{status} {body} is no success"),
            }
            time.advance(60_000);
        }
        let known = remote.destination(&b.name).await.unwrap().unwrap_or_default();
        if let Some(failure) = failure {
            assert!(begun < 12 && known.failures > 1, "{status}: {begun} times, {known:?}");
            assert!(known.last_error.as_deref().is_some_and(|error| error.contains(failure)), "{known:?}");
        } else {
            assert_eq!((begun, known.failures), (60, 0), "{status}");
            // Until the sender says that it is the server.
            let error = remote.deliver(&b.name, request(), Limits::default()).await.unwrap_err();
            let mut waits = Vec::new();
            for _ in 0..3 {
                let until = remote.leave_alone(&b.name, &error).await.unwrap();
                waits.push(until - time.now_ms());
                time.advance(waits[waits.len() - 1]);
                remote.deliver(&b.name, request(), Limits::default()).await.unwrap_err();
            }
            assert!(waits.is_sorted_by(|one, next| one < next), "{status}: {waits:?}");
        }
        drop(server);
        let _server = b.start(&world, says("{\"pdus\":{}}")).await;
        time.advance(3_600_000);
        remote.deliver(&b.name, request(), Limits::default()).await.unwrap();
        assert_eq!(remote.destination(&b.name).await.unwrap().unwrap().failures, 0);
    }
}

#[tokio::test]
async fn a_server_that_could_not_be_asked_for_its_keys_is_let_in_when_it_is_back() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let b_server = b.start(&world, says("{}")).await;
    let (from_a, to_b) = (world.remote(&a, &time).await, world.remote(&b, &time).await);
    from_a.send(&b.name, profile()).await.unwrap();
    let seen = b_server.seen().pop().unwrap();
    for _ in 0..6 {
        assert!(matches!(authenticate(&to_b, &seen).await, Err(AuthenticateError::NoKey(_))));
        time.advance(700_000);
    }
    assert!(matches!(authenticate(&to_b, &seen).await, Err(AuthenticateError::NoKey(_))));
    // It had moved, too: that could not be found out while it was away.
    let front = world.server("a.org", says(r#"{"m.server":"matrix.a.org:443"}"#)).await;
    world.names.socket("a.org", 443, front.address);
    let back = world.server("matrix.a.org", a.tells(NOW + 10 * DAY)).await;
    world.names.socket("matrix.a.org", 443, back.address);
    assert!(matches!(authenticate(&to_b, &seen).await, Err(AuthenticateError::NoKey(_))), "not at once");
    time.advance(11_000);
    assert_eq!(authenticate(&to_b, &seen).await.unwrap(), "a.org");
}

#[tokio::test]
async fn names_that_are_made_up_keep_no_real_server_out() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let b_server = b.start(&world, says("{}")).await;
    world.remote(&a, &time).await.send(&b.name, profile()).await.unwrap();
    let seen = b_server.seen().pop().unwrap();
    let _a_server = a.start(&world, a.tells(NOW + DAY)).await;
    let silence = black_hole().await;
    let to_b = world.remote(&b, &time).await;
    let come = async |to_b: &Remote, seen: &Seen, address: &str| {
        let uri = uri(seen);
        let address = Some(address.parse().unwrap());
        let request =
            Inbound { method: seen.method.as_str(), uri: &uri, headers: &seen.headers, body: &seen.body, address };
        to_b.authenticate(request).await
    };
    let mut forged = tokio::task::JoinSet::new();
    for n in 0..5_000 {
        let host = format!("r{n}.evil.org");
        for port in [443, 8448] {
            world.names.socket(&host, port, silence);
        }
        let (to_b, mut seen) = (to_b.clone(), seen.clone());
        let header = seen.headers["authorization"].to_str().unwrap().replace("a.org", &host);
        seen.headers.insert("authorization", header.parse().unwrap());
        forged.spawn(async move { come(&to_b, &seen, "192.0.2.1").await });
    }
    let mut refused = 0;
    while refused < 4_900 {
        let outcome = forged.join_next().await.unwrap().unwrap();
        assert!(matches!(outcome, Err(AuthenticateError::TooMany)), "{outcome:?}");
        refused += 1;
    }
    assert!(to_b.keys().under_way() <= 100, "{}", to_b.keys().under_way());
    let begun = std::time::Instant::now();
    assert_eq!(come(&to_b, &seen, "192.0.2.2").await.unwrap(), "a.org");
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
    // And whoever is known may come from where strangers come.
    assert_eq!(come(&to_b, &seen, "192.0.2.1").await.unwrap(), "a.org");
}

#[tokio::test]
async fn the_settings_say_with_whom_we_talk() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let server = b.start(&world, b.tells(NOW + DAY)).await;
    let mut config = world.config(&a);
    config.servers.allowed = Some(vec!["*.example.org".to_owned()]);
    let time = WallTime::manual(NOW);
    let remote = Remote::open(config, world.client(), store().await, time.clone()).await.unwrap();
    assert!(matches!(remote.send(&b.name, version()).await, Err(RemoteError::Forbidden(_))));
    assert!(matches!(remote.send(&a.name, version()).await, Err(RemoteError::Ourselves)));
    let from_b = world.remote(&b, &time).await;
    let a_server = a.start(&world, says("{}")).await;
    from_b.send(&a.name, profile()).await.unwrap();
    let seen = a_server.seen().pop().unwrap();
    assert!(matches!(authenticate(&remote, &seen).await, Err(AuthenticateError::Forbidden(_))));
    assert_eq!(server.seen().len(), 0);
}

#[tokio::test]
async fn a_delegated_server_gets_its_own_host_and_the_original_name_signed() {
    let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
    let time = WallTime::manual(NOW);
    let _a_server = a.start(&world, a.tells(NOW + DAY)).await;
    let front = world.server("b.org", says(r#"{"m.server":"matrix.b.org:443"}"#)).await;
    world.names.socket("b.org", 443, front.address);
    for alpn in [&["h2"][..], &["http/1.1"][..]] {
        let handler: Handler = Arc::new(|_| Box::pin(std::future::ready(full(200, "{}"))));
        let server = world.server_with("matrix.b.org", alpn, handler).await;
        world.names.socket("matrix.b.org", 443, server.address);
        let from_a = world.remote(&a, &time).await;
        from_a.send(&b.name, profile()).await.unwrap();
        let seen = server.seen().pop().unwrap();
        assert_eq!(seen.host, "matrix.b.org:443");
        assert_eq!(authenticate(&world.remote(&b, &time).await, &seen).await.unwrap(), "a.org");
    }
}

#[tokio::test]
async fn a_connection_that_stands_still_is_given_up_in_time_and_not_tried_again() {
    for ill in [Ill::Deaf, Ill::Narrow] {
        let (world, a, b) = (World::new(), Matrix::new("a.org", 1), Matrix::new("b.org", 2));
        let server = world.server_that_is_ill_at_first("b.org", ill).await;
        world.names.socket("b.org", 8448, server.address);
        let remote = world.remote(&a, &WallTime::manual(NOW)).await;
        let ask = async |timeout: Duration| {
            let body = Bytes::from(format!("{{}}{}", " ".repeat(256 * 1024)));
            let request = Request::put("https://matrix.invalid/_matrix/federation/v1/send/1").body(body).unwrap();
            let limits = Limits { timeout, ..Limits::default() };
            let options = SendOptions { limits, despite_back_off: true, ..SendOptions::default() };
            remote.send_raw(&b.name, request, true, options).await
        };
        let outcome = ask(Duration::from_millis(500)).await;
        assert!(matches!(outcome, Err(RemoteError::Timeout)), "{ill:?}: {outcome:?}");
        let answer = ask(Duration::from_secs(20)).await.unwrap();
        assert_eq!((answer.status().as_u16(), server.connections()), (200, 2), "{ill:?}");
    }
}
