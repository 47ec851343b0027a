//! Servers that we talk to: whether they answer, and when to try again if not.

use crate::{StoreError, Tx};

/// How it goes with a server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destination {
    /// Failures in a row.
    pub failures: i64,
    /// When the first of them was.
    pub failing_since_ts: Option<i64>,
    /// Nothing is sent before.
    pub retry_ts: i64,
    /// When it last answered.
    pub last_success_ts: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// Destinations, seen from a transaction.
pub struct Destinations<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Servers that we talk to.
    pub fn destinations(&mut self) -> Destinations<'_, 'c> {
        Destinations { tx: self }
    }
}

impl Destinations<'_, '_> {
    /// How it goes with a server, if we ever talked to it.
    pub fn get(&mut self, server: &str) -> Result<Option<Destination>, StoreError> {
        self.tx.one(
            "SELECT failures, failing_since_ts, retry_ts, last_success_ts, last_error \
             FROM strings CROSS JOIN destinations WHERE text = $1 AND server = num",
            &[server.as_bytes().into()],
            |row| {
                Ok(Destination {
                    failures: row.int(0)?,
                    failing_since_ts: row.opt_int(1)?,
                    retry_ts: row.int(2)?,
                    last_success_ts: row.opt_int(3)?,
                    last_error: row.opt_bytes(4)?.map(|text| String::from_utf8_lossy(text).into_owned()),
                })
            },
        )
    }

    /// Writes down how it goes. The caller holds the server's lock.
    pub fn put(&mut self, server: &str, destination: &Destination) -> Result<(), StoreError> {
        let num = self.tx.intern(server)?;
        self.tx.exec(
            "INSERT INTO destinations (server, failures, failing_since_ts, retry_ts, last_success_ts, last_error) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (server) DO UPDATE SET \
                 failures = excluded.failures, failing_since_ts = excluded.failing_since_ts, \
                 retry_ts = excluded.retry_ts, last_success_ts = excluded.last_success_ts, \
                 last_error = excluded.last_error",
            &[
                num.into(),
                destination.failures.into(),
                destination.failing_since_ts.into(),
                destination.retry_ts.into(),
                destination.last_success_ts.into(),
                destination.last_error.as_ref().map(|text| text.as_bytes()).into(),
            ],
        )
    }

    /// Servers that don't answer, those that have been silent for longest first, at most `limit`.
    pub fn failing(&mut self, limit: i64) -> Result<Vec<std::sync::Arc<str>>, StoreError> {
        let servers = self.tx.query(
            "SELECT server FROM destinations p WHERE failures > 0 ORDER BY failing_since_ts, server LIMIT $1",
            &[limit.into()],
            |row| Ok(crate::StringNum(row.int(0)?)),
        )?;
        servers.into_iter().map(|server| self.tx.string(server)).collect()
    }
}
