//! What the two engines have in common, seen from a closure.

use crate::{Row, StoreError, Value};

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
}

impl Counter {
    pub(crate) const ALL: [Self; 7] =
        [Self::Strings, Self::Rooms, Self::Events, Self::Snapshots, Self::TrieNodes, Self::Devices, Self::Staged];

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
        }
    }
}

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

    /// The next number of a source; never handed out twice, whatever is rolled back.
    fn next_number(&mut self, counter: Counter) -> Result<i64, StoreError>;
}
