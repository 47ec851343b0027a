//! Files go out.
//!
//! The deprecated paths need no access token: what was uploaded or fetched since they were frozen is not there for them.
//! Spec: client-server API, "Content repository", `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}` and those
//! beside it.

use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_media::Wanted;
use http::Method;
use serde::Deserialize;

use super::{Asked, Audience, Name, at_media, serve};
use crate::extract::{PathOf, QueryOf};
use crate::route::Route;
use crate::{ApiError, Doors, Sender};

/// How long an upload is waited for if nothing is said.
const PATIENCE_MS: u64 = 20_000;

pub(super) fn routes() -> Vec<Route> {
    const DOWNLOAD: &str = "/_matrix/client/v1/media/download/{server_name}/{media_id}";
    const DOWNLOAD_AS: &str = "/_matrix/client/v1/media/download/{server_name}/{media_id}/{file_name}";
    vec![
        Route::at(Method::GET, DOWNLOAD, download),
        Route::at(Method::GET, DOWNLOAD_AS, download_as),
        at_media!(GET, "download/{server_name}/{media_id}", old_download),
        at_media!(GET, "download/{server_name}/{media_id}/{file_name}", old_download_as),
    ]
}

/// How a file is asked for.
#[derive(Deserialize)]
pub(super) struct Manner {
    timeout_ms: Option<u64>,
    allow_remote: Option<bool>,
}

impl Manner {
    /// What is asked for.
    pub(super) fn wanted(&self, server: &ServerName, media_id: String, audience: Audience) -> Wanted {
        let is_anonymous = audience == Audience::Anybody;
        Wanted {
            server: server.to_string(),
            media_id,
            patience: Duration::from_millis(self.timeout_ms.unwrap_or(PATIENCE_MS)),
            is_anonymous,
            allow_remote: !is_anonymous || self.allow_remote.unwrap_or(true),
        }
    }
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}`
async fn download(
    State(doors): State<Doors>,
    _: Sender,
    PathOf((server, media_id)): PathOf<(OwnedServerName, String)>,
    QueryOf(manner): QueryOf<Manner>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let wanted = manner.wanted(&server, media_id, Audience::Authenticated);
    serve(doors.media.file(&wanted).await?, Name::Own, Audience::Authenticated, &asked).await
}

/// `GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}`
async fn download_as(
    State(doors): State<Doors>,
    _: Sender,
    PathOf((server, media_id, name)): PathOf<(OwnedServerName, String, String)>,
    QueryOf(manner): QueryOf<Manner>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let wanted = manner.wanted(&server, media_id, Audience::Authenticated);
    serve(doors.media.file(&wanted).await?, Name::Asked(name), Audience::Authenticated, &asked).await
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}`
async fn old_download(
    State(doors): State<Doors>,
    PathOf((server, media_id)): PathOf<(OwnedServerName, String)>,
    QueryOf(manner): QueryOf<Manner>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let wanted = manner.wanted(&server, media_id, Audience::Anybody);
    serve(doors.media.file(&wanted).await?, Name::Own, Audience::Anybody, &asked).await
}

/// `GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}`
async fn old_download_as(
    State(doors): State<Doors>,
    PathOf((server, media_id, name)): PathOf<(OwnedServerName, String, String)>,
    QueryOf(manner): QueryOf<Manner>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let wanted = manner.wanted(&server, media_id, Audience::Anybody);
    serve(doors.media.file(&wanted).await?, Name::Asked(name), Audience::Anybody, &asked).await
}
