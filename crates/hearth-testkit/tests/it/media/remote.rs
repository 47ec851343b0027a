//! Media of other servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hearth_testkit::{
    Answer, Settings, TestServer, User, Value, json, on_each_backend_together, on_each_backend_together_with, until,
};
use http::StatusCode;
use image::ImageFormat;

use super::thumbnail::{encoded, halves, thumbnail};
use super::{download, download_anonymously, noise, path_of, upload, web};
use crate::federation::Peer;

const DOWNLOAD: &str = "/_matrix/federation/v1/media/download/{media_id}";
const OLD_DOWNLOAD: &str = "/_matrix/media/v3/download/{server}/{media_id}";

#[tokio::test]
async fn files_of_other_servers_are_fetched_once_and_kept() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let picture = encoded(halves(900, 700), ImageFormat::Png);
        for (bytes, kind, name, disposition) in [
            (b"Hello World!".to_vec(), "text/plain", None, "inline"),
            (noise(3, 700_000), "img/png", Some("%F0%9F%90%94"), "attachment; filename*=utf-8''%F0%9F%90%94"),
            (Vec::new(), "text/plain", Some("empty.txt"), "inline; filename=empty.txt"),
            (picture, "image/png", Some("a%20b"), "inline; filename=\"a b\""),
        ] {
            let place = upload(&alice, kind, name, &bytes).await;
            assert_eq!(place.split('/').next(), Some(federation.name(0).as_str()));
            let answer = download(&bob, &place).await;
            assert_eq!((answer.status, answer.body == bytes), (200, true), "{}", answer.text());
            assert_eq!(answer.header("content-type"), Some(kind));
            assert_eq!(answer.header("content-disposition"), Some(disposition));
            federation.links[0].cut();
            let part = format!("/_matrix/client/v1/media/download/{place}");
            let answer = bob.request("GET", &part).header("range", "bytes=0-3").send().await;
            if !bytes.is_empty() {
                assert_eq!((answer.status, answer.body == bytes[..4]), (206, true));
            }
            let answer = thumbnail(&bob, &place, "width=32&height=32&method=crop").await;
            assert_eq!(answer.status, if kind == "image/png" { 200 } else { 400 });
            federation.links[0].heal();
        }
        let unknown = format!("{}/unknown", federation.name(0));
        assert_eq!(download(&bob, &unknown).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
        // Never asked for again from those who have no access token.
        let place = upload(&alice, "text/plain", None, b"new").await;
        assert_eq!(download_anonymously(&federation.servers[1], &place).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_an_upload_elsewhere_gets_it() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let (_, created) = alice.post("/_matrix/media/v1/create", &json!({})).await;
        let place = path_of(created["content_uri"].as_str().expect("a URI"));
        let early = download(&bob, &format!("{place}?timeout_ms=0")).await;
        assert_eq!(early.refusal(), (504, "M_NOT_YET_UPLOADED".to_owned()));
        let (waiting_bob, waiting_place) = (bob.clone(), place.clone());
        let waiting = tokio::spawn(async move { download(&waiting_bob, &waiting_place).await });
        let put = alice.request("PUT", &format!("/_matrix/media/v3/upload/{place}")).body("at last");
        assert_eq!(put.send().await.status, 200);
        let answer = waiting.await.expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, "at last".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn servers_whose_media_is_not_wanted_and_files_too_large_are_refused() {
    let small = |settings: &mut Settings| {
        settings.media.max_remote_size = hearth::settings::ByteSize::new(1000);
        settings.media.denied_servers = vec!["127.0.0.3".to_owned()];
    };
    on_each_backend_together_with(3, small, async |federation| {
        let bob = federation.servers[1].user("bob").await;
        let (alice, carol) = (federation.servers[0].user("alice").await, federation.servers[2].user("carol").await);
        for (size, answer) in [(1000, (200, "")), (1001, (502, "M_TOO_LARGE")), (100_000, (502, "M_TOO_LARGE"))] {
            let place = upload(&alice, "a/b", None, &noise(1, size)).await;
            let (status, code) = download(&bob, &place).await.refusal();
            assert_eq!((status, code.as_str()), answer, "{size}");
        }
        let place = upload(&carol, "a/b", None, b"x").await;
        assert_eq!(download(&bob, &place).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn the_old_paths_fetch_what_they_may_show() {
    let open = |settings: &mut Settings| {
        settings.media.unauthenticated_legacy = true;
    };
    on_each_backend_together_with(2, open, async |federation| {
        let alice = federation.servers[0].user("alice").await;
        let place = upload(&alice, "text/plain", None, b"Hello World!").await;
        let far = &federation.servers[1];
        let here_only = format!("{place}?allow_remote=false");
        assert_eq!(download_anonymously(far, &here_only).await.status, 404);
        assert_eq!(download_anonymously(far, &place).await.text(), "Hello World!");
        assert_eq!(download_anonymously(far, &here_only).await.text(), "Hello World!");
    })
    .await;
}

/// What an answer in two parts holds: headers of the second, and its bytes.
fn second_part(answer: &Answer) -> (String, Vec<u8>) {
    let kind = answer.header("content-type").expect("a type");
    let boundary = kind.strip_prefix("multipart/mixed; boundary=").unwrap_or_else(|| panic!("{kind}"));
    let delimiter = format!("--{boundary}");
    let find = |bytes: &[u8], text: &str| bytes.windows(text.len()).position(|window| window == text.as_bytes());
    let head = format!("{delimiter}\r\nContent-Type: application/json\r\n\r\n{{}}\r\n{delimiter}\r\n");
    assert!(answer.body.starts_with(head.as_bytes()), "{}", answer.text());
    let rest = &answer.body[head.len()..];
    let end = find(rest, "\r\n\r\n").expect("headers");
    let body = rest[end + 4..].strip_suffix(format!("\r\n{delimiter}--\r\n").as_bytes()).expect("an end");
    (String::from_utf8_lossy(&rest[..end]).into_owned(), body.to_vec())
}

// endpoint: GET /_matrix/federation/v1/media/download/{mediaId}
// endpoint: GET /_matrix/federation/v1/media/thumbnail/{mediaId}
#[tokio::test]
async fn other_servers_get_our_files_in_two_parts() {
    let (peer, server) = Peer::with_doors(Router::new(), |_, _| {}).await;
    let alice = server.user("alice").await;
    let bytes = encoded(halves(500, 500), ImageFormat::Png);
    let place = upload(&alice, "image/png", Some("a%20b.png"), &bytes).await;
    let media_id = place.split('/').next_back().expect("an id");
    let of = |what: &str| format!("/_matrix/federation/v1/media/{what}");
    let answer = peer.request(&server, &of(&format!("download/{media_id}"))).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (headers, body) = second_part(&answer);
    assert_eq!(headers, "Content-Type: image/png\r\nContent-Disposition: inline; filename=\"a b.png\"");
    assert!(body == bytes);
    let path = of(&format!("thumbnail/{media_id}?width=32&height=32&method=crop"));
    let answer = peer.request(&server, &path).send().await;
    let (headers, body) = second_part(&answer);
    assert_eq!(headers, "Content-Type: image/png\r\nContent-Disposition: inline; filename=thumbnail.png");
    assert!(thumbnail(&alice, &place, "width=32&height=32&method=crop").await.body == body);

    for (path, refusal) in [
        ("download/unknown", (404, "M_NOT_FOUND")),
        ("download/..%2Fsecret", (404, "M_NOT_FOUND")),
        ("thumbnail/unknown?width=32&height=32", (404, "M_NOT_FOUND")),
        (&format!("thumbnail/{media_id}?width=32"), (400, "M_MISSING_PARAM")),
        (&format!("thumbnail/{media_id}?width=0&height=1"), (400, "M_INVALID_PARAM")),
        (&format!("thumbnail/{media_id}?width=-1&height=1"), (400, "M_INVALID_PARAM")),
        (&format!("thumbnail/{media_id}?width=1&height=1&method=stretch"), (400, "M_INVALID_PARAM")),
    ] {
        let answer = peer.request(&server, &of(path)).send().await;
        assert_eq!(answer.refusal(), (refusal.0, refusal.1.to_owned()), "{path}");
    }
    let (_, created) = alice.post("/_matrix/media/v1/create", &json!({})).await;
    let awaited = path_of(created["content_uri"].as_str().expect("a URI"));
    let awaited = awaited.split('/').next_back().expect("an id");
    let answer = peer.request(&server, &of(&format!("download/{awaited}?timeout_ms=0"))).send().await;
    assert_eq!(answer.refusal(), (504, "M_NOT_YET_UPLOADED".to_owned()));
    let text = upload(&alice, "image/png", None, b"no picture").await;
    let text = text.split('/').next_back().expect("an id");
    let answer = peer.request(&server, &of(&format!("thumbnail/{text}?width=1&height=1"))).send().await;
    assert_eq!(answer.refusal(), (400, "M_UNKNOWN".to_owned()));
    let stranger = server.request("GET", &of(&format!("download/{media_id}"))).token(&alice.access_token);
    assert_eq!(stranger.send().await.refusal(), (401, "M_UNAUTHORIZED".to_owned()));
    peer.serving.drain().await;
}

fn refuse(status: u16, body: Value) -> Response {
    (StatusCode::from_u16(status).expect("a status"), body.to_string()).into_response()
}

fn in_parts(headers: &str, body: &str) -> Response {
    let text = format!("--x\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--x\r\n{headers}\r\n\r\n{body}\r\n--x--");
    ([("content-type", "multipart/mixed; boundary=x")], text).into_response()
}

/// A server that answers as it likes, and one that asks it; how often it was asked.
async fn stranger(
    answer: impl Fn(&str) -> Response + Clone + Send + Sync + 'static,
    of_old: impl Fn(&str) -> Response + Clone + Send + Sync + 'static,
) -> (Peer, TestServer, User, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let today = move |Path(media_id): Path<String>| {
        counted.fetch_add(1, Ordering::SeqCst);
        let response = answer(&media_id);
        async move { response }
    };
    let old = move |Path((_, media_id)): Path<(String, String)>| {
        let response = of_old(&media_id);
        async move { response }
    };
    let doors = Router::new().route(DOWNLOAD, get(today)).route(OLD_DOWNLOAD, get(old));
    let (peer, server) = Peer::with_doors(doors, |_, _| {}).await;
    let alice = server.user("alice").await;
    (peer, server, alice, asked)
}

#[tokio::test]
async fn servers_of_old_are_asked_as_of_old() {
    let old = |_: &str| ([("content-type", "text/plain")], "Hello from the other side").into_response();
    let unknown = |media_id: &str| match media_id {
        "spec" => refuse(404, json!({ "errcode": "M_UNRECOGNIZED" })),
        "method" => refuse(405, json!({ "errcode": "M_UNRECOGNIZED" })),
        "proxy" => (StatusCode::NOT_FOUND, "<html>not found</html>").into_response(),
        "complement" => (StatusCode::BAD_REQUEST, "Invalid Origin").into_response(),
        _ => refuse(404, json!({ "errcode": "M_NOT_FOUND" })),
    };
    let (peer, _server, alice, _) = stranger(unknown, old).await;
    for media_id in ["spec", "method", "proxy", "complement"] {
        let answer = download(&alice, &format!("{}/{media_id}", peer.name)).await;
        assert_eq!((answer.status, answer.text()), (200, "Hello from the other side".to_owned()), "{media_id}");
        assert_eq!(answer.header("content-type"), Some("text/plain"));
        assert_eq!(answer.header("content-disposition"), Some("inline"));
    }
    assert_eq!(download(&alice, &format!("{}/missing", peer.name)).await.status, 404);
    peer.serving.drain().await;
}

#[tokio::test]
async fn a_server_may_send_us_elsewhere_but_not_into_our_own_house() {
    let file = ([("content-type", "image/png"), ("content-disposition", "inline; filename=cdn.png")], "from afar");
    let to = |location: String| get(async move || (StatusCode::FOUND, [("location", location)]));
    let (address, serving) = web(|address| {
        Router::new()
            .route("/file", get(async move || file))
            .route("/again", to(format!("http://{address}/file")))
            .route("/beside", to("file".to_owned()))
            .route("/round", to(format!("http://{address}/round")))
            .route("/inside", to("http://10.0.0.1/secret".to_owned()))
    })
    .await;
    let answer = move |media_id: &str| match media_id {
        "private" => in_parts("Location: http://10.1.2.3/x", ""),
        "file" | "again" | "beside" | "round" | "inside" | "nothing" => {
            in_parts(&format!("Location: http://{address}/{media_id}"), "")
        }
        _ => in_parts("Location: file:///etc/passwd", ""),
    };
    let (peer, _server, alice, _) = stranger(answer, |_| refuse(404, json!({}))).await;
    for media_id in ["file", "again", "beside"] {
        let answer = download(&alice, &format!("{}/{media_id}", peer.name)).await;
        assert_eq!((answer.status, answer.text()), (200, "from afar".to_owned()), "{media_id}");
        assert_eq!(answer.header("content-disposition"), Some("inline; filename=cdn.png"));
    }
    for media_id in ["round", "inside", "nothing", "private", "scheme"] {
        let answer = download(&alice, &format!("{}/{media_id}", peer.name)).await;
        assert_eq!(answer.refusal(), (502, "M_UNKNOWN".to_owned()), "{media_id}");
    }
    peer.serving.drain().await;
    serving.abort();
}

#[tokio::test]
async fn what_could_not_be_had_is_not_asked_for_again_at_once() {
    let nonsense = |media_id: &str| match media_id {
        "missing" => refuse(404, json!({ "errcode": "M_NOT_FOUND" })),
        "large" => refuse(502, json!({ "errcode": "M_TOO_LARGE" })),
        "truncated" => {
            ([("content-type", "multipart/mixed; boundary=x")], "--x\r\n\r\n{}\r\n--x\r\n\r\nhalf").into_response()
        }
        "plain" => "no parts at all".into_response(),
        _ => in_parts("Content-Type: text/html\r\nContent-Disposition: inline; filename=\"../x\"", "<script>"),
    };
    let (peer, server, alice, asked) = stranger(nonsense, |_| refuse(404, json!({}))).await;
    for (media_id, refusal) in [
        ("missing", (404, "M_NOT_FOUND")),
        ("large", (502, "M_TOO_LARGE")),
        ("truncated", (502, "M_UNKNOWN")),
        ("plain", (502, "M_UNKNOWN")),
    ] {
        let before = asked.load(Ordering::SeqCst);
        for _ in 0..3 {
            let answer = download(&alice, &format!("{}/{media_id}", peer.name)).await;
            assert_eq!(answer.refusal(), (refusal.0, refusal.1.to_owned()), "{media_id}: {}", answer.text());
        }
        assert_eq!(asked.load(Ordering::SeqCst), before + 1, "{media_id}");
        server.time.advance(2 * 60 * 60 * 1000);
        assert_eq!(download(&alice, &format!("{}/{media_id}", peer.name)).await.status, refusal.0);
        assert_eq!(asked.load(Ordering::SeqCst), before + 2, "{media_id}");
    }
    // Whatever a server says of a file, it is an attachment here, under a name that is one.
    let answer = download(&alice, &format!("{}/evil", peer.name)).await;
    assert_eq!(answer.header("content-disposition"), Some("attachment; filename=\"../x\""));
    peer.serving.drain().await;
}

#[tokio::test]
async fn who_would_not_see_it_does_not_have_it_fetched() {
    let file = |_: &str| in_parts("Content-Type: image/png", "bytes");
    let (peer, server, alice, asked) = stranger(file, |_| refuse(404, json!({}))).await;
    let place = format!("{}/one", peer.name);
    assert_eq!(download_anonymously(&server, &place).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
    let thumbnail = server.request("GET", &format!("/_matrix/media/v3/thumbnail/{place}?width=1&height=1"));
    assert_eq!(thumbnail.send().await.status, 404);
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    assert_eq!(download(&alice, &place).await.status, 200);
    peer.serving.drain().await;
}

#[tokio::test]
async fn many_who_want_the_same_wait_for_one_fetch() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let (asked, open) = (Arc::new(AtomicUsize::new(0)), gate.clone());
    let counted = asked.clone();
    let slow = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        let open = open.clone();
        async move {
            drop(open.acquire().await);
            in_parts("Content-Type: text/plain", "shared")
        }
    };
    let (peer, server) = Peer::with_doors(Router::new().route(DOWNLOAD, get(slow)), |_, _| {}).await;
    let alice = server.user("alice").await;
    let place = format!("{}/one", peer.name);
    let gone = tokio::spawn({
        let (alice, place) = (alice.clone(), place.clone());
        async move { download(&alice, &place).await }
    });
    until("the fetch begins", async || asked.load(Ordering::SeqCst) == 1).await;
    // Who came first goes away, which ends nothing.
    gone.abort();
    let waiting: Vec<_> = (0..10)
        .map(|_| {
            let (alice, place) = (alice.clone(), place.clone());
            tokio::spawn(async move { download(&alice, &place).await.text() })
        })
        .collect();
    gate.add_permits(100);
    for one in waiting {
        assert_eq!(one.await.expect("an answer"), "shared");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    peer.serving.drain().await;
}

#[tokio::test]
async fn a_server_that_fetches_too_much_is_told_when_to_go_on() {
    let (peer, server) = Peer::with_doors(Router::new(), |settings, _| {
        settings.rate_limits.enabled = true;
        settings.rate_limits.federation_downloads = hearth_api::Rate { burst: 2, per_minute: 60 };
    })
    .await;
    let alice = server.user("alice").await;
    let place = upload(&alice, "image/png", None, &encoded(halves(90, 70), ImageFormat::Png)).await;
    let media_id = place.split('/').nth(1).expect("a media id");
    let download = format!("/_matrix/federation/v1/media/download/{media_id}");
    let thumbnail = format!("/_matrix/federation/v1/media/thumbnail/{media_id}?width=32&height=32");
    for path in [&download, &thumbnail] {
        assert_eq!(peer.request(&server, path).send().await.status, 200);
    }
    for path in [&download, &thumbnail] {
        let refused = peer.request(&server, path).send().await;
        assert_eq!(refused.refusal(), (429, "M_LIMIT_EXCEEDED".to_owned()));
        assert!(refused.json()["retry_after_ms"].as_u64().is_some_and(|wait| wait > 0));
    }
    // Users are not in its way.
    assert_eq!(self::download(&alice, &place).await.status, 200);
    server.time.advance(1_000);
    assert_eq!(peer.request(&server, &download).send().await.status, 200);
    peer.serving.drain().await;
}
