//! The HTTP client: whom it trusts, what it bears, what it keeps.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hearth_remote::{AddressFilter, ConnectError, HttpClient, HttpError, Limits, Manner, NameError};
use http::{Request, Response, Version};
use http_body_util::{BodyExt as _, StreamBody};

use crate::harness::{Handler, World, full, says};

async fn get(client: &HttpClient, url: &str, limits: Limits) -> Result<Response<Bytes>, HttpError> {
    client.send(Manner::Web, Request::get(url).body(Bytes::new()).unwrap(), limits).await
}

#[tokio::test]
async fn the_reasons_for_no_connection_are_told_apart() {
    let world = World::new();
    let wrong = world.server("other.example.org", says("{}")).await;
    let stranger = World::new().server("stranger.example.org", says("{}")).await;
    let gone = world.server("gone.example.org", says("{}")).await;
    let gone_at = gone.address;
    drop(gone);
    world
        .names
        .socket("wrong.example.org", 443, wrong.address)
        .socket("stranger.example.org", 443, stranger.address)
        .host("private.example.org", ["10.0.0.1".parse().unwrap()])
        .host("mixed.example.org", ["10.0.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()]);
    let client = world.filtered_client(AddressFilter::new(Vec::new(), vec!["10.0.0.0/8".parse().unwrap()]));
    let failure = async |url: &str| match get(&client, url, Limits::default()).await {
        Err(HttpError::Connect(error)) => error,
        other => panic!("{url}: {other:?}"),
    };
    assert!(matches!(failure("https://wrong.example.org/").await, ConnectError::Tls(_)));
    assert!(matches!(failure("https://stranger.example.org/").await, ConnectError::Tls(_)));
    assert!(matches!(failure("https://private.example.org/").await, ConnectError::Forbidden { .. }));
    assert!(matches!(failure("https://[::ffff:10.0.0.1]/").await, ConnectError::Forbidden { .. }));
    assert_eq!(
        failure("https://nobody.example.org/").await,
        ConnectError::Unresolvable { host: "nobody.example.org".to_owned(), cause: NameError::NotFound }
    );
    // Not listening any more, or taken over by a server that was started since.
    let error = failure(&format!("https://{gone_at}/")).await;
    assert!(matches!(error, ConnectError::Unreachable(_) | ConnectError::Tls(_)));
    // A forbidden address is passed over where there are others.
    let error = failure(&format!("https://mixed.example.org:{}/", wrong.address.port())).await;
    assert!(matches!(error, ConnectError::Tls(_)));
}

#[tokio::test]
async fn answers_are_bounded_in_time_and_size() {
    let world = World::new();
    let endless: Handler = Arc::new(|seen| {
        Box::pin(async move {
            match seen.uri.path() {
                "/silent" => std::future::pending().await,
                "/endless" => {
                    let frame = || Ok(hyper::body::Frame::data(Bytes::from_static(&[b'x'; 4096])));
                    let frames = futures_util::stream::repeat_with(frame);
                    Response::new(StreamBody::new(frames).boxed_unsync())
                }
                "/stuck" => Response::new(StreamBody::new(futures_util::stream::pending()).boxed_unsync()),
                _ => full(200, vec![b'x'; 1000]),
            }
        })
    });
    for alpn in [&["h2"][..], &["http/1.1"][..]] {
        let server = world.server_with("example.org", alpn, endless.clone()).await;
        world.names.socket("example.org", 443, server.address);
        let client = world.client();
        let tight = Limits { timeout: Duration::from_millis(300), response_bytes: 100_000 };
        let loose = Limits { response_bytes: 999, ..Limits::default() };
        assert_eq!(get(&client, "https://example.org/silent", tight).await.unwrap_err(), HttpError::Timeout);
        assert_eq!(get(&client, "https://example.org/stuck", tight).await.unwrap_err(), HttpError::Timeout);
        let bounded = Limits { response_bytes: 100_000, ..Limits::default() };
        assert_eq!(
            get(&client, "https://example.org/endless", bounded).await.unwrap_err(),
            HttpError::TooLarge(100_000)
        );
        assert_eq!(get(&client, "https://example.org/", loose).await.unwrap_err(), HttpError::TooLarge(999));
        let exact = Limits { response_bytes: 1000, ..Limits::default() };
        assert_eq!(get(&client, "https://example.org/", exact).await.unwrap().body().len(), 1000);
    }
}

#[tokio::test]
async fn connections_are_kept_and_http_2_is_shared() {
    let world = World::new();
    for (alpn, version) in [(&["h2", "http/1.1"][..], Version::HTTP_2), (&["http/1.1"][..], Version::HTTP_11)] {
        let server = world.server_with("example.org", alpn, says("{}")).await;
        world.names.socket("example.org", 443, server.address);
        let client = world.client();
        for _ in 0..5 {
            get(&client, "https://example.org/", Limits::default()).await.unwrap();
        }
        assert_eq!(server.connections(), 1);
        assert!(server.seen().iter().all(|seen| seen.version == version));
        let many = (0..20).map(|_| get(&client, "https://example.org/", Limits::default()));
        for answer in futures_util::future::join_all(many).await {
            answer.unwrap();
        }
        if version == Version::HTTP_2 {
            assert_eq!(server.connections(), 1);
        }
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let world = World::new();
    let server = world
        .server(
            "example.org",
            Arc::new(|_| {
                let mut response = full(302, "{}");
                response.headers_mut().insert("location", "https://example.org/other".parse().unwrap());
                Box::pin(std::future::ready(response))
            }),
        )
        .await;
    world.names.socket("example.org", 443, server.address);
    assert_eq!(get(&world.client(), "https://example.org/", Limits::default()).await.unwrap().status(), 302);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_request_arrives_as_it_was_sent() {
    let world = World::new();
    let server = world.server("example.org", says("{}")).await;
    world.names.socket("example.org", 443, server.address);
    let request = Request::put("https://example.org/a%2Fb?c=d").body(Bytes::from_static(b"body")).unwrap();
    world.client().send(Manner::Web, request, Limits::default()).await.unwrap();
    let seen = server.seen().pop().unwrap();
    assert_eq!((seen.method.as_str(), seen.uri.path_and_query().unwrap().as_str()), ("PUT", "/a%2Fb?c=d"));
    assert!(seen.headers["user-agent"].to_str().unwrap().starts_with("Hearth/"));
    assert_eq!(seen.body, "body");
}
