//! The one writer: a group's members run one after another in one transaction and see each other's writes.

use std::sync::Arc;

use super::connection::Connection;
use crate::caches::Learned;
use crate::engine::Engine;
use crate::group::{self, Failure};
use crate::job::{Job, Kind, Shared};
use crate::value::lend;
use crate::{Announced, Position, StoreError};

/// Most members from the bulk lane.
pub(super) const GROUP_BULK: usize = 8;

pub(super) struct Writer {
    pub(super) connection: Connection,
    shared: Arc<Shared>,
    /// Where the clock stands; the process lock makes this writer the only one.
    position: Position,
}

impl Writer {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>) -> Result<Self, StoreError> {
        let position = connection.clock()?;
        shared.feed.start_at(position);
        Ok(Self { connection, shared, position })
    }

    /// Commits the jobs and answers each.
    pub(super) fn write(&mut self, jobs: Vec<Job>) {
        let shared = self.shared.clone();
        group::commit(&shared, jobs, |jobs| self.attempt(jobs));
    }

    /// One transaction with all jobs, announced if it was committed and undone if not.
    fn attempt(&mut self, jobs: &mut [Job]) -> Result<(), Failure> {
        let mut learned = Learned::default();
        let mut announced = Vec::new();
        let result = self.transact(jobs, &mut learned, &mut announced);
        if result.is_err() {
            self.connection.roll_back();
            self.connection.position = Some(self.position);
            return result;
        }
        self.position = Position(self.position.0 + announced.len() as i64);
        self.shared.caches.learn(learned);
        self.shared.meters.commits.increment(1);
        self.shared.meters.committed(&announced);
        self.shared.feed.announce(&announced);
        Ok(())
    }

    fn transact(
        &mut self,
        jobs: &mut [Job],
        learned: &mut Learned,
        announced: &mut Vec<Announced>,
    ) -> Result<(), Failure> {
        let whole = |error| Failure { member: None, error };
        self.connection.begin_write().map_err(whole)?;
        self.connection.position = Some(self.position);
        let mut published = Vec::new();
        for (member, job) in jobs.iter_mut().enumerate() {
            let mine = |error| Failure { member: Some(member), error };
            job.run(&mut self.connection, &self.shared, learned, &mut published).map_err(mine)?;
            // At once, so that the next member sees them, and the clock behind them.
            for publication in published.drain(..) {
                let position = Position(self.position.0 + announced.len() as i64 + 1);
                for (sql, params) in &publication.statements {
                    lend(params, position.0, |params| self.connection.exec(sql, params)).map_err(mine)?;
                }
                self.connection.position = Some(position);
                announced.push(Announced { position, change: publication.change });
            }
        }
        if let Some(last) = announced.last() {
            let sql = "UPDATE clock SET position = $1 WHERE id = 1";
            self.connection.exec(sql, &[last.position.into()]).map_err(whole)?;
        }
        self.connection.commit().map_err(whole)
    }

    /// Runs a read closure here; for the inline mode, which has no other connection.
    pub(super) fn read(&mut self, job: Job) {
        read(&mut self.connection, &self.shared, job);
    }

    /// Moves the log into the database and starts it anew. Readers of old pages are waited for, but not long.
    pub(super) fn restart_log(&self) {
        let database = self.connection.database();
        let _ = database.busy_timeout(std::time::Duration::from_millis(100));
        if let Err(error) = database.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())) {
            tracing::warn!(%error, "could not restart the write-ahead log");
        }
        let _ = database.busy_timeout(std::time::Duration::from_secs(10));
    }

    /// How many rows were written since the connection was opened.
    pub(super) fn rows_written(&self) -> u64 {
        self.connection.database().total_changes()
    }
}

/// One read closure on its own snapshot.
pub(super) fn read(connection: &mut Connection, shared: &Shared, mut job: Job) {
    debug_assert_eq!(job.kind, Kind::Read);
    let mut learned = Learned::default();
    let result = connection.begin_read().and_then(|()| job.run(connection, shared, &mut learned, &mut Vec::new()));
    connection.roll_back();
    match result {
        Ok(()) => {
            shared.caches.learn(learned);
            job.succeed();
        }
        Err(error) => job.fail(error),
    }
}
