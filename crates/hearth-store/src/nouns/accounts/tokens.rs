//! Access tokens, refresh tokens and login tokens. Only their SHA-256 is known here.

use super::UserKind;
use crate::{Change, DeviceNum, Publication, Row, StoreError, StringNum, Tx, UserNum};

/// SHA-256 of a token.
pub type TokenHash = [u8; 32];

/// Whose token it is, and what stands against its use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The user.
    pub user: UserNum,
    /// His full id.
    pub user_id: String,
    /// The device, unless the token has none.
    pub device: Option<DeviceNum>,
    /// The device's id.
    pub device_id: Option<String>,
    /// Sort of user.
    pub kind: UserKind,
    /// May use the administration API.
    pub admin: bool,
    /// Locked, suspended, deactivated.
    pub state: super::LockState,
    /// From when on the token is no longer accepted.
    pub expires_ts: Option<i64>,
    /// A refresh made the token, and this may be its first use: see `confirm_refresh`.
    pub fresh: bool,
}

/// What one login or refresh hands out.
#[derive(Clone, Copy, Debug)]
pub struct IssuedTokens {
    /// The access token.
    pub access: TokenHash,
    /// The refresh token that goes with it.
    pub refresh: Option<TokenHash>,
    /// When the access token expires.
    pub expires_ts: Option<i64>,
    /// Now.
    pub created_ts: i64,
}

/// A refresh token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefreshToken {
    /// Whose.
    pub user: UserNum,
    /// Of which device.
    pub device: DeviceNum,
    /// Its successor, once it was used.
    pub replaced_by: Option<TokenHash>,
    /// Its successor was used: whoever shows this one again has stolen one of them.
    pub spent: bool,
}

pub(super) fn token_hash(row: &dyn Row, column: usize) -> Result<TokenHash, StoreError> {
    row.bytes(column)?.try_into().map_err(|_| StoreError::Damaged("a token hash of the wrong length".into()))
}

/// Tokens, seen from a transaction.
pub struct Tokens<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Tokens of local users.
    pub fn tokens(&mut self) -> Tokens<'_, 'c> {
        Tokens { tx: self }
    }
}

impl Tokens<'_, '_> {
    /// Whose access token it is.
    pub fn session(&mut self, access: &TokenHash) -> Result<Option<Session>, StoreError> {
        self.tx.one(
            "SELECT t.usr, s.text, t.device, d.device_id, u.kind, u.admin, u.locked, u.suspended, u.deactivated, \
             t.expires_ts, t.fresh FROM access_tokens t JOIN users u ON u.num = t.usr JOIN strings s ON s.num = t.usr \
             LEFT JOIN devices d ON d.num = t.device WHERE t.hash = $1",
            &[access.as_slice().into()],
            |row| {
                Ok(Session {
                    user: StringNum(row.int(0)?),
                    user_id: row.utf8(1)?.to_owned(),
                    device: row.opt_int(2)?.map(DeviceNum),
                    device_id: row.opt_bytes(3)?.map(|id| String::from_utf8_lossy(id).into_owned()),
                    kind: UserKind::from_int(row.int(4)?)?,
                    admin: row.bool(5)?,
                    state: super::LockState {
                        locked: row.bool(6)?,
                        suspended: row.bool(7)?,
                        deactivated: row.bool(8)?,
                    },
                    expires_ts: row.opt_int(9)?,
                    fresh: row.bool(10)?,
                })
            },
        )
    }

    /// Writes down the tokens of a login.
    pub fn issue(&mut self, user: UserNum, device: DeviceNum, tokens: &IssuedTokens) -> Result<(), StoreError> {
        self.insert(user, device, tokens, false)
    }

    /// Deletes a device's access and refresh tokens.
    pub fn revoke_of_device(&mut self, user: UserNum, device: DeviceNum) -> Result<(), StoreError> {
        self.announce_change(user);
        self.tx.exec("DELETE FROM refresh_tokens WHERE device = $1", &[device.into()])?;
        self.tx.exec("DELETE FROM access_tokens WHERE device = $1", &[device.into()])
    }

    /// Tells those who remember this user's sessions to look at them anew.
    pub(super) fn announce_change(&mut self, user: UserNum) {
        self.tx.publish(Publication::new(Change::Sessions { user }));
    }

    /// A refresh token.
    pub fn refresh_token(&mut self, refresh: &TokenHash) -> Result<Option<RefreshToken>, StoreError> {
        self.tx.one(
            "SELECT usr, device, replaced_by, spent FROM refresh_tokens WHERE hash = $1",
            &[refresh.as_slice().into()],
            |row| {
                Ok(RefreshToken {
                    user: StringNum(row.int(0)?),
                    device: DeviceNum(row.int(1)?),
                    replaced_by: row.opt_bytes(2)?.map(|_| token_hash(row, 2)).transpose()?,
                    spent: row.bool(3)?,
                })
            },
        )
    }

    /// Replaces a refresh token. It stays good until the new tokens are seen in use, since their answer may get lost; a
    /// successor that it already had is dropped with its access token. The caller has checked that the token is not spent,
    /// and holds the user's lock.
    pub fn rotate(
        &mut self,
        refresh: &TokenHash,
        known: &RefreshToken,
        tokens: &IssuedTokens,
    ) -> Result<(), StoreError> {
        if let Some(unused) = known.replaced_by {
            self.announce_change(known.user);
            self.revoke_access_of_refresh(known.device, &unused)?;
            self.tx.exec("DELETE FROM refresh_tokens WHERE hash = $1", &[unused.as_slice().into()])?;
        }
        self.tx.exec(
            "UPDATE refresh_tokens SET replaced_by = $2 WHERE hash = $1",
            &[refresh.as_slice().into(), tokens.refresh.as_ref().map(|hash| hash.as_slice()).into()],
        )?;
        self.insert(known.user, known.device, tokens, true)
    }

    /// One of the tokens that a refresh made was used: what it replaced is spent, and the access token that went with that
    /// is gone. Takes the new refresh token. The caller holds the user's lock.
    pub fn confirm_refresh(&mut self, user: UserNum, device: DeviceNum, refresh: &TokenHash) -> Result<(), StoreError> {
        let replaced = self.tx.one(
            "SELECT hash FROM refresh_tokens WHERE device = $1 AND replaced_by = $2 AND spent = 0",
            &[device.into(), refresh.as_slice().into()],
            |row| token_hash(row, 0),
        )?;
        self.tx.exec(
            "UPDATE access_tokens SET fresh = 0 WHERE device = $1 AND refresh = $2",
            &[device.into(), refresh.as_slice().into()],
        )?;
        let Some(old) = replaced else { return Ok(()) };
        self.announce_change(user);
        self.tx.exec("UPDATE refresh_tokens SET spent = 1 WHERE hash = $1", &[old.as_slice().into()])?;
        self.revoke_access_of_refresh(device, &old)
    }

    /// The refresh token that an access token came with.
    pub fn refresh_of(&mut self, access: &TokenHash) -> Result<Option<TokenHash>, StoreError> {
        let row =
            self.tx.one("SELECT refresh FROM access_tokens WHERE hash = $1", &[access.as_slice().into()], |row| {
                row.opt_bytes(0)?.map(|_| token_hash(row, 0)).transpose()
            })?;
        Ok(row.flatten())
    }

    /// Writes down a one-time token of `m.login.token`.
    pub fn issue_login_token(&mut self, token: &TokenHash, user: UserNum, expires_ts: i64) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO login_tokens (hash, usr, expires_ts) VALUES ($1, $2, $3)",
            &[token.as_slice().into(), user.into(), expires_ts.into()],
        )
    }

    /// Whose login token it is, if it is still good.
    pub fn login_token(&mut self, token: &TokenHash, now_ms: i64) -> Result<Option<UserNum>, StoreError> {
        self.tx.one(
            "SELECT usr FROM login_tokens WHERE hash = $1 AND expires_ts > $2",
            &[token.as_slice().into(), now_ms.into()],
            |row| Ok(StringNum(row.int(0)?)),
        )
    }

    /// Uses a login token up; `false` if another request was faster.
    pub fn take_login_token(&mut self, token: &TokenHash) -> Result<bool, StoreError> {
        let taken = self.tx.one(
            "DELETE FROM login_tokens WHERE hash = $1 RETURNING usr",
            &[token.as_slice().into()],
            |_| Ok(()),
        )?;
        Ok(taken.is_some())
    }

    /// Forgets login tokens that expired, and refresh tokens spent before a moment.
    pub fn sweep(&mut self, now_ms: i64, spent_before_ms: i64) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM login_tokens WHERE expires_ts <= $1", &[now_ms.into()])?;
        self.tx.exec("DELETE FROM refresh_tokens WHERE spent = 1 AND created_ts < $1", &[spent_before_ms.into()])
    }

    fn insert(
        &mut self,
        user: UserNum,
        device: DeviceNum,
        tokens: &IssuedTokens,
        fresh: bool,
    ) -> Result<(), StoreError> {
        let refresh = tokens.refresh.as_ref().map(|hash| hash.as_slice());
        self.tx.exec(
            "INSERT INTO access_tokens (hash, usr, device, refresh, fresh, expires_ts, created_ts) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                tokens.access.as_slice().into(),
                user.into(),
                device.into(),
                refresh.into(),
                fresh.into(),
                tokens.expires_ts.into(),
                tokens.created_ts.into(),
            ],
        )?;
        if refresh.is_some() {
            self.tx.exec(
                "INSERT INTO refresh_tokens (hash, usr, device, replaced_by, spent, created_ts) \
                 VALUES ($1, $2, $3, NULL, 0, $4)",
                &[refresh.into(), user.into(), device.into(), tokens.created_ts.into()],
            )?;
        }
        Ok(())
    }

    fn revoke_access_of_refresh(&mut self, device: DeviceNum, refresh: &TokenHash) -> Result<(), StoreError> {
        self.tx.exec(
            "DELETE FROM access_tokens WHERE device = $1 AND refresh = $2",
            &[device.into(), refresh.as_slice().into()],
        )
    }
}
