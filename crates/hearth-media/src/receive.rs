//! Receiving bytes: counted, hashed, and written to a file once they are too many for the memory.

use std::io;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};

use crate::content::{Content, ContentError};
use crate::storage::{Incoming, Storage, aside};

/// Blobs up to this size are kept in the database.
pub(crate) const SMALL: usize = 64 * 1024;
/// So much is gathered before it is written.
const PIECE: usize = 256 * 1024;

/// How slowly bytes may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// So long the next ones may take.
    pub next_bytes: Duration,
    /// So long all of them may take, even if they are few.
    pub whole: Duration,
    /// For each of so many bytes they may take a second more.
    pub bytes_per_second: u64,
}

impl Pace {
    /// For what is at hand.
    pub(crate) const AT_HAND: Self = Self::steady(Duration::from_secs(60), Duration::from_secs(300), 1024);

    pub(crate) const fn steady(next_bytes: Duration, whole: Duration, bytes_per_second: u64) -> Self {
        Self { next_bytes, whole, bytes_per_second }
    }
}

/// Bytes that are all here.
pub(crate) struct Received {
    pub(crate) sha256: [u8; 32],
    pub(crate) size: u64,
    pub(crate) bytes: ReceivedBytes,
}

impl Received {
    /// All of them, in memory.
    pub(crate) async fn all(&self) -> io::Result<Bytes> {
        match &self.bytes {
            ReceivedBytes::Small(bytes) => Ok(bytes.clone()),
            ReceivedBytes::Large(file) => file.all().await.map(Bytes::from),
        }
    }
}

/// Where they are.
pub(crate) enum ReceivedBytes {
    Small(Bytes),
    Large(Incoming),
}

/// Why they are not all here.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiveError {
    #[error("more than {0} bytes")]
    TooLarge(u64),
    #[error("the bytes came too slowly")]
    TooSlow,
    #[error(transparent)]
    Interrupted(#[from] ContentError),
    #[error(transparent)]
    Storage(#[from] io::Error),
}

/// Receives bytes, up to a limit and no slower than a pace.
pub(crate) async fn receive(
    storage: &Storage,
    mut content: Content,
    limit: u64,
    pace: Pace,
) -> Result<Received, ReceiveError> {
    let began = tokio::time::Instant::now();
    let mut gathered = BytesMut::new();
    let mut large: Option<Writer> = None;
    let mut size = 0_u64;
    loop {
        let next = tokio::time::timeout(pace.next_bytes, content.next()).await.map_err(|_| ReceiveError::TooSlow)?;
        let Some(bytes) = next else { break };
        let bytes = bytes?;
        size += bytes.len() as u64;
        if size > limit {
            return Err(ReceiveError::TooLarge(limit));
        }
        if began.elapsed() > pace.whole + Duration::from_secs(size / pace.bytes_per_second.max(1)) {
            return Err(ReceiveError::TooSlow);
        }
        gathered.extend_from_slice(&bytes);
        if gathered.len() >= PIECE || (large.is_none() && gathered.len() > SMALL) {
            let writer = match large.take() {
                Some(writer) => writer,
                None => Writer { file: storage.receive().await?, hash: Sha256::new() },
            };
            large = Some(writer.write(gathered.split().freeze()).await?);
        }
    }
    match large {
        None => {
            let bytes = gathered.freeze();
            Ok(Received { sha256: Sha256::digest(&bytes).into(), size, bytes: ReceivedBytes::Small(bytes) })
        }
        Some(writer) => {
            let Writer { file, hash } = writer.write(gathered.freeze()).await?;
            Ok(Received { sha256: hash.finalize().into(), size, bytes: ReceivedBytes::Large(file) })
        }
    }
}

struct Writer {
    file: Incoming,
    hash: Sha256,
}

impl Writer {
    /// Writes bytes aside: both the disk and the hash take their time.
    async fn write(mut self, bytes: Bytes) -> io::Result<Self> {
        aside(move || {
            self.hash.update(&bytes);
            self.file.write(&bytes)?;
            Ok(self)
        })
        .await
    }
}
