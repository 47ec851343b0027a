//! The HTTP client: requests with a time limit, answers with a size limit, connections kept for the next request.
//!
//! Redirects are not followed; who wants them sees the answer's status.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::stream::{BoxStream, StreamExt as _};
use http::{HeaderValue, Request, Response, header};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::Instant;

use crate::connector::Connector;
use crate::{AddressFilter, ConnectError, Names, TlsRoots};

const IDLE: Duration = Duration::from_secs(60);
const IDLE_PER_HOST: usize = 4;
const KEEP_ALIVE: Duration = Duration::from_secs(20);
const MAX_HEADER_BYTES: u32 = 64 * 1024;

/// How a URL's host becomes a target. Each manner has turns of its own to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As browsers do: the scheme's port.
    Web,
    /// The same, to find out where a Matrix server is.
    Discovery,
    /// As Matrix servers do: SRV records, port 8448.
    Federation,
    /// The same, to ask for keys: also those of servers that are made up.
    Keys,
}

impl Manner {
    const ALL: [Self; 4] = [Self::Web, Self::Discovery, Self::Federation, Self::Keys];

    /// Whether it goes to Matrix servers as such.
    pub(crate) fn is_between_servers(self) -> bool {
        matches!(self, Self::Federation | Self::Keys)
    }
}

/// What a request may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// From the first try to connect to the answer's last byte.
    pub timeout: Duration,
    /// Size of the answer's body.
    pub response_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(60), response_bytes: 16 * 1024 * 1024 }
    }
}

/// Why there is no whole answer.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum HttpError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The time is over.
    #[error("no answer in time")]
    Timeout,
    /// The answer is larger than asked for.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// The connection broke, or what came was not HTTP.
    #[error("{0}")]
    Broken(String),
}

/// The client of everything that goes out. Cheap to clone.
#[derive(Clone)]
pub struct HttpClient {
    /// By manner.
    clients: [Client<Connector, Full<Bytes>>; 4],
    user_agent: HeaderValue,
    /// For those who want to know why there is no connection.
    pub(crate) connector: Connector,
    pub(crate) roots: Arc<rustls::RootCertStore>,
}

impl HttpClient {
    /// A client that finds hosts by `names`, connects where `filter` allows, and trusts `roots`.
    pub fn new(names: Arc<dyn Names>, filter: AddressFilter, roots: TlsRoots) -> Result<Self, rustls::Error> {
        let store = Arc::new(roots.store());
        let connector = Connector::new(names, filter, roots.client_config()?);
        let mut builder = Client::builder(TokioExecutor::new());
        builder
            .pool_timer(TokioTimer::new())
            .timer(TokioTimer::new())
            .pool_idle_timeout(IDLE)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http2_keep_alive_interval(KEEP_ALIVE)
            .http2_keep_alive_timeout(KEEP_ALIVE)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .http1_max_buf_size(MAX_HEADER_BYTES as usize)
            .http2_adaptive_window(true);
        Ok(Self {
            clients: Manner::ALL.map(|manner| builder.build(connector.in_manner(manner))),
            user_agent: HeaderValue::from_static(concat!("Hearth/", env!("CARGO_PKG_VERSION"))),
            connector,
            roots: store,
        })
    }

    /// Sends a request to its absolute URL, and hands over the answer as soon as its head is here, which `timeout` is about.
    /// Size and time of its body are for the reader to bound.
    pub async fn open(
        &self,
        manner: Manner,
        mut request: Request<Bytes>,
        timeout: Duration,
    ) -> Result<Response<Arriving>, HttpError> {
        let awaited = Awaited::new(&mut request, timeout);
        let opened = tokio::time::timeout(timeout, self.begin(manner, request)).await;
        let opened = opened.unwrap_or(Err(HttpError::Timeout))?;
        awaited.has_come();
        Ok(opened.map(arriving))
    }

    /// Sends a request to its absolute URL.
    pub async fn send(
        &self,
        manner: Manner,
        mut request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, HttpError> {
        let awaited = Awaited::new(&mut request, limits.timeout);
        let whole = async {
            let (parts, body) = self.begin(manner, request).await?.into_parts();
            Ok(Response::from_parts(parts, read(body, limits.response_bytes).await?))
        };
        let answer = tokio::time::timeout(limits.timeout, whole).await.unwrap_or(Err(HttpError::Timeout))?;
        awaited.has_come();
        Ok(answer)
    }

    async fn begin(&self, manner: Manner, mut request: Request<Bytes>) -> Result<Response<Incoming>, HttpError> {
        request.headers_mut().entry(header::USER_AGENT).or_insert_with(|| self.user_agent.clone());
        let client = &self.clients[manner as usize];
        // A kept connection may have died without our noticing: once more, on a fresh one. Between servers every request
        // may be repeated.
        let again = (manner.is_between_servers() || request.method().is_idempotent()).then(|| request.clone());
        match client.request(request.map(Full::new)).await.map_err(http_error) {
            Err(HttpError::Broken(_)) if let Some(again) = again => {
                client.request(again.map(Full::new)).await.map_err(http_error)
            }
            outcome => outcome,
        }
    }
}

/// An answer that is waited for. If it is given up, here or by who asked, after most of its time, its connection serves no other
/// request: one of HTTP/2 may stand still for all of them, and look well nevertheless.
struct Awaited {
    connection: Option<CaptureConnection>,
    since: Instant,
    timeout: Duration,
}

impl Awaited {
    fn new(request: &mut Request<Bytes>, timeout: Duration) -> Self {
        Self { connection: Some(capture_connection(request)), since: Instant::now(), timeout }
    }

    fn has_come(mut self) {
        self.connection = None;
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        if let Some(connection) = &self.connection
            && self.since.elapsed() >= self.timeout / 2
            && let Some(connected) = &*connection.connection_metadata()
        {
            connected.poison();
        }
    }
}

/// A body on its way.
pub type Arriving = BoxStream<'static, Result<Bytes, HttpError>>;

fn arriving(body: Incoming) -> Arriving {
    let data = body.into_data_stream();
    data.map(|piece| piece.map_err(|error| HttpError::Broken(error.to_string()))).boxed()
}

/// All of a body that is on its way, if it is no larger than this.
pub(crate) async fn gather(mut body: Arriving, most: usize) -> Result<Bytes, HttpError> {
    let mut whole = BytesMut::new();
    while let Some(piece) = body.next().await {
        let piece = piece?;
        if whole.len() + piece.len() > most {
            return Err(HttpError::TooLarge(most));
        }
        whole.extend_from_slice(&piece);
    }
    Ok(whole.freeze())
}

async fn read(mut body: Incoming, most: usize) -> Result<Bytes, HttpError> {
    if body.size_hint().lower() > most as u64 {
        return Err(HttpError::TooLarge(most));
    }
    let mut whole = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HttpError::Broken(error.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        if whole.len() + data.len() > most {
            return Err(HttpError::TooLarge(most));
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.freeze())
}

/// The connector's own error, if it is at the bottom; otherwise the chain in words.
fn http_error(error: ClientError) -> HttpError {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        if let Some(connect) = inner.downcast_ref::<ConnectError>() {
            return connect.clone().into();
        }
        words = format!("{words}: {inner}");
        cause = inner.source();
    }
    HttpError::Broken(words)
}
