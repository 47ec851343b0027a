//! Changing one's password.
//!
//! Spec: client-server API, "Password management".

use hearth_store::{Noun, StoreError};

use crate::passwords::{PasswordError, Passwords};
use crate::{Accounts, Attempt, Authenticated, InteractiveError, Secret};

/// Why the password stays.
#[derive(Debug, thiserror::Error)]
pub enum ChangePasswordError {
    /// No new password was given.
    #[error("missing new_password")]
    Missing,
    /// The new one will not do, or not now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// Stages are missing.
    #[error(transparent)]
    Interactive(#[from] InteractiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Changes a password, once the user has shown the old one; if wished, all other devices are signed out.
    pub async fn change_password(
        &self,
        attempt: &Attempt,
        owner: &Authenticated,
        new_password: Option<Secret>,
        logout_devices: bool,
    ) -> Result<(), ChangePasswordError> {
        new_password.as_ref().map_or(Ok(()), Passwords::check_new)?;
        self.ask_password(attempt, owner).await?;
        let new_password = new_password.ok_or(ChangePasswordError::Missing)?;
        let hash = self.inner.passwords.hash(&new_password).await?;
        let (user, kept) = (owner.user, owner.device);
        let change = self.store().write(vec![Noun::User(user)], move |tx| {
            tx.accounts().set_password_hash(user, &hash)?;
            if logout_devices {
                tx.devices().delete_all_but(user, kept)?;
            }
            Ok(())
        });
        Ok(change.await?)
    }
}
