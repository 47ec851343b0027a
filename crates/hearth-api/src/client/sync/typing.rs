//! Typing notices.
//!
//! Spec: client-server API, "Typing Notifications".

use axum::extract::State;
use hearth_matrix::ruma::api::client::typing::create_typing_event::{self, v3::Typing};

use crate::route::{Route, route};
use crate::{ApiError, Doors, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![route(set_typing)]
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn set_typing(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<create_typing_event::v3::Request>,
) -> Result<Matrix<create_typing_event::v3::Response>, ApiError> {
    if request.user_id != sender.user_id {
        return Err(ApiError::forbidden("Nobody types for another"));
    }
    let lasts = match request.state {
        Typing::Yes(typing) => Some(typing.timeout),
        _ => None,
    };
    doors.presence.active(sender.user, sender.device);
    doors.rooms.set_typing(&sender.user_id, sender.user, &request.room_id, lasts).await?;
    Ok(Matrix(create_typing_event::v3::Response::new()))
}
