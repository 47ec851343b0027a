//! From a URL to a connected socket: names to addresses, the address filter, TCP to the first that answers, TLS.
//!
//! For federation a host without a port is looked up as a service first (SRV), then at port 8448; with a port, or an address,
//! it is what it says. So the `Host` that a request carries decides alone where it goes, and is the key of the pool.
//! Spec: server-server API, "Resolving server names".

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use http::Uri;
use hyper::rt::ReadBufCursor;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_rustls::TlsConnector;

use crate::host::Host;
use crate::{AddressFilter, Manner, NameError, Names, Service, srv};

/// So long a target may take: name, TCP and TLS.
pub(crate) const TARGET_TIMEOUT: Duration = Duration::from_secs(10);
/// So long one address has before the next one is tried beside it.
const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);
/// So many addresses of a host are tried.
pub(crate) const MOST_ADDRESSES: usize = 8;
/// So many connections may be in the making at once, by manner: silent servers keep no web page waiting, nor the reverse, and made-up
/// ones nobody but each other.
const MOST_CONNECTING: [usize; 4] = [128, 256, 512, 256];
const FEDERATION_PORT: u16 = 8448;

/// Why there is no connection.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ConnectError {
    /// The URL has no usable host.
    #[error("no host to connect to")]
    NoHost,
    /// A name leads nowhere.
    #[error("{host}: {cause}")]
    Unresolvable {
        /// The name.
        host: String,
        /// Why.
        cause: NameError,
    },
    /// All its addresses are such that this server does not connect to.
    #[error("{host} has only forbidden addresses ({address})")]
    Forbidden {
        /// The host.
        host: String,
        /// One of them.
        address: IpAddr,
    },
    /// Nobody answers there.
    #[error("{0}")]
    Unreachable(String),
    /// Somebody else answers there, or nobody who speaks TLS.
    #[error("TLS: {0}")]
    Tls(String),
    /// It takes too long.
    #[error("connecting took too long")]
    Timeout,
}

/// Makes connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    shared: Arc<Shared>,
    manner: Manner,
}

pub(crate) struct Shared {
    names: Arc<dyn Names>,
    pub(crate) filter: AddressFilter,
    tls: TlsConnector,
    /// By manner.
    connecting: [Semaphore; 4],
}

/// A place where a host is looked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) host: Host,
    pub(crate) port: u16,
}

/// Where a host is looked for, best first, and the service that led there, if one did.
pub(crate) struct Targets {
    pub(crate) list: Vec<Target>,
    pub(crate) service: Option<String>,
}

impl Connector {
    pub(crate) fn new(names: Arc<dyn Names>, filter: AddressFilter, tls: Arc<ClientConfig>) -> Self {
        let connecting = MOST_CONNECTING.map(Semaphore::new);
        let shared = Shared { names, filter, tls: TlsConnector::from(tls), connecting };
        Self { shared: Arc::new(shared), manner: Manner::Web }
    }

    pub(crate) fn in_manner(&self, manner: Manner) -> Self {
        Self { shared: self.shared.clone(), manner }
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }
}

impl Shared {
    async fn connect(&self, manner: Manner, uri: Uri) -> Result<Socket, ConnectError> {
        let _turn = self.connecting[manner as usize].acquire().await.map_err(|_| ConnectError::NoHost)?;
        let host = Host::parse(uri.host().ok_or(ConnectError::NoHost)?);
        let secure = uri.scheme_str() != Some("http");
        let targets = self.targets(manner, &host, uri.port_u16(), secure).await?.list;
        let mut failed = ConnectError::NoHost;
        for target in targets {
            let attempt = self.reach(&target, secure.then_some(&host));
            match tokio::time::timeout(TARGET_TIMEOUT, attempt).await.unwrap_or(Err(ConnectError::Timeout)) {
                Ok(connection) => return Ok(connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Where a host is looked for.
    pub(crate) async fn targets(
        &self,
        manner: Manner,
        host: &Host,
        port: Option<u16>,
        secure: bool,
    ) -> Result<Targets, ConnectError> {
        let at = |port| Targets { list: vec![Target { host: host.clone(), port }], service: None };
        match port {
            Some(port) => Ok(at(port)),
            None if manner.is_between_servers() => self.federation_targets(host).await,
            None => Ok(at(if secure { 443 } else { 80 })),
        }
    }

    async fn federation_targets(&self, host: &Host) -> Result<Targets, ConnectError> {
        let plain = || Targets { list: vec![Target { host: host.clone(), port: FEDERATION_PORT }], service: None };
        let Host::Name(name) = host else { return Ok(plain()) };
        // Both at once: the answer is mostly that there is neither.
        let names = [format!("_matrix-fed._tcp.{name}"), format!("_matrix._tcp.{name}")];
        let [registered, deprecated] = [self.names.services(&names[0]), self.names.services(&names[1])];
        let (registered, deprecated) = futures_util::future::join(registered, deprecated).await;
        let some = |found: Result<Vec<Service>, NameError>, name: &String| {
            found.ok().filter(|services| !services.is_empty()).map(|services| (services, name.clone()))
        };
        let found = some(registered, &names[0]).or_else(|| some(deprecated, &names[1]));
        let Some((services, service)) = found else { return Ok(plain()) };
        let list: Vec<Target> = srv::in_order(services, |most| rand::random_range(0..=most))
            .into_iter()
            // An empty target says that there is decidedly no such service.
            .filter(|service| !service.target.is_empty())
            .map(|service| Target { host: Host::parse(&service.target), port: service.port })
            .collect();
        if list.is_empty() {
            return Err(ConnectError::Unresolvable { host: name.clone(), cause: NameError::NotFound });
        }
        Ok(Targets { list, service: Some(service) })
    }

    /// The addresses of a target, forbidden ones among them.
    pub(crate) async fn addresses(&self, target: &Target) -> Result<Vec<SocketAddr>, ConnectError> {
        let name = match &target.host {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, target.port)]),
            Host::Name(name) => name,
        };
        let unresolvable = |cause| ConnectError::Unresolvable { host: name.clone(), cause };
        let found = self.names.addresses(name, target.port).await.map_err(unresolvable)?;
        if found.is_empty() { Err(unresolvable(NameError::NotFound)) } else { Ok(found) }
    }

    /// Connects to a target; `certified` is whose certificate it must show.
    async fn reach(&self, target: &Target, certified: Option<&Host>) -> Result<Socket, ConnectError> {
        let (allowed, forbidden): (Vec<_>, Vec<_>) =
            self.addresses(target).await?.into_iter().partition(|address| self.filter.allows(address.ip()));
        if let (true, Some(address)) = (allowed.is_empty(), forbidden.first()) {
            let host = match &target.host {
                Host::Address(address) => address.to_string(),
                Host::Name(name) => name.clone(),
            };
            return Err(ConnectError::Forbidden { host, address: address.ip() });
        }
        let tcp = first_to_answer(in_turns(allowed)).await?;
        let unreachable = |error: io::Error| ConnectError::Unreachable(error.to_string());
        // Whatever happened to the address on the way: this is where the socket ended.
        let peer = tcp.peer_addr().map_err(unreachable)?.ip();
        if !self.filter.allows(peer) {
            return Err(ConnectError::Forbidden { host: peer.to_string(), address: peer });
        }
        let _ = tcp.set_nodelay(true);
        let Some(certified) = certified else {
            return Ok(Socket { io: TokioIo::new(Box::new(tcp)), h2: false });
        };
        let tls =
            self.tls.connect(tls_name(certified)?, tcp).await.map_err(|error| ConnectError::Tls(error.to_string()))?;
        let h2 = tls.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Socket { io: TokioIo::new(Box::new(tls)), h2 })
    }
}

/// The name that a certificate must be for.
pub(crate) fn tls_name(host: &Host) -> Result<ServerName<'static>, ConnectError> {
    match host {
        Host::Address(address) => Ok(ServerName::from(*address)),
        Host::Name(name) => ServerName::try_from(name.clone()).map_err(|_| ConnectError::NoHost),
    }
}

/// Addresses of both families by turns, beginning with that of the first, so that one broken family costs little.
fn in_turns(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (a, b): (Vec<_>, Vec<_>) = addresses.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let mut ordered = Vec::new();
    while ordered.len() < MOST_ADDRESSES {
        let pair = [a.next(), b.next()];
        if pair == [None, None] {
            break;
        }
        ordered.extend(pair.into_iter().flatten());
    }
    ordered.truncate(MOST_ADDRESSES);
    ordered
}

/// "Happy eyeballs": each address gets a short head start before the next one is tried beside it.
async fn first_to_answer(addresses: Vec<SocketAddr>) -> Result<TcpStream, ConnectError> {
    let mut waiting = addresses.into_iter();
    let mut attempts = FuturesUnordered::new();
    let mut failed = ConnectError::Unreachable("no address to connect to".to_owned());
    if let Some(address) = waiting.next() {
        attempts.push(dial(address));
    }
    while !attempts.is_empty() {
        let next = tokio::select! {
            outcome = attempts.next() => match outcome {
                Some(Ok(stream)) => return Ok(stream),
                Some(Err(error)) => {
                    failed = error;
                    waiting.next()
                }
                None => None,
            },
            () = tokio::time::sleep(NEXT_ADDRESS_AFTER), if waiting.len() > 0 => waiting.next(),
        };
        attempts.extend(next.map(dial));
    }
    Err(failed)
}

pub(crate) async fn dial(address: SocketAddr) -> Result<TcpStream, ConnectError> {
    TcpStream::connect(address).await.map_err(|error| ConnectError::Unreachable(format!("{address}: {error}")))
}

impl tower::Service<Uri> for Connector {
    type Response = Socket;
    type Error = ConnectError;
    type Future = BoxFuture<'static, Result<Socket, ConnectError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (shared, manner) = (self.shared.clone(), self.manner);
        async move { shared.connect(manner, uri).await }.boxed()
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connected socket, secured or not.
pub(crate) struct Socket {
    io: TokioIo<Box<dyn Io>>,
    h2: bool,
}

impl Connection for Socket {
    fn connected(&self) -> Connected {
        if self.h2 { Connected::new().negotiated_h2() } else { Connected::new() }
    }
}

impl hyper::rt::Read for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

impl hyper::rt::Write for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bufs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_take_turns() {
        let addresses = ["[::1]:1", "[::2]:1", "1.0.0.1:1", "1.0.0.2:1", "1.0.0.3:1"].map(|text| text.parse().unwrap());
        let ordered: Vec<String> = in_turns(addresses.to_vec()).iter().map(ToString::to_string).collect();
        assert_eq!(ordered, ["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1", "1.0.0.3:1"]);
    }
}
