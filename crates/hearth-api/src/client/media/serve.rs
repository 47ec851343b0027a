//! A file as an HTTP answer: what browsers may make of it, and which part is wanted.
//!
//! Spec: client-server API, "Content repository" and "Serving inline content".

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::Stream as _;
use hearth_matrix::ruma::http_headers::{ContentDisposition, ContentDispositionType};
use hearth_media::{Content, ContentError, File};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use http_body::{Frame, SizeHint};

use super::range::Part;
use super::storage_failed;
use crate::ApiError;

/// What a browser may do with a file that it shows: nothing but show it.
const POLICY: &str = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                      style-src 'unsafe-inline'; object-src 'self';";

const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Types that browsers may show without being asked: they run nothing.
const INLINE: [&str; 26] = [
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// Who may see it, and keep a copy on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience {
    /// Whoever asks.
    Anybody,
    /// Who shows an access token.
    Authenticated,
}

/// What the file is called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Name {
    /// As it was when it was uploaded.
    Own,
    /// As the asker says.
    Asked(String),
}

/// How it is asked for: by which method, and with which headers.
pub(crate) struct Asked {
    is_head: bool,
    headers: HeaderMap,
}

impl<S: Sync> FromRequestParts<S> for Asked {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self { is_head: parts.method == Method::HEAD, headers: parts.headers.clone() })
    }
}

/// The answer, or what part of it is wanted.
pub(crate) async fn serve(file: File, name: Name, audience: Audience, asked: &Asked) -> Result<Response, ApiError> {
    let tag = format!("\"{}\"", file.tag());
    let name = match name {
        Name::Own => file.file_name.clone(),
        Name::Asked(name) => Some(name),
    };
    let mut headers = HeaderMap::new();
    let mut set = |name, value: &str| {
        // Values of ours are such; a stranger's content type was one when it came.
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(header::CONTENT_TYPE, &file.content_type);
    set(header::CONTENT_DISPOSITION, &disposition(&file.content_type, name));
    set(header::CONTENT_SECURITY_POLICY, POLICY);
    set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(RESOURCE_POLICY, "cross-origin");
    set(header::REFERRER_POLICY, "no-referrer");
    set(header::ACCEPT_RANGES, "bytes");
    set(header::ETAG, &tag);
    // Bytes never change, but may be taken away.
    set(
        header::CACHE_CONTROL,
        match audience {
            Audience::Anybody => "public, max-age=86400, immutable",
            Audience::Authenticated => "private, max-age=86400, immutable",
        },
    );

    if is_known(&asked.headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, headers).into_response());
    }
    let size = file.size();
    if asked.is_head {
        // Parts are of what is sent, and nothing is: it is not even opened.
        headers.insert(header::CONTENT_LENGTH, size.into());
        return Ok((StatusCode::OK, headers).into_response());
    }
    let (status, range) = match Part::wanted(&asked.headers, size, &tag) {
        Part::Whole => (StatusCode::OK, 0..size),
        Part::Range(range) => {
            let told = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            headers.insert(header::CONTENT_RANGE, told.parse().map_err(ApiError::internal)?);
            (StatusCode::PARTIAL_CONTENT, range)
        }
        Part::Beyond => {
            let told = format!("bytes */{size}").parse().map_err(ApiError::internal)?;
            let beyond = HeaderMap::from_iter([(header::CONTENT_RANGE, told)]);
            let refusal =
                ApiError::new(StatusCode::RANGE_NOT_SATISFIABLE, "M_INVALID_PARAM", "The range is beyond the end");
            return Ok((beyond, refusal).into_response());
        }
    };
    let left = range.end - range.start;
    let content = file.content(range).await.map_err(storage_failed)?;
    Ok((status, headers, counted(content, left)).into_response())
}

/// The value of `Content-Disposition` for a type and a name.
pub(crate) fn disposition(content_type: &str, name: Option<String>) -> String {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    let is_safe = INLINE.iter().any(|safe| safe.eq_ignore_ascii_case(essence));
    let kind = if is_safe { ContentDispositionType::Inline } else { ContentDispositionType::Attachment };
    ContentDisposition::new(kind).with_filename(name).to_string()
}

fn is_known(asked: &HeaderMap, tag: &str) -> bool {
    let known = |value: &HeaderValue| {
        let mut tags = value.to_str().unwrap_or_default().split(',').map(str::trim);
        tags.any(|known| known == "*" || known.strip_prefix("W/").unwrap_or(known) == tag)
    };
    asked.get_all(header::IF_NONE_MATCH).iter().any(known)
}

/// A body of so many bytes.
pub(crate) fn counted(content: Content, left: u64) -> Body {
    Body::new(Counted { content, left })
}

/// A body of which is known how much is left.
struct Counted {
    content: Content,
    left: u64,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = ContentError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ContentError>>> {
        let next = std::task::ready!(Pin::new(&mut self.content).poll_next(cx));
        Poll::Ready(next.map(|piece| {
            let piece = piece?;
            self.left = self.left.saturating_sub(piece.len() as u64);
            Ok(Frame::data(piece))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::disposition;

    #[test]
    fn only_what_runs_nothing_is_shown_inline() {
        let shown = |content_type| disposition(content_type, None);
        for safe in ["image/png", "Text/Plain; charset=utf-8", "video/mp4", "IMAGE/JPEG"] {
            assert_eq!(shown(safe), "inline", "{safe}");
        }
        for unsafe_type in ["text/html", "image/svg+xml", "image/svg", "application/pdf", "", "nonsense", "text/xml"] {
            assert_eq!(shown(unsafe_type), "attachment", "{unsafe_type}");
        }
    }

    #[test]
    fn names_are_written_so_that_browsers_read_them() {
        let named = |name: &str| disposition("image/png", Some(name.to_owned()));
        assert_eq!(named("ascii"), "inline; filename=ascii");
        assert_eq!(named("name with spaces"), "inline; filename=\"name with spaces\"");
        assert_eq!(named("name;with;semicolons"), "inline; filename=\"name;with;semicolons\"");
        assert_eq!(named("quo\"te\\"), "inline; filename=\"quo\\\"te\\\\\"");
        assert_eq!(named("🐔"), "inline; filename*=utf-8''%F0%9F%90%94");
        assert_eq!(named("a\r\nSet-Cookie: x"), "inline; filename=\"aSet-Cookie: x\"");
    }
}
