//! What the refusals of the media repository are in the spec's codes.

use hearth_media::{CreateError, FetchError, GetError, PictureError, PreviewError, ThumbnailError, UploadError};
use http::StatusCode;

use crate::ApiError;

/// So long a user with too many reserved places is asked to wait.
const RESERVE_AGAIN_MS: u64 = 60_000;

impl From<UploadError> for ApiError {
    fn from(error: UploadError) -> Self {
        match error {
            UploadError::TooLarge(_) => Self::too_large(error.to_string()),
            UploadError::QuotaReached => Self::user_limit_exceeded("You have uploaded as much as you may"),
            UploadError::Unwanted => Self::forbidden("This file can't be uploaded here"),
            UploadError::NotScanned => {
                Self::new(StatusCode::SERVICE_UNAVAILABLE, "M_UNKNOWN", "Files can't be looked at now; try again later")
            }
            UploadError::Invalid(reason) => Self::invalid_param(reason),
            UploadError::Interrupted(_) => Self::bad_request("M_UNKNOWN", "The body ended early"),
            UploadError::TooSlow => Self::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "The body took too long"),
            UploadError::NotFound => Self::not_found("No upload is awaited there, or not any more"),
            UploadError::Forbidden => Self::forbidden("Somebody else is to upload there"),
            UploadError::AlreadyUploaded => {
                Self::new(StatusCode::CONFLICT, "M_CANNOT_OVERWRITE_MEDIA", "Something was uploaded there already")
            }
            UploadError::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<CreateError> for ApiError {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::TooMany(_) => Self::limit_exceeded(RESERVE_AGAIN_MS),
            CreateError::QuotaReached => Self::user_limit_exceeded("You have uploaded as much as you may"),
            CreateError::Store(cause) => Self::internal(cause),
        }
    }
}

impl From<GetError> for ApiError {
    fn from(error: GetError) -> Self {
        match error {
            GetError::NotFound => Self::not_found("There is no such media"),
            GetError::NotYetUploaded => {
                Self::new(StatusCode::GATEWAY_TIMEOUT, "M_NOT_YET_UPLOADED", "The media has not been uploaded yet")
            }
            GetError::Fetch(error) => error.into(),
            GetError::Store(cause) => Self::internal(cause),
        }
    }
}

/// So long whoever comes when too much is being fetched is asked to wait.
const FETCH_AGAIN_MS: u64 = 5_000;

impl From<FetchError> for ApiError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::NotFound => GetError::NotFound.into(),
            FetchError::NotYetUploaded => GetError::NotYetUploaded.into(),
            FetchError::TooLarge => Self::new(StatusCode::BAD_GATEWAY, "M_TOO_LARGE", "The media is too large"),
            FetchError::Failed(_) => {
                Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The server that has the media does not give it")
            }
            FetchError::Busy => Self::limit_exceeded(FETCH_AGAIN_MS),
            FetchError::Internal(cause) => Self::internal(cause),
        }
    }
}

/// So long whoever comes when too many thumbnails are being made is asked to wait.
const THUMBNAIL_AGAIN_MS: u64 = 2_000;

impl From<ThumbnailError> for ApiError {
    fn from(error: ThumbnailError) -> Self {
        match error {
            ThumbnailError::Get(error) => error.into(),
            ThumbnailError::Picture(PictureError::TooLarge) => Self::too_large("Content is too large to thumbnail"),
            ThumbnailError::TooLargeThere => {
                Self::new(StatusCode::BAD_GATEWAY, "M_TOO_LARGE", "Content is too large to thumbnail")
            }
            ThumbnailError::Picture(PictureError::NotAPicture | PictureError::Broken(_)) => {
                Self::bad_request("M_UNKNOWN", "Cannot generate thumbnails for the requested content")
            }
            ThumbnailError::Busy => Self::limit_exceeded(THUMBNAIL_AGAIN_MS),
            ThumbnailError::Internal(cause) => Self::internal(cause),
        }
    }
}

impl From<PreviewError> for ApiError {
    fn from(error: PreviewError) -> Self {
        match error {
            PreviewError::Disabled => Self::unrecognized(),
            PreviewError::Invalid => Self::invalid_param("`url` is not the address of a page"),
            PreviewError::Forbidden => Self::forbidden("This address is not fetched"),
            PreviewError::Failed(_) => Self::new(StatusCode::BAD_GATEWAY, "M_UNKNOWN", "The page can't be read"),
            PreviewError::Busy => Self::limit_exceeded(FETCH_AGAIN_MS),
            PreviewError::Internal(cause) => Self::internal(cause),
        }
    }
}

/// Bytes that must be there and can't be read.
pub(crate) fn storage_failed(error: std::io::Error) -> ApiError {
    if error.kind() == std::io::ErrorKind::NotFound {
        tracing::error!(%error, "a file is missing in the media storage; `hearth admin media check` tells which are");
        return GetError::NotFound.into();
    }
    ApiError::internal(format_args!("the media storage: {error}"))
}
