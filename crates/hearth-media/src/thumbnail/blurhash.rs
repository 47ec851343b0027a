//! Blurhashes: what is shown of a picture until it comes, in some thirty letters.
//!
//! Made where thumbnails are, within the same limits, of a picture that was read as small as it can be. Whoever would wait too
//! long for one goes on without.
//! Spec: MSC2448, "Using BlurHash as a Placeholder for Matrix Media".

use std::time::Duration;

use hearth_store::ThumbnailKind;

use super::shrink::pixels;
use super::{PICTURE_BYTES, PictureError, ThumbnailError};
use crate::{Media, Wanted};

/// More pixels change none of its letters that anybody sees.
const SIZE: ThumbnailKind = ThumbnailKind { width: 32, height: 32, crop: false, animated: false };
/// What is drawn along the longer side, and along the other.
const COMPONENTS: (u32, u32) = (4, 3);
/// So long an upload waits for it.
const PATIENCE: Duration = Duration::from_secs(5);

impl Media {
    /// The blurhash of a picture of ours. None if they are turned off, or if there is none to be had soon.
    pub async fn blurhash(&self, content_uri: &str) -> Option<String> {
        if !self.config().blurhashes {
            return None;
        }
        let (server, media_id) = content_uri.strip_prefix("mxc://")?.split_once('/')?;
        let wanted = Wanted {
            server: server.to_owned(),
            media_id: media_id.to_owned(),
            patience: Duration::ZERO,
            is_anonymous: false,
            allow_remote: false,
        };
        let waiting = self.workshop().blurhashes.clone().try_acquire_owned().ok()?;
        let picture = self.file(&wanted).await.ok().filter(|picture| picture.size() <= PICTURE_BYTES)?;
        let media = self.clone();
        // What was begun holds its turn until it ends, also if nobody waits any more.
        let work = tokio::spawn(async move {
            let _waiting = waiting;
            let read = async || picture.whole().await.map_err(|error| ThumbnailError::Internal(error.to_string()));
            media.work_in_turn(read, blurhash).await
        });
        tokio::time::timeout(PATIENCE, work).await.ok()?.ok()?.ok()
    }
}

/// The blurhash of a picture, if it has no more pixels than this.
fn blurhash(bytes: &[u8], most_pixels: u64) -> Result<String, PictureError> {
    let picture = pixels(bytes, SIZE, most_pixels)?.into_rgba8();
    let (width, height) = picture.dimensions();
    let (across, down) = if width >= height { COMPONENTS } else { (COMPONENTS.1, COMPONENTS.0) };
    blurhash::encode(across, down, width, height, &picture).map_err(|error| PictureError::Broken(error.to_string()))
}
