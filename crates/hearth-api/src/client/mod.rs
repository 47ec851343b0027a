//! The client-server API: one file per chapter of the specification.

pub(crate) mod account;
pub(crate) mod rooms;
pub(crate) mod sync;
pub(crate) mod users;
