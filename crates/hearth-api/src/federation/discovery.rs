//! What a server asks first: where to find us, and what we are.
//!
//! Spec: server-server API, "Server discovery".

use axum::extract::State;
use hearth_matrix::ruma::api::federation::discovery::{discover_homeserver, get_server_version};

use crate::route::{Route, route};
use crate::{ApiError, Doors, Matrix};

pub(super) fn routes() -> Vec<Route> {
    vec![route(version), route(well_known_server)]
}

/// `GET /_matrix/federation/v1/version`
async fn version(_: Matrix<get_server_version::v1::Request>) -> Matrix<get_server_version::v1::Response> {
    let mut server = get_server_version::v1::Server::new();
    server.name = Some("Hearth".to_owned());
    server.version = Some(env!("CARGO_PKG_VERSION").to_owned());
    let mut response = get_server_version::v1::Response::new();
    response.server = Some(server);
    Matrix(response)
}

/// `GET /.well-known/matrix/server`
async fn well_known_server(
    State(doors): State<Doors>,
    _: Matrix<discover_homeserver::Request>,
) -> Result<Matrix<discover_homeserver::Response>, ApiError> {
    let address = doors.options.federation_address.clone();
    let address = address.ok_or_else(|| ApiError::not_found("This server is where its name says"))?;
    Ok(Matrix(discover_homeserver::Response::new(address)))
}
