//! Transactions of a database thread: groups of writes, single reads, and when they run again.
//!
//! A group locks the nouns of its members, sorted, in its first statement. Its last flight moves the clock, writes what was
//! published and commits: no round trip lies between the clock's lock and COMMIT.

use std::sync::Arc;

use super::connection::{Connection, Trouble};
use crate::caches::Learned;
use crate::group::{self, Failure};
use crate::job::{Job, Shared};
use crate::{Announced, Change, Noun, Position, Publication, StoreError};

/// How often a transaction runs at most.
const TRIES: usize = 6;

pub(super) struct Writer {
    connection: Connection,
    shared: Arc<Shared>,
    salt: i64,
}

impl Writer {
    pub(super) fn new(connection: Connection, shared: Arc<Shared>, salt: i64) -> Self {
        Self { connection, shared, salt }
    }

    /// Commits the jobs, which share no noun, and answers each.
    pub(super) fn write(&mut self, jobs: Vec<Job>) {
        let shared = self.shared.clone();
        group::commit(&shared, jobs, |jobs| self.attempt(jobs));
    }

    fn attempt(&mut self, jobs: &mut [Job]) -> Result<(), Failure> {
        for _ in 0..TRIES {
            let result = self.transact(jobs);
            if result.is_err() {
                self.connection.roll_back();
            }
            match result {
                Ok(()) => return Ok(()),
                Err(Broken::Failed(failure)) => return Err(failure),
                Err(Broken::Again) => self.shared.meters.replays.increment(jobs.len() as u64),
            }
        }
        Err(Failure { member: None, error: StoreError::Conflict })
    }

    /// One transaction, announced if it was committed.
    fn transact(&mut self, jobs: &mut [Job]) -> Result<(), Broken> {
        let mut learned = Learned::default();
        let published = self.gather(jobs, &mut learned)?;
        if self.connection.is_untouched() && published.is_empty() {
            self.connection.roll_back();
            self.shared.caches.learn(learned);
            return Ok(());
        }
        let changes = self.launch(published).map_err(|error| self.broken(None, error))?;
        self.connection.commit().map_err(|error| match self.connection.take_trouble() {
            Some((Trouble::Lost(error), _)) => failed(None, outcome_unknown(&error)),
            Some((Trouble::Refused(error), member)) => failed(member, error),
            Some((Trouble::Conflict, _)) => Broken::Again,
            None => failed(None, error),
        })?;
        self.shared.caches.learn(learned);
        self.shared.meters.commits.increment(1);
        self.announce(changes);
        Ok(())
    }

    /// Locks, and runs the closures one after another.
    fn gather(&mut self, jobs: &mut [Job], learned: &mut Learned) -> Result<Vec<(usize, Publication)>, Broken> {
        let mut locks: Vec<i64> = jobs.iter().flat_map(|job| &job.nouns).map(|noun| key(self.salt, noun)).collect();
        // In the same order everywhere, so that groups wait for each other but never in a circle.
        locks.sort_unstable();
        locks.dedup();
        self.connection.begin_write(locks).map_err(|error| self.broken(None, error))?;
        let mut published = Vec::new();
        for (member, job) in jobs.iter_mut().enumerate() {
            self.connection.member = Some(member);
            let mut mine = Vec::new();
            job.run(&mut self.connection, &self.shared, learned, &mut mine)
                .and_then(|()| self.connection.check())
                .map_err(|error| self.broken(Some(member), error))?;
            published.extend(mine.into_iter().map(|publication| (member, publication)));
        }
        Ok(published)
    }

    /// Queues the clock and what gets positions from it.
    fn launch(&mut self, published: Vec<(usize, Publication)>) -> Result<Vec<Change>, StoreError> {
        let count = published.len();
        self.connection.member = None;
        if count > 0 {
            self.connection.advance_clock(count as i64)?;
        }
        let mut changes = Vec::with_capacity(count);
        for (i, (member, publication)) in published.into_iter().enumerate() {
            self.connection.member = Some(member);
            for (sql, params) in publication.statements {
                self.connection.publish(sql, params, (count - 1 - i) as i64)?;
            }
            changes.push(publication.change);
        }
        self.connection.member = None;
        Ok(changes)
    }

    fn announce(&self, changes: Vec<Change>) {
        if changes.is_empty() {
            return;
        }
        let Some(last) = self.connection.advanced() else {
            return tracing::error!("the clock did not answer: changes were not announced");
        };
        let first = last.0 - changes.len() as i64 + 1;
        let announced: Vec<Announced> = (first..)
            .zip(changes)
            .map(|(position, change)| Announced { position: Position(position), change })
            .collect();
        self.shared.meters.committed(&announced);
        self.shared.feed.announce(&announced);
    }

    /// What an error before COMMIT means: the database's own word counts more than what the closure made of it.
    fn broken(&mut self, member: Option<usize>, error: StoreError) -> Broken {
        match self.connection.take_trouble() {
            Some((Trouble::Conflict | Trouble::Lost(_), _)) => Broken::Again,
            Some((Trouble::Refused(error), member)) => failed(member, error),
            None => failed(member, error),
        }
    }

    /// One read closure on its own snapshot.
    pub(super) fn read(&mut self, mut job: Job) {
        let mut result = Err(Broken::Again);
        for _ in 0..TRIES {
            let mut learned = Learned::default();
            result = self
                .connection
                .begin_read()
                .and_then(|()| job.run(&mut self.connection, &self.shared, &mut learned, &mut Vec::new()))
                .and_then(|()| self.connection.check())
                .map_err(|error| self.broken(None, error));
            if result.is_ok() {
                self.shared.caches.learn(learned);
            }
            if matches!(result, Err(Broken::Again)) {
                self.shared.meters.replays.increment(1);
                self.connection.end_read();
            } else {
                break;
            }
        }
        match result {
            Ok(()) => job.succeed(),
            Err(Broken::Again) => job.fail(StoreError::Conflict),
            Err(Broken::Failed(failure)) => job.fail(failure.error),
        }
        // The caller need not wait for the end of the transaction.
        self.connection.end_read();
    }
}

/// Why a transaction was not committed.
enum Broken {
    /// The next try may do.
    Again,
    Failed(Failure),
}

fn failed(member: Option<usize>, error: StoreError) -> Broken {
    Broken::Failed(Failure { member, error })
}

fn outcome_unknown(error: &StoreError) -> StoreError {
    StoreError::Database(format!("the connection broke during COMMIT, so its outcome is unknown: {error}"))
}

/// The advisory lock of a noun, the same on all nodes. A collision makes two nouns wait for each other, no more.
pub(super) fn key(salt: i64, noun: &Noun) -> i64 {
    match noun {
        Noun::Room(room) => hash(salt ^ 1, &room.0.to_be_bytes()),
        Noun::User(user) => hash(salt ^ 2, &user.0.to_be_bytes()),
        Noun::Name(name) => hash(salt ^ 3, name.as_bytes()),
    }
}

/// FNV-1a with the finisher of splitmix64.
pub(super) fn hash(salt: i64, bytes: &[u8]) -> i64 {
    let start = 0xcbf2_9ce4_8422_2325_u64 ^ salt as u64;
    let mut hash = bytes.iter().fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (hash ^ (hash >> 31)) as i64
}
