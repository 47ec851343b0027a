//! The Matrix specification as values and pure functions.

pub use ruma;
