//! What administrators do to accounts: lock, suspend, look who they are.
//!
//! Spec: client-server API, "Server Administration", "Account moderation". Whether the asker may is decided before anything is
//! looked up, so that nobody learns here who exists.

use axum::extract::State;
use hearth_account::AdminError;
use hearth_matrix::ruma::{OwnedUserId, UserId};
use hearth_store::LockState;
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::extract::{Administrator, PathOf};
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

pub(crate) fn routes() -> Vec<Route> {
    let suspend = "/_matrix/client/v1/admin/suspend/{user_id}";
    let lock = "/_matrix/client/v1/admin/lock/{user_id}";
    vec![
        Route::at(Method::GET, suspend, is_suspended),
        Route::at(Method::PUT, suspend, set_suspended),
        Route::at(Method::GET, lock, is_locked),
        Route::at(Method::PUT, lock, set_locked),
        Route::at(Method::GET, "/_matrix/client/v3/admin/whois/{user_id}", whois),
    ]
}

/// `GET /_matrix/client/v1/admin/suspend/{userId}`
async fn is_suspended(
    State(doors): State<Doors>,
    Administrator(admin): Administrator,
    PathOf(user_id): PathOf<String>,
) -> Result<JsonBody<Value>, ApiError> {
    let (_, state) = target(&doors, &admin, &user_id).await?;
    Ok(JsonBody(json!({ "suspended": state.suspended })))
}

#[derive(Deserialize)]
struct Suspend {
    suspended: bool,
}

/// `PUT /_matrix/client/v1/admin/suspend/{userId}`
async fn set_suspended(
    State(doors): State<Doors>,
    Administrator(admin): Administrator,
    PathOf(user_id): PathOf<String>,
    JsonBody(Suspend { suspended }): JsonBody<Suspend>,
) -> Result<JsonBody<Value>, ApiError> {
    let user_id = other_target(&doors, &admin, &user_id).await?;
    doors.accounts.set_suspended(&user_id, suspended).await?;
    tracing::info!(admin = %admin.user_id, %user_id, suspended, "an account's suspension was set");
    Ok(JsonBody(json!({ "suspended": suspended })))
}

/// `GET /_matrix/client/v1/admin/lock/{userId}`
async fn is_locked(
    State(doors): State<Doors>,
    Administrator(admin): Administrator,
    PathOf(user_id): PathOf<String>,
) -> Result<JsonBody<Value>, ApiError> {
    let (_, state) = target(&doors, &admin, &user_id).await?;
    Ok(JsonBody(json!({ "locked": state.locked })))
}

#[derive(Deserialize)]
struct Lock {
    locked: bool,
}

/// `PUT /_matrix/client/v1/admin/lock/{userId}`
async fn set_locked(
    State(doors): State<Doors>,
    Administrator(admin): Administrator,
    PathOf(user_id): PathOf<String>,
    JsonBody(Lock { locked }): JsonBody<Lock>,
) -> Result<JsonBody<Value>, ApiError> {
    let user_id = other_target(&doors, &admin, &user_id).await?;
    doors.accounts.set_locked(&user_id, locked).await?;
    tracing::info!(admin = %admin.user_id, %user_id, locked, "an account's lock was set");
    Ok(JsonBody(json!({ "locked": locked })))
}

async fn other_target(doors: &Doors, admin: &Sender, user_id: &str) -> Result<OwnedUserId, ApiError> {
    if user_id == admin.user_id {
        return Err(ApiError::forbidden("Administrators may not lock or suspend themselves"));
    }
    Ok(target(doors, admin, user_id).await?.0)
}

/// An account of ours that is not another administrator's.
async fn target(doors: &Doors, admin: &Sender, user_id: &str) -> Result<(OwnedUserId, LockState), ApiError> {
    let user_id = UserId::parse(user_id)
        .map_err(|error| ApiError::invalid_param(format!("The user id is not valid: {error}")))?;
    if user_id.server_name() != doors.options.server_name {
        return Err(ApiError::invalid_param("The user does not belong to this server"));
    }
    let account = doors.accounts.account(&user_id).await.map_err(ApiError::internal)?;
    let account = account.filter(|account| !account.state.deactivated);
    let account = account.ok_or_else(|| ApiError::not_found("Unknown user"))?;
    if account.admin && user_id != admin.user_id {
        return Err(ApiError::forbidden("The user is an administrator, too"));
    }
    Ok((user_id, account.state))
}

/// `GET /_matrix/client/v3/admin/whois/{userId}`: for administrators, and for the user himself.
async fn whois(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(user_id): PathOf<String>,
) -> Result<JsonBody<Value>, ApiError> {
    if !sender.is_admin && user_id != sender.user_id {
        return Err(ApiError::forbidden("Only administrators may look at others"));
    }
    let user_id = UserId::parse(user_id)
        .map_err(|error| ApiError::invalid_param(format!("The user id is not valid: {error}")))?;
    let account = doors.accounts.account(&user_id).await.map_err(ApiError::internal)?;
    let account = account.ok_or_else(|| ApiError::not_found("Unknown user"))?;
    let devices = doors.accounts.devices(account.user).await.map_err(ApiError::internal)?;
    let devices: Map<String, Value> = devices
        .into_iter()
        .map(|device| {
            let seen = device.last_seen.map(|(address, at_ms)| json!({ "ip": address, "last_seen": at_ms }));
            let connections: Vec<Value> = seen.into_iter().collect();
            (device.device_id, json!({ "sessions": [{ "connections": connections }] }))
        })
        .collect();
    Ok(JsonBody(json!({ "user_id": user_id, "devices": devices })))
}

impl From<AdminError> for ApiError {
    fn from(error: AdminError) -> Self {
        match error {
            AdminError::UnknownUser | AdminError::Deactivated => Self::not_found("Unknown user"),
            AdminError::Password(error) => error.into(),
            AdminError::Store(cause) => Self::internal(cause),
        }
    }
}
