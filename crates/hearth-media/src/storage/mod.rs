//! The media storage: bytes by their hash, without transactions.
//!
//! Bytes come to a local file first, in any case: only then their hash is known. Who may delete what is the store's business.

mod disk;
mod s3;

use std::io;
use std::ops::Range;
use std::path::Path;

use hearth_store::WallTime;

use crate::{Content, StorageConfig};
pub(crate) use disk::{Disk, Incoming, aside, hexadecimal, parse_hexadecimal};
use s3::S3;
pub use s3::S3Config;

/// A place for blobs.
pub(crate) enum Storage {
    Disk(Disk),
    S3(Box<S3>),
}

impl Storage {
    /// Makes it ready.
    pub(crate) async fn open(config: &StorageConfig, time: &WallTime) -> io::Result<Self> {
        match config {
            StorageConfig::Disk(directory) => Disk::open(directory).await.map(Self::Disk),
            StorageConfig::S3(config, client) => {
                S3::open(config, (**client).clone(), time.clone()).await.map(|s3| Self::S3(Box::new(s3)))
            }
        }
    }

    /// A file for bytes that come.
    pub(crate) async fn receive(&self) -> io::Result<Incoming> {
        match self {
            Self::Disk(disk) => disk.receive().await,
            Self::S3(s3) => s3.receive().await,
        }
    }

    /// Keeps what has come; durable when it returns. What is there already is left there.
    pub(crate) async fn keep(&self, incoming: Incoming, sha256: &[u8; 32]) -> io::Result<()> {
        match self {
            Self::Disk(disk) => disk.keep(incoming, sha256).await,
            Self::S3(s3) => s3.keep(incoming, sha256).await,
        }
    }

    /// Gives up what was begun before a time elsewhere and never finished. How many it were.
    pub(crate) async fn give_up_unfinished(&self, before_ms: i64) -> io::Result<u64> {
        match self {
            // What comes to a directory goes with the process.
            Self::Disk(_) => Ok(0),
            Self::S3(s3) => s3.give_up_unfinished(before_ms).await,
        }
    }

    /// The bytes in a range, which are within the blob.
    pub(crate) async fn read(&self, sha256: &[u8; 32], range: Range<u64>) -> io::Result<Content> {
        match self {
            Self::Disk(disk) => disk.read(sha256, range).await,
            Self::S3(s3) => s3.read(sha256, range).await,
        }
    }

    /// The size of a blob, if it is there.
    pub(crate) async fn size(&self, sha256: &[u8; 32]) -> io::Result<Option<u64>> {
        match self {
            Self::Disk(disk) => disk.size(sha256).await,
            Self::S3(s3) => s3.size(sha256).await,
        }
    }

    /// The blobs whose hash begins with a byte; those lately kept may be missing from the list.
    pub(crate) async fn list(&self, shard: u8) -> io::Result<Vec<[u8; 32]>> {
        match self {
            Self::Disk(disk) => disk.list(shard).await,
            Self::S3(s3) => s3.list(shard).await,
        }
    }

    /// Deletes a blob, if it is there.
    pub(crate) async fn delete(&self, sha256: &[u8; 32]) -> io::Result<()> {
        match self {
            Self::Disk(disk) => disk.delete(sha256).await,
            Self::S3(s3) => s3.delete(sha256).await,
        }
    }
}

/// The place in words, for errors.
pub(crate) fn place(config: &StorageConfig) -> String {
    match config {
        StorageConfig::Disk(directory) => Path::display(directory).to_string(),
        StorageConfig::S3(config, _) => format!("s3://{}/{}", config.bucket, config.prefix),
    }
}
