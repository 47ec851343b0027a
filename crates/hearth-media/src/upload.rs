//! What users upload: at once, or to a place that was reserved before.
//!
//! Spec: client-server API, "Content repository".

use hearth_matrix::ruma::OwnedUserId;
use hearth_store::{BlobNum, MediaPlace, NewMedia, Noun, StoreError, Tx, UserNum};

use crate::content::Content;
use crate::keep::KeepError;
use crate::media_id::new_media_id;
use crate::receive::{ReceiveError, receive};
use crate::scan::Verdict;
use crate::{Media, Quota, is_media_id};

/// Longest name of a file, and longest content type.
const NAME_BYTES: usize = 1024;
const TYPE_BYTES: usize = 255;

/// What is said to be so when nothing is said.
pub(crate) const UNKNOWN_TYPE: &str = "application/octet-stream";

/// Who uploads.
#[derive(Clone, Debug)]
pub struct Uploader {
    /// The user's id, for the log.
    pub user_id: OwnedUserId,
    /// The user's number.
    pub user: UserNum,
}

/// What is said of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Its content type.
    pub content_type: Option<String>,
    /// Its name.
    pub file_name: Option<String>,
    /// Its size, if it is known before.
    pub size: Option<u64>,
}

/// A place for a file that is uploaded later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    /// The `mxc://` URI.
    pub content_uri: String,
    /// Until when it is to be uploaded.
    pub unused_expires_at: i64,
}

/// Why no place is reserved.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The user has reserved enough.
    #[error("more than {0} uploads are awaited")]
    TooMany(i64),
    /// The user has uploaded enough.
    #[error("as much is uploaded as one user may")]
    QuotaReached,
    /// Our own database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing is uploaded.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The file is too large.
    #[error("files may have up to {0} bytes")]
    TooLarge(u64),
    /// The user has uploaded enough.
    #[error("as much is uploaded as one user may")]
    QuotaReached,
    /// Somebody who runs the server does not want this file.
    #[error("this file is not wanted here")]
    Unwanted,
    /// Nobody could look whether it is harmless.
    #[error("the virus scanner can't be asked")]
    NotScanned,
    /// Name or content type make no sense.
    #[error("{0}")]
    Invalid(&'static str),
    /// The bytes did not all come.
    #[error("the upload ended early: {0}")]
    Interrupted(String),
    /// The bytes came too slowly.
    #[error("the upload took too long")]
    TooSlow,
    /// There is no such place, or its time is over.
    #[error("no upload is awaited there")]
    NotFound,
    /// Somebody else reserved it.
    #[error("somebody else is to upload there")]
    Forbidden,
    /// Something is there already.
    #[error("something was uploaded there already")]
    AlreadyUploaded,
    /// The media storage, or our own database.
    #[error("{0}")]
    Internal(String),
}

impl From<ReceiveError> for UploadError {
    fn from(error: ReceiveError) -> Self {
        match error {
            ReceiveError::TooLarge(limit) => Self::TooLarge(limit),
            ReceiveError::TooSlow => Self::TooSlow,
            ReceiveError::Interrupted(cause) => Self::Interrupted(cause.0),
            ReceiveError::Storage(cause) => Self::Internal(format!("the media storage: {cause}")),
        }
    }
}

impl From<KeepError> for UploadError {
    fn from(error: KeepError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<StoreError> for UploadError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.to_string())
    }
}

/// What becomes of an upload, decided in its commit.
enum Outcome {
    Done,
    QuotaReached,
    Unwanted,
    NotFound,
    Forbidden,
    AlreadyUploaded,
    TooLate,
}

impl Outcome {
    fn into_result(self) -> Result<(), UploadError> {
        match self {
            Self::Done => Ok(()),
            Self::QuotaReached => Err(UploadError::QuotaReached),
            Self::Unwanted => Err(UploadError::Unwanted),
            Self::NotFound => Err(UploadError::NotFound),
            Self::Forbidden => Err(UploadError::Forbidden),
            Self::AlreadyUploaded => Err(UploadError::AlreadyUploaded),
            Self::TooLate => Err(UploadError::Internal("the blob was collected before it was used".to_owned())),
        }
    }
}

impl Media {
    /// Keeps a file; durable when it returns. Its `mxc://` URI.
    pub async fn upload(
        &self,
        uploader: &Uploader,
        description: Description,
        content: Content,
    ) -> Result<String, UploadError> {
        let place = self.new_place();
        self.upload_at(uploader, description, content, place.clone(), false).await?;
        Ok(uri(&place))
    }

    /// Reserves a place for a file that is uploaded later.
    pub async fn create(&self, uploader: &Uploader) -> Result<Created, CreateError> {
        let (now, user, place) = (self.now(), uploader.user, self.new_place());
        let config = self.config();
        let unused_expires_at = now + i64::try_from(config.reserved_for.as_millis()).unwrap_or(i64::MAX / 2);
        let (most, quota, content_uri) = (config.most_reserved, config.quota, uri(&place));
        let reserve = self.store().write([Noun::User(user)], move |tx| {
            if tx.media().reserved(user, now)? >= most {
                return Ok(Err(CreateError::TooMany(most)));
            }
            if !quota.allows(tx, user, 0)? {
                return Ok(Err(CreateError::QuotaReached));
            }
            tx.media().reserve(&place, user, now, unused_expires_at)?;
            Ok(Ok(()))
        });
        reserve.await??;
        Ok(Created { content_uri, unused_expires_at })
    }

    /// Keeps a file at a place that was reserved; durable when it returns.
    pub async fn upload_to(
        &self,
        uploader: &Uploader,
        server: &str,
        media_id: &str,
        description: Description,
        content: Content,
    ) -> Result<(), UploadError> {
        if !self.is_ours(server) || !is_media_id(media_id) {
            return Err(UploadError::NotFound);
        }
        let place = MediaPlace { origin: server.to_owned(), media_id: media_id.to_owned() };
        let (now, user, asked) = (self.now(), uploader.user, place.clone());
        // Who may not is told before he sends it all.
        self.store().read(move |tx| is_awaited(tx, &asked, user, now)).await?.into_result()?;
        self.upload_at(uploader, description, content, place, true).await
    }

    async fn upload_at(
        &self,
        uploader: &Uploader,
        description: Description,
        content: Content,
        place: MediaPlace,
        reserved: bool,
    ) -> Result<(), UploadError> {
        let Description { content_type, file_name, size } = description;
        let content_type = content_type.filter(|text| !text.is_empty()).unwrap_or_else(|| UNKNOWN_TYPE.to_owned());
        if content_type.len() > TYPE_BYTES {
            return Err(UploadError::Invalid("the content type is too long"));
        }
        let file_name = file_name.filter(|name| !name.is_empty());
        if file_name.as_ref().is_some_and(|name| name.len() > NAME_BYTES) {
            return Err(UploadError::Invalid("the file name is too long"));
        }
        let limit = self.config().max_upload_bytes;
        if size.is_some_and(|size| size > limit) {
            return Err(UploadError::TooLarge(limit));
        }
        let (user, quota) = (uploader.user, self.config().quota);
        if !quota.is_none() {
            let announced = size.unwrap_or(0);
            let allowed = self.store().read(move |tx| quota.allows(tx, user, announced)).await?;
            if !allowed {
                return Err(UploadError::QuotaReached);
            }
        }
        let received = receive(self.storage(), content, limit, self.config().times.uploads).await?;
        match self.scan(&received).await {
            Ok(Verdict::Clean) => {}
            Ok(Verdict::Infected(_)) => return Err(UploadError::Unwanted),
            Err(_) => return Err(UploadError::NotScanned),
        }
        let kept = self.keep(received).await?;
        let new = NewMedia {
            place: place.clone(),
            blob: BlobNum(0),
            size: kept.size,
            content_type,
            file_name,
            uploader: Some(user),
            created_ts: self.now(),
            is_frozen: self.config().is_frozen,
        };
        let write = self.store().write([Noun::User(user), kept.noun()], move |tx| {
            if !quota.allows(tx, user, u64::try_from(kept.size).unwrap_or(0))? {
                return Ok(Outcome::QuotaReached);
            }
            if tx.blobs().is_blocked(&kept.sha256)? {
                return Ok(Outcome::Unwanted);
            }
            if reserved {
                match is_awaited(tx, &new.place, user, new.created_ts)? {
                    Outcome::Done => {}
                    refusal => return Ok(refusal),
                }
            }
            let Some(blob) = kept.settle(tx)? else { return Ok(Outcome::TooLate) };
            tx.media().keep(&NewMedia { blob, ..new.clone() })?;
            Ok(Outcome::Done)
        });
        write.await?.into_result()?;
        metrics::counter!("hearth_media_uploads_total").increment(1);
        self.awaited().is_there(&place);
        Ok(())
    }

    pub(crate) fn new_place(&self) -> MediaPlace {
        MediaPlace { origin: self.config().server_name.to_string(), media_id: new_media_id() }
    }
}

impl Quota {
    fn is_none(self) -> bool {
        self == Self::default()
    }

    /// Whether a user may upload so many bytes more.
    fn allows(self, tx: &mut Tx<'_>, user: UserNum, more: u64) -> Result<bool, StoreError> {
        if self.is_none() {
            return Ok(true);
        }
        let usage = tx.media().usage(user)?;
        let within = |most: Option<u64>, used: i64, more: u64| {
            most.is_none_or(|most| u64::try_from(used).unwrap_or(0).saturating_add(more) <= most)
        };
        Ok(within(self.files, usage.files, 1) && within(self.bytes, usage.bytes, more))
    }
}

/// Whether a user may upload to a place.
fn is_awaited(tx: &mut Tx<'_>, place: &MediaPlace, user: UserNum, now: i64) -> Result<Outcome, StoreError> {
    let Some(media) = tx.media().get(place)? else { return Ok(Outcome::NotFound) };
    if media.uploader != Some(user) {
        return Ok(Outcome::Forbidden);
    }
    if media.file.is_some() {
        return Ok(Outcome::AlreadyUploaded);
    }
    Ok(if media.expires_ts.is_some_and(|expires| expires > now) { Outcome::Done } else { Outcome::NotFound })
}

pub(crate) fn uri(place: &MediaPlace) -> String {
    format!("mxc://{}/{}", place.origin, place.media_id)
}
