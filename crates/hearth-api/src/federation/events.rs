//! Events and state of rooms for servers that are in them.
//!
//! What a server may not see it gets redacted; whether it may ask at all, the room decides.
//! Spec: server-server API, "Retrieving events", "Backfilling and retrieving missing events".

use axum::response::Response;
use hearth_matrix::ruma::api::federation::authorization::get_event_authorization;
use hearth_matrix::ruma::api::federation::backfill::get_backfill;
use hearth_matrix::ruma::api::federation::event::{get_event, get_missing_events, get_room_state, get_room_state_ids};
use hearth_matrix::ruma::{OwnedRoomId, UInt};
use hearth_room::MissingEvents;
use hearth_store::Standing;
use serde_json::json;

use super::{json_text, list};
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody};

/// Events that one question may name.
const NAMED: usize = 100;

pub(super) fn routes() -> Vec<Route> {
    let mut routes = super::signed(event);
    routes.extend(super::heavy(state));
    routes.extend(super::heavy(state_ids));
    routes.extend(super::heavy(event_auth));
    routes.extend(super::signed(backfill));
    routes.extend(super::signed(missing_events));
    routes
}

/// `GET /_matrix/federation/v1/event/{eventId}`
async fn event(doors: Doors, Signed { origin, request }: Signed<get_event::v1::Request>) -> Result<Response, ApiError> {
    let room_id = doors.rooms.room_of_event(&origin, &request.event_id).await?;
    let found = doors.rooms.event(&room_id, &request.event_id).await?;
    // What was rejected nobody is to have from us.
    let standing = found.filter(|(_, standing)| *standing != Standing::Rejected);
    let (pdu, _) = standing.ok_or_else(|| ApiError::not_found("There is no such event"))?;
    let shown = doors.rooms.shown_to(&origin, vec![pdu]).await?;
    if shown.is_empty() {
        return Err(ApiError::not_found("Whether you may see this event takes too long to find out"));
    }
    Ok(transaction_of(&doors, &shown))
}

/// `GET /_matrix/federation/v1/state/{roomId}`
async fn state(
    doors: Doors,
    Signed { origin, request }: Signed<get_room_state::v1::Request>,
) -> Result<Response, ApiError> {
    doors.rooms.may_ask(&origin, &request.room_id).await?;
    let before = doors.rooms.state_before(&request.room_id, &request.event_id).await?;
    let (state, auth_chain) = (list(&before.state), list(&before.auth_chain));
    Ok(json_text(format!("{{\"pdus\":{state},\"auth_chain\":{auth_chain}}}")))
}

/// `GET /_matrix/federation/v1/state_ids/{roomId}`
async fn state_ids(
    doors: Doors,
    Signed { origin, request }: Signed<get_room_state_ids::v1::Request>,
) -> Result<JsonBody<serde_json::Value>, ApiError> {
    doors.rooms.may_ask(&origin, &request.room_id).await?;
    let before = doors.rooms.state_ids_before(&request.room_id, &request.event_id).await?;
    Ok(JsonBody(json!({ "pdu_ids": before.state, "auth_chain_ids": before.auth_chain })))
}

/// `GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}`
async fn event_auth(
    doors: Doors,
    Signed { origin, request }: Signed<get_event_authorization::v1::Request>,
) -> Result<Response, ApiError> {
    doors.rooms.may_ask(&origin, &request.room_id).await?;
    let chain = doors.rooms.auth_chain(&request.room_id, &request.event_id).await?;
    Ok(json_text(format!("{{\"auth_chain\":{}}}", list(&chain))))
}

/// `GET /_matrix/federation/v1/backfill/{roomId}`
async fn backfill(
    doors: Doors,
    Signed { origin, request }: Signed<get_backfill::v1::Request>,
) -> Result<Response, ApiError> {
    bounded(request.v.len())?;
    doors.rooms.may_ask(&origin, &request.room_id).await?;
    let events = doors.rooms.history_before(&request.room_id, request.v, number(request.limit)).await?;
    let shown = doors.rooms.shown_to(&origin, events).await?;
    Ok(transaction_of(&doors, &shown))
}

/// `POST /_matrix/federation/v1/get_missing_events/{roomId}`
async fn missing_events(
    doors: Doors,
    Signed { origin, request }: Signed<get_missing_events::v1::Request>,
) -> Result<Response, ApiError> {
    bounded(request.earliest_events.len().max(request.latest_events.len()))?;
    let room_id: OwnedRoomId = request.room_id;
    doors.rooms.may_ask(&origin, &room_id).await?;
    let question = MissingEvents {
        earliest: request.earliest_events,
        latest: request.latest_events,
        limit: u32::try_from(number(request.limit)).unwrap_or(u32::MAX),
        min_depth: request.min_depth.into(),
    };
    let mut events = doors.rooms.missing_events(&room_id, question).await?;
    events.reverse();
    let mut shown = doors.rooms.shown_to(&origin, events).await?;
    shown.reverse();
    Ok(json_text(format!("{{\"events\":[{}]}}", shown.join(","))))
}

fn number(limit: UInt) -> usize {
    usize::try_from(u64::from(limit)).unwrap_or(usize::MAX)
}

fn bounded(named: usize) -> Result<(), ApiError> {
    if named > NAMED {
        return Err(ApiError::invalid_param(format!("More than {NAMED} events are named")));
    }
    Ok(())
}

/// Events in the shape of a transaction of ours.
fn transaction_of(doors: &Doors, pdus: &[String]) -> Response {
    json_text(format!(
        "{{\"origin\":{},\"origin_server_ts\":{},\"pdus\":[{}]}}",
        json!(doors.options.server_name),
        doors.rooms.now_ms(),
        pdus.join(",")
    ))
}
