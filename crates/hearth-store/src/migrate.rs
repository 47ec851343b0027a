//! Migrations: numbered files, run in order, once, under the caller's lock and in its transaction.
//!
//! They only go forward. Each is remembered with a checksum of its text, so that a file changed after the fact is noticed.

use crate::StoreError;
use crate::engine::Engine;
use crate::sql::{self, Dialect};

/// All migrations; the number is the place in this list, from 1.
const FILES: &[&str] = &[include_str!("../migrations/0001_first.sql")];

/// What migrations need of an engine, inside a transaction that keeps other nodes away.
pub(crate) trait Schema {
    const DIALECT: Dialect;
    /// Several statements without parameters.
    fn batch(&mut self, sql: &str) -> Result<(), StoreError>;
    fn engine(&mut self) -> &mut dyn Engine;
}

/// Brings the schema up to date.
pub(crate) fn run<S: Schema>(schema: &mut S) -> Result<(), StoreError> {
    run_files(schema, FILES)
}

fn run_files<S: Schema>(schema: &mut S, files: &[&str]) -> Result<(), StoreError> {
    schema
        .batch("CREATE TABLE IF NOT EXISTS schema_migrations (number BIGINT PRIMARY KEY, checksum BIGINT NOT NULL)")?;
    let mut done = Vec::new();
    schema.engine().query("SELECT number, checksum FROM schema_migrations ORDER BY number", &[], &mut |row| {
        done.push((row.int(0)?, row.int(1)?));
        Ok(())
    })?;
    let known = files.len() as i64;
    if let Some((found, _)) = done.iter().find(|(number, _)| *number > known) {
        return Err(StoreError::TooNew { found: *found, known });
    }
    for (number, file) in (1..).zip(files) {
        let checksum = checksum(file);
        match done.iter().find(|(done, _)| *done == number) {
            Some((_, found)) if *found == checksum => {}
            Some(_) => {
                return Err(StoreError::Damaged(format!("migration {number} is not the one that made this database")));
            }
            None => {
                tracing::info!(number, "migrating the database");
                schema.batch(&sql::migration(file, S::DIALECT))?;
                let sql = "INSERT INTO schema_migrations (number, checksum) VALUES ($1, $2)";
                schema.engine().exec(sql, &[number.into(), checksum.into()])?;
            }
        }
    }
    Ok(())
}

/// FNV-1a: against mistakes, not against malice.
fn checksum(text: &str) -> i64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
        as i64
}
