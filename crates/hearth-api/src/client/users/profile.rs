//! Profiles.
//!
//! Spec: client-server API, "Profiles". Anybody may look; only the user himself may change.

use std::time::Duration;

use axum::extract::State;
use hearth_matrix::ruma::OwnedUserId;
use hearth_matrix::ruma::api::federation::query::get_profile_information;
use hearth_matrix::ruma::profile::ProfileFieldName;
use hearth_remote::{Limits, SendOptions};
use hearth_user::profile::is_shown_in_rooms;
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::must_be;
use crate::extract::PathOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, OptionalSender, Sender};

/// How long another server is waited for, and how much it may say.
const ASKING: Duration = Duration::from_secs(10);
const ANSWER_BYTES: usize = 128 * 1024;

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
    if user_id.server_name() != doors.options.server_name {
        return Ok(JsonBody(elsewhere(&doors, user_id, None).await?));
    }
    Ok(JsonBody(doors.users.profile(&user_id).await?))
}

/// The profile of another server's user, as that server tells it.
async fn elsewhere(doors: &Doors, user_id: OwnedUserId, field: Option<&str>) -> Result<Map<String, Value>, ApiError> {
    let server = user_id.server_name().to_owned();
    let mut request = get_profile_information::v1::Request::new(user_id);
    request.field = field.map(ProfileFieldName::from);
    let limits = Limits { timeout: ASKING, response_bytes: ANSWER_BYTES };
    // Somebody waits for it: a server that failed lately may be well again.
    let options = SendOptions { limits, despite_back_off: true, ..SendOptions::default() };
    let answer = doors.remote.ask(&server, request, options).await?;
    match serde_json::from_slice(answer.body()) {
        Ok(Value::Object(profile)) => Ok(profile),
        _ => Err(ApiError::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", format!("{server} answered nonsense"))),
    }
}

/// `GET /_matrix/client/v3/profile/{userId}/{keyName}`
async fn field_of(
    State(doors): State<Doors>,
    _: OptionalSender,
    PathOf((user_id, field)): PathOf<(OwnedUserId, String)>,
) -> Result<JsonBody<Map<String, Value>>, ApiError> {
    if user_id.server_name() != doors.options.server_name {
        let mut profile = elsewhere(&doors, user_id, Some(&field)).await?;
        let value =
            profile.remove(&field).ok_or_else(|| ApiError::not_found("There is no such field in the profile"))?;
        return Ok(JsonBody(Map::from_iter([(field, value)])));
    }
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
