//! The local door: what `hearth admin` asks over the socket in the data directory. Whoever can open that socket owns the
//! server, so there are no tokens here.
//!
//! Not part of any specification; only the same release of the program speaks to it.

mod federation;
mod keys;
mod media;

use std::net::Ipv4Addr;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use hearth_account::{AdminError, RegisterError, Secret};
use hearth_matrix::ruma::{OwnedUserId, UserId};
use hearth_store::{Report, StoreError, UserKind};
use http::{StatusCode, header};
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::error::json_response;
use crate::{ApiError, Doors, JsonBody, threshold};

/// Accounts read at once.
const PAGE: usize = 500;

/// Reports shown at most.
const REPORTS: i64 = 1000;

/// The router of the admin socket.
pub fn local_router(doors: Doors) -> Router {
    Router::new()
        .route("/users", get(list).post(create))
        .route("/users/reset-password", post(reset_password))
        .route("/users/deactivate", post(deactivate))
        .route("/users/set", post(set))
        .route("/reports", get(reports))
        .merge(media::router())
        .merge(federation::router())
        .merge(keys::router())
        .fallback(async || ApiError::unrecognized())
        .method_not_allowed_fallback(async || ApiError::method_not_allowed())
        .with_state(doors)
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

#[derive(Deserialize)]
struct Create {
    name: String,
    password: String,
    #[serde(default)]
    admin: bool,
}

async fn create(State(doors): State<Doors>, JsonBody(wish): JsonBody<Create>) -> Result<Response, ApiError> {
    let user_id = local_user_id(&doors, &wish.name)?;
    let password = Secret::new(wish.password);
    let created = doors.accounts.create_user(user_id.localpart(), &password, wish.admin).await;
    Ok(answer(&json!({ "user_id": created.map_err(register_refusal)? })))
}

#[derive(Deserialize)]
struct ResetPassword {
    name: String,
    password: String,
    logout_devices: bool,
}

async fn reset_password(
    State(doors): State<Doors>,
    JsonBody(wish): JsonBody<ResetPassword>,
) -> Result<Response, ApiError> {
    let user_id = local_user_id(&doors, &wish.name)?;
    let password = Secret::new(wish.password);
    doors.accounts.reset_password(&user_id, &password, wish.logout_devices).await.map_err(admin_refusal)?;
    Ok(answer(&json!({ "user_id": user_id })))
}

#[derive(Deserialize)]
struct Deactivate {
    name: String,
}

async fn deactivate(State(doors): State<Doors>, JsonBody(wish): JsonBody<Deactivate>) -> Result<Response, ApiError> {
    let user_id = local_user_id(&doors, &wish.name)?;
    doors.accounts.deactivate_user(&user_id, false).await.map_err(admin_refusal)?;
    Ok(answer(&json!({ "user_id": user_id })))
}

#[derive(Deserialize)]
struct Set {
    name: String,
    admin: Option<bool>,
    locked: Option<bool>,
    suspended: Option<bool>,
}

async fn set(State(doors): State<Doors>, JsonBody(wish): JsonBody<Set>) -> Result<Response, ApiError> {
    let user_id = local_user_id(&doors, &wish.name)?;
    if let Some(admin) = wish.admin {
        doors.accounts.set_admin(&user_id, admin).await.map_err(admin_refusal)?;
    }
    if let Some(locked) = wish.locked {
        doors.accounts.set_locked(&user_id, locked).await.map_err(admin_refusal)?;
    }
    if let Some(suspended) = wish.suspended {
        doors.accounts.set_suspended(&user_id, suspended).await.map_err(admin_refusal)?;
    }
    Ok(answer(&json!({ "user_id": user_id })))
}

async fn list(State(doors): State<Doors>) -> Result<Response, ApiError> {
    let mut users = Vec::new();
    let mut after = String::new();
    loop {
        let page = doors.accounts.list_accounts(&after, "", PAGE).await.map_err(store_refusal)?;
        let is_last = page.len() < PAGE;
        if let Some(last) = page.last() {
            after.clone_from(&last.account.localpart);
        }
        users.extend(page.into_iter().map(|listed| {
            json!({
                "user_id": listed.user_id,
                "admin": listed.account.admin,
                "guest": listed.account.kind == UserKind::Guest,
                "locked": listed.account.state.locked,
                "suspended": listed.account.state.suspended,
                "deactivated": listed.account.state.deactivated,
            })
        }));
        if is_last {
            return Ok(answer(&json!({ "users": users })));
        }
    }
}

async fn reports(State(doors): State<Doors>) -> Result<Response, ApiError> {
    let reports = doors.users.reports(REPORTS).await.map_err(store_refusal)?;
    let reports: Vec<Value> = reports
        .into_iter()
        .map(|(reporter, report)| {
            let Report { ts, subject, event_id, reason, .. } = report;
            json!({ "ts": ts, "reporter": reporter, "subject": subject, "event_id": event_id, "reason": reason })
        })
        .collect();
    Ok(answer(&json!({ "reports": reports })))
}

fn answer(body: &Value) -> Response {
    json_response(StatusCode::OK, body)
}

/// `alice`, `@alice` or `@alice:example.org`, if that is our server.
fn local_user_id(doors: &Doors, name: &str) -> Result<OwnedUserId, ApiError> {
    let server_name = &doors.options.server_name;
    let refuse = |reason: String| ApiError::bad_request("M_INVALID_USERNAME", reason);
    let localpart = match name.strip_prefix('@').unwrap_or(name).split_once(':') {
        None => name.strip_prefix('@').unwrap_or(name),
        Some((localpart, server)) if server == server_name => localpart,
        Some(_) => return Err(refuse(format!("{name} is not a user of {server_name}"))),
    };
    UserId::parse(format!("@{localpart}:{server_name}")).map_err(|error| refuse(format!("{name}: {error}")))
}

// The error table of this door: its clients are people at a terminal, who read the domain's own sentences.

fn register_refusal(error: RegisterError) -> ApiError {
    match error {
        RegisterError::Store(cause) => store_refusal(cause),
        refusal => ApiError::bad_request("M_UNKNOWN", refusal.to_string()),
    }
}

fn admin_refusal(error: AdminError) -> ApiError {
    match error {
        AdminError::Store(cause) => store_refusal(cause),
        refusal => ApiError::bad_request("M_UNKNOWN", refusal.to_string()),
    }
}

fn refuse(reason: String) -> ApiError {
    ApiError::bad_request("M_UNKNOWN", reason)
}

fn store_refusal(cause: StoreError) -> ApiError {
    ApiError::internal(cause)
}
