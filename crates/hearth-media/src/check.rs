//! Whether database and media storage agree: bytes that are missing, and bytes that nobody knows.

use hearth_store::{Blob, BlobNum, StoreError};

use crate::Media;
use crate::housekeeping::LOOSE_FOR_MS;
use crate::keep::blob_noun;
use crate::storage::hexadecimal;

const BATCH: i64 = 500;
/// So many are named; all are counted.
const MOST_NAMED: usize = 100;

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Blobs in the media storage.
    pub blobs: u64,
    /// Of how many the bytes are missing, or not as many as there should be.
    pub missing: u64,
    /// Some of them, by their hash.
    pub missing_named: Vec<String>,
    /// Files in the media storage that the database does not know.
    pub unknown: u64,
    /// How many of them were deleted.
    pub deleted: u64,
}

/// Why it can't be checked.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// Our own database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The media storage.
    #[error("the media storage: {0}")]
    Storage(#[from] std::io::Error),
}

impl Media {
    /// Compares the database with the media storage. With `repair`, files that the database does not know are deleted; what
    /// is missing can only come back from a backup, or from whoever uploads it again.
    pub async fn check(&self, repair: bool) -> Result<Findings, CheckError> {
        let mut findings = Findings::default();
        let mut after = BlobNum(i64::MIN);
        loop {
            let blobs = self.store().read(move |tx| tx.blobs().in_storage(after, BATCH)).await?;
            for blob in &blobs {
                findings.blobs += 1;
                if !self.is_whole(blob).await? && self.is_still_there(blob).await? {
                    findings.missing += 1;
                    if findings.missing_named.len() < MOST_NAMED {
                        findings.missing_named.push(hexadecimal(&blob.sha256));
                    }
                }
                after = blob.num;
            }
            if (blobs.len() as i64) < BATCH {
                break;
            }
        }
        for shard in 0..=u8::MAX {
            for sha256 in self.storage().list(shard).await? {
                let known = self.store().read(move |tx| tx.blobs().belongs_in_storage(&sha256)).await?;
                if known {
                    continue;
                }
                findings.unknown += 1;
                if repair && self.delete_unknown(sha256).await? {
                    findings.deleted += 1;
                }
            }
        }
        Ok(findings)
    }

    async fn is_whole(&self, blob: &Blob) -> Result<bool, CheckError> {
        let size = self.storage().size(&blob.sha256).await?;
        Ok(size.and_then(|size| i64::try_from(size).ok()) == Some(blob.size))
    }

    /// Whether it was not just deleted, while we looked.
    async fn is_still_there(&self, blob: &Blob) -> Result<bool, CheckError> {
        let after = BlobNum(blob.num.0 - 1);
        let found = self.store().read(move |tx| tx.blobs().in_storage(after, 1)).await?;
        Ok(found.first().is_some_and(|found| found.num == blob.num))
    }

    /// Deletes a file that nobody knows, unless somebody brings it at this moment.
    async fn delete_unknown(&self, sha256: [u8; 32]) -> Result<bool, CheckError> {
        // If we can't finish, the collector does.
        let since = self.now() - LOOSE_FOR_MS - 1;
        let noun = blob_noun(&sha256);
        let doomed = self.store().write([noun.clone()], move |tx| tx.blobs().doom(&sha256, since)).await?;
        let Some(num) = doomed else { return Ok(false) };
        self.storage().delete(&sha256).await?;
        self.store().write_quiet([noun], move |tx| tx.blobs().deleted(num)).await?;
        Ok(true)
    }
}
