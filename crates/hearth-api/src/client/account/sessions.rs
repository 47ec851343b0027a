//! Sessions that go on, or end.
//!
//! Spec: client-server API, "Refreshing access tokens", "Logout", "Current account information".

use std::time::Duration;

use axum::extract::State;
use hearth_account::Secret;
use hearth_matrix::ruma::api::client::account::whoami;
use hearth_matrix::ruma::api::client::session::{logout, logout_all, refresh_token};
use serde_json::{Value, json};

use crate::extract::EvenLocked;
use crate::route::{Route, route};
use crate::{ApiError, Doors, JsonBody, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![route(refresh), route(logout), route(logout_all), route(whoami)]
}

/// `POST /_matrix/client/v3/refresh`
async fn refresh(
    State(doors): State<Doors>,
    Matrix(request): Matrix<refresh_token::v3::Request>,
) -> Result<Matrix<refresh_token::v3::Response>, ApiError> {
    let refreshed = doors.accounts.refresh(&request.refresh_token).await?;
    let mut response = refresh_token::v3::Response::new(refreshed.access_token.into_inner());
    response.refresh_token = refreshed.refresh_token.map(Secret::into_inner);
    response.expires_in_ms = refreshed.expires_in_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    Ok(Matrix(response))
}

/// `POST /_matrix/client/v3/logout`
async fn logout(
    State(doors): State<Doors>,
    EvenLocked(sender): EvenLocked,
    _: Matrix<logout::v3::Request>,
) -> Result<Matrix<logout::v3::Response>, ApiError> {
    if let Some(device) = sender.device {
        doors.accounts.logout(sender.user, device).await.map_err(ApiError::internal)?;
    }
    Ok(Matrix(logout::v3::Response::new()))
}

/// `POST /_matrix/client/v3/logout/all`
async fn logout_all(
    State(doors): State<Doors>,
    EvenLocked(sender): EvenLocked,
    _: Matrix<logout_all::v3::Request>,
) -> Result<Matrix<logout_all::v3::Response>, ApiError> {
    doors.accounts.logout_all(sender.user).await.map_err(ApiError::internal)?;
    Ok(Matrix(logout_all::v3::Response::new()))
}

/// `GET /_matrix/client/v3/account/whoami`
async fn whoami(sender: Sender, _: Matrix<whoami::v3::Request>) -> JsonBody<Value> {
    let mut answer = json!({ "user_id": sender.user_id, "is_guest": sender.is_guest });
    if let Some(device_id) = sender.device_id {
        answer["device_id"] = json!(device_id);
    }
    JsonBody(answer)
}
