//! Several servers that talk with each other over TLS, each behind a link that can be cut, slow, or lead to a server that is ill.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use axum::Router;
use hearth::settings::{Listener, Settings, Tls};
use hearth_api::serve::{Bind, Bound, GROUP_MODE, ListenerOptions, Serving, TlsFiles, serve};
use hearth_api::{Resource, Shutdown};
use hearth_matrix::ruma::ServerName;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};
use tokio_rustls::TlsAcceptor;

use crate::{Backend, Schema, TestServer, WallTime};

/// Servers that trust one authority of their own. The n-th is at an address of its own, `127.0.0.n`: access control lists see no
/// ports.
pub struct Federation {
    /// The servers.
    pub servers: Vec<TestServer>,
    /// The way to each server's door for other servers.
    pub links: Vec<Link>,
    /// Their clock.
    pub time: WallTime,
    certificates: Vec<TlsFiles>,
    _files: tempfile::TempDir,
}

/// The way to a server: its address is the server's name.
pub struct Link {
    address: SocketAddr,
    inner: Arc<Way>,
    accepting: JoinHandle<()>,
}

/// How a way is.
#[derive(Clone, Copy)]
enum Mood {
    Open,
    Cut,
    Slow(Duration),
    Answering(&'static str),
}

struct Way {
    target: AtomicU16,
    mood: Mutex<Mood>,
    /// What answers as the server would, if it were ill.
    ill: OnceLock<TlsAcceptor>,
    open: Mutex<Vec<AbortHandle>>,
}

impl Link {
    async fn new(host: u8) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, host], 0))).await.expect("a port of loopback");
        let address = listener.local_addr().expect("an address");
        let inner = Arc::new(Way {
            target: AtomicU16::new(0),
            mood: Mutex::new(Mood::Open),
            ill: OnceLock::new(),
            open: Mutex::default(),
        });
        let way = inner.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                if let Some(carry) = way.carry(near) {
                    let mut open = way.open.lock().unwrap_or_else(PoisonError::into_inner);
                    open.retain(|carry| !carry.is_finished());
                    open.push(carry);
                }
            }
        });
        Self { address, inner, accepting }
    }

    /// Nobody gets through any more, and what is under way ends.
    pub fn cut(&self) {
        self.become_so(Mood::Cut);
    }

    /// The server is ill: it answers every request with the status 500. What is under way ends.
    pub fn fail(&self) {
        self.answer(ILL);
    }

    /// Somebody else answers every request with this, head and all. What is under way ends.
    pub fn answer(&self, answer: &'static str) {
        self.become_so(Mood::Answering(answer));
    }

    /// Whatever is said takes so much longer, in both directions. What is under way ends.
    pub fn slow(&self, by: Duration) {
        self.become_so(Mood::Slow(by));
    }

    /// The way is open again.
    pub fn heal(&self) {
        self.become_so(Mood::Open);
    }

    fn become_so(&self, mood: Mood) {
        *self.inner.mood.lock().unwrap_or_else(PoisonError::into_inner) = mood;
        if !matches!(mood, Mood::Open) {
            for carry in self.inner.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
                carry.abort();
            }
        }
    }
}

impl Way {
    fn carry(&self, mut near: TcpStream) -> Option<AbortHandle> {
        let mood = *self.mood.lock().unwrap_or_else(PoisonError::into_inner);
        let port = self.target.load(Ordering::SeqCst);
        let carry = match mood {
            Mood::Cut => return None,
            Mood::Open => tokio::spawn(async move {
                if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                }
            }),
            Mood::Slow(by) => tokio::spawn(async move {
                if let Ok(far) = TcpStream::connect(("127.0.0.1", port)).await {
                    let ((near_in, near_out), (far_in, far_out)) = (near.into_split(), far.into_split());
                    tokio::join!(trickle(near_in, far_out, by), trickle(far_in, near_out, by));
                }
            }),
            Mood::Answering(answer) => {
                let ill = self.ill.get()?.clone();
                tokio::spawn(async move {
                    let Ok(mut near) = ill.accept(near).await else { return };
                    let mut heard = [0; 4096];
                    // The first part of a request is enough; the rest is heard out, so that the answer is not lost.
                    if near.read(&mut heard).await.is_ok_and(|read| read > 0) {
                        let _ = near.write_all(answer.as_bytes()).await;
                        while near.read(&mut heard).await.is_ok_and(|read| read > 0) {}
                    }
                })
            }
        };
        Some(carry.abort_handle())
    }
}

const ILL: &str = "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Hands over what is read, each time a while later.
async fn trickle(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, by: Duration) {
    let mut part = vec![0; 64 * 1024];
    while let Ok(read) = from.read(&mut part).await {
        tokio::time::sleep(by).await;
        if read == 0 || to.write_all(&part[..read]).await.is_err() {
            break;
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.cut();
        self.accepting.abort();
    }
}

impl Federation {
    /// Servers on SQLite.
    pub async fn start(count: u8) -> Self {
        let backends = (0..count).map(|_| Backend::Sqlite).collect();
        Self::start_on(backends, |_| {}).await
    }

    /// A server on each of these databases.
    pub async fn start_on(backends: Vec<Backend>, adjust: impl Fn(&mut Settings)) -> Self {
        let files = tempfile::tempdir().expect("a temporary directory");
        let authority = {
            let mut params = CertificateParams::new(Vec::new()).expect("parameters of a certificate");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate")
        };
        let write = |name: String, text: String| {
            let path = files.path().join(name);
            std::fs::write(&path, text).expect("a file in a temporary directory");
            path
        };
        let ca = write("ca.pem".to_owned(), authority.pem());
        let time = WallTime::manual(crate::server::START_MS);
        let (mut servers, mut links, mut certificates) = (Vec::new(), Vec::new(), Vec::new());
        for (n, backend) in (1..).zip(backends) {
            let link = Link::new(n).await;
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![link.address.ip().to_string()]).expect("a name");
            let certificate = params.signed_by(&key, &authority).expect("a certificate");
            let secret = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
            let ill = ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], secret)
                .expect("a configuration of TLS");
            let _ = link.inner.ill.set(TlsAcceptor::from(Arc::new(ill)));
            let tls = Tls {
                certificate: write(format!("{n}.pem"), certificate.pem()),
                key: write(format!("{n}.key"), key.serialize_pem()),
            };
            let name = ServerName::parse(link.address.to_string()).expect("a server name");
            let server = TestServer::start_at(backend, time.clone(), |settings| {
                settings.server_name = name.clone();
                settings.outbound.ip_range_allow = vec!["127.0.0.0/8".parse().expect("a range")];
                settings.outbound.trusted_ca = vec![ca.clone()];
                settings.listeners.push(Listener {
                    bind: Bind::Tcp(([127, 0, 0, 1], 0).into()),
                    tls: Some(tls.clone()),
                    resources: vec![Resource::Federation],
                    ..Listener::default()
                });
                adjust(settings);
            });
            let server = server.await;
            servers.push(server);
            links.push(link);
            certificates.push(TlsFiles { certificate: tls.certificate, key: tls.key });
        }
        let federation = Self { servers, links, time, certificates, _files: files };
        for n in 0..federation.servers.len() {
            federation.lead_to(n);
        }
        federation
    }

    fn lead_to(&self, n: usize) {
        match self.servers[n].running().binds().last() {
            Some(Bind::Tcp(address)) => self.links[n].inner.target.store(address.port(), Ordering::SeqCst),
            other => panic!("no TCP listener: {other:?}"),
        }
    }

    /// Stops a server and starts it again on its data.
    pub async fn restart(&mut self, n: usize) {
        self.servers[n].restart().await;
        self.lead_to(n);
    }

    /// Lets something else answer other servers under a server's name, until it is dropped.
    pub async fn answer_for(&self, n: usize, router: Router) -> Serving {
        let options = ListenerOptions {
            bind: Bind::Tcp(([127, 0, 0, 1], 0).into()),
            tls: Some(self.certificates[n].clone()),
            unix_mode: GROUP_MODE,
            trusted_proxies: Vec::new(),
        };
        let bound = Bound::new(options).await.expect("a port of loopback");
        let Bind::Tcp(address) = bound.bind() else { panic!("no TCP listener") };
        self.links[n].cut();
        self.links[n].inner.target.store(address.port(), Ordering::SeqCst);
        self.links[n].heal();
        let (trigger, shutdown) = Shutdown::new();
        serve(vec![(bound, router)], &shutdown, trigger)
    }

    /// A server's name.
    pub fn name(&self, n: usize) -> String {
        self.servers[n].name().to_owned()
    }
}

/// Runs a test on servers that all run on SQLite, then on servers that all run on PostgreSQL.
pub async fn on_each_backend_together(count: u8, test: impl AsyncFn(Federation)) {
    on_each_backend_together_with(count, |_| {}, test).await;
}

/// The same with settings of the test's own.
pub async fn on_each_backend_together_with(count: u8, adjust: impl Fn(&mut Settings), test: impl AsyncFn(Federation)) {
    eprintln!("on SQLite");
    let backends = (0..count).map(|_| Backend::Sqlite).collect();
    test(Federation::start_on(backends, &adjust).await).await;
    let (mut schemas, mut backends) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let Some(schema) = Schema::create().await else {
            eprintln!("HEARTH_TEST_POSTGRES is not set: not tested on PostgreSQL");
            return;
        };
        schemas.push(schema.twin());
        backends.push(Backend::Postgres(schema));
    }
    eprintln!("on PostgreSQL");
    test(Federation::start_on(backends, &adjust).await).await;
    for schema in schemas {
        schema.drop().await;
    }
}
