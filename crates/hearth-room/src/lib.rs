//! The event pipeline and everything about rooms: create, membership, sending, aliases, the directory.
//!
//! Every event passes one way in: a room's turn (`turn.rs`) takes all work that is ready for a room as one batch, the
//! appender (`append.rs`) decides, seals and writes it inside one write closure. What clients see of rooms is read in
//! `hearth-sync`; users are strangers here and are reached through the store alone.

mod annotations;
mod append;
mod canonical_alias;
mod chance;
mod create;
mod directory;
mod error;
mod guests;
mod inbound;
mod media;
mod member_content;
mod membership;
mod mutual_rooms;
mod policy;
mod power_levels;
mod profile;
mod receipts;
mod resolution;
mod send;
mod servers;
mod stripped;
mod turn;
mod typing;
mod unread;

use std::sync::Arc;

use hearth_matrix::CurrentKey;
use hearth_matrix::ruma::{OwnedServerName, RoomVersionId, UserId};
use hearth_store::{Store, WallTime};

pub use create::{CreateRoom, Preset};
pub use directory::{DirectoryFilter, DirectoryPage, DirectoryRoom};
pub use error::RoomError;
pub use inbound::{
    Answer, Backlog, DUMMY_EVENT, Dropped, Heard, Invitation, JoinAnswer, MissingEvents, Neighbours, Received, Refusal,
    StateAt, StateBefore, StateIdsAt, Template, Unanswered, Verdict, WantedKey, Welcomed,
};
pub use membership::MemberAction;
pub use mutual_rooms::MutualRooms;
pub use receipts::{NewReceipt, ReadMarkers};
pub use send::Txn;
pub use servers::{RemoteReceipt, redacted};
pub use typing::{Typing, TypingInRoom};

/// What rooms are told by the settings.
#[derive(Debug)]
pub struct RoomsConfig {
    /// Our name in the federation.
    pub server_name: OwnedServerName,
    /// The key that signs our events.
    pub signing_key: CurrentKey,
    /// Version of rooms that name none.
    pub default_version: RoomVersionId,
}

/// Everything about rooms. Cheap to clone.
#[derive(Clone)]
pub struct Rooms {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) config: Arc<RoomsConfig>,
    pub(crate) store: Store,
    pub(crate) time: WallTime,
    pub(crate) turns: turn::Turns,
    pub(crate) typing: Typing,
    pub(crate) inbound: inbound::Inbound,
    pub(crate) policies: policy::Policies,
    pub(crate) chance: Arc<chance::Chance>,
}

impl Rooms {
    /// Over a store.
    pub fn new(config: RoomsConfig, store: Store, time: WallTime) -> Self {
        Self::build(config, store, time, chance::Chance::system())
    }

    /// With ids that are the same for the same seed: for simulations, as anybody could guess them.
    pub fn seeded(config: RoomsConfig, store: Store, time: WallTime, seed: u64) -> Self {
        Self::build(config, store, time, chance::Chance::seeded(seed))
    }

    fn build(config: RoomsConfig, store: Store, time: WallTime, chance: chance::Chance) -> Self {
        let (config, chance) = (Arc::new(config), Arc::new(chance));
        let turns = turn::Turns::new(store.clone(), config.clone(), chance.clone());
        let (typing, inbound, policies) = Default::default();
        Self { inner: Arc::new(Inner { config, store, time, turns, typing, inbound, policies, chance }) }
    }

    /// Version of rooms that name none.
    pub fn default_version(&self) -> &RoomVersionId {
        &self.inner.config.default_version
    }

    /// Our name in the federation.
    pub fn server_name(&self) -> &OwnedServerName {
        &self.inner.config.server_name
    }

    /// What time it is, in milliseconds.
    pub fn now_ms(&self) -> i64 {
        self.inner.time.now_ms()
    }

    pub(crate) fn is_local(&self, user: &UserId) -> bool {
        user.server_name() == &*self.inner.config.server_name
    }
}
