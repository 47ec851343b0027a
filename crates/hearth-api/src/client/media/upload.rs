//! Files come in.
//!
//! Spec: client-server API, "Content repository", `POST /_matrix/media/v3/upload` and those beside it.

use axum::body::Body;
use axum::extract::State;
use futures_util::StreamExt as _;
use hearth_media::{Content, ContentError, Description};
use http::{HeaderMap, header};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{at_media, uploader};
use crate::extract::{PathOf, QueryOf};
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        at_media!(POST, "upload", upload),
        at_media!(POST, "create", create),
        at_media!(PUT, "upload/{server_name}/{media_id}", upload_to),
    ]
}

#[derive(Deserialize)]
struct UploadQuery {
    filename: Option<String>,
    /// Spec: MSC2448.
    #[serde(default, rename = "xyz.amorgan.generate_blurhash")]
    generate_blurhash: bool,
}

/// `POST /_matrix/media/v3/upload`
async fn upload(
    State(doors): State<Doors>,
    sender: Sender,
    QueryOf(query): QueryOf<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<JsonBody<Value>, ApiError> {
    let generate_blurhash = query.generate_blurhash;
    let description = described(&headers, query)?;
    let uploaded = doors.media.upload(&uploader(&sender)?, description, content(body)).await;
    let content_uri = uploaded.map_err(|error| ApiError::from(error).explained(&doors.options))?;
    let mut answer = json!({ "content_uri": content_uri });
    if generate_blurhash {
        tell_blurhash(&doors, &content_uri, &mut answer).await;
    }
    Ok(JsonBody(answer))
}

/// `POST /_matrix/media/v1/create`
async fn create(State(doors): State<Doors>, sender: Sender) -> Result<JsonBody<Value>, ApiError> {
    let created = doors.media.create(&uploader(&sender)?).await;
    let created = created.map_err(|error| ApiError::from(error).explained(&doors.options))?;
    Ok(JsonBody(json!({ "content_uri": created.content_uri, "unused_expires_at": created.unused_expires_at })))
}

/// `PUT /_matrix/media/v3/upload/{serverName}/{mediaId}`
async fn upload_to(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf((server, media_id)): PathOf<(String, String)>,
    QueryOf(query): QueryOf<UploadQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<JsonBody<Value>, ApiError> {
    let generate_blurhash = query.generate_blurhash;
    let (uploader, description) = (uploader(&sender)?, described(&headers, query)?);
    let uploaded = doors.media.upload_to(&uploader, &server, &media_id, description, content(body)).await;
    uploaded.map_err(|error| ApiError::from(error).explained(&doors.options))?;
    let mut answer = json!({});
    if generate_blurhash {
        tell_blurhash(&doors, &format!("mxc://{server}/{media_id}"), &mut answer).await;
    }
    Ok(JsonBody(answer))
}

/// Adds the blurhash of what was uploaded, if it has one.
async fn tell_blurhash(doors: &Doors, content_uri: &str, answer: &mut Value) {
    if let Some(blurhash) = doors.media.blurhash(content_uri).await {
        answer["xyz.amorgan.blurhash"] = blurhash.into();
    }
}

fn described(headers: &HeaderMap, query: UploadQuery) -> Result<Description, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| {
        value.to_str().map(str::to_owned).map_err(|_| ApiError::invalid_param("The content type is not ASCII"))
    });
    let size = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    Ok(Description { content_type: content_type.transpose()?, file_name: query.filename, size })
}

fn content(body: Body) -> Content {
    body.into_data_stream().map(|piece| piece.map_err(|error| ContentError(error.to_string()))).boxed()
}
