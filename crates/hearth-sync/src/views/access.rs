//! What a reader may see of a room as a whole: the current state, that of when he left, or nothing.
//!
//! Spec: client-server API, "Room history visibility", "Ignoring users"; `GET /rooms/{roomId}/state` and its neighbours.

use std::sync::Arc;

use hearth_matrix::ruma::RoomId;
use hearth_matrix::visibility::HistoryVisibility;
use hearth_store::{
    EventRow, Membership, MembershipRow, Position, RoomRecord, SnapshotNum, StateKey, StoreError, Tx, UserNum,
};
use rustc_hash::FxHashSet;

use super::ViewError;
use crate::client_event::{is_visible, membership_at};
use crate::streams::account_data;
use crate::{EventOptions, Reader, write_events};

/// A reader before a room.
pub(crate) struct Access {
    pub(crate) room: Arc<RoomRecord>,
    pub(crate) reader: Reader,
    /// All intervals of the reader's membership; none if he forgot the room.
    pub(crate) history: Vec<MembershipRow>,
    /// The current state.
    pub(crate) tip: Option<SnapshotNum>,
    /// The reader is not joined, but now everybody may read the room.
    open: bool,
    /// Users whose events the reader does not want to see.
    ignored: FxHashSet<UserNum>,
}

impl Access {
    /// A reader before a room in which he may see single events at most; none if there is no such room.
    pub(crate) fn find(tx: &mut Tx<'_>, reader: &Reader, room_id: &RoomId) -> Result<Option<Self>, StoreError> {
        let Some(room) = tx.rooms().by_id(room_id)? else { return Ok(None) };
        let mut history = tx.members().history(room.num, reader.user)?;
        if history.last().is_some_and(|row| row.forgotten) {
            history.clear();
        }
        let tip = tx.rooms().tip(room.num)?.and_then(|tip| tip.snapshot);
        let ignored = account_data::ignored(tx, reader.user)?;
        let mut access = Self { room, reader: reader.clone(), history, tip, open: false, ignored };
        access.open = !access.is_joined() && access.is_world_readable(tx)?;
        Ok(Some(access))
    }

    /// A reader before a room that he may look into: he is or was in it, or everybody may.
    pub(crate) fn require(tx: &mut Tx<'_>, reader: &Reader, room_id: &RoomId) -> Result<Self, ViewError> {
        let access = Self::find(tx, reader, room_id)?.ok_or(ViewError::NotInRoom)?;
        let was_joined = access.history.iter().any(|row| row.membership == Membership::Join);
        if was_joined || access.open { Ok(access) } else { Err(ViewError::NotInRoom) }
    }

    /// Whether the reader is joined now.
    pub(crate) fn is_joined(&self) -> bool {
        self.history.last().is_some_and(|row| row.membership == Membership::Join)
    }

    fn is_world_readable(&self, tx: &mut Tx<'_>) -> Result<bool, StoreError> {
        let (Some(tip), Some(key)) = (self.tip, state_key(tx, "m.room.history_visibility", "")?) else {
            return Ok(false);
        };
        let Some(num) = tx.state().get(self.room.num, tip, key)? else { return Ok(false) };
        let event = tx.events().pdus(&self.room, &[num])?.pop();
        Ok(HistoryVisibility::of(event.as_deref()) == HistoryVisibility::WorldReadable)
    }

    /// Whether the reader may see an event. Of those whom he ignores he sees state only.
    pub(crate) fn may_see(&self, tx: &mut Tx<'_>, row: &EventRow) -> Result<bool, StoreError> {
        if row.state_key.is_none() && self.ignored.contains(&row.sender) {
            return Ok(false);
        }
        is_visible(tx, &self.history, self.reader.user, row)
    }

    /// When the reader left, if he is not joined and sees no more of the room than that.
    pub(crate) fn left_at(&self) -> Option<Position> {
        if self.open || self.is_joined() {
            return None;
        }
        self.joins().last().and_then(|row| row.until)
    }

    /// The newest state that the reader may see.
    pub(crate) fn state_now(&self, tx: &mut Tx<'_>) -> Result<Option<SnapshotNum>, StoreError> {
        match self.left_at() {
            Some(left) => tx.rooms().snapshot_at(self.room.num, left),
            None => Ok(self.tip),
        }
    }

    /// The state at a position, or at the nearest one at which the reader was in the room: first the end of an earlier
    /// stay, else the begin of the first one.
    pub(crate) fn state_at(&self, tx: &mut Tx<'_>, at: Position) -> Result<Option<SnapshotNum>, StoreError> {
        let at = self.clamp(at);
        // Of when a part of the state was not here yet, events know more by now.
        if tx.rooms().heads(&[self.room.num.0])?.iter().any(|head| head.completed > at)
            && let Some(row) = tx.events().newest(self.room.num, Position(0), at, 1)?.pop()
        {
            return Ok(row.state_after());
        }
        tx.rooms().snapshot_at(self.room.num, at)
    }

    fn clamp(&self, at: Position) -> Position {
        if self.open || membership_at(&self.history, Some(at)) == Some(Membership::Join) {
            return at;
        }
        let ended = self.joins().filter_map(|row| row.until).filter(|until| *until <= at).last();
        ended.or_else(|| self.joins().next().map(|row| row.since)).unwrap_or(at)
    }

    fn joins(&self) -> impl Iterator<Item = &MembershipRow> {
        self.history.iter().filter(|row| row.membership == Membership::Join)
    }

    /// Appends events, comma-separated.
    pub(crate) fn write(&self, tx: &mut Tx<'_>, out: &mut String, rows: &[EventRow]) -> Result<(), StoreError> {
        let options = EventOptions { room_id: true, ..EventOptions::default() };
        write_events(tx, out, &self.room, rows, &self.reader, &self.history, options)
    }
}

/// A place in a state, if type and key were ever seen.
pub(crate) fn state_key(tx: &mut Tx<'_>, kind: &str, state_key: &str) -> Result<Option<StateKey>, StoreError> {
    let Some(kind) = tx.string_num(kind)? else { return Ok(None) };
    Ok(tx.string_num(state_key)?.map(|state_key| StateKey { kind, state_key }))
}
