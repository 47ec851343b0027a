//! Filters that clients keep here, numbered per user.

use crate::{StoreError, Tx, UserNum};

/// So many filters a user may keep; the oldest go first.
const MOST: i64 = 1000;

/// Filters, seen from a transaction.
pub struct Filters<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Filters of local users.
    pub fn filters(&mut self) -> Filters<'_, 'c> {
        Filters { tx: self }
    }
}

impl Filters<'_, '_> {
    /// A filter, as JSON.
    pub fn get(&mut self, user: UserNum, num: i64) -> Result<Option<String>, StoreError> {
        self.tx.one("SELECT filter FROM filters WHERE usr = $1 AND num = $2", &[user.into(), num.into()], |row| {
            Ok(row.utf8(0)?.to_owned())
        })
    }

    /// The number of that filter, given to it now if it has none. The caller holds the user's lock.
    pub fn add(&mut self, user: UserNum, filter: &str) -> Result<i64, StoreError> {
        let known = self.tx.one(
            "SELECT num FROM filters WHERE usr = $1 AND filter = $2",
            &[user.into(), filter.as_bytes().into()],
            |row| row.int(0),
        )?;
        if let Some(num) = known {
            return Ok(num);
        }
        let num = self
            .tx
            .one("SELECT COALESCE(MAX(num), -1) + 1 FROM filters WHERE usr = $1", &[user.into()], |row| row.int(0))?
            .unwrap_or(0);
        self.tx.exec(
            "INSERT INTO filters (usr, num, filter) VALUES ($1, $2, $3)",
            &[user.into(), num.into(), filter.as_bytes().into()],
        )?;
        self.tx.exec("DELETE FROM filters WHERE usr = $1 AND num <= $2", &[user.into(), (num - MOST).into()])?;
        Ok(num)
    }
}
