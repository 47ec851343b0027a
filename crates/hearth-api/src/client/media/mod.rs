//! The content repository: files come in and go out, by the paths that need an access token and by those of old.
//!
//! Spec: client-server API, "Content repository".

mod download;
mod errors;
mod preview;
mod range;
mod serve;
mod thumbnail;
mod upload;

pub(crate) use errors::storage_failed;
use serve::{Asked, Audience, Name, serve};
pub(crate) use serve::{counted, disposition};

use axum::extract::State;
use hearth_media::Uploader;
use http::Method;
use serde_json::{Value, json};

use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

/// The route of an endpoint below `/_matrix/media/`, at all the versions that it ever had.
macro_rules! at_media {
    ($method:ident, $path:literal, $handler:expr) => {
        crate::route::Route::at(http::Method::$method, concat!("/_matrix/media/v3/", $path), $handler)
            .and_at(concat!("/_matrix/media/r0/", $path))
            .and_at(concat!("/_matrix/media/v1/", $path))
    };
}
use at_media;

pub(super) fn routes() -> Vec<Route> {
    let config = [at_media!(GET, "config", config), Route::at(Method::GET, "/_matrix/client/v1/media/config", config)];
    let chapters = [upload::routes(), download::routes(), thumbnail::routes(), preview::routes()];
    config.into_iter().chain(chapters.into_iter().flatten()).collect()
}

/// `GET /_matrix/client/v1/media/config`
async fn config(State(doors): State<Doors>, _: Sender) -> JsonBody<Value> {
    JsonBody(json!({ "m.upload.size": doors.media.config().max_upload_bytes }))
}

/// Who uploads, if he may.
fn uploader(sender: &Sender) -> Result<Uploader, ApiError> {
    if sender.is_suspended {
        return Err(ApiError::user_suspended());
    }
    Ok(Uploader { user_id: sender.user_id.clone(), user: sender.user })
}
