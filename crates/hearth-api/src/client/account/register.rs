//! Registration.
//!
//! Spec: client-server API, "Account registration".

use axum::extract::State;
use hearth_account::{Registered, Registration, Secret};
use hearth_matrix::ruma::api::client::account::{check_registration_token_validity, get_username_availability};
use http::{Method, Uri};
use serde::Deserialize;
use serde_json::{Value, json};

use super::interactive::Interactive;
use crate::route::{Route, route};
use crate::{ApiError, Doors, JsonBody, Matrix};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::POST, "/_matrix/client/v3/register", register),
        route(available),
        route(registration_token_validity),
    ]
}

#[derive(Deserialize)]
struct Body {
    username: Option<String>,
    password: Option<String>,
    device_id: Option<String>,
    initial_device_display_name: Option<String>,
    #[serde(default)]
    inhibit_login: bool,
    #[serde(default)]
    refresh_token: bool,
    guest_access_token: Option<String>,
    #[serde(rename = "type")]
    login_type: Option<String>,
}

/// `POST /_matrix/client/v3/register`
async fn register(State(doors): State<Doors>, uri: Uri, request: Interactive) -> Result<JsonBody<Value>, ApiError> {
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    let kind = query.find_map(|(key, value)| (key == "kind").then(|| value.into_owned()));
    let body: Body = request.body()?;
    if body.login_type.as_deref() == Some("m.login.application_service") {
        // None is known yet.
        return Err(ApiError::unknown_token(false));
    }
    let registered = match kind.as_deref() {
        Some("guest") => doors.accounts.register_guest(body.initial_device_display_name).await?,
        None | Some("user") => {
            let wish = Registration {
                username: body.username,
                password: body.password.filter(|password| !password.is_empty()).map(Secret::new),
                device_id: body.device_id,
                initial_device_display_name: body.initial_device_display_name,
                inhibit_login: body.inhibit_login,
                refresh_token: body.refresh_token,
                guest_access_token: body.guest_access_token.map(Secret::new),
            };
            doors.accounts.register(&request.loose_attempt(), wish).await?
        }
        Some(_) => return Err(ApiError::invalid_param("kind is neither user nor guest")),
    };
    Ok(JsonBody(answer(registered)))
}

fn answer(registered: Registered) -> Value {
    let mut answer = json!({ "user_id": registered.user_id });
    if let Some(session) = registered.session {
        answer["access_token"] = session.access_token.into_inner().into();
        answer["device_id"] = json!(session.device_id);
        if let Some(refresh_token) = session.refresh_token {
            answer["refresh_token"] = refresh_token.into_inner().into();
        }
        if let Some(expires_in_ms) = session.expires_in_ms {
            answer["expires_in_ms"] = expires_in_ms.into();
        }
    }
    answer
}

/// `GET /_matrix/client/v3/register/available`
async fn available(
    State(doors): State<Doors>,
    Matrix(request): Matrix<get_username_availability::v3::Request>,
) -> Result<Matrix<get_username_availability::v3::Response>, ApiError> {
    doors.accounts.is_username_available(&request.username).await?;
    Ok(Matrix(get_username_availability::v3::Response::new(true)))
}

/// `GET /_matrix/client/v1/register/m.login.registration_token/validity`
async fn registration_token_validity(
    State(doors): State<Doors>,
    Matrix(request): Matrix<check_registration_token_validity::v1::Request>,
) -> Result<Matrix<check_registration_token_validity::v1::Response>, ApiError> {
    if !doors.accounts.config().registration.enabled {
        return Err(ApiError::forbidden("Registration has been disabled"));
    }
    let valid = doors.accounts.is_registration_token_valid(&request.token).await.map_err(ApiError::internal)?;
    Ok(Matrix(check_registration_token_validity::v1::Response::new(valid)))
}
