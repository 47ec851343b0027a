//! A media repository, and strangers on loopback who answer in bytes of their own choice: other servers over TLS, and pages.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hearth_matrix::SigningKey;
use hearth_matrix::ruma::ServerName;
use hearth_media::{File, GetError, Media, MediaConfig, Pace, StorageConfig, Times, Wanted};
use hearth_remote::{
    AddressFilter, FixedNames, HttpClient, Names, Patience, Remote, RemoteConfig, ServerRules, TlsRoots,
};
use hearth_store::{DatabaseUrl, Store, StoreOptions, WallTime};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

/// A connection, whose request was read.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What a stranger does with the path of a request; when it ends, so does the connection.
pub type Script = Arc<dyn Fn(String, Box<dyn Stream>) -> BoxFuture<'static, std::io::Result<()>> + Send + Sync>;

/// A script from a function.
pub fn script<F>(script: impl Fn(String, Box<dyn Stream>) -> F + Send + Sync + 'static) -> Script
where
    F: Future<Output = std::io::Result<()>> + Send + 'static,
{
    Arc::new(move |path, stream| Box::pin(script(path, stream)))
}

/// Says something at once.
pub async fn says(mut stream: Box<dyn Stream>, text: impl AsRef<[u8]>) -> std::io::Result<()> {
    stream.write_all(text.as_ref()).await?;
    stream.flush().await?;
    stream.shutdown().await
}

/// Says a byte now and then, for ever.
pub async fn drips(mut stream: Box<dyn Stream>, head: &str) -> std::io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    loop {
        stream.write_all(b"x").await?;
        stream.flush().await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Says the same for ever, as fast as it is heard.
pub async fn repeats(mut stream: Box<dyn Stream>, head: &str, text: &[u8]) -> std::io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    loop {
        stream.write_all(text).await?;
    }
}

/// Says something, and nothing more, but stays.
pub async fn stalls(mut stream: Box<dyn Stream>, head: &str) -> std::io::Result<()> {
    stream.write_all(head.as_bytes()).await?;
    stream.flush().await?;
    std::future::pending().await
}

/// A stranger.
pub struct Stranger {
    pub address: SocketAddr,
    asked: Arc<AtomicUsize>,
    _serving: JoinSet<()>,
}

impl Stranger {
    /// How many requests came.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An authority, names, and a directory.
pub struct World {
    authority: CertifiedIssuer<'static, KeyPair>,
    pub names: FixedNames,
    directory: tempfile::TempDir,
}

/// Nobody waits long in tests.
pub const SHORT: Times = {
    let pace = Pace {
        next_bytes: Duration::from_millis(300),
        whole: Duration::from_millis(600),
        bytes_per_second: 1024 * 1024,
    };
    Times {
        uploads: pace,
        fetches: pace,
        answer: Duration::from_millis(400),
        page: Duration::from_millis(600),
        turn: Duration::from_secs(60),
    }
};

/// What no test waits for.
pub const LONG: Duration = Duration::from_secs(60);

impl World {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority =
            CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("an authority");
        Self { authority, names: FixedNames::new(), directory: tempfile::tempdir().expect("a directory") }
    }

    /// A media repository that may connect to 127.0.0.1 and to nothing else of loopback.
    pub async fn media(&self, adjust: impl FnOnce(&mut MediaConfig)) -> Media {
        self.media_with(Arc::new(self.names.clone()), adjust).await
    }

    /// The same with other names.
    pub async fn media_with(&self, names: Arc<dyn Names>, adjust: impl FnOnce(&mut MediaConfig)) -> Media {
        let mut roots = TlsRoots::empty();
        roots.add(self.authority.der().clone()).expect("an authority");
        let range = |text: &str| text.parse().expect("a range");
        let filter = AddressFilter::new(
            vec![range("127.0.0.1/32")],
            vec![range("127.0.0.0/8"), range("10.0.0.0/8"), range("::1/128"), range("fc00::/7")],
        );
        let client = HttpClient::new(names, filter, roots).expect("a client");
        let (store, time) = (store().await, WallTime::manual(1_750_000_000_000));
        let us = ServerName::parse("us.test").expect("a name");
        let config = RemoteConfig {
            server_name: us.clone(),
            signing_key: SigningKey::from_seed([1; 32], "1").expect("a key").into(),
            servers: ServerRules::open(),
            notaries: Vec::new(),
            patience: Patience::default(),
        };
        let remote = Remote::open(config, client, store.clone(), time.clone()).await.expect("a remote");
        let mut config = MediaConfig::new(us, StorageConfig::Disk(self.directory()));
        config.times = SHORT;
        config.previews = true;
        adjust(&mut config);
        Media::open(config, store, time, Some(remote)).await.expect("media")
    }

    /// Where files are.
    pub fn directory(&self) -> std::path::PathBuf {
        self.directory.path().to_owned()
    }

    /// What lies about of what came and was not kept.
    pub fn left_over(&self) -> usize {
        std::fs::read_dir(self.directory.path().join("incoming")).expect("a directory").count()
    }

    /// Another server, by its name.
    pub async fn server(&self, name: &str, script: Script) -> Stranger {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let certificate = params.signed_by(&key, &self.authority).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)
                .expect("a configuration");
        let stranger = serve(Some(TlsAcceptor::from(Arc::new(config))), script).await;
        self.names.socket(name, 8448, stranger.address);
        stranger
    }

    /// A server of the web.
    pub async fn web(&self, script: Script) -> Stranger {
        serve(None, script).await
    }
}

pub async fn store() -> Store {
    Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.expect("a store")
}

async fn serve(tls: Option<TlsAcceptor>, script: Script) -> Stranger {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut open = JoinSet::new();
        while let Ok((tcp, _)) = listener.accept().await {
            let (tls, script, counted) = (tls.clone(), script.clone(), counted.clone());
            open.spawn(async move {
                let stream: Option<Box<dyn Stream>> = match tls {
                    Some(tls) => tls.accept(tcp).await.ok().map(|stream| Box::new(stream) as Box<dyn Stream>),
                    None => Some(Box::new(tcp)),
                };
                let Some(mut stream) = stream else { return };
                let Some(path) = path_asked(&mut stream).await else { return };
                if !path.starts_with("/.well-known/") {
                    counted.fetch_add(1, Ordering::SeqCst);
                }
                // Whoever asked may have gone.
                let _ = script(path, stream).await;
            });
        }
    });
    Stranger { address, asked, _serving: serving }
}

/// Reads the head of a request: its path.
async fn path_asked(stream: &mut Box<dyn Stream>) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).split(' ').nth(1)?.to_owned())
}

pub const PARTS: &str = "HTTP/1.1 200 OK\r\nContent-Type: multipart/mixed; boundary=x\r\nConnection: close\r\n\r\n";

/// An answer in two parts, as it should be.
pub fn in_parts(headers: &str, body: &str) -> String {
    format!("{PARTS}--x\r\nContent-Type: application/json\r\n\r\n{{}}\r\n--x\r\n{headers}\r\n\r\n{body}\r\n--x--")
}

/// A page of HTML.
pub fn page(html: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n{html}")
}

pub fn redirect(location: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {location}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
}

pub fn wanted(server: &str, media_id: &str) -> Wanted {
    Wanted {
        server: server.to_owned(),
        media_id: media_id.to_owned(),
        patience: Duration::from_millis(1),
        is_anonymous: false,
        allow_remote: true,
    }
}

/// A file, if it comes before anybody loses patience.
pub async fn get(media: &Media, server: &str, media_id: &str) -> Result<File, GetError> {
    let wanted = wanted(server, media_id);
    tokio::time::timeout(LONG, media.file(&wanted)).await.unwrap_or_else(|_| panic!("{media_id} holds us up"))
}
