//! Room tags.
//!
//! Spec: client-server API, "Room Tagging".

use axum::extract::State;
use hearth_matrix::ruma::{OwnedRoomId, OwnedUserId};
use http::Method;
use serde_json::{Map, Value, json};

use super::must_be;
use crate::extract::PathOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

pub(super) fn routes() -> Vec<Route> {
    let tag = "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags/{tag}";
    vec![
        Route::at(Method::GET, "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/tags", tags),
        Route::at(Method::PUT, tag, set),
        Route::at(Method::DELETE, tag, remove),
    ]
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags`
async fn tags(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, room_id)): PathOf<(OwnedUserId, OwnedRoomId)>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    let tags = doors.users.tags(sender.user, &room_id).await?;
    Ok(JsonBody(json!({ "tags": tags })))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn set(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, room_id, tag)): PathOf<(OwnedUserId, OwnedRoomId, String)>,
    JsonBody(content): JsonBody<Map<String, Value>>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    if content.get("order").is_some_and(|order| !order.is_number()) {
        return Err(ApiError::bad_json("order must be a number"));
    }
    doors.users.set_tag(sender.user, &room_id, &tag, content).await?;
    Ok(JsonBody(json!({})))
}

/// `DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}`
async fn remove(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, room_id, tag)): PathOf<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    doors.users.remove_tag(sender.user, &room_id, &tag).await?;
    Ok(JsonBody(json!({})))
}
