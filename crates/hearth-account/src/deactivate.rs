//! The end of an account.
//!
//! Spec: client-server API, "Account deactivation". The account ends in one commit; its rooms are left afterwards, and again
//! after a restart until all are.

use hearth_store::{Noun, StoreError, UserNum};

use crate::sessions::parse_user_id;
use crate::{Accounts, Attempt, Authenticated, InteractiveError};

/// Why the account goes on.
#[derive(Debug, thiserror::Error)]
pub enum DeactivateError {
    /// Stages are missing.
    #[error(transparent)]
    Interactive(#[from] InteractiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Ends the user's own account, once he has shown his password.
    pub async fn deactivate(
        &self,
        attempt: &Attempt,
        owner: &Authenticated,
        erase: bool,
    ) -> Result<(), DeactivateError> {
        self.ask_password(attempt, owner).await?;
        Ok(self.end_account(owner.user, erase).await?)
    }

    pub(crate) async fn end_account(&self, user: UserNum, erase: bool) -> Result<(), StoreError> {
        let end = self.store().write(vec![Noun::User(user)], move |tx| {
            tx.accounts().deactivate(user, erase)?;
            tx.account_data().purge(user)?;
            tx.profiles().remove_all(user)
        });
        end.await?;
        let accounts = self.clone();
        tokio::spawn(async move { accounts.leave_rooms(user).await });
        Ok(())
    }

    /// Goes on with what a restart interrupted.
    pub(crate) async fn resume_departures(&self) -> Result<(), StoreError> {
        for user in self.store().read(|tx| tx.accounts().departing()).await? {
            self.leave_rooms(user).await;
        }
        Ok(())
    }

    async fn leave_rooms(&self, user: UserNum) {
        if let Err(error) = self.try_leave_rooms(user).await {
            tracing::warn!(user = user.0, %error, "a deactivated user has rooms left to leave");
        }
    }

    async fn try_leave_rooms(&self, user: UserNum) -> Result<(), String> {
        let failed = |error: StoreError| error.to_string();
        let user_id = self.store().read(move |tx| tx.string(user)).await.map_err(failed)?;
        self.inner.residence.leave_all(parse_user_id(&user_id).map_err(failed)?).await?;
        self.store().write(vec![Noun::User(user)], move |tx| tx.accounts().departed(user)).await.map_err(failed)
    }
}
