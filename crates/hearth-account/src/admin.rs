//! What administrators do to accounts: make, list, end, lock them. No rights are checked here.

use hearth_matrix::ruma::{OwnedUserId, UserId};
use hearth_store::{Account, Noun, StoreError, Tx, UserKind, UserNum};

use crate::passwords::{PasswordError, Passwords};
use crate::register::Newcomer;
use crate::{Accounts, RegisterError, Secret};

/// Accounts read at once while searching.
const PAGE: usize = 500;

/// Why an administrator's wish was not fulfilled.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    /// No such account here.
    #[error("unknown user")]
    UnknownUser,
    /// The account has been deactivated.
    #[error("the account has been deactivated")]
    Deactivated,
    /// Not a password, or not now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An account in a list.
#[derive(Clone, Debug)]
pub struct ListedAccount {
    /// Its user.
    pub user_id: OwnedUserId,
    /// The account.
    pub account: Account,
}

impl Accounts {
    /// Makes an account, without a session.
    pub async fn create_user(
        &self,
        username: &str,
        password: &Secret,
        admin: bool,
    ) -> Result<OwnedUserId, RegisterError> {
        let user_id = self.free_user_id(Some(username)).await?;
        Passwords::check_new(password)?;
        let password_hash = Some(self.inner.passwords.hash(password).await?);
        let newcomer = Newcomer {
            displayname: Some(user_id.localpart().to_owned()),
            user_id,
            password_hash,
            kind: UserKind::User,
            admin,
            registration_token: None,
            session: None,
        };
        Ok(self.admit(newcomer).await?.user_id)
    }

    /// Gives an account another password, and signs all its devices out if wished.
    pub async fn reset_password(
        &self,
        user_id: &UserId,
        password: &Secret,
        logout_devices: bool,
    ) -> Result<(), AdminError> {
        Passwords::check_new(password)?;
        let hash = self.inner.passwords.hash(password).await?;
        self.change(user_id, move |tx, user| {
            tx.accounts().set_password_hash(user, &hash)?;
            if logout_devices { tx.devices().delete_all_but(user, None) } else { Ok(()) }
        })
        .await
    }

    /// Ends an account.
    pub async fn deactivate_user(&self, user_id: &UserId, erase: bool) -> Result<(), AdminError> {
        let user = self.account(user_id).await?.ok_or(AdminError::UnknownUser)?.user;
        Ok(self.end_account(user, erase).await?)
    }

    /// Grants or takes administration rights.
    pub async fn set_admin(&self, user_id: &UserId, admin: bool) -> Result<(), AdminError> {
        self.change(user_id, move |tx, user| tx.accounts().set_admin(user, admin)).await
    }

    /// Locks or unlocks an account.
    pub async fn set_locked(&self, user_id: &UserId, locked: bool) -> Result<(), AdminError> {
        self.change(user_id, move |tx, user| tx.accounts().set_locked(user, locked)).await
    }

    /// Suspends an account or lets it act again.
    pub async fn set_suspended(&self, user_id: &UserId, suspended: bool) -> Result<(), AdminError> {
        self.change(user_id, move |tx, user| tx.accounts().set_suspended(user, suspended)).await
    }

    /// The account of a user.
    pub async fn account(&self, user_id: &UserId) -> Result<Option<Account>, StoreError> {
        let user_id = user_id.to_owned();
        self.store().read(move |tx| tx.accounts().by_id(user_id.as_str())).await
    }

    /// How many accounts there are.
    pub async fn account_count(&self) -> Result<i64, StoreError> {
        self.store().read(|tx| tx.accounts().count()).await
    }

    /// Accounts in order of their names, after one of them, whose localpart contains a text.
    pub async fn list_accounts(
        &self,
        after: &str,
        containing: &str,
        limit: usize,
    ) -> Result<Vec<ListedAccount>, StoreError> {
        let containing = containing.to_lowercase();
        let mut after = after.to_owned();
        let mut found = Vec::new();
        while found.len() < limit {
            let from = after.clone();
            let page = self.store().read(move |tx| tx.accounts().list(&from, PAGE)).await?;
            let is_last = page.len() < PAGE;
            if let Some(last) = page.last() {
                after.clone_from(&last.localpart);
            }
            for account in page.into_iter().filter(|account| account.localpart.to_lowercase().contains(&containing)) {
                let user_id = format!("@{}:{}", account.localpart, self.config().server_name);
                found.push(ListedAccount { user_id: crate::sessions::parse_user_id(&user_id)?, account });
            }
            if is_last {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }

    async fn change(
        &self,
        user_id: &UserId,
        change: impl Fn(&mut Tx<'_>, UserNum) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), AdminError> {
        let account = self.account(user_id).await?.ok_or(AdminError::UnknownUser)?;
        let user = account.user;
        let changed = self.store().write(vec![Noun::User(user)], move |tx| {
            let is_alive = tx.accounts().by_num(user)?.is_some_and(|account| !account.state.deactivated);
            if is_alive {
                change(tx, user)?;
            }
            Ok(is_alive)
        });
        changed.await?.then_some(()).ok_or(AdminError::Deactivated)
    }
}
