//! The signing key at the local door: another one takes its place.
//!
//! Spec: server-server API, "Retrieving server keys".

use axum::Router;
use axum::extract::State;
use axum::response::Response;
use axum::routing::post;
use serde_json::json;
use tokio::sync::Mutex;

use super::{answer, refuse, store_refusal};
use crate::{ApiError, Doors};

pub(super) fn router() -> Router<Doors> {
    Router::new().route("/keys/rotate", post(rotate))
}

async fn rotate(State(doors): State<Doors>) -> Result<Response, ApiError> {
    // One at a time, or the file and what signs could end up as different keys.
    static TURN: Mutex<()> = Mutex::const_new(());
    let _turn = TURN.lock().await;
    let make = doors.new_signing_key.clone();
    let key = tokio::task::spawn_blocking(move || make()).await.map_err(ApiError::internal)?.map_err(refuse)?;
    let key_id = key.key_id().to_owned();
    doors.remote.sign_with(key).await.map_err(store_refusal)?;
    Ok(answer(&json!({ "key_id": key_id })))
}
