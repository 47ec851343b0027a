//! The client's address, as far as we can know it.

use std::net::{IpAddr, Ipv4Addr};

use axum::extract::FromRequestParts;
use http::request::Parts;

use crate::ApiError;
use crate::threshold::Record;

/// The client's address: that of the connection, or what a trusted proxy says. Over a unix socket that names none, it is
/// the loopback address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientAddress(pub IpAddr);

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Ok(Self(Record::of(&parts.extensions).map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |record| record.client)))
    }
}
