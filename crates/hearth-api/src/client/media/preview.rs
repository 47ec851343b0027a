//! Previews of linked pages.
//!
//! Spec: client-server API, `GET /_matrix/client/v1/media/preview_url`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Method, header};
use serde::Deserialize;

use super::at_media;
use crate::extract::QueryOf;
use crate::route::Route;
use crate::{ApiError, Doors, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::GET, "/_matrix/client/v1/media/preview_url", preview),
        at_media!(GET, "preview_url", preview),
    ]
}

#[derive(Deserialize)]
struct PreviewQuery {
    url: Option<String>,
    ts: Option<i64>,
}

/// `GET /_matrix/client/v1/media/preview_url`
async fn preview(
    State(doors): State<Doors>,
    _: Sender,
    QueryOf(query): QueryOf<PreviewQuery>,
) -> Result<Response, ApiError> {
    let url = query.url.ok_or_else(|| ApiError::missing_param("`url` is missing"))?;
    let preview = doors.media.preview(&url, query.ts).await?;
    Ok(([(header::CONTENT_TYPE, "application/json")], preview).into_response())
}
