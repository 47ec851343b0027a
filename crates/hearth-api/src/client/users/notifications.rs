//! What a user was notified about.
//!
//! Spec: client-server API, "Listing Notifications".

use axum::extract::State;
use hearth_sync::NotificationsRequest;
use http::Method;
use serde::Deserialize;

use crate::client::sync::Json;
use crate::extract::QueryOf;
use crate::route::Route;
use crate::{ApiError, Doors, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![Route::at(Method::GET, "/_matrix/client/v3/notifications", notifications)]
}

#[derive(Deserialize)]
struct Query {
    from: Option<String>,
    limit: Option<u64>,
    only: Option<String>,
}

/// `GET /_matrix/client/v3/notifications`
async fn notifications(
    State(doors): State<Doors>,
    sender: Sender,
    QueryOf(query): QueryOf<Query>,
) -> Result<Json, ApiError> {
    let reader = doors.views.reader(sender.user, &sender.user_id, sender.device);
    let request = NotificationsRequest {
        from: query.from.filter(|from| !from.is_empty()),
        limit: query.limit,
        highlights: query.only.as_deref() == Some("highlight"),
    };
    Ok(Json(doors.views.notifications(reader, request).await?))
}
