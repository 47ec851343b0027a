//! What lets a newcomer in: registration tokens, and nonces of the shared-secret registration.

use crate::{StoreError, Tx};

/// A token that lets its holder register.
#[derive(Clone, PartialEq, Eq)]
pub struct RegistrationToken {
    /// The token itself: administrators read it out again.
    pub token: String,
    /// How often it may be used; for ever if `None`.
    pub uses_allowed: Option<i64>,
    /// How often it was.
    pub completed: i64,
    /// From when on it is no longer accepted.
    pub expires_ts: Option<i64>,
}

impl RegistrationToken {
    /// Whether another account may be made with it.
    pub fn is_valid(&self, now_ms: i64) -> bool {
        self.uses_allowed.is_none_or(|allowed| self.completed < allowed) && self.expires_ts.is_none_or(|at| now_ms < at)
    }
}

/// Registration, seen from a transaction.
pub struct Registrations<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Registration tokens and nonces.
    pub fn registrations(&mut self) -> Registrations<'_, 'c> {
        Registrations { tx: self }
    }
}

impl Registrations<'_, '_> {
    /// A registration token.
    pub fn token(&mut self, token: &str) -> Result<Option<RegistrationToken>, StoreError> {
        self.tx.one(
            "SELECT token, uses_allowed, completed, expires_ts FROM registration_tokens WHERE token = $1",
            &[token.as_bytes().into()],
            |row| {
                Ok(RegistrationToken {
                    token: row.utf8(0)?.to_owned(),
                    uses_allowed: row.opt_int(1)?,
                    completed: row.int(2)?,
                    expires_ts: row.opt_int(3)?,
                })
            },
        )
    }

    /// Makes a token; `false` if there is one of that name.
    pub fn create_token(&mut self, token: &RegistrationToken) -> Result<bool, StoreError> {
        let made = self.tx.one(
            "INSERT INTO registration_tokens (token, uses_allowed, completed, expires_ts) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (token) DO NOTHING RETURNING completed",
            &[
                token.token.as_bytes().into(),
                token.uses_allowed.into(),
                token.completed.into(),
                token.expires_ts.into(),
            ],
            |_| Ok(()),
        )?;
        Ok(made.is_some())
    }

    /// Uses a token once; `false` if it is used up or expired. Decides and writes in one statement: two newcomers may race.
    pub fn use_token(&mut self, token: &str, now_ms: i64) -> Result<bool, StoreError> {
        let used = self.tx.one(
            "UPDATE registration_tokens SET completed = completed + 1 WHERE token = $1 \
             AND (uses_allowed IS NULL OR completed < uses_allowed) AND (expires_ts IS NULL OR expires_ts > $2) \
             RETURNING completed",
            &[token.as_bytes().into(), now_ms.into()],
            |_| Ok(()),
        )?;
        Ok(used.is_some())
    }

    /// Writes a nonce down.
    pub fn put_nonce(&mut self, nonce: &str, expires_ts: i64) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO registration_nonces (nonce, expires_ts) VALUES ($1, $2)",
            &[nonce.as_bytes().into(), expires_ts.into()],
        )
    }

    /// Uses a nonce up; `false` if it was never given, already used or too old.
    pub fn take_nonce(&mut self, nonce: &str, now_ms: i64) -> Result<bool, StoreError> {
        let taken = self.tx.one(
            "DELETE FROM registration_nonces WHERE nonce = $1 RETURNING expires_ts",
            &[nonce.as_bytes().into()],
            |row| row.int(0),
        )?;
        Ok(taken.is_some_and(|expires_ts| now_ms < expires_ts))
    }

    /// Forgets nonces that expired.
    pub fn sweep(&mut self, now_ms: i64) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM registration_nonces WHERE expires_ts <= $1", &[now_ms.into()])
    }
}
