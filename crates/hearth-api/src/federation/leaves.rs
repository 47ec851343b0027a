//! Letting users of other servers go: out of rooms, out of invites, back from knocks.
//!
//! Spec: server-server API, "Leaving Rooms (Rejecting Invites)".

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_matrix::ruma::OwnedServerName;
use hearth_matrix::ruma::api::federation::membership::{create_leave_event, prepare_leave_event};
use http::Method;
use serde_json::json;

use super::joins::{is_of, refuse_template};
use super::json_text;
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors};

pub(super) fn routes() -> Vec<Route> {
    let mut routes = super::signed(make_leave);
    routes.extend(super::signed(send_leave));
    routes.push(Route::at(
        Method::PUT,
        "/_matrix/federation/v1/send_leave/{room_id}/{event_id}",
        async |State(doors): State<Doors>, signed| send_leave_v1(doors, signed).await.into_response(),
    ));
    routes
}

/// `GET /_matrix/federation/v1/make_leave/{roomId}/{userId}`
async fn make_leave(
    doors: Doors,
    Signed { origin, request }: Signed<prepare_leave_event::v1::Request>,
) -> Result<Response, ApiError> {
    is_of(&origin, &request.user_id)?;
    let template = doors.rooms.leave_template(&request.room_id, &request.user_id).await.map_err(refuse_template)?;
    Ok(json_text(format!("{{\"room_version\":{},\"event\":{}}}", json!(template.version), template.event)))
}

/// `PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}`
async fn send_leave(
    doors: Doors,
    Signed { origin, request }: Signed<create_leave_event::v2::Request>,
) -> Result<Response, ApiError> {
    take(&doors, &origin, &request).await?;
    Ok(json_text("{}".to_owned()))
}

/// `PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}`
async fn send_leave_v1(
    doors: Doors,
    Signed { origin, request }: Signed<create_leave_event::v2::Request>,
) -> Result<Response, ApiError> {
    take(&doors, &origin, &request).await?;
    Ok(json_text("[200,{}]".to_owned()))
}

async fn take(
    doors: &Doors,
    origin: &OwnedServerName,
    request: &create_leave_event::v2::Request,
) -> Result<(), ApiError> {
    doors.rooms.take_leave(origin, &request.room_id, &request.event_id, request.pdu.get()).await?;
    Ok(())
}
