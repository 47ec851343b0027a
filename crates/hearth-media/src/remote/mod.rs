//! Media of other servers: fetched when it is asked for first, then kept.
//!
//! Several who want the same wait for one fetch, which goes on when they go away. What could not be had is not asked for
//! again for a while. A server that does not know the paths of today is asked at those of old, without a signature. A server
//! that is slow or never ends holds up those only who want something of it, and not for ever.
//! Spec: server-server API, "Content Repository".

mod fetch;
pub(crate) mod multipart;
mod thumbnail;

use hearth_matrix::ruma::ServerName;
use hearth_remote::Remote;
use hearth_store::{MediaPlace, ThumbnailKind};
use quick_cache::sync::Cache;

use crate::Media;
use crate::flights::Flights;
use crate::turns::Turns;

/// So many fetches at once, in all and of one server, and so many more of one may wait.
const AT_ONCE: usize = 256;
const AT_ONCE_OF_SERVER: usize = 8;
const MOST_OF_SERVER: usize = 128;
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

/// What is fetched of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// The file.
    File,
    /// A thumbnail that the server makes of it.
    Thumbnail(ThumbnailKind),
}

/// What is being fetched, and what could not be.
pub(crate) struct Fetches {
    pub(crate) remote: Option<Remote>,
    flights: Flights<MediaPlace, Result<(), FetchError>>,
    turns: Turns,
    failures: Cache<MediaPlace, (FetchError, i64)>,
}

impl Fetches {
    pub(crate) fn new(remote: Option<Remote>) -> Self {
        Self {
            remote,
            flights: Flights::new(MOST),
            turns: Turns::new(AT_ONCE, AT_ONCE_OF_SERVER, MOST_OF_SERVER),
            failures: Cache::new(MOST_FAILURES),
        }
    }
}

impl Media {
    /// Fetches media of another server, so that it is here then, at the place that it has here.
    pub(crate) async fn fetch(&self, place: &MediaPlace, what: What, patience_ms: u64) -> Result<(), FetchError> {
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
            let outcome = media.fetch_in_turn(&server, &wanted, what, patience_ms).await;
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
            Err(FetchError::Busy) => "busy",
            Err(_) => "failed",
        };
        metrics::counter!("hearth_media_fetches_total", "outcome" => name).increment(1);
        if let Err(error) = outcome {
            tracing::debug!(%server, media_id = place.media_id, %error, "media of another server is not to be had");
            let until = self.now() + error.is_true_for_ms();
            self.fetches().failures.insert(place, (error.clone(), until));
        }
    }

    async fn fetch_in_turn(
        &self,
        server: &ServerName,
        place: &MediaPlace,
        what: What,
        patience_ms: u64,
    ) -> Result<(), FetchError> {
        let turn = self.fetches().turns.turn(server.as_str(), self.config().times.turn).await;
        let _turn = turn.ok_or(FetchError::Busy)?;
        self.fetch_now(server, place, what, patience_ms).await
    }
}
