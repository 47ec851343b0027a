//! What the refusals of accounts are in the spec's codes.

use hearth_account::{
    Challenge, ChangePasswordError, DeactivateError, DeviceError, InteractiveError, LoginError, PasswordError,
    RefreshError, RegisterError, SharedSecretError,
};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::ApiError;

/// How long a client should wait whose password could not be hashed now.
const BUSY_MS: u64 = 2000;

impl From<PasswordError> for ApiError {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::TooShort => Self::bad_request("M_WEAK_PASSWORD", error.to_string()),
            PasswordError::TooLong => Self::invalid_param(error.to_string()),
            PasswordError::Busy => Self::limit_exceeded(BUSY_MS),
            PasswordError::Broken(cause) => Self::internal(cause),
        }
    }
}

impl From<InteractiveError> for ApiError {
    fn from(error: InteractiveError) -> Self {
        match error {
            InteractiveError::Required(challenge) => Self::uia(challenge_body(*challenge)),
            InteractiveError::OtherRequest => {
                Self::forbidden("The requested operation has changed during the authentication session")
            }
            InteractiveError::OtherUser => Self::forbidden("The account is not the one that authenticated"),
            InteractiveError::Missing(_) => Self::missing_param(error.to_string()),
            InteractiveError::Password(error) => error.into(),
            InteractiveError::Store(cause) => Self::internal(cause),
        }
    }
}

fn challenge_body(challenge: Challenge) -> Map<String, Value> {
    let flows: Vec<Value> = challenge.flows.iter().map(|stages| json!({ "stages": stages })).collect();
    let mut body = Map::from_iter([
        ("session".to_owned(), challenge.session.into()),
        ("flows".to_owned(), flows.into()),
        ("params".to_owned(), challenge.params.into()),
    ]);
    if !challenge.completed.is_empty() {
        body.insert("completed".to_owned(), json!(challenge.completed));
    }
    if let Some((errcode, error)) = challenge.error {
        body.insert("errcode".to_owned(), errcode.into());
        body.insert("error".to_owned(), error.into());
    }
    body
}

impl From<RegisterError> for ApiError {
    fn from(error: RegisterError) -> Self {
        match error {
            RegisterError::Disabled => Self::forbidden("Registration has been disabled"),
            RegisterError::GuestsDisabled => Self::forbidden("Guest access has been disabled"),
            RegisterError::NotThatGuest => Self::forbidden("The access token is not that of the guest of this name"),
            RegisterError::Username(error) => Self::bad_request("M_INVALID_USERNAME", error.to_string()),
            RegisterError::UserInUse => Self::bad_request("M_USER_IN_USE", "This user name is taken"),
            RegisterError::MissingPassword => Self::missing_param("A password is missing"),
            RegisterError::Password(error) => error.into(),
            RegisterError::DeviceTooLong => Self::invalid_param("The device id or display name is too long"),
            RegisterError::TokenUsedUp => Self::forbidden("The registration token is not valid"),
            RegisterError::Interactive(error) => error.into(),
            RegisterError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<SharedSecretError> for ApiError {
    fn from(error: SharedSecretError) -> Self {
        match error {
            SharedSecretError::Disabled => Self::bad_request("M_UNKNOWN", "Shared-secret registration is not enabled"),
            SharedSecretError::Nonce => Self::bad_request("M_UNKNOWN", "Unrecognised nonce"),
            SharedSecretError::Mac => Self::forbidden("HMAC incorrect"),
            SharedSecretError::Register(error) => error.into(),
        }
    }
}

impl From<LoginError> for ApiError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Forbidden => Self::forbidden("Invalid user name, password or token"),
            LoginError::Deactivated => {
                Self::new(StatusCode::FORBIDDEN, "M_USER_DEACTIVATED", "This account has been deactivated")
            }
            LoginError::Locked => Self::user_locked(),
            LoginError::DeviceTooLong => Self::invalid_param("The device id or display name is too long"),
            LoginError::TooManyDevices => Self::user_limit_exceeded(error.to_string()),
            LoginError::Password(error) => error.into(),
            LoginError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<RefreshError> for ApiError {
    fn from(error: RefreshError) -> Self {
        match error {
            RefreshError::Unknown => Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", "Unknown refresh token")
                .with("soft_logout", false),
            RefreshError::Locked => Self::user_locked(),
            RefreshError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<DeviceError> for ApiError {
    fn from(error: DeviceError) -> Self {
        match error {
            DeviceError::NotFound => Self::not_found("Unknown device"),
            DeviceError::TooLong => Self::too_large("The display name is too long"),
            DeviceError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<ChangePasswordError> for ApiError {
    fn from(error: ChangePasswordError) -> Self {
        match error {
            ChangePasswordError::Missing => Self::missing_param("The new password is missing"),
            ChangePasswordError::Password(error) => error.into(),
            ChangePasswordError::Interactive(error) => error.into(),
            ChangePasswordError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<DeactivateError> for ApiError {
    fn from(error: DeactivateError) -> Self {
        match error {
            DeactivateError::Interactive(error) => error.into(),
            DeactivateError::Store(cause) => Self::internal(cause),
        }
    }
}
