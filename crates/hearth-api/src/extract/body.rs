//! Reading bodies: bounded in size and time.

use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, Request};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{Extensions, HeaderMap, StatusCode, header};
use http_body_util::BodyExt;
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::ApiError;
use crate::bodies::Held;
use crate::error::json_response;
use crate::threshold::Record;

/// Largest body of a route that does not say otherwise: a full federation transaction (50 events of 64 KiB) fits.
pub(crate) const BODY_SIZE_BYTES: usize = 4 * 1024 * 1024;

/// How long a client may take to send a body that we keep in memory.
const BODY_TIME: Duration = Duration::from_secs(120);

/// Reads a body whole, within the limit of its route.
pub(super) async fn read(headers: &HeaderMap, extensions: &Extensions, body: Body) -> Result<Bytes, ApiError> {
    let record = Record::of(extensions);
    let route = record.and_then(Record::route);
    let limit = route.map_or(BODY_SIZE_BYTES, |route| route.body_size_bytes);
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        return Err(too_large(limit));
    }
    // Most requests have no body: no timer for them.
    if announced.is_none() && !headers.contains_key(header::TRANSFER_ENCODING) && http_body::Body::is_end_stream(&body)
    {
        return Ok(Bytes::new());
    }
    let expected = announced.and_then(|length| usize::try_from(length).ok()).unwrap_or(limit);
    let mut held =
        record.zip(route.and_then(|route| route.bodies.as_ref())).map(|(record, all)| all.from(record.client));
    let whole = Box::pin(gather(body, limit, expected, held.as_mut()));
    let whole = tokio::time::timeout(BODY_TIME, whole)
        .await
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "M_UNKNOWN", "The body took too long"))??;
    if let Some((record, held)) = record.zip(held) {
        record.hold(held);
    }
    Ok(whole)
}

fn too_large(limit: usize) -> ApiError {
    ApiError::too_large(format!("The body is larger than {limit} bytes"))
}

/// A body in one piece, which takes no more memory than is counted, in however many small pieces it comes.
async fn gather(mut body: Body, limit: usize, expected: usize, mut held: Option<&mut Held>) -> Result<Bytes, ApiError> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| ApiError::bad_request("M_UNKNOWN", "The body ended early"))?;
        let Ok(data) = frame.into_data() else { continue };
        let length = whole.len() + data.len();
        if length > limit {
            return Err(too_large(limit));
        }
        let room = whole.capacity();
        if length > room {
            let more = length.max(expected.min(2 * room)) - room;
            if let Some(held) = &mut held {
                held.grow(more)?;
            }
            whole.reserve_exact(room + more - whole.len());
        }
        whole.extend_from_slice(&data);
    }
    Ok(whole.into())
}

/// Tells a body that is no JSON from one of the wrong shape. The parser may stumble over the shape first. An empty body was
/// read as `{}`.
pub(super) fn json_error(error: &serde_json::Error, body: &[u8]) -> ApiError {
    match serde_json::from_slice::<IgnoredAny>(if body.is_empty() { b"{}" } else { body }) {
        Err(syntax) => ApiError::not_json(format!("The body is not JSON: {syntax}")),
        Ok(_) if error.is_data() => ApiError::bad_json(error.to_string()),
        // Strings that are JSON to a skimmer, but no Unicode to a reader.
        Ok(_) => ApiError::not_json(format!("The body is not JSON: {error}")),
    }
}

/// Lists and objects within each other at most. What is kept stands within something of ours when it is read again, and must
/// still be within what parsers take.
const DEPTH: usize = 100;

/// Fields of a request of another server, and elements of the lists in them, at most: as many as of several full transactions.
const ELEMENTS: usize = 2_000;

/// Refuses a body that is nested too deeply, also in parts that are kept as they are.
pub(super) fn check_depth(body: &[u8]) -> Result<(), ApiError> {
    match marks(body).any(|(_, depth)| depth > DEPTH) {
        true => Err(ApiError::bad_json(format!("The body is nested deeper than {DEPTH} levels"))),
        false => Ok(()),
    }
}

/// Refuses a body with more elements than any request of another server has, before they are read.
pub(super) fn check_elements(body: &[u8]) -> Result<(), ApiError> {
    match marks(body).filter(|(mark, depth)| *mark == b',' && *depth <= 2).nth(ELEMENTS) {
        Some(_) => Err(ApiError::bad_json(format!("The body has more than {ELEMENTS} elements"))),
        None => Ok(()),
    }
}

/// What stands outside of strings, and within how many lists and objects.
fn marks(body: &[u8]) -> impl Iterator<Item = (u8, usize)> {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    body.iter().filter_map(move |byte| {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => depth += 1,
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
        (!in_string).then_some((*byte, depth))
    })
}

/// The parser would take a list for a struct without names, and the specification knows no body that is a list.
pub(super) fn is_list(body: &[u8]) -> bool {
    body.trim_ascii_start().first() == Some(&b'[')
}

pub(super) fn refuse_list(body: &[u8]) -> ApiError {
    match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => ApiError::bad_json("The body is a list where an object is wanted"),
        Err(syntax) => ApiError::not_json(format!("The body is not JSON: {syntax}")),
    }
}

/// A JSON body, for endpoints that ruma does not know; also as an answer. An empty body reads as `{}`.
#[derive(Clone, Debug)]
pub struct JsonBody<T>(pub T);

impl<T: Serialize> IntoResponse for JsonBody<T> {
    fn into_response(self) -> Response {
        json_response(StatusCode::OK, &self.0)
    }
}

impl<T: DeserializeOwned, S: Sync> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let body = read(&parts.headers, &parts.extensions, body).await?;
        let body: &[u8] = if body.is_empty() { b"{}" } else { &body };
        if is_list(body) {
            return Err(refuse_list(body));
        }
        check_depth(body)?;
        serde_json::from_slice(body).map(Self).map_err(|error| json_error(&error, body))
    }
}

#[cfg(test)]
mod tests {
    use super::check_depth;

    #[test]
    fn depth_is_bounded_outside_of_strings() {
        let nested = |depth: usize| format!("{}1{}", r#"{"a":["#.repeat(depth / 2), "]}".repeat(depth / 2));
        assert!(check_depth(nested(100).as_bytes()).is_ok());
        assert!(check_depth(nested(102).as_bytes()).is_err());
        let brackets = "[".repeat(1000);
        assert!(check_depth(format!(r#"{{"a": "\"{brackets}", "b": "\\"}}"#).as_bytes()).is_ok());
        assert!(check_depth(format!(r#"{{"a": "\\", "b": {brackets}"#).as_bytes()).is_err());
        let wide = format!("[{}]", vec!["[]"; 1000].join(","));
        assert!(check_depth(wide.as_bytes()).is_ok());
    }
}
