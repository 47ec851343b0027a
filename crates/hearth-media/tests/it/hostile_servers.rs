//! Other servers that are slow or never end, when they are asked for media.

use hearth_media::{FetchError, GetError};

use crate::world::{PARTS, Script, World, drips, get, in_parts, redirect, repeats, says, script, stalls};

const SECOND: &str = "--x\r\n\r\n{}\r\n--x\r\nContent-Type: image/png\r\n\r\n";

/// A server that does its worst, in the way that the media id names.
fn hostile(web: std::net::SocketAddr) -> Script {
    script(move |path, stream| async move {
        let ways = ["/download/", "/thumbnail/", "/web/"];
        let Some(way) = ways.iter().find_map(|start| Some(path.split_once(start)?.1.to_owned())) else {
            return says(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        };
        let head = |more: &str| format!("{PARTS}{more}");
        match way.split(['?', '/']).next().unwrap_or_default() {
            "silent" => stalls(stream, "").await,
            "head-drips" => drips(stream, "HTTP/1.1 200 OK\r\nX: ").await,
            "head-endless" => repeats(stream, "HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n").await,
            "head-long" => repeats(stream, "HTTP/1.1 200 OK\r\nX: ", &[b'x'; 4096]).await,
            "no-body" => stalls(stream, PARTS).await,
            "preamble-drips" => drips(stream, PARTS).await,
            "preamble-endless" => repeats(stream, PARTS, &[b'x'; 4096]).await,
            "part-head-drips" => drips(stream, &head("--x\r\n\r\n{}\r\n--x\r\nX: ")).await,
            "part-head-endless" => repeats(stream, &head("--x\r\n\r\n{}\r\n--x\r\n"), b"X: y\r\n").await,
            "parts-endless" => repeats(stream, PARTS, b"--y\r\n\r\n{}\r\n").await,
            "body-stalls" => stalls(stream, &head(&format!("{SECOND}so far"))).await,
            "body-drips" => drips(stream, &head(SECOND)).await,
            "body-endless" => repeats(stream, &head(SECOND), &[b'x'; 4096]).await,
            "refusal-endless" => repeats(stream, "HTTP/1.1 500 No\r\nConnection: close\r\n\r\n", &[b'x'; 4096]).await,
            "refusal-drips" => drips(stream, "HTTP/1.1 404 No\r\nConnection: close\r\n\r\n").await,
            "plain-endless" => {
                repeats(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: image/png\r\n\r\n", b"pixel")
                    .await
            }
            "claims-much" => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 999999999999\r\n\r\n";
                stalls(stream, head).await
            }
            way @ ("chain" | "chained") => {
                says(stream, in_or_out(way, &format!("http://{web}/web/chained/{}", path.len()))).await
            }
            "to-silent" => says(stream, in_parts(&format!("Location: http://{web}/web/silent"), "")).await,
            "to-drips" => says(stream, in_parts(&format!("Location: http://{web}/web/body-drips"), "")).await,
            "to-endless" => says(stream, in_parts(&format!("Location: http://{web}/web/plain-endless"), "")).await,
            "to-much" => says(stream, in_parts(&format!("Location: http://{web}/web/claims-much"), "")).await,
            _ => says(stream, in_parts("Content-Type: text/plain", "fine")).await,
        }
    })
}

fn in_or_out(way: &str, to: &str) -> String {
    if way == "chain" { in_parts(&format!("Location: {to}"), "") } else { redirect(&format!("{to}x")) }
}

fn fetch_error(error: GetError) -> FetchError {
    match error {
        GetError::Fetch(error) => error,
        error => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_server_that_never_ends_is_given_up() {
    let world = World::new();
    let web = world.web(hostile("127.0.0.1:1".parse().expect("an address"))).await;
    let far = world.web(hostile(web.address)).await;
    let server = world.server("hostile.test", hostile(far.address)).await;
    let media = world.media(|config| config.max_remote_bytes = 300_000).await;
    for (way, too_large) in [
        ("silent", false),
        ("head-drips", false),
        ("head-endless", false),
        ("head-long", false),
        ("no-body", false),
        ("preamble-drips", false),
        ("preamble-endless", false),
        ("part-head-drips", false),
        ("part-head-endless", false),
        ("parts-endless", false),
        ("body-stalls", false),
        ("body-drips", false),
        ("body-endless", true),
        ("refusal-endless", true),
        ("refusal-drips", false),
        ("plain-endless", false),
        ("chain", false),
        ("to-silent", false),
        ("to-drips", false),
        ("to-endless", true),
        ("to-much", true),
    ] {
        let before = server.asked();
        let error = fetch_error(get(&media, "hostile.test", way).await.err().expect("a refusal"));
        match &error {
            FetchError::TooLarge => assert!(too_large, "{way}: {error}"),
            FetchError::Failed(_) => assert!(!too_large, "{way}: {error}"),
            error => panic!("{way}: {error}"),
        }
        assert!(server.asked() > before, "{way}");
        assert_eq!(world.left_over(), 0, "{way}");
    }
    // It is bad at media, and not to be left alone for that.
    let fine = get(&media, "hostile.test", "fine").await.expect("a file");
    assert_eq!(fine.size(), 4);
}

#[tokio::test]
async fn a_server_that_is_slow_holds_up_nobody_else() {
    let world = World::new();
    let slow = world.server("slow.test", script(async |_, stream| stalls(stream, "").await)).await;
    let fine = in_parts("Content-Type: text/plain", "fine");
    let _quick = world
        .server(
            "quick.test",
            script(move |path, stream| {
                let fine = fine.clone();
                async move {
                    let known = path.contains("/download/");
                    says(stream, if known { fine } else { "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_owned() })
                        .await
                }
            }),
        )
        .await;
    // Nothing ends by itself.
    let media = world
        .media(|config| {
            config.times.answer = crate::world::LONG;
            config.times.turn = crate::world::LONG;
        })
        .await;
    let mut waiting = tokio::task::JoinSet::new();
    for number in 0..1_000 {
        let media = media.clone();
        waiting.spawn(async move { media.file(&crate::world::wanted("slow.test", &number.to_string())).await.err() });
    }
    // As many as may wait do; the others are told to come later.
    for _ in 0..1_000 - 128 {
        let error = waiting.join_next().await.expect("one of them").expect("no panic").expect("a refusal");
        assert_eq!(fetch_error(error), FetchError::Busy);
    }
    for number in 0..20 {
        assert_eq!(get(&media, "quick.test", &number.to_string()).await.expect("a file").size(), 4);
    }
    assert!(slow.asked() <= 8, "{} at once", slow.asked());
    assert!(waiting.try_join_next().is_none());
}
