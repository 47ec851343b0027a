//! Aliases and the public directory.
//!
//! Spec: client-server API, "Room aliases", "Listing rooms".

use std::time::Duration;

use axum::extract::State;
use hearth_matrix::ruma::api::OutgoingRequest;
use hearth_matrix::ruma::api::client::alias::{create_alias, delete_alias, get_alias};
use hearth_matrix::ruma::api::client::directory::{get_room_visibility, set_room_visibility};
use hearth_matrix::ruma::api::client::room::Visibility;
use hearth_matrix::ruma::api::federation::directory::{get_public_rooms, get_public_rooms_filtered};
use hearth_matrix::ruma::api::path_builder::PathBuilder;
use hearth_matrix::ruma::directory::{RoomNetwork, RoomTypeFilter};
use hearth_matrix::ruma::{OwnedRoomId, OwnedServerName, ServerName, UInt};
use hearth_remote::{Limits, SendOptions, Signing};
use hearth_room::{DirectoryFilter, DirectoryPage};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::may_act;
use crate::extract::{PathOf, QueryOf};
use crate::route::{Route, route};
use crate::{ApiError, Doors, JsonBody, Matrix, OptionalSender, Sender};

/// Rooms on a page of the directory, by default and at most.
const PAGE: usize = 100;
const PAGE_MAX: usize = 500;
/// How long another server is waited for, and how much it may say.
const ASKING: Duration = Duration::from_secs(20);
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// Longest text to search for: names are no longer.
const SEARCH_BYTES: usize = 1024;

pub(super) fn routes() -> Vec<Route> {
    vec![
        route(resolve),
        route(add_alias),
        route(remove_alias),
        route(visibility),
        route(set_visibility),
        Route::at(Method::GET, "/_matrix/client/v3/rooms/{room_id}/aliases", aliases),
        Route::at(Method::GET, "/_matrix/client/v3/publicRooms", public_rooms),
        Route::at(Method::POST, "/_matrix/client/v3/publicRooms", public_rooms_filtered),
    ]
}

/// `GET /_matrix/client/v3/directory/room/{roomAlias}`
async fn resolve(
    State(doors): State<Doors>,
    Matrix(request): Matrix<get_alias::v3::Request>,
) -> Result<Matrix<get_alias::v3::Response>, ApiError> {
    let (room_id, servers) = doors.rooms.follow_alias(&request.room_alias).await?;
    Ok(Matrix(get_alias::v3::Response::new(room_id, servers)))
}

/// `PUT /_matrix/client/v3/directory/room/{roomAlias}`
async fn add_alias(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<create_alias::v3::Request>,
) -> Result<Matrix<create_alias::v3::Response>, ApiError> {
    may_act(&sender)?;
    doors.rooms.create_alias(&sender.user_id, &request.room_alias, &request.room_id).await?;
    Ok(Matrix(create_alias::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/directory/room/{roomAlias}`
async fn remove_alias(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<delete_alias::v3::Request>,
) -> Result<Matrix<delete_alias::v3::Response>, ApiError> {
    may_act(&sender)?;
    doors.rooms.delete_alias(&sender.user_id, sender.is_admin, &request.room_alias).await?;
    Ok(Matrix(delete_alias::v3::Response::new()))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/aliases`
async fn aliases(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(room_id): PathOf<OwnedRoomId>,
) -> Result<JsonBody<Value>, ApiError> {
    let aliases = doors.rooms.aliases(&sender.user_id, &room_id).await?;
    Ok(JsonBody(json!({ "aliases": aliases })))
}

/// `GET /_matrix/client/v3/directory/list/room/{roomId}`
async fn visibility(
    State(doors): State<Doors>,
    Matrix(request): Matrix<get_room_visibility::v3::Request>,
) -> Result<Matrix<get_room_visibility::v3::Response>, ApiError> {
    let published = doors.rooms.is_published(&request.room_id).await?;
    let visibility = if published { Visibility::Public } else { Visibility::Private };
    Ok(Matrix(get_room_visibility::v3::Response::new(visibility)))
}

/// `PUT /_matrix/client/v3/directory/list/room/{roomId}`
async fn set_visibility(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<set_room_visibility::v3::Request>,
) -> Result<Matrix<set_room_visibility::v3::Response>, ApiError> {
    may_act(&sender)?;
    let published = match request.visibility {
        Visibility::Public => true,
        Visibility::Private => false,
        other => return Err(ApiError::invalid_param(format!("visibility is public or private, not {other}"))),
    };
    doors.rooms.set_published(&sender.user_id, sender.is_admin, &request.room_id, published).await?;
    Ok(Matrix(set_room_visibility::v3::Response::new()))
}

/// The query of both requests.
#[derive(Debug, Deserialize)]
struct Query {
    limit: Option<usize>,
    since: Option<String>,
    server: Option<OwnedServerName>,
}

/// What is wanted, in a body.
#[derive(Debug, Default, Deserialize)]
struct Wanted {
    limit: Option<usize>,
    since: Option<String>,
    #[serde(default)]
    filter: Filter,
    include_all_networks: Option<bool>,
    third_party_instance_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Filter {
    generic_search_term: Option<String>,
    room_types: Option<Vec<Option<String>>>,
}

/// `GET /_matrix/client/v3/publicRooms`
async fn public_rooms(
    State(doors): State<Doors>,
    sender: OptionalSender,
    QueryOf(query): QueryOf<Query>,
) -> Result<JsonBody<Value>, ApiError> {
    may_list(&doors, &sender)?;
    if let Some(server) = elsewhere(&doors, query.server) {
        let mut request = get_public_rooms::v1::Request::new();
        request.limit = query.limit.map(bounded);
        request.since = query.since;
        return ask(&doors, &server, request).await;
    }
    page(&doors, DirectoryFilter::default(), query.limit, query.since).await
}

/// `POST /_matrix/client/v3/publicRooms`
async fn public_rooms_filtered(
    State(doors): State<Doors>,
    sender: Sender,
    QueryOf(query): QueryOf<Query>,
    JsonBody(wanted): JsonBody<Wanted>,
) -> Result<JsonBody<Value>, ApiError> {
    may_list(&doors, &OptionalSender(Some(sender)))?;
    let network = match (wanted.third_party_instance_id, wanted.include_all_networks) {
        (Some(_), Some(true)) => {
            let message = "third_party_instance_id names one network, and include_all_networks means all";
            return Err(ApiError::invalid_param(message));
        }
        (Some(instance_id), _) => RoomNetwork::ThirdParty(instance_id),
        (None, Some(true)) => RoomNetwork::All,
        (None, _) => RoomNetwork::Matrix,
    };
    if wanted.filter.generic_search_term.as_ref().is_some_and(|term| term.len() > SEARCH_BYTES) {
        return Err(ApiError::invalid_param(format!("generic_search_term is longer than {SEARCH_BYTES} bytes")));
    }
    if let Some(server) = elsewhere(&doors, query.server) {
        let mut request = get_public_rooms_filtered::v1::Request::new();
        request.limit = wanted.limit.map(bounded);
        request.since = wanted.since;
        request.filter.generic_search_term = wanted.filter.generic_search_term;
        let types = wanted.filter.room_types.unwrap_or_default();
        request.filter.room_types = types.into_iter().map(RoomTypeFilter::from).collect();
        request.room_network = network;
        return ask(&doors, &server, request).await;
    }
    if matches!(network, RoomNetwork::ThirdParty(_)) {
        // No bridge lists rooms here.
        return Ok(JsonBody(json!({ "chunk": [], "total_room_count_estimate": 0 })));
    }
    let filter = DirectoryFilter {
        search: wanted.filter.generic_search_term,
        types: wanted.filter.room_types.unwrap_or_default(),
        federated_only: false,
    };
    page(&doors, filter, wanted.limit, wanted.since).await
}

/// Without an account one may list the rooms if the settings open the directory.
fn may_list(doors: &Doors, sender: &OptionalSender) -> Result<(), ApiError> {
    if sender.0.is_none() && !doors.options.directory_open {
        return Err(ApiError::missing_token());
    }
    Ok(())
}

/// The server whose directory is wanted, if it is not ours.
fn elsewhere(doors: &Doors, server: Option<OwnedServerName>) -> Option<OwnedServerName> {
    server.filter(|server| server != doors.rooms.server_name())
}

fn bounded(limit: usize) -> UInt {
    // No more than a page: it fits.
    UInt::from(u32::try_from(limit.clamp(1, PAGE_MAX)).unwrap_or(1))
}

/// A page of another server's directory, as it tells it.
async fn ask<R>(doors: &Doors, server: &ServerName, request: R) -> Result<JsonBody<Value>, ApiError>
where
    R: OutgoingRequest,
    R::Authentication: Signing,
    for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
{
    let limits = Limits { timeout: ASKING, response_bytes: ANSWER_BYTES };
    // Somebody waits for it: a server that failed lately may be well again.
    let options = SendOptions { limits, despite_back_off: true, ..SendOptions::default() };
    let answer = doors.remote.ask(server, request, options).await?;
    match serde_json::from_slice(answer.body()) {
        Ok(Value::Object(page)) if page.get("chunk").is_some_and(Value::is_array) => Ok(JsonBody(Value::Object(page))),
        _ => Err(ApiError::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", format!("{server} answered nonsense"))),
    }
}

/// A page of the public directory.
pub(crate) async fn page(
    doors: &Doors,
    filter: DirectoryFilter,
    limit: Option<usize>,
    since: Option<String>,
) -> Result<JsonBody<Value>, ApiError> {
    let limit = limit.unwrap_or(PAGE).clamp(1, PAGE_MAX);
    let DirectoryPage { rooms, next, previous, total } = doors.rooms.directory(filter, limit, since).await?;
    let chunk: Vec<Value> = rooms
        .into_iter()
        .map(|room| {
            let mut entry = Map::new();
            entry.insert("room_id".into(), json!(room.room_id));
            entry.insert("num_joined_members".into(), json!(room.joined));
            entry.insert("world_readable".into(), json!(room.world_readable));
            entry.insert("guest_can_join".into(), json!(room.guest_can_join));
            let texts = [
                ("name", room.name),
                ("topic", room.topic),
                ("avatar_url", room.avatar_url),
                ("canonical_alias", room.canonical_alias),
                ("join_rule", room.join_rule),
                ("room_type", room.room_type),
            ];
            entry.extend(texts.into_iter().filter_map(|(key, text)| Some((key.to_owned(), Value::String(text?)))));
            Value::Object(entry)
        })
        .collect();
    let mut body =
        Map::from_iter([("chunk".to_owned(), chunk.into()), ("total_room_count_estimate".to_owned(), total.into())]);
    body.extend(next.map(|next| ("next_batch".to_owned(), next.into())));
    body.extend(previous.map(|previous| ("prev_batch".to_owned(), previous.into())));
    Ok(JsonBody(Value::Object(body)))
}
