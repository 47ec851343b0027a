//! Previews of linked pages.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::Router;
use axum::response::{Html, IntoResponse};
use axum::routing::get;
use hearth_testkit::{Answer, Backend, Settings, TestServer, User, Value, json, on_each_backend_with};
use http::StatusCode;
use image::ImageFormat;

use super::thumbnail::{encoded, halves};
use super::{download, path_of, web};

pub fn previews(settings: &mut Settings) {
    settings.url_previews.enabled = true;
    settings.outbound.ip_range_allow = vec!["127.0.0.1/32".parse().expect("a range")];
}

async fn preview(user: &User, url: &str) -> Answer {
    let encoded: String = url.bytes().map(|byte| format!("%{byte:02X}")).collect();
    user.request("GET", &format!("/_matrix/client/v1/media/preview_url?url={encoded}")).send().await
}

pub async fn told(user: &User, url: &str) -> Value {
    let answer = preview(user, url).await;
    assert_eq!(answer.status, 200, "{url}: {}", answer.text());
    answer.json()
}

// endpoint: GET /_matrix/client/v1/media/preview_url
// endpoint: GET /_matrix/media/v3/preview_url
// endpoint: GET /_matrix/media/v1/preview_url
#[tokio::test]
async fn a_page_is_previewed_with_its_picture() {
    let picture = encoded(halves(279, 129), ImageFormat::Png);
    let size = picture.len();
    let page = r#"<html prefix="og: http://ogp.me/ns#"><head><title>The Rock (1996)</title>
        <meta property="og:title" content="The Rock" /><meta property="og:type" content="video.movie" />
        <meta property="og:url" content="http://www.imdb.com/title/tt0117500/" />
        <meta property="og:image" content="test.png" /></head><body></body></html>"#;
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let html = get(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Html(page) }
    });
    let shown = picture.clone();
    let image = get(async move || ([("content-type", "image/png")], shown));
    let (address, serving) = web(|_| Router::new().route("/test.html", html).route("/test.png", image)).await;
    on_each_backend_with(previews, async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let before = asked.load(Ordering::SeqCst);
        let url = format!("http://{address}/test.html");
        let page = told(&alice, &url).await;
        for (name, value) in [
            ("og:title", json!("The Rock")),
            ("og:type", json!("video.movie")),
            ("og:url", json!("http://www.imdb.com/title/tt0117500/")),
            ("og:image:type", json!("image/png")),
            ("og:image:width", json!(279)),
            ("og:image:height", json!(129)),
            ("matrix:image:size", json!(size)),
        ] {
            assert_eq!(page[name], value, "{name} in {page}");
        }
        let place = path_of(page["og:image"].as_str().expect("a URI"));
        let answer = download(&bob, &place).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
        assert!(answer.body == picture);
        // Others get the same, for an hour.
        for path in ["media/v3", "media/r0", "media/v1", "client/v1/media"] {
            let path = format!("/_matrix/{path}/preview_url?url=http%3A%2F%2F{address}%2Ftest.html%23part");
            assert_eq!(bob.get(&path).await, (200, page.clone()));
        }
        assert_eq!(asked.load(Ordering::SeqCst), before + 1);
        let first = server.time.now_ms();
        server.time.advance(2 * 60 * 60 * 1000);
        told(&alice, &url).await;
        assert_eq!(asked.load(Ordering::SeqCst), before + 2);
        // As it was then.
        let path =
            format!("/_matrix/client/v1/media/preview_url?url=http%3A%2F%2F{address}%2Ftest.html&ts={}", first + 1);
        assert_eq!(bob.get(&path).await, (200, page));
        assert_eq!(asked.load(Ordering::SeqCst), before + 2);
    })
    .await;
    serving.abort();
}

#[tokio::test]
async fn pages_that_say_little_are_previewed_as_well_as_can_be() {
    let page = |html: &'static str| get(async move || Html(html));
    let picture = encoded(halves(64, 32), ImageFormat::Jpeg);
    let image = get(async move || ([("content-type", "image/jpeg")], picture));
    let oembed = json!({
        "version": "1.0", "type": "rich", "title": "A post", "provider_name": "Site", "thumbnail_url": "/p.jpg",
        "html": "<p>What was <b>said</b></p>",
    });
    let to = |location: &'static str| get(async move || (StatusCode::MOVED_PERMANENTLY, [("location", location)]));
    let doors = Router::new()
        .route("/plain", page("<title>Title</title><p>Some text.</p><img src='p.jpg'>"))
        .route("/based", page("<base href='/deep/er/'><title>Based</title><img src='../../p.jpg'>"))
        .route("/broken", page("<title>Broken</title><meta property=og:image content='http://['><img src='/none.png'>"))
        .route("/embedded", page("<link rel=alternate type='application/json+oembed' href='/o?x=1'>"))
        .route("/o", get(async move || oembed.to_string()))
        .route(
            "/latin",
            get(async || ([("content-type", "text/html; charset=iso-8859-1")], &b"<title>Caf\xe9</title>"[..])),
        )
        .route("/there", to("/plain"))
        .route("/file", get(async || ([("content-type", "application/zip")], "zip")))
        .route("/p.jpg", image);
    let (address, serving) = web(|_| doors).await;
    let server = TestServer::start_with(previews).await;
    let alice = server.user("alice").await;
    let told = async |path: &str| told(&alice, &format!("http://{address}{path}")).await;
    for (path, title, description, has_image) in [
        ("/plain", "Title", Some("Some text."), true),
        ("/there", "Title", Some("Some text."), true),
        ("/based", "Based", None, true),
        ("/broken", "Broken", None, false),
        ("/embedded", "A post", Some("What was said"), true),
        ("/latin", "Café", None, false),
    ] {
        let page = told(path).await;
        assert_eq!(
            (&page["og:title"], page["og:description"].as_str()),
            (&json!(title), description),
            "{path}: {page}"
        );
        assert_eq!(page["og:image"].is_string(), has_image, "{path}: {page}");
    }
    let image = told("/p.jpg").await;
    assert_eq!((&image["og:title"], &image["og:image:width"]), (&json!("p.jpg"), &json!(64)));
    assert_eq!(told("/file").await, json!({}));
    serving.abort();
}

#[tokio::test]
async fn nobody_looks_into_the_house_through_a_preview() {
    let to = |location: String| get(async move || (StatusCode::FOUND, [("location", location)]));
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let endless = get(async move || {
        let pieces = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b'x'; 10_000]));
        ([("content-type", "text/html")], axum::body::Body::from_stream(pieces))
    });
    let failing = get(move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async { StatusCode::INTERNAL_SERVER_ERROR.into_response() }
    });
    let (address, serving) = web(|address| {
        Router::new()
            .route("/to-private", to("http://10.0.0.1/".to_owned()))
            .route("/to-metadata", to("http://169.254.169.254/latest/".to_owned()))
            .route("/to-loopback", to("http://[::1]:1/".to_owned()))
            .route("/to-file", to("file:///etc/passwd".to_owned()))
            .route("/round", to(format!("http://{address}/round")))
            .route("/endless", endless)
            .route("/failing", failing)
    })
    .await;
    let denied = |settings: &mut Settings| {
        previews(settings);
        settings.url_previews.denied_domains = vec!["denied.test".to_owned()];
    };
    let server = TestServer::start_on(Backend::Sqlite, denied).await;
    let alice = server.user("alice").await;
    for (url, refusal) in [
        ("http://10.0.0.1/".to_owned(), (403, "M_FORBIDDEN")),
        ("http://127.0.0.2/".to_owned(), (403, "M_FORBIDDEN")),
        ("http://[::ffff:10.0.0.1]/".to_owned(), (403, "M_FORBIDDEN")),
        ("http://2130706434/".to_owned(), (403, "M_FORBIDDEN")),
        ("https://www.denied.test/".to_owned(), (403, "M_FORBIDDEN")),
        (format!("http://{address}/to-private"), (403, "M_FORBIDDEN")),
        (format!("http://{address}/to-metadata"), (403, "M_FORBIDDEN")),
        (format!("http://{address}/to-loopback"), (403, "M_FORBIDDEN")),
        (format!("http://{address}/to-file"), (502, "M_UNKNOWN")),
        (format!("http://{address}/round"), (502, "M_UNKNOWN")),
        (format!("http://{address}/failing"), (502, "M_UNKNOWN")),
        ("http://127.0.0.1:1/".to_owned(), (502, "M_UNKNOWN")),
        ("file:///etc/passwd".to_owned(), (400, "M_INVALID_PARAM")),
        ("http://user:password@127.0.0.1/".to_owned(), (400, "M_INVALID_PARAM")),
        ("nonsense".to_owned(), (400, "M_INVALID_PARAM")),
    ] {
        for _ in 0..2 {
            let answer = preview(&alice, &url).await;
            assert_eq!(answer.refusal(), (refusal.0, refusal.1.to_owned()), "{url}");
        }
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "a failure is remembered");
    assert_eq!(told(&alice, &format!("http://{address}/endless")).await, json!({}));
    serving.abort();
}

#[tokio::test]
async fn previews_are_off_unless_they_are_turned_on() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let answer = preview(&alice, "https://example.org/").await;
    assert_eq!(answer.refusal(), (404, "M_UNRECOGNIZED".to_owned()));
}
