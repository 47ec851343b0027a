//! What the two engines have in common, seen from a closure.

use crate::{Position, Row, StoreError, Value};

/// Sources of numbers; see `counter(…)` in the migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counter {
    Strings,
    Rooms,
    Events,
    Snapshots,
    TrieNodes,
    Devices,
    Staged,
    Blobs,
}

impl Counter {
    pub(crate) const ALL: [Self; 8] = [
        Self::Strings,
        Self::Rooms,
        Self::Events,
        Self::Snapshots,
        Self::TrieNodes,
        Self::Devices,
        Self::Staged,
        Self::Blobs,
    ];

    /// Name in the schema.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Strings => "strings",
            Self::Rooms => "rooms",
            Self::Events => "events",
            Self::Snapshots => "snapshots",
            Self::TrieNodes => "trie_nodes",
            Self::Devices => "devices",
            Self::Staged => "staged",
            Self::Blobs => "blobs",
        }
    }
}

/// How many numbers are reserved at once.
pub(crate) const BLOCK: i64 = 1000;

/// One open transaction of one engine.
pub(crate) trait Engine {
    /// A write without a result. PostgreSQL only queues it: its error may surface at the next query or at COMMIT.
    fn exec(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<(), StoreError>;

    /// A statement with rows, each handed to `each`.
    fn query(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError>;

    /// A statement of its own beside the transaction, for rows that many writers race for: on PostgreSQL it commits at once,
    /// so that nobody waits for the rest of the transaction, and no two of them for each other. It stays when the
    /// transaction is rolled back. On SQLite, with its one writer, it is a [`query`](Self::query).
    fn query_aside(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.query(sql, params, each)
    }

    /// The next number of a source. What a rolled-back transaction took may come again after a restart only.
    fn next_number(&mut self, counter: Counter) -> Result<i64, StoreError>;

    /// The next number of a source that is greater than one that was handed out before. Where only one writer hands them out,
    /// each is.
    fn next_number_above(&mut self, counter: Counter, above: i64) -> Result<i64, StoreError> {
        let _ = above;
        self.next_number(counter)
    }

    /// The clock as the transaction sees it.
    fn position(&mut self) -> Result<Position, StoreError>;
}

/// Numbers reserved and not yet handed out.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Block {
    next: i64,
    end: i64,
}

impl Block {
    pub(crate) fn starting_at(start: i64) -> Self {
        Self { next: start, end: start + BLOCK }
    }

    pub(crate) fn take(&mut self) -> Option<i64> {
        let number = self.next;
        (number < self.end).then(|| {
            self.next += 1;
            number
        })
    }

    /// Whether none of its numbers is greater than another.
    pub(crate) fn ends_below(&self, other: i64) -> bool {
        self.end.saturating_sub(1) <= other
    }

    /// Gives the rest back, but not the numbers that are gone.
    pub(crate) fn forget(&mut self) {
        self.end = self.next;
    }

    /// No number below this one may be handed out again.
    pub(crate) fn floor(&self) -> i64 {
        self.next
    }
}
