//! Thumbnails.

use std::io::Cursor;

use hearth_testkit::{Answer, TestServer, User, on_each_backend};
use image::{DynamicImage, Frame, GrayImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};

use super::{download, upload};

pub async fn thumbnail(user: &User, place: &str, query: &str) -> Answer {
    user.request("GET", &format!("/_matrix/client/v1/media/thumbnail/{place}?{query}")).send().await
}

pub fn encoded(picture: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.into().write_to(&mut bytes, format).expect("encodes");
    bytes.into_inner()
}

/// Red on the left, blue on the right.
pub fn halves(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| if x < width / 2 { Rgb([255, 0, 0]) } else { Rgb([0, 0, 255]) })
}

/// A still one of frames.
pub fn moving(width: u32, height: u32, frames: u8) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::gif::GifEncoder::new_with_speed(&mut bytes, 30);
    for shade in 0..frames {
        let picture = RgbaImage::from_pixel(width, height, Rgba([shade * 60, 10, 10, 255]));
        encoder.encode_frame(Frame::new(picture)).expect("encodes");
    }
    drop(encoder);
    bytes
}

fn decoded(answer: &Answer) -> DynamicImage {
    assert_eq!(answer.status, 200, "{}", answer.text());
    image::load_from_memory(&answer.body).expect("a picture")
}

// endpoint: GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}
#[tokio::test]
async fn pictures_become_smaller() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        for (format, name, kind) in [
            (ImageFormat::Jpeg, "jpg", "image/jpeg"),
            (ImageFormat::Png, "png", "image/png"),
            (ImageFormat::WebP, "jpg", "image/jpeg"),
            (ImageFormat::Gif, "png", "image/png"),
        ] {
            let bytes = encoded(halves(1000, 500), format);
            // What it is said to be does not matter.
            let place = upload(&alice, "img/nonsense", Some("secret.bin"), &bytes).await;
            for (query, size) in [
                ("width=32&height=32&method=crop", (32, 32)),
                ("width=50&height=50&method=crop", (96, 96)),
                ("width=320&height=240&method=scale", (320, 160)),
                ("width=320&height=240", (320, 160)),
                ("width=700&height=500", (800, 400)),
            ] {
                let answer = thumbnail(&bob, &place, query).await;
                let picture = decoded(&answer).into_rgb8();
                assert_eq!((picture.width(), picture.height()), size, "{format:?} {query}");
                assert_eq!(answer.header("content-type"), Some(kind));
                let disposition = format!("inline; filename=thumbnail.{name}");
                assert_eq!(answer.header("content-disposition"), Some(disposition.as_str()));
                assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
                let (left, right) = (picture.get_pixel(2, 10), picture.get_pixel(size.0 - 3, 10));
                assert!(left[0] > 200 && left[2] < 60 && right[2] > 200 && right[0] < 60, "{format:?} {query}");
                // Once made, it is there.
                assert!(thumbnail(&bob, &place, query).await.body == answer.body);
            }
        }
    })
    .await;
}

#[tokio::test]
async fn pictures_never_grow() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let small = encoded(halves(90, 60), ImageFormat::Png);
        let place = upload(&alice, "image/png", None, &small).await;
        for query in ["width=96&height=96&method=crop", "width=800&height=600", "width=5000&height=5000"] {
            let answer = thumbnail(&alice, &place, query).await;
            assert!(answer.body == small, "{query}");
            assert_eq!(answer.header("content-type"), Some("image/png"));
        }
        let large = encoded(halves(2500, 1000), ImageFormat::Jpeg);
        let place = upload(&alice, "image/jpeg", None, &large).await;
        assert!(thumbnail(&alice, &place, "width=2000&height=900").await.body == large);
    })
    .await;
}

#[tokio::test]
async fn a_picture_stands_as_its_camera_was_held() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let lying = encoded(halves(400, 200), ImageFormat::Jpeg);
    // Orientation 6: to be turned by 90 degrees to the right, so that red comes to the top.
    let exif = b"\xff\xe1\x00\x22Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let turned = [&lying[..2], exif, &lying[2..]].concat();
    let place = upload(&alice, "image/jpeg", None, &turned).await;
    let answer = thumbnail(&alice, &place, "width=320&height=240").await;
    let picture = decoded(&answer).into_rgb8();
    assert_eq!((picture.width(), picture.height()), (120, 240));
    assert!(picture.get_pixel(60, 10)[0] > 200 && picture.get_pixel(60, 230)[2] > 200);
    // What the camera told is told to nobody.
    assert!(!answer.body.windows(4).any(|window| window == b"Exif"));
}

#[tokio::test]
async fn what_moves_stands_still_unless_it_may_move() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let count = |answer: &Answer| {
            use image::AnimationDecoder;
            let decoder = image::codecs::gif::GifDecoder::new(Cursor::new(answer.body.clone())).expect("a GIF");
            decoder.into_frames().count()
        };
        let place = upload(&alice, "image/gif", None, &moving(200, 100, 4)).await;
        for (query, kind) in [
            ("width=32&height=32&method=crop", "image/png"),
            ("width=32&height=32&method=crop&animated=false", "image/png"),
            // Also where it is small enough as it is.
            ("width=320&height=240&animated=false", "image/png"),
            ("width=2000&height=2000", "image/png"),
            ("width=32&height=32&method=crop&animated=true", "image/gif"),
            ("width=320&height=240&animated=true", "image/gif"),
        ] {
            let answer = thumbnail(&alice, &place, query).await;
            assert_eq!((answer.status, answer.header("content-type")), (200, Some(kind)), "{query}");
            if kind == "image/gif" {
                assert_eq!(count(&answer), 4, "{query}");
            }
        }
        // What can't move does not, whoever asks.
        let still = upload(&alice, "image/jpeg", None, &encoded(halves(200, 100), ImageFormat::Jpeg)).await;
        let answer = thumbnail(&alice, &still, "width=32&height=32&method=crop&animated=true").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/jpeg")));
        let single = upload(&alice, "image/gif", None, &moving(200, 100, 1)).await;
        let answer = thumbnail(&alice, &single, "width=32&height=32&method=crop&animated=true").await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
    })
    .await;
}

#[tokio::test]
async fn hostile_pictures_are_refused() {
    let few = |settings: &mut hearth_testkit::Settings| settings.media.max_picture_pixels = 1_000_000;
    let server = TestServer::start_with(few).await;
    let alice = server.user("alice").await;
    let png = encoded(halves(500, 500), ImageFormat::Png);
    let jpeg = encoded(halves(500, 500), ImageFormat::Jpeg);
    let gif = moving(100, 100, 3);
    let bomb = encoded(GrayImage::new(1001, 1000), ImageFormat::Png);
    // A head that promises 65,535 by 65,535 pixels.
    let mut giant = gif.clone();
    giant[6..10].fill(0xff);
    let mut huge = png.clone();
    huge[16..24].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff, 0x7f, 0xff, 0xff, 0xff]);
    let unknown = (400, "M_UNKNOWN");
    let too_large = (413, "M_TOO_LARGE");
    for (what, bytes, refusal) in [
        ("text", b"hello".to_vec(), unknown),
        ("nothing", Vec::new(), unknown),
        ("SVG", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), unknown),
        ("the head of a PNG", png[..40].to_vec(), unknown),
        ("half a PNG", png[..png.len() / 2].to_vec(), unknown),
        ("the head of a JPEG", jpeg[..100].to_vec(), unknown),
        ("a bomb", bomb, too_large),
        ("a giant GIF", giant, too_large),
    ] {
        let place = upload(&alice, "image/png", None, &bytes).await;
        for query in ["width=32&height=32&method=crop", "width=32&height=32&method=crop&animated=true"] {
            // Twice: what was found out is remembered.
            for _ in 0..2 {
                let answer = thumbnail(&alice, &place, query).await;
                assert_eq!(answer.refusal(), (refusal.0, refusal.1.to_owned()), "{what}: {}", answer.text());
            }
        }
        assert_eq!(download(&alice, &place).await.status, 200, "{what}");
    }
    let place = upload(&alice, "image/png", None, &huge).await;
    assert!(matches!(thumbnail(&alice, &place, "width=32&height=32").await.status, 400 | 413));
}

#[tokio::test]
async fn many_who_want_the_same_thumbnail_get_it() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let place = upload(&alice, "image/jpeg", None, &encoded(halves(1600, 1200), ImageFormat::Jpeg)).await;
        let all = (0..20).map(|n| {
            let (alice, place) = (alice.clone(), place.clone());
            let side = if n % 2 == 0 { 32 } else { 96 };
            tokio::spawn(async move {
                thumbnail(&alice, &place, &format!("width={side}&height={side}&method=crop")).await.status
            })
        });
        for one in all.collect::<Vec<_>>() {
            assert_eq!(one.await.expect("an answer"), 200);
        }
    })
    .await;
}

// endpoint: GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}
// endpoint: GET /_matrix/media/v1/thumbnail/{serverName}/{mediaId}
#[tokio::test]
async fn the_old_paths_have_thumbnails_of_what_they_know() {
    let server = TestServer::start_with(|settings| settings.media.unauthenticated_legacy = true).await;
    let alice = server.user("alice").await;
    let place = upload(&alice, "image/png", None, &encoded(halves(500, 500), ImageFormat::Png)).await;
    for version in ["v1", "v3", "r0"] {
        let path = format!("/_matrix/media/{version}/thumbnail/{place}?width=32&height=32&method=crop");
        assert_eq!(server.request("GET", &path).send().await.status, 200);
    }
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let place = upload(&alice, "image/png", None, &encoded(halves(500, 500), ImageFormat::Png)).await;
    let path = format!("/_matrix/media/v3/thumbnail/{place}?width=32&height=32&method=crop");
    assert_eq!(server.request("GET", &path).send().await.refusal(), (404, "M_NOT_FOUND".to_owned()));
}
