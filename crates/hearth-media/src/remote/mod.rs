//! Media of other servers: fetched when it is asked for first, then kept.
//!
//! Several who want the same wait for one fetch, which goes on when they go away. What could not be had is not asked for
//! again for a while. A server that does not know the paths of today is asked at those of old, without a signature.
//! Spec: server-server API, "Content Repository".

mod fetch;
pub(crate) mod multipart;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_remote::Remote;
use hearth_store::MediaPlace;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::Media;
use crate::flights::Flights;

/// So many fetches at once, in all and of one server.
const AT_ONCE: usize = 64;
const AT_ONCE_OF_SERVER: usize = 8;
/// So many may be under way or wait.
const MOST: usize = 4_096;
/// So many failures are remembered.
const MOST_FAILURES: usize = 20_000;
/// How long: what is not there may come, what is too large stays so.
const MISSING_FOR_MS: i64 = 5 * 60 * 1000;
const TOO_LARGE_FOR_MS: i64 = 60 * 60 * 1000;
const FAILED_FOR_MS: i64 = 30 * 1000;

/// Why media of another server is not to be had.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum FetchError {
    /// The server does not have it, or is not asked.
    #[error("the server does not have it")]
    NotFound,
    /// It will be uploaded there.
    #[error("it has not been uploaded there yet")]
    NotYetUploaded,
    /// It is too large for us or for them.
    #[error("it is too large")]
    TooLarge,
    /// The server does not answer, or talks nonsense.
    #[error("{0}")]
    Failed(String),
    /// Too much is being fetched.
    #[error("too much is being fetched")]
    Busy,
    /// Our own storage or database.
    #[error("{0}")]
    Internal(String),
}

impl FetchError {
    /// For how long it is not tried again.
    fn is_true_for_ms(&self) -> i64 {
        match self {
            Self::NotFound => MISSING_FOR_MS,
            Self::TooLarge => TOO_LARGE_FOR_MS,
            Self::Failed(_) => FAILED_FOR_MS,
            Self::NotYetUploaded | Self::Busy | Self::Internal(_) => 0,
        }
    }
}

/// What is being fetched, and what could not be.
pub(crate) struct Fetches {
    pub(crate) remote: Option<Remote>,
    flights: Flights<MediaPlace, Result<(), FetchError>>,
    servers: Mutex<HashMap<OwnedServerName, Arc<Semaphore>>>,
    all: Semaphore,
    failures: Cache<MediaPlace, (FetchError, i64)>,
}

impl Fetches {
    pub(crate) fn new(remote: Option<Remote>) -> Self {
        Self {
            remote,
            flights: Flights::new(MOST),
            servers: Mutex::default(),
            all: Semaphore::new(AT_ONCE),
            failures: Cache::new(MOST_FAILURES),
        }
    }

    fn of_server(&self, server: &ServerName) -> Arc<Semaphore> {
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        // Those that nobody uses are at rest.
        if servers.len() > MOST {
            servers.retain(|_, permits| Arc::strong_count(permits) > 1);
        }
        servers.entry(server.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(AT_ONCE_OF_SERVER))).clone()
    }
}

impl Media {
    /// Fetches media of another server, so that it is here then.
    pub(crate) async fn fetch(&self, place: &MediaPlace, patience_ms: u64) -> Result<(), FetchError> {
        let fetches = self.fetches();
        let now = self.now();
        if let Some((error, until)) = fetches.failures.get(place)
            && now < until
        {
            return Err(error);
        }
        let Ok(server) = ServerName::parse(&place.origin) else { return Err(FetchError::NotFound) };
        let (media, wanted) = (self.clone(), place.clone());
        let work = async move {
            let outcome = media.fetch_in_turn(&server, &wanted, patience_ms).await;
            media.note_fetch(&server, wanted, &outcome);
            outcome
        };
        let flight = fetches.flights.join(place.clone(), work).ok_or(FetchError::Busy)?;
        flight.await.unwrap_or_else(|| Err(FetchError::Internal("the work was given up".to_owned())))
    }

    fn note_fetch(&self, server: &ServerName, place: MediaPlace, outcome: &Result<(), FetchError>) {
        let name = match outcome {
            Ok(()) => "fetched",
            Err(FetchError::NotFound) => "not_found",
            Err(FetchError::NotYetUploaded) => "not_yet_uploaded",
            Err(FetchError::TooLarge) => "too_large",
            Err(_) => "failed",
        };
        metrics::counter!("hearth_media_fetches_total", "outcome" => name).increment(1);
        if let Err(error) = outcome {
            tracing::debug!(%server, media_id = place.media_id, %error, "media of another server is not to be had");
            let until = self.now() + error.is_true_for_ms();
            self.fetches().failures.insert(place, (error.clone(), until));
        }
    }

    async fn fetch_in_turn(&self, server: &ServerName, place: &MediaPlace, patience_ms: u64) -> Result<(), FetchError> {
        let closed = |_| FetchError::Internal("closed".to_owned());
        let permits = self.fetches().of_server(server);
        let _of_server = permits.acquire().await.map_err(closed)?;
        let _of_all = self.fetches().all.acquire().await.map_err(closed)?;
        self.fetch_now(server, place, patience_ms).await
    }
}
