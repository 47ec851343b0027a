//! Requests of other servers, with the server that has signed them.
//!
//! Spec: server-server API, "Request Authentication".

use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use hearth_matrix::ruma::OwnedServerName;
use hearth_matrix::ruma::api::IncomingRequest;
use hearth_remote::{AuthenticateError, Inbound};
use http::StatusCode;

use super::{body, matrix};
use crate::threshold::Record;
use crate::{ApiError, Doors};

/// When an address from which too many unknown servers come may come again.
const RETRY_AFTER_MS: u64 = 10_000;

/// A decoded request and its sender. As the last argument of a handler: the signature covers the body.
#[derive(Clone, Debug)]
pub(crate) struct Signed<T> {
    /// The server that sends.
    pub(crate) origin: OwnedServerName,
    /// What it asks.
    pub(crate) request: T,
}

impl<T: IncomingRequest> FromRequest<Doors> for Signed<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, doors: &Doors) -> Result<Self, ApiError> {
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, &())
            .await
            .map_err(|_| ApiError::invalid_param("The path is not UTF-8"))?;
        // Who says nothing of himself that can be believed is not heard out.
        let claim = doors.remote.claim(&parts.headers).map_err(refuse)?;
        let address = Record::of(&parts.extensions).map(|record| record.client);
        if let Some(address) = address.filter(|_| !doors.remote.can_prove(&claim)) {
            doors.limits.key_lookup(address)?;
        }
        let body = body::read(&parts.headers, &parts.extensions, body).await?;
        let inbound = Inbound {
            method: parts.method.as_str(),
            uri: parts.uri.path_and_query().map_or("/", |uri| uri.as_str()),
            headers: &parts.headers,
            body: &body,
            address,
        };
        let origin = doors.remote.authenticate(inbound).await.map_err(refuse)?;
        if let Some(address) = address {
            doors.bodies.proved(address);
        }
        if body::is_list(&body) {
            return Err(body::refuse_list(&body));
        }
        body::check_elements(&body)?;
        let matrix::Matrix(request) = matrix::decode(http::Request::from_parts(parts, &*body), &path)?;
        Ok(Self { origin, request })
    }
}

fn refuse(error: AuthenticateError) -> ApiError {
    match error {
        AuthenticateError::Store(cause) => ApiError::internal(cause),
        AuthenticateError::Forbidden(_) => ApiError::forbidden(error.to_string()),
        AuthenticateError::TooMany => ApiError::limit_exceeded(RETRY_AFTER_MS),
        AuthenticateError::NotJson => ApiError::not_json("The body is not JSON"),
        AuthenticateError::Header(_)
        | AuthenticateError::OtherDestination
        | AuthenticateError::NoKey(_)
        | AuthenticateError::WrongSignature => {
            ApiError::new(StatusCode::UNAUTHORIZED, "M_UNAUTHORIZED", error.to_string())
        }
    }
}
