//! Tests through HTTP, of whole servers.

mod errors;
mod listeners;
mod operations;
mod sessions;
mod stopping;
