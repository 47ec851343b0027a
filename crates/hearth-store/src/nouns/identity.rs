//! Whose database this is. A server name stands in every id in it, so it can't become another server's.

use crate::{StoreError, Tx};

/// The database's owner, seen from a transaction.
pub struct Identity<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Whose database this is.
    pub fn identity(&mut self) -> Identity<'_, 'c> {
        Identity { tx: self }
    }
}

impl Identity<'_, '_> {
    /// The server name, once there has been a start.
    pub fn server_name(&mut self) -> Result<Option<String>, StoreError> {
        self.tx.one("SELECT server_name FROM identity WHERE id = 1", &[], |row| Ok(row.utf8(0)?.to_owned()))
    }

    /// Takes a new database for a server. The caller has seen that it belongs to nobody.
    pub fn set_server_name(&mut self, server_name: &str) -> Result<(), StoreError> {
        self.tx.exec("INSERT INTO identity (id, server_name) VALUES (1, $1)", &[server_name.as_bytes().into()])
    }
}
