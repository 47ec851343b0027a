//! What a client sees change: /sync over streams, and the hub that wakes it.
//!
//! Each stream (timeline, state, receipts, account data, …) is a file that answers what there is and what changed between
//! two positions; `v3` assembles them. `hub.rs` hears of every commit and wakes whom it concerns; `window.rs` keeps what
//! changed lately, so that most answers take no query.

mod client_event;
mod events;
mod filter;
mod hub;
mod initial_sync;
mod lazy;
mod presence;
mod streams;
mod tokens;
mod v3;
mod views;
mod window;

use std::sync::Arc;

use hearth_matrix::ruma::OwnedServerName;
use hearth_room::Typing;
use hearth_store::{Store, WallTime};
use hearth_user::presence::Presence;

pub use client_event::{EventOptions, Reader, is_visible, write_events};
pub use events::EventsRequest;
pub use filter::Filter;
pub use tokens::{BadToken, PageToken, SyncToken};
pub use v3::{SyncError, SyncRequest};
pub use views::{
    Direction, MembershipFilter, MessagesPage, MessagesRequest, Missing, NotificationsRequest, RelationsRequest,
    RoomEventFilter, ViewError, Views,
};

/// What clients see change. Cheap to clone.
#[derive(Clone)]
pub struct Syncs {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    time: WallTime,
    typing: Typing,
    presence: Presence,
    hub: Arc<hub::Hub>,
    lazy: lazy::LazyMembers,
    filters: filter::Filters,
}

impl Syncs {
    /// Over a store of which nobody has made use yet: from now on every change is heard of.
    pub fn new(server_name: OwnedServerName, store: Store, time: WallTime, typing: Typing, presence: Presence) -> Self {
        let is_local = move |event: &hearth_store::FeedEvent| *event.pdu.sender.server_name() == *server_name;
        let hub = Arc::new(hub::Hub::new(store.position(), presence.clone(), is_local));
        let listening = Arc::downgrade(&hub);
        store.on_commit(move |announced| {
            if let Some(hub) = listening.upgrade() {
                hub.hear(announced);
            }
        });
        let listening = Arc::downgrade(&hub);
        typing.on_change(move |room| {
            if let Some(hub) = listening.upgrade() {
                hub.wake_room(room);
            }
        });
        let listening = (Arc::downgrade(&hub), store.clone());
        presence.on_change(move |user| presence::changed(&listening.0, &listening.1, user));
        let (lazy, filters) = (lazy::LazyMembers::new(), filter::Filters::new());
        Self { inner: Arc::new(Inner { store, time, typing, presence, hub, lazy, filters }) }
    }

    /// Requests that wait for something to tell.
    pub fn waiting(&self) -> usize {
        self.inner.hub.waiting()
    }
}
