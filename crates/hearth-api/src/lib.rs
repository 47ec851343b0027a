//! The doors: the only place that serves HTTP.
//!
//! A request passes the accept loop (`serve`), the threshold (`threshold.rs`: client address, CORS, log line, metrics,
//! panics), the route table (`route.rs`, `router.rs`), the limits (`limits`), the extractors (`extract`) and reaches a handler, which calls one
//! domain function. Handlers live in a folder per door, one file per chapter of the specification.

mod bodies;
mod client;
mod cors;
mod doors;
pub mod error;
mod extract;
mod federation;
mod limits;
mod local;
mod operations;
mod route;
mod router;
pub mod serve;
mod shutdown;
mod threshold;

pub use bodies::Bodies;
pub use doors::{DoorOptions, Doors, MetricsPage};
pub use error::ApiError;
pub use extract::{ClientAddress, JsonBody, Matrix, OptionalSender, Sender};
pub use federation::{Origins, Transactions};
pub use limits::{LimitOptions, Limits, Rate};
pub use local::{ask_local_door, local_router};
pub use route::{Resource, RouteInfo};
pub use router::{router, routes};
pub use shutdown::{Shutdown, ShutdownTrigger};
