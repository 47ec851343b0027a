//! One SQLite connection as an engine: statements, parameters, rows, numbers.

use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use metrics::Counter as Meter;
use rusqlite::config::DbConfig;
use rusqlite::types::{Value as SqliteValue, ValueRef};
use rusqlite::{Connection as Database, OpenFlags, Statement};

use crate::engine::{Block, Counter, Engine};
use crate::sql::{self, Dialect, Seen};
use crate::{Position, Row, StoreError, Value};

/// A connection and what belongs to the transaction that is open on it.
pub(super) struct Connection {
    database: Database,
    texts: Seen<Arc<str>>,
    statements: Meter,
    /// Only the writer's transactions may write.
    writing: bool,
    /// Where the clock stands for the writer, whose own transaction may be ahead of its row.
    pub(super) position: Option<Position>,
    blocks: [Block; Counter::ALL.len()],
    /// Blocks reserved by the open transaction: a rollback takes them back.
    reserved: [bool; Counter::ALL.len()],
}

impl Connection {
    pub(super) fn open(path: &Path, flags: OpenFlags, cache_kib: u32, statements: Meter) -> Result<Self, StoreError> {
        let database = Database::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        database.busy_timeout(Duration::from_secs(10))?;
        // The page size counts for a new file only. Foreign keys are checked by the code, not twice.
        database.execute_batch(&format!(
            "PRAGMA page_size = 4096; PRAGMA cache_size = -{cache_kib}; PRAGMA mmap_size = 1073741824;
             PRAGMA temp_store = MEMORY; PRAGMA foreign_keys = OFF; PRAGMA synchronous = FULL;"
        ))?;
        // Plans do not depend on the values: else each statement with a range is compiled anew for each.
        database.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
        database.set_prepared_statement_cache_capacity(1024);
        rusqlite::vtab::array::load_module(&database)?;
        Ok(Self {
            database,
            texts: Seen::new(),
            statements,
            writing: false,
            position: None,
            blocks: Default::default(),
            reserved: Default::default(),
        })
    }

    /// For pragmas and migrations.
    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// The row of the clock.
    pub(super) fn clock(&self) -> Result<Position, StoreError> {
        let mut statement = self.database.prepare_cached("SELECT position FROM clock WHERE id = 1")?;
        Ok(Position(statement.query_row([], |row| row.get(0))?))
    }

    pub(super) fn begin_read(&mut self) -> Result<(), StoreError> {
        self.control("BEGIN")
    }

    pub(super) fn begin_write(&mut self) -> Result<(), StoreError> {
        self.writing = true;
        self.control("BEGIN IMMEDIATE")
    }

    pub(super) fn commit(&mut self) -> Result<(), StoreError> {
        self.writing = false;
        self.control("COMMIT")?;
        self.reserved = Default::default();
        Ok(())
    }

    /// After an error: whatever is open is undone.
    pub(super) fn roll_back(&mut self) {
        self.writing = false;
        for (block, reserved) in self.blocks.iter_mut().zip(std::mem::take(&mut self.reserved)) {
            if reserved {
                block.forget();
            }
        }
        // Some errors of SQLite roll back by themselves.
        if !self.database.is_autocommit()
            && let Err(error) = self.control("ROLLBACK")
        {
            tracing::error!(%error, "could not roll back");
        }
    }

    fn control(&self, sql: &str) -> Result<(), StoreError> {
        Ok(self.database.prepare_cached(sql)?.raw_execute().map(drop)?)
    }

    fn text(&mut self, sql: &'static str) -> Arc<str> {
        self.texts.get(sql).unwrap_or_else(|| {
            let text: Arc<str> = sql::statement(sql, Dialect::Sqlite).into();
            self.texts.insert(sql, text.clone());
            text
        })
    }

    fn run(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.statements.increment(1);
        let text = self.text(sql);
        let mut statement = self.database.prepare_cached(&text).map_err(|error| about(sql, &error))?;
        if !self.writing && !statement.readonly() {
            return Err(StoreError::Misuse("a read may not write"));
        }
        bind(&mut statement, params).map_err(|error| about(sql, &error))?;
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next().map_err(|error| about(sql, &error))? {
            each(&SqliteRow(row))?;
        }
        Ok(())
    }
}

fn bind(statement: &mut Statement<'_>, params: &[Value<'_>]) -> rusqlite::Result<()> {
    for (i, value) in params.iter().enumerate() {
        let i = i + 1;
        match *value {
            Value::Null => statement.raw_bind_parameter(i, rusqlite::types::Null)?,
            Value::Int(v) => statement.raw_bind_parameter(i, v)?,
            Value::Text(v) => statement.raw_bind_parameter(i, v)?,
            Value::Bytes(v) => statement.raw_bind_parameter(i, v)?,
            Value::Ints(v) => statement.raw_bind_parameter(i, list(v.iter().map(|v| SqliteValue::Integer(*v))))?,
            Value::Blobs(v) => {
                statement.raw_bind_parameter(i, list(v.iter().map(|v| SqliteValue::Blob(v.to_vec()))))?
            }
            Value::Position => {
                return Err(rusqlite::Error::InvalidParameterName("a position outside of a publication".into()));
            }
        }
    }
    Ok(())
}

fn list(values: impl Iterator<Item = SqliteValue>) -> Rc<Vec<SqliteValue>> {
    Rc::new(values.collect())
}

impl Engine for Connection {
    fn exec(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<(), StoreError> {
        self.run(sql, params, &mut |_| Ok(()))
    }

    fn query(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        each: &mut dyn FnMut(&dyn Row) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        self.run(sql, params, each)
    }

    fn next_number(&mut self, counter: Counter) -> Result<i64, StoreError> {
        let i = counter as usize;
        if let Some(number) = self.blocks[i].take() {
            return Ok(number);
        }
        let floor = self.blocks[i].floor();
        let mut start = None;
        self.run(
            "UPDATE counters SET next_free = max(next_free, $1) + $2 WHERE name = $3 RETURNING next_free - $2",
            &[floor.into(), crate::engine::BLOCK.into(), counter.name().into()],
            &mut |row| {
                start = Some(row.int(0)?);
                Ok(())
            },
        )?;
        let start = start.ok_or_else(|| StoreError::Damaged(format!("no counter {}", counter.name())))?;
        self.blocks[i] = Block::starting_at(start);
        self.reserved[i] = true;
        self.blocks[i].take().ok_or(StoreError::Conflict)
    }

    fn position(&mut self) -> Result<Position, StoreError> {
        match self.position {
            Some(position) if self.writing => Ok(position),
            _ => self.clock(),
        }
    }
}

struct SqliteRow<'r, 's>(&'r rusqlite::Row<'s>);

impl SqliteRow<'_, '_> {
    fn wrong(column: usize, value: ValueRef<'_>) -> StoreError {
        StoreError::Database(format!("column {column} has type {}", value.data_type()))
    }
}

impl Row for SqliteRow<'_, '_> {
    fn opt_int(&self, column: usize) -> Result<Option<i64>, StoreError> {
        match self.0.get_ref(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Integer(v) => Ok(Some(v)),
            other => Err(Self::wrong(column, other)),
        }
    }

    fn opt_bytes(&self, column: usize) -> Result<Option<&[u8]>, StoreError> {
        match self.0.get_ref(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Blob(v) => Ok(Some(v)),
            other => Err(Self::wrong(column, other)),
        }
    }

    fn opt_text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        match self.0.get_ref(column)? {
            ValueRef::Null => Ok(None),
            ValueRef::Text(v) => Ok(Some(std::str::from_utf8(v).map_err(|_| StoreError::NotUtf8 { column })?)),
            other => Err(Self::wrong(column, other)),
        }
    }
}

/// An error with the statement that met it; statements hold no secrets, their parameters may.
fn about(sql: &str, error: &rusqlite::Error) -> StoreError {
    StoreError::Database(format!("{error} in {}", sql.split_whitespace().collect::<Vec<_>>().join(" ")))
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Database(error.to_string())
    }
}
