//! The door of other servers, as far as it is open: who we are, keys, and requests that are signed.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use hearth_api::Shutdown;
use hearth_api::serve::{Bind, Bound, GROUP_MODE, ListenerOptions, Serving, TlsFiles, serve};
use hearth_matrix::SigningKey;
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_matrix::signatures::verify_json;
use hearth_remote::XMatrix;
use hearth_testkit::{Request, TestServer, User, json};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use serde_json::Value;

const PROFILE: &str = "/_matrix/federation/v1/query/profile";

/// Another server: it has a key, and tells it at an address of loopback that is its name.
pub struct Peer {
    pub name: OwnedServerName,
    key: SigningKey,
    _files: tempfile::TempDir,
    pub serving: Serving,
}

impl Peer {
    /// Starts it, and a server that may connect to it and trusts its authority.
    pub async fn with_server(adjust: impl Fn(&mut hearth::settings::Settings, &ServerName)) -> (Self, TestServer) {
        Self::with_doors(Router::new(), adjust).await
    }

    /// The same with more doors than that of its keys.
    pub async fn with_doors(
        doors: Router,
        adjust: impl Fn(&mut hearth::settings::Settings, &ServerName),
    ) -> (Self, TestServer) {
        let directory = tempfile::tempdir().unwrap();
        let authority = {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
        };
        let own = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&own, &authority).unwrap();
        let file = |name: &str, text: String| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let tls =
            TlsFiles { certificate: file("cert.pem", certificate.pem()), key: file("key.pem", own.serialize_pem()) };
        let ca = file("ca.pem", authority.pem());

        let (trigger, shutdown) = Shutdown::new();
        let options = ListenerOptions {
            bind: Bind::Tcp(([127, 0, 0, 1], 0).into()),
            tls: Some(tls),
            unix_mode: GROUP_MODE,
            trusted_proxies: Vec::new(),
        };
        let bound = Bound::new(options).await.unwrap();
        let Bind::Tcp(address) = bound.bind() else { panic!("a TCP listener") };
        let name = ServerName::parse(address.to_string()).unwrap();
        let key = SigningKey::from_seed([5; 32], "peer").unwrap();
        let keys = json!({
            "server_name": name,
            "valid_until_ts": 1_760_000_000_000_i64,
            "verify_keys": { key.key_id(): { "key": key.public_key_base64() } },
        });
        let document = Arc::new(key.sign_json(&keys.to_string(), name.as_str()).unwrap());
        let router = doors.route("/_matrix/key/v2/server", get(async move || document.to_string()));
        let serving = serve(vec![(bound, router)], &shutdown, trigger);

        let server = TestServer::start_with(|settings| {
            settings.outbound.ip_range_allow = vec!["127.0.0.1/32".parse().unwrap()];
            settings.outbound.trusted_ca = vec![ca.clone()];
            adjust(settings, &name);
        })
        .await;
        (Self { name, key, _files: directory, serving }, server)
    }

    /// A request that it signs.
    pub fn request(&self, server: &TestServer, path: &str) -> Request {
        let us = ServerName::parse(server.name()).unwrap();
        let signature = XMatrix::sign(&self.key, &self.name, &us, "GET", path, b"").unwrap();
        let header = signature.to_header().unwrap();
        server.request("GET", path).header("authorization", header.to_str().unwrap())
    }

    /// Asks for a user's profile: status and body.
    async fn ask(&self, server: &TestServer, user: &User, change: impl FnOnce(&mut XMatrix)) -> (u16, Value) {
        let path = format!("{PROFILE}?user_id={}&field=displayname", user.user_id);
        let us = ServerName::parse(server.name()).unwrap();
        let mut signature = XMatrix::sign(&self.key, &self.name, &us, "GET", &path, b"").unwrap();
        change(&mut signature);
        let header = signature.to_header().unwrap();
        let answer = server.request("GET", &path).header("authorization", header.to_str().unwrap()).send().await;
        (answer.status, answer.json())
    }
}

// endpoint: GET /_matrix/federation/v1/query/profile
#[tokio::test]
async fn a_server_is_known_by_its_signature() {
    let (peer, server) = Peer::with_server(|_, _| {}).await;
    let alice = server.user("alice").await;
    let (status, profile) = peer.ask(&server, &alice, |_| {}).await;
    assert_eq!((status, &profile), (200, &json!({ "displayname": "alice" })));
    let refused = async |change: fn(&mut XMatrix)| {
        let (status, answer) = peer.ask(&server, &alice, change).await;
        (status, answer["errcode"].as_str().unwrap().to_owned())
    };
    let unauthorized = (401, "M_UNAUTHORIZED".to_owned());
    let changes: [fn(&mut XMatrix); 4] = [
        |signature| signature.destination = Some(ServerName::parse("other.test").unwrap()),
        |signature| signature.signature = "AAAA".to_owned(),
        |signature| signature.key_id = "ed25519:other".to_owned(),
        // Nothing is asked of a server at an address that is forbidden.
        |signature| signature.origin = ServerName::parse("127.0.0.2:1").unwrap(),
    ];
    for change in changes {
        assert_eq!(refused(change).await, unauthorized);
    }
    let us = server.request("GET", &format!("{PROFILE}?user_id={}", alice.user_id)).send().await;
    assert_eq!(us.refusal(), (401, "M_UNAUTHORIZED".to_owned()));
    let token = server.request("GET", &format!("{PROFILE}?user_id={}", alice.user_id)).token(&alice.access_token);
    assert_eq!(token.send().await.refusal(), (401, "M_UNAUTHORIZED".to_owned()));
    let mut other = alice.clone();
    other.user_id = "@nobody:hearth.test".to_owned();
    assert_eq!(peer.ask(&server, &other, |_| {}).await.0, 404);
    other.user_id = "@alice:other.test".to_owned();
    assert_eq!(peer.ask(&server, &other, |_| {}).await.0, 400);
    peer.serving.drain().await;
}

#[tokio::test]
async fn servers_with_which_we_do_not_talk_are_turned_away() {
    let (peer, server) = Peer::with_server(|settings, _| {
        settings.federation.denied_servers = vec!["127.0.0.*".to_owned()];
    })
    .await;
    let alice = server.user("alice").await;
    let (status, answer) = peer.ask(&server, &alice, |_| {}).await;
    assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
    let (peer, server) = Peer::with_server(|settings, _| settings.federation.enabled = false).await;
    let alice = server.user("alice").await;
    assert_eq!(peer.ask(&server, &alice, |_| {}).await.0, 403);
}

// endpoint: GET /_matrix/key/v2/server
// endpoint: GET /_matrix/key/v2/server/{keyId}
// endpoint: GET /_matrix/key/v2/query/{serverName}
// endpoint: POST /_matrix/key/v2/query
#[tokio::test]
async fn keys_are_told_and_vouched_for() {
    let (peer, server) = Peer::with_server(|_, _| {}).await;
    let (status, own) = server.get("/_matrix/key/v2/server").await;
    assert_eq!((status, &own["server_name"]), (200, &json!("hearth.test")));
    assert_eq!(server.get("/_matrix/key/v2/server/ed25519:auto").await.0, 200);
    let (key_id, key) = own["verify_keys"].as_object().unwrap().iter().next().unwrap();
    let key = hearth_remote::Notary::key(key_id, key["key"].as_str().unwrap()).unwrap();
    assert!(verify_json(&own.to_string(), "hearth.test", key_id, &key));

    let (status, one) = server.get(&format!("/_matrix/key/v2/query/{}", peer.name)).await;
    assert_eq!(status, 200);
    let about = &one["server_keys"][0];
    assert_eq!(about["server_name"], json!(peer.name));
    assert!(verify_json(&about.to_string(), "hearth.test", key_id, &key));
    assert!(verify_json(&about.to_string(), peer.name.as_str(), peer.key.key_id(), &peer.key.public_key()));
    let (_, none) = server.get("/_matrix/key/v2/query/127.0.0.2:1").await;
    assert_eq!(none, json!({ "server_keys": [] }));

    let ask = json!({ "server_keys": {
        peer.name.as_str(): { "ed25519:peer": { "minimum_valid_until_ts": 5 } },
        "hearth.test": {},
        "127.0.0.2:1": {},
    } });
    let (status, many) = server.post("/_matrix/key/v2/query", &ask).await;
    assert_eq!((status, many["server_keys"].as_array().unwrap().len()), (200, 2));
    assert_eq!(
        server.post("/_matrix/key/v2/query", &json!({ "server_keys": {} })).await.1,
        json!({ "server_keys": [] })
    );
    assert_eq!(server.post("/_matrix/key/v2/query", &json!({})).await.0, 400);
    peer.serving.drain().await;
}

// endpoint: GET /_matrix/key/v2/query/{serverName}
// endpoint: POST /_matrix/key/v2/query
#[tokio::test]
async fn who_has_us_look_for_many_keys_is_told_what_is_known_and_else_to_wait() {
    let (peer, server) = Peer::with_server(|settings, _| {
        settings.rate_limits.enabled = true;
        settings.rate_limits.key_lookups = hearth_api::Rate { burst: 4, per_minute: 1 };
    })
    .await;
    let alice = server.user("alice").await;
    let query = async |name: &str| server.get(&format!("/_matrix/key/v2/query/{name}")).await;
    // A signed request of an unknown server counts, too; one of a known server does not.
    assert_eq!(peer.ask(&server, &alice, |_| {}).await.0, 200);
    assert_eq!(peer.ask(&server, &alice, |_| {}).await.0, 200);
    assert_eq!(query(peer.name.as_str()).await.1["server_keys"].as_array().map(Vec::len), Some(1));
    let several =
        json!({ "server_keys": { "127.0.0.2:1": {}, "127.0.0.2:2": {}, "127.0.0.2:3": {}, "127.0.0.2:4": {} } });
    let (status, none) = server.post("/_matrix/key/v2/query", &several).await;
    assert_eq!(
        (status, &none["errcode"]),
        (429, &json!("M_LIMIT_EXCEEDED")),
        "the first three were looked for: {none}"
    );
    assert_eq!(query("127.0.0.2:5").await.0, 429);
    assert_eq!(peer.ask(&server, &alice, |signed| signed.key_id = "ed25519:other".to_owned()).await.0, 429);
    // What is known is told, and who is known is let in.
    let several = json!({ "server_keys": { "127.0.0.2:6": {}, peer.name.as_str(): {}, "hearth.test": {} } });
    let (status, known) = server.post("/_matrix/key/v2/query", &several).await;
    assert_eq!((status, known["server_keys"].as_array().map(Vec::len)), (200, Some(2)), "{known}");
    assert_eq!(peer.ask(&server, &alice, |_| {}).await.0, 200);
    // Very much is not told even then.
    let mut many = several;
    many["server_keys"].as_object_mut().unwrap().extend((0..100).map(|n| (format!("n{n}.test"), json!({}))));
    assert_eq!(server.post("/_matrix/key/v2/query", &many).await.0, 429);
    server.time.advance(60_000);
    assert_eq!(query("127.0.0.2:5").await, (200, json!({ "server_keys": [] })));
    assert_eq!(query("127.0.0.2:6").await.0, 429);
    peer.serving.drain().await;
}

#[tokio::test]
async fn a_new_key_makes_the_old_one_an_old_one() {
    let mut server = TestServer::start().await;
    let (_, before) = server.get("/_matrix/key/v2/server").await;
    let (old_id, old) = before["verify_keys"].as_object().unwrap().iter().next().unwrap();
    server.stop().await;
    std::fs::remove_file(server.settings().data_dir.join("signing.key")).unwrap();
    server.restart().await;
    let (_, after) = server.get("/_matrix/key/v2/server").await;
    assert_eq!(after["old_verify_keys"][old_id]["key"], old["key"]);
    assert!(after["old_verify_keys"][old_id]["expired_ts"].is_i64());
    assert!(!after["verify_keys"].as_object().unwrap().contains_key(old_id));
}

// endpoint: GET /_matrix/federation/v1/version
// endpoint: GET /.well-known/matrix/server
#[tokio::test]
async fn others_learn_what_and_where_we_are() {
    let server = TestServer::start().await;
    let (status, version) = server.get("/_matrix/federation/v1/version").await;
    assert_eq!((status, &version["server"]["name"]), (200, &json!("Hearth")));
    assert_eq!(server.get("/.well-known/matrix/server").await.0, 404);
    let server = TestServer::start_with(|settings| {
        settings.federation.address = Some(ServerName::parse("matrix.hearth.test:443").unwrap());
    })
    .await;
    let told = server.get("/.well-known/matrix/server").await;
    assert_eq!(told, (200, json!({ "m.server": "matrix.hearth.test:443" })));
}
