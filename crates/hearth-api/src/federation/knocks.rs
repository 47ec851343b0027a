//! Hearing users of other servers who knock.
//!
//! Spec: server-server API, "Knocking upon a room".

use axum::response::Response;
use hearth_matrix::ruma::api::federation::membership::{create_knock_event, prepare_knock_event};
use serde_json::json;

use super::joins::{is_of, refuse_template};
use super::json_text;
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors};

pub(super) fn routes() -> Vec<Route> {
    let mut routes = super::signed(make_knock);
    routes.extend(super::signed(send_knock));
    routes
}

/// `GET /_matrix/federation/v1/make_knock/{roomId}/{userId}`
async fn make_knock(
    doors: Doors,
    Signed { origin, request }: Signed<prepare_knock_event::v1::Request>,
) -> Result<Response, ApiError> {
    is_of(&origin, &request.user_id)?;
    let template = doors.rooms.knock_template(&request.room_id, &request.user_id, &request.ver).await;
    let template = template.map_err(refuse_template)?;
    Ok(json_text(format!("{{\"room_version\":{},\"event\":{}}}", json!(template.version), template.event)))
}

/// `PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}`
async fn send_knock(
    doors: Doors,
    Signed { origin, request }: Signed<create_knock_event::v1::Request>,
) -> Result<Response, ApiError> {
    let heard = doors.rooms.take_knock(&origin, &request.room_id, &request.event_id, request.pdu.get()).await?;
    Ok(json_text(format!("{{\"knock_room_state\":[{}]}}", heard.room_state.join(","))))
}
