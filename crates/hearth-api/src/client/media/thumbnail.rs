//! Thumbnails of pictures.
//!
//! Spec: client-server API, "Thumbnails" and `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`.

use axum::extract::State;
use axum::response::Response;
use hearth_matrix::ruma::OwnedServerName;
use hearth_media::{Method, WantedThumbnail};
use serde::Deserialize;

use super::download::Manner;
use super::{Asked, Audience, Name, at_media, serve};
use crate::extract::{PathOf, QueryOf};
use crate::route::Route;
use crate::{ApiError, Doors, Sender};

pub(super) fn routes() -> Vec<Route> {
    const THUMBNAIL: &str = "/_matrix/client/v1/media/thumbnail/{server_name}/{media_id}";
    vec![
        Route::at(http::Method::GET, THUMBNAIL, thumbnail),
        at_media!(GET, "thumbnail/{server_name}/{media_id}", old_thumbnail),
    ]
}

/// Which thumbnail is asked for.
#[derive(Deserialize)]
pub(crate) struct ThumbnailQuery {
    width: u32,
    height: u32,
    method: Option<WantedMethod>,
    animated: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum WantedMethod {
    Crop,
    Scale,
}

impl ThumbnailQuery {
    /// The thumbnail that is asked for.
    pub(crate) fn wanted(&self) -> Result<WantedThumbnail, ApiError> {
        let Self { width, height, .. } = *self;
        if width == 0 || height == 0 {
            return Err(ApiError::invalid_param("A thumbnail has a width and a height"));
        }
        let method = match self.method {
            Some(WantedMethod::Crop) => Method::Crop,
            Some(WantedMethod::Scale) | None => Method::Scale,
        };
        Ok(WantedThumbnail { width, height, method, animated: self.animated.unwrap_or(false) })
    }
}

/// `GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}`
async fn thumbnail(
    State(doors): State<Doors>,
    _: Sender,
    PathOf((server, media_id)): PathOf<(OwnedServerName, String)>,
    QueryOf(query): QueryOf<ThumbnailQuery>,
    QueryOf(manner): QueryOf<Manner>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let wanted = manner.wanted(&server, media_id, Audience::Authenticated);
    let file = doors.media.thumbnail(&wanted, query.wanted()?).await?;
    serve(file, Name::Own, Audience::Authenticated, &asked).await
}

/// `GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}`
async fn old_thumbnail(
    State(doors): State<Doors>,
    PathOf((server, media_id)): PathOf<(OwnedServerName, String)>,
    QueryOf(query): QueryOf<ThumbnailQuery>,
    QueryOf(manner): QueryOf<Manner>,
    asked: Asked,
) -> Result<Response, ApiError> {
    let wanted = manner.wanted(&server, media_id, Audience::Anybody);
    let file = doors.media.thumbnail(&wanted, query.wanted()?).await?;
    serve(file, Name::Own, Audience::Anybody, &asked).await
}
