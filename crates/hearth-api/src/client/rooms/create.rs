//! A new room.
//!
//! Spec: client-server API, "Creation".

use axum::extract::State;
use hearth_matrix::ruma::CanonicalJsonObject;
use hearth_matrix::ruma::api::client::room::Visibility;
use hearth_matrix::ruma::api::client::room::create_room::v3::{Request, Response, RoomPreset};
use hearth_matrix::{Draft, ruma::serde::Raw};
use hearth_room::{CreateRoom, Preset, RoomError};
use serde::Deserialize;

use super::{content, may_act};
use crate::route::{Route, route};
use crate::{ApiError, Doors, Matrix, Sender};

/// Users invited to a new room at most.
const INVITES: usize = 500;

pub(super) fn routes() -> Vec<Route> {
    vec![route(create)]
}

/// `POST /_matrix/client/v3/createRoom`
async fn create(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<Request>,
) -> Result<Matrix<Response>, ApiError> {
    may_act(&sender)?;
    if sender.is_guest {
        return Err(ApiError::new(
            http::StatusCode::FORBIDDEN,
            "M_GUEST_ACCESS_FORBIDDEN",
            "Guests may not create rooms",
        ));
    }
    if !request.invite_3pid.is_empty() {
        let message = "This server does not invite by e-mail address or phone number";
        return Err(ApiError::new(http::StatusCode::FORBIDDEN, "M_THREEPID_DENIED", message));
    }
    if request.invite.len() > INVITES {
        return Err(ApiError::invalid_param(format!("At most {INVITES} users can be invited to a new room")));
    }
    let published = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => return Err(ApiError::invalid_param(format!("visibility is public or private, not {other}"))),
    };
    let preset = match request.preset {
        Some(RoomPreset::PrivateChat) => Preset::PrivateChat,
        Some(RoomPreset::TrustedPrivateChat) => Preset::TrustedPrivateChat,
        Some(RoomPreset::PublicChat) => Preset::PublicChat,
        None if published => Preset::PublicChat,
        None => Preset::PrivateChat,
        Some(other) => return Err(ApiError::invalid_param(format!("{other:?} is no preset"))),
    };
    let mut invite = request.invite;
    invite.retain(|user| *user != sender.user_id);
    invite.sort_unstable();
    invite.dedup();
    doors.limits.invites(sender.user, invite.len())?;
    let room = CreateRoom {
        creator: sender.user_id,
        version: request.room_version,
        preset,
        creation_content: object(request.creation_content)?.unwrap_or_default(),
        power_levels: object(request.power_level_content_override)?,
        initial_state: request.initial_state.iter().map(initial_state).collect::<Result<_, _>>()?,
        name: request.name,
        topic: request.topic,
        alias_localpart: request.room_alias_name,
        invite,
        is_direct: request.is_direct,
        published,
    };
    let room_id = doors.rooms.create(room).await.map_err(refuse)?;
    Ok(Matrix(Response::new(room_id)))
}

/// Here, unlike at the directory, a taken alias has a code of its own.
fn refuse(error: RoomError) -> ApiError {
    match error {
        RoomError::AliasInUse(_) => ApiError::bad_request("M_ROOM_IN_USE", error.to_string()),
        other => other.into(),
    }
}

fn object<T>(raw: Option<Raw<T>>) -> Result<Option<CanonicalJsonObject>, ApiError> {
    raw.map(|raw| content(raw.json().get())).transpose()
}

fn initial_state<T>(raw: &Raw<T>) -> Result<Draft, ApiError> {
    #[derive(Deserialize)]
    struct InitialState {
        #[serde(rename = "type")]
        kind: String,
        #[serde(default)]
        state_key: String,
        content: CanonicalJsonObject,
    }
    let state: InitialState = serde_json::from_str(raw.json().get())
        .map_err(|error| ApiError::bad_json(format!("initial_state: {error}")))?;
    Ok(Draft::state(state.kind, state.state_key, state.content))
}
