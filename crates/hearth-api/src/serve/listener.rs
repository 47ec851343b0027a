//! Listening sockets: TCP and unix.

use std::convert::Infallible;
use std::fmt::Display;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::connection::{self, Door};
use super::tls::{TlsError, TlsFiles};

/// Where a listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// `IP:PORT`
    Tcp(SocketAddr),
    /// `unix:PATH`
    Unix(PathBuf),
}

impl Display for Bind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A unix socket that the owner and the group may open.
pub const GROUP_MODE: u32 = 0o660;

/// A unix socket that only the owner may open.
pub const OWNER_MODE: u32 = 0o600;

/// A listener to be.
#[derive(Clone, Debug)]
pub struct ListenerOptions {
    /// Where.
    pub bind: Bind,
    /// TLS, if it speaks it.
    pub tls: Option<TlsFiles>,
    /// Who may connect to a unix socket.
    pub unix_mode: u32,
    /// Whose `X-Forwarded-For` it believes.
    pub trusted_proxies: Vec<IpNet>,
}

/// A socket that listens already, so that clients may come, but nobody accepts them yet.
#[derive(Debug)]
pub struct Bound {
    options: ListenerOptions,
    socket: Socket,
    tls: Option<Tls>,
}

struct Tls(TlsAcceptor);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// Why a listener can't listen.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket.
    #[error("can't listen on {bind}: {cause}")]
    Socket {
        /// Where.
        bind: Bind,
        /// What is wrong.
        cause: io::Error,
    },
    /// TLS.
    #[error("TLS of {bind}: {cause}")]
    Tls {
        /// Where.
        bind: Bind,
        /// What is wrong.
        cause: TlsError,
    },
}

/// Clients that may wait to be accepted.
const BACKLOG: u32 = 4096;

/// How long to wait after the system could not give us a connection (too many open files).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

impl Bound {
    /// Binds the socket and reads the TLS files.
    pub async fn new(options: ListenerOptions) -> Result<Self, BindError> {
        let bind = || options.bind.clone();
        let tls = options.tls.as_ref().map(TlsFiles::acceptor).transpose();
        let tls = tls.map_err(|cause| BindError::Tls { bind: bind(), cause })?.map(Tls);
        let socket = match &options.bind {
            Bind::Tcp(address) => bind_tcp(*address).map(Socket::Tcp),
            Bind::Unix(path) => {
                bind_unix(path, options.unix_mode).await.map(|socket| Socket::Unix(socket, path.clone()))
            }
        };
        let socket = socket.map_err(|cause| BindError::Socket { bind: bind(), cause })?;
        Ok(Self { options, socket, tls })
    }

    pub(super) fn trusted_proxies(&self) -> &[IpNet] {
        &self.options.trusted_proxies
    }

    /// Where it really listens: port 0 has become a number.
    pub fn bind(&self) -> Bind {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().map_or_else(|_| self.options.bind.clone(), Bind::Tcp),
            Socket::Unix(_, path) => Bind::Unix(path.clone()),
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A socket file that nobody answers on was left by a process that died.
async fn bind_unix(path: &Path, mode: u32) -> io::Result<UnixListener> {
    if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket()) {
        match UnixStream::connect(path).await {
            Ok(_) => return Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
            Err(_) => std::fs::remove_file(path)?,
        }
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))?;
    Ok(listener)
}

/// Accepts until the shutdown signal; each connection is a task.
pub(super) async fn accept(bound: Bound, door: Arc<Door>, alive: mpsc::Sender<Infallible>) {
    let Bound { socket, tls, .. } = bound;
    let tls = tls.map(|Tls(acceptor)| acceptor);
    loop {
        let accepted = tokio::select! {
            biased;
            () = door.shutdown.requested() => break,
            accepted = accept_one(&socket) => accepted,
        };
        let (peer, stream) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // The peer's own failures come here as well; only ours need a pause.
                if !matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
                    tracing::warn!(%error, "can't accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let (door, alive) = (Arc::clone(&door), alive.clone());
        match (stream, tls.clone()) {
            (Stream::Tcp(stream), None) => tokio::spawn(connection::serve_http1(stream, peer, door, alive)),
            (Stream::Tcp(stream), Some(tls)) => tokio::spawn(connection::serve_tls(tls, stream, peer, door, alive)),
            (Stream::Unix(stream), None) => tokio::spawn(connection::serve_http1(stream, peer, door, alive)),
            (Stream::Unix(stream), Some(tls)) => tokio::spawn(connection::serve_tls(tls, stream, peer, door, alive)),
        };
    }
    if let Socket::Unix(_, path) = &socket {
        let _ = std::fs::remove_file(path);
    }
}

enum Stream {
    Tcp(tokio::net::TcpStream),
    Unix(UnixStream),
}

async fn accept_one(socket: &Socket) -> io::Result<(Option<std::net::IpAddr>, Stream)> {
    match socket {
        Socket::Tcp(socket) => {
            let (stream, peer) = socket.accept().await?;
            stream.set_nodelay(true)?;
            Ok((Some(peer.ip()), Stream::Tcp(stream)))
        }
        Socket::Unix(socket, _) => Ok((None, Stream::Unix(socket.accept().await?.0))),
    }
}
