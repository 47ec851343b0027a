//! Sessions of user-interactive authentication: which stages of which request a client has passed.

use crate::{StoreError, Tx};

/// A session.
#[derive(Clone, PartialEq, Eq)]
pub struct Interactive {
    /// Hash of the request that is being authorised.
    pub request: Vec<u8>,
    /// Stages passed and their outcome, as JSON.
    pub completed: String,
    /// When it is forgotten.
    pub expires_ts: i64,
}

/// Sessions, seen from a transaction.
pub struct Interactives<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Sessions of user-interactive authentication.
    pub fn interactive(&mut self) -> Interactives<'_, 'c> {
        Interactives { tx: self }
    }
}

impl Interactives<'_, '_> {
    /// A session that has not expired.
    pub fn get(&mut self, id: &str, now_ms: i64) -> Result<Option<Interactive>, StoreError> {
        self.tx.one(
            "SELECT request, completed, expires_ts FROM uia_sessions WHERE id = $1 AND expires_ts > $2",
            &[id.as_bytes().into(), now_ms.into()],
            |row| {
                Ok(Interactive {
                    request: row.bytes(0)?.to_vec(),
                    completed: row.utf8(1)?.to_owned(),
                    expires_ts: row.int(2)?,
                })
            },
        )
    }

    /// Writes a session down, new or changed.
    pub fn put(&mut self, id: &str, session: &Interactive) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO uia_sessions (id, request, completed, expires_ts) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (id) DO UPDATE SET completed = excluded.completed, expires_ts = excluded.expires_ts",
            &[
                id.as_bytes().into(),
                session.request.as_slice().into(),
                session.completed.as_bytes().into(),
                session.expires_ts.into(),
            ],
        )
    }

    /// Uses a session up; `false` if another request was faster.
    pub fn take(&mut self, id: &str) -> Result<bool, StoreError> {
        let taken = self.tx.one(
            "DELETE FROM uia_sessions WHERE id = $1 RETURNING expires_ts",
            &[id.as_bytes().into()],
            |_| Ok(()),
        )?;
        Ok(taken.is_some())
    }

    /// Forgets what expired.
    pub fn sweep(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM uia_sessions WHERE expires_ts <= $1", &[now_ms.into()])
    }
}
