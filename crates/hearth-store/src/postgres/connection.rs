//! One connection with its runtime: statements are queued and fly together.
//!
//! A write is only queued; it is sent with the next query or with COMMIT, all in one flight, whose answers are awaited in
//! order. So BEGIN, some writes and COMMIT cost one round trip, from plain sequential code. After the first error nothing
//! more is sent but ROLLBACK; what kind of trouble it was decides whether the transaction runs again.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio::runtime::Runtime;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Config, NoTls, Statement};

use super::aside::Aside;
use super::values::PostgresRow;
use crate::engine::{Counter, Engine};
use crate::sql::{self, Dialect, Seen};
use crate::{OwnedValue, Position, Row, StoreError, Value};

const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE";
const COMMIT: &str = "COMMIT";
const ADVANCE: &str = "UPDATE clock SET position = position + $1 WHERE id = 1 RETURNING position";
const LOCK: &str = "SELECT pg_advisory_xact_lock(value) FROM ints($1)";

/// A flight takes off before more statements than this wait for it.
const FLIGHT: usize = 1_000;
/// A connection unused for longer is looked at before it is used.
const IDLE: Duration = Duration::from_secs(1);
/// Waits between attempts to connect.
const CONNECT_AGAIN_MS: [u64; 5] = [0, 50, 200, 800, 2_000];

/// What broke a transaction.
#[derive(Clone, Debug)]
pub(super) enum Trouble {
    /// It lost against another one: run it again.
    Conflict,
    /// The connection is gone.
    Lost(StoreError),
    /// It would fail again.
    Refused(StoreError),
}

impl Trouble {
    pub(super) fn error(&self) -> StoreError {
        match self {
            Self::Conflict => StoreError::Conflict,
            Self::Lost(error) | Self::Refused(error) => error.clone(),
        }
    }
}

type Each<'e> = &'e mut dyn FnMut(&dyn Row) -> Result<(), StoreError>;

/// A statement on its way.
struct Item {
    sql: &'static str,
    statement: Statement,
    params: Vec<OwnedValue>,
    member: Option<usize>,
}

pub(super) struct Connection {
    runtime: Runtime,
    config: Config,
    /// Run on each new connection.
    setup: &'static str,
    client: Option<Client>,
    used: Instant,
    statements: Seen<Statement>,
    queue: Vec<Item>,
    /// Whether anything of the open transaction was sent.
    sent: bool,
    /// The member of the group whose statements are being queued.
    pub(super) member: Option<usize>,
    /// The first thing that went wrong in the open transaction, and whose statement it was.
    trouble: Option<(Trouble, Option<usize>)>,
    writing: bool,
    /// The clock as the open transaction moved it.
    advanced: Option<i64>,
    /// `None` for the connection beside, which has none beside itself.
    aside: Option<Arc<Aside>>,
    meter: metrics::Counter,
}

impl Connection {
    pub(super) fn open(
        config: Config,
        setup: &'static str,
        aside: Option<Arc<Aside>>,
        meter: metrics::Counter,
    ) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| StoreError::Database(format!("no runtime: {error}")))?;
        let mut connection = Self {
            runtime,
            config,
            setup,
            client: None,
            used: Instant::now(),
            statements: Seen::new(),
            queue: Vec::new(),
            sent: false,
            member: None,
            trouble: None,
            writing: false,
            advanced: None,
            aside,
            meter,
        };
        connection.connect()?;
        Ok(connection)
    }

    fn connect(&mut self) -> Result<(), StoreError> {
        self.client = None;
        self.statements = Seen::new();
        let mut result = Err(StoreError::Closed);
        for wait in CONNECT_AGAIN_MS {
            result = self.runtime.block_on(async {
                tokio::time::sleep(Duration::from_millis(wait)).await;
                let (client, driver) = self.config.connect(NoTls).await?;
                tokio::spawn(async move {
                    // Its end is seen by the client.
                    let _ = driver.await;
                });
                client.batch_execute(self.setup).await?;
                Ok(client)
            });
            match result {
                Ok(client) => {
                    self.client = Some(client);
                    self.used = Instant::now();
                    return Ok(());
                }
                Err(ref error) => tracing::warn!(%error, "could not connect to PostgreSQL"),
            }
        }
        Err(result.err().unwrap_or(StoreError::Closed))
    }

    /// Connects again if the connection was lost meanwhile.
    fn ready(&mut self) -> Result<(), StoreError> {
        if self.used.elapsed() > IDLE {
            // Lets the driver see what the server sent since: maybe its goodbye.
            self.runtime.block_on(async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            });
        }
        self.used = Instant::now();
        if self.client.as_ref().is_none_or(Client::is_closed) { self.connect() } else { Ok(()) }
    }

    /// Several statements without parameters, outside of what is queued.
    pub(super) fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        let client = self.client.as_ref().ok_or(StoreError::Closed)?;
        self.runtime.block_on(client.batch_execute(sql)).map_err(StoreError::from)
    }

    pub(super) fn begin_read(&mut self) -> Result<(), StoreError> {
        self.begin(BEGIN_READ)
    }

    /// Begins, and locks the keys in the order given.
    pub(super) fn begin_write(&mut self, locks: Vec<i64>) -> Result<(), StoreError> {
        self.begin(BEGIN_WRITE)?;
        self.writing = true;
        if locks.is_empty() { Ok(()) } else { self.enqueue(LOCK, vec![OwnedValue::Ints(locks)]) }
    }

    fn begin(&mut self, sql: &'static str) -> Result<(), StoreError> {
        self.queue.clear();
        self.trouble = None;
        self.sent = false;
        self.writing = false;
        self.member = None;
        self.ready()?;
        self.enqueue(sql, Vec::new())
    }

    /// The end of a read: nothing to keep.
    pub(super) fn end_read(&mut self) {
        self.queue.clear();
        if self.sent && self.trouble.is_none() {
            let _ = self.commit();
        }
        self.roll_back();
    }

    /// Queues a publication's statement, whose position lies `offset` before the group's last.
    pub(super) fn publish(
        &mut self,
        sql: &'static str,
        params: Vec<OwnedValue>,
        offset: i64,
    ) -> Result<(), StoreError> {
        let params =
            params.into_iter().map(|v| if matches!(v, OwnedValue::Position) { OwnedValue::Int(offset) } else { v });
        let params = params.collect();
        self.enqueue(sql, params)
    }

    /// Moves the clock by `by` positions. It stands still for everybody else until COMMIT, so publications come next.
    pub(super) fn advance_clock(&mut self, by: i64) -> Result<(), StoreError> {
        self.advanced = None;
        self.enqueue(ADVANCE, vec![OwnedValue::Int(by)])
    }

    /// Where the clock was moved to.
    pub(super) fn advanced(&self) -> Option<Position> {
        self.advanced.map(Position)
    }

    /// Sends what is queued, and COMMIT with it.
    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        self.enqueue(COMMIT, Vec::new())?;
        self.fly(None)?;
        self.sent = false;
        Ok(())
    }

    /// Whether nothing was asked of the open transaction: neither reads nor writes.
    pub(super) fn is_untouched(&self) -> bool {
        !self.sent && self.queue.iter().all(|item| item.sql == BEGIN_WRITE || item.sql == LOCK)
    }

    /// Undoes what is open.
    pub(super) fn roll_back(&mut self) {
        self.queue.clear();
        self.writing = false;
        if std::mem::take(&mut self.sent) && self.batch("ROLLBACK").is_err() {
            self.client = None;
        }
    }

    /// What went wrong in the transaction, and by whose statement.
    pub(super) fn take_trouble(&mut self) -> Option<(Trouble, Option<usize>)> {
        self.trouble.take()
    }

    /// An error that a closure did not pass on is an error all the same.
    pub(super) fn check(&self) -> Result<(), StoreError> {
        self.trouble.as_ref().map_or(Ok(()), |(trouble, _)| Err(trouble.error()))
    }

    /// Sends what is queued.
    pub(super) fn flush(&mut self) -> Result<(), StoreError> {
        if self.queue.is_empty() { Ok(()) } else { self.fly(None) }
    }

    fn enqueue(&mut self, sql: &'static str, params: Vec<OwnedValue>) -> Result<(), StoreError> {
        let statement = self.prepare(sql)?;
        self.queue.push(Item { sql, statement, params, member: self.member });
        if self.queue.len() >= FLIGHT && sql != COMMIT {
            self.fly(None)?;
        }
        Ok(())
    }

    fn prepare(&mut self, sql: &'static str) -> Result<Statement, StoreError> {
        if let Some((trouble, _)) = &self.trouble {
            return Err(trouble.error());
        }
        if let Some(statement) = self.statements.get(sql) {
            return Ok(statement);
        }
        let text = sql::statement(sql, Dialect::Postgres);
        let client = self.client.as_ref().ok_or(StoreError::Closed)?;
        match self.runtime.block_on(client.prepare(&text)) {
            Ok(statement) => {
                self.statements.insert(sql, statement.clone());
                Ok(statement)
            }
            Err(error) => Err(self.met(sql, self.member, &error)),
        }
    }

    /// Sends everything queued at once. The rows of the last statement go to `last`.
    fn fly(&mut self, mut last: Option<Each<'_>>) -> Result<(), StoreError> {
        let queue = std::mem::take(&mut self.queue);
        let client = self.client.as_ref().ok_or(StoreError::Closed)?;
        let advanced = &mut self.advanced;
        self.meter.increment(queue.len() as u64);
        self.sent = true;
        let landed = self.runtime.block_on(async {
            let mut flying = Vec::with_capacity(queue.len());
            for item in &queue {
                let mut answer = Box::pin(client.query_raw(&item.statement, &item.params));
                // The first poll sends.
                match poll_fn(|context| Poll::Ready(answer.as_mut().poll(context))).await {
                    Poll::Pending => flying.push((item, answer)),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => return Err(Landing::Crashed(item.sql, item.member, error)),
                }
            }
            let mut left = flying.len();
            for (item, answer) in flying {
                left -= 1;
                let crashed = |error| Landing::Crashed(item.sql, item.member, error);
                let mut rows = pin!(answer.await.map_err(crashed)?);
                while let Some(row) = rows.try_next().await.map_err(crashed)? {
                    let row = PostgresRow(&row);
                    if item.sql == ADVANCE {
                        *advanced = row.opt_int(0).map_err(Landing::Unread)?;
                    } else if left == 0
                        && let Some(each) = &mut last
                    {
                        each(&row).map_err(Landing::Unread)?;
                    }
                }
            }
            Ok(())
        });
        match landed {
            Ok(()) => Ok(()),
            Err(Landing::Crashed(sql, member, error)) => Err(self.met(sql, member, &error)),
            Err(Landing::Unread(error)) => Err(error),
        }
    }

    /// Remembers what went wrong.
    fn met(&mut self, sql: &'static str, member: Option<usize>, error: &tokio_postgres::Error) -> StoreError {
        let message = |error: &dyn std::fmt::Display| {
            StoreError::Database(format!("{error} in {}", sql.split_whitespace().collect::<Vec<_>>().join(" ")))
        };
        let trouble = match error.as_db_error() {
            None if error.is_closed() || is_io(error) => Trouble::Lost(message(&with_cause(error))),
            None => Trouble::Refused(message(&with_cause(error))),
            Some(refused) => {
                let code = refused.code();
                if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED {
                    Trouble::Conflict
                } else if *code == SqlState::FEATURE_NOT_SUPPORTED && refused.message().contains("cached plan") {
                    // Another node has migrated the schema.
                    self.statements = Seen::new();
                    Trouble::Conflict
                } else if code.code().starts_with("57P") || *code == SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT {
                    Trouble::Lost(message(refused))
                } else {
                    Trouble::Refused(message(refused))
                }
            }
        };
        let error = trouble.error();
        if self.trouble.is_none() {
            self.trouble = Some((trouble, member));
        }
        error
    }

    /// A statement that commits by itself.
    pub(super) fn alone(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.queue.clear();
        self.ready()?;
        self.trouble = None;
        self.enqueue(sql, owned(params))?;
        self.fly(Some(each))
    }

    /// Whether the last error was the loss of the connection.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self.trouble, Some((Trouble::Lost(_), _)))
    }

    pub(super) fn forget(&mut self) {
        self.client = None;
        self.trouble = None;
    }
}

enum Landing {
    Crashed(&'static str, Option<usize>, tokio_postgres::Error),
    Unread(StoreError),
}

fn is_io(error: &tokio_postgres::Error) -> bool {
    std::error::Error::source(error).is_some_and(|cause| cause.is::<std::io::Error>())
}

fn with_cause(error: &tokio_postgres::Error) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

fn owned(params: &[Value<'_>]) -> Vec<OwnedValue> {
    params.iter().map(Value::to_owned).collect()
}

impl Engine for Connection {
    fn exec(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<(), StoreError> {
        if !self.writing {
            return Err(StoreError::Misuse("a read may not write"));
        }
        if params.iter().any(|value| matches!(value, Value::Position)) {
            return Err(StoreError::Misuse("a position outside of a publication"));
        }
        self.enqueue(sql, owned(params))
    }

    fn query(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let statement = self.prepare(sql)?;
        self.queue.push(Item { sql, statement, params: owned(params), member: self.member });
        self.fly(Some(each))
    }

    fn query_aside(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        if !self.writing {
            return Err(StoreError::Misuse("a read may not write"));
        }
        match &self.aside {
            Some(aside) => aside.query(sql, params, each),
            None => self.alone(sql, params, each),
        }
    }

    fn next_number(&mut self, counter: Counter) -> Result<i64, StoreError> {
        self.next_number_above(counter, i64::MIN)
    }

    fn next_number_above(&mut self, counter: Counter, above: i64) -> Result<i64, StoreError> {
        match &self.aside {
            Some(aside) => aside.next_number_above(counter, above),
            None => Err(StoreError::Misuse("no numbers here")),
        }
    }

    fn position(&mut self) -> Result<Position, StoreError> {
        let mut position = None;
        self.query("SELECT position FROM clock WHERE id = 1", &[], &mut |row| {
            position = Some(Position(row.int(0)?));
            Ok(())
        })?;
        position.ok_or_else(|| StoreError::Damaged("the clock has no row".into()))
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Database(error.as_db_error().map_or_else(|| with_cause(&error), ToString::to_string))
    }
}
