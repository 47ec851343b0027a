//! Login.
//!
//! Spec: client-server API, "Login".

use std::time::Duration;

use axum::extract::State;
use hearth_account::{Credentials, Login, LoginError, Secret};
use hearth_matrix::ruma::api::client::session::get_login_types::v3::{LoginType, PasswordLoginType, TokenLoginType};
use hearth_matrix::ruma::api::client::session::{get_login_token, get_login_types, login};
use http::Method;
use serde::Deserialize;

use super::interactive::Interactive;
use crate::route::{Route, route};
use crate::{ApiError, Doors, JsonBody, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        route(login_types),
        Route::at(Method::POST, "/_matrix/client/v3/login", login),
        Route::at(Method::POST, "/_matrix/client/v1/login/get_token", get_token),
    ]
}

/// `GET /_matrix/client/v3/login`
async fn login_types(_: Matrix<get_login_types::v3::Request>) -> Matrix<get_login_types::v3::Response> {
    let mut by_token = TokenLoginType::new();
    by_token.get_login_token = true;
    let flows = vec![LoginType::Password(PasswordLoginType::new()), LoginType::Token(by_token)];
    Matrix(get_login_types::v3::Response::new(flows))
}

#[derive(Deserialize)]
struct Body {
    #[serde(rename = "type")]
    login_type: String,
    identifier: Option<Identifier>,
    /// Deprecated: the user without an identifier around him.
    user: Option<String>,
    password: Option<String>,
    token: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    refresh_token: bool,
}

#[derive(Deserialize)]
struct Identifier {
    #[serde(rename = "type")]
    kind: String,
    user: Option<String>,
}

/// `POST /_matrix/client/v3/login`
#[allow(deprecated, reason = "old clients look for home_server")]
async fn login(
    State(doors): State<Doors>,
    JsonBody(body): JsonBody<Body>,
) -> Result<Matrix<login::v3::Response>, ApiError> {
    let credentials = credentials(&body)?;
    let tried = match &credentials {
        Credentials::Password { user, .. } => Some(doors.limits.try_password(user)?),
        Credentials::Token(_) => None,
    };
    let session = doors
        .accounts
        .login(Login {
            credentials,
            device_id: body.device_id,
            initial_device_display_name: body.initial_device_display_name,
            refresh_token: body.refresh_token,
        })
        .await;
    if let Some(tried) = tried.filter(|_| !matches!(session, Err(LoginError::Forbidden))) {
        tried.was_right();
    }
    let session = session.map_err(|error| ApiError::from(error).explained(&doors.options))?;
    let access_token = session.access_token.into_inner();
    let mut response = login::v3::Response::new(session.user_id, access_token, session.device_id);
    response.home_server = Some(doors.options.server_name.clone());
    response.refresh_token = session.refresh_token.map(Secret::into_inner);
    response.expires_in = session.expires_in_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    if let Some(base_url) = &doors.options.public_url {
        response.well_known = Some(login::v3::DiscoveryInfo::new(login::v3::HomeserverInfo::new(base_url.clone())));
    }
    Ok(Matrix(response))
}

fn credentials(body: &Body) -> Result<Credentials, ApiError> {
    match body.login_type.as_str() {
        "m.login.password" => {
            let password = body.password.clone().ok_or_else(|| ApiError::missing_param("The password is missing"))?;
            Ok(Credentials::Password { user: user(body)?, password: Secret::new(password) })
        }
        "m.login.token" => {
            let token = body.token.clone().ok_or_else(|| ApiError::missing_param("The token is missing"))?;
            Ok(Credentials::Token(Secret::new(token)))
        }
        _ => Err(ApiError::bad_request("M_UNKNOWN", "Unknown login type")),
    }
}

fn user(body: &Body) -> Result<String, ApiError> {
    let missing = || ApiError::missing_param("The user is missing");
    match &body.identifier {
        None => body.user.clone().ok_or_else(missing),
        Some(identifier) => match identifier.kind.as_str() {
            "m.id.user" => identifier.user.clone().ok_or_else(missing),
            // No address is known to belong to anybody.
            "m.id.thirdparty" | "m.id.phone" => Err(ApiError::forbidden("Invalid user name or password")),
            _ => Err(ApiError::bad_request("M_UNKNOWN", "Unknown type of login identifier")),
        },
    }
}

/// `POST /_matrix/client/v1/login/get_token`
async fn get_token(
    State(doors): State<Doors>,
    sender: Sender,
    request: Interactive,
) -> Result<Matrix<get_login_token::v1::Response>, ApiError> {
    let attempt = request.attempt(&sender.user_id);
    let counted = request.count_password(&doors, &sender.user_id)?;
    let made = counted.settle(doors.accounts.create_login_token(&attempt, &sender.session()).await)?;
    let expires_in = Duration::from_millis(made.expires_in_ms.unsigned_abs());
    Ok(Matrix(get_login_token::v1::Response::new(expires_in, made.token.into_inner())))
}
