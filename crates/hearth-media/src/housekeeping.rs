//! What is done now and then: what nobody uploaded is forgotten, what nothing uses is deleted.

use std::time::Duration;

use hearth_store::{Collected, StoreError};

use crate::Media;
use crate::keep::blob_noun;
use crate::preview::KEPT_FOR_MS;

/// How often.
const EVERY: Duration = Duration::from_secs(60);
const BATCH: i64 = 200;
/// A blob that lost its use is kept for so long: somebody may be about to use it.
const LOOSE_FOR_MS: i64 = 60 * 60 * 1000;
/// A place that was not used is remembered for so long after its time.
const OVERDUE_FOR_MS: i64 = 60 * 60 * 1000;

impl Media {
    /// Keeps house for ever.
    pub async fn keep_house(self) {
        let mut rounds = tokio::time::interval(EVERY);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if let Err(error) = self.keep_house_once().await {
                tracing::warn!(%error, "housekeeping of media failed");
            }
        }
    }

    /// One round.
    pub async fn keep_house_once(&self) -> Result<(), StoreError> {
        self.write_accesses().await?;
        self.forget_overdue().await?;
        let old = self.now() - KEPT_FOR_MS;
        self.store().write_quiet(Vec::new(), move |tx| tx.previews().sweep(old)).await?;
        self.collect().await
    }

    async fn forget_overdue(&self) -> Result<(), StoreError> {
        let now = self.now();
        loop {
            let sweep = self.store().write_quiet(Vec::new(), move |tx| {
                let overdue = tx.media().overdue(now - OVERDUE_FOR_MS, BATCH)?;
                for place in &overdue {
                    tx.media().delete(place, now)?;
                }
                Ok(overdue.len())
            });
            if (sweep.await? as i64) < BATCH {
                return Ok(());
            }
        }
    }

    /// Deletes the bytes that nothing uses any more.
    async fn collect(&self) -> Result<(), StoreError> {
        let (now, before) = (self.now(), self.now() - LOOSE_FOR_MS);
        loop {
            let loose = self.store().read(move |tx| tx.blobs().loose(before, BATCH)).await?;
            let mut settled = 0;
            for (num, sha256) in &loose {
                let (num, noun) = (*num, blob_noun(sha256));
                let collect = self.store().write_quiet([noun.clone()], move |tx| tx.blobs().collect(num, before, now));
                match collect.await? {
                    Collected::Settled => settled += 1,
                    Collected::Delete(sha256) => match self.storage().delete(&sha256).await {
                        Ok(()) => {
                            self.store().write_quiet([noun], move |tx| tx.blobs().deleted(num)).await?;
                            settled += 1;
                        }
                        Err(error) => tracing::warn!(%error, "a blob that nothing uses can't be deleted"),
                    },
                }
                self.memory().remove(&num);
            }
            if (loose.len() as i64) < BATCH || settled == 0 {
                return Ok(());
            }
        }
    }
}
