//! Presence: who is online.
//!
//! Spec: client-server API, "Presence". A user sees those with whom he shares a room; of all others he learns nothing, not
//! even whether they exist.

use axum::extract::State;
use hearth_matrix::ruma::OwnedUserId;
use hearth_user::presence::PresenceState;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::must_be;
use crate::extract::PathOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

const PATH: &str = "/_matrix/client/v3/presence/{user_id}/status";

pub(super) fn routes() -> Vec<Route> {
    vec![Route::at(Method::GET, PATH, presence), Route::at(Method::PUT, PATH, set_presence)]
}

/// `GET /_matrix/client/v3/presence/{userId}/status`
async fn presence(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(user_id): PathOf<OwnedUserId>,
) -> Result<JsonBody<Value>, ApiError> {
    let status = doors.presence.of(sender.user, &user_id).await?;
    let mut answer = json!({ "presence": status.state.as_str(), "currently_active": status.currently_active });
    if let Some(status_msg) = status.status_msg {
        answer["status_msg"] = json!(status_msg);
    }
    if let Some(ago) = status.last_active_ago_ms {
        answer["last_active_ago"] = json!(ago);
    }
    Ok(JsonBody(answer))
}

#[derive(Deserialize)]
struct SetPresence {
    presence: String,
    status_msg: Option<String>,
}

/// `PUT /_matrix/client/v3/presence/{userId}/status`
async fn set_presence(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(user_id): PathOf<OwnedUserId>,
    JsonBody(body): JsonBody<SetPresence>,
) -> Result<JsonBody<Value>, ApiError> {
    must_be(&sender, &user_id)?;
    let state = PresenceState::from_spec(&body.presence)
        .ok_or_else(|| ApiError::invalid_param("presence is online, unavailable or offline"))?;
    doors.presence.set(sender.user, &sender.user_id, sender.device, state, body.status_msg).await?;
    Ok(JsonBody(json!({})))
}
