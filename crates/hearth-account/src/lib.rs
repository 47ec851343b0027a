//! Who may in: registration, sessions, tokens, passwords, interactive authentication.

use hearth_matrix::ruma::{OwnedDeviceId, OwnedUserId};
use hearth_store::{DeviceNum, StoreError, UserNum};

/// Who may in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Accounts;

/// Whom an access token belongs to.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The user's id.
    pub user_id: OwnedUserId,
    /// The user's number.
    pub user: UserNum,
    /// The session's device; an application service has none.
    pub device_id: Option<OwnedDeviceId>,
    /// The device's number.
    pub device: Option<DeviceNum>,
    /// A guest account.
    pub is_guest: bool,
    /// A server administrator.
    pub is_admin: bool,
}

/// Why an access token opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// Nobody's token.
    #[error("unknown access token")]
    Unknown {
        /// The session lives on: the client should refresh its token, not forget its keys.
        soft_logout: bool,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Accounts {
    /// Finds whom an access token belongs to.
    pub async fn authenticate(&self, token: &str) -> Result<Authenticated, AuthenticateError> {
        let _ = token;
        Err(AuthenticateError::Unknown { soft_logout: false })
    }
}
