//! Sending events: messages, state, redactions.
//!
//! Spec: client-server API, "Sending events to a room", "Redactions".

use axum::extract::State;
use hearth_matrix::Draft;
use hearth_matrix::ruma::api::client::message::send_message_event;
use hearth_matrix::ruma::api::client::redact::redact_event;
use hearth_matrix::ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use hearth_room::Txn;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::{content, may_act};
use crate::extract::PathOf;
use crate::route::{Route, route};
use crate::{ApiError, Doors, JsonBody, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        route(send),
        route(redact),
        Route::at(Method::PUT, "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}", set_state),
        Route::at(Method::PUT, "/_matrix/client/v3/rooms/{room_id}/state/{event_type}", set_state_without_key)
            .and_at("/_matrix/client/v3/rooms/{room_id}/state/{event_type}/"),
    ]
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}`
async fn send(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<send_message_event::v3::Request>,
) -> Result<Matrix<send_message_event::v3::Response>, ApiError> {
    let mut draft = Draft::message(request.event_type.to_string(), content(request.body.json().get())?);
    if draft.kind == "m.room.redaction" {
        // Rooms of version 11 and later name what they redact in the content.
        let redacts = draft.content.remove("redacts");
        let redacts = redacts.as_ref().and_then(|redacts| redacts.as_str());
        draft.redacts = redacts.and_then(|redacts| OwnedEventId::try_from(redacts).ok());
        if draft.redacts.is_none() {
            return Err(ApiError::bad_json("A redaction names an event in `redacts`"));
        }
    }
    match &draft.redacts {
        Some(target) => may_redact(&doors, &sender, &request.room_id, target).await?,
        None => may_act(&sender)?,
    }
    let txn = txn(&sender, request.txn_id.to_string());
    doors.presence.active(sender.user, sender.device);
    let event_id = doors.rooms.send(&sender.user_id, &request.room_id, draft, txn, None).await?;
    Ok(Matrix(send_message_event::v3::Response::new(event_id)))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}`
async fn redact(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<redact_event::v3::Request>,
) -> Result<Matrix<redact_event::v3::Response>, ApiError> {
    let txn = txn(&sender, request.txn_id.to_string());
    let (room_id, target) = (&request.room_id, &request.event_id);
    may_redact(&doors, &sender, room_id, target).await?;
    doors.presence.active(sender.user, sender.device);
    let event_id = doors.rooms.redact(&sender.user_id, room_id, target, request.reason, txn).await?;
    Ok(Matrix(redact_event::v3::Response::new(event_id)))
}

/// Suspended users may still take back what they said themselves.
async fn may_redact(doors: &Doors, sender: &Sender, room_id: &RoomId, target: &EventId) -> Result<(), ApiError> {
    #[derive(Deserialize)]
    struct Sent {
        sender: OwnedUserId,
    }
    if !sender.is_suspended {
        return Ok(());
    }
    let reader = doors.views.reader(sender.user, &sender.user_id, sender.device);
    let event = doors.views.event(reader, room_id.to_owned(), target.to_owned()).await?;
    match serde_json::from_str::<Sent>(&event) {
        Ok(sent) if sent.sender == sender.user_id => Ok(()),
        _ => Err(ApiError::user_suspended()),
    }
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn set_state(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((room_id, kind, state_key)): PathOf<(OwnedRoomId, String, String)>,
    JsonBody(body): JsonBody<Box<RawValue>>,
) -> Result<JsonBody<Value>, ApiError> {
    may_act(&sender)?;
    let draft = Draft::state(kind, state_key, content(body.get())?);
    doors.presence.active(sender.user, sender.device);
    let event_id = doors.rooms.set_state(&sender.user_id, &room_id, draft, None).await?;
    Ok(JsonBody(json!({ "event_id": event_id })))
}

/// `PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}`: the empty state key, with a slash at the end or without.
async fn set_state_without_key(
    doors: State<Doors>,
    sender: Sender,
    PathOf((room_id, kind)): PathOf<(OwnedRoomId, String)>,
    body: JsonBody<Box<RawValue>>,
) -> Result<JsonBody<Value>, ApiError> {
    set_state(doors, sender, PathOf((room_id, kind, String::new())), body).await
}

fn txn(sender: &Sender, txn_id: String) -> Option<Txn> {
    sender.device.map(|device| Txn { device, txn_id })
}
