//! What is done now and then: what nobody uploaded is forgotten, what nothing uses is deleted.

use std::time::Duration;

use hearth_store::{Collected, MediaPage, StoreError};

use crate::Media;
use crate::keep::blob_noun;
use crate::preview::KEPT_FOR_MS;

/// How often.
const EVERY: Duration = Duration::from_secs(60);
const BATCH: i64 = 200;
/// A blob that lost its use is kept for so long: somebody may be about to use it.
pub(crate) const LOOSE_FOR_MS: i64 = 60 * 60 * 1000;
/// A place that was not used is remembered for so long after its time.
const OVERDUE_FOR_MS: i64 = 60 * 60 * 1000;
/// No upload to a bucket takes so long: whoever began it has died.
const UNFINISHED_FOR_MS: i64 = 24 * 60 * 60 * 1000;

/// What nobody has looked at since before a time, the longest first.
#[derive(Clone, Copy)]
enum Unseen {
    OfOurs(i64),
    OfOthers(i64),
}

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
        if self.is_time_for_retention() {
            self.retain().await?;
            self.give_up_unfinished().await;
        }
        self.collect().await
    }

    /// Uploads to a bucket whose node died: their parts are paid for until somebody gives them up.
    async fn give_up_unfinished(&self) {
        match self.storage().give_up_unfinished(self.now() - UNFINISHED_FOR_MS).await {
            Ok(0) => {}
            Ok(given_up) => tracing::info!(given_up, "unfinished uploads to the bucket were given up"),
            Err(error) => tracing::warn!(%error, "unfinished uploads to the bucket can't be looked for"),
        }
    }

    /// Lets go of what nobody looks at any more, and of more when it is too much.
    async fn retain(&self) -> Result<(), StoreError> {
        let (now, config) = (self.now(), self.config());
        let before =
            |kept: Option<Duration>| kept.map(|kept| now - i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        if let Some(before) = before(config.kept_for.ours) {
            self.forget(Unseen::OfOurs(before), |_| true).await?;
        }
        if let Some(before) = before(config.kept_for.of_others) {
            self.forget(Unseen::OfOthers(before), |_| true).await?;
        }
        let size = self.store().read(|tx| tx.media().size_of_others()).await?;
        metrics::gauge!("hearth_media_remote_bytes").set(size as f64);
        if let Some(most) = config.most_remote_bytes.and_then(|most| i64::try_from(most).ok()) {
            let mut over = size - most;
            let goes = move |page: &MediaPage| {
                let goes = over > 0;
                over -= page.size;
                goes
            };
            self.forget(Unseen::OfOthers(i64::MAX), goes).await?;
        }
        Ok(())
    }

    /// Deletes what is on one page after another, until something stays.
    async fn forget(&self, unseen: Unseen, mut goes: impl FnMut(&MediaPage) -> bool + Send) -> Result<(), StoreError> {
        loop {
            let next = self.store().read(move |tx| match unseen {
                Unseen::OfOurs(before) => tx.media().of_ours(before, BATCH),
                Unseen::OfOthers(before) => tx.media().of_others(before, BATCH),
            });
            let pages = next.await?;
            let mut gone = 0;
            for page in &pages {
                if !goes(page) {
                    return Ok(());
                }
                gone += i64::from(self.delete_one(&page.place, 0).await?);
            }
            metrics::counter!("hearth_media_forgotten_total").increment(gone.unsigned_abs());
            if (pages.len() as i64) < BATCH || gone == 0 {
                return Ok(());
            }
        }
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
    pub(crate) async fn collect(&self) -> Result<(), StoreError> {
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
