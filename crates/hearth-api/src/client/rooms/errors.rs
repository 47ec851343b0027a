//! What the refusals of rooms are in the spec's codes.

use hearth_matrix::ruma::ServerName;
use hearth_room::{Refusal, RoomError};
use http::StatusCode;

use crate::ApiError;

/// Characters that are passed on of what another server says.
const MESSAGE: usize = 1_000;

impl From<RoomError> for ApiError {
    fn from(error: RoomError) -> Self {
        let message = error.to_string();
        match error {
            RoomError::UnknownRoom => Self::not_found("There is no such room"),
            RoomError::NotFound(_) => Self::not_found(message),
            RoomError::Forbidden(_) => Self::forbidden(message),
            RoomError::UnableToGrantJoin => Self::bad_request("M_UNABLE_TO_GRANT_JOIN", message),
            RoomError::UnableToAuthoriseJoin => Self::bad_request("M_UNABLE_TO_AUTHORISE_JOIN", message),
            RoomError::InviteBlocked(_) => Self::new(StatusCode::FORBIDDEN, "M_INVITE_BLOCKED", message),
            RoomError::GuestsForbidden => Self::new(StatusCode::FORBIDDEN, "M_GUEST_ACCESS_FORBIDDEN", message),
            RoomError::TooLarge => Self::too_large(message),
            RoomError::BadEvent(_) => Self::bad_json(message),
            RoomError::DuplicateAnnotation => Self::bad_request("M_DUPLICATE_ANNOTATION", message),
            RoomError::BadAlias(_) => Self::bad_request("M_BAD_ALIAS", message),
            RoomError::AliasInUse(_) => Self::new(StatusCode::CONFLICT, "M_UNKNOWN", message),
            RoomError::StillInRoom(_) => Self::bad_request("M_UNKNOWN", message),
            RoomError::InvalidParam(_) => Self::invalid_param(message),
            RoomError::UnsupportedVersion(_) => Self::bad_request("M_UNSUPPORTED_ROOM_VERSION", message),
            RoomError::InvalidRoomState(_) => Self::bad_request("M_INVALID_ROOM_STATE", message),
            RoomError::Remote(_) => Self::not_found(message),
            RoomError::RefusedBy { refusal, .. } => Self::refused_elsewhere(&refusal, message),
            RoomError::NotSigned { server, refusal } => Self::not_signed(&server, refusal),
            RoomError::Unreachable(_) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message),
            RoomError::Store(cause) => Self::internal(cause),
        }
    }
}

impl ApiError {
    /// What the room's policy server said, in its own words. Its codes are what a client may hear of its own request; others, such
    /// as that there is no policy server, would mean something else here.
    fn not_signed(server: &ServerName, Refusal { errcode, message, .. }: Refusal) -> Self {
        let own = match message.is_empty() {
            true => format!("{server}, the policy server of this room, does not accept this event"),
            false => message.chars().take(MESSAGE).collect(),
        };
        match &*errcode {
            "M_FORBIDDEN" => Self::forbidden(own),
            "M_BAD_JSON" => Self::bad_json(own),
            "M_LIMIT_EXCEEDED" => Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", own),
            _ => Self::forbidden(format!("{server}, the policy server of this room, signs nothing: {errcode} {own}")),
        }
    }

    /// What another server refused: its code, if it is one that a client may hear from its own server.
    fn refused_elsewhere(refusal: &Refusal, message: String) -> Self {
        let codes = [
            "M_BAD_STATE",
            "M_FORBIDDEN",
            "M_INCOMPATIBLE_ROOM_VERSION",
            "M_INVITE_BLOCKED",
            "M_NOT_FOUND",
            "M_UNABLE_TO_AUTHORISE_JOIN",
            "M_UNABLE_TO_GRANT_JOIN",
            "M_UNSUPPORTED_ROOM_VERSION",
        ];
        let code = codes.into_iter().find(|code| *code == refusal.errcode);
        match (code, StatusCode::from_u16(refusal.status)) {
            (Some(code), Ok(status)) if status.is_client_error() => Self::new(status, code, message),
            _ => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", message),
        }
    }
}
