//! What operators' tools ask: `/health`, `/ready`, `/metrics`.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{Method, StatusCode, header};

use crate::Doors;
use crate::error::Cause;
use crate::route::{Resource, Route};

pub(crate) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::GET, "/health", health).on(Resource::Health),
        Route::at(Method::GET, "/ready", ready).on(Resource::Health),
        Route::at(Method::GET, "/metrics", metrics).on(Resource::Metrics),
    ]
}

/// The process is alive.
async fn health() -> &'static str {
    "OK\n"
}

/// The process can serve: the store answers and nobody asked it to stop.
async fn ready(State(doors): State<Doors>) -> Response {
    if doors.shutdown.is_requested() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response();
    }
    match doors.store.read(|tx| tx.position().map(drop)).await {
        Ok(()) => "OK\n".into_response(),
        Err(error) => {
            let mut response = (StatusCode::SERVICE_UNAVAILABLE, "the store does not answer\n").into_response();
            response.extensions_mut().insert(Cause(error.to_string()));
            response
        }
    }
}

/// Prometheus' text format.
async fn metrics(State(doors): State<Doors>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], (doors.metrics)().await).into_response()
}
