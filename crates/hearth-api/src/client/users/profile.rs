//! Profiles.
//!
//! Spec: client-server API, "Profiles". Anybody may look; only the user himself may change.

use axum::extract::State;
use hearth_matrix::ruma::OwnedUserId;
use hearth_user::profile::is_shown_in_rooms;
use http::Method;
use serde_json::{Map, Value, json};

use super::must_be;
use crate::extract::PathOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, OptionalSender, Sender};

pub(super) fn routes() -> Vec<Route> {
    let field = "/_matrix/client/v3/profile/{user_id}/{field}";
    vec![
        Route::at(Method::GET, "/_matrix/client/v3/profile/{user_id}", profile),
        Route::at(Method::GET, field, field_of),
        Route::at(Method::PUT, field, set_field),
        Route::at(Method::DELETE, field, remove_field),
    ]
}

/// `GET /_matrix/client/v3/profile/{userId}`
async fn profile(
    State(doors): State<Doors>,
    _: OptionalSender,
    PathOf(user_id): PathOf<OwnedUserId>,
) -> Result<JsonBody<Map<String, Value>>, ApiError> {
    Ok(JsonBody(doors.users.profile(&user_id).await?))
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`
async fn field_of(
    State(doors): State<Doors>,
    _: OptionalSender,
    PathOf((user_id, field)): PathOf<(OwnedUserId, String)>,
) -> Result<JsonBody<Map<String, Value>>, ApiError> {
    let value = doors.users.profile_field(&user_id, &field).await?;
    Ok(JsonBody(Map::from_iter([(field, value)])))
}

/// `PUT /_matrix/client/v3/profile/{userId}/{keyName}`
async fn set_field(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, field)): PathOf<(OwnedUserId, String)>,
    JsonBody(mut body): JsonBody<Map<String, Value>>,
) -> Result<JsonBody<Value>, ApiError> {
    may_change(&sender, &user_id, &field)?;
    let value =
        body.remove(&field).ok_or_else(|| ApiError::missing_param(format!("{field} is missing in the body")))?;
    let changed = doors.users.set_profile_field(sender.user, &field, value).await?;
    show(&doors, sender, &field, changed).await
}

/// `DELETE /_matrix/client/v3/profile/{userId}/{keyName}`
async fn remove_field(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, field)): PathOf<(OwnedUserId, String)>,
) -> Result<JsonBody<Value>, ApiError> {
    may_change(&sender, &user_id, &field)?;
    let changed = doors.users.remove_profile_field(sender.user, &field).await?;
    show(&doors, sender, &field, changed).await
}

fn may_change(sender: &Sender, user_id: &OwnedUserId, field: &str) -> Result<(), ApiError> {
    must_be(sender, user_id)?;
    if sender.is_suspended {
        return Err(ApiError::user_suspended());
    }
    if sender.is_guest && field != "displayname" {
        return Err(ApiError::forbidden("Guests may only change their display name"));
    }
    Ok(())
}

/// Names and avatars are part of a user's membership of rooms.
async fn show(doors: &Doors, sender: Sender, field: &str, changed: bool) -> Result<JsonBody<Value>, ApiError> {
    if changed && is_shown_in_rooms(field) {
        doors.accounts.profile_changed(sender.user_id).await;
    }
    Ok(JsonBody(json!({})))
}
