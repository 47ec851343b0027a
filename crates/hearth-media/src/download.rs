//! Files on their way out.

use std::io;
use std::ops::Range;
use std::time::Duration;

use bytes::Bytes;
use hearth_matrix::ruma::ServerName;
use hearth_store::{Blob, MediaFile, MediaPlace, StoreError};
use tokio::time::Instant;

use crate::content::{self, Content};
use crate::known::Placed;
use crate::remote::What;
use crate::{FetchError, Media, is_media_id};

/// An upload on another node is not heard of: looked for this often.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Nobody waits longer for an upload.
const MOST_PATIENCE: Duration = Duration::from_secs(60);

/// What somebody wants to have.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The server in the `mxc://` URI.
    pub server: String,
    /// The media id.
    pub media_id: String,
    /// How long an upload is waited for.
    pub patience: Duration,
    /// Somebody without an access token asks.
    pub is_anonymous: bool,
    /// Another server may be asked for it.
    pub allow_remote: bool,
}

impl Wanted {
    pub(crate) fn patience(&self) -> Duration {
        self.patience.min(MOST_PATIENCE)
    }
}

/// A file that can be read.
#[derive(Clone)]
pub struct File {
    pub(crate) media: Media,
    pub(crate) blob: Blob,
    pub(crate) data: Option<Bytes>,
    /// What it is said to be.
    pub content_type: String,
    /// Its name.
    pub file_name: Option<String>,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub enum GetError {
    /// There is none, or not for this asker.
    #[error("there is no such media")]
    NotFound,
    /// It will be uploaded.
    #[error("the media has not been uploaded yet")]
    NotYetUploaded,
    /// Another server has it, and it is not to be had there.
    #[error("another server: {0}")]
    Fetch(#[from] FetchError),
    /// Our own database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was found at a place.
pub(crate) enum Found {
    /// A file, with its bytes if they are small.
    File(MediaFile, Option<Bytes>),
    /// Nothing, or nothing to be seen.
    Nothing,
    /// Nothing yet.
    Awaited,
    /// Not fetched yet.
    Unknown,
}

impl Media {
    /// A file. What is reserved for an upload is waited for.
    pub async fn file(&self, wanted: &Wanted) -> Result<File, GetError> {
        if !is_media_id(&wanted.media_id) {
            return Err(GetError::NotFound);
        }
        let place = MediaPlace { origin: wanted.server.clone(), media_id: wanted.media_id.clone() };
        let is_ours = self.is_ours(&place.origin);
        let is_allowed = |server: &ServerName| self.config().servers.allow(server);
        if !is_ours && !<&ServerName>::try_from(place.origin.as_str()).is_ok_and(is_allowed) {
            return Err(GetError::NotFound);
        }
        let mut may_fetch = self.may_fetch(wanted);
        let deadline = Instant::now() + wanted.patience();
        let wait = self.awaited().wait(&place);
        loop {
            let there = wait.until_there();
            match self.look(&place, wanted.is_anonymous).await? {
                Found::File(file, data) => {
                    let MediaFile { blob, content_type, file_name } = file;
                    return Ok(File { media: self.clone(), blob, data, content_type, file_name });
                }
                Found::Unknown if may_fetch => {
                    may_fetch = false;
                    let left = deadline.saturating_duration_since(Instant::now());
                    self.fetch(&place, What::File, u64::try_from(left.as_millis()).unwrap_or(0)).await?;
                    continue;
                }
                Found::Nothing | Found::Unknown => return Err(GetError::NotFound),
                Found::Awaited => {}
            }
            let now = Instant::now();
            if now >= deadline {
                return Err(GetError::NotYetUploaded);
            }
            let until = if self.config().has_siblings { deadline.min(now + LOOK_EVERY) } else { deadline };
            let _ = tokio::time::timeout_at(until, there).await;
        }
    }

    /// Whether another server is asked. Not for those who would not see what was fetched only now.
    pub(crate) fn may_fetch(&self, wanted: &Wanted) -> bool {
        let would_see = !wanted.is_anonymous || !self.config().is_frozen;
        wanted.allow_remote && would_see && !self.is_ours(&wanted.server)
    }

    /// What is at a place, for somebody who has an access token or none.
    pub(crate) async fn look(&self, place: &MediaPlace, is_anonymous: bool) -> Result<Found, StoreError> {
        let (now, asked, memory) = (self.now(), place.clone(), self.memory().clone());
        let serve_frozen = !self.config().is_frozen;
        if let Some(Placed { file, is_frozen, accessed_ts }) = self.known().at(place) {
            if is_anonymous && is_frozen && !serve_frozen {
                return Ok(Found::Nothing);
            }
            let data = memory.get(&file.blob.num).filter(|_| file.blob.is_here);
            if data.is_some() || !file.blob.is_here {
                self.accesses().note(place, accessed_ts, now);
                return Ok(Found::File(file, data));
            }
        }
        let since = self.known().now();
        let read = self.store().read(move |tx| {
            let Some(media) = tx.media().get(&asked)? else { return Ok((Found::Unknown, 0, false)) };
            let accessed_ts = media.accessed_ts;
            let found = match media.file {
                _ if media.is_quarantined => Found::Nothing,
                None if media.expires_ts.is_some_and(|expires| expires > now) => Found::Awaited,
                None => Found::Nothing,
                Some(_) if is_anonymous && media.is_frozen && !serve_frozen => Found::Nothing,
                Some(file) => {
                    let data = match (file.blob.is_here, memory.get(&file.blob.num)) {
                        (false, _) => None,
                        (true, Some(known)) => Some(known),
                        (true, None) => tx.blobs().data(file.blob.num)?.map(Bytes::from),
                    };
                    Found::File(file, data)
                }
            };
            Ok((found, accessed_ts, media.is_frozen))
        });
        let (found, accessed_ts, is_frozen) = read.await?;
        if let Found::File(file, data) = &found {
            self.accesses().note(place, accessed_ts, now);
            self.known().found(place, since, Placed { file: file.clone(), is_frozen, accessed_ts });
            if let Some(data) = data
                && self.memory().peek(&file.blob.num).is_none()
            {
                self.memory().insert(file.blob.num, data.clone());
            }
        }
        Ok(found)
    }
}

impl File {
    /// Its size.
    pub fn size(&self) -> u64 {
        u64::try_from(self.blob.size).unwrap_or(0)
    }

    /// What its bytes are known by: the same for the same bytes.
    pub fn tag(&self) -> String {
        crate::storage::hexadecimal(&self.blob.sha256)
    }

    /// The bytes in a range; what is beyond the end is not there.
    pub async fn content(&self, range: Range<u64>) -> io::Result<Content> {
        let (start, end) = (range.start.min(self.size()), range.end.min(self.size()));
        if start >= end {
            return Ok(content::whole(Bytes::new()));
        }
        match &self.data {
            Some(data) => {
                let within = |at: u64| usize::try_from(at).unwrap_or(usize::MAX).min(data.len());
                Ok(content::whole(data.slice(within(start)..within(end))))
            }
            None => self.media.storage().read(&self.blob.sha256, start..end).await,
        }
    }
}
