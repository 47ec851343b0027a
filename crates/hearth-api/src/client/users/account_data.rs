//! Account data.
//!
//! Spec: client-server API, "Client Config".

use axum::extract::State;
use hearth_matrix::ruma::{OwnedRoomId, OwnedUserId};
use hearth_user::account_data::AccountDataError;
use http::Method;
use serde_json::{Map, Value, json};

use super::must_be;
use crate::extract::PathOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

pub(super) fn routes() -> Vec<Route> {
    let global = "/_matrix/client/v3/user/{user_id}/account_data/{event_type}";
    let of_room = "/_matrix/client/v3/user/{user_id}/rooms/{room_id}/account_data/{event_type}";
    vec![
        Route::at(Method::GET, global, get_global),
        Route::at(Method::PUT, global, set_global),
        Route::at(Method::GET, of_room, get_of_room),
        Route::at(Method::PUT, of_room, set_of_room),
    ]
}

/// `GET /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn get_global(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, event_type)): PathOf<(OwnedUserId, String)>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    Ok(JsonBody(doors.users.account_data(sender.user, &user_id, None, &event_type).await?))
}

/// `PUT /_matrix/client/v3/user/{userId}/account_data/{type}`
async fn set_global(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, event_type)): PathOf<(OwnedUserId, String)>,
    JsonBody(content): JsonBody<Map<String, Value>>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    doors.users.set_account_data(sender.user, None, &event_type, &content).await.map_err(refuse(&doors))?;
    Ok(JsonBody(json!({})))
}

/// `GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn get_of_room(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, room_id, event_type)): PathOf<(OwnedUserId, OwnedRoomId, String)>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    Ok(JsonBody(doors.users.account_data(sender.user, &user_id, Some(&room_id), &event_type).await?))
}

/// `PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}`
async fn set_of_room(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, room_id, event_type)): PathOf<(OwnedUserId, OwnedRoomId, String)>,
    JsonBody(content): JsonBody<Map<String, Value>>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    doors.users.set_account_data(sender.user, Some(&room_id), &event_type, &content).await.map_err(refuse(&doors))?;
    Ok(JsonBody(json!({})))
}

fn refuse(doors: &Doors) -> impl Fn(AccountDataError) -> ApiError {
    |error| ApiError::from(error).explained(&doors.options)
}
