//! Tests through HTTP, of whole servers.

mod errors;
mod listeners;
mod operations;
mod stopping;
