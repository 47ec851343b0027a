//! An event and what is around it.
//!
//! Spec: client-server API, `GET /rooms/{roomId}/context/{eventId}`.

use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId};
use hearth_store::{EventRow, RoomPlace, StoreError, Tx};
use rustc_hash::FxHashSet;

use super::access::Access;
use super::event::visible_event;
use super::filter::{RoomEventFilter, Sieve};
use super::messages::{limit, state_after, write_token};
use super::page::{Direction, Stretch};
use super::state::state_rows;
use super::{ViewError, Views};
use crate::Reader;

impl Views {
    /// An event, the events around it, and the state at the last of them.
    pub async fn context(
        &self,
        reader: Reader,
        room_id: OwnedRoomId,
        event_id: OwnedEventId,
        count: Option<u64>,
        filter: RoomEventFilter,
    ) -> Result<String, ViewError> {
        self.read(move |tx| {
            let access = Access::find(tx, &reader, &room_id)?.ok_or(ViewError::NotFound("There is no such event"))?;
            let row = visible_event(tx, &access, &event_id)?;
            let count = limit(count, filter.limit);
            let mut sieve = Sieve::new(tx, &filter, &access.room)?;
            let before = Stretch {
                from: RoomPlace::before(&row),
                to: None,
                upto: None,
                direction: Direction::Backward,
                limit: count / 2,
            };
            let before = before.read(tx, &access, &mut sieve)?.rows;
            let after = Stretch {
                from: RoomPlace::after(&row),
                to: None,
                upto: None,
                direction: Direction::Forward,
                limit: count - count / 2,
            };
            let after = after.read(tx, &access, &mut sieve)?.rows;
            let last = after.last().unwrap_or(&row);

            let mut out = String::from("{\"start\":");
            write_token(&mut out, RoomPlace::before(before.last().unwrap_or(&row)));
            out.push_str(",\"end\":");
            write_token(&mut out, RoomPlace::after(last));
            out.push_str(",\"events_before\":[");
            access.write(tx, &mut out, &before)?;
            out.push_str("],\"event\":");
            access.write(tx, &mut out, std::slice::from_ref(&row))?;
            out.push_str(",\"events_after\":[");
            access.write(tx, &mut out, &after)?;
            out.push_str("],\"state\":[");
            let shown = before.iter().chain([&row]).chain(&after).map(|row| row.sender);
            let mut state = state(tx, &access, last, filter.lazy_load_members.then(|| shown.collect()))?;
            sieve.retain(tx, &mut state)?;
            access.write(tx, &mut out, &state)?;
            out.push_str("]}");
            Ok(out)
        })
        .await
    }
}

/// The state after an event; of the members only some, if they are named.
fn state(
    tx: &mut Tx<'_>,
    access: &Access,
    last: &EventRow,
    members: Option<FxHashSet<hearth_store::UserNum>>,
) -> Result<Vec<EventRow>, StoreError> {
    let Some(snapshot) = state_after(tx, access, last)? else { return Ok(Vec::new()) };
    let mut entries = tx.state().load(access.room.num, snapshot)?;
    if let Some(members) = members {
        let member = tx.string_num("m.room.member")?;
        entries.retain(|entry| Some(entry.key.kind) != member || members.contains(&entry.key.state_key));
    }
    state_rows(tx, entries.iter().map(|entry| entry.event.0))
}
