//! What handlers take from a request: the decoded request, the sender, the client's address.

mod body;
mod client_address;
mod matrix;
mod sender;

pub(crate) use body::BODY_SIZE_BYTES;
pub use body::JsonBody;
pub use client_address::ClientAddress;
pub use matrix::Matrix;
pub use sender::{OptionalSender, Sender};
