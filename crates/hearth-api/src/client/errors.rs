//! The error table of the client's door: what each domain refusal is in the spec's codes. Chapters with many refusals have
//! tables of their own.

use hearth_account::AuthenticateError;
use hearth_remote::RemoteError;
use http::StatusCode;

use crate::ApiError;

impl ApiError {
    /// 401 `M_USER_LOCKED`: the client keeps its session and waits.
    pub(super) fn user_locked() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", "This account has been locked").with("soft_logout", true)
    }

    /// 403 `M_USER_SUSPENDED`: the user may only look.
    pub(super) fn user_suspended() -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_USER_SUSPENDED", "This account has been suspended")
    }
}

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Unknown { soft_logout } => Self::unknown_token(soft_logout),
            AuthenticateError::Locked => Self::user_locked(),
            AuthenticateError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<RemoteError> for ApiError {
    /// What another server could not be asked, or refused.
    fn from(error: RemoteError) -> Self {
        let message = error.to_string();
        match error {
            RemoteError::Store(cause) => Self::internal(cause),
            RemoteError::Forbidden(_) => Self::forbidden(message),
            RemoteError::Refused { status, .. } if status == StatusCode::NOT_FOUND => Self::not_found(message),
            RemoteError::Refused { status, .. } if status == StatusCode::FORBIDDEN => Self::forbidden(message),
            RemoteError::Timeout => Self::new(StatusCode::GATEWAY_TIMEOUT, "M_UNKNOWN", message),
            _ => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message),
        }
    }
}
