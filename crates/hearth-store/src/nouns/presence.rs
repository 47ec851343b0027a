//! What users say of themselves beside being online or not. Whether they are is nowhere but in memory.

use crate::{StoreError, Tx, UserNum};

/// Status messages, seen from a transaction.
pub struct StatusMessages<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Status messages of local users.
    pub fn status_messages(&mut self) -> StatusMessages<'_, 'c> {
        StatusMessages { tx: self }
    }
}

impl StatusMessages<'_, '_> {
    /// A user's message, if he has one.
    pub fn get(&mut self, user: UserNum) -> Result<Option<String>, StoreError> {
        self.tx.one("SELECT status_msg FROM presence WHERE usr = $1", &[user.into()], |row| Ok(row.utf8(0)?.to_owned()))
    }

    /// Sets it, or removes it.
    pub fn set(&mut self, user: UserNum, status_msg: Option<&str>) -> Result<(), StoreError> {
        match status_msg {
            Some(status_msg) => self.tx.exec(
                "INSERT INTO presence (usr, status_msg) VALUES ($1, $2) \
                 ON CONFLICT (usr) DO UPDATE SET status_msg = excluded.status_msg",
                &[user.into(), status_msg.as_bytes().into()],
            )?,
            None => self.tx.exec("DELETE FROM presence WHERE usr = $1", &[user.into()])?,
        };
        Ok(())
    }
}
