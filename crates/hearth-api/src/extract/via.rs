//! Servers through which a room may be reached: `via` in the query, and its old name `server_name`.
//!
//! Spec: client-server API, "Joining rooms".

use axum::extract::FromRequestParts;
use hearth_matrix::ruma::OwnedServerName;
use http::request::Parts;

use crate::ApiError;

/// Names taken from one query.
const MOST: usize = 50;

/// The servers, as the query has them, each once.
#[derive(Clone, Debug)]
pub(crate) struct Via(pub(crate) Vec<OwnedServerName>);

impl<S: Sync> FromRequestParts<S> for Via {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut servers = Vec::new();
        for (key, value) in form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()) {
            if !matches!(&*key, "via" | "server_name") || servers.len() >= MOST {
                continue;
            }
            let server = OwnedServerName::try_from(&*value)
                .map_err(|error| ApiError::invalid_param(format!("{value:?} is no server name: {error}")))?;
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        Ok(Self(servers))
    }
}
