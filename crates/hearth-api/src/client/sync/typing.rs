//! Typing notices.
//!
//! Spec: client-server API, "Typing Notifications".

use std::time::Duration;

use axum::extract::State;
use hearth_matrix::ruma::{OwnedRoomId, OwnedUserId};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::PathOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

/// How long somebody types who does not say how long.
const DEFAULT_MS: u64 = 30_000;

pub(super) fn routes() -> Vec<Route> {
    vec![Route::at(Method::PUT, "/_matrix/client/v3/rooms/{room_id}/typing/{user_id}", set_typing)]
}

#[derive(Deserialize)]
struct Typing {
    typing: bool,
    timeout: Option<u64>,
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}`
async fn set_typing(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((room_id, user_id)): PathOf<(OwnedRoomId, OwnedUserId)>,
    JsonBody(notice): JsonBody<Typing>,
) -> Result<JsonBody<Value>, ApiError> {
    if user_id != sender.user_id {
        return Err(ApiError::forbidden("Nobody types for another"));
    }
    let lasts = notice.typing.then(|| Duration::from_millis(notice.timeout.unwrap_or(DEFAULT_MS)));
    doors.presence.active(sender.user, sender.device);
    doors.rooms.set_typing(&sender.user_id, sender.user, &room_id, lasts).await?;
    Ok(JsonBody(json!({})))
}
