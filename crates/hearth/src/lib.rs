//! The composition root: settings, wiring, command line, telemetry.
//!
//! `homeserver.rs` is where all parts meet; the program and the tests start a server through it. Nothing here knows what
//! a room or an account is.

pub mod cli;
pub mod data_dir;
mod homeserver;
mod log_writer;
mod neighbours;
mod residence;
pub mod settings;
pub mod telemetry;
mod watch;

pub use homeserver::{Homeserver, Running, StartError};
