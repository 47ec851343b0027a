//! A connection beside the transactions, for what must not wait for them: numbers, and rows that many writers race for.
//!
//! Its statements commit at once and without waiting for the disk: the commit of whatever refers to them comes later in the
//! write-ahead log, and takes them along.

use std::sync::{Mutex, PoisonError};

use tokio_postgres::Config;

use super::connection::Connection;
use crate::engine::{Block, Counter};
use crate::{Row, StoreError, Value};

pub(super) struct Aside {
    open: Mutex<Open>,
}

struct Open {
    connection: Connection,
    blocks: [Block; Counter::ALL.len()],
}

impl Aside {
    pub(super) fn open(config: Config, meter: metrics::Counter) -> Result<Self, StoreError> {
        let setup = "SET synchronous_commit = off; SET jit = off; SET client_min_messages = warning";
        let connection = Connection::open(config, setup, None, meter)?;
        Ok(Self { open: Mutex::new(Open { connection, blocks: Default::default() }) })
    }

    pub(super) fn query(
        &self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).query(sql, params, each)
    }

    /// The next number above another. Each node hands out blocks of its own: where another's number is above what is left of
    /// ours, that is thrown away. The next block is above all that were handed out.
    pub(super) fn next_number_above(&self, counter: Counter, above: i64) -> Result<i64, StoreError> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let i = counter as usize;
        if open.blocks[i].ends_below(above) {
            open.blocks[i].forget();
        }
        while let Some(number) = open.blocks[i].take() {
            if number > above {
                return Ok(number);
            }
        }
        let mut start = None;
        open.query(next_block(counter), &[], &mut |row| {
            start = Some(row.int(0)?);
            Ok(())
        })?;
        let start = start.ok_or_else(|| StoreError::Damaged(format!("no sequence for {}", counter.name())))?;
        open.blocks[i] = Block::starting_at(start);
        open.blocks[i].take().ok_or(StoreError::Conflict)
    }
}

impl Open {
    /// Runs again after the loss of the connection: what runs here may run twice.
    fn query(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        match self.connection.alone(sql, params, each) {
            Err(_) if self.connection.is_lost() => {
                self.connection.forget();
                self.connection.alone(sql, params, each)
            }
            result => result,
        }
    }
}

fn next_block(counter: Counter) -> &'static str {
    match counter {
        Counter::Strings => "SELECT nextval('strings_numbers')",
        Counter::Rooms => "SELECT nextval('rooms_numbers')",
        Counter::Events => "SELECT nextval('events_numbers')",
        Counter::Snapshots => "SELECT nextval('snapshots_numbers')",
        Counter::TrieNodes => "SELECT nextval('trie_nodes_numbers')",
        Counter::Devices => "SELECT nextval('devices_numbers')",
        Counter::Staged => "SELECT nextval('staged_numbers')",
        Counter::Blobs => "SELECT nextval('blobs_numbers')",
    }
}
