//! Those who wait for media that is being uploaded or fetched: woken when it is there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hearth_store::MediaPlace;
use tokio::sync::Notify;

/// Who waits for what.
#[derive(Clone, Default)]
pub(crate) struct Awaited(Arc<Mutex<HashMap<MediaPlace, Arc<Notify>>>>);

/// Somebody waits, as long as this lives.
pub(crate) struct Wait {
    all: Awaited,
    place: MediaPlace,
    notify: Option<Arc<Notify>>,
}

impl Awaited {
    /// Begins to wait. What comes from now on is heard of.
    pub(crate) fn wait(&self, place: &MediaPlace) -> Wait {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let notify = all.entry(place.clone()).or_default().clone();
        Wait { all: self.clone(), place: place.clone(), notify: Some(notify) }
    }

    /// It is there.
    pub(crate) fn is_there(&self, place: &MediaPlace) {
        if let Some(notify) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(place) {
            notify.notify_waiters();
        }
    }
}

impl Wait {
    /// Waits until it is there. To be made before looking whether it is.
    pub(crate) fn until_there(&self) -> impl Future<Output = ()> + Send + use<> {
        let notified = self.notify.clone().map(Notify::notified_owned);
        async move {
            if let Some(notified) = notified {
                notified.await;
            }
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        self.notify = None;
        // Only the map knows it any more.
        if all.get(&self.place).is_some_and(|notify| Arc::strong_count(notify) == 1) {
            all.remove(&self.place);
        }
    }
}
