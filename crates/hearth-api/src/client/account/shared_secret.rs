//! Registration by whoever knows the shared secret, at the path and in the form that Synapse documents.

use axum::extract::State;
use hearth_account::{Secret, SharedSecretRegistration};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::route::{Resource, Route};
use crate::{ApiError, Doors, JsonBody};

const PATH: &str = "/_synapse/admin/v1/register";

pub(super) fn routes() -> Vec<Route> {
    // The secret is the lock; scripts reach it where clients do.
    vec![
        Route::at(Method::GET, PATH, nonce).on(Resource::Client),
        Route::at(Method::POST, PATH, register).on(Resource::Client),
    ]
}

/// `GET /_synapse/admin/v1/register`
async fn nonce(State(doors): State<Doors>) -> Result<JsonBody<Value>, ApiError> {
    let nonce = doors.accounts.shared_secret_nonce().await?;
    Ok(JsonBody(json!({ "nonce": nonce })))
}

#[derive(Deserialize)]
struct Body {
    nonce: String,
    username: String,
    displayname: Option<String>,
    password: String,
    #[serde(default)]
    admin: bool,
    user_type: Option<String>,
    mac: String,
}

/// `POST /_synapse/admin/v1/register`
async fn register(State(doors): State<Doors>, JsonBody(body): JsonBody<Body>) -> Result<JsonBody<Value>, ApiError> {
    let session = doors
        .accounts
        .register_with_shared_secret(SharedSecretRegistration {
            nonce: body.nonce,
            username: body.username,
            displayname: body.displayname,
            password: Secret::new(body.password),
            admin: body.admin,
            user_type: body.user_type,
            mac: body.mac,
        })
        .await?;
    Ok(JsonBody(json!({
        "access_token": session.access_token.reveal(),
        "user_id": session.user_id,
        "home_server": doors.options.server_name,
        "device_id": session.device_id,
    })))
}
