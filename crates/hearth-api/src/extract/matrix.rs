//! ruma's requests in, ruma's responses out.

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::response::{IntoResponse, Response};
use hearth_matrix::ruma::api::error::{DeserializationError, FromHttpRequestError};
use hearth_matrix::ruma::api::path_builder::PathBuilder;
use hearth_matrix::ruma::api::{IncomingRequest, IncomingRequestExt, OutgoingResponse, OutgoingResponseExt};

use super::body;
use crate::ApiError;

/// As an argument: the request, decoded from path, query, headers and body. As a result: the response.
#[derive(Clone, Debug)]
pub struct Matrix<T>(pub T);

impl<T: IncomingRequest, S: Sync> FromRequest<S> for Matrix<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|_| ApiError::invalid_param("The path is not UTF-8"))?;
        let body = body::read(&parts.headers, &parts.extensions, body).await?;
        // Clients leave out a body in which nothing is required; what is required is missed in `{}`, too.
        let body: &[u8] = if body.is_empty() && parts.method != http::Method::GET { b"{}" } else { &body };
        // What is uploaded to the media repository may look like anything.
        if !T::PATH_BUILDER.all_paths().any(|path| path.contains("/media/")) {
            if body::is_list(body) {
                return Err(body::refuse_list(body));
            }
            body::check_depth(body)?;
        }
        decode(http::Request::from_parts(parts, body), &path)
    }
}

// Apart, so that what the future holds while it waits for the body stays small.
pub(super) fn decode<T: IncomingRequest>(
    request: http::Request<&[u8]>,
    path: &RawPathParams,
) -> Result<Matrix<T>, ApiError> {
    let path: Vec<&str> = path.iter().map(|(_, value)| value).collect();
    let body = *request.body();
    T::try_from_http_request(request, &path).map(Matrix).map_err(|error| match error {
        FromHttpRequestError::Deserialization(error) => refuse(error, body),
        FromHttpRequestError::MethodMismatch { .. } => ApiError::method_not_allowed(),
        other => ApiError::bad_request("M_UNKNOWN", other.to_string()),
    })
}

fn refuse(error: DeserializationError, body: &[u8]) -> ApiError {
    match error {
        DeserializationError::Json(error) => body::json_error(&error, body),
        // Path and query; serde's own words are the only way to tell what is missing from what is wrong.
        DeserializationError::Query(error) => match error.to_string() {
            message if message.starts_with("missing field") => ApiError::missing_param(message),
            message => ApiError::invalid_param(message),
        },
        DeserializationError::Utf8(error) => ApiError::not_json(error.to_string()),
        other => ApiError::invalid_param(other.to_string()),
    }
}

impl<T: OutgoingResponse> IntoResponse for Matrix<T> {
    fn into_response(self) -> Response {
        match self.0.try_into_http_response::<Vec<u8>>() {
            Ok(response) => response.map(axum::body::Body::from),
            Err(error) => ApiError::internal(format_args!("answer does not serialise: {error}")).into_response(),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::routing::{get, put};
    use hearth_matrix::ruma::api::client::{message::get_message_events, state::send_state_event, typing};
    use http::Request;
    use http_body_util::BodyExt;
    use serde_json::Value;

    use super::Matrix;
    use crate::threshold;

    async fn ask(method: &str, uri: &str, body: &str) -> (u16, Value) {
        let router = Router::new()
            .route(
                "/rooms/{room_id}/typing/{user_id}",
                put(async |Matrix(request): Matrix<typing::create_typing_event::v3::Request>| {
                    request.room_id.to_string()
                }),
            )
            .route(
                "/rooms/{room_id}/state/{event_type}/{state_key}",
                put(async |Matrix(request): Matrix<send_state_event::v3::Request>| {
                    format!("{}|{}", request.event_type, request.state_key)
                }),
            )
            .route("/rooms/{room_id}/messages", get(async |_: Matrix<get_message_events::v3::Request>| "fine"));
        let request = Request::builder().method(method).uri(uri).body(Body::from(body.to_owned())).unwrap();
        let response = threshold::pass(router, request, [127, 0, 0, 1].into()).await;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let text = || Value::from(String::from_utf8_lossy(&body).into_owned());
        (status, serde_json::from_slice(&body).unwrap_or_else(|_| text()))
    }

    #[tokio::test]
    async fn path_values_are_decoded() {
        let (status, body) = ask("PUT", "/rooms/%21a%3Ab.c/state/org.example%2Fx/a%20%2F%25b", "{}").await;
        assert_eq!((status, body), (200, "org.example/x|a /%b".into()));
    }

    #[tokio::test]
    async fn refusals_name_what_is_wrong() {
        let typing = "/rooms/!a:b.c/typing/@u:b.c";
        let cases = [
            ("PUT", typing, "{", 400, "M_NOT_JSON"),
            ("PUT", typing, "not json", 400, "M_NOT_JSON"),
            ("PUT", typing, r#"{"typing": 5, broken"#, 400, "M_NOT_JSON"),
            ("PUT", typing, r#"{"typing": 5}"#, 400, "M_BAD_JSON"),
            ("PUT", typing, "", 400, "M_BAD_JSON"),
            ("PUT", typing, "[]", 400, "M_BAD_JSON"),
            ("PUT", "/rooms/nonsense/typing/@u:b.c", r#"{"typing": false}"#, 400, "M_INVALID_PARAM"),
            ("PUT", "/rooms/%ff/typing/@u:b.c", r#"{"typing": false}"#, 400, "M_INVALID_PARAM"),
            ("GET", "/rooms/!a:b.c/messages", "", 400, "M_MISSING_PARAM"),
            ("GET", "/rooms/!a:b.c/messages?dir=x", "", 400, "M_INVALID_PARAM"),
            ("GET", "/rooms/!a:b.c/messages?dir=b&limit=many", "", 400, "M_INVALID_PARAM"),
        ];
        for (method, uri, body, status, errcode) in cases {
            let (got, answer) = ask(method, uri, body).await;
            assert_eq!((got, answer["errcode"].as_str()), (status, Some(errcode)), "{method} {uri} {body}: {answer}");
        }
    }

    #[tokio::test]
    async fn bodies_have_a_limit() {
        let body = format!(r#"{{"x": "{}"}}"#, "y".repeat(crate::extract::BODY_SIZE_BYTES));
        let (status, answer) = ask("PUT", "/rooms/!a:b.c/typing/@u:b.c", &body).await;
        assert_eq!((status, answer["errcode"].as_str()), (413, Some("M_TOO_LARGE")));
    }
}
