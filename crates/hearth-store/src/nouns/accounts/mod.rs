//! Accounts of this server's users: who exists, with which password and which rights.
//!
//! Devices, tokens, interactive sessions and registration have files of their own beside this one.

mod devices;
mod interactive;
mod registration;
mod tokens;

pub use devices::Device;
pub use interactive::Interactive;
pub use registration::RegistrationToken;
pub use tokens::{IssuedTokens, RefreshToken, Session, TokenHash};

use crate::{Row, StoreError, Tx, UserNum};

/// What sort of user an account belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserKind {
    /// A person.
    User,
    /// A guest: no password, few rights.
    Guest,
    /// A user of an application service.
    Appservice,
}

impl UserKind {
    fn to_int(self) -> i64 {
        match self {
            Self::User => 0,
            Self::Guest => 1,
            Self::Appservice => 2,
        }
    }

    pub(crate) fn from_int(value: i64) -> Result<Self, StoreError> {
        match value {
            0 => Ok(Self::User),
            1 => Ok(Self::Guest),
            2 => Ok(Self::Appservice),
            other => Err(StoreError::Damaged(format!("user kind {other}"))),
        }
    }
}

/// What an administrator may hold against an account, and what is left of it after deactivation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockState {
    /// Sessions stay, but every request is refused.
    pub locked: bool,
    /// May read, but hardly write.
    pub suspended: bool,
    /// Gone for good; the name stays taken.
    pub deactivated: bool,
}

/// A local user's account. Its password hash shows in no log.
#[derive(Clone, PartialEq, Eq)]
pub struct Account {
    /// Who.
    pub user: UserNum,
    /// The part of the user id before the server name.
    pub localpart: String,
    /// PHC string, if the account has a password.
    pub password_hash: Option<String>,
    /// Sort of user.
    pub kind: UserKind,
    /// May use the administration API.
    pub admin: bool,
    /// Locked, suspended, deactivated.
    pub state: LockState,
    /// On deactivation, the user asked that his messages be hidden from newcomers.
    pub erased: bool,
    /// When it was made.
    pub created_ts: i64,
}

impl std::fmt::Debug for Account {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Account")
            .field("user", &self.user)
            .field("localpart", &self.localpart)
            .field("kind", &self.kind)
            .field("admin", &self.admin)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// An account to be made.
#[derive(Clone, Copy)]
pub struct NewAccount<'a> {
    /// Full user id.
    pub user_id: &'a str,
    /// Its localpart.
    pub localpart: &'a str,
    /// PHC string.
    pub password_hash: Option<&'a str>,
    /// Sort of user.
    pub kind: UserKind,
    /// May use the administration API.
    pub admin: bool,
    /// Now.
    pub created_ts: i64,
}

fn account(row: &dyn Row) -> Result<Account, StoreError> {
    Ok(Account {
        user: crate::StringNum(row.int(0)?),
        localpart: row.utf8(1)?.to_owned(),
        password_hash: row.opt_text(2)?.map(str::to_owned),
        kind: UserKind::from_int(row.int(3)?)?,
        admin: row.bool(4)?,
        state: LockState { locked: row.bool(5)?, suspended: row.bool(6)?, deactivated: row.bool(7)? },
        erased: row.bool(8)?,
        created_ts: row.int(9)?,
    })
}

/// Accounts, seen from a transaction.
pub struct Accounts<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Accounts of local users.
    pub fn accounts(&mut self) -> Accounts<'_, 'c> {
        Accounts { tx: self }
    }
}

impl Accounts<'_, '_> {
    /// Makes an account; `None` if the name is taken (it stays taken after deactivation).
    pub fn create(&mut self, new: NewAccount<'_>) -> Result<Option<UserNum>, StoreError> {
        if self.by_id(new.user_id)?.is_some() {
            return Ok(None);
        }
        let user = self.tx.intern(new.user_id)?;
        self.tx.one(
            "INSERT INTO users (num, localpart, password_hash, kind, appservice, admin, locked, suspended, deactivated, \
             erased, departing, created_ts) VALUES ($1, $2, $3, $4, NULL, $5, 0, 0, 0, 0, 0, $6) \
             ON CONFLICT DO NOTHING RETURNING num",
            &[
                user.into(),
                new.localpart.as_bytes().into(),
                new.password_hash.into(),
                new.kind.to_int().into(),
                new.admin.into(),
                new.created_ts.into(),
            ],
            |row| Ok(crate::StringNum(row.int(0)?)),
        )
    }

    /// The account of a full user id.
    pub fn by_id(&mut self, user_id: &str) -> Result<Option<Account>, StoreError> {
        match self.tx.string_num(user_id)? {
            Some(user) => self.by_num(user),
            None => Ok(None),
        }
    }

    /// The account of a user.
    pub fn by_num(&mut self, user: UserNum) -> Result<Option<Account>, StoreError> {
        self.tx.one(
            "SELECT num, localpart, password_hash, kind, admin, locked, suspended, deactivated, erased, created_ts \
             FROM users WHERE num = $1",
            &[user.into()],
            account,
        )
    }

    /// Accounts in order of their localpart, after one of them.
    pub fn list(&mut self, after: &str, limit: usize) -> Result<Vec<Account>, StoreError> {
        self.tx.query(
            "SELECT num, localpart, password_hash, kind, admin, locked, suspended, deactivated, erased, created_ts \
             FROM users WHERE localpart > $1 ORDER BY localpart LIMIT $2",
            &[after.as_bytes().into(), i64::try_from(limit).unwrap_or(i64::MAX).into()],
            account,
        )
    }

    /// How many accounts there are, deactivated ones among them.
    pub fn count(&mut self) -> Result<i64, StoreError> {
        Ok(self.tx.one("SELECT COUNT(*) FROM users", &[], |row| row.int(0))?.unwrap_or(0))
    }

    /// Gives the account another password.
    pub fn set_password_hash(&mut self, user: UserNum, hash: &str) -> Result<(), StoreError> {
        self.tx.exec("UPDATE users SET password_hash = $2 WHERE num = $1", &[user.into(), hash.into()])
    }

    /// Makes a guest a user with a password.
    pub fn upgrade_guest(&mut self, user: UserNum, hash: &str) -> Result<(), StoreError> {
        self.tx.tokens().announce_change(user);
        self.tx.exec("UPDATE users SET kind = 0, password_hash = $2 WHERE num = $1", &[user.into(), hash.into()])
    }

    /// Grants or takes administration rights.
    pub fn set_admin(&mut self, user: UserNum, admin: bool) -> Result<(), StoreError> {
        self.tx.tokens().announce_change(user);
        self.tx.exec("UPDATE users SET admin = $2 WHERE num = $1", &[user.into(), admin.into()])
    }

    /// Locks or unlocks the account.
    pub fn set_locked(&mut self, user: UserNum, locked: bool) -> Result<(), StoreError> {
        self.tx.tokens().announce_change(user);
        self.tx.exec("UPDATE users SET locked = $2 WHERE num = $1", &[user.into(), locked.into()])
    }

    /// Suspends the account or lets it act again.
    pub fn set_suspended(&mut self, user: UserNum, suspended: bool) -> Result<(), StoreError> {
        self.tx.tokens().announce_change(user);
        self.tx.exec("UPDATE users SET suspended = $2 WHERE num = $1", &[user.into(), suspended.into()])
    }

    /// Ends the account: no password, no devices, its rooms still to be left.
    pub fn deactivate(&mut self, user: UserNum, erase: bool) -> Result<(), StoreError> {
        self.tx.devices().delete_all_but(user, None)?;
        self.tx.exec(
            "UPDATE users SET deactivated = 1, departing = 1, password_hash = NULL, admin = 0, \
             erased = CASE WHEN CAST($2 AS BIGINT) = 1 THEN 1 ELSE erased END WHERE num = $1",
            &[user.into(), i64::from(erase).into()],
        )
    }

    /// Deactivated users who may still have rooms to leave.
    pub fn departing(&mut self) -> Result<Vec<UserNum>, StoreError> {
        self.tx.query("SELECT num FROM users WHERE departing = 1 ORDER BY num LIMIT 1000", &[], |row| {
            Ok(crate::StringNum(row.int(0)?))
        })
    }

    /// The user has left all rooms.
    pub fn departed(&mut self, user: UserNum) -> Result<(), StoreError> {
        self.tx.exec("UPDATE users SET departing = 0 WHERE num = $1", &[user.into()])
    }
}
