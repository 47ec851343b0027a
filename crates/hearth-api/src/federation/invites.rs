//! Invites of other servers for users of ours.
//!
//! Spec: server-server API, "Inviting to a room".

use axum::extract::State;
use axum::response::{IntoResponse, Response};
// Its request is what these are, too: a room, an event, and a body that is read here, as the events in it must stay as they are.
use hearth_matrix::ruma::api::federation::membership::create_leave_event::v2::Request;
use hearth_matrix::ruma::{OwnedServerName, RoomVersionId};
use hearth_room::Invitation;
use http::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::joins::refuse_template;
use super::json_text;
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors};

/// A body of the second version.
#[derive(Deserialize)]
struct Invite {
    room_version: RoomVersionId,
    event: Box<RawValue>,
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
}

/// A body of the first version: the event itself.
#[derive(Deserialize)]
struct OldInvite {
    #[serde(default)]
    unsigned: Unsigned,
}

#[derive(Default, Deserialize)]
struct Unsigned {
    #[serde(default)]
    invite_room_state: Vec<Box<RawValue>>,
}

/// As much of a create event as tells the version.
#[derive(Deserialize)]
struct Create {
    #[serde(rename = "type")]
    kind: String,
    content: CreateContent,
}

#[derive(Deserialize)]
struct CreateContent {
    room_version: Option<RoomVersionId>,
}

/// As much of an invite as tells who is invited.
#[derive(Deserialize)]
struct Invited {
    #[serde(default)]
    state_key: String,
}

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(
            Method::PUT,
            "/_matrix/federation/v2/invite/{room_id}/{event_id}",
            async |State(doors): State<Doors>, signed| invite(doors, signed).await.into_response(),
        ),
        Route::at(
            Method::PUT,
            "/_matrix/federation/v1/invite/{room_id}/{event_id}",
            async |State(doors): State<Doors>, signed| invite_v1(doors, signed).await.into_response(),
        ),
    ]
}

/// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`
async fn invite(doors: Doors, Signed { origin, request }: Signed<Request>) -> Result<Response, ApiError> {
    let body: Invite = serde_json::from_str(request.pdu.get()).map_err(bad)?;
    let Invite { room_version, event, invite_room_state } = body;
    let signed = take(&doors, &origin, &request, room_version, event.get(), invite_room_state).await?;
    Ok(json_text(format!("{{\"event\":{signed}}}")))
}

/// `PUT /_matrix/federation/v1/invite/{roomId}/{eventId}`
async fn invite_v1(doors: Doors, Signed { origin, request }: Signed<Request>) -> Result<Response, ApiError> {
    let OldInvite { unsigned } = serde_json::from_str(request.pdu.get()).map_err(bad)?;
    let creates =
        unsigned.invite_room_state.iter().filter_map(|event| serde_json::from_str::<Create>(event.get()).ok());
    let version = creates.filter(|event| event.kind == "m.room.create").find_map(|create| create.content.room_version);
    let version = match version {
        Some(version) => version,
        // What names none is of the first version or of the second, which looks the same.
        None => match doors.rooms.version_of(&request.room_id).await? {
            Some(RoomVersionId::V2) => RoomVersionId::V2,
            _ => RoomVersionId::V1,
        },
    };
    let signed = take(&doors, &origin, &request, version, request.pdu.get(), unsigned.invite_room_state).await?;
    Ok(json_text(format!("[200,{{\"event\":{signed}}}]")))
}

async fn take(
    doors: &Doors,
    origin: &OwnedServerName,
    request: &Request,
    version: RoomVersionId,
    event: &str,
    room_state: Vec<Box<RawValue>>,
) -> Result<String, ApiError> {
    // Of an event without one the room says what is wrong with it.
    let Invited { state_key } = serde_json::from_str(event).map_err(bad)?;
    doors.limits.server_invites(origin.as_str(), &state_key)?;
    let invitation = Invitation {
        room_id: request.room_id.clone(),
        version,
        event_id: request.event_id.clone(),
        event: event.to_owned(),
        room_state: room_state.into_iter().map(|event| String::from(Box::<str>::from(event))).collect(),
    };
    doors.rooms.take_invite(origin, &invitation).await.map_err(refuse_template)
}

fn bad(error: serde_json::Error) -> ApiError {
    ApiError::bad_json(format!("This is no invite: {error}"))
}
