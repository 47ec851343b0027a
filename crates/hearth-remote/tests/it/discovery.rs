//! Server names to servers: every step of the specification, and what comes after each failure.

use hearth_matrix::ruma::ServerName;
use hearth_remote::{
    ConnectError, Discovery, HttpClient, HttpError, Limits, Manner, Patience, Remote, Service, WantedKey,
};
use hearth_store::WallTime;
use http::Request;
use http::header::LOCATION;

use crate::harness::{Matrix, TestServer, World, black_hole, full, paths, says, store};

/// Asks the server of a name, as every request to it does.
async fn ask(client: &HttpClient, discovery: &Discovery, server: &str) -> Result<String, HttpError> {
    let host = discovery.answering_for(&ServerName::parse(server).unwrap()).await;
    let request = Request::get(format!("https://{host}/x")).body(bytes::Bytes::new()).unwrap();
    let answer = client.send(Manner::Federation, request, Limits::default()).await?;
    Ok(String::from_utf8(answer.into_body().to_vec()).unwrap())
}

fn service(target: &str, port: u16) -> Service {
    Service { priority: 1, weight: 1, target: target.to_owned(), port }
}

fn delegating(to: &'static str) -> crate::harness::Handler {
    paths(move |path| (path == "/.well-known/matrix/server").then(|| full(200, format!(r#"{{"m.server":"{to}"}}"#))))
}

fn host_seen(server: &TestServer) -> String {
    server.seen().last().unwrap().host.clone()
}

#[tokio::test]
async fn an_address_is_taken_as_it_is_and_certified() {
    let world = World::new();
    let server = world.server("127.0.0.1", says("me")).await;
    let other = world.server("example.org", says("me")).await;
    let client = world.client();
    let discovery = Discovery::new(client.clone(), WallTime::manual(0));
    let name = format!("127.0.0.1:{}", server.address.port());
    assert_eq!(ask(&client, &discovery, &name).await.unwrap(), "me");
    assert_eq!(host_seen(&server), name);
    let error = ask(&client, &discovery, &format!("127.0.0.1:{}", other.address.port())).await.unwrap_err();
    assert!(matches!(error, HttpError::Connect(ConnectError::Tls(_))), "{error}");
}

#[tokio::test]
async fn a_port_is_taken_as_it_is() {
    let world = World::new();
    let server = world.server("example.org", says("me")).await;
    world.names.socket("example.org", 1234, server.address);
    world.names.service("_matrix-fed._tcp.example.org", service("nowhere.example.org", 1));
    let client = world.client();
    let discovery = Discovery::new(client.clone(), WallTime::manual(0));
    assert_eq!(ask(&client, &discovery, "example.org:1234").await.unwrap(), "me");
    assert_eq!(host_seen(&server), "example.org:1234");
}

#[tokio::test]
async fn without_anything_else_port_8448_of_the_host() {
    let world = World::new();
    let server = world.server("example.org", says("me")).await;
    world.names.socket("example.org", 8448, server.address);
    let client = world.client();
    let discovery = Discovery::new(client.clone(), WallTime::manual(0));
    assert_eq!(ask(&client, &discovery, "example.org").await.unwrap(), "me");
    assert_eq!(host_seen(&server), "example.org");
}

#[tokio::test]
async fn services_are_tried_in_order_and_certified_by_the_name_itself() {
    let world = World::new();
    let server = world.server("example.org", says("me")).await;
    let impostor = world.server("target.example.net", says("impostor")).await;
    world.names.socket("impostor.example.net", 1, impostor.address).socket("target.example.net", 2, server.address);
    world
        .names
        .service("_matrix-fed._tcp.example.org", service("impostor.example.net", 1))
        .service("_matrix-fed._tcp.example.org", Service { priority: 2, ..service("target.example.net", 2) })
        .service("_matrix._tcp.example.org", service("old.example.net", 3));
    let client = world.client();
    let discovery = Discovery::new(client.clone(), WallTime::manual(0));
    assert_eq!(ask(&client, &discovery, "example.org").await.unwrap(), "me");
    assert_eq!(host_seen(&server), "example.org");
    assert!(impostor.seen().is_empty());
}

#[tokio::test]
async fn the_old_service_name_still_counts() {
    let world = World::new();
    let server = world.server("example.org", says("me")).await;
    world.names.socket("target.example.net", 2, server.address);
    world.names.service("_matrix._tcp.example.org", service("target.example.net", 2));
    let client = world.client();
    let discovery = Discovery::new(client.clone(), WallTime::manual(0));
    assert_eq!(ask(&client, &discovery, "example.org").await.unwrap(), "me");
}

#[tokio::test]
async fn a_service_that_is_decidedly_not_offered_is_not_looked_for_elsewhere() {
    let world = World::new();
    let server = world.server("example.org", says("me")).await;
    world.names.socket("example.org", 8448, server.address);
    world.names.service("_matrix-fed._tcp.example.org", service("", 0));
    let client = world.client();
    let discovery = Discovery::new(client.clone(), WallTime::manual(0));
    let error = ask(&client, &discovery, "example.org").await.unwrap_err();
    assert!(matches!(error, HttpError::Connect(ConnectError::Unresolvable { .. })), "{error}");
}

#[tokio::test]
async fn well_known_delegates_to_every_form_of_name() {
    let world = World::new();
    let by_address = world.server("127.0.0.1", says("by address")).await;
    let by_name = world.server("matrix.example.net", says("by name")).await;
    let name = by_address.address.to_string();
    let cases = [
        (&*Box::leak(name.clone().into_boxed_str()), "by address", name.as_str(), &by_address),
        ("matrix.example.net:444", "by name", "matrix.example.net:444", &by_name),
        ("matrix.example.net", "by name", "matrix.example.net", &by_name),
    ];
    world.names.socket("matrix.example.net", 444, by_name.address).socket("target", 5, by_name.address);
    world.names.service("_matrix-fed._tcp.matrix.example.net", service("target", 5));
    for (to, answer, host, server) in cases {
        let front = world.server("example.org", delegating(to)).await;
        world.names.socket("example.org", 443, front.address);
        let client = world.client();
        let discovery = Discovery::new(client.clone(), WallTime::manual(0));
        assert_eq!(ask(&client, &discovery, "example.org").await.unwrap(), answer);
        assert_eq!(host_seen(server), host);
        assert_eq!(ask(&client, &discovery, "EXAMPLE.org").await.unwrap(), answer);
        assert_eq!(front.seen().len(), 1, "remembered");
    }
}

#[tokio::test]
async fn what_well_known_says_is_asked_again_when_it_is_old() {
    let world = World::new();
    let front = world.server("example.org", delegating("matrix.example.net:444")).await;
    world.names.socket("example.org", 443, front.address);
    let time = WallTime::manual(0);
    let discovery = Discovery::new(world.client(), time.clone());
    let name = ServerName::parse("example.org").unwrap();
    discovery.answering_for(&name).await;
    time.advance(23 * 3_600_000);
    discovery.answering_for(&name).await;
    assert_eq!(front.seen().len(), 1);
    time.advance(2 * 3_600_000);
    discovery.answering_for(&name).await;
    assert_eq!(front.seen().len(), 2);
    // A front that is down does not undo the delegation.
    drop(front);
    time.advance(25 * 3_600_000);
    assert_eq!(discovery.answering_for(&name).await, "matrix.example.net:444");
}

#[tokio::test]
async fn a_broken_well_known_is_as_none() {
    let big: &str =
        Box::leak(format!(r#"{{"m.server":"a.example.org","x":"{}"}}"#, "x".repeat(60_000)).into_boxed_str());
    let world = World::new();
    let server = world.server("example.org", says("me")).await;
    world.names.socket("example.org", 8448, server.address);
    for (status, body) in [(200, "<html>"), (404, r#"{"m.server":"a.example.org"}"#), (500, "{}"), (200, big)] {
        let front = world.server("example.org", paths(move |_| Some(full(status, body)))).await;
        world.names.socket("example.org", 443, front.address);
        let client = world.client();
        let discovery = Discovery::new(client.clone(), WallTime::manual(0));
        assert_eq!(ask(&client, &discovery, "example.org").await.unwrap(), "me");
        ask(&client, &discovery, "example.org").await.unwrap();
        assert_eq!(front.seen().len(), 1, "a failure is remembered, too");
    }
}

#[tokio::test]
async fn well_known_redirects_are_followed_but_not_for_ever_and_not_to_private_addresses() {
    let redirecting = |to: &'static str| {
        paths(move |_| {
            let mut response = full(302, "");
            response.headers_mut().insert(LOCATION, to.parse().unwrap());
            Some(response)
        })
    };
    let name = ServerName::parse("example.org").unwrap();
    let world = World::new();
    let front = world.server("example.org", redirecting("https://www.example.org/x")).await;
    let www = world.server(
        "www.example.org",
        paths(|path| (path == "/x").then(|| full(200, r#"{"m.server":"matrix.example.org"}"#))),
    );
    let www = www.await;
    world.names.socket("example.org", 443, front.address).socket("www.example.org", 443, www.address);
    let discovery = Discovery::new(world.client(), WallTime::manual(0));
    assert_eq!(discovery.answering_for(&name).await, "matrix.example.org");

    let circle = world.server("example.org", redirecting("/again")).await;
    world.names.socket("example.org", 443, circle.address);
    let discovery = Discovery::new(world.client(), WallTime::manual(0));
    assert_eq!(discovery.answering_for(&name).await, "example.org");
    assert_eq!(circle.seen().len(), 6);

    // 127.0.0.2 stands for what is private here.
    let private = ["127.0.0.2/32".parse().unwrap()];
    let client = world.filtered_client(hearth_remote::AddressFilter::new(Vec::new(), private.to_vec()));
    let error = ask(&client, &Discovery::new(client.clone(), WallTime::manual(0)), "127.0.0.2:1").await.unwrap_err();
    assert!(matches!(error, HttpError::Connect(ConnectError::Forbidden { .. })), "{error}");
    let front = world.server("example.org", redirecting("https://internal.example.org/x")).await;
    world.names.socket("example.org", 443, front.address).host("internal.example.org", ["127.0.0.2".parse().unwrap()]);
    assert_eq!(Discovery::new(client, WallTime::manual(0)).answering_for(&name).await, "example.org");
    assert_eq!(front.seen().len(), 1);
}

#[tokio::test]
async fn a_host_that_is_silent_at_443_may_be_a_server_at_8448() {
    let (world, us, a) = (World::new(), Matrix::new("us.org", 1), Matrix::new("a.org", 2));
    world.names.socket("a.org", 443, black_hole().await);
    let server = a.start(&world, a.tells(i64::MAX / 2)).await;
    let mut config = world.config(&us);
    config.patience = Patience::default();
    let time = WallTime::manual(1_700_000_000_000);
    let remote = Remote::open(config, world.client(), store().await, time).await.unwrap();
    let wanted = WantedKey { server: a.name.clone(), key_id: "ed25519:1".to_owned(), at: Some(1_700_000_000_000) };
    let found = remote.keys().find(vec![wanted]).await.unwrap();
    assert!(found.get(&a.name, "ed25519:1", None).is_some());
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn that_a_host_is_silent_is_learned_also_if_nobody_waits_so_long() {
    let world = World::new();
    world.names.socket("a.org", 443, black_hole().await);
    let discovery = Discovery::new(world.client(), WallTime::manual(0));
    let name = ServerName::parse("a.org").unwrap();
    let brief = std::time::Duration::from_millis(10);
    let begun = std::time::Instant::now();
    while tokio::time::timeout(brief, discovery.answering_for(&name)).await.is_err() {
        assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it is never learned");
    }
}
