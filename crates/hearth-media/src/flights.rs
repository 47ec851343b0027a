//! Work that several wait for: begun by the first who wants it, not ended by his going away.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, FutureExt as _, Shared};

/// The end of a flight; nothing if it was given up.
pub(crate) type Flight<T> = Shared<BoxFuture<'static, Option<T>>>;

/// What is under way.
pub(crate) struct Flights<K, T: Clone> {
    all: Arc<Mutex<HashMap<K, Flight<T>>>>,
    most: usize,
}

impl<K, T> Flights<K, T>
where
    K: Clone + Eq + Hash + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    pub(crate) fn new(most: usize) -> Self {
        Self { all: Arc::default(), most }
    }

    /// Waits for the work that is under way for a key, or begins it. Nothing if too much is under way.
    pub(crate) fn join(&self, key: K, work: impl Future<Output = T> + Send + 'static) -> Option<Flight<T>> {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(flight) = all.get(&key) {
            return Some(flight.clone());
        }
        if all.len() >= self.most {
            return None;
        }
        let (flights, own) = (self.all.clone(), key.clone());
        let task = tokio::spawn(async move {
            // Also when the work panics.
            let _landing = Landing { flights, key: own };
            work.await
        });
        let flight = async move { task.await.ok() }.boxed().shared();
        all.insert(key, flight.clone());
        Some(flight)
    }
}

struct Landing<K: Eq + Hash, T: Clone> {
    flights: Arc<Mutex<HashMap<K, Flight<T>>>>,
    key: K,
}

impl<K: Eq + Hash, T: Clone> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
