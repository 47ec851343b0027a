//! Rooms that two users share.
//!
//! Spec: client-server API, "Mutual rooms".

use axum::extract::State;
use hearth_matrix::ruma::OwnedUserId;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::extract::QueryOf;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![Route::at(Method::GET, "/_matrix/client/v1/mutual_rooms", mutual_rooms)]
}

#[derive(Debug, Deserialize)]
struct Query {
    user_id: Option<String>,
    from: Option<String>,
}

/// `GET /_matrix/client/v1/mutual_rooms`
async fn mutual_rooms(
    State(doors): State<Doors>,
    sender: Sender,
    QueryOf(query): QueryOf<Query>,
) -> Result<JsonBody<Value>, ApiError> {
    let user_id = query.user_id.ok_or_else(|| ApiError::invalid_param("user_id is missing"))?;
    let other = OwnedUserId::try_from(user_id.as_str())
        .ok()
        // Historical user ids are not told to clients outside of events.
        .filter(|id| !id.localpart().is_empty() && id.localpart().bytes().all(|byte| (0x21..=0x7e).contains(&byte)))
        .ok_or_else(|| ApiError::invalid_param(format!("{user_id:?} is no user id")))?;
    if other == sender.user_id {
        return Err(ApiError::invalid_param("user_id is your own"));
    }
    let page = doors.rooms.mutual_rooms(&sender.user_id, &other, query.from.as_deref()).await?;
    let mut answer = json!({ "joined": page.joined, "count": page.count });
    if let Some(next_batch) = page.next_batch {
        answer["next_batch"] = json!(next_batch);
    }
    Ok(JsonBody(answer))
}
