//! The handle of the media repository, and its parts.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use hearth_remote::Remote;
use hearth_store::{BlobNum, Store, WallTime};
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use crate::MediaConfig;
use crate::accesses::Accesses;
use crate::awaited::Awaited;
use crate::known::Known;
use crate::preview::Previews;
use crate::remote::Fetches;
use crate::storage::{self, Storage};
use crate::thumbnail::Workshop;

/// So many bytes of small blobs stay in memory.
const MEMORY: u64 = 16 * 1024 * 1024;
const ABOUT: usize = 1024;
/// How often it is looked for what nobody looks at any more.
const RETAIN_EVERY_MS: i64 = 60 * 60 * 1000;

/// The media repository. Cheap to clone.
#[derive(Clone)]
pub struct Media(Arc<Inner>);

struct Inner {
    config: MediaConfig,
    store: Store,
    time: WallTime,
    storage: Storage,
    memory: Arc<Memory>,
    awaited: Awaited,
    accesses: Accesses,
    known: Known,
    workshop: Workshop,
    fetches: Fetches,
    previews: Previews,
    retained_ts: AtomicI64,
}

/// Small blobs that were read lately. What a number stands for never changes.
pub(crate) type Memory = Cache<BlobNum, Bytes, BySize>;

#[derive(Clone)]
pub(crate) struct BySize;

impl Weighter<BlobNum, Bytes> for BySize {
    fn weight(&self, _: &BlobNum, bytes: &Bytes) -> u64 {
        bytes.len() as u64 + 64
    }
}

/// Why the media storage can't be used.
#[derive(Debug, thiserror::Error)]
#[error("the media storage {place}: {cause}")]
pub struct OpenError {
    /// Where it is.
    pub place: String,
    /// What is wrong.
    pub cause: io::Error,
}

impl Media {
    /// Opens the media storage. `remote` is how media of other servers is fetched; without it, it is not.
    pub async fn open(
        config: MediaConfig,
        store: Store,
        time: WallTime,
        remote: Option<Remote>,
    ) -> Result<Self, OpenError> {
        let failed = |cause| OpenError { place: storage::place(&config.storage), cause };
        let storage = Storage::open(&config.storage, &time).await.map_err(failed)?;
        let memory = Arc::new(Cache::with_weighter(ABOUT, MEMORY, BySize));
        let (awaited, accesses) = (Awaited::default(), Accesses::default());
        let (workshop, fetches, previews) = (Workshop::default(), Fetches::new(remote), Previews::default());
        let known = Known::new(config.has_siblings);
        let retained_ts = AtomicI64::new(i64::MIN);
        Ok(Self(Arc::new(Inner {
            config,
            store,
            time,
            storage,
            memory,
            awaited,
            accesses,
            known,
            workshop,
            fetches,
            previews,
            retained_ts,
        })))
    }

    /// What it was told.
    pub fn config(&self) -> &MediaConfig {
        &self.0.config
    }

    pub(crate) fn store(&self) -> &Store {
        &self.0.store
    }

    pub(crate) fn now(&self) -> i64 {
        self.0.time.now_ms()
    }

    pub(crate) fn storage(&self) -> &Storage {
        &self.0.storage
    }

    pub(crate) fn memory(&self) -> &Arc<Memory> {
        &self.0.memory
    }

    pub(crate) fn awaited(&self) -> &Awaited {
        &self.0.awaited
    }

    pub(crate) fn accesses(&self) -> &Accesses {
        &self.0.accesses
    }

    pub(crate) fn known(&self) -> &Known {
        &self.0.known
    }

    pub(crate) fn workshop(&self) -> &Workshop {
        &self.0.workshop
    }

    pub(crate) fn fetches(&self) -> &Fetches {
        &self.0.fetches
    }

    pub(crate) fn previews(&self) -> &Previews {
        &self.0.previews
    }

    /// Whether it was not done for a while; from now on it was.
    pub(crate) fn is_time_for_retention(&self) -> bool {
        let (now, last) = (self.now(), self.0.retained_ts.load(Ordering::Relaxed));
        let is_time = last.saturating_add(RETAIN_EVERY_MS) <= now;
        if is_time {
            self.0.retained_ts.store(now, Ordering::Relaxed);
        }
        is_time
    }

    /// Whether a server is ours.
    pub(crate) fn is_ours(&self, server: &str) -> bool {
        self.0.config.server_name == server
    }
}
