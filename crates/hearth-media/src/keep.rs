//! From bytes that have come to a blob: what is done before the commit that gives it a use, and in it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use hearth_store::{BlobClaim, BlobNum, Noun, StoreError, Tx};

use crate::Media;
use crate::receive::{Received, ReceivedBytes};

/// So long a blob is waited for that is just being deleted.
const GOING: Duration = Duration::from_millis(20);
const MOST_WAITS: u32 = 500;

/// Bytes that are durable, or will be with the next commit; no use of them is written down yet.
#[derive(Clone)]
pub(crate) struct Kept {
    pub(crate) sha256: [u8; 32],
    pub(crate) size: i64,
    place: Place,
}

#[derive(Clone)]
enum Place {
    /// To be written by the commit.
    Commit(Bytes),
    /// In the media storage, claimed.
    Storage(BlobNum),
}

/// Why bytes can't be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the media storage: {0}")]
    Storage(#[from] io::Error),
}

impl Media {
    /// Brings bytes where they belong.
    pub(crate) async fn keep(&self, received: Received) -> Result<Kept, KeepError> {
        let Received { sha256, size, bytes } = received;
        let size = i64::try_from(size).unwrap_or(i64::MAX);
        let file = match bytes {
            ReceivedBytes::Small(bytes) => return Ok(Kept { sha256, size, place: Place::Commit(bytes) }),
            ReceivedBytes::Large(file) => file,
        };
        let mut waits = 0;
        let num = loop {
            let now = self.now();
            let claim = self.store().write([blob_noun(&sha256)], move |tx| tx.blobs().claim(&sha256, size, now));
            match claim.await? {
                BlobClaim::Store(num) | BlobClaim::Stored(num) => break num,
                BlobClaim::Going if waits < MOST_WAITS => {
                    waits += 1;
                    tokio::time::sleep(GOING).await;
                }
                BlobClaim::Going => return Err(io::Error::other("a blob takes too long to be deleted").into()),
            }
        };
        self.storage().keep(file, &sha256).await?;
        Ok(Kept { sha256, size, place: Place::Storage(num) })
    }
}

impl Kept {
    /// What the commit must lock.
    pub(crate) fn noun(&self) -> Noun {
        blob_noun(&self.sha256)
    }

    /// In the commit that gives the blob a use: its number. None if it was collected, because the commit came too late.
    pub(crate) fn settle(&self, tx: &mut Tx<'_>) -> Result<Option<BlobNum>, StoreError> {
        match &self.place {
            Place::Commit(bytes) => tx.blobs().keep(&self.sha256, bytes).map(Some),
            Place::Storage(num) => Ok(tx.blobs().stored(*num)?.then_some(*num)),
        }
    }
}

/// The lock of a blob.
pub(crate) fn blob_noun(sha256: &[u8; 32]) -> Noun {
    Noun::Name(format!("blob:{}", crate::storage::hexadecimal(sha256)))
}
