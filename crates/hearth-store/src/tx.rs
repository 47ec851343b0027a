//! A transaction as closures see it: one accessor per noun, interned strings, publications.
//!
//! Statements are written once, for both engines. Beside `$1`, `$2`, … they may use these macros:
//!
//! | macro | parameter | SQLite | PostgreSQL |
//! | --- | --- | --- | --- |
//! | `x IN ints($1)`, `x NOT IN ints($1)` | [`Value::Ints`] | `IN (SELECT value FROM rarray(?1))` | `= ANY($1)`, `<> ALL($1)` |
//! | `FROM ints($1)`, `FROM ints($1) AS wanted` (column `value`) | [`Value::Ints`] | `rarray(?1) AS ints` | `unnest($1) AS ints(value)` |
//! | the same with `blobs($1)` | [`Value::Blobs`] | | |
//! | `position($1)`, in a [`Publication`] only | [`Value::Position`] | the position | the clock row less an offset |
//! | `for_update_skip_locked()` | | nothing | `FOR UPDATE SKIP LOCKED` |
//!
//! What both engines understand alike: `INSERT … ON CONFLICT … RETURNING`, row values, window functions, recursive CTEs,
//! `UPDATE … FROM`. To keep in mind: `CAST($1 AS BIGINT)` for a parameter in a select list, `CAST(sum(x) AS BIGINT)`,
//! `NULLS FIRST` or `LAST`, `WHERE true` between `FROM ints($1)` and `ON CONFLICT`, no `LIKE`; `CROSS JOIN … WHERE` where
//! SQLite should walk the tables in the order written.

use std::sync::Arc;

use crate::caches::{Caches, Learned};
use crate::engine::{Counter, Engine};
use crate::{Position, Publication, Row, StoreError, StringNum, Value};

/// An open transaction. Nouns are reached through accessors (`tx.rooms()`, `tx.events()`), one file each.
pub struct Tx<'c> {
    pub(crate) engine: &'c mut dyn Engine,
    pub(crate) caches: &'c Caches,
    /// What this transaction learned; caches hear of it after COMMIT only.
    pub(crate) learned: &'c mut Learned,
    pub(crate) published: &'c mut Vec<Publication>,
}

impl Tx<'_> {
    /// Queues rows that get one position at COMMIT.
    pub fn publish(&mut self, publication: Publication) {
        self.published.push(publication);
    }

    /// The clock as this transaction sees it: everything at or before it is visible.
    pub fn position(&mut self) -> Result<Position, StoreError> {
        self.engine.position()
    }

    pub(crate) fn exec(&mut self, sql: &'static str, params: &[Value<'_>]) -> Result<(), StoreError> {
        self.engine.exec(sql, params)
    }

    pub(crate) fn query<T>(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        mut map: impl FnMut(&dyn Row) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut rows = Vec::new();
        self.engine.query(sql, params, &mut |row| {
            rows.push(map(row)?);
            Ok(())
        })?;
        Ok(rows)
    }

    /// The first row, if any.
    pub(crate) fn one<T>(
        &mut self,
        sql: &'static str,
        params: &[Value<'_>],
        mut map: impl FnMut(&dyn Row) -> Result<T, StoreError>,
    ) -> Result<Option<T>, StoreError> {
        let mut first = None;
        self.engine.query(sql, params, &mut |row| {
            if first.is_none() {
                first = Some(map(row)?);
            }
            Ok(())
        })?;
        Ok(first)
    }

    pub(crate) fn next_number(&mut self, counter: Counter) -> Result<i64, StoreError> {
        self.engine.next_number(counter)
    }

    pub(crate) fn next_number_above(&mut self, counter: Counter, above: i64) -> Result<i64, StoreError> {
        self.engine.next_number_above(counter, above)
    }

    /// The number of a string, if it was ever seen.
    pub fn string_num(&mut self, text: &str) -> Result<Option<StringNum>, StoreError> {
        if let Some(num) = self.learned.string_num(text).or_else(|| self.caches.string_num(text)) {
            return Ok(Some(num));
        }
        let num = self.one("SELECT num FROM strings WHERE text = $1", &[text.as_bytes().into()], |row| row.int(0))?;
        if let Some(num) = num {
            self.learned.string(StringNum(num), text);
        }
        Ok(num.map(StringNum))
    }

    /// The number of a string, given to it now if it has none. Only in writes.
    pub fn intern(&mut self, text: &str) -> Result<StringNum, StoreError> {
        if let Some(num) = self.string_num(text)? {
            return Ok(num);
        }
        let fresh = self.next_number(Counter::Strings)?;
        let mut num = None;
        self.engine.query_aside(
            "INSERT INTO strings (num, text) VALUES ($1, $2) ON CONFLICT (text) DO NOTHING RETURNING num",
            &[fresh.into(), text.as_bytes().into()],
            &mut |row| {
                num = Some(row.int(0)?);
                Ok(())
            },
        )?;
        let num = match num {
            Some(num) => num,
            // Another node gave it a number meanwhile.
            None => self
                .one("SELECT num FROM strings WHERE text = $1", &[text.as_bytes().into()], |row| row.int(0))?
                .ok_or(StoreError::Conflict)?,
        };
        self.learned.string(StringNum(num), text);
        Ok(StringNum(num))
    }

    /// The string behind a number.
    pub fn string(&mut self, num: StringNum) -> Result<Arc<str>, StoreError> {
        if let Some(text) = self.learned.text(num).or_else(|| self.caches.text(num)) {
            return Ok(text);
        }
        let text = self
            .one("SELECT text FROM strings WHERE num = $1", &[num.into()], |row| Ok(Arc::<str>::from(row.utf8(0)?)))?
            .ok_or_else(|| StoreError::Damaged(format!("string {} has no text", num.0)))?;
        self.learned.string(num, &text);
        Ok(text)
    }
}
