//! Refreshing access tokens.
//!
//! Spec: client-server API, "Refreshing access tokens". Each refresh token is used once; until what it gave is seen in use,
//! a client whose answer got lost may use it again. After that whoever shows it has a copy: the device's tokens all go.

use hearth_store::{Noun, StoreError};

use crate::Accounts;
use crate::secrets::{Secret, token_hash};

/// New tokens for a device.
#[derive(Clone, Debug)]
pub struct Refreshed {
    /// Opens everything.
    pub access_token: Secret,
    /// Gets the next access token.
    pub refresh_token: Option<Secret>,
    /// For how long the access token is good.
    pub expires_in_ms: Option<i64>,
}

/// Why there are no new tokens.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// Nobody's token, or one that was used.
    #[error("unknown refresh token")]
    Unknown,
    /// An administrator has locked the account.
    #[error("the account is locked")]
    Locked,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Replaces a refresh token and its access token.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Refreshed, RefreshError> {
        let hash = token_hash(refresh_token);
        let known = self.store().read(move |tx| {
            let Some(known) = tx.tokens().refresh_token(&hash)? else { return Ok(None) };
            tx.accounts().by_num(known.user)
        });
        let account = known.await?.filter(|account| !account.state.deactivated).ok_or(RefreshError::Unknown)?;
        if account.state.locked {
            return Err(RefreshError::Locked);
        }
        let user = account.user;

        let minted = self.mint(true);
        let tokens = minted.tokens;
        let refreshed = self.store().write(vec![Noun::User(user)], move |tx| {
            let Some(known) = tx.tokens().refresh_token(&hash)? else { return Ok(None) };
            if known.spent {
                tx.tokens().revoke_of_device(known.user, known.device)?;
                return Ok(Some(false));
            }
            tx.tokens().confirm_refresh(known.user, known.device, &hash)?;
            tx.tokens().rotate(&hash, &known, &tokens)?;
            Ok(Some(true))
        });
        match refreshed.await? {
            Some(true) => Ok(Refreshed {
                access_token: minted.access,
                refresh_token: minted.refresh,
                expires_in_ms: minted.expires_in_ms,
            }),
            Some(false) => {
                tracing::warn!(user = user.0, "a used refresh token was shown again: its device is signed out");
                Err(RefreshError::Unknown)
            }
            None => Err(RefreshError::Unknown),
        }
    }
}
