//! What relates to an event.
//!
//! Spec: client-server API, "Forwarding relationships between events" and "Aggregations".

use axum::extract::State;
use hearth_matrix::ruma::api::client::relations::{
    get_relating_events, get_relating_events_with_rel_type, get_relating_events_with_rel_type_and_event_type,
};
use hearth_sync::RelationsRequest;

use super::read::{View, direction, reader};
use crate::route::{Route, route};
use crate::{ApiError, Doors, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![route(all), route(by_rel_type), route(by_rel_type_and_event_type)]
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}`
async fn all(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_relating_events::v1::Request>,
) -> Result<View, ApiError> {
    let relations = RelationsRequest {
        rel_type: None,
        event_type: None,
        from: request.from,
        to: request.to,
        direction: direction(request.dir),
        limit: request.limit.map(Into::into),
        recurse: request.recurse,
    };
    let reader = reader(&doors, &sender);
    Ok(View(doors.views.relations(reader, request.room_id, request.event_id, relations).await?))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}`
async fn by_rel_type(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_relating_events_with_rel_type::v1::Request>,
) -> Result<View, ApiError> {
    let relations = RelationsRequest {
        rel_type: Some(request.rel_type.to_string()),
        event_type: None,
        from: request.from,
        to: request.to,
        direction: direction(request.dir),
        limit: request.limit.map(Into::into),
        recurse: request.recurse,
    };
    let reader = reader(&doors, &sender);
    Ok(View(doors.views.relations(reader, request.room_id, request.event_id, relations).await?))
}

/// `GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}`
async fn by_rel_type_and_event_type(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_relating_events_with_rel_type_and_event_type::v1::Request>,
) -> Result<View, ApiError> {
    let relations = RelationsRequest {
        rel_type: Some(request.rel_type.to_string()),
        event_type: Some(request.event_type.to_string()),
        from: request.from,
        to: request.to,
        direction: direction(request.dir),
        limit: request.limit.map(Into::into),
        recurse: request.recurse,
    };
    let reader = reader(&doors, &sender);
    Ok(View(doors.views.relations(reader, request.room_id, request.event_id, relations).await?))
}
