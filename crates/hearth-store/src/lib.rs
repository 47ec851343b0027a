//! What we remember: SQLite and PostgreSQL behind one set of use cases.
//!
//! All access is by closure: [`Store::read`] sees one snapshot, [`Store::write`] is durable when it returns. Closures are
//! synchronous, run on database threads and may be run again (a failed group is replayed member by member, PostgreSQL
//! replays on serialization failures): no clock, no chance, no side effect inside. A refusal is a value, not an error; a
//! closure decides before its first write.
//!
//! Everything that a client can see change carries a [`Position`] on one clock. A closure never sees the position of what
//! it writes: it queues a [`Publication`], the store stamps it at COMMIT and announces it afterwards, in order.

mod caches;
mod change;
mod engine;
mod feed;
mod group;
mod job;
mod meters;
mod migrate;
mod nouns;
mod numbers;
mod postgres;
#[doc(hidden)]
pub mod raw;
mod sql;
mod sqlite;
mod store;
mod tx;
mod value;
mod wall_time;

pub use change::{Announced, Change, FeedDecision, FeedEvent, FeedReceipt, Publication};
pub use nouns::*;
pub use numbers::{BlobNum, DeviceNum, EventNum, Position, RoomNum, SnapshotNum, StringNum, UserNum};
pub use store::{DatabaseUrl, Noun, Store, StoreOptions};
pub use tx::Tx;
pub use value::{OwnedValue, Row, Value};
pub use wall_time::WallTime;

/// Why the store could not do what was asked. Refusals by rule are not among them: they are values.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refused or broke.
    #[error("database: {0}")]
    Database(String),
    /// Lost against a concurrent transaction; the store replays the closure itself, callers see it only after many tries.
    #[error("the transaction conflicted with others too often")]
    Conflict,
    /// Another process has the database.
    #[error("{0} is in use by another process")]
    Locked(String),
    /// More is waiting than the store will keep in mind.
    #[error("the store is overloaded")]
    Overloaded,
    /// A closure panicked; nothing of it was kept.
    #[error("a closure panicked: {0}")]
    Panicked(String),
    /// A closure did what it must not.
    #[error("a closure broke the store's rules: {0}")]
    Misuse(&'static str),
    /// The store was closed.
    #[error("the store is closed")]
    Closed,
    /// A column that can't be NULL was.
    #[error("column {column} is unexpectedly NULL")]
    UnexpectedNull {
        /// Its number in the result, from 0.
        column: usize,
    },
    /// A column that holds our own text or JSON was no UTF-8.
    #[error("column {column} is not UTF-8")]
    NotUtf8 {
        /// Its number in the result, from 0.
        column: usize,
    },
    /// What is stored contradicts itself.
    #[error("stored data is damaged: {0}")]
    Damaged(String),
    /// The database was written by a newer program.
    #[error("the database has schema {found}, newer than this program's {known}")]
    TooNew {
        /// Schema number found.
        found: i64,
        /// Newest schema number that this program knows.
        known: i64,
    },
}
