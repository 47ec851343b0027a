//! `/events` and `initialSync`: deprecated, and the way to peek into rooms that everybody may read.
//!
//! Spec: client-server API, "Syncing" (deprecated endpoints), "Room previews".

use std::time::Duration;

use axum::extract::State;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId};
use hearth_sync::{BadToken, EventsRequest};
use http::Method;
use serde::Deserialize;

use super::session_end::{AuthenticatedAfter, Ended, session_end};
use super::v3::Json;
use crate::extract::{PathOf, QueryOf};
use crate::route::Route;
use crate::{ApiError, Doors, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::GET, "/_matrix/client/v3/events", events),
        Route::at(Method::GET, "/_matrix/client/v3/events/{event_id}", one_event),
        Route::at(Method::GET, "/_matrix/client/v3/initialSync", initial_sync),
        Route::at(Method::GET, "/_matrix/client/v3/rooms/{room_id}/initialSync", room_initial_sync),
    ]
}

#[derive(Deserialize)]
struct Events {
    from: Option<String>,
    timeout: Option<u64>,
    room_id: Option<OwnedRoomId>,
}

/// `GET /_matrix/client/v3/events`
async fn events(
    State(doors): State<Doors>,
    AuthenticatedAfter(heard): AuthenticatedAfter,
    sender: Sender,
    QueryOf(query): QueryOf<Events>,
) -> Result<Json, ApiError> {
    let from = query.from.filter(|from| !from.is_empty()).map(|from| from.parse()).transpose();
    let request = EventsRequest {
        reader: doors.views.reader(sender.user, &sender.user_id, sender.device),
        room_id: query.room_id,
        from: from.map_err(|error: BadToken| ApiError::invalid_param(error.to_string()))?,
        timeout: Duration::from_millis(query.timeout.unwrap_or_default()),
    };
    let session_end = session_end(&doors, &sender, heard);
    let Doors { syncs, shutdown, .. } = doors;
    let ended = Ended::default();
    let answer = syncs.events(request, ended.or_stopped(session_end, shutdown)).await?;
    ended.instead_of(Json(answer))
}

/// `GET /_matrix/client/v3/events/{eventId}`
async fn one_event(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(event_id): PathOf<OwnedEventId>,
) -> Result<Json, ApiError> {
    let reader = doors.views.reader(sender.user, &sender.user_id, sender.device);
    Ok(Json(doors.views.event_anywhere(reader, event_id).await?))
}

#[derive(Deserialize)]
struct InitialSync {
    limit: Option<usize>,
    #[serde(default)]
    archived: bool,
}

/// `GET /_matrix/client/v3/initialSync`
async fn initial_sync(
    State(doors): State<Doors>,
    sender: Sender,
    QueryOf(query): QueryOf<InitialSync>,
) -> Result<Json, ApiError> {
    let reader = doors.views.reader(sender.user, &sender.user_id, sender.device);
    Ok(Json(doors.syncs.initial_sync(reader, query.limit, query.archived).await?))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/initialSync`
async fn room_initial_sync(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(room_id): PathOf<OwnedRoomId>,
    QueryOf(query): QueryOf<InitialSync>,
) -> Result<Json, ApiError> {
    let reader = doors.views.reader(sender.user, &sender.user_id, sender.device);
    doors.rooms.whole(&room_id).await?;
    Ok(Json(doors.syncs.room_initial_sync(reader, room_id, query.limit).await?))
}
