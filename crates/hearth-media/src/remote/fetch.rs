//! One fetch: ask, follow, receive, keep.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hearth_matrix::ruma::ServerName;
use hearth_matrix::ruma::http_headers::ContentDisposition;
use hearth_remote::{Arriving, HttpError, Limits, Manner, Remote, RemoteError, SendOptions};
use hearth_store::{BlobNum, MediaPlace, NewMedia};
use http::{HeaderMap, Request, StatusCode, header};
use url::Url;

use super::{FetchError, multipart};
use crate::Media;
use crate::content::{Content, ContentError};
use crate::keep::KeepError;
use crate::policy::media_noun;
use crate::receive::{ReceiveError, receive};
use crate::scan::Verdict;
use crate::upload::UNKNOWN_TYPE;

/// How long a server may take to begin its answer, beside waiting for an upload.
const HEAD: Duration = Duration::from_secs(20);
/// A server that sends us elsewhere, and from there elsewhere again.
const MOST_REDIRECTS: usize = 4;
/// Names are cut to what uploads may have.
const NAME_BYTES: usize = 1024;
const TYPE_BYTES: usize = 255;

/// A file that comes.
struct Coming {
    content_type: String,
    file_name: Option<String>,
    size: Option<u64>,
    content: Content,
}

impl Media {
    pub(super) async fn fetch_now(
        &self,
        server: &ServerName,
        place: &MediaPlace,
        patience_ms: u64,
    ) -> Result<(), FetchError> {
        let Some(remote) = self.fetches().remote.clone() else { return Err(FetchError::NotFound) };
        let options = SendOptions {
            limits: Limits { timeout: HEAD + Duration::from_millis(patience_ms), ..Limits::default() },
            despite_back_off: false,
        };
        let coming = match ask(&remote, server, &place.media_id, patience_ms, options).await {
            Err(RemoteError::Refused { status, errcode, .. }) if is_of_old(status, &errcode) => {
                ask_as_of_old(&remote, server, &place.media_id, patience_ms, options).await
            }
            outcome => outcome,
        };
        self.take(place, coming.map_err(refused)?).await
    }

    /// Receives a file and keeps it.
    async fn take(&self, place: &MediaPlace, coming: Coming) -> Result<(), FetchError> {
        let limit = self.config().max_remote_bytes;
        if coming.size.is_some_and(|size| size > limit) {
            return Err(FetchError::TooLarge);
        }
        let received = receive(self.storage(), coming.content, limit).await.map_err(|error| match error {
            ReceiveError::TooLarge(_) => FetchError::TooLarge,
            ReceiveError::TooSlow | ReceiveError::Interrupted(_) => FetchError::Failed(error.to_string()),
            ReceiveError::Storage(cause) => FetchError::Internal(format!("the media storage: {cause}")),
        })?;
        match self.scan(&received).await {
            Ok(Verdict::Clean) => {}
            Ok(Verdict::Infected(_)) => return Err(FetchError::NotFound),
            Err(error) => return Err(FetchError::Failed(error)),
        }
        let kept = self.keep(received).await.map_err(|error: KeepError| FetchError::Internal(error.to_string()))?;
        let new = NewMedia {
            place: place.clone(),
            blob: BlobNum(0),
            size: kept.size,
            content_type: coming.content_type,
            file_name: coming.file_name,
            uploader: None,
            created_ts: self.now(),
            is_frozen: self.config().is_frozen,
        };
        let nouns = [media_noun(place), kept.noun()];
        let keep = self.store().write(nouns, move |tx| {
            if tx.blobs().is_blocked(&kept.sha256)? {
                return Ok(Err(FetchError::NotFound));
            }
            // Another node may have been faster.
            if tx.media().get(&new.place)?.is_some() {
                return Ok(Ok(()));
            }
            let Some(blob) = kept.settle(tx)? else {
                return Ok(Err(FetchError::Internal("the blob was collected before it was used".to_owned())));
            };
            tx.media().keep(&NewMedia { blob, ..new.clone() })?;
            Ok(Ok(()))
        });
        keep.await.unwrap_or_else(|error| Err(FetchError::Internal(error.to_string())))
    }
}

/// Whether an answer says that the server does not know today's paths: in the words of the specification, or in none of it.
fn is_of_old(status: StatusCode, errcode: &str) -> bool {
    let is_unknown = matches!(status.as_u16(), 400 | 401 | 403 | 404 | 405) && errcode.is_empty();
    is_unknown || (errcode == "M_UNRECOGNIZED" && status.is_client_error())
}

/// Asks as the specification says today.
async fn ask(
    remote: &Remote,
    server: &ServerName,
    media_id: &str,
    patience_ms: u64,
    options: SendOptions,
) -> Result<Coming, RemoteError> {
    let path = format!("/_matrix/federation/v1/media/download/{media_id}?timeout_ms={patience_ms}");
    let (parts, body) = remote.open_raw(server, request(&path)?, true, options).await?.into_parts();
    let malformed = |error: ContentError| RemoteError::Malformed(error.0);
    let boundary = text(&parts.headers, header::CONTENT_TYPE).and_then(multipart::boundary);
    let boundary = boundary.ok_or_else(|| RemoteError::Malformed("no multipart/mixed".to_owned()))?;
    let second = multipart::second_part(content(body), &boundary);
    let (headers, content) =
        tokio::time::timeout(HEAD, second).await.map_err(|_| RemoteError::Timeout)?.map_err(malformed)?;
    match text(&headers, header::LOCATION) {
        Some(location) => follow(remote, location.to_owned()).await,
        None => Ok(coming(&headers, None, content)),
    }
}

/// Asks as it was done before Matrix 1.11.
async fn ask_as_of_old(
    remote: &Remote,
    server: &ServerName,
    media_id: &str,
    patience_ms: u64,
    options: SendOptions,
) -> Result<Coming, RemoteError> {
    let path = format!("/_matrix/media/v3/download/{server}/{media_id}?allow_remote=false&timeout_ms={patience_ms}");
    let (parts, body) = remote.open_raw(server, request(&path)?, false, options).await?.into_parts();
    Ok(coming(&parts.headers, size(&parts.headers), content(body)))
}

/// Goes where a server sends us. The connector sees to it that this is no place of ours.
async fn follow(remote: &Remote, location: String) -> Result<Coming, RemoteError> {
    let nowhere = || RemoteError::Malformed("a redirect to nowhere".to_owned());
    let mut location = Url::parse(&location).map_err(|_| nowhere())?;
    for _ in 0..MOST_REDIRECTS {
        if !matches!(location.scheme(), "https" | "http") {
            return Err(nowhere());
        }
        let response = remote.client().open(Manner::Web, request(location.as_str())?, HEAD).await?;
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            return Ok(coming(&parts.headers, size(&parts.headers), content(body)));
        }
        match text(&parts.headers, header::LOCATION) {
            Some(next) if parts.status.is_redirection() => location = location.join(next).map_err(|_| nowhere())?,
            _ => return Err(RemoteError::Malformed(format!("a redirect to what answers {}", parts.status))),
        }
    }
    Err(RemoteError::Malformed("too many redirects".to_owned()))
}

fn request(uri: &str) -> Result<Request<Bytes>, RemoteError> {
    // Of a path alone only the path counts.
    let uri = if uri.starts_with('/') { format!("https://matrix.invalid{uri}") } else { uri.to_owned() };
    Request::get(uri).body(Bytes::new()).map_err(|error| RemoteError::Request(error.to_string()))
}

fn coming(headers: &HeaderMap, size: Option<u64>, content: Content) -> Coming {
    let content_type = text(headers, header::CONTENT_TYPE).filter(|text| !text.is_empty() && text.len() <= TYPE_BYTES);
    let file_name = headers
        .get(header::CONTENT_DISPOSITION)
        .and_then(|value| ContentDisposition::try_from(value.as_bytes()).ok()?.filename)
        .filter(|name| !name.is_empty() && name.len() <= NAME_BYTES);
    Coming { content_type: content_type.unwrap_or(UNKNOWN_TYPE).to_owned(), file_name, size, content }
}

fn content(body: Arriving) -> Content {
    body.map(|piece| piece.map_err(|error: HttpError| ContentError(error.to_string()))).boxed()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name)?.to_str().ok()
}

fn size(headers: &HeaderMap) -> Option<u64> {
    text(headers, header::CONTENT_LENGTH)?.parse().ok()
}

fn refused(error: RemoteError) -> FetchError {
    match error {
        RemoteError::Refused { errcode, .. } if errcode == "M_NOT_YET_UPLOADED" => FetchError::NotYetUploaded,
        RemoteError::Refused { errcode, .. } if errcode == "M_TOO_LARGE" => FetchError::TooLarge,
        RemoteError::Refused { status, .. } if status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS => {
            FetchError::NotFound
        }
        RemoteError::TooLarge(_) => FetchError::TooLarge,
        RemoteError::Forbidden(_) | RemoteError::Ourselves => FetchError::NotFound,
        RemoteError::Store(cause) => FetchError::Internal(cause.to_string()),
        other => FetchError::Failed(other.to_string()),
    }
}
