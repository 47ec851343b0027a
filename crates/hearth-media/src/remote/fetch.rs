//! One fetch: ask, follow, receive, keep.

use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use hearth_matrix::ruma::ServerName;
use hearth_matrix::ruma::http_headers::ContentDisposition;
use hearth_remote::{Arriving, HttpError, Limits, Manner, Remote, RemoteError, SendOptions};
use hearth_store::{BlobNum, MediaPlace, NewMedia, ThumbnailKind};
use http::{HeaderMap, Request, StatusCode, header};
use url::Url;

use super::thumbnail::picture_of;
use super::{FetchError, What, multipart};
use crate::Media;
use crate::content::{Content, ContentError};
use crate::keep::KeepError;
use crate::policy::media_noun;
use crate::receive::{ReceiveError, Received, receive};
use crate::scan::Verdict;
use crate::upload::UNKNOWN_TYPE;

/// A server that sends us elsewhere, and from there elsewhere again.
const MOST_REDIRECTS: usize = 4;
/// Names are cut to what uploads may have.
const NAME_BYTES: usize = 1024;
const TYPE_BYTES: usize = 255;

/// A file that comes.
pub(super) struct Coming {
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
        what: What,
        patience_ms: u64,
    ) -> Result<(), FetchError> {
        let Some(remote) = self.fetches().remote.clone() else { return Err(FetchError::NotFound) };
        let answer = self.config().times.answer;
        let request = Asked { remote: &remote, server, place, what, patience_ms, answer };
        // From the first question to the file's first byte, with all that is asked on the way.
        let whole = 4 * answer + Duration::from_millis(patience_ms);
        let coming = tokio::time::timeout(whole, async {
            match request.ask().await {
                Err(RemoteError::Refused { status, errcode, .. }) if is_of_old(status, &errcode) => {
                    request.ask_as_of_old().await
                }
                outcome => outcome,
            }
        });
        let coming = coming.await.unwrap_or(Err(RemoteError::Timeout)).map_err(refused)?;
        match what {
            What::File => self.take(place, coming).await,
            What::Thumbnail(kind) => self.take_thumbnail(place, kind, coming).await,
        }
    }

    /// Receives a file and keeps it.
    async fn take(&self, place: &MediaPlace, coming: Coming) -> Result<(), FetchError> {
        let limit = self.config().max_remote_bytes;
        let Coming { content_type, file_name, .. } = &coming;
        let said = (content_type.clone(), file_name.clone());
        let received = self.take_in(coming, limit).await?;
        self.keep_fetched(place, received, said.0, said.1).await
    }

    /// Receives bytes, and has them looked at.
    pub(super) async fn take_in(&self, coming: Coming, limit: u64) -> Result<Received, FetchError> {
        if coming.size.is_some_and(|size| size > limit) {
            return Err(FetchError::TooLarge);
        }
        let received = receive(self.storage(), coming.content, limit, self.config().times.fetches).await;
        let received = received.map_err(|error| match error {
            ReceiveError::TooLarge(_) => FetchError::TooLarge,
            ReceiveError::TooSlow | ReceiveError::Interrupted(_) => FetchError::Failed(error.to_string()),
            ReceiveError::Storage(cause) => FetchError::Internal(format!("the media storage: {cause}")),
        })?;
        match self.scan(&received).await {
            Ok(Verdict::Clean) => {}
            Ok(Verdict::Infected(_)) => return Err(FetchError::NotFound),
            Err(error) => return Err(FetchError::Failed(error)),
        }
        Ok(received)
    }

    pub(super) async fn keep_fetched(
        &self,
        place: &MediaPlace,
        received: Received,
        content_type: String,
        file_name: Option<String>,
    ) -> Result<(), FetchError> {
        let kept = self.keep(received).await.map_err(|error: KeepError| FetchError::Internal(error.to_string()))?;
        let new = NewMedia {
            place: place.clone(),
            blob: BlobNum(0),
            size: kept.size,
            content_type,
            file_name,
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

/// What is asked of whom.
struct Asked<'a> {
    remote: &'a Remote,
    server: &'a ServerName,
    place: &'a MediaPlace,
    what: What,
    patience_ms: u64,
    /// How long an answer may take to begin, beside waiting for an upload.
    answer: Duration,
}

impl Asked<'_> {
    /// What stands behind `…/media/`, with a server before the media id or none.
    fn path(&self, server: &str) -> String {
        let (media_id, patience_ms) = (picture_of(&self.place.media_id), self.patience_ms);
        match self.what {
            What::File => format!("download/{server}{media_id}?timeout_ms={patience_ms}"),
            What::Thumbnail(kind) => {
                let ThumbnailKind { width, height, crop, animated } = kind;
                let method = if crop { "crop" } else { "scale" };
                format!(
                    "thumbnail/{server}{media_id}?width={width}&height={height}&method={method}&animated={animated}\
                     &timeout_ms={patience_ms}"
                )
            }
        }
    }

    fn options(&self) -> SendOptions {
        let timeout = self.answer + Duration::from_millis(self.patience_ms);
        SendOptions { limits: Limits { timeout, ..Limits::default() }, is_aside: true, ..SendOptions::default() }
    }

    /// As the specification says today.
    async fn ask(&self) -> Result<Coming, RemoteError> {
        let path = format!("/_matrix/federation/v1/media/{}", self.path(""));
        let response = self.remote.open_raw(self.server, request(&path)?, true, self.options()).await?;
        let (parts, body) = response.into_parts();
        let malformed = |error: ContentError| RemoteError::Malformed(error.0);
        let boundary = text(&parts.headers, header::CONTENT_TYPE).and_then(multipart::boundary);
        let boundary = boundary.ok_or_else(|| RemoteError::Malformed("no multipart/mixed".to_owned()))?;
        let second = multipart::second_part(content(body), &boundary);
        let (headers, content) =
            tokio::time::timeout(self.answer, second).await.map_err(|_| RemoteError::Timeout)?.map_err(malformed)?;
        match text(&headers, header::LOCATION) {
            Some(location) => self.follow(location.to_owned()).await,
            None => Ok(coming(&headers, None, content)),
        }
    }

    /// As it was done before Matrix 1.11.
    async fn ask_as_of_old(&self) -> Result<Coming, RemoteError> {
        let path = format!("/_matrix/media/v3/{}&allow_remote=false", self.path(&format!("{}/", self.server)));
        let response = self.remote.open_raw(self.server, request(&path)?, false, self.options()).await?;
        let (parts, body) = response.into_parts();
        Ok(coming(&parts.headers, size(&parts.headers), content(body)))
    }

    /// Goes where a server sends us. The connector sees to it that this is no place of ours.
    async fn follow(&self, location: String) -> Result<Coming, RemoteError> {
        let nowhere = || RemoteError::Malformed("a redirect to nowhere".to_owned());
        let mut location = Url::parse(&location).map_err(|_| nowhere())?;
        for _ in 0..MOST_REDIRECTS {
            if !matches!(location.scheme(), "https" | "http") {
                return Err(nowhere());
            }
            let response = self.remote.client().open(Manner::Web, request(location.as_str())?, self.answer).await?;
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
