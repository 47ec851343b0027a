//! What a client sees change: /sync over streams, and the hub that wakes it.

mod client_event;
mod tokens;
mod views;

pub use client_event::{EventOptions, Reader, is_visible, write_events};
pub use tokens::{BadToken, PageToken, SyncToken};
pub use views::{Direction, MembershipFilter, MessagesRequest, RelationsRequest, RoomEventFilter, ViewError, Views};

/// What clients see change. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Syncs;
