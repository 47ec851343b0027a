//! Letting users of other servers in.
//!
//! Spec: server-server API, "Joining Rooms".

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_matrix::ruma::api::federation::membership::{create_join_event, prepare_join_event};
use hearth_matrix::ruma::{OwnedServerName, RoomId, UserId};
use hearth_room::{RoomError, Welcomed};
use http::{Method, StatusCode};
use serde_json::json;

use super::origins::Weight;
use super::{json_text, list};
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors};

/// Servers told of in an answer to a join: all there are, for who joins sends to them.
const SERVERS: usize = 100_000;

pub(super) fn routes() -> Vec<Route> {
    let mut routes = super::signed(make_join);
    routes.extend(super::heavy(send_join));
    routes.push(Route::at(
        Method::PUT,
        "/_matrix/federation/v1/send_join/{room_id}/{event_id}",
        async |State(doors): State<Doors>, signed: Signed<create_join_event::v2::Request>| {
            let place = doors.origins.place(&signed.origin, Weight::Heavy).await?;
            let answer = send_join_v1(doors, signed).await.into_response();
            Ok::<Response, ApiError>(place.until_read(answer))
        },
    ));
    routes
}

/// `GET /_matrix/federation/v1/make_join/{roomId}/{userId}`
async fn make_join(
    doors: Doors,
    Signed { origin, request }: Signed<prepare_join_event::v1::Request>,
) -> Result<Response, ApiError> {
    is_of(&origin, &request.user_id)?;
    doors.rooms.admits(&origin, &request.room_id).await?;
    let template = doors.rooms.join_template(&request.room_id, &request.user_id, &request.ver).await;
    let template = template.map_err(refuse_template)?;
    Ok(json_text(format!("{{\"room_version\":{},\"event\":{}}}", json!(template.version), template.event)))
}

/// `PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}`
async fn send_join(
    doors: Doors,
    Signed { origin, request }: Signed<create_join_event::v2::Request>,
) -> Result<Response, ApiError> {
    Ok(json_text(welcome(&doors, &origin, request).await?))
}

/// `PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}`
async fn send_join_v1(
    doors: Doors,
    Signed { origin, request }: Signed<create_join_event::v2::Request>,
) -> Result<Response, ApiError> {
    let answer = welcome(&doors, &origin, request).await?;
    Ok(json_text(format!("[200,{answer}]")))
}

async fn welcome(
    doors: &Doors,
    origin: &OwnedServerName,
    request: create_join_event::v2::Request,
) -> Result<String, ApiError> {
    let room_id: &RoomId = &request.room_id;
    doors.rooms.admits(origin, room_id).await?;
    // Those that are there before the join.
    let servers = doors.rooms.servers(room_id, SERVERS).await?;
    let omit = request.omit_members;
    let welcomed = doors.rooms.welcome(origin, room_id, &request.event_id, request.pdu.get(), omit).await?;
    let Welcomed { event, before } = welcomed;
    Ok(format!(
        "{{\"origin\":{},\"members_omitted\":{omit},\"event\":{},\"state\":{},\"auth_chain\":{},\"servers_in_room\":{}}}",
        json!(doors.options.server_name),
        event.json,
        list(&before.state),
        list(&before.auth_chain),
        json!(servers),
    ))
}

/// A server acts for its own users only.
pub(super) fn is_of(origin: &OwnedServerName, user: &UserId) -> Result<(), ApiError> {
    if user.server_name() != origin {
        return Err(ApiError::forbidden(format!("{user} is no user of {origin}")));
    }
    Ok(())
}

/// To servers a room of a version that they don't know is one that is not compatible.
pub(super) fn refuse_template(error: RoomError) -> ApiError {
    match error {
        RoomError::UnsupportedVersion(version) => {
            let message = format!("The room is of version {version}, which your server does not know");
            ApiError::new(StatusCode::BAD_REQUEST, "M_INCOMPATIBLE_ROOM_VERSION", message)
                .with("room_version", version.as_str())
        }
        error => error.into(),
    }
}
