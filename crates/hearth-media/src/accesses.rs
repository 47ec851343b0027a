//! When media was last looked at: noted in memory, written down now and then. It need not be exact.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use hearth_store::{MediaPlace, StoreError};

use crate::Media;

/// It is written down again no sooner than this.
pub(crate) const EVERY_MS: i64 = 6 * 60 * 60 * 1000;
/// So many are noted between two rounds; more are not.
const MOST: usize = 100_000;
const BATCH: usize = 500;

/// What was looked at, and when.
#[derive(Default)]
pub(crate) struct Accesses(Mutex<HashMap<MediaPlace, i64>>);

impl Accesses {
    /// Somebody looks at media that was last looked at at some time.
    pub(crate) fn note(&self, place: &MediaPlace, before_ts: i64, now: i64) {
        if now - before_ts < EVERY_MS {
            return;
        }
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.len() < MOST || noted.contains_key(place) {
            noted.insert(place.clone(), now);
        }
    }

    fn take(&self) -> Vec<(MediaPlace, i64)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

impl Media {
    /// Writes down what was looked at.
    pub async fn write_accesses(&self) -> Result<(), StoreError> {
        for batch in self.accesses().take().chunks(BATCH) {
            let batch = batch.to_vec();
            let write = self.store().write_quiet(Vec::new(), move |tx| {
                for (place, ts) in &batch {
                    tx.media().accessed(place, *ts)?;
                }
                Ok(())
            });
            write.await?;
        }
        Ok(())
    }
}
