//! Requests to other servers, signed, with what is known of the destination consulted first and learned from afterwards.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use bytes::Bytes;
use hearth_matrix::ruma::api::auth_scheme::{AuthScheme, NoAuthentication};
use hearth_matrix::ruma::api::error::{DeserializationError, FromHttpResponseError, IntoHttpError};
use hearth_matrix::ruma::api::federation::authentication::ServerSignatures;
use hearth_matrix::ruma::api::path_builder::PathBuilder;
use hearth_matrix::ruma::api::{IncomingResponse, IncomingResponseExt as _, OutgoingBody as _, OutgoingRequest};
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_matrix::{CurrentKey, SigningKey};
use hearth_store::{Destination, Noun, OwnKey, ServerKey, Store, StoreError, WallTime};
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Request, Response, StatusCode, Uri};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::http_client::gather;
use crate::inbound::Strangers;
use crate::key_ring::server_noun;
use crate::key_sources::KeySources;
use crate::notary::MOST_VOUCHING;
use crate::{
    Arriving, ConnectError, Discovery, HttpClient, HttpError, KeyRing, Limits, Manner, Notary, Patience, RuleRefusal,
    ServerRules, XMatrix, back_off,
};

/// A server that has shown life is not looked up again so soon.
const ALIVE_FOR: i64 = 60_000;
const MOST_ALIVE: usize = 20_000;
/// So much of a refusal is read where an answer could be large.
const REFUSAL_BYTES: usize = 64 * 1024;

/// Who we are, and with whom we talk.
pub struct RemoteConfig {
    /// Our name.
    pub server_name: OwnedServerName,
    /// Our key.
    pub signing_key: CurrentKey,
    /// With whom we talk.
    pub servers: ServerRules,
    /// Who vouches for the keys of servers that don't answer.
    pub notaries: Vec<Notary>,
    /// How long keys are waited for.
    pub patience: Patience,
}

/// The other servers, as seen from ours. Cheap to clone.
#[derive(Clone)]
pub struct Remote(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) server_name: OwnedServerName,
    pub(crate) signing_key: CurrentKey,
    /// All with which we sign or have signed; who exchanges the key holds it meanwhile.
    pub(crate) own_keys: RwLock<Vec<OwnKey>>,
    pub(crate) rules: Arc<ServerRules>,
    pub(crate) client: HttpClient,
    pub(crate) discovery: Discovery,
    pub(crate) keys: KeyRing,
    pub(crate) store: Store,
    pub(crate) time: WallTime,
    /// Servers that were well a moment ago, with when.
    alive: Cache<OwnedServerName, i64>,
    /// Servers that failed before and have shown life, with when.
    revived: Cache<OwnedServerName, i64>,
    pub(crate) strangers: Strangers,
    /// So many questions about keys are answered at once.
    pub(crate) vouching: Semaphore,
    on_life: OnceLock<OnLife>,
}

/// Whom to tell that a server that did not answer has shown life.
type OnLife = Box<dyn Fn(&ServerName) + Send + Sync>;

/// How a request is sent.
#[derive(Clone, Copy, Debug, Default)]
pub struct SendOptions {
    /// What it may cost.
    pub limits: Limits,
    /// Send also to a server that is to be left alone.
    pub despite_back_off: bool,
    /// Another program than the server proper may answer, or a slow one: that it answers badly or late says nothing of the
    /// server, that nobody is there at all does.
    pub is_aside: bool,
    /// Send also to ourselves: what answers under our name need not be this server.
    pub even_to_ourselves: bool,
}

/// Why a request brought no answer, or none that is a success.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    /// The settings forbid to talk with that server.
    #[error("this server does not talk with {0}")]
    Forbidden(OwnedServerName),
    /// That is ourselves.
    #[error("a request to ourselves")]
    Ourselves,
    /// It failed lately; nothing was sent.
    #[error("not tried again before {until_ts}")]
    BackingOff {
        /// When it is tried again.
        until_ts: i64,
    },
    /// Its name leads nowhere.
    #[error("{0}")]
    Unresolvable(String),
    /// Nobody answers, or its addresses are forbidden.
    #[error("{0}")]
    Unreachable(String),
    /// The connection broke, or what came was not HTTP.
    #[error("{0}")]
    Broken(String),
    /// Its certificate is not good.
    #[error("{0}")]
    Tls(String),
    /// The time is over.
    #[error("no answer in time")]
    Timeout,
    /// The answer is larger than asked for.
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    /// It answered that it will not.
    #[error("answered {status} {errcode}: {message}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The Matrix error code; empty if there is none.
        errcode: String,
        /// What it says about it.
        message: String,
        /// The whole answer.
        body: Bytes,
    },
    /// Its answer is not what the specification says.
    #[error("malformed answer: {0}")]
    Malformed(String),
    /// The request can't be made.
    #[error("the request can't be made: {0}")]
    Request(String),
    /// Our own database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl RemoteError {
    /// Whether the server is to be left alone for a while. One that refuses or says nonsense is well.
    pub(crate) fn is_failure(&self) -> bool {
        match self {
            Self::Unresolvable(_) | Self::Unreachable(_) | Self::Broken(_) | Self::Tls(_) | Self::Timeout => true,
            // What is not there yet, or too large, is nothing that is wrong with the server.
            Self::Refused { errcode, .. } if errcode == "M_NOT_YET_UPLOADED" || errcode == "M_TOO_LARGE" => false,
            Self::Refused { status, .. } => status.is_server_error(),
            _ => false,
        }
    }

    /// Whether it seems to be about what the request holds, and not about who sends it or about the moment: a smaller one may do.
    pub fn is_about_content(&self) -> bool {
        match self {
            Self::Request(_) => true,
            // A proxy says so without Matrix's words.
            Self::Refused { status, .. } if *status == StatusCode::PAYLOAD_TOO_LARGE => true,
            Self::Refused { status, errcode, .. } => {
                // Who does not know the endpoint has not looked at what it got.
                let looked = !errcode.is_empty() && errcode != "M_UNRECOGNIZED";
                looked && matches!(*status, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY)
            }
            _ => false,
        }
    }

    /// What it says of a server that was asked something.
    fn verdict(&self) -> Verdict {
        if self.is_failure() { Verdict::Fails } else { Verdict::Well }
    }

    /// What it says of a server that was given something.
    fn verdict_on_delivery(&self) -> Verdict {
        if self.is_about_content() { Verdict::Nothing } else { Verdict::Fails }
    }
}

/// What the outcome of a request says of the server.
enum Verdict {
    /// It is well.
    Well,
    /// It is to be left alone for a while.
    Fails,
    /// Neither.
    Nothing,
}

impl From<HttpError> for RemoteError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Timeout | HttpError::Connect(ConnectError::Timeout) => Self::Timeout,
            HttpError::TooLarge(most) => Self::TooLarge(most),
            HttpError::Broken(cause) => Self::Broken(cause),
            HttpError::Connect(error) => match error {
                ConnectError::NoHost | ConnectError::Unresolvable { .. } => Self::Unresolvable(error.to_string()),
                ConnectError::Tls(_) => Self::Tls(error.to_string()),
                _ => Self::Unreachable(error.to_string()),
            },
        }
    }
}

/// Whether requests of an authentication scheme carry our signature.
pub trait Signing: AuthScheme {
    /// They do.
    const SIGNED: bool;
}

impl Signing for ServerSignatures {
    const SIGNED: bool = true;
}

impl Signing for NoAuthentication {
    const SIGNED: bool = false;
}

impl Remote {
    /// Begins to talk to others. The key is noted as ours; one that was before is an old one from now on.
    pub async fn open(
        config: RemoteConfig,
        client: HttpClient,
        store: Store,
        time: WallTime,
    ) -> Result<Self, StoreError> {
        let RemoteConfig { server_name, signing_key, servers, notaries, patience } = config;
        let current = signing_key.get();
        let (key_id, key, now) = (current.key_id().to_owned(), current.public_key(), time.now_ms());
        let known = store.read(|tx| tx.server_keys().own()).await?;
        let noted = known.iter().any(|own| own.key_id == key_id && own.public_key == key && own.expired_ts.is_none());
        let own_keys = if noted && known.iter().filter(|own| own.expired_ts.is_none()).count() == 1 {
            known
        } else {
            let sign_with = store.write([Noun::Name("identity".to_owned())], move |tx| {
                tx.server_keys().sign_with(&key_id, &key, now)?;
                tx.server_keys().own()
            });
            sign_with.await?
        };
        let rules = Arc::new(servers);
        let discovery = Discovery::new(client.clone(), time.clone());
        let (may_ask, ourselves) = (rules.clone(), server_name.clone());
        let sources = KeySources {
            client: client.clone(),
            discovery: discovery.clone(),
            notaries,
            may_ask: Box::new(move |server| *server != ourselves && may_ask.allow(server)),
        };
        let keys =
            KeyRing::new((server_name.clone(), to_ring(&own_keys)), sources, store.clone(), time.clone(), patience);
        let (alive, revived) = (Cache::new(MOST_ALIVE), Cache::new(MOST_ALIVE));
        Ok(Self(Arc::new(Inner {
            server_name,
            signing_key,
            own_keys: RwLock::new(own_keys),
            rules,
            client,
            discovery,
            keys,
            store,
            time,
            alive,
            revived,
            strangers: Strangers::default(),
            vouching: Semaphore::new(MOST_VOUCHING),
            on_life: OnceLock::new(),
        })))
    }

    /// Signs with another key from now on, which the caller has put where it survives. The old one is an old one, and still
    /// vouches for what it signed.
    pub async fn sign_with(&self, key: SigningKey) -> Result<(), StoreError> {
        let Inner { signing_key, own_keys, keys, store, time, .. } = &*self.0;
        let (key_id, public_key) = (key.key_id().to_owned(), key.public_key());
        let now = {
            let mut own = own_keys.write().unwrap_or_else(PoisonError::into_inner);
            signing_key.replace(key);
            // Only now: what the old key signed last is no younger.
            let now = time.now_ms();
            own.retain(|own| own.key_id != key_id);
            for old in own.iter_mut() {
                old.expired_ts = old.expired_ts.or(Some(now));
            }
            own.push(OwnKey { key_id: key_id.clone(), public_key, expired_ts: None });
            keys.set_own(to_ring(&own));
            now
        };
        let write = store.write([Noun::Name("identity".to_owned())], move |tx| {
            tx.server_keys().sign_with(&key_id, &public_key, now)
        });
        write.await
    }

    /// Whom to tell that a server that did not answer has shown life. It must be short; there is one.
    pub fn on_life(&self, listener: impl Fn(&ServerName) + Send + Sync + 'static) {
        let _ = self.0.on_life.set(Box::new(listener));
    }

    /// Our name.
    pub fn server_name(&self) -> &ServerName {
        &self.0.server_name
    }

    /// Whether the settings let us talk with a server.
    pub fn may_talk_with(&self, server: &ServerName) -> bool {
        self.0.rules.allow(server)
    }

    /// Which setting keeps us from talking with a server.
    pub fn refusal(&self, server: &ServerName) -> Option<RuleRefusal> {
        self.0.rules.refusal(server)
    }

    /// Keys of other servers.
    pub fn keys(&self) -> &KeyRing {
        &self.0.keys
    }

    /// Where servers are.
    pub fn discovery(&self) -> &Discovery {
        &self.0.discovery
    }

    /// The client for what is not between Matrix servers.
    pub fn client(&self) -> &HttpClient {
        &self.0.client
    }

    /// Sends a request of the server-server API, and waits for the answer.
    pub async fn send<R>(&self, server: &ServerName, request: R) -> Result<R::IncomingResponse, RemoteError>
    where
        R: OutgoingRequest,
        R::Authentication: Signing,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        self.send_with(server, request, SendOptions::default()).await
    }

    /// The same, with more to say about how.
    pub async fn send_with<R>(
        &self,
        server: &ServerName,
        request: R,
        options: SendOptions,
    ) -> Result<R::IncomingResponse, RemoteError>
    where
        R: OutgoingRequest,
        R::Authentication: Signing,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        read::<R::IncomingResponse>(&self.ask(server, request, options).await?)
    }

    /// The same for an answer whose bytes matter.
    pub async fn ask<R>(
        &self,
        server: &ServerName,
        request: R,
        options: SendOptions,
    ) -> Result<Response<Bytes>, RemoteError>
    where
        R: OutgoingRequest,
        R::Authentication: Signing,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
    {
        let unmakeable = |error: IntoHttpError| RemoteError::Request(error.to_string());
        let (mut parts, body) =
            request.try_into_http_request_inner("https://matrix.invalid", ()).map_err(unmakeable)?.into_parts();
        if let Some(content_type) = body.content_type() {
            parts.headers.entry(CONTENT_TYPE).or_insert(content_type);
        }
        let body: Vec<u8> = body.try_into_buf().map_err(|error| unmakeable(error.into()))?;
        let request = Request::from_parts(parts, Bytes::from(body));
        self.send_raw(server, request, R::Authentication::SIGNED, options).await
    }

    /// Sends a request whose URL has any host: where the server is, is found out. Only an answer that is a success is one.
    pub async fn send_raw(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        signed: bool,
        options: SendOptions,
    ) -> Result<Response<Bytes>, RemoteError> {
        let exchange = async {
            let request = self.addressed(server, request, signed).await?;
            let response = self.0.client.send(Manner::Federation, request, options.limits).await?;
            if response.status().is_success() { Ok(response) } else { Err(refusal(response)) }
        };
        self.guarded(server, options, exchange, RemoteError::verdict).await
    }

    /// Sends a signed request that must arrive. Only a JSON object with the status 200 says that it has; all else is a failure,
    /// after which the server is left alone for a while: a web site at the address of a server that is gone has many ways to
    /// answer. Where the answer is about what the request holds, it is for the sender to find out which of both is to blame, and
    /// nothing is noted (see [`Remote::leave_alone`]).
    pub async fn deliver(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        limits: Limits,
    ) -> Result<Response<Bytes>, RemoteError> {
        let exchange = async {
            let request = self.addressed(server, request, true).await?;
            let response = self.0.client.send(Manner::Federation, request, limits).await?;
            match response.status() {
                StatusCode::OK if is_object(response.body()) => Ok(response),
                status if status.is_success() => Err(RemoteError::Malformed(format!("{status} without a JSON object"))),
                _ => Err(refusal(response)),
            }
        };
        let options = SendOptions { limits, ..SendOptions::default() };
        self.guarded(server, options, exchange, RemoteError::verdict_on_delivery).await
    }

    /// The same for an answer that may be too large for the memory: it is handed over as soon as its head is here, which
    /// the time limit is about. Its size is for the reader to bound.
    pub async fn open_raw(
        &self,
        server: &ServerName,
        request: Request<Bytes>,
        signed: bool,
        options: SendOptions,
    ) -> Result<Response<Arriving>, RemoteError> {
        let exchange = async {
            let request = self.addressed(server, request, signed).await?;
            let response = self.0.client.open(Manner::Federation, request, options.limits.timeout).await?;
            if response.status().is_success() {
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            Err(refusal(Response::from_parts(parts, gather(body, REFUSAL_BYTES).await?)))
        };
        self.guarded(server, options, exchange, RemoteError::verdict).await
    }

    /// Does something with a server, if it is not to be left alone, and learns from it how it goes.
    async fn guarded<T>(
        &self,
        server: &ServerName,
        options: SendOptions,
        exchange: impl Future<Output = Result<T, RemoteError>>,
        verdict: impl Fn(&RemoteError) -> Verdict,
    ) -> Result<T, RemoteError> {
        let ourselves = *server == self.0.server_name;
        if ourselves && !options.even_to_ourselves {
            return Err(RemoteError::Ourselves);
        }
        // Whom we talk with says nothing of ourselves.
        let may = if ourselves { self.0.rules.enabled } else { self.0.rules.allow(server) };
        if !may {
            return Err(RemoteError::Forbidden(server.to_owned()));
        }
        let begun = self.0.time.now_ms();
        let before = self.destination(server).await?;
        if !options.despite_back_off
            && let Some(until_ts) = before.as_ref().and_then(|before| back_off::backing_off_until(before, begun))
        {
            return Err(RemoteError::BackingOff { until_ts });
        }
        // Discovery's time counts, too.
        let outcome = tokio::time::timeout(options.limits.timeout, exchange).await.unwrap_or(Err(RemoteError::Timeout));
        metrics::counter!("hearth_remote_requests_total", "outcome" => outcome_name(&outcome)).increment(1);
        let verdict = match &outcome {
            Ok(_) => Verdict::Well,
            Err(RemoteError::Timeout | RemoteError::Refused { .. } | RemoteError::Broken(_)) if options.is_aside => {
                Verdict::Nothing
            }
            Err(RemoteError::Request(_)) => Verdict::Nothing,
            Err(error) => verdict(error),
        };
        match (verdict, &outcome) {
            (Verdict::Nothing, _) => {}
            (Verdict::Fails, Err(error)) => self.failed(server, begun, error.to_string()).await?,
            _ => {
                let failed = before.as_ref().is_some_and(|before| before.failures > 0);
                self.succeeded(server, before).await?;
                if failed {
                    // What waits for it need not wait for its time.
                    self.tell_life(server);
                }
            }
        }
        outcome
    }

    /// A request, signed if need be, to where the server is.
    pub(crate) async fn addressed(
        &self,
        server: &ServerName,
        mut request: Request<Bytes>,
        signed: bool,
    ) -> Result<Request<Bytes>, RemoteError> {
        let unmakeable = |error: &dyn std::fmt::Display| RemoteError::Request(error.to_string());
        let target = request.uri().path_and_query().cloned().ok_or_else(|| unmakeable(&"no path"))?;
        if signed {
            let Inner { signing_key, server_name, .. } = &*self.0;
            let method = request.method().as_str();
            let signature =
                XMatrix::sign(&signing_key.get(), server_name, server, method, target.as_str(), request.body())
                    .map_err(|error| unmakeable(&error))?;
            let header = signature.to_header().ok_or_else(|| unmakeable(&"no header"))?;
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let host = self.0.discovery.answering_for(server).await;
        *request.uri_mut() = Uri::builder()
            .scheme("https")
            .authority(host.as_str())
            .path_and_query(target)
            .build()
            .map_err(|error| unmakeable(&error))?;
        if host.port() == Some(443) {
            // The client would leave the usual port out, but the specification wants what the name says.
            let value =
                host.as_str().try_into().map_err(|error| unmakeable(&error as &http::header::InvalidHeaderValue))?;
            request.headers_mut().insert(http::header::HOST, value);
        }
        Ok(request)
    }

    /// How it goes with a server, if we ever talked with it.
    pub async fn destination(&self, server: &ServerName) -> Result<Option<Destination>, StoreError> {
        let name = server.to_string();
        self.0.store.read(move |tx| tx.destinations().get(&name)).await
    }

    /// A server answers, but not so that it is of use, for a reason that only the sender can see: it is left alone for a while, like
    /// one that fails. Until when it is.
    pub async fn leave_alone(&self, server: &ServerName, reason: &RemoteError) -> Result<i64, StoreError> {
        let now = self.0.time.now_ms();
        self.failed(server, now, reason.to_string()).await?;
        Ok(self.destination(server).await?.map_or(now, |destination| destination.retry_ts))
    }

    /// Whether a server failed lately, so that nobody asks it anything without need.
    pub async fn is_resting(&self, server: &ServerName) -> Result<bool, StoreError> {
        let destination = self.destination(server).await?;
        let now = self.0.time.now_ms();
        Ok(destination.is_some_and(|destination| back_off::backing_off_until(&destination, now).is_some()))
    }

    /// A server has shown life, by a request of its own for example: it is tried again at once, but not more often than once a
    /// minute. Whether it can be reached is not known by that; what it is known for stays.
    pub async fn is_alive(&self, server: &ServerName) -> Result<(), StoreError> {
        let Inner { alive, revived, store, time, .. } = &*self.0;
        let now = time.now_ms();
        let lately = |when: Option<i64>| when.is_some_and(|since| now < since + ALIVE_FOR);
        if lately(alive.get(server)) || lately(revived.get(server)) {
            return Ok(());
        }
        // Of servers that we never talked to nothing is written down.
        if self.destination(server).await?.is_some_and(|before| before.failures > 0) {
            revived.insert(server.to_owned(), now);
            let name = server.to_string();
            let write = store.write([server_noun(server)], move |tx| {
                match tx.destinations().get(&name)?.and_then(|before| back_off::after_life(&before, now)) {
                    Some(after) => tx.destinations().put(&name, &after),
                    None => Ok(()),
                }
            });
            write.await?;
            self.tell_life(server);
        }
        alive.insert(server.to_owned(), now);
        Ok(())
    }

    /// Whether we sign with a key.
    pub(crate) fn signs_with(&self, key_id: &str, public_key: &[u8; 32]) -> bool {
        let key = self.0.signing_key.get();
        key.key_id() == key_id && key.public_key() == *public_key
    }

    /// Who waits for a server hears that it lives.
    pub(crate) fn tell_life(&self, server: &ServerName) {
        if let Some(listener) = self.0.on_life.get() {
            listener(server);
        }
    }

    async fn succeeded(&self, server: &ServerName, before: Option<Destination>) -> Result<(), StoreError> {
        let now = self.0.time.now_ms();
        self.0.keys.answers(server);
        if back_off::after_success(before.as_ref(), now).is_none() {
            return Ok(());
        }
        // Its life was no mere show: the next sign of it is believed at once, too.
        self.0.revived.remove(server);
        let name = server.to_string();
        let write = self.0.store.write([server_noun(server)], move |tx| {
            let before = tx.destinations().get(&name)?;
            match back_off::after_success(before.as_ref(), now) {
                Some(after) => tx.destinations().put(&name, &after),
                None => Ok(()),
            }
        });
        write.await
    }

    async fn failed(&self, server: &ServerName, begun: i64, error: String) -> Result<(), StoreError> {
        tracing::debug!(%server, error, "a request to a server failed");
        self.0.alive.remove(server);
        self.0.discovery.doubt(server);
        let (now, server, noun) = (self.0.time.now_ms(), server.to_owned(), server_noun(server));
        let write = self.0.store.write([noun], move |tx| {
            let before = tx.destinations().get(server.as_str())?.unwrap_or_default();
            match back_off::after_failure(&server, &before, begun, now, &error) {
                Some(after) => tx.destinations().put(server.as_str(), &after),
                None => Ok(()),
            }
        });
        write.await
    }
}

/// Our own keys as the ring keeps those of others: events of our users come back to us.
fn to_ring(own: &[OwnKey]) -> Vec<ServerKey> {
    let key = |own: &OwnKey| ServerKey {
        key_id: own.key_id.clone(),
        public_key: own.public_key,
        valid_until_ts: i64::MAX,
        expired_ts: own.expired_ts,
        from_itself: true,
    };
    own.iter().map(key).collect()
}

fn outcome_name<T>(outcome: &Result<T, RemoteError>) -> &'static str {
    match outcome {
        Ok(_) => "answered",
        Err(RemoteError::Refused { status, .. }) if status.is_server_error() => "failed",
        Err(RemoteError::Refused { .. }) => "refused",
        Err(RemoteError::Unresolvable(_)) => "unresolvable",
        Err(RemoteError::Unreachable(_) | RemoteError::Broken(_)) => "unreachable",
        Err(RemoteError::Tls(_)) => "tls",
        Err(RemoteError::Timeout) => "timeout",
        Err(RemoteError::TooLarge(_)) => "too_large",
        Err(_) => "other",
    }
}

fn is_object(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(body).is_ok()
}

fn read<R: IncomingResponse>(response: &Response<Bytes>) -> Result<R, RemoteError> {
    let mut borrowed = Response::new(&**response.body());
    *borrowed.status_mut() = response.status();
    *borrowed.headers_mut() = response.headers().clone();
    R::try_from_http_response(borrowed).map_err(|error| {
        RemoteError::Malformed(match error {
            FromHttpResponseError::Deserialization(error) => malformed(&error),
            _ => "no success".to_owned(),
        })
    })
}

fn malformed(error: &DeserializationError) -> String {
    error.to_string()
}

fn refusal(response: Response<Bytes>) -> RemoteError {
    #[derive(Default, serde::Deserialize)]
    struct MatrixError {
        #[serde(default)]
        errcode: String,
        #[serde(default)]
        error: String,
    }
    let (status, body) = (response.status(), response.into_body());
    let MatrixError { errcode, error } = serde_json::from_slice(&body).unwrap_or_default();
    RemoteError::Refused { status, errcode, message: error, body }
}
