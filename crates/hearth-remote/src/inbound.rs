//! Who sends a request to us: the signature checked against the sender's keys.
//!
//! Spec: server-server API, "Request Authentication".

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use hearth_matrix::ruma::OwnedServerName;
use hearth_store::StoreError;
use http::HeaderMap;

use crate::{Remote, WantedKey, XMatrix, XMatrixError};

/// Requests of unknown servers from one address at once.
const STRANGERS: usize = 64;

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
    /// Where it comes from, if that is known.
    pub address: Option<IpAddr>,
}

/// What a request says of who sends it, before that is proved.
#[derive(Clone, Debug)]
pub struct Claim {
    /// Who.
    pub origin: OwnedServerName,
    signatures: Vec<XMatrix>,
}

/// Requests of servers whose key is not in memory, by the addresses from which they come: finding keys costs, and whoever makes
/// names up must not take that from others.
#[derive(Default)]
pub(crate) struct Strangers(Mutex<HashMap<IpAddr, usize>>);

struct Stranger<'a> {
    all: &'a Strangers,
    address: IpAddr,
}

impl Strangers {
    fn enter(&self, address: IpAddr) -> Option<Stranger<'_>> {
        let address = match address {
            // Whoever has one of these has all that begin alike.
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !u128::from(u64::MAX))),
            address => address,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present = all.entry(address).or_insert(0);
        if *present >= STRANGERS {
            return None;
        }
        *present += 1;
        Some(Stranger { all: self, address })
    }
}

impl Drop for Stranger<'_> {
    fn drop(&mut self) {
        let mut all = self.all.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(present) = all.get_mut(&self.address) {
            *present -= 1;
            if *present == 0 {
                all.remove(&self.address);
            }
        }
    }
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
    /// Too many servers that are not known come from the same address.
    #[error("too many unknown servers at this address")]
    TooMany,
    /// The body is no JSON, which alone can be signed.
    #[error("the body is not JSON")]
    NotJson,
    /// Our own database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Remote {
    /// What a request says of who sends it, if that can be true.
    pub fn claim(&self, headers: &HeaderMap) -> Result<Claim, AuthenticateError> {
        let signatures = XMatrix::from_headers(headers)?;
        let first = signatures.first().ok_or(XMatrixError::Missing)?;
        if first.destination.as_deref().is_some_and(|destination| destination != self.server_name()) {
            return Err(AuthenticateError::OtherDestination);
        }
        let origin = first.origin.clone();
        if !self.may_talk_with(&origin) || origin == self.server_name() {
            return Err(AuthenticateError::Forbidden(origin));
        }
        Ok(Claim { origin, signatures })
    }

    /// Whether all that a claim can be proved with is in memory, so that nobody is asked for it.
    pub fn can_prove(&self, claim: &Claim) -> bool {
        let now = self.0.time.now_ms();
        claim.signatures.iter().all(|signature| {
            let wanted = WantedKey { server: claim.origin.clone(), key_id: signature.key_id.clone(), at: Some(now) };
            self.keys().at_hand(&wanted).is_some()
        })
    }

    /// Finds out which server sends a request.
    pub async fn authenticate(&self, request: Inbound<'_>) -> Result<OwnedServerName, AuthenticateError> {
        let claim = self.claim(request.headers)?;
        let is_at_hand = self.can_prove(&claim);
        let Claim { origin, signatures } = claim;
        let first = signatures.first().ok_or(XMatrixError::Missing)?;
        let message = first
            .message(self.server_name(), request.method, request.uri, request.body)
            .map_err(|_| AuthenticateError::NotJson)?;
        let key_ids: Vec<&str> = signatures.iter().map(|signature| signature.key_id.as_str()).collect();
        let now = self.0.time.now_ms();
        let _place = match request.address {
            Some(address) if !is_at_hand => Some(self.0.strangers.enter(address).ok_or(AuthenticateError::TooMany)?),
            _ => None,
        };
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
