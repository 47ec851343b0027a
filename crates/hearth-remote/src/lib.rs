//! Every conversation that this server opens with others: the connector that checks addresses, server discovery, signed
//! requests, the key ring, back-off. Beside them the check of who signed an inbound request.
//!
//! Nothing here knows rooms or users. Time is handed in ([`hearth_store::WallTime`]), and so are names ([`Names`]).
//! Spec: server-server API, "Server discovery" and "Authentication".

mod address_filter;
mod back_off;
mod certificate;
mod connector;
mod diagnosis;
mod discovery;
#[cfg(test)]
mod fuzz;
mod host;
mod http_client;
mod inbound;
mod key_document;
mod key_ring;
mod key_sources;
mod names;
mod notary;
mod remote;
mod server_rules;
mod srv;
mod tls;
mod well_known;
mod x_matrix;

pub use address_filter::AddressFilter;
pub use connector::ConnectError;
pub use diagnosis::{Step, Verdict};
pub use discovery::Discovery;
pub use http_client::{Arriving, HttpClient, HttpError, Limits, Manner};
pub use inbound::{AuthenticateError, Claim, Inbound};
pub use key_ring::{FoundKeys, KeyRing, Patience, WantedKey};
pub use key_sources::Notary;
pub use names::{FixedNames, NameError, Names, Service, SystemNames};
pub use remote::{Remote, RemoteConfig, RemoteError, SendOptions, Signing};
pub use server_rules::{RuleRefusal, ServerRules};
pub use tls::{CaError, TlsRoots};
pub use x_matrix::{XMatrix, XMatrixError};
