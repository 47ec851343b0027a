//! One connection: hyper with small buffers, and its end at a drain.

use std::convert::Infallible;
use std::future::Future;
use std::net::IpAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::Service;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

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
pub(super) async fn serve_http1<S>(stream: S, peer: Option<IpAddr>, door: Arc<Door>, alive: mpsc::Sender<Infallible>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shutdown = door.shutdown.clone();
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .max_buf_size(HEAD_SIZE_BYTES)
        .max_headers(HEADERS)
        .serve_connection(TokioIo::new(stream), Knock { peer, door });
    until_drained(connection, &shutdown, |connection| connection.graceful_shutdown()).await;
    drop(alive);
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

async fn serve_http2<S>(stream: S, peer: Option<IpAddr>, door: Arc<Door>, alive: mpsc::Sender<Infallible>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let shutdown = door.shutdown.clone();
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_header_list_size(HEAD_SIZE_BYTES as u32)
        .max_concurrent_streams(HTTP2_STREAMS)
        .keep_alive_interval(HEAD_TIME)
        .serve_connection(TokioIo::new(stream), Knock { peer, door });
    until_drained(connection, &shutdown, |connection| connection.graceful_shutdown()).await;
    drop(alive);
}

/// Serves until the connection ends; after the shutdown signal it takes no new requests and has [`DRAIN_TIME`] left.
async fn until_drained<C, E>(connection: C, shutdown: &Shutdown, graceful_shutdown: impl Fn(Pin<&mut C>))
where
    C: Future<Output = Result<(), E>>,
    E: std::fmt::Display,
{
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = shutdown.requested() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            graceful_shutdown(connection.as_mut());
            match tokio::time::timeout(DRAIN_TIME, connection).await {
                Ok(ended) => ended,
                Err(_) => return,
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection broke");
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
        Box::pin(async move { Ok(threshold::pass(router, request.map(Body::new), client).await) })
    }
}
