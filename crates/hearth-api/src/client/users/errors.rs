//! What the refusals of users' things are in the spec's codes.

use hearth_user::account_data::AccountDataError;
use hearth_user::filters::FilterError;
use hearth_user::presence::{GetPresenceError, SetPresenceError};
use hearth_user::profile::{GetProfileError, SetProfileError};
use hearth_user::push_rules::PushRuleError;
use hearth_user::reports::ReportError;
use hearth_user::tags::TagError;
use http::StatusCode;

use crate::ApiError;

impl From<GetProfileError> for ApiError {
    fn from(error: GetProfileError) -> Self {
        match error {
            GetProfileError::NotFound => Self::not_found("There is no such profile, or no such field in it"),
            GetProfileError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<SetProfileError> for ApiError {
    fn from(error: SetProfileError) -> Self {
        match error {
            SetProfileError::InvalidKey => Self::invalid_param("Not a name for a profile field"),
            SetProfileError::KeyTooLarge => Self::bad_request("M_KEY_TOO_LARGE", error.to_string()),
            SetProfileError::InvalidValue(reason) => Self::invalid_param(reason),
            SetProfileError::ProfileTooLarge => Self::bad_request("M_PROFILE_TOO_LARGE", error.to_string()),
            SetProfileError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<AccountDataError> for ApiError {
    fn from(error: AccountDataError) -> Self {
        match error {
            AccountDataError::ServerControlled => {
                Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_BAD_JSON", error.to_string())
            }
            AccountDataError::TypeTooLong => Self::invalid_param(error.to_string()),
            AccountDataError::TooLarge => Self::too_large(error.to_string()),
            AccountDataError::TooMany => Self::user_limit_exceeded(error.to_string()),
            AccountDataError::NotFound => Self::not_found("Account data not found"),
            AccountDataError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<ReportError> for ApiError {
    fn from(error: ReportError) -> Self {
        match error {
            ReportError::NotFound => {
                Self::not_found("There is no such room, event or user, or you are not in the room")
            }
            ReportError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<TagError> for ApiError {
    fn from(error: TagError) -> Self {
        match error {
            TagError::UnknownRoom => Self::not_found("Unknown room"),
            TagError::TooLarge => Self::invalid_param(error.to_string()),
            TagError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<FilterError> for ApiError {
    fn from(error: FilterError) -> Self {
        match error {
            FilterError::Invalid(_) => Self::bad_json(error.to_string()),
            FilterError::TooLarge => Self::too_large(error.to_string()),
            FilterError::NotFound => Self::not_found("Unknown filter"),
            FilterError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<GetPresenceError> for ApiError {
    fn from(error: GetPresenceError) -> Self {
        match error {
            GetPresenceError::Forbidden => Self::forbidden("You are not allowed to see their presence"),
            GetPresenceError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<SetPresenceError> for ApiError {
    fn from(error: SetPresenceError) -> Self {
        match error {
            SetPresenceError::StatusTooLong => Self::invalid_param(error.to_string()),
            SetPresenceError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<PushRuleError> for ApiError {
    fn from(error: PushRuleError) -> Self {
        match error {
            PushRuleError::NotFound => Self::not_found("Unknown push rule"),
            PushRuleError::UnknownPlace => Self::new(StatusCode::BAD_REQUEST, "M_UNKNOWN", error.to_string()),
            PushRuleError::Invalid(reason) => Self::invalid_param(reason),
            PushRuleError::TooMany => Self::user_limit_exceeded(error.to_string()),
            PushRuleError::Store(cause) => Self::internal(cause),
        }
    }
}
