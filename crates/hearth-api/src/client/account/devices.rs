//! A user's devices.
//!
//! Spec: client-server API, "Device Management".

use axum::extract::State;
use hearth_matrix::ruma::api::client::device::{Device, get_device, get_devices, update_device};
use hearth_matrix::ruma::{MilliSecondsSinceUnixEpoch, UInt};
use http::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use super::interactive::Interactive;
use crate::extract::PathOf;
use crate::route::{Route, route};
use crate::{ApiError, Doors, JsonBody, Matrix, Sender};

pub(super) fn routes() -> Vec<Route> {
    vec![
        route(devices),
        route(device),
        route(update),
        Route::at(Method::DELETE, "/_matrix/client/v3/devices/{device_id}", delete),
        Route::at(Method::POST, "/_matrix/client/v3/delete_devices", delete_several),
    ]
}

/// `GET /_matrix/client/v3/devices`
async fn devices(
    State(doors): State<Doors>,
    sender: Sender,
    _: Matrix<get_devices::v3::Request>,
) -> Result<Matrix<get_devices::v3::Response>, ApiError> {
    let devices = doors.accounts.devices(sender.user).await.map_err(ApiError::internal)?;
    Ok(Matrix(get_devices::v3::Response::new(devices.into_iter().map(shown).collect())))
}

/// `GET /_matrix/client/v3/devices/{deviceId}`
async fn device(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<get_device::v3::Request>,
) -> Result<Matrix<get_device::v3::Response>, ApiError> {
    let device = doors.accounts.device(sender.user, request.device_id.as_str()).await?;
    Ok(Matrix(get_device::v3::Response::new(shown(device))))
}

/// `PUT /_matrix/client/v3/devices/{deviceId}`
async fn update(
    State(doors): State<Doors>,
    sender: Sender,
    Matrix(request): Matrix<update_device::v3::Request>,
) -> Result<Matrix<update_device::v3::Response>, ApiError> {
    doors.accounts.rename_device(sender.user, request.device_id.as_str(), request.display_name).await?;
    Ok(Matrix(update_device::v3::Response::new()))
}

/// `DELETE /_matrix/client/v3/devices/{deviceId}`
async fn delete(
    State(doors): State<Doors>,
    sender: Sender,
    PathOf(device_id): PathOf<String>,
    request: Interactive,
) -> Result<JsonBody<Value>, ApiError> {
    let attempt = request.attempt(&sender.user_id);
    let counted = request.count_password(&doors, &sender.user_id)?;
    counted.settle(doors.accounts.delete_devices(&attempt, &sender.session(), vec![device_id]).await)?;
    Ok(JsonBody(json!({})))
}

#[derive(Deserialize)]
struct DeleteSeveral {
    devices: Vec<String>,
}

/// `POST /_matrix/client/v3/delete_devices`
async fn delete_several(
    State(doors): State<Doors>,
    sender: Sender,
    request: Interactive,
) -> Result<JsonBody<Value>, ApiError> {
    let body: DeleteSeveral = request.body()?;
    let attempt = request.attempt(&sender.user_id);
    let counted = request.count_password(&doors, &sender.user_id)?;
    counted.settle(doors.accounts.delete_devices(&attempt, &sender.session(), body.devices).await)?;
    Ok(JsonBody(json!({})))
}

fn shown(device: hearth_store::Device) -> Device {
    let mut shown = Device::new(device.device_id.into());
    shown.display_name = device.display_name;
    if let Some((address, at_ms)) = device.last_seen {
        shown.last_seen_ip = Some(address);
        shown.last_seen_ts = UInt::try_from(at_ms).ok().map(MilliSecondsSinceUnixEpoch);
    }
    shown
}
