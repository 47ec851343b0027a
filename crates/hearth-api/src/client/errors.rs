//! The error table of the client's door: what each domain refusal is in the spec's codes.

use hearth_account::AuthenticateError;

use crate::ApiError;

impl From<AuthenticateError> for ApiError {
    fn from(error: AuthenticateError) -> Self {
        match error {
            AuthenticateError::Unknown { soft_logout } => Self::unknown_token(soft_logout),
            AuthenticateError::Store(cause) => Self::internal(cause),
        }
    }
}
