//! Plain SQL for this crate's own tests and benchmarks. Everybody else has use cases.

use crate::engine::Counter;
use crate::sql::Dialect;
use crate::{Publication, Row, StoreError, Tx, Value};

/// Statements on an open transaction.
pub trait Raw {
    /// A write without a result.
    fn raw_exec(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<(), StoreError>;
    /// All rows.
    fn raw_query<T>(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        map: impl FnMut(&dyn Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError>;
    /// A number of the event counter.
    fn raw_number(&mut self) -> Result<i64, StoreError>;
}

impl Raw for Tx<'_> {
    fn raw_exec(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<(), StoreError> {
        self.exec(sql, params)
    }

    fn raw_query<T>(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        map: impl FnMut(&dyn Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        self.query(sql, params, map)
    }

    fn raw_number(&mut self) -> Result<i64, StoreError> {
        self.next_number(Counter::Events)
    }
}

/// Adds a statement to a publication.
pub fn publish(publication: &mut Publication, sql: &'static str, params: &[Value<'_>]) {
    publication.exec(sql, params);
}

/// A statement as SQLite and as PostgreSQL get it.
pub fn rewritten(sql: &str) -> [String; 2] {
    [Dialect::Sqlite, Dialect::Postgres].map(|dialect| crate::sql::statement(sql, dialect))
}
