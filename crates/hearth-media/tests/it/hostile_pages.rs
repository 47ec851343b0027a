//! Pages that are slow or never end, when they are previewed.

use std::time::Duration;

use hearth_media::PreviewError;

use crate::world::{LONG, Script, World, drips, page, redirect, repeats, says, script, stalls};

const HTML: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n";
const IMAGE: &str = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nConnection: close\r\n\r\n";

/// Nothing but zeros, packed as tightly as can be: a MiB in a KiB.
fn packed() -> Vec<u8> {
    let block = [0x78, 0x9c, 0xed, 0xc1, 0x01, 0x01, 0x00, 0x00, 0x00, 0x80, 0x90, 0xfe, 0xaf, 0x6e, 0x08, 0x0a];
    let mut bytes =
        b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Encoding: deflate\r\nConnection: close\r\n\r\n"
            .to_vec();
    bytes.extend(block);
    bytes.extend([0; 1000]);
    bytes
}

fn hostile() -> Script {
    script(async |path, stream| match path.split('?').next().unwrap_or_default() {
        "/silent" => stalls(stream, "").await,
        "/head-drips" => drips(stream, "HTTP/1.1 200 OK\r\nX: ").await,
        "/head-endless" => repeats(stream, "HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n").await,
        "/no-body" => stalls(stream, HTML).await,
        "/drips" => drips(stream, HTML).await,
        "/endless" => repeats(stream, HTML, b"<p>and so on").await,
        "/chunks" => {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n";
            repeats(stream, head, b"1;extension=value\r\nx\r\n").await
        }
        "/packed" => says(stream, packed()).await,
        "/image-drips" => drips(stream, &format!("{IMAGE}\u{89}PNG")).await,
        "/image-endless" => repeats(stream, IMAGE, &[b'x'; 4096]).await,
        "/shows-slow" => says(stream, page("<title>Slow</title><meta property=og:image content=/image-drips>")).await,
        "/shows-much" => says(stream, page("<title>Much</title><meta property=og:image content=/image-endless>")).await,
        "/tells-slowly" => {
            let link = "<title>Told</title><link rel=alternate type='application/json+oembed' href=/drips>";
            says(stream, page(link)).await
        }
        "/denied" => says(stream, redirect("http://www.denied.test/")).await,
        "/shows-denied" => {
            says(stream, page("<title>Denied</title><meta property=og:image content=http://denied.test/x.png>")).await
        }
        path if path.starts_with("/chain") => says(stream, redirect(&format!("{path}x"))).await,
        "/fine" => says(stream, page("<title>Fine</title>")).await,
        _ => says(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await,
    })
}

async fn preview(media: &hearth_media::Media, url: &str) -> Result<serde_json::Value, PreviewError> {
    let preview = tokio::time::timeout(LONG, media.preview(url, None)).await;
    let preview = preview.unwrap_or_else(|_| panic!("{url} holds us up"))?;
    Ok(serde_json::from_slice(&preview).expect("JSON"))
}

#[tokio::test]
async fn a_page_that_never_ends_is_given_up_or_read_as_far_as_it_goes() {
    let world = World::new();
    let web = world.web(hostile()).await;
    let media = world.media(|config| config.previews_denied = vec!["denied.test".to_owned()]).await;
    let at = |path: &str| format!("http://{}{path}", web.address);
    let given_up =
        ["silent", "head-drips", "head-endless", "no-body", "drips", "chunks", "image-drips", "image-endless", "chain"];
    for path in given_up {
        let before = web.asked();
        for _ in 0..2 {
            let error = preview(&media, &at(&format!("/{path}"))).await.err();
            assert!(matches!(error, Some(PreviewError::Failed(_))), "{path}: {error:?}");
        }
        // A connection that breaks is tried once more: it may have been an old one. A chain has six links.
        let most = match path {
            "head-endless" => 2,
            "chain" => 6,
            _ => 1,
        };
        assert!((1..=most).contains(&(web.asked() - before)), "{path}: what failed is not tried again at once");
        assert_eq!(world.left_over(), 0, "{path}");
    }
    for (path, title) in [
        ("/endless", None),
        ("/packed", None),
        ("/shows-slow", Some("Slow")),
        ("/shows-much", Some("Much")),
        ("/tells-slowly", Some("Told")),
        ("/shows-denied", Some("Denied")),
    ] {
        let told = preview(&media, &at(path)).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(told["og:title"].as_str(), title, "{path}: {told}");
        assert!(told["og:image"].is_null(), "{path}: {told}");
        assert_eq!(world.left_over(), 0, "{path}");
    }
    // What is denied is denied behind a redirect, too: its name is not even looked up.
    assert_eq!(preview(&media, &at("/denied")).await, Err(PreviewError::Forbidden));
}

#[tokio::test]
async fn pages_that_are_slow_hold_up_nobody_else() {
    let world = World::new();
    let (slow, quick) = (world.web(hostile()).await, world.web(hostile()).await);
    world.names.socket("slow.test", 80, slow.address).socket("quick.test", 80, quick.address);
    let media = world.media(|config| config.times.page = LONG).await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..200 {
        let media = media.clone();
        waiting.spawn(async move { media.preview(&format!("http://slow.test/silent?{number}"), None).await.err() });
    }
    for _ in 0..200 - 32 {
        let error = waiting.join_next().await.expect("one of them").expect("no panic");
        assert_eq!(error, Some(PreviewError::Busy));
    }
    for number in 0..10 {
        let told = preview(&media, &format!("http://quick.test/fine?{number}")).await.expect("a preview");
        assert_eq!(told["og:title"], "Fine");
    }
    assert!(slow.asked() <= 4, "{} at once", slow.asked());
    assert!(waiting.try_join_next().is_none());
}

#[tokio::test]
async fn who_waits_for_his_turn_does_not_wait_for_ever() {
    let world = World::new();
    let slow = world.web(hostile()).await;
    world.names.socket("slow.test", 80, slow.address);
    let media = world
        .media(|config| {
            config.times.page = LONG;
            config.times.turn = Duration::from_millis(200);
        })
        .await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..5 {
        let media = media.clone();
        waiting.spawn(async move { media.preview(&format!("http://slow.test/silent?{number}"), None).await.err() });
    }
    let first = tokio::time::timeout(LONG / 2, waiting.join_next()).await.expect("soon");
    assert_eq!(first.expect("one of them").expect("no panic"), Some(PreviewError::Busy));
}
