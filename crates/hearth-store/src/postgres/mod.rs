//! PostgreSQL: database threads with a connection each.
//!
//! One of them, the publisher, runs all writes that may publish; the others read, and write in bulk.

mod aside;
mod connection;
mod values;
mod writer;

use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustc_hash::FxHashSet;
use tokio_postgres::Config;

use self::aside::Aside;
use self::connection::Connection;
use self::writer::Writer;
use crate::engine::Engine;
use crate::group::GROUP;
use crate::job::{Job, Kind, Lanes, Queue, Shared};
use crate::{Noun, StoreError, migrate};

/// A transaction that stands still for longer holds up everybody: PostgreSQL ends it.
const SETUP: &str = "SET synchronous_commit = on; SET idle_in_transaction_session_timeout = '30s'; \
     SET plan_cache_mode = force_generic_plan; SET jit = off; SET client_min_messages = warning";

/// The lock of migrations, before it is salted.
const MIGRATION: Noun = Noun::Name(String::new());

/// The queues of a database and the threads behind them.
pub(crate) struct Threads {
    writes: Arc<Queue>,
    others: Arc<Queue>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Connects, and brings the schema up to date.
    pub(crate) fn open(url: &str, threads: usize, shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let mut config: Config =
            url.parse().map_err(|error| StoreError::Database(format!("the database's URL: {error}")))?;
        if config.get_application_name().is_none() {
            config.application_name("hearth");
        }
        // A server that vanished without a word is noticed in half a minute.
        config.keepalives_idle(Duration::from_secs(20)).tcp_user_timeout(Duration::from_secs(30));
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(Duration::from_secs(10));
        }
        let meter = &shared.meters.statements;
        let aside = Arc::new(Aside::open(config.clone(), meter.clone())?);
        let connect = || Connection::open(config.clone(), SETUP, Some(aside.clone()), meter.clone());

        let mut connection = connect()?;
        let salt = salt(&mut connection)?;
        migrate(&mut connection, salt)?;
        connection.begin_read()?;
        let position = connection.position();
        connection.end_read();
        shared.feed.start_at(position?);

        let writes = Arc::new(Queue::new(shared.meters.writes_waiting.clone()));
        let others = Arc::new(Queue::new(shared.meters.reads_waiting.clone()));
        let mut handles = Vec::new();
        for _ in 1..threads.max(2) {
            let mut writer = Writer::new(connect()?, shared.clone(), salt);
            let others = others.clone();
            handles.push(spawn("store-read", move || {
                while let Some(job) = others.take_one() {
                    if job.kind == Kind::Read { writer.read(job) } else { writer.write(vec![job]) }
                }
            })?);
        }
        let mut writer = Writer::new(connection, shared.clone(), salt);
        handles.push(spawn("store-write", {
            let writes = writes.clone();
            move || {
                while let Some(jobs) = writes.take(take_group) {
                    writer.write(jobs);
                }
            }
        })?);
        Ok(Self { writes, others, handles: Mutex::new(handles) })
    }

    pub(crate) fn submit(&self, job: Job) {
        if job.kind == Kind::Write { &self.writes } else { &self.others }.push(job);
    }

    /// Lets the threads work off what is queued and end.
    pub(crate) fn close(&self) -> Vec<JoinHandle<()>> {
        self.writes.close();
        self.others.close();
        std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| StoreError::Database(format!("no thread: {error}")))
}

/// From the front of the queue, members that share no noun. Who names a noun of another that waits, waits behind him.
fn take_group(lanes: &mut Lanes) -> Option<Vec<Job>> {
    let mut taken = Vec::new();
    let mut left = Vec::new();
    let mut nouns = FxHashSet::default();
    while taken.len() < GROUP && left.len() < GROUP {
        let Some(job) = lanes.quick.pop_front() else { break };
        let disjoint = !job.nouns.iter().any(|noun| nouns.contains(noun));
        nouns.extend(job.nouns.iter().cloned());
        if disjoint { &mut taken } else { &mut left }.push(job);
    }
    left.into_iter().rev().for_each(|job| lanes.quick.push_front(job));
    (!taken.is_empty()).then_some(taken)
}

/// Tells schemas of one database apart, since its advisory locks are for all of them.
fn salt(connection: &mut Connection) -> Result<i64, StoreError> {
    let mut salt = None;
    connection.alone("SELECT CAST(current_schema() AS TEXT)", &[], &mut |row| {
        salt = Some(writer::hash(0, row.text(0)?.as_bytes()));
        Ok(())
    })?;
    salt.ok_or_else(|| StoreError::Database("the search path names no schema".into()))
}

fn migrate(connection: &mut Connection, salt: i64) -> Result<(), StoreError> {
    connection.begin_write(vec![writer::key(salt, &MIGRATION)])?;
    let result = connection.flush().and_then(|()| migrate::run(connection)).and_then(|()| connection.commit());
    if result.is_err() {
        connection.roll_back();
    }
    result
}

impl migrate::Schema for Connection {
    const DIALECT: crate::sql::Dialect = crate::sql::Dialect::Postgres;

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        self.flush()?;
        Connection::batch(self, sql)
    }

    fn engine(&mut self) -> &mut dyn Engine {
        self
    }
}
