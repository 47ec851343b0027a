//! What a client asks first: `/versions` and `.well-known`.
//!
//! Spec: client-server API, "Server Discovery" and "API Versions". Only what tests show to work is advertised.

use axum::extract::State;
use hearth_matrix::ruma::api::client::discovery::discover_homeserver::{self, HomeserverInfo};
use hearth_matrix::ruma::api::client::discovery::get_supported_versions;

use crate::route::{Route, route};
use crate::{ApiError, Doors, Matrix};

/// The versions of the specification whose client API we speak. They are said to be compatible upwards, and clients look for
/// the first that has what they need.
const VERSIONS: [&str; 18] = [
    "r0.0.1", "r0.1.0", "r0.2.0", "r0.3.0", "r0.4.0", "r0.5.0", "r0.6.0", "r0.6.1", "v1.1", "v1.2", "v1.3", "v1.4",
    "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10",
];

pub(crate) fn routes() -> Vec<Route> {
    vec![route(versions), route(well_known_client)]
}

/// `GET /_matrix/client/versions`
async fn versions(_: Matrix<get_supported_versions::Request>) -> Matrix<get_supported_versions::Response> {
    Matrix(get_supported_versions::Response::new(VERSIONS.map(str::to_owned).to_vec()))
}

/// `GET /.well-known/matrix/client`
async fn well_known_client(
    State(doors): State<Doors>,
    _: Matrix<discover_homeserver::Request>,
) -> Result<Matrix<discover_homeserver::Response>, ApiError> {
    let base_url = doors.options.public_url.clone().ok_or_else(|| ApiError::not_found("No public URL is known"))?;
    Ok(Matrix(discover_homeserver::Response::new(HomeserverInfo::new(base_url))))
}
