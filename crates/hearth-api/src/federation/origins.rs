//! How much one server may ask at once: so much is worked at, some more waits, the rest is refused.
//!
//! An answer that is not read is still worked at: it stands in our memory. Media are bounded on their own.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use http_body::{Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::ApiError;

/// Requests of one server that are worked at.
const AT_ONCE: usize = 10;
/// Requests of one server that wait for that.
const WAITING: usize = 50;
/// Requests for the whole state of a room, which are worked at for one server.
const HEAVY_AT_ONCE: usize = 2;
/// How long a request waits.
const PATIENCE: Duration = Duration::from_secs(30);
/// What one that had to wait too long is told.
const RETRY_AFTER_MS: u64 = 5_000;

/// What other servers ask just now. Cheap to clone.
#[derive(Clone, Default)]
pub struct Origins(Arc<Mutex<HashMap<OwnedServerName, Origin>>>);

struct Origin {
    /// Requests at work and waiting.
    present: usize,
    places: Arc<Semaphore>,
    heavy: Arc<Semaphore>,
}

/// How much a request costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Weight {
    /// Little.
    Light,
    /// As much as a room has state.
    Heavy,
}

/// A request that is present, until this is dropped.
struct Presence {
    origins: Origins,
    server: OwnedServerName,
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut all = self.origins.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(origin) = all.get_mut(&self.server) {
            origin.present -= 1;
            if origin.present == 0 {
                all.remove(&self.server);
            }
        }
    }
}

/// A place to be worked at.
pub(super) struct Place {
    _permits: [Option<OwnedSemaphorePermit>; 2],
    _presence: Presence,
}

impl Origins {
    /// Waits for a place, but not for ever.
    pub(super) async fn place(&self, server: &ServerName, weight: Weight) -> Result<Place, ApiError> {
        let refuse = || ApiError::limit_exceeded(RETRY_AFTER_MS);
        let (presence, places, heavy) = self.enter(server).ok_or_else(refuse)?;
        let acquire = async {
            let heavy = match weight {
                Weight::Heavy => Some(heavy.acquire_owned().await.ok()?),
                Weight::Light => None,
            };
            Some([heavy, Some(places.acquire_owned().await.ok()?)])
        };
        let permits = tokio::time::timeout(PATIENCE, acquire).await.ok().flatten().ok_or_else(refuse)?;
        Ok(Place { _permits: permits, _presence: presence })
    }

    fn enter(&self, server: &ServerName) -> Option<(Presence, Arc<Semaphore>, Arc<Semaphore>)> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let origin = all.entry(server.to_owned()).or_insert_with(|| Origin {
            present: 0,
            places: Arc::new(Semaphore::new(AT_ONCE)),
            heavy: Arc::new(Semaphore::new(HEAVY_AT_ONCE)),
        });
        if origin.present >= AT_ONCE + WAITING {
            return None;
        }
        origin.present += 1;
        let presence = Presence { origins: self.clone(), server: server.to_owned() };
        Some((presence, origin.places.clone(), origin.heavy.clone()))
    }
}

impl Place {
    /// Keeps the place until an answer is read, or given up.
    pub(super) fn until_read(self, answer: Response) -> Response {
        answer.map(|body| Body::new(Held { body, _place: self }))
    }
}

struct Held {
    body: Body,
    _place: Place,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_server_has_so_many_places_and_others_have_theirs() {
        let (origins, here) = (Origins::default(), <&ServerName>::try_from("a.org").unwrap());
        let mut heavy = Vec::new();
        for _ in 0..HEAVY_AT_ONCE {
            heavy.push(origins.place(here, Weight::Heavy).await.unwrap());
        }
        assert!(origins.place(here, Weight::Heavy).await.is_err(), "the third waits in vain");
        let mut light = Vec::new();
        for _ in HEAVY_AT_ONCE..AT_ONCE {
            light.push(origins.place(here, Weight::Light).await.unwrap());
        }
        let waiting: Vec<_> = (0..WAITING)
            .map(|_| {
                let origins = origins.clone();
                tokio::spawn(async move { origins.place("a.org".try_into().unwrap(), Weight::Light).await.is_ok() })
            })
            .collect();
        tokio::task::yield_now().await;
        let begun = tokio::time::Instant::now();
        assert!(origins.place(here, Weight::Light).await.is_err());
        assert_eq!(begun.elapsed(), Duration::ZERO, "refused at once");
        assert!(origins.place("b.org".try_into().unwrap(), Weight::Heavy).await.is_ok());
        // An answer that is not read keeps its place; one that is given up leaves it.
        let answer = light.pop().unwrap().until_read(Response::new(Body::from("x")));
        tokio::task::yield_now().await;
        assert!(waiting.iter().all(|waiting| !waiting.is_finished()));
        drop(answer);
        for waiting in waiting {
            assert!(waiting.await.unwrap());
        }
        drop((heavy, light));
        assert!(origins.0.lock().unwrap().is_empty());
    }
}
