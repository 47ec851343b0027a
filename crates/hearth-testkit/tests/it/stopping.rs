//! The end of a server: in order, and soon.

use std::time::Duration;

use axum::Router;
use axum::routing::get;
use hearth_api::Shutdown;
use hearth_api::serve::{Bind, Bound, GROUP_MODE, ListenerOptions, Serving, serve};
use hearth_testkit::{Request, Target, TestServer};
use tokio::sync::mpsc;

/// Serves a router by itself.
async fn serve_router(router: impl FnOnce(Shutdown) -> Router) -> (Serving, Target) {
    let (trigger, shutdown) = Shutdown::new();
    let options = ListenerOptions {
        bind: Bind::Tcp(([127, 0, 0, 1], 0).into()),
        tls: None,
        unix_mode: GROUP_MODE,
        trusted_proxies: Vec::new(),
    };
    let bound = Bound::new(options).await.unwrap();
    let Bind::Tcp(address) = bound.bind() else { panic!("a TCP listener") };
    let router = router(shutdown.clone());
    (serve(vec![(bound, router)], &shutdown, trigger), Target::Tcp(address))
}

#[tokio::test]
async fn a_long_poll_answers_when_the_server_stops() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (serving, target) = serve_router(|shutdown| {
        Router::new().route(
            "/",
            get(async move || {
                arrived.send(()).unwrap();
                shutdown.requested().await;
                "nothing new"
            }),
        )
    })
    .await;
    let waiting = tokio::spawn(Request::new(&target, "GET", "/").send());
    arrivals.recv().await.unwrap();
    serving.drain().await;
    assert_eq!(waiting.await.unwrap().text(), "nothing new");
    assert!(Request::new(&target, "GET", "/").try_send().await.is_err(), "nobody accepts any more");
}

#[tokio::test]
async fn a_connection_at_rest_does_not_hold_up_the_end() {
    let (serving, target) = serve_router(|_| Router::new().route("/", get(async || "fine"))).await;
    let Target::Tcp(address) = target else { panic!("a TCP listener") };
    let resting = tokio::net::TcpStream::connect(address).await.unwrap();
    // Another request after it shows that the one at rest has been accepted.
    Request::new(&Target::Tcp(address), "GET", "/").send().await;
    tokio::time::timeout(Duration::from_secs(2), serving.drain()).await.expect("the drain ends at once");
    drop(resting);
}

#[tokio::test]
async fn a_request_that_never_ends_is_cut_off() {
    let (arrived, mut arrivals) = mpsc::unbounded_channel();
    let (serving, target) = serve_router(|_| {
        Router::new().route(
            "/",
            get(async move || {
                arrived.send(()).unwrap();
                std::future::pending::<()>().await;
            }),
        )
    })
    .await;
    let waiting = tokio::spawn(Request::new(&target, "GET", "/").try_send());
    arrivals.recv().await.unwrap();
    // From here on nothing waits for the network, so time may fly.
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    serving.drain().await;
    assert!(began.elapsed() < Duration::from_secs(5));
    assert!(waiting.await.unwrap().is_err());
}

#[tokio::test]
async fn a_server_starts_again_on_its_data() {
    let mut server = TestServer::start().await;
    assert!(server.running().is_first_start());
    let before = server.target().clone();
    server.restart().await;
    assert!(!server.running().is_first_start());
    assert_eq!(server.target(), &before);
    assert_eq!(server.request("GET", "/ready").send().await.status, 200);
}
