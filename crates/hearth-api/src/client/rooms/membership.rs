//! Membership: join, knock, invite, leave, forget, kick, ban, unban.
//!
//! Spec: client-server API, "Room membership".

use axum::extract::State;
use hearth_matrix::ruma::api::client::knock::knock_room;
use hearth_matrix::ruma::api::client::membership::{forget_room, joined_rooms, leave_room};
use hearth_matrix::ruma::{
    CanonicalJsonObject, OwnedRoomAliasId, OwnedRoomId, OwnedRoomOrAliasId, OwnedServerName, OwnedUserId,
};
use hearth_room::MemberAction;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::may_act;
use crate::extract::{PathOf, Via};
use crate::route::{Route, route};
use crate::{ApiError, Doors, JsonBody, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::POST, "/_matrix/client/v3/rooms/{room_id}/join", join_by_id),
        Route::at(Method::POST, "/_matrix/client/v3/join/{room_id_or_alias}", join),
        route(knock),
        route(leave),
        route(forget),
        Route::at(Method::POST, "/_matrix/client/v3/rooms/{room_id}/kick", kick),
        Route::at(Method::POST, "/_matrix/client/v3/rooms/{room_id}/ban", ban),
        Route::at(Method::POST, "/_matrix/client/v3/rooms/{room_id}/unban", unban),
        route(joined),
        Route::at(Method::POST, "/_matrix/client/v3/rooms/{room_id}/invite", invite),
    ]
}

/// `POST /_matrix/client/v3/rooms/{roomId}/join`
async fn join_by_id(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(room_id): PathOf<OwnedRoomId>,
    Via(via): Via,
    body: JsonBody<CanonicalJsonObject>,
) -> Result<JsonBody<Value>, ApiError> {
    enter(&doors, &sender, room_id, via, body).await
}

/// `POST /_matrix/client/v3/join/{roomIdOrAlias}`
async fn join(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(id_or_alias): PathOf<OwnedRoomOrAliasId>,
    Via(via): Via,
    body: JsonBody<CanonicalJsonObject>,
) -> Result<JsonBody<Value>, ApiError> {
    let (room_id, servers) = room_and_servers(&doors, id_or_alias, via).await?;
    enter(&doors, &sender, room_id, servers, body).await
}

/// What else the body says becomes part of the member event, as clients have come to expect.
async fn enter(
    doors: &Doors,
    sender: &Sender,
    room_id: OwnedRoomId,
    servers: Vec<OwnedServerName>,
    JsonBody(mut content): JsonBody<CanonicalJsonObject>,
) -> Result<JsonBody<Value>, ApiError> {
    may_act(sender)?;
    if content.get("reason").is_some_and(|reason| reason.as_str().is_none()) {
        return Err(ApiError::bad_json("reason must be a string"));
    }
    for field in ["membership", "third_party_signed", "join_authorised_via_users_server"] {
        content.remove(field);
    }
    doors.rooms.enter(&sender.user_id, &room_id, sender.is_guest, content, servers).await?;
    Ok(JsonBody(json!({ "room_id": room_id })))
}

/// `POST /_matrix/client/v3/knock/{roomIdOrAlias}`
async fn knock(
    State(doors): State<Doors>,
    sender: Sender,
    Via(via): Via,
    Matrix(request): Matrix<knock_room::v3::Request>,
) -> Result<Matrix<knock_room::v3::Response>, ApiError> {
    may_act(&sender)?;
    let (room_id, servers) = room_and_servers(&doors, request.room_id_or_alias, via).await?;
    doors.rooms.knock(&sender.user_id, &room_id, &servers, request.reason).await?;
    Ok(Matrix(knock_room::v3::Response::new(room_id)))
}

/// The room that is meant, and servers that may be in it.
async fn room_and_servers(
    doors: &Doors,
    id_or_alias: OwnedRoomOrAliasId,
    mut via: Vec<OwnedServerName>,
) -> Result<(OwnedRoomId, Vec<OwnedServerName>), ApiError> {
    match OwnedRoomId::try_from(id_or_alias) {
        Ok(room_id) => Ok((room_id, via)),
        Err(alias) => {
            let alias = OwnedRoomAliasId::try_from(alias.as_str())
                .map_err(|error| ApiError::invalid_param(format!("No room id and no room alias: {error}")))?;
            let (room_id, servers) = doors.rooms.follow_alias(&alias).await?;
            via.extend(servers);
            Ok((room_id, via))
        }
    }
}

/// `POST /_matrix/client/v3/rooms/{roomId}/leave`
async fn leave(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<leave_room::v3::Request>,
) -> Result<Matrix<leave_room::v3::Response>, ApiError> {
    let (user, room_id) = (&sender.user_id, &request.room_id);
    doors.rooms.change_membership(user, room_id, MemberAction::Leave, request.reason).await?;
    Ok(Matrix(leave_room::v3::Response::new()))
}

/// `POST /_matrix/client/v3/rooms/{roomId}/forget`
async fn forget(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<forget_room::v3::Request>,
) -> Result<Matrix<forget_room::v3::Response>, ApiError> {
    doors.rooms.forget(&sender.user_id, &request.room_id).await?;
    Ok(Matrix(forget_room::v3::Response::new()))
}

/// Whom, and why.
#[derive(Deserialize)]
struct Whom {
    user_id: OwnedUserId,
    reason: Option<String>,
}

/// `POST /_matrix/client/v3/rooms/{roomId}/kick`
async fn kick(
    doors: State<Doors>,
    sender: Sender,
    room_id: PathOf<OwnedRoomId>,
    whom: JsonBody<Whom>,
) -> Result<JsonBody<Value>, ApiError> {
    show_out(doors, sender, room_id, whom, MemberAction::Kick).await
}

/// `POST /_matrix/client/v3/rooms/{roomId}/ban`
async fn ban(
    doors: State<Doors>,
    sender: Sender,
    room_id: PathOf<OwnedRoomId>,
    whom: JsonBody<Whom>,
) -> Result<JsonBody<Value>, ApiError> {
    show_out(doors, sender, room_id, whom, MemberAction::Ban).await
}

/// `POST /_matrix/client/v3/rooms/{roomId}/unban`
async fn unban(
    doors: State<Doors>,
    sender: Sender,
    room_id: PathOf<OwnedRoomId>,
    whom: JsonBody<Whom>,
) -> Result<JsonBody<Value>, ApiError> {
    show_out(doors, sender, room_id, whom, MemberAction::Unban).await
}

async fn show_out(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(room_id): PathOf<OwnedRoomId>,
    JsonBody(whom): JsonBody<Whom>,
    action: fn(OwnedUserId) -> MemberAction,
) -> Result<JsonBody<Value>, ApiError> {
    may_act(&sender)?;
    doors.rooms.change_membership(&sender.user_id, &room_id, action(whom.user_id), whom.reason).await?;
    Ok(JsonBody(json!({})))
}

/// `GET /_matrix/client/v3/joined_rooms`
async fn joined(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(_): Matrix<joined_rooms::v3::Request>,
) -> Result<Matrix<joined_rooms::v3::Response>, ApiError> {
    let rooms = doors.rooms.joined_rooms(&sender.user_id).await?;
    Ok(Matrix(joined_rooms::v3::Response::new(rooms)))
}

/// Whom to invite: by id, or by an address that an identity server knows.
#[derive(Debug, Deserialize)]
struct Invite {
    user_id: Option<OwnedUserId>,
    reason: Option<String>,
    address: Option<String>,
}

// The two endpoints of this path differ in their bodies only.
/// `POST /_matrix/client/v3/rooms/{roomId}/invite`
async fn invite(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(room_id): PathOf<OwnedRoomId>,
    JsonBody(invite): JsonBody<Invite>,
) -> Result<JsonBody<Value>, ApiError> {
    may_act(&sender)?;
    let Some(user_id) = invite.user_id else {
        return Err(match invite.address {
            Some(_) => ApiError::new(
                http::StatusCode::FORBIDDEN,
                "M_THREEPID_DENIED",
                "This server does not invite by e-mail address or phone number",
            ),
            None => ApiError::missing_param("user_id is missing in the body"),
        });
    };
    let action = MemberAction::Invite(user_id);
    doors.rooms.change_membership(&sender.user_id, &room_id, action, invite.reason).await?;
    Ok(JsonBody(json!({})))
}
