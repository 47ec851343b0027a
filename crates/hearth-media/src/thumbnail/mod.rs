//! Thumbnails: made when they are asked for first, one at a time for each, and kept as long as their picture.
//!
//! As many are made at once as there are processors, and no more pixels are held than a budget allows; who comes when too
//! many wait is sent away. A picture that can't be read is remembered for a while.

mod blurhash;
mod reduced;
mod shrink;
mod sizes;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hearth_store::{Blob, BlobNum, StoreError, Thumbnail, ThumbnailKind};
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

pub use shrink::{PictureError, Shrunk, measure, shrink};
pub use sizes::{Method, WantedThumbnail};

use crate::content;
use crate::keep::{KeepError, blob_noun};
use crate::receive::{Pace, ReceiveError, Received, receive};
use crate::{FetchError, File, GetError, Media, Wanted};

/// A picture file may have so many bytes.
const PICTURE_BYTES: u64 = 64 * 1024 * 1024;
/// So many pixels, in units, may be held at once.
const BUDGET: u32 = 96;
const UNIT: u64 = 1_000_000;
/// So many may wait for a thumbnail to be made.
const MOST_WAITING: usize = 256;
/// So many pictures are remembered that can't be read.
const MOST_BROKEN: usize = 10_000;

/// Why there is no thumbnail.
#[derive(Debug, thiserror::Error)]
pub enum ThumbnailError {
    /// There is no picture.
    #[error(transparent)]
    Get(#[from] GetError),
    /// It can't be made smaller.
    #[error(transparent)]
    Picture(#[from] PictureError),
    /// A picture of another server has too many pixels or bytes.
    #[error("the picture of another server is too large")]
    TooLargeThere,
    /// Too many wait already.
    #[error("too many thumbnails are being made")]
    Busy,
    /// The media storage, or our own database.
    #[error("{0}")]
    Internal(String),
}

impl From<StoreError> for ThumbnailError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<KeepError> for ThumbnailError {
    fn from(error: KeepError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// Where thumbnails are made.
pub(crate) struct Workshop {
    workers: Semaphore,
    pixels: Semaphore,
    turns: Turns,
    broken: Cache<BlobNum, PictureError>,
    /// Who waits for a blurhash.
    blurhashes: Arc<Semaphore>,
}

/// Who makes which.
type Turns = Mutex<HashMap<(BlobNum, ThumbnailKind), Arc<tokio::sync::Mutex<()>>>>;

impl Default for Workshop {
    fn default() -> Self {
        let workers = std::thread::available_parallelism().map_or(1, |count| count.get());
        Self {
            workers: Semaphore::new(workers),
            pixels: Semaphore::new(BUDGET as usize),
            turns: Turns::default(),
            broken: Cache::new(MOST_BROKEN),
            blurhashes: Arc::new(Semaphore::new(MOST_WAITING)),
        }
    }
}

impl Media {
    /// A thumbnail of a picture; the picture itself, if it is no larger.
    pub async fn thumbnail(&self, wanted: &Wanted, size: WantedThumbnail) -> Result<File, ThumbnailError> {
        let kind = size.kind();
        let picture = match self.file(wanted).await {
            Ok(picture) => picture,
            Err(GetError::Fetch(FetchError::TooLarge)) => {
                return self.thumbnail_made_there(wanted, kind, ThumbnailError::TooLargeThere).await;
            }
            Err(error) => return Err(error.into()),
        };
        if let Some(found) = self.known_thumbnail(picture.blob.num, kind).await? {
            return Ok(found);
        }
        // Nobody else makes a picture of what is none.
        let may_be_shown = ["image/", "video/"].iter().any(|kind| picture.content_type.starts_with(kind));
        let is_ours = self.is_ours(&wanted.server);
        // Whoever goes away meanwhile: others will want it, too.
        let media = self.clone();
        let made = tokio::spawn(async move { media.make_once(picture, kind).await });
        match made.await.unwrap_or_else(|error| Err(ThumbnailError::Internal(error.to_string()))) {
            Err(ThumbnailError::Picture(PictureError::TooLarge)) if !is_ours => {
                self.thumbnail_made_there(wanted, kind, ThumbnailError::TooLargeThere).await
            }
            Err(error @ ThumbnailError::Picture(_)) if !is_ours && may_be_shown => {
                self.thumbnail_made_there(wanted, kind, error).await
            }
            outcome => outcome,
        }
    }

    async fn known_thumbnail(&self, picture: BlobNum, kind: ThumbnailKind) -> Result<Option<File>, StoreError> {
        let memory = self.memory().clone();
        if let Some((blob, content_type)) = self.known().thumbnail(picture, kind) {
            let data = memory.get(&blob.num).filter(|_| blob.is_here);
            if data.is_some() || !blob.is_here {
                return Ok(Some(self.thumbnail_file(blob, content_type, data)));
            }
        }
        let read = self.store().read(move |tx| {
            let Some(Thumbnail { blob, content_type }) = tx.blobs().thumbnail(picture, kind)? else { return Ok(None) };
            let data = match (blob.is_here, memory.get(&blob.num)) {
                (false, _) => None,
                (true, Some(known)) => Some(known),
                (true, None) => tx.blobs().data(blob.num)?.map(Bytes::from),
            };
            Ok(Some((blob, content_type, data)))
        });
        Ok(read.await?.map(|(blob, content_type, data)| {
            self.known().found_thumbnail(picture, kind, blob, &content_type);
            if let Some(data) = &data
                && self.memory().peek(&blob.num).is_none()
            {
                self.memory().insert(blob.num, data.clone());
            }
            self.thumbnail_file(blob, content_type, data)
        }))
    }

    pub(crate) fn thumbnail_file(&self, blob: Blob, content_type: String, data: Option<Bytes>) -> File {
        let kind = content_type.strip_prefix("image/").unwrap_or_default();
        let file_name = Some(format!("thumbnail.{}", if kind == "jpeg" { "jpg" } else { kind }));
        File { media: self.clone(), blob, data, content_type, file_name }
    }

    /// Makes it, unless somebody else does.
    async fn make_once(&self, picture: File, kind: ThumbnailKind) -> Result<File, ThumbnailError> {
        let workshop = self.workshop();
        let key = (picture.blob.num, kind);
        let turn = {
            let mut turns = workshop.turns.lock().unwrap_or_else(PoisonError::into_inner);
            if turns.len() >= MOST_WAITING && !turns.contains_key(&key) {
                return Err(ThumbnailError::Busy);
            }
            turns.entry(key).or_default().clone()
        };
        let made = {
            let _turn = turn.lock().await;
            match self.known_thumbnail(picture.blob.num, kind).await? {
                Some(found) => Ok(found),
                None => self.make(&picture, kind).await,
            }
        };
        drop(turn);
        let mut turns = workshop.turns.lock().unwrap_or_else(PoisonError::into_inner);
        if turns.get(&key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&key);
        }
        made
    }

    async fn make(&self, picture: &File, kind: ThumbnailKind) -> Result<File, ThumbnailError> {
        let workshop = self.workshop();
        if let Some(error) = workshop.broken.get(&picture.blob.num) {
            return Err(error.into());
        }
        let internal = |error: &dyn std::fmt::Display| ThumbnailError::Internal(error.to_string());
        if picture.size() > PICTURE_BYTES {
            return Err(PictureError::TooLarge.into());
        }
        let shrunk = self.shrink_in_turn(async || picture.whole().await.map_err(|error| internal(&error)), kind).await;
        let Shrunk { bytes, content_type } = match shrunk {
            Ok(shrunk) => shrunk,
            Err(ThumbnailError::Picture(error)) => {
                workshop.broken.insert(picture.blob.num, error.clone());
                return Err(error.into());
            }
            Err(error) => return Err(error),
        };
        self.keep_thumbnail(picture, kind, bytes.map(Bytes::from), content_type).await
    }

    /// Format and size of a picture that has come, read when it is its turn. None if it is no picture.
    pub(crate) async fn measure_in_turn(
        &self,
        received: &Received,
    ) -> Result<Option<(&'static str, (u32, u32))>, ThumbnailError> {
        let closed = |_| ThumbnailError::Internal("closed".to_owned());
        let _worker = self.workshop().workers.acquire().await.map_err(closed)?;
        let bytes = received.all().await.map_err(|error| ThumbnailError::Internal(error.to_string()))?;
        // A picture that brings a decoder to its knees is none.
        Ok(tokio::task::spawn_blocking(move || measure(&bytes).ok()).await.ok().flatten())
    }

    /// Makes a picture smaller when it is its turn; only then it is read.
    pub(crate) async fn shrink_in_turn(
        &self,
        picture: impl AsyncFnOnce() -> Result<Bytes, ThumbnailError>,
        kind: ThumbnailKind,
    ) -> Result<Shrunk, ThumbnailError> {
        self.work_in_turn(picture, move |bytes, most_pixels| shrink(bytes, kind, most_pixels)).await
    }

    /// Works on a picture when it is its turn; only then it is read.
    async fn work_in_turn<T: Send + 'static>(
        &self,
        picture: impl AsyncFnOnce() -> Result<Bytes, ThumbnailError>,
        work: impl FnOnce(&[u8], u64) -> Result<T, PictureError> + Send + 'static,
    ) -> Result<T, ThumbnailError> {
        let closed = |_| ThumbnailError::Internal("closed".to_owned());
        let _worker = self.workshop().workers.acquire().await.map_err(closed)?;
        let bytes = picture().await?;
        let began = tokio::time::Instant::now();
        let done = self.work_within_budget(bytes, work).await;
        metrics::histogram!("hearth_media_thumbnail_duration_seconds").record(began.elapsed().as_secs_f64());
        done
    }

    async fn work_within_budget<T: Send + 'static>(
        &self,
        bytes: Bytes,
        work: impl FnOnce(&[u8], u64) -> Result<T, PictureError> + Send + 'static,
    ) -> Result<T, ThumbnailError> {
        let internal = |error: &dyn std::fmt::Display| ThumbnailError::Internal(error.to_string());
        let most_pixels = self.config().max_picture_pixels;
        // A picture that brings a decoder to its knees is a damaged one.
        let broken = |error: tokio::task::JoinError| PictureError::Broken(error.to_string());
        let head = bytes.clone();
        let (_, (width, height)) = tokio::task::spawn_blocking(move || measure(&head)).await.map_err(broken)??;
        let pixels = u64::from(width) * u64::from(height);
        if pixels > most_pixels {
            return Err(PictureError::TooLarge.into());
        }
        let units = u32::try_from(pixels / UNIT + 1).unwrap_or(BUDGET).min(BUDGET);
        let _pixels = self.workshop().pixels.acquire_many(units).await.map_err(|error| internal(&error))?;
        Ok(tokio::task::spawn_blocking(move || work(&bytes, most_pixels)).await.map_err(broken)??)
    }

    async fn keep_thumbnail(
        &self,
        picture: &File,
        kind: ThumbnailKind,
        bytes: Option<Bytes>,
        content_type: &'static str,
    ) -> Result<File, ThumbnailError> {
        let num = picture.blob.num;
        let Some(bytes) = bytes else {
            let noun = blob_noun(&picture.blob.sha256);
            let keep = self.store().write([noun], move |tx| tx.blobs().keep_thumbnail(num, kind, num, content_type));
            keep.await?;
            return Ok(self.thumbnail_file(picture.blob, content_type.to_owned(), picture.data.clone()));
        };
        let received = receive(self.storage(), content::whole(bytes), u64::MAX, Pace::AT_HAND).await;
        let received = received.map_err(|error: ReceiveError| ThumbnailError::Internal(error.to_string()))?;
        let kept = self.keep(received).await?;
        let (now, nouns) = (self.now(), [blob_noun(&picture.blob.sha256), kept.noun()]);
        let keep = self.store().write(nouns, move |tx| {
            if tx.blobs().thumbnail(num, kind)?.is_some() {
                return Ok(());
            }
            let Some(blob) = kept.settle(tx)? else { return Ok(()) };
            if !tx.blobs().keep_thumbnail(num, kind, blob, content_type)? {
                tx.blobs().loosen(blob, now)?;
            }
            Ok(())
        });
        keep.await?;
        let gone = || ThumbnailError::Get(GetError::NotFound);
        self.known_thumbnail(num, kind).await?.ok_or_else(gone)
    }
}

impl File {
    /// All its bytes, in memory.
    pub(crate) async fn whole(&self) -> std::io::Result<Bytes> {
        if let Some(data) = &self.data {
            return Ok(data.clone());
        }
        let mut content = self.content(0..self.size()).await?;
        let mut bytes = BytesMut::with_capacity(usize::try_from(self.size()).unwrap_or(0));
        while let Some(piece) = content.next().await {
            bytes.extend_from_slice(&piece.map_err(|error| std::io::Error::other(error.0))?);
        }
        Ok(bytes.freeze())
    }
}
