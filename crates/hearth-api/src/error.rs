//! What a door answers when it refuses: a status, one of the spec's codes and a sentence that helps.
//!
//! Domain errors become [`ApiError`]s in one table per door (`client/errors.rs`), nowhere else.
//! Spec: client-server API, "Standard error response".

use std::borrow::Cow;
use std::fmt::Display;

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::DoorOptions;

const USER_LIMIT: &str = "M_USER_LIMIT_EXCEEDED";

/// A refusal.
#[derive(Debug)]
pub struct ApiError(Box<Refusal>);

#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    body: ErrorBody,
    retry_after_ms: Option<u64>,
    cause: Option<String>,
}

/// The body of a refusal.
#[derive(Clone, Debug, Serialize)]
pub struct ErrorBody {
    /// The spec's code; only a step of interactive authentication may have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errcode: Option<Cow<'static, str>>,
    /// A sentence for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<Cow<'static, str>>,
    /// What the code adds.
    #[serde(flatten)]
    pub extra: Map<String, Value>,
}

/// Why we failed, for the log. Travels beside the answer to where its log line is written.
#[derive(Clone, Debug)]
pub(crate) struct Cause(pub(crate) String);

impl ApiError {
    /// A refusal with any code.
    pub fn new(
        status: StatusCode,
        errcode: impl Into<Cow<'static, str>>,
        message: impl Into<Cow<'static, str>>,
    ) -> Self {
        let body = ErrorBody { errcode: Some(errcode.into()), error: Some(message.into()), extra: Map::new() };
        Self(Box::new(Refusal { status, body, retry_after_ms: None, cause: None }))
    }

    /// Adds a field to the body.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.0.body.extra.insert(field.to_owned(), value.into());
        self
    }

    /// 403 `M_FORBIDDEN`: known, but not allowed.
    pub fn forbidden(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "M_FORBIDDEN", message)
    }

    /// 404 `M_NOT_FOUND`: the thing is not there, or not for this asker.
    pub fn not_found(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_NOT_FOUND", message)
    }

    /// 404 `M_UNRECOGNIZED`: there is no such endpoint.
    pub fn unrecognized() -> Self {
        Self::new(StatusCode::NOT_FOUND, "M_UNRECOGNIZED", "There is no such endpoint")
    }

    /// 405 `M_UNRECOGNIZED`: the endpoint knows other methods.
    pub fn method_not_allowed() -> Self {
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "M_UNRECOGNIZED", "This endpoint does not know this method")
    }

    /// 400 `M_NOT_JSON`: the body is no JSON at all.
    pub fn not_json(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_NOT_JSON", message)
    }

    /// 400 `M_BAD_JSON`: the body has the wrong shape.
    pub fn bad_json(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_BAD_JSON", message)
    }

    /// 400 `M_INVALID_PARAM`: a value in path, query, header or body makes no sense.
    pub fn invalid_param(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_INVALID_PARAM", message)
    }

    /// 400 `M_MISSING_PARAM`: a value is missing.
    pub fn missing_param(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "M_MISSING_PARAM", message)
    }

    /// 400 with any code.
    pub fn bad_request(errcode: &'static str, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, errcode, message)
    }

    /// 401 `M_MISSING_TOKEN`.
    pub fn missing_token() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "M_MISSING_TOKEN", "This endpoint needs an access token")
    }

    /// 401 `M_UNKNOWN_TOKEN`.
    pub fn unknown_token(soft_logout: bool) -> Self {
        let message = if soft_logout { "The access token has expired" } else { "Unknown access token" };
        Self::new(StatusCode::UNAUTHORIZED, "M_UNKNOWN_TOKEN", message).with("soft_logout", soft_logout)
    }

    /// 413 `M_TOO_LARGE`.
    pub fn too_large(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "M_TOO_LARGE", message)
    }

    /// 429 `M_LIMIT_EXCEEDED`, with `Retry-After`.
    pub fn limit_exceeded(retry_after_ms: u64) -> Self {
        let mut error = Self::new(StatusCode::TOO_MANY_REQUESTS, "M_LIMIT_EXCEEDED", "Too many requests")
            .with("retry_after_ms", retry_after_ms);
        error.0.retry_after_ms = Some(retry_after_ms);
        error
    }

    /// 403 `M_USER_LIMIT_EXCEEDED`: the account has as much of something as it may. `explained` adds where to read about it.
    pub fn user_limit_exceeded(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::FORBIDDEN, USER_LIMIT, message)
    }

    /// Adds where users may read about the limits of their accounts, if that is what this is about.
    pub(crate) fn explained(self, options: &DoorOptions) -> Self {
        if self.0.body.errcode.as_deref() != Some(USER_LIMIT) {
            return self;
        }
        let home = || format!("https://{}", options.server_name);
        self.with("info_uri", options.public_url.clone().unwrap_or_else(home))
    }

    /// 500 `M_UNKNOWN`: our fault. The cause goes to the log, the client learns nothing of it.
    pub fn internal(cause: impl Display) -> Self {
        let mut error = Self::new(StatusCode::INTERNAL_SERVER_ERROR, "M_UNKNOWN", "Internal server error");
        error.0.cause = Some(cause.to_string());
        error
    }

    /// 401 with what interactive authentication still wants (`flows`, `params`, `session`, `completed`, and after a failed
    /// stage `errcode` and `error`).
    pub fn uia(info: Map<String, Value>) -> Self {
        let body = ErrorBody { errcode: None, error: None, extra: info };
        Self(Box::new(Refusal { status: StatusCode::UNAUTHORIZED, body, retry_after_ms: None, cause: None }))
    }

    /// The status of the answer.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The body of the answer.
    pub fn body(&self) -> &ErrorBody {
        &self.0.body
    }
}

impl Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let body = &self.0.body;
        write!(f, "{}", self.0.status)?;
        for part in [&body.errcode, &body.error].into_iter().flatten() {
            write!(f, " {part}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ApiError {}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let Refusal { status, body, retry_after_ms, cause } = *self.0;
        let mut response = json_response(status, &body);
        if let Some(retry_after_ms) = retry_after_ms {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(retry_after_ms.div_ceil(1000)));
        }
        if let Some(cause) = cause {
            response.extensions_mut().insert(Cause(cause));
        }
        response
    }
}

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(body) => {
            let content_type = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
            (status, content_type, body).into_response()
        }
        Err(error) => {
            let mut response = StatusCode::INTERNAL_SERVER_ERROR.into_response();
            response.extensions_mut().insert(Cause(format!("answer does not serialise: {error}")));
            response
        }
    }
}
