//! The store's outside: open, read, write, feed.

use std::panic::Location;
use std::sync::Arc;
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::caches::Caches;
use crate::feed::Feed;
use crate::job::{Job, Kind, Shared};
use crate::meters::Meters;
use crate::{Announced, Position, RoomNum, StoreError, Tx, UserNum};
use crate::{postgres, sqlite};

/// Where the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabaseUrl {
    /// `sqlite:PATH`
    Sqlite(std::path::PathBuf),
    /// In memory, closures on the calling thread: repeatable.
    Inline,
    /// `postgres://…`, as libpq reads it.
    Postgres(String),
}

/// How to open a store.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Where.
    pub url: DatabaseUrl,
    /// Database threads for reading (SQLite), or in all (PostgreSQL).
    pub threads: usize,
}

/// What a write touches: on PostgreSQL its locks; members of a group have disjoint nouns.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Noun {
    /// A room.
    Room(RoomNum),
    /// A user.
    User(UserNum),
    /// Anything else, by name: a room alias, a user id that is being registered.
    Name(String),
}

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    backend: Backend,
}

enum Backend {
    Sqlite(sqlite::Threads),
    Inline(Box<sqlite::Inline>),
    Postgres(postgres::Threads),
}

impl Store {
    /// Opens the database, bringing its schema up to date first.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let meters = Meters::new(match options.url {
            DatabaseUrl::Sqlite(_) | DatabaseUrl::Inline => "sqlite",
            DatabaseUrl::Postgres(_) => "postgres",
        });
        let shared = Arc::new(Shared { caches: Caches::new(), feed: Feed::default(), meters });
        let backend = match options.url {
            DatabaseUrl::Inline => Backend::Inline(Box::new(sqlite::Inline::open(&shared)?)),
            DatabaseUrl::Sqlite(path) => {
                let shared = shared.clone();
                Backend::Sqlite(aside(move || sqlite::Threads::open(&path, options.threads, &shared)).await??)
            }
            DatabaseUrl::Postgres(url) => {
                let shared = shared.clone();
                Backend::Postgres(aside(move || postgres::Threads::open(&url, options.threads, &shared)).await??)
            }
        };
        Ok(Self { inner: Arc::new(Inner { shared, backend }) })
    }

    /// Reads one snapshot of the database. The closure runs on a database thread.
    #[track_caller]
    pub fn read<T, F>(&self, read: F) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(Kind::Read, Vec::new(), read)
    }

    /// Writes, in one commit that may be shared with other writes; durable when it returns.
    #[track_caller]
    pub fn write<N, T, F>(
        &self,
        nouns: N,
        write: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<N, T, F>
    where
        N: Into<Vec<Noun>>,
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(Kind::Write, nouns.into(), write)
    }

    /// Writes in bulk, behind everybody else, and must not publish. Durable when it returns.
    #[track_caller]
    pub fn write_quiet<N, T, F>(
        &self,
        nouns: N,
        write: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<N, T, F>
    where
        N: Into<Vec<Noun>>,
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        self.run(Kind::Quiet, nouns.into(), write)
    }

    #[track_caller]
    fn run<T, F>(
        &self,
        kind: Kind,
        nouns: Vec<Noun>,
        closure: F,
    ) -> impl Future<Output = Result<T, StoreError>> + Send + use<T, F>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let place = Location::caller();
        let store = self.clone();
        async move {
            let (job, outcome) = Job::new(kind, nouns, place, closure);
            match &store.inner.backend {
                Backend::Sqlite(threads) => threads.submit(job),
                Backend::Inline(inline) => inline.submit(job),
                Backend::Postgres(threads) => threads.submit(job),
            }
            // Without an answer the thread is gone.
            outcome.await.unwrap_or(Err(StoreError::Closed))
        }
    }

    /// Calls `listen` with what each commit published, in order of position, after COMMIT and before the writers hear of it.
    /// It runs on the committing thread: it must be short and must not call the store.
    pub fn on_commit(&self, listen: impl Fn(&[Announced]) + Send + Sync + 'static) {
        self.inner.shared.feed.listen(Arc::new(listen));
    }

    /// The newest position that was announced here.
    pub fn position(&self) -> Position {
        self.inner.shared.feed.position()
    }

    /// Puts the sizes of the caches into the metrics: `hearth_store_cache_entries`.
    pub fn record_caches(&self) {
        for (cache, entries) in self.inner.shared.caches.entries() {
            metrics::gauge!("hearth_store_cache_entries", "cache" => cache).set(entries as f64);
        }
    }

    /// The number of a room, if it is in memory.
    pub fn known_room(&self, room_id: &hearth_matrix::ruma::RoomId) -> Option<RoomNum> {
        self.inner.shared.caches.room_by_id(room_id.as_str()).map(|room| room.num)
    }

    /// Waits for what is queued, then closes the database.
    pub async fn close(&self) {
        let handles = self.inner.close();
        // The threads report their panics themselves; nobody is left to wait if this thread is refused.
        let _ = aside(move || handles.into_iter().for_each(|handle| drop(handle.join()))).await;
    }
}

impl Inner {
    fn close(&self) -> Vec<JoinHandle<()>> {
        match &self.backend {
            Backend::Sqlite(threads) => threads.close(),
            Backend::Inline(inline) => {
                inline.close();
                Vec::new()
            }
            Backend::Postgres(threads) => threads.close(),
        }
    }
}

impl Drop for Inner {
    /// The threads end by themselves. They are not waited for: the last handle may be dropped on one of them.
    fn drop(&mut self) {
        self.close();
    }
}

/// Runs what blocks on a thread of its own, whatever runtime the caller has.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let (done, outcome) = oneshot::channel();
    let work = move || drop(done.send(work()));
    std::thread::Builder::new()
        .name("store-aside".to_owned())
        .spawn(work)
        .map_err(|error| StoreError::Database(format!("no thread: {error}")))?;
    outcome.await.map_err(|_| StoreError::Closed)
}
