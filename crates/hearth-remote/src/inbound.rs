//! Who sends a request to us: the signature checked against the sender's keys.
//!
//! Spec: server-server API, "Request Authentication".

use hearth_matrix::ruma::OwnedServerName;
use hearth_store::StoreError;
use http::HeaderMap;

use crate::{Remote, XMatrix, XMatrixError};

/// A request as it came.
#[derive(Clone, Copy, Debug)]
pub struct Inbound<'a> {
    /// Its method.
    pub method: &'a str,
    /// Its path and query, as sent.
    pub uri: &'a str,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Its body.
    pub body: &'a [u8],
}

/// Why it is not known who sends.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// The headers don't say.
    #[error(transparent)]
    Header(#[from] XMatrixError),
    /// It is for another server.
    #[error("the request is for another server")]
    OtherDestination,
    /// The settings forbid to talk with the sender.
    #[error("this server does not talk with {0}")]
    Forbidden(OwnedServerName),
    /// The sender's key is not to be had.
    #[error("no key of {0} to check the signature with")]
    NoKey(OwnedServerName),
    /// The signature is not the sender's.
    #[error("the signature is wrong")]
    WrongSignature,
    /// The body is no JSON, which alone can be signed.
    #[error("the body is not JSON")]
    NotJson,
    /// Our own database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Remote {
    /// Finds out which server sends a request.
    pub async fn authenticate(&self, request: Inbound<'_>) -> Result<OwnedServerName, AuthenticateError> {
        let signatures = XMatrix::from_headers(request.headers)?;
        let first = signatures.first().ok_or(XMatrixError::Missing)?;
        if first.destination.as_deref().is_some_and(|destination| destination != self.server_name()) {
            return Err(AuthenticateError::OtherDestination);
        }
        let origin = first.origin.clone();
        if !self.may_talk_with(&origin) || origin == self.server_name() {
            return Err(AuthenticateError::Forbidden(origin));
        }
        let message = first
            .message(self.server_name(), request.method, request.uri, request.body)
            .map_err(|_| AuthenticateError::NotJson)?;
        let key_ids: Vec<&str> = signatures.iter().map(|signature| signature.key_id.as_str()).collect();
        let now = self.0.time.now_ms();
        let keys = self.keys().find_now(&origin, &key_ids).await?;
        let mut verdict = AuthenticateError::NoKey(origin.clone());
        for signature in &signatures {
            match keys.get(&origin, &signature.key_id, Some(now)) {
                Some(key) if signature.is_by(&key, &message) => {
                    self.is_alive(&origin).await?;
                    return Ok(origin);
                }
                Some(_) => verdict = AuthenticateError::WrongSignature,
                None => {}
            }
        }
        Err(verdict)
    }
}
