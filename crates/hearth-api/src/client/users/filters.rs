//! Filters.
//!
//! Spec: client-server API, "Filtering".

use axum::extract::State;
use hearth_matrix::ruma::OwnedUserId;
use http::Method;
use serde_json::{Map, Value, json};

use super::must_be;
use crate::extract::PathOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::POST, "/_matrix/client/v3/user/{user_id}/filter", create),
        Route::at(Method::GET, "/_matrix/client/v3/user/{user_id}/filter/{filter_id}", filter),
    ]
}

/// `POST /_matrix/client/v3/user/{userId}/filter`
async fn create(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(user_id): PathOf<OwnedUserId>,
    JsonBody(filter): JsonBody<Map<String, Value>>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    let filter_id = doors.users.create_filter(sender.user, &filter).await?;
    Ok(JsonBody(json!({ "filter_id": filter_id })))
}

/// `GET /_matrix/client/v3/user/{userId}/filter/{filterId}`
async fn filter(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((user_id, filter_id)): PathOf<(OwnedUserId, String)>,
) -> Result<JsonBody<Map<String, Value>>, ApiError> {
    must_be(&sender, &user_id)?;
    Ok(JsonBody(doors.users.filter(sender.user, &filter_id).await?))
}
