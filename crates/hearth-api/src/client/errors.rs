//! The error table of the client's door: what each domain refusal is in the spec's codes.

use hearth_account::AuthenticateError;

use http::StatusCode;

use crate::ApiError;

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Unknown { soft_logout } => Self::unknown_token(soft_logout),
            AuthenticateError::Locked => {
                Self::new(StatusCode::UNAUTHORIZED, "M_USER_LOCKED", "This account has been locked")
                    .with("soft_logout", true)
            }
            AuthenticateError::Store(cause) => Self::internal(cause),
        }
    }
}
