//! Several servers that talk with each other over TLS, each behind a link that can be cut.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use hearth::settings::{Listener, Settings, Tls};
use hearth_api::Resource;
use hearth_api::serve::Bind;
use hearth_matrix::ruma::ServerName;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, JoinHandle};

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
    _files: tempfile::TempDir,
}

/// The way to a server: its address is the server's name.
pub struct Link {
    address: SocketAddr,
    target: Arc<AtomicU16>,
    is_cut: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<AbortHandle>>>,
    accepting: JoinHandle<()>,
}

impl Link {
    async fn new(host: u8) -> Self {
        let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, host], 0))).await.expect("a port of loopback");
        let address = listener.local_addr().expect("an address");
        let (target, is_cut) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicBool::new(false)));
        let open: Arc<Mutex<Vec<AbortHandle>>> = Arc::default();
        let (to, cut, kept) = (target.clone(), is_cut.clone(), open.clone());
        let accepting = tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                if cut.load(Ordering::SeqCst) {
                    continue;
                }
                let port = to.load(Ordering::SeqCst);
                let carry = tokio::spawn(async move {
                    if let Ok(mut far) = TcpStream::connect(("127.0.0.1", port)).await {
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                let mut open = kept.lock().unwrap_or_else(PoisonError::into_inner);
                open.retain(|carry| !carry.is_finished());
                open.push(carry.abort_handle());
            }
        });
        Self { address, target, is_cut, open, accepting }
    }

    /// Nobody gets through any more, and what is under way ends.
    pub fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        for carry in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            carry.abort();
        }
    }

    /// The way is open again.
    pub fn heal(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
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
        let (mut servers, mut links) = (Vec::new(), Vec::new());
        for (n, backend) in (1..).zip(backends) {
            let link = Link::new(n).await;
            let key = KeyPair::generate().expect("a key");
            let params = CertificateParams::new(vec![link.address.ip().to_string()]).expect("a name");
            let certificate = params.signed_by(&key, &authority).expect("a certificate");
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
        }
        let federation = Self { servers, links, time, _files: files };
        for n in 0..federation.servers.len() {
            federation.lead_to(n);
        }
        federation
    }

    fn lead_to(&self, n: usize) {
        match self.servers[n].running().binds().last() {
            Some(Bind::Tcp(address)) => self.links[n].target.store(address.port(), Ordering::SeqCst),
            other => panic!("no TCP listener: {other:?}"),
        }
    }

    /// Stops a server and starts it again on its data.
    pub async fn restart(&mut self, n: usize) {
        self.servers[n].restart().await;
        self.lead_to(n);
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
