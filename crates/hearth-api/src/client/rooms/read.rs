//! Reading rooms: events, state, history, members.
//!
//! Spec: client-server API, "Getting events for a room", "Syncing". The views come as JSON text.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use hearth_matrix::ruma::api;
use hearth_matrix::ruma::api::client::membership::{get_member_events, joined_members};
use hearth_matrix::ruma::api::client::room::{get_event_by_timestamp, get_room_event};
use hearth_matrix::ruma::api::client::state::get_state_events;
use hearth_matrix::ruma::events::room::member::MembershipState;
use hearth_matrix::ruma::{MilliSecondsSinceUnixEpoch, OwnedEventId, OwnedRoomId, UInt};
use hearth_sync::{Direction, MembershipFilter, MessagesRequest, Reader, RoomEventFilter, ViewError};
use http::{HeaderValue, Method, header};
use serde::Deserialize;
use tokio::time::Instant;

use crate::extract::{PathOf, QueryOf};
use crate::route::{Route, route};
use crate::{ApiError, Doors, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    let state = "/_matrix/client/v3/rooms/{room_id}/state/{event_type}";
    vec![
        route(event),
        route(whole_state),
        Route::at(Method::GET, "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/{state_key}", state_event),
        Route::at(Method::GET, state, state_event_without_key)
            .and_at("/_matrix/client/v3/rooms/{room_id}/state/{event_type}/"),
        Route::at(Method::GET, "/_matrix/client/v3/rooms/{room_id}/messages", messages),
        Route::at(Method::GET, "/_matrix/client/v3/rooms/{room_id}/context/{event_id}", context),
        route(members),
        route(joined),
        route(event_by_timestamp),
    ]
}

/// A view, sent as it is.
pub(super) struct View(pub(super) String);

impl IntoResponse for View {
    fn into_response(self) -> Response {
        ([(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))], self.0).into_response()
    }
}

impl From<ViewError> for ApiError {
    fn from(error: ViewError) -> Self {
        match error {
            ViewError::NotInRoom => Self::forbidden(error.to_string()),
            ViewError::NotFound(what) => Self::not_found(what),
            ViewError::BadToken(_) | ViewError::BadFilter(_) => Self::invalid_param(error.to_string()),
            ViewError::MissingParam(_) => Self::missing_param(error.to_string()),
            ViewError::Store(cause) => Self::internal(cause),
        }
    }
}

pub(super) fn reader(doors: &Doors, sender: &Sender) -> Reader {
    doors.views.reader(sender.user, &sender.user_id, sender.device)
}

/// `GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}`
async fn event(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_room_event::v3::Request>,
) -> Result<View, ApiError> {
    Ok(View(doors.views.event(reader(&doors, &sender), request.room_id, request.event_id).await?))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state`
async fn whole_state(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_state_events::v3::Request>,
) -> Result<View, ApiError> {
    doors.rooms.whole(&request.room_id).await?;
    Ok(View(doors.views.state(reader(&doors, &sender), request.room_id).await?))
}

#[derive(Deserialize)]
struct StateQuery {
    #[serde(default)]
    format: StateFormat,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum StateFormat {
    #[default]
    Content,
    Event,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}`
async fn state_event(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((room_id, kind, state_key)): PathOf<(OwnedRoomId, String, String)>,
    QueryOf(query): QueryOf<StateQuery>,
) -> Result<View, ApiError> {
    let whole = query.format == StateFormat::Event;
    let ask = || {
        let (room_id, kind, state_key) = (room_id.clone(), kind.clone(), state_key.clone());
        doors.views.state_event(reader(&doors, &sender), room_id, kind, state_key, whole)
    };
    match ask().await {
        // A member may not be known yet.
        Err(ViewError::NotFound(_)) if kind == "m.room.member" && doors.rooms.is_partial(&room_id).await? => {
            doors.rooms.whole(&room_id).await?;
            Ok(View(ask().await?))
        }
        answer => Ok(View(answer?)),
    }
}

/// `GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}`: the empty state key, with a slash at the end or without.
async fn state_event_without_key(
    doors: State<Doors>,
    sender: Sender,
    PathOf((room_id, kind)): PathOf<(OwnedRoomId, String)>,
    query: QueryOf<StateQuery>,
) -> Result<View, ApiError> {
    state_event(doors, sender, PathOf((room_id, kind, String::new())), query).await
}

/// How long a reader of history waits for other servers.
const BACKFILL_PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);
/// How often they are asked for one page: each time they send a hundred events at most.
const BACKFILLS: usize = 10;

#[derive(Deserialize)]
struct MessagesQuery {
    from: Option<String>,
    to: Option<String>,
    dir: Option<Direction>,
    limit: Option<u64>,
    filter: Option<String>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/messages`
async fn messages(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(room_id): PathOf<OwnedRoomId>,
    QueryOf(query): QueryOf<MessagesQuery>,
) -> Result<View, ApiError> {
    let request = MessagesRequest {
        from: query.from.filter(|token| !token.is_empty()),
        to: query.to.filter(|token| !token.is_empty()),
        direction: query.dir,
        limit: query.limit,
        filter: filter(query.filter)?,
    };
    let mut page = doors.views.messages(reader(&doors, &sender), room_id.clone(), request.clone()).await?;
    // Other servers have what lies behind a gap; whoever reads that far back waits for them a little, and what they send is kept
    // also if it comes later.
    let deadline = Instant::now() + BACKFILL_PATIENCE;
    for _ in 0..BACKFILLS {
        let Some(missing) = page.missing else { break };
        let (rooms, id) = (doors.rooms.clone(), room_id.clone());
        let fetching = tokio::spawn(async move { rooms.backfill(&id, missing.before, missing.limit).await });
        match tokio::time::timeout_at(deadline, fetching).await {
            Ok(Ok(Ok(came))) if came > 0 => {}
            Ok(Ok(Ok(_))) | Err(_) => break,
            Ok(Ok(Err(error))) => return Err(error.into()),
            Ok(Err(error)) => return Err(ApiError::internal(error)),
        }
        page = doors.views.messages(reader(&doors, &sender), room_id.clone(), request.clone()).await?;
    }
    Ok(View(page.json))
}

#[derive(Deserialize)]
struct ContextQuery {
    limit: Option<u64>,
    filter: Option<String>,
}

/// `GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}`
async fn context(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((room_id, event_id)): PathOf<(OwnedRoomId, OwnedEventId)>,
    QueryOf(query): QueryOf<ContextQuery>,
) -> Result<View, ApiError> {
    let filter = filter(query.filter)?;
    Ok(View(doors.views.context(reader(&doors, &sender), room_id, event_id, query.limit, filter).await?))
}

fn filter(json: Option<String>) -> Result<RoomEventFilter, ViewError> {
    json.filter(|json| !json.is_empty())
        .map_or_else(|| Ok(RoomEventFilter::default()), |json| RoomEventFilter::parse(&json))
}

/// `GET /_matrix/client/v3/rooms/{roomId}/members`
async fn members(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_member_events::v3::Request>,
) -> Result<View, ApiError> {
    let filter = MembershipFilter {
        membership: request.membership.map(membership).transpose()?,
        not_membership: request.not_membership.map(membership).transpose()?,
    };
    let at = request.at.filter(|token| !token.is_empty());
    doors.rooms.whole(&request.room_id).await?;
    Ok(View(doors.views.members(reader(&doors, &sender), request.room_id, at, filter).await?))
}

fn membership(filter: MembershipState) -> Result<String, ApiError> {
    match filter.as_str() {
        known @ ("join" | "invite" | "knock" | "leave" | "ban") => Ok(known.to_owned()),
        other => Err(ApiError::invalid_param(format!("{other} is no membership"))),
    }
}

/// `GET /_matrix/client/v3/rooms/{roomId}/joined_members`
async fn joined(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<joined_members::v3::Request>,
) -> Result<View, ApiError> {
    doors.rooms.whole(&request.room_id).await?;
    Ok(View(doors.views.joined_members(reader(&doors, &sender), request.room_id).await?))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event`
async fn event_by_timestamp(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_event_by_timestamp::v1::Request>,
) -> Result<Matrix<get_event_by_timestamp::v1::Response>, ApiError> {
    let (reader, ts) = (reader(&doors, &sender), request.ts.get().into());
    let (event_id, ts) = doors.views.event_by_timestamp(reader, request.room_id, ts, direction(request.dir)).await?;
    let ts = MilliSecondsSinceUnixEpoch(UInt::try_from(ts).unwrap_or_default());
    Ok(Matrix(get_event_by_timestamp::v1::Response::new(event_id, ts)))
}

pub(super) fn direction(direction: api::Direction) -> Direction {
    match direction {
        api::Direction::Backward => Direction::Backward,
        api::Direction::Forward => Direction::Forward,
    }
}
