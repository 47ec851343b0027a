//! Thumbnails of pictures that another server has and we can't have, or not read.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hearth::settings::ByteSize;
use hearth_testkit::{Settings, TestServer, User, json, on_each_backend_together_with};
use http::{StatusCode, Uri};
use image::ImageFormat;

use super::thumbnail::{encoded, halves, moving, thumbnail};
use super::{download, noise, upload};
use crate::federation::Peer;

const THUMBNAIL: &str = "/_matrix/federation/v1/media/thumbnail/{media_id}";
const DOWNLOAD: &str = "/_matrix/federation/v1/media/download/{media_id}";
const OLD: &str = "/_matrix/media/v3/{what}/{server}/{media_id}";

fn in_parts(content_type: &str, bytes: &[u8]) -> Response {
    let head =
        format!("--x\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--x\r\nContent-Type: {content_type}\r\n\r\n");
    let body = [head.as_bytes(), bytes, b"\r\n--x--\r\n"].concat();
    ([("content-type", "multipart/mixed; boundary=x")], body).into_response()
}

fn refuse(status: StatusCode, errcode: &str) -> Response {
    (status, json!({ "errcode": errcode }).to_string()).into_response()
}

type Asked = Arc<Mutex<Vec<String>>>;

/// A server whose pictures are unreadable for us, but not for itself; what it was asked for.
async fn stranger(adjust: impl Fn(&mut Settings)) -> (Peer, TestServer, User, Asked) {
    let asked = Asked::default();
    let noted = asked.clone();
    let file = async |Path(media_id): Path<String>| match media_id.as_str() {
        "old" => refuse(StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
        "huge" => refuse(StatusCode::BAD_GATEWAY, "M_TOO_LARGE"),
        "letter" => in_parts("text/plain", b"nothing to look at"),
        _ => in_parts("video/mp4", b"nothing that we can read"),
    };
    let thumbnail = move |Path(media_id): Path<String>, uri: Uri| {
        noted.lock().expect("no panic before").push(uri.to_string());
        async move {
            match media_id.as_str() {
                "old" => refuse(StatusCode::NOT_FOUND, "M_UNRECOGNIZED"),
                "none" => refuse(StatusCode::BAD_REQUEST, "M_UNKNOWN"),
                "text" => in_parts("image/png", b"<script>alert(1)</script>"),
                "much" => in_parts("image/png", &noise(1, 9 * 1024 * 1024)),
                "moving" => in_parts("image/gif", &moving(400, 300, 3)),
                _ => in_parts("text/html", &encoded(halves(400, 300), ImageFormat::Png)),
            }
        }
    };
    let old = async |Path((what, _, _)): Path<(String, String, String)>| match what.as_str() {
        "thumbnail" => encoded(halves(200, 100), ImageFormat::Jpeg).into_response(),
        _ => ([("content-type", "video/mp4")], "nothing that we can read").into_response(),
    };
    let doors = Router::new().route(DOWNLOAD, get(file)).route(THUMBNAIL, get(thumbnail)).route(OLD, get(old));
    let (peer, server) = Peer::with_doors(doors, |settings, _| adjust(settings)).await;
    let alice = server.user("alice").await;
    (peer, server, alice, asked)
}

#[tokio::test]
async fn a_picture_that_is_too_large_to_fetch_has_the_thumbnail_that_its_server_makes() {
    let small = |settings: &mut Settings| settings.media.max_remote_size = ByteSize::new(100_000);
    on_each_backend_together_with(2, small, async |federation| {
        let (near, far) = (&federation.servers[0], &federation.servers[1]);
        let (alice, bob) = (near.user("alice").await, far.user("bob").await);
        let picture = image::RgbImage::from_raw(400, 300, noise(5, 400 * 300 * 3)).expect("pixels");
        let picture = encoded(picture, ImageFormat::Png);
        assert!(picture.len() > 300_000);
        let place = upload(&bob, "image/png", None, &picture).await;
        let query = "width=32&height=32&method=crop";
        for _ in 0..2 {
            let there = thumbnail(&bob, &place, query).await;
            let here = thumbnail(&alice, &place, query).await;
            assert_eq!((here.status, here.header("content-type")), (200, Some("image/png")), "{}", here.text());
            assert!(there.body == here.body);
            assert_eq!(here.header("content-disposition"), Some("inline; filename=thumbnail.png"));
            federation.links[1].cut();
        }
        // The picture itself is still not to be had.
        assert_eq!(download(&alice, &place).await.refusal(), (502, "M_TOO_LARGE".to_owned()));
        // What was not made is not there while its server is away.
        let other = thumbnail(&alice, &place, "width=96&height=96&method=crop").await;
        assert_eq!(other.refusal(), (502, "M_TOO_LARGE".to_owned()));
        federation.links[1].heal();
    })
    .await;
}

#[tokio::test]
async fn a_file_that_only_its_server_can_read_has_its_thumbnails() {
    let (peer, _server, alice, asked) = stranger(|_| {}).await;
    let of = async |media_id: &str, query: &str| thumbnail(&alice, &format!("{}/{media_id}", peer.name), query).await;
    let shown = of("film", "width=320&height=240").await;
    // It is what its bytes say, and made as small as it was asked for.
    assert_eq!((shown.status, shown.header("content-type")), (200, Some("image/png")), "{}", shown.text());
    let decoded = image::load_from_memory(&shown.body).expect("a picture");
    assert_eq!((decoded.width(), decoded.height()), (320, 240));
    let query = asked.lock().expect("no panic before").remove(0);
    assert!(query.contains("/film?width=320&height=240&method=scale&animated=false"), "{query}");
    for (query, told) in [
        ("width=20&height=20&method=crop&animated=true", "width=32&height=32&method=crop&animated=true"),
        ("width=5000&height=5000", "width=1600&height=1200&method=scale&animated=false"),
    ] {
        for _ in 0..2 {
            assert_eq!(of("film", query).await.status, 200);
        }
        let asked = std::mem::take(&mut *asked.lock().expect("no panic before"));
        assert!(asked.len() == 1 && asked[0].contains(told), "{asked:?}");
    }
    // What moves stands still for who did not ask for it.
    let still = of("moving", "width=320&height=240").await;
    assert_eq!((still.status, still.header("content-type")), (200, Some("image/png")));
    let moves = of("moving", "width=320&height=240&animated=true").await;
    assert_eq!((moves.status, moves.header("content-type")), (200, Some("image/gif")));
    // Servers of old make them, too.
    let old = of("old", "width=320&height=240").await;
    assert_eq!((old.status, old.header("content-type")), (200, Some("image/jpeg")), "{}", old.text());
    peer.serving.drain().await;
}

#[tokio::test]
async fn a_thumbnail_of_another_server_is_a_picture_or_there_is_none() {
    let (peer, server, alice, asked) = stranger(|_| {}).await;
    let of = async |media_id: &str| {
        let place = format!("{}/{media_id}", peer.name);
        thumbnail(&alice, &place, "width=320&height=240").await.refusal()
    };
    for media_id in ["none", "text", "much"] {
        for _ in 0..3 {
            assert_eq!(of(media_id).await, (400, "M_UNKNOWN".to_owned()), "{media_id}");
        }
        assert_eq!(asked.lock().expect("no panic before").len(), 1, "{media_id}: it is not asked for again at once");
        asked.lock().expect("no panic before").clear();
    }
    assert_eq!(thumbnail(&alice, &format!("{}/huge", peer.name), "width=1&height=1").await.status, 200);
    // A file of ours is nobody else's.
    let ours = upload(&alice, "video/mp4", None, b"nothing that we can read").await;
    assert_eq!(thumbnail(&alice, &ours, "width=320&height=240").await.status, 400);
    // Nor is what is no picture for anybody.
    let letter = thumbnail(&alice, &format!("{}/letter", peer.name), "width=320&height=240").await;
    assert_eq!((letter.status, asked.lock().expect("no panic before").len()), (400, 1));
    // Nobody has it fetched by its place here.
    let by_place = format!("{}/film%23320x240", peer.name);
    assert_eq!(download(&alice, &by_place).await.status, 404);
    assert_eq!(server.running().doors().media.config().max_remote_bytes, 100 * 1024 * 1024);
    peer.serving.drain().await;
}

#[tokio::test]
async fn thumbnails_of_another_server_are_hidden_and_deleted_with_their_picture() {
    let (peer, server, alice, asked) = stranger(|_| {}).await;
    let place = format!("{}/huge", peer.name);
    let shown = async || thumbnail(&alice, &place, "width=320&height=240").await.status;
    let ask = async |path: &str, body: hearth_testkit::Value| {
        hearth_api::ask_local_door(server.running().doors(), "POST", path, body.to_string()).await.0
    };
    let uri = format!("mxc://{place}");
    assert_eq!(shown().await, 200);
    assert_eq!(ask("/media/delete", json!({ "uri": uri })).await, 200);
    assert_eq!(shown().await, 200);
    assert_eq!(asked.lock().expect("no panic before").len(), 2, "it was deleted");
    assert_eq!(ask("/media/quarantine", json!({ "uri": uri, "hidden": true })).await, 200);
    assert_eq!(shown().await, 404);
    assert_eq!(ask("/media/quarantine", json!({ "uri": uri, "hidden": false })).await, 200);
    assert_eq!(shown().await, 200);
    assert_eq!(ask("/media/quarantine", json!({ "server": peer.name, "hidden": true })).await, 200);
    assert_eq!(shown().await, 404);
    peer.serving.drain().await;
}
