//! Views: what a reader sees of a room at rest – an event, its surroundings, pages of history, the state, the members.
//!
//! A view is one read of the store, and JSON written straight into the answer. What a reader may see is decided in
//! `access.rs` for the room as a whole and in `client_event.rs` event by event.

pub(crate) mod access;
mod context;
mod event;
mod filter;
mod members;
mod messages;
mod notifications;
mod page;
mod relations;
pub(crate) mod state;
mod timestamp;

use hearth_matrix::ruma::UserId;
use hearth_store::{DeviceNum, Store, StoreError, Tx, UserNum, WallTime};

use crate::{BadToken, Reader};

pub use filter::RoomEventFilter;
pub use members::MembershipFilter;
pub use messages::{MessagesPage, MessagesRequest, Missing};
pub use notifications::NotificationsRequest;
pub use page::Direction;
pub use relations::RelationsRequest;

/// Most events of one answer.
pub(crate) const MAX_LIMIT: u64 = 1000;
/// Events of an answer if the client names no number.
pub(crate) const DEFAULT_LIMIT: u64 = 10;

/// Rooms as readers see them. Cheap to clone.
#[derive(Clone)]
pub struct Views {
    store: Store,
    time: WallTime,
}

/// Why there is nothing to see.
#[derive(Debug, thiserror::Error)]
pub enum ViewError {
    /// The reader is not in the room and never was, or forgot it, and not everybody may read it.
    #[error("You are not in this room")]
    NotInRoom,
    /// The thing is not there, or not for this reader.
    #[error("{0}")]
    NotFound(&'static str),
    /// What should be a token is none.
    #[error(transparent)]
    BadToken(#[from] BadToken),
    /// What should be a filter is none.
    #[error("This is no filter: {0}")]
    BadFilter(String),
    /// A parameter is missing.
    #[error("`{0}` is missing")]
    MissingParam(&'static str),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Views {
    /// Views of the rooms in a store.
    pub fn new(store: Store, time: WallTime) -> Self {
        Self { store, time }
    }

    /// Now, in milliseconds since the epoch.
    pub fn now_ms(&self) -> i64 {
        self.time.now_ms()
    }

    /// A reader who reads now.
    pub fn reader(&self, user: UserNum, user_id: &UserId, device: Option<DeviceNum>) -> Reader {
        Reader { user, user_id: user_id.to_owned(), device, now_ms: self.time.now_ms() }
    }

    /// One read of the store, with refusals as values.
    async fn read<T, F>(&self, view: F) -> Result<T, ViewError>
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, ViewError> + Send + 'static,
    {
        let outcome = self.store.read(move |tx| match view(tx) {
            Err(ViewError::Store(error)) => Err(error),
            outcome => Ok(outcome),
        });
        outcome.await?
    }
}
