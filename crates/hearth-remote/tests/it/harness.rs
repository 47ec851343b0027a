//! Servers on loopback with certificates of one test authority, and names that lead to them.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use hearth_matrix::SigningKey;
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_remote::{AddressFilter, FixedNames, HttpClient, Patience, Remote, RemoteConfig, ServerRules, TlsRoots};
use hearth_store::{DatabaseUrl, Store, StoreOptions, WallTime};
use http::{Request, Response};
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
pub type Handler = Arc<dyn Fn(Seen) -> BoxFuture<'static, Response<Body>> + Send + Sync>;

/// A request as a server saw it.
#[derive(Clone, Debug)]
pub struct Seen {
    pub method: http::Method,
    pub uri: http::Uri,
    pub headers: http::HeaderMap,
    /// `Host`, or `:authority` in HTTP/2.
    pub host: String,
    pub version: http::Version,
    pub body: Bytes,
}

/// A world of its own: an authority, names, servers.
pub struct World {
    authority: CertifiedIssuer<'static, KeyPair>,
    pub names: FixedNames,
}

/// A server in it.
pub struct TestServer {
    pub address: SocketAddr,
    pub connections: Arc<AtomicUsize>,
    seen: Arc<Mutex<Vec<Seen>>>,
    accepting: tokio::task::JoinHandle<()>,
}

impl World {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { authority, names: FixedNames::new() }
    }

    pub fn roots(&self) -> TlsRoots {
        let mut roots = TlsRoots::empty();
        roots.add(self.authority.der().clone()).unwrap();
        roots
    }

    pub fn client(&self) -> HttpClient {
        self.filtered_client(AddressFilter::default())
    }

    pub fn filtered_client(&self, filter: AddressFilter) -> HttpClient {
        HttpClient::new(Arc::new(self.names.clone()), filter, self.roots()).unwrap()
    }

    fn acceptor(&self, certified: &str, alpn: &[&str]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![certified.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .unwrap();
        config.alpn_protocols = alpn.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    /// A server with a certificate for one name or address.
    pub async fn server(&self, certified: &str, handler: Handler) -> TestServer {
        self.server_with(certified, &["h2", "http/1.1"], handler).await
    }

    pub async fn server_with(&self, certified: &str, alpn: &[&str], handler: Handler) -> TestServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = self.acceptor(certified, alpn);
        let connections = Arc::new(AtomicUsize::new(0));
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (counted, noted) = (connections.clone(), seen.clone());
        let accepting = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, handler) = (acceptor.clone(), handler.clone());
                let (counted, noted) = (counted.clone(), noted.clone());
                open.spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    counted.fetch_add(1, Ordering::SeqCst);
                    let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                    let service = service_fn(move |request| answer(request, handler.clone(), noted.clone()));
                    let io = TokioIo::new(tls);
                    let _ = if h2 {
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, service)
                            .await
                    } else {
                        hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                    };
                });
            }
        });
        TestServer { address, connections, seen, accepting }
    }
}

/// How the first connection to a server is ill.
#[derive(Clone, Copy, Debug)]
pub enum Ill {
    /// Nothing is read after TLS.
    Deaf,
    /// Bodies are given no more room than a little.
    Narrow,
}

impl World {
    /// A server of HTTP/2 whose first connection stands still; later ones answer `{}`.
    pub async fn server_that_is_ill_at_first(&self, certified: &str, ill: Ill) -> TestServer {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let acceptor = self.acceptor(certified, &["h2"]);
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        let accepting = tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let tls = acceptor.accept(tcp).await.unwrap();
                let is_first = counted.fetch_add(1, Ordering::SeqCst) == 0;
                open.spawn(async move {
                    if let (true, Ill::Deaf) = (is_first, ill) {
                        std::future::pending::<()>().await;
                    }
                    let service = service_fn(move |request: Request<Incoming>| async move {
                        if is_first {
                            std::future::pending::<()>().await;
                        }
                        drop(request.into_body().collect().await);
                        Ok::<_, Infallible>(full(200, "{}"))
                    });
                    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                    http.initial_stream_window_size(1024);
                    let _ = http.serve_connection(TokioIo::new(tls), service).await;
                });
            }
        });
        TestServer { address, connections, seen: Arc::default(), accepting }
    }
}

impl TestServer {
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(
    request: Request<Incoming>,
    handler: Handler,
    noted: Arc<Mutex<Vec<Seen>>>,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let host = parts.headers.get(http::header::HOST).map(|host| host.to_str().unwrap().to_owned());
    let host = parts.uri.authority().map(|authority| authority.to_string()).or(host).unwrap_or_default();
    let seen =
        Seen { method: parts.method, uri: parts.uri, headers: parts.headers, host, version: parts.version, body };
    noted.lock().unwrap().push(seen.clone());
    Ok(handler(seen).await)
}

pub fn full(status: u16, body: impl Into<Bytes>) -> Response<Body> {
    let body = http_body_util::Full::new(body.into()).boxed_unsync();
    Response::builder().status(status).header("content-type", "application/json").body(body).unwrap()
}

/// A handler that knows some paths.
pub fn paths(answer: impl Fn(&str) -> Option<Response<Body>> + Send + Sync + 'static) -> Handler {
    Arc::new(move |seen: Seen| {
        let response = answer(seen.uri.path()).unwrap_or_else(|| full(404, "{}"));
        Box::pin(std::future::ready(response))
    })
}

/// A handler that says one thing.
pub fn says(body: &'static str) -> Handler {
    paths(move |_| Some(full(200, body)))
}

/// Accepts connections and says nothing.
pub async fn black_hole() -> SocketAddr {
    counting_black_hole().await.0
}

/// The same, with how many connections it has swallowed.
pub async fn counting_black_hole() -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let swallowed = Arc::new(AtomicUsize::new(0));
    let counted = swallowed.clone();
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            kept.push(stream);
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, swallowed)
}

/// A server that has keys and tells them.
pub struct Matrix {
    pub name: OwnedServerName,
    pub key: SigningKey,
}

impl Matrix {
    pub fn new(name: &str, byte: u8) -> Self {
        Self { name: ServerName::parse(name).unwrap(), key: SigningKey::from_seed([byte; 32], "1").unwrap() }
    }

    /// Its keys, good until then, signed.
    pub fn document(&self, valid_until_ts: i64) -> String {
        let keys = serde_json::json!({
            "server_name": self.name,
            "valid_until_ts": valid_until_ts,
            "verify_keys": { self.key.key_id(): { "key": self.key.public_key_base64() } },
            "old_verify_keys": {},
        });
        self.key.sign_json(&keys.to_string(), self.name.as_str()).unwrap()
    }

    pub fn tells(&self, valid_until_ts: i64) -> Handler {
        let document = self.document(valid_until_ts);
        paths(move |path| (path == "/_matrix/key/v2/server").then(|| full(200, document.clone())))
    }

    /// Puts it into the world, at its usual place.
    pub async fn start(&self, world: &World, handler: Handler) -> TestServer {
        let server = world.server(self.name.host(), handler).await;
        world.names.socket(self.name.host(), 8448, server.address);
        server
    }
}

pub async fn store() -> Store {
    Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.unwrap()
}

/// How long tests wait for what must come: longer than it can take.
pub const PATIENT: Patience = Patience { before_notaries: Duration::from_secs(60), whole: Duration::from_secs(60) };

impl World {
    pub fn config(&self, us: &Matrix) -> RemoteConfig {
        RemoteConfig {
            server_name: us.name.clone(),
            signing_key: SigningKey::from_file_format(&us.key.to_file_format()).unwrap().into(),
            servers: ServerRules::open(),
            notaries: Vec::new(),
            patience: PATIENT,
        }
    }

    pub async fn remote(&self, us: &Matrix, time: &WallTime) -> Remote {
        Remote::open(self.config(us), self.client(), store().await, time.clone()).await.unwrap()
    }
}
