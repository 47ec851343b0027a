//! Reports to whoever runs the server.
//!
//! Spec: client-server API, "Reporting Content".

use axum::extract::State;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use hearth_user::reports::Reported;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::PathOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::POST, "/_matrix/client/v3/rooms/{room_id}/report", report_room),
        Route::at(Method::POST, "/_matrix/client/v3/rooms/{room_id}/report/{event_id}", report_event),
        Route::at(Method::POST, "/_matrix/client/v3/users/{user_id}/report", report_user),
    ]
}

#[derive(Deserialize)]
struct Reason {
    reason: String,
}

/// Of events the reason may be missing.
#[derive(Deserialize)]
struct PerhapsReason {
    reason: Option<String>,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report`
async fn report_room(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(room_id): PathOf<OwnedRoomId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<JsonBody<Value>, ApiError> {
    report(&doors, &sender, Reported::Room(room_id), &body.reason).await
}

/// `POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}`
async fn report_event(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((room_id, event_id)): PathOf<(OwnedRoomId, OwnedEventId)>,
    JsonBody(body): JsonBody<PerhapsReason>,
) -> Result<JsonBody<Value>, ApiError> {
    report(&doors, &sender, Reported::Event(room_id, event_id), body.reason.as_deref().unwrap_or_default()).await
}

/// `POST /_matrix/client/v3/users/{userId}/report`
async fn report_user(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(user_id): PathOf<OwnedUserId>,
    JsonBody(body): JsonBody<Reason>,
) -> Result<JsonBody<Value>, ApiError> {
    report(&doors, &sender, Reported::User(user_id), &body.reason).await
}

async fn report(doors: &Doors, sender: &Sender, reported: Reported, reason: &str) -> Result<JsonBody<Value>, ApiError> {
    let now_ms = doors.views.now_ms();
    doors.users.report(sender.user, reported, reason, now_ms).await?;
    Ok(JsonBody(json!({})))
}
