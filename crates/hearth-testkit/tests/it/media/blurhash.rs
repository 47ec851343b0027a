//! Blurhashes (MSC2448).

use axum::Router;
use axum::response::Html;
use axum::routing::get;
use hearth_testkit::{Settings, User, Value, json, on_each_backend, on_each_backend_with};
use image::ImageFormat;

use super::preview::{previews, told};
use super::thumbnail::{encoded, halves, moving};
use super::{UPLOAD, noise, path_of, web};

fn blurhashes(settings: &mut Settings) {
    settings.media.blurhash = true;
    settings.media.max_picture_pixels = 1_000_000;
}

/// What the upload of a file answers.
async fn uploaded(user: &User, query: &str, bytes: &[u8]) -> Value {
    let answer = user.request("POST", &format!("{UPLOAD}{query}")).body(bytes.to_vec()).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()
}

/// The colour in the middle of all, which four letters tell.
fn average(blurhash: &str) -> [u8; 3] {
    const LETTERS: &str = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz#$%*+,-.:;=?@[]^_{|}~";
    let digit = |letter| LETTERS.find(letter).expect("a letter of a blurhash") as u32;
    let [_, red, green, blue] = blurhash[2..6].chars().fold(0, |sum, letter| sum * 83 + digit(letter)).to_be_bytes();
    [red, green, blue]
}

// endpoint: POST /_matrix/media/v3/upload
#[tokio::test]
async fn who_uploads_a_picture_may_ask_for_its_blurhash() {
    on_each_backend_with(blurhashes, async |server| {
        let alice = server.user("alice").await;
        let [wide, high] = [halves(600, 400), halves(400, 600)];
        for (bytes, shape) in [
            (encoded(wide.clone(), ImageFormat::Jpeg), 'L'),
            (encoded(wide.clone(), ImageFormat::Png), 'L'),
            (encoded(high, ImageFormat::WebP), 'T'),
            (encoded(halves(3, 2), ImageFormat::Png), 'L'),
            (moving(40, 30, 3), 'L'),
        ] {
            let answer = uploaded(&alice, "?filename=a.png&xyz.amorgan.generate_blurhash=true", &bytes).await;
            assert!(answer["content_uri"].is_string());
            let blurhash = answer["xyz.amorgan.blurhash"].as_str().expect("a blurhash");
            // Four by three, and as many letters as that takes.
            assert_eq!((blurhash.len(), blurhash.chars().next()), (28, Some(shape)), "{blurhash}");
        }
        let asked = "?xyz.amorgan.generate_blurhash=true";
        let answer = uploaded(&alice, asked, &encoded(wide, ImageFormat::Jpeg)).await;
        let [red, green, blue] = average(answer["xyz.amorgan.blurhash"].as_str().expect("a blurhash"));
        // Half red, half blue, as light adds up.
        assert!(red.abs_diff(188) < 8 && green < 25 && blue.abs_diff(188) < 8, "{red} {green} {blue}");
    })
    .await;
}

// endpoint: PUT /_matrix/media/v3/upload/{serverName}/{mediaId}
#[tokio::test]
async fn so_may_who_uploads_to_a_place_that_was_reserved() {
    on_each_backend_with(blurhashes, async |server| {
        let alice = server.user("alice").await;
        let picture = encoded(halves(300, 200), ImageFormat::Png);
        let at_once = uploaded(&alice, "?xyz.amorgan.generate_blurhash=true", &picture).await;
        for (query, blurhash) in
            [("?xyz.amorgan.generate_blurhash=true", &at_once["xyz.amorgan.blurhash"]), ("", &Value::Null)]
        {
            let (_, created) = alice.post("/_matrix/media/v1/create", &json!({})).await;
            let place = path_of(created["content_uri"].as_str().expect("a URI"));
            let request = alice.request("PUT", &format!("{UPLOAD}/{place}{query}"));
            let answer = request.body(picture.clone()).send().await;
            assert_eq!(answer.status, 200, "{}", answer.text());
            assert_eq!(&answer.json()["xyz.amorgan.blurhash"], blurhash, "{query}");
            assert_eq!(answer.json().get("content_uri"), None);
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_no_picture_or_too_large_a_one_has_no_blurhash() {
    on_each_backend_with(blurhashes, async |server| {
        let alice = server.user("alice").await;
        let picture = encoded(halves(300, 200), ImageFormat::Png);
        for bytes in [
            noise(1, 1000),
            noise(2, 200_000),
            Vec::new(),
            b"<svg xmlns=\"http://www.w3.org/2000/svg\"/>".to_vec(),
            picture[..picture.len() / 2].to_vec(),
            encoded(halves(1001, 1000), ImageFormat::Png),
        ] {
            let answer = uploaded(&alice, "?xyz.amorgan.generate_blurhash=true", &bytes).await;
            assert_eq!(answer.as_object().expect("an object").len(), 1, "{answer}");
        }
        // Nor has what nobody asked it of.
        for query in ["", "?xyz.amorgan.generate_blurhash=false"] {
            let answer = uploaded(&alice, query, &picture).await;
            assert_eq!(answer.as_object().expect("an object").len(), 1, "{answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn there_are_no_blurhashes_unless_they_are_turned_on() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let picture = encoded(halves(300, 200), ImageFormat::Png);
        let answer = uploaded(&alice, "?xyz.amorgan.generate_blurhash=true", &picture).await;
        assert_eq!(answer.as_object().expect("an object").len(), 1, "{answer}");
    })
    .await;
}

// endpoint: GET /_matrix/client/v1/media/preview_url
#[tokio::test]
async fn the_picture_of_a_page_has_a_blurhash() {
    let picture = encoded(halves(279, 129), ImageFormat::Png);
    let image = get(async move || picture);
    let page = get(async || Html(r#"<meta property="og:image" content="test.png">"#));
    let bare = get(async || Html("<title>Bare</title>"));
    let routes = Router::new().route("/page", page).route("/bare", bare).route("/test.png", image);
    let (address, serving) = web(|_| routes).await;
    let both = |settings: &mut Settings| {
        previews(settings);
        blurhashes(settings);
    };
    on_each_backend_with(both, async |server| {
        let alice = server.user("alice").await;
        let page = told(&alice, &format!("http://{address}/page")).await;
        assert_eq!(page["matrix:image:blurhash"].as_str().map(str::len), Some(28), "{page}");
        let page = told(&alice, &format!("http://{address}/bare")).await;
        assert_eq!(page.get("matrix:image:blurhash"), None);
    })
    .await;
    on_each_backend_with(previews, async |server| {
        let alice = server.user("alice").await;
        let page = told(&alice, &format!("http://{address}/page")).await;
        assert!(page["og:image"].is_string());
        assert_eq!(page.get("matrix:image:blurhash"), None);
    })
    .await;
    serving.abort();
}
