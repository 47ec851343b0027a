//! Signing keys: our own, and those of others for which we vouch.
//!
//! Spec: server-server API, "Retrieving server keys".

use std::collections::BTreeMap;
use std::net::IpAddr;

use axum::extract::State;
use axum::response::Response;
use hearth_matrix::ruma::api::federation::discovery::{get_remote_server_keys, get_remote_server_keys_batch};
use hearth_matrix::ruma::{MilliSecondsSinceUnixEpoch, OwnedServerName};
use http::Method;

use super::json_text;
use crate::route::{Route, route};
use crate::{ApiError, ClientAddress, Doors, Matrix};

/// Largest question about keys: thousands of servers.
const QUERY_SIZE_BYTES: usize = 1024 * 1024;

pub(super) fn routes() -> Vec<Route> {
    vec![
        Route::at(Method::GET, "/_matrix/key/v2/server", own_keys).and_at("/_matrix/key/v2/server/{keyId}"),
        route(keys_of),
        route(keys_of_many).body_size_bytes(QUERY_SIZE_BYTES),
    ]
}

/// `GET /_matrix/key/v2/server`, and as old servers ask, with the id of a key, which changes nothing.
async fn own_keys(State(doors): State<Doors>) -> Result<Response, ApiError> {
    Ok(json_text(doors.remote.own_keys().map_err(ApiError::internal)?))
}

/// `GET /_matrix/key/v2/query/{serverName}`
async fn keys_of(
    State(doors): State<Doors>,
    ClientAddress(address): ClientAddress,
    Matrix(request): Matrix<get_remote_server_keys::v2::Request>,
) -> Result<Response, ApiError> {
    let until = request.minimum_valid_until_ts;
    vouch(&doors, address, BTreeMap::from([(request.server_name, milliseconds(until))])).await
}

/// `POST /_matrix/key/v2/query`
async fn keys_of_many(
    State(doors): State<Doors>,
    ClientAddress(address): ClientAddress,
    Matrix(request): Matrix<get_remote_server_keys_batch::v2::Request>,
) -> Result<Response, ApiError> {
    let latest = |keys: BTreeMap<_, get_remote_server_keys_batch::v2::QueryCriteria>| {
        let times = keys.into_values().filter_map(|criteria| criteria.minimum_valid_until_ts);
        times.map(milliseconds).max().unwrap_or(0)
    };
    vouch(&doors, address, request.server_keys.into_iter().map(|(server, keys)| (server, latest(keys))).collect()).await
}

/// Who has asked for too much is still told what is known, unless that is much, too.
async fn vouch(doors: &Doors, address: IpAddr, wanted: BTreeMap<OwnedServerName, i64>) -> Result<Response, ApiError> {
    doors.limits.key_query(address, wanted.len())?;
    let mut refusal = None;
    let may_ask = || doors.limits.key_lookup(address).map_err(|refused| refusal = Some(refused)).is_ok();
    let documents = doors.remote.vouch(wanted, may_ask).await.map_err(ApiError::internal)?;
    if let Some(refusal) = refusal.filter(|_| documents.is_empty()) {
        return Err(refusal);
    }
    Ok(json_text(format!("{{\"server_keys\":[{}]}}", documents.join(","))))
}

fn milliseconds(ts: MilliSecondsSinceUnixEpoch) -> i64 {
    i64::try_from(u64::from(ts.get())).unwrap_or(i64::MAX)
}
