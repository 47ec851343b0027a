//! What happens to every request before and after its handler: cross-origin headers, the log line, metrics, panics.
//!
//! Queries are never logged: they may hold access tokens.

use std::any::Any;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use hearth_matrix::ruma::{OwnedUserId, UserId};
use http::{Extensions, Method, Request, StatusCode, Uri};
use http_body::Body as _;
use metrics::{Counter, Histogram};
use tower::Service;

use crate::bodies::Held;
use crate::error::Cause;
use crate::limits::Class;
use crate::{ApiError, Bodies, cors};

/// What is learnt about a request on its way in. Travels in its extensions.
pub(crate) struct Record {
    pub(crate) client: IpAddr,
    route: OnceLock<Arc<RouteRecord>>,
    user: OnceLock<OwnedUserId>,
    /// What is held of its body, until it is answered.
    body: OnceLock<Held>,
}

impl Record {
    fn new(client: IpAddr) -> Self {
        Self { client, route: OnceLock::new(), user: OnceLock::new(), body: OnceLock::new() }
    }

    /// The record of the request with these extensions.
    pub(crate) fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get::<Arc<Self>>().map(AsRef::as_ref)
    }

    pub(crate) fn route(&self) -> Option<&RouteRecord> {
        self.route.get().map(AsRef::as_ref)
    }

    pub(crate) fn set_route(&self, route: Arc<RouteRecord>) {
        let _ = self.route.set(route);
    }

    pub(crate) fn set_user(&self, user_id: &UserId) {
        let _ = self.user.set(user_id.to_owned());
    }

    pub(crate) fn hold(&self, body: Held) {
        let _ = self.body.set(body);
    }
}

/// What is known about a route: its name, its limits, its counters.
pub(crate) struct RouteRecord {
    pub(crate) method: Method,
    pub(crate) path: Box<str>,
    pub(crate) body_size_bytes: usize,
    /// What its requests count as; none if they are not limited.
    pub(crate) class: Option<Class>,
    /// Where its requests' bodies are counted; none if they are not.
    pub(crate) bodies: Option<Bodies>,
    duration: OnceLock<Histogram>,
    by_status: Mutex<Vec<(StatusCode, Counter)>>,
}

impl RouteRecord {
    pub(crate) fn new(
        method: &Method,
        path: &str,
        body_size_bytes: usize,
        class: Option<Class>,
        bodies: Option<Bodies>,
    ) -> Self {
        Self {
            method: method.clone(),
            path: path.into(),
            body_size_bytes,
            class,
            bodies,
            duration: OnceLock::new(),
            by_status: Mutex::default(),
        }
    }

    fn count(&self, status: StatusCode, seconds: f64) {
        let labels = || [("method", self.method.to_string()), ("route", self.path.to_string())];
        self.duration
            .get_or_init(|| metrics::histogram!("hearth_http_request_duration_seconds", &labels()))
            .record(seconds);
        let mut by_status = self.by_status.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = match by_status.iter().position(|(known, _)| *known == status) {
            Some(at) => &by_status[at].1,
            None => {
                let [method, route] = labels();
                let labels = [method, route, ("status", status.as_str().to_owned())];
                by_status.push((status, metrics::counter!("hearth_http_requests_total", &labels)));
                &by_status[by_status.len() - 1].1
            }
        };
        counter.increment(1);
    }
}

/// What these lines are called in the log, so that its filter can name them: `info,http=warn`.
const LOG: &str = "http";

/// Longest path and query. Clients write filters into queries.
const URI_BYTES: usize = 16 * 1024;

/// Leads a request to its handler and the answer back.
///
/// Not `async` itself, and what the router returns is boxed: an `async` function would hold all of it several times over for
/// as long as a client waits.
pub(crate) fn pass(
    mut router: Router,
    mut request: Request<Body>,
    client: IpAddr,
) -> impl Future<Output = Response> + Send + use<> {
    let with_cors = cors::applies_to(request.uri().path());
    let record = Arc::new(Record::new(client));
    let line = Line::begin(&request, Arc::clone(&record));
    let refused = is_too_long(request.uri()).then(too_long);
    let answer = if refused.is_some() || with_cors && request.method() == Method::OPTIONS {
        None
    } else {
        request.extensions_mut().insert(record);
        Some(Box::pin(AssertUnwindSafe(router.call(request)).catch_unwind()))
    };
    async move {
        let mut response = match answer {
            None => refused.map_or_else(|| StatusCode::NO_CONTENT.into_response(), IntoResponse::into_response),
            Some(answer) => match answer.await {
                Ok(Ok(response)) => response,
                Ok(Err(never)) => match never {},
                Err(panic) => {
                    ApiError::internal(format_args!("the handler panicked: {}", panic_message(&*panic))).into_response()
                }
            },
        };
        if with_cors {
            cors::add_headers(response.headers_mut());
        }
        line.end(&response);
        response
    }
}

fn is_too_long(uri: &Uri) -> bool {
    uri.path_and_query().is_some_and(|path| path.as_str().len() > URI_BYTES)
}

fn too_long() -> ApiError {
    ApiError::new(StatusCode::URI_TOO_LONG, "M_TOO_LARGE", format!("The address is longer than {URI_BYTES} bytes"))
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without a message")
}

/// A request's line in the log. A client that goes away leaves a line, too.
struct Line {
    record: Arc<Record>,
    pub(crate) method: Method,
    pub(crate) path: Box<str>,
    began: Instant,
    written: bool,
}

/// Not of HTTP, but what many servers log when a client went away before its answer.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Line {
    fn begin(request: &Request<Body>, record: Arc<Record>) -> Self {
        let (method, path) = (request.method().clone(), request.uri().path().into());
        Self { record, method, path, began: Instant::now(), written: false }
    }

    fn end(mut self, response: &Response) {
        self.written = true;
        let bytes = response.body().size_hint().exact();
        self.write(response.status(), bytes, response.extensions().get::<Cause>());
    }

    fn write(&self, status: StatusCode, bytes: Option<u64>, cause: Option<&Cause>) {
        let elapsed = self.began.elapsed();
        let route = self.record.route();
        let path = route.map_or(&self.path, |route| &route.path);
        let user = self.record.user.get().map(tracing::field::display);
        if let Some(Cause(cause)) = cause {
            tracing::error!(target: LOG, method = %self.method, route = %path, user, cause, "request failed");
        }
        tracing::info!(
            target: LOG,
            method = %self.method,
            route = %path,
            status = status.as_u16(),
            ms = elapsed.as_micros() as f64 / 1000.0,
            bytes,
            client = %self.record.client,
            user,
            "request"
        );
        match route {
            Some(route) => route.count(status, elapsed.as_secs_f64()),
            None => {
                let labels = [("method", "any"), ("route", "none"), ("status", status.as_str())];
                let labels = labels.map(|(name, value)| (name, value.to_owned()));
                metrics::counter!("hearth_http_requests_total", &labels).increment(1);
            }
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if !self.written
            && let Ok(status) = StatusCode::from_u16(CLIENT_CLOSED_REQUEST)
        {
            self.write(status, None, None);
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;

    use super::*;

    #[tokio::test]
    async fn a_panic_is_an_answer_like_others() {
        let router = Router::new().route("/", get(async || -> &'static str { panic!("the secret cause") }));
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = pass(router, request, [127, 0, 0, 1].into()).await;
        assert_eq!(response.status(), 500);
        assert!(response.headers().contains_key("access-control-allow-origin"));
        let body = axum::body::to_bytes(response.into_body(), 1000).await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(body["errcode"], "M_UNKNOWN");
        assert!(!body.to_string().contains("secret"));
    }
}
