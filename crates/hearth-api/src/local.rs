//! The local door: what `hearth admin` asks over the socket in the data directory. Whoever can open that socket owns the
//! server, so there are no tokens here.

use std::net::Ipv4Addr;

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use http::header;
use http_body_util::BodyExt;

use crate::{ApiError, Doors, threshold};

/// The router of the admin socket.
pub fn local_router(doors: Doors) -> Router {
    Router::new().fallback(async || ApiError::unrecognized()).with_state(doors)
}

/// Asks the local door in this process: status and body of the answer.
pub async fn ask_local_door(doors: &Doors, method: &str, path: &str, body: String) -> (u16, Vec<u8>) {
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_LENGTH, body.len())
        .body(Body::from(body));
    let response = match request {
        Ok(request) => threshold::pass(local_router(doors.clone()), request, Ipv4Addr::LOCALHOST.into()).await,
        Err(error) => ApiError::internal(error).into_response(),
    };
    let status = response.status().as_u16();
    // The body is in memory already; an error is as good as none.
    let body = response.into_body().collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    (status, body)
}
