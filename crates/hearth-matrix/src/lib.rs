//! The Matrix specification as values and pure functions.
//!
//! Event formats per room version, canonical JSON, hashes, signatures, redaction, auth rules,
//! state resolution, visibility and push rules. No I/O and no clock; the only randomness is
//! [`SigningKey::generate`]. Whoever calls has fetched what the rules need.
//!
//! ruma is reached through here only.

pub use ruma;

pub mod auth;
pub mod canonical;
pub mod client_format;
mod current_key;
mod draft;
pub mod hash;
mod key;
mod membership;
mod pdu;
pub mod policy_server;
pub mod power_levels;
pub mod push;
pub mod redact;
pub mod resolution;
pub mod signatures;
mod template;
#[cfg(test)]
mod testing;
mod version;
pub mod visibility;

pub use self::{
    current_key::CurrentKey,
    draft::{Draft, DraftError, Place, SealError, V1Place, seal},
    key::{KeyError, SigningKey},
    membership::Membership,
    pdu::{MAX_ID_BYTES, MAX_PDU_BYTES, Pdu, PduError},
    power_levels::{Level, PowerLevels},
    template::{Completion, complete, member_template, template_of},
    version::{DEFAULT_VERSION, RoomVersionRules, SUPPORTED_VERSIONS, rules},
};
