//! Changing one's password, and ending one's account.
//!
//! Spec: client-server API, "Account management".

use axum::extract::State;
use hearth_account::Secret;
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::interactive::Interactive;
use crate::route::Route;
use crate::{ApiError, Doors, JsonBody, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::POST, "/_matrix/client/v3/account/password", change_password),
        Route::at(Method::POST, "/_matrix/client/v3/account/deactivate", deactivate),
        Route::at(Method::GET, "/_matrix/client/v3/account/3pid", third_party_ids),
    ]
}

#[derive(Deserialize)]
struct ChangePassword {
    new_password: Option<String>,
    #[serde(default = "yes")]
    logout_devices: bool,
}

fn yes() -> bool {
    true
}

/// `POST /_matrix/client/v3/account/password`
async fn change_password(
    State(doors): State<Doors>,
    sender: Sender,
    request: Interactive,
) -> Result<JsonBody<Value>, ApiError> {
    let body: ChangePassword = request.body()?;
    let attempt = request.attempt(&sender.user_id);
    let new_password = body.new_password.map(Secret::new);
    let counted = request.count_password(&doors, &sender.user_id)?;
    counted
        .settle(doors.accounts.change_password(&attempt, &sender.session(), new_password, body.logout_devices).await)?;
    Ok(JsonBody(json!({})))
}

#[derive(Deserialize)]
struct Deactivate {
    #[serde(default)]
    erase: bool,
}

/// `POST /_matrix/client/v3/account/deactivate`
async fn deactivate(
    State(doors): State<Doors>,
    sender: Sender,
    request: Interactive,
) -> Result<JsonBody<Value>, ApiError> {
    let body: Deactivate = request.body()?;
    let attempt = request.attempt(&sender.user_id);
    let counted = request.count_password(&doors, &sender.user_id)?;
    counted.settle(doors.accounts.deactivate(&attempt, &sender.session(), body.erase).await)?;
    // There was nothing to unbind.
    Ok(JsonBody(json!({ "id_server_unbind_result": "success" })))
}

/// `GET /_matrix/client/v3/account/3pid`: accounts have no addresses.
async fn third_party_ids(_: Sender) -> JsonBody<Value> {
    JsonBody(json!({ "threepids": [] }))
}
