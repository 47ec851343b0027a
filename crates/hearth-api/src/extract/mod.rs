//! What handlers take from a request: the decoded request, the sender, the client's address.

mod body;
mod client_address;
mod guests;
mod matrix;
mod path;
mod query;
mod sender;
mod signed;
mod via;

pub(crate) use body::BODY_SIZE_BYTES;
pub use body::JsonBody;
pub use client_address::ClientAddress;
pub use matrix::Matrix;
pub(crate) use path::PathOf;
pub(crate) use query::QueryOf;
pub(crate) use sender::{Administrator, EvenLocked, has_token};
pub use sender::{OptionalSender, Sender};
pub(crate) use signed::Signed;
pub(crate) use via::Via;
