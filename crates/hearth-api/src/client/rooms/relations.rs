//! What relates to an event.
//!
//! Spec: client-server API, "Forwarding relationships between events" and "Aggregations".

use axum::extract::State;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId};
use hearth_sync::{Direction, RelationsRequest};
use http::Method;
use serde::Deserialize;

use super::read::{View, reader};
use crate::extract::{PathOf, QueryOf};
use crate::route::Route;
use crate::{ApiError, Doors, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::GET, "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}", all)
            .and_at("/_matrix/client/unstable/rooms/{room_id}/relations/{event_id}"),
        Route::at(Method::GET, "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}/{rel_type}", by_rel_type)
            .and_at("/_matrix/client/unstable/rooms/{room_id}/relations/{event_id}/{rel_type}"),
        Route::at(
            Method::GET,
            "/_matrix/client/v1/rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}",
            by_rel_type_and_event_type,
        )
        .and_at("/_matrix/client/unstable/rooms/{room_id}/relations/{event_id}/{rel_type}/{event_type}"),
    ]
}

#[derive(Deserialize)]
struct Query {
    from: Option<String>,
    to: Option<String>,
    dir: Option<Direction>,
    limit: Option<u64>,
    #[serde(default)]
    recurse: bool,
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}`
async fn all(
    doors: State<Doors>,
    sender: Sender,
    PathOf((room_id, event_id)): PathOf<(OwnedRoomId, OwnedEventId)>,
    query: QueryOf<Query>,
) -> Result<View, ApiError> {
    relations(doors, sender, (room_id, event_id), query, (None, None)).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}`
async fn by_rel_type(
    doors: State<Doors>,
    sender: Sender,
    PathOf((room_id, event_id, rel_type)): PathOf<(OwnedRoomId, OwnedEventId, String)>,
    query: QueryOf<Query>,
) -> Result<View, ApiError> {
    relations(doors, sender, (room_id, event_id), query, (Some(rel_type), None)).await
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`
async fn by_rel_type_and_event_type(
    doors: State<Doors>,
    sender: Sender,
    PathOf((room_id, event_id, rel_type, event_type)): PathOf<(OwnedRoomId, OwnedEventId, String, String)>,
    query: QueryOf<Query>,
) -> Result<View, ApiError> {
    relations(doors, sender, (room_id, event_id), query, (Some(rel_type), Some(event_type))).await
}

async fn relations(
    State(doors): State<Doors>,
    sender: Sender,
    (room_id, event_id): (OwnedRoomId, OwnedEventId),
    QueryOf(query): QueryOf<Query>,
    (rel_type, event_type): (Option<String>, Option<String>),
) -> Result<View, ApiError> {
    let request = RelationsRequest {
        rel_type,
        event_type,
        from: query.from.filter(|token| !token.is_empty()),
        to: query.to.filter(|token| !token.is_empty()),
        direction: query.dir.unwrap_or(Direction::Backward),
        limit: query.limit,
        recurse: query.recurse,
    };
    Ok(View(doors.views.relations(reader(&doors, &sender), room_id, event_id, request).await?))
}
