//! Thumbnails that another server makes: of pictures that are too large for us, or that we can't read.
//!
//! Such a thumbnail is media of its own, behind the picture's media id and a `#`, so that what is kept of other servers is
//! bounded together. It belongs to its place, not to the picture's bytes: another server with the same bytes may say otherwise.
//! Spec: server-server API, `GET /_matrix/federation/v1/media/thumbnail/{mediaId}`.

use bytes::Bytes;
use hearth_store::{MediaPlace, ThumbnailKind};

use super::fetch::Coming;
use super::{FetchError, What};
use crate::download::Found;
use crate::receive::{Pace, receive};
use crate::{File, GetError, Media, PictureError, Shrunk, ThumbnailError, Wanted, content};

/// A thumbnail has no more bytes.
const THUMBNAIL_BYTES: u64 = 8 * 1024 * 1024;
/// What is asked for if the picture itself is wanted, which is not to be had.
const LARGEST: (u32, u32) = (1600, 1200);

/// The media id of a picture, of its own or that of a thumbnail.
pub(super) fn picture_of(media_id: &str) -> &str {
    media_id.split_once('#').map_or(media_id, |(picture, _)| picture)
}

fn thumbnail_place(picture: &MediaPlace, kind: ThumbnailKind) -> MediaPlace {
    let ThumbnailKind { width, height, crop, animated } = kind;
    let (crop, animated) = (if crop { "c" } else { "" }, if animated { "a" } else { "" });
    let media_id = format!("{}#{width}x{height}{crop}{animated}", picture.media_id);
    MediaPlace { origin: picture.origin.clone(), media_id }
}

impl Media {
    /// A thumbnail that the picture's server makes; else why we have none.
    pub(crate) async fn thumbnail_made_there(
        &self,
        wanted: &Wanted,
        kind: ThumbnailKind,
        why: ThumbnailError,
    ) -> Result<File, ThumbnailError> {
        let picture = MediaPlace { origin: wanted.server.clone(), media_id: wanted.media_id.clone() };
        let (width, height) = if kind.width == 0 { LARGEST } else { (kind.width, kind.height) };
        let kind = ThumbnailKind { width, height, ..kind };
        let place = thumbnail_place(&picture, kind);
        for may_fetch in [self.may_fetch(wanted), false] {
            match self.look(&place, wanted.is_anonymous).await? {
                Found::File(file, data) => return Ok(self.thumbnail_file(file.blob, file.content_type, data)),
                Found::Unknown if may_fetch => {}
                Found::Unknown => break,
                Found::Nothing | Found::Awaited => return Err(GetError::NotFound.into()),
            }
            let patience_ms = u64::try_from(wanted.patience().as_millis()).unwrap_or(0);
            match self.fetch(&place, What::Thumbnail(kind), patience_ms).await {
                Ok(()) => {}
                Err(error @ (FetchError::NotYetUploaded | FetchError::Busy | FetchError::Internal(_))) => {
                    return Err(GetError::from(error).into());
                }
                Err(_) => break,
            }
        }
        Err(why)
    }

    /// Receives a thumbnail and keeps it. It may be larger than it should, or move: then it is made smaller, or still.
    pub(super) async fn take_thumbnail(
        &self,
        place: &MediaPlace,
        kind: ThumbnailKind,
        coming: Coming,
    ) -> Result<(), FetchError> {
        let limit = THUMBNAIL_BYTES.min(self.config().max_remote_bytes);
        let received = self.take_in(coming, limit).await?;
        let internal = |error: &dyn std::fmt::Display| FetchError::Internal(error.to_string());
        let bytes = received.all().await.map_err(|error| internal(&error))?;
        let shrunk = self.shrink_in_turn(async move || Ok(bytes), kind).await;
        let Shrunk { bytes, content_type } = shrunk.map_err(|error| match error {
            ThumbnailError::Picture(PictureError::TooLarge) => FetchError::TooLarge,
            ThumbnailError::Picture(error) => FetchError::Failed(error.to_string()),
            error => internal(&error),
        })?;
        let received = match bytes {
            None => received,
            Some(bytes) => {
                let content = content::whole(Bytes::from(bytes));
                receive(self.storage(), content, u64::MAX, Pace::AT_HAND).await.map_err(|error| internal(&error))?
            }
        };
        self.keep_fetched(place, received, content_type.to_owned(), None).await
    }
}
