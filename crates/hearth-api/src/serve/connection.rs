//! One connection: hyper with small buffers, and its end at a drain.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use futures_util::FutureExt;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use super::progress::Progress;
use super::{DRAIN_TIME, TrustedProxies};
use crate::{Shutdown, threshold};

/// What all connections of a listener share.
pub(super) struct Door {
    pub(super) router: Router,
    pub(super) trusted_proxies: TrustedProxies,
    pub(super) shutdown: Shutdown,
}

/// How long a client may take for a request's head; also how long a connection may rest between requests.
const HEAD_TIME: Duration = Duration::from_secs(75);

/// How long a client may take to agree on TLS.
const HANDSHAKE_TIME: Duration = Duration::from_secs(10);

/// Largest head of a request. hyper begins with 8 KiB and grows to this.
const HEAD_SIZE_BYTES: usize = 32 * 1024;

/// Largest number of headers.
const HEADERS: usize = 100;

/// Requests at once on one HTTP/2 connection.
const HTTP2_STREAMS: u32 = 200;

/// HTTP/1 on a stream.
pub(super) fn serve_http1<S>(
    stream: S,
    peer: Option<IpAddr>,
    door: Arc<Door>,
    alive: mpsc::Sender<Infallible>,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stopping = Box::pin(stopping(door.shutdown.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(Progress::new(stream)), Knock { peer, door });
    UntilDrained { connection, stopping, cut_off: None, _alive: alive }
}

/// TLS on a stream, then the HTTP that both agreed on.
pub(super) async fn serve_tls<S>(
    tls: TlsAcceptor,
    stream: S,
    peer: Option<IpAddr>,
    door: Arc<Door>,
    alive: mpsc::Sender<Infallible>,
) where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    // Boxed: its buffers go when the handshake has ended.
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIME, Box::pin(tls.accept(stream))).await else {
        return;
    };
    if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
        Box::pin(serve_http2(stream, peer, door, alive)).await;
    } else {
        Box::pin(serve_http1(stream, peer, door, alive)).await;
    }
}

fn serve_http2<S>(
    stream: S,
    peer: Option<IpAddr>,
    door: Arc<Door>,
    alive: mpsc::Sender<Infallible>,
) -> impl Future<Output = ()> + Send
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stopping = Box::pin(stopping(door.shutdown.clone()));
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_SIZE_BYTES as u32)
        .max_concurrent_streams(HTTP2_STREAMS)
        .keep_alive_interval(HEAD_TIME)
        .serve_connection(TokioIo::new(Progress::new(stream)), Knock { peer, door });
    UntilDrained { connection: Box::pin(connection), stopping, cut_off: None, _alive: alive }
}

async fn stopping(shutdown: Shutdown) {
    shutdown.requested().await;
}

/// A connection, until it ends; after the shutdown signal it takes no new requests and has [`DRAIN_TIME`] left.
///
/// By hand rather than `async`: a connection at rest is this and hyper's buffer, and an `async` function would hold its
/// arguments twice.
struct UntilDrained<C> {
    connection: C,
    stopping: Pin<Box<dyn Future<Output = ()> + Send>>,
    cut_off: Option<Pin<Box<Sleep>>>,
    _alive: mpsc::Sender<Infallible>,
}

impl<C> Future for UntilDrained<C>
where
    C: Drain + Unpin,
{
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        if this.cut_off.is_none() && this.stopping.as_mut().poll(context).is_ready() {
            this.connection.drain();
            this.cut_off = Some(Box::pin(tokio::time::sleep(DRAIN_TIME)));
        }
        match this.connection.poll_to_end(context) {
            Poll::Ready(Ok(())) => return Poll::Ready(()),
            Poll::Ready(Err(error)) => {
                tracing::debug!(%error, "a connection broke");
                return Poll::Ready(());
            }
            Poll::Pending => {}
        }
        match &mut this.cut_off {
            Some(cut_off) => cut_off.as_mut().poll(context),
            None => Poll::Pending,
        }
    }
}

/// hyper's connections, of either version.
trait Drain {
    /// Takes no new requests.
    fn drain(&mut self);

    fn poll_to_end(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>>;
}

impl<S> Drain for http1::Connection<TokioIo<Progress<S>>, Knock>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    fn drain(&mut self) {
        Pin::new(self).graceful_shutdown();
    }

    fn poll_to_end(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        Pin::new(self).poll(context)
    }
}

impl<S> Drain for Pin<Box<http2::Connection<TokioIo<Progress<S>>, Knock, TokioExecutor>>>
where
    S: AsyncRead + AsyncWrite + Unpin + 'static,
{
    fn drain(&mut self) {
        self.as_mut().graceful_shutdown();
    }

    fn poll_to_end(&mut self, context: &mut Context<'_>) -> Poll<hyper::Result<()>> {
        self.as_mut().poll(context)
    }
}

/// A client of this connection knocks: hyper's view of the threshold.
struct Knock {
    peer: Option<IpAddr>,
    door: Arc<Door>,
}

impl Service<Request<Incoming>> for Knock {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let client = self.door.trusted_proxies.client(self.peer, request.headers());
        let router = self.door.router.clone();
        Box::pin(threshold::pass(router, request.map(Body::new), client).map(Ok))
    }
}
