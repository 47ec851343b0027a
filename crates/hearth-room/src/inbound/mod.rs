//! The room's side of federation: remote events come in, what they lack is fetched, branches are resolved.
//!
//! `receive.rs` takes PDUs and stages them; a room's `worker.rs` checks signatures and hands what is ready to the room's turn
//! (`judge.rs`); `gather.rs` fetches what is missing, outside the turn, from the [`Neighbours`]; `policy.rs` asks the room's policy
//! server. No HTTP here.
//! Spec: server-server API, "PDUs", "Retrieving events".

mod acl;
mod asking;
mod backlog;
mod budget;
mod completion;
mod elsewhere;
mod gather;
mod handshake;
mod history;
mod install;
mod invite;
mod join;
mod judge;
mod knock;
mod leave;
mod merge;
mod neighbours;
mod place;
mod policy;
mod receive;
mod serve;
mod signatures;
mod sorting;
mod unread;
mod worker;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use hearth_matrix::ruma::{OwnedRoomId, OwnedServerName, ServerName};
use hearth_store::RoomNum;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::{RoomError, Rooms};
use worker::Bell;

pub(crate) use acl::ServerAcl;
pub use backlog::Backlog;
pub use join::Welcomed;
pub use judge::Verdict;
pub(crate) use judge::{Arrival, Told};
pub use knock::Heard;
pub use merge::DUMMY_EVENT;
pub use neighbours::{
    Answer, Invitation, JoinAnswer, MissingEvents, Neighbours, Refusal, StateAt, StateIdsAt, Template, Unanswered,
    WantedKey,
};
pub use receive::{Dropped, Received};
pub use serve::StateBefore;

/// Messages of other servers with receipts that wait for their events, for all rooms; and those of one server.
const EARLY: usize = 256;
const EARLY_OF_SERVER: usize = 8;

/// What rooms know of other servers.
pub(crate) struct Inbound {
    neighbours: OnceLock<Arc<dyn Neighbours>>,
    /// A room has an entry while its staged events are worked at.
    workers: Mutex<FxHashMap<OwnedRoomId, Arc<Bell>>>,
    /// Places for receipts that wait for their events.
    early: Arc<Mutex<FxHashMap<OwnedServerName, usize>>>,
    /// Rooms that somebody of ours is coming into through other servers: one after the other.
    joining: Mutex<FxHashMap<OwnedRoomId, Weak<tokio::sync::Mutex<()>>>>,
    /// Rooms of which the rest of the state is being fetched.
    completing: Mutex<FxHashMap<OwnedRoomId, Arc<Notify>>>,
    /// The rest of some room's state has come.
    completed: Notify,
}

/// A place among the receipts that wait for their events, given back when this is dropped.
pub(crate) struct EarlyPlace {
    places: Arc<Mutex<FxHashMap<OwnedServerName, usize>>>,
    server: OwnedServerName,
}

impl Drop for EarlyPlace {
    fn drop(&mut self) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(taken) = places.get_mut(&self.server) {
            *taken -= 1;
            if *taken == 0 {
                places.remove(&self.server);
            }
        }
    }
}

impl Default for Inbound {
    fn default() -> Self {
        Self {
            neighbours: OnceLock::new(),
            workers: Mutex::default(),
            early: Arc::default(),
            joining: Mutex::default(),
            completing: Mutex::default(),
            completed: Notify::new(),
        }
    }
}

impl Inbound {
    /// Whether we talk to other servers at all.
    pub(crate) fn is_connected(&self) -> bool {
        self.neighbours.get().is_some()
    }

    /// A place for receipts of a server that wait for their events, if there is one left.
    pub(crate) fn early_of(&self, server: &ServerName) -> Option<EarlyPlace> {
        let mut early = self.early.lock().unwrap_or_else(PoisonError::into_inner);
        if early.values().sum::<usize>() >= EARLY {
            return None;
        }
        let of_server = early.entry(server.to_owned()).or_default();
        if *of_server >= EARLY_OF_SERVER {
            return None;
        }
        *of_server += 1;
        Some(EarlyPlace { places: self.early.clone(), server: server.to_owned() })
    }

    fn workers(&self) -> MutexGuard<'_, FxHashMap<OwnedRoomId, Arc<Bell>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The other servers, if we were introduced.
    pub(crate) fn neighbours(&self) -> Option<&Arc<dyn Neighbours>> {
        self.neighbours.get()
    }

    /// The turn of those who come into a room.
    fn joining(&self, room_id: &OwnedRoomId) -> Arc<tokio::sync::Mutex<()>> {
        let mut joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = joining.get(room_id).and_then(Weak::upgrade) {
            return turn;
        }
        joining.retain(|_, turn| turn.strong_count() > 0);
        let turn = Arc::default();
        joining.insert(room_id.clone(), Arc::downgrade(&turn));
        turn
    }
}

impl Rooms {
    /// Introduces the other servers, once. What was staged before the last stop is taken up again.
    pub async fn connect(&self, neighbours: Arc<dyn Neighbours>) -> Result<(), RoomError> {
        // A second introduction changes nothing.
        let _ = self.inner.inbound.neighbours.set(neighbours);
        let mut room = RoomNum(0);
        loop {
            let next = self.inner.store.read(move |tx| {
                let Some(num) = tx.staged().room_after(room)? else { return Ok(None) };
                Ok(Some(tx.rooms().by_num(num)?))
            });
            let Some(record) = next.await? else { break };
            room = record.num;
            self.wake_worker(record.room_id.clone());
        }
        self.complete_all().await
    }

    /// Whether nothing staged is being worked at.
    pub fn is_idle(&self) -> bool {
        self.inner.inbound.workers().is_empty() && self.inner.inbound.completing().is_empty()
    }
}
