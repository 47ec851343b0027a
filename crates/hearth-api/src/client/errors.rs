//! The error table of the client's door: what each domain refusal is in the spec's codes. Chapters with many refusals have
//! tables of their own.

use hearth_account::AuthenticateError;
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
