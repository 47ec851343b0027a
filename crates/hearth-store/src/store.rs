//! The store's outside: open, read, write, feed.

use std::sync::Arc;

use crate::{Announced, Position, RoomNum, StoreError, Tx, UserNum};

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

struct Inner {}

impl Store {
    /// Opens the database, bringing its schema up to date first.
    pub async fn open(options: StoreOptions) -> Result<Self, StoreError> {
        let _ = options;
        todo!()
    }

    /// Reads one snapshot of the database. The closure runs on a database thread.
    pub async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let _ = (&self.inner, read);
        todo!()
    }

    /// Writes, in one commit that may be shared with other writes; durable when it returns.
    pub async fn write<T, F>(&self, nouns: impl Into<Vec<Noun>>, write: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let _ = (nouns.into(), write);
        todo!()
    }

    /// Calls `listen` with what each commit published, in order of position, after COMMIT and before the writers hear of it.
    /// It runs on the committing thread: it must be short and must not call the store.
    pub fn on_commit(&self, listen: impl Fn(&[Announced]) + Send + Sync + 'static) {
        let _ = listen;
        todo!()
    }

    /// The newest position that was announced here.
    pub fn position(&self) -> Position {
        todo!()
    }

    /// Waits for what is queued, then closes the database.
    pub async fn close(&self) {
        todo!()
    }
}
