//! Whole servers in one process, and clients to knock on their doors.
//!
//! ```no_run
//! # use hearth_testkit::on_each_backend;
//! # async fn test() {
//! on_each_backend(async |server| {
//!     let alice = server.user("alice").await;
//!     let (status, _) = alice.get("/_matrix/client/v3/account/whoami").await;
//!     assert_eq!(status, 200);
//! })
//! .await;
//! # }
//! ```
//!
//! A failure here is a failed test: everything panics with what it wanted and what it got.

mod backend;
mod client;
mod federation;
mod server;
mod until;

pub use backend::{Backend, Schema, on_each_backend, on_each_backend_with};
pub use client::{Answer, Request, Target, User};
pub use federation::{Federation, Link, on_each_backend_together, on_each_backend_together_with};
pub use hearth::settings::Settings;
pub use hearth_store::WallTime;
pub use serde_json::{Value, json};
pub use server::TestServer;
pub use until::{until, until_some};
