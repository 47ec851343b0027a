//! TCP, unix sockets, TLS, proxies.

use std::sync::Arc;

use axum::Router;
use axum::routing::get;
use hearth_api::serve::{Bind, Bound, GROUP_MODE, ListenerOptions, TlsFiles, serve};
use hearth_api::{ClientAddress, Shutdown};
use hearth_testkit::{Request, Target, TestServer};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

const VERSIONS: &str = "/_matrix/client/versions";

#[tokio::test]
async fn a_unix_socket_serves() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hearth.sock");
    let mut server = TestServer::start_with(|settings| settings.listeners[0].bind = Bind::Unix(path.clone())).await;
    assert_eq!(server.target(), &Target::Unix(path.clone()));
    assert_eq!(server.get(VERSIONS).await.0, 200);
    server.stop().await;
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_left_by_a_crash_is_replaced_but_not_one_that_lives() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hearth.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let options = || ListenerOptions {
        bind: Bind::Unix(path.clone()),
        tls: None,
        unix_mode: GROUP_MODE,
        trusted_proxies: Vec::new(),
    };
    let first = Bound::new(options()).await.unwrap();
    assert!(Bound::new(options()).await.is_err());
    drop(first);
}

/// A certificate for `hearth.test` in files, and itself.
fn certificate(directory: &std::path::Path) -> (TlsFiles, CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["hearth.test".to_owned()]).unwrap();
    let files = TlsFiles { certificate: directory.join("cert.pem"), key: directory.join("key.pem") };
    std::fs::write(&files.certificate, made.cert.pem()).unwrap();
    std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
    (files, made.cert.der().clone())
}

#[tokio::test]
async fn tls_serves_http_1_and_2() {
    let directory = tempfile::tempdir().unwrap();
    let (files, certificate) = certificate(directory.path());
    let server = TestServer::start_with(|settings| {
        let TlsFiles { certificate, key } = files.clone();
        settings.listeners[0].tls = Some(hearth::settings::Tls { certificate, key });
    })
    .await;
    let Target::Tcp(address) = server.target() else { panic!("a TCP listener") };

    let mut roots = RootCertStore::empty();
    roots.add(certificate).unwrap();
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    for (protocol, status) in [("http/1.1", 200), ("h2", 200)] {
        config.alpn_protocols = vec![protocol.into()];
        let stream = TlsConnector::from(Arc::new(config.clone()))
            .connect(ServerName::try_from("hearth.test").unwrap(), TcpStream::connect(address).await.unwrap())
            .await
            .unwrap();
        assert_eq!(stream.get_ref().1.alpn_protocol(), Some(protocol.as_bytes()));
        let request = Request::new(server.target(), "GET", VERSIONS);
        let answer = if protocol == "h2" {
            request.send_over_http2(stream).await.unwrap()
        } else {
            request.send_over(stream).await.unwrap()
        };
        assert_eq!(answer.status, status, "{protocol}");
    }
}

#[tokio::test]
async fn a_listener_without_its_certificate_does_not_start() {
    let options = ListenerOptions {
        bind: Bind::Tcp(([127, 0, 0, 1], 0).into()),
        tls: Some(TlsFiles { certificate: "/nonexistent/cert.pem".into(), key: "/nonexistent/key.pem".into() }),
        unix_mode: GROUP_MODE,
        trusted_proxies: Vec::new(),
    };
    let error = Bound::new(options).await.unwrap_err().to_string();
    assert!(error.contains("/nonexistent/cert.pem"), "{error}");
}

/// The address that a handler sees, behind a listener that trusts these proxies.
async fn address_seen(trusted_proxies: &[&str], forwarded_for: &str) -> String {
    let (trigger, shutdown) = Shutdown::new();
    let options = ListenerOptions {
        bind: Bind::Tcp(([127, 0, 0, 1], 0).into()),
        tls: None,
        unix_mode: GROUP_MODE,
        trusted_proxies: trusted_proxies.iter().map(|range| range.parse().unwrap()).collect(),
    };
    let bound = Bound::new(options).await.unwrap();
    let Bind::Tcp(address) = bound.bind() else { panic!("a TCP listener") };
    let router = Router::new().route("/", get(async |ClientAddress(address): ClientAddress| address.to_string()));
    let serving = serve(vec![(bound, router)], &shutdown, trigger);
    let request = Request::new(&Target::Tcp(address), "GET", "/").header("x-forwarded-for", forwarded_for);
    let seen = request.send().await.text();
    serving.drain().await;
    seen
}

#[tokio::test]
async fn only_trusted_proxies_name_the_client() {
    assert_eq!(address_seen(&[], "198.51.100.7").await, "127.0.0.1");
    assert_eq!(address_seen(&["10.0.0.0/8"], "198.51.100.7").await, "127.0.0.1");
    assert_eq!(address_seen(&["127.0.0.1/32"], "198.51.100.7").await, "198.51.100.7");
    assert_eq!(address_seen(&["127.0.0.0/8"], "203.0.113.9, 198.51.100.7").await, "198.51.100.7");
}
