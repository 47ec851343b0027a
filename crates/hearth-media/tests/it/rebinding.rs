//! Names that lead elsewhere when they are looked up again, and addresses in other coats: what counts is where we connect.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use hearth_media::{FetchError, GetError, PreviewError};
use hearth_remote::{NameError, Names, Service};

use crate::world::{World, get, in_parts, page, redirect, says, script};

/// A name that is public when it is looked up first, and private from then on.
struct Rebound {
    first: SocketAddr,
    then: IpAddr,
    lookups: AtomicUsize,
}

impl Names for Rebound {
    fn addresses(&self, host: &str, port: u16) -> BoxFuture<'static, Result<Vec<SocketAddr>, NameError>> {
        let found = match host {
            "rebound.test" if self.lookups.fetch_add(1, Ordering::SeqCst) == 0 => Ok(vec![self.first]),
            "rebound.test" => Ok(vec![SocketAddr::new(self.then, self.first.port())]),
            "inside.test" => Ok(vec![SocketAddr::new(self.then, port)]),
            _ => Err(NameError::NotFound),
        };
        std::future::ready(found).boxed()
    }

    fn services(&self, _: &str) -> BoxFuture<'static, Result<Vec<Service>, NameError>> {
        std::future::ready(Err(NameError::NotFound)).boxed()
    }
}

/// Where nobody may look: it answers at 127.0.0.2 as everywhere on loopback, but the filter lets us to 127.0.0.1 alone.
const INSIDE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 2));

#[tokio::test]
async fn a_name_that_turns_inwards_leads_nowhere() {
    let world = World::new();
    let web = world.web(script(async |_, stream| says(stream, page("<title>Fine</title>")).await)).await;
    let names = Arc::new(Rebound { first: web.address, then: INSIDE, lookups: AtomicUsize::new(0) });
    let media = world.media_with(names.clone(), |_| {}).await;
    assert!(media.preview("http://rebound.test/a", None).await.is_ok());
    for path in ["b", "c"] {
        let refused = media.preview(&format!("http://rebound.test/{path}"), None).await;
        assert_eq!(refused, Err(PreviewError::Forbidden));
    }
    assert_eq!(names.lookups.load(Ordering::SeqCst), 3, "it is looked up for each connection, and once for each");
    assert_eq!(web.asked(), 1);
}

#[tokio::test]
async fn another_server_whose_name_turns_inwards_is_not_asked() {
    let world = World::new();
    let fine = in_parts("Content-Type: text/plain", "fine");
    let server = world.server("rebound.test", script(move |_, stream| says(stream, fine.clone()))).await;
    let names = Arc::new(Rebound { first: server.address, then: INSIDE, lookups: AtomicUsize::new(1) });
    let media = world.media_with(names.clone(), |_| {}).await;
    let refused = get(&media, "rebound.test", "one").await.err();
    assert!(matches!(refused, Some(GetError::Fetch(FetchError::Failed(_)))), "{refused:?}");
    assert_eq!(server.asked(), 0);
}

#[tokio::test]
async fn no_way_of_writing_an_address_leads_inside() {
    let world = World::new();
    let web = world
        .web(script(async |path, stream| {
            let to = path.trim_start_matches("/to/").replace("%5B", "[").replace("%5D", "]");
            says(stream, redirect(&format!("http://{to}/"))).await
        }))
        .await;
    let names = Rebound { first: web.address, then: INSIDE, lookups: AtomicUsize::new(1) };
    let media = world.media_with(Arc::new(names), |_| {}).await;
    let port = web.address.port();
    for host in [
        "127.0.0.2",
        "127.2",
        "2130706434",
        "0x7f000002",
        "0177.0.0.2",
        "0x7f.0.0.2",
        "[::ffff:127.0.0.2]",
        "[::ffff:7f00:2]",
        "[::127.0.0.2]",
        "[64:ff9b::7f00:2]",
        "[2002:7f00:2::]",
        "[::1]",
        "[fd00::1]",
        "10.0.0.1",
        "inside.test",
        "inside.test.",
        "INSIDE.TEST",
        "１２７.0.0.2",
    ] {
        let direct = media.preview(&format!("http://{host}:{port}/"), None).await;
        assert!(is_refused(&direct, host), "{host}: {direct:?}");
        let by_redirect = media.preview(&format!("http://{}/to/{host}:{port}", web.address), None).await;
        assert!(is_refused(&by_redirect, host), "{host}: {by_redirect:?}");
    }
}

/// Full names with a dot at the end may as well not be found.
fn is_refused<T>(outcome: &Result<T, PreviewError>, host: &str) -> bool {
    match outcome {
        Err(PreviewError::Forbidden) => true,
        Err(PreviewError::Failed(_)) => host.ends_with('.') || !host.is_ascii(),
        _ => false,
    }
}

#[tokio::test]
async fn another_server_sends_us_nowhere_inside() {
    let world = World::new();
    let inside = world.web(script(async |_, stream| says(stream, "HTTP/1.1 200 OK\r\n\r\nsecret").await)).await;
    let port = inside.address.port();
    let server = world
        .server(
            "guide.test",
            script(move |path, stream| async move {
                let Some((_, id)) = path.split_once("/download/") else {
                    return says(stream, "HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n").await;
                };
                let to = match id.split('?').next().unwrap_or_default() {
                    "decimal" => format!("http://2130706434:{port}/"),
                    "octal" => format!("http://0177.0.0.2:{port}/"),
                    "mapped" => format!("http://[::ffff:127.0.0.2]:{port}/"),
                    "named" => format!("http://inside.test:{port}/"),
                    "sixth" => format!("http://[::1]:{port}/"),
                    _ => format!("http://127.0.0.1:{port}/"),
                };
                says(stream, in_parts(&format!("Location: {to}"), "")).await
            }),
        )
        .await;
    world.names.host("inside.test", [INSIDE]);
    let media = world.media(|_| {}).await;
    for id in ["decimal", "octal", "mapped", "named", "sixth"] {
        let refused = get(&media, "guide.test", id).await.err();
        assert!(matches!(refused, Some(GetError::Fetch(FetchError::Failed(_)))), "{id}: {refused:?}");
    }
    assert_eq!((inside.asked(), server.asked()), (0, 5));
    // The one address that is allowed.
    assert_eq!(get(&media, "guide.test", "open").await.expect("a file").size(), 6);
}
