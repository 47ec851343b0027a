//! Why a server can't be reached is told step by step.

use hearth_matrix::ruma::ServerName;
use hearth_remote::{AddressFilter, Remote, ServerRules, Service, Step, Verdict};
use hearth_store::WallTime;

use crate::harness::{Handler, Matrix, World, full, paths, store};

fn step<'a>(steps: &'a [Step], about: &str) -> &'a Step {
    steps.iter().find(|step| step.about == about).unwrap_or_else(|| panic!("no {about} in {steps:?}"))
}

/// A server that does all that it should.
fn whole(matrix: &Matrix) -> Handler {
    let document = matrix.document(i64::MAX);
    paths(move |path| match path {
        "/_matrix/key/v2/server" => Some(full(200, document.clone())),
        "/_matrix/federation/v1/version" => Some(full(200, r#"{"server":{"name":"Other","version":"7"}}"#)),
        "/_matrix/federation/v1/query/directory" => Some(full(404, r#"{"errcode":"M_NOT_FOUND","error":"none"}"#)),
        _ => None,
    })
}

fn bad(steps: &[Step]) -> Vec<&'static str> {
    steps.iter().filter(|step| step.verdict == Verdict::Bad).map(|step| step.about).collect()
}

#[tokio::test]
async fn a_server_that_is_well_has_no_bad_step() {
    let (world, time) = (World::new(), WallTime::manual(0));
    let (us, them) = (Matrix::new("us.org", 1), Matrix::new("them.org", 2));
    let _server = them.start(&world, whole(&them)).await;
    let steps = world.remote(&us, &time).await.diagnose(&them.name).await;
    assert_eq!(bad(&steps), [""; 0], "{steps:?}");
    assert!(step(&steps, "place").found.contains("8448"));
    assert!(step(&steps, "certificate").found.contains("them.org, good until"));
    assert!(step(&steps, "version").found.contains("Other 7"));
    assert!(step(&steps, "keys").found.contains("ed25519:1"));
    assert!(step(&steps, "signed request").found.contains("believes"));
}

#[tokio::test]
async fn settings_are_the_first_step() {
    let (world, time) = (World::new(), WallTime::manual(0));
    let us = Matrix::new("us.org", 1);
    let mut config = world.config(&us);
    config.servers = ServerRules { denied: vec!["them.org".to_owned()], ..ServerRules::open() };
    let remote = Remote::open(config, world.client(), store().await, time).await.unwrap();
    let steps = remote.diagnose(<&ServerName>::try_from("them.org").unwrap()).await;
    assert_eq!(bad(&steps), ["settings"]);
    assert!(steps[0].found.contains("federation.denied_servers"), "{steps:?}");
}

#[tokio::test]
async fn where_a_name_leads_and_where_it_ends_is_told() {
    let (world, time) = (World::new(), WallTime::manual(0));
    let us = Matrix::new("us.org", 1);
    let them = Matrix::new("them.org", 2);
    let front = world.server("them.org", paths(|_| Some(full(200, r#"{"m.server":"matrix.them.org"}"#)))).await;
    world.names.socket("them.org", 443, front.address);
    let target = Service { priority: 1, weight: 1, target: "host.them.org".to_owned(), port: 77 };
    world.names.service("_matrix-fed._tcp.matrix.them.org", target);
    let remote = world.remote(&us, &time).await;
    let steps = remote.diagnose(&them.name).await;
    assert!(step(&steps, "well-known").found.contains("matrix.them.org"), "{steps:?}");
    assert!(step(&steps, "place").found.contains("_matrix-fed._tcp.matrix.them.org lead to host.them.org:77"));
    assert_eq!(bad(&steps), ["name"]);
    // It has an address now, but nobody is there.
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.names.socket("host.them.org", 77, nobody.local_addr().unwrap());
    drop(nobody);
    assert_eq!(bad(&remote.diagnose(&them.name).await), ["address"]);
}

#[tokio::test]
async fn addresses_that_are_forbidden_are_named() {
    let (world, time) = (World::new(), WallTime::manual(0));
    let (us, them) = (Matrix::new("us.org", 1), Matrix::new("them.org", 2));
    let _server = them.start(&world, whole(&them)).await;
    let filter = AddressFilter::new(Vec::new(), vec!["127.0.0.0/8".parse().unwrap()]);
    let client = world.filtered_client(filter);
    let remote = Remote::open(world.config(&us), client, store().await, time).await.unwrap();
    let steps = remote.diagnose(&them.name).await;
    assert_eq!(bad(&steps), ["address"]);
    assert!(step(&steps, "address").mend.as_ref().is_some_and(|mend| mend.contains("outbound.ip_range_allow")));
}

#[tokio::test]
async fn a_bad_certificate_is_shown_with_what_is_wrong() {
    let (world, time) = (World::new(), WallTime::manual(0));
    let (us, them) = (Matrix::new("us.org", 1), Matrix::new("them.org", 2));
    let other = world.server("other.org", whole(&them)).await;
    world.names.socket("them.org", 8448, other.address);
    let steps = world.remote(&us, &time).await.diagnose(&them.name).await;
    assert_eq!(bad(&steps), ["certificate"]);
    let certificate = step(&steps, "certificate");
    assert!(certificate.found.contains("other.org, good until"), "{certificate:?}");
    assert!(certificate.mend.as_ref().is_some_and(|mend| mend.contains("must name them.org")), "{certificate:?}");
    // Of an authority that nobody knows.
    let stranger = World::new();
    let server = stranger.server("them.org", whole(&them)).await;
    world.names.socket("them.org", 8448, server.address);
    let steps = world.remote(&us, &time).await.diagnose(&them.name).await;
    let certificate = step(&steps, "certificate");
    assert!(certificate.mend.as_ref().is_some_and(|mend| mend.contains("whole chain")), "{certificate:?}");
}

#[tokio::test]
async fn who_does_not_believe_us_or_has_other_keys_is_told() {
    let (world, time) = (World::new(), WallTime::manual(0));
    let (us, them, other) = (Matrix::new("us.org", 1), Matrix::new("them.org", 2), Matrix::new("other.org", 3));
    let document = other.document(i64::MAX);
    let handler = paths(move |path| match path {
        "/_matrix/key/v2/server" => Some(full(200, document.clone())),
        _ => Some(full(401, r#"{"errcode":"M_UNAUTHORIZED","error":"who are you?"}"#)),
    });
    let _server = them.start(&world, handler).await;
    let steps = world.remote(&us, &time).await.diagnose(&them.name).await;
    assert_eq!(bad(&steps), ["keys", "signed request"]);
    assert!(step(&steps, "signed request").found.contains("who are you?"));
}
