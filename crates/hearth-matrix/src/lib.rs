//! The Matrix specification as values and pure functions.
