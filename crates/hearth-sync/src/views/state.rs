//! The state of a room: whole, or one event of it.
//!
//! Spec: client-server API, `GET /rooms/{roomId}/state` and `…/state/{eventType}/{stateKey}`.

use hearth_matrix::redact::redact_content;
use hearth_matrix::ruma::OwnedRoomId;
use hearth_store::{EventRow, StoreError, Tx};

use super::access::{Access, state_key};
use super::{ViewError, Views};
use crate::Reader;

const NO_STATE: ViewError = ViewError::NotFound("There is no state of this type and key");

impl Views {
    /// The current state, or that of when the reader left.
    pub async fn state(&self, reader: Reader, room_id: OwnedRoomId) -> Result<String, ViewError> {
        self.read(move |tx| {
            let access = Access::require(tx, &reader, &room_id)?;
            let entries = match access.state_now(tx)? {
                Some(snapshot) => tx.state().load(access.room.num, snapshot)?,
                None => Vec::new(),
            };
            let rows = state_rows(tx, entries.iter().map(|entry| entry.event.0))?;
            let mut out = String::from("[");
            access.write(tx, &mut out, &rows)?;
            out.push(']');
            Ok(out)
        })
        .await
    }

    /// The content of a state event, or the whole event.
    pub async fn state_event(
        &self,
        reader: Reader,
        room_id: OwnedRoomId,
        kind: String,
        key: String,
        whole: bool,
    ) -> Result<String, ViewError> {
        self.read(move |tx| {
            let access = Access::require(tx, &reader, &room_id)?;
            let key = state_key(tx, &kind, &key)?.ok_or(NO_STATE)?;
            let snapshot = access.state_now(tx)?.ok_or(NO_STATE)?;
            let num = tx.state().get(access.room.num, snapshot, key)?.ok_or(NO_STATE)?;
            let row = tx.events().row(num)?.ok_or(NO_STATE)?;
            if whole {
                let mut out = String::new();
                access.write(tx, &mut out, &[row])?;
                return Ok(out);
            }
            let pdu = tx.events().pdus(&access.room, &[num])?.pop().ok_or(NO_STATE)?;
            match row.redacted_by {
                None => Ok(pdu.content.get().to_owned()),
                Some(_) => redact_content(&pdu.kind, pdu.content.get(), access.room.rules)
                    .map_err(|error| StoreError::Damaged(format!("{}: {error}", pdu.event_id)).into()),
            }
        })
        .await
    }
}

/// The rows of state events, in room order, without the states before them: whole states and member lists do not say what
/// each event replaced, since that lies in as many old snapshots as there are events.
pub(crate) fn state_rows(tx: &mut Tx<'_>, nums: impl Iterator<Item = i64>) -> Result<Vec<EventRow>, StoreError> {
    let mut rows = sorted_rows(tx, nums)?;
    for row in &mut rows {
        row.snapshot_before = None;
    }
    Ok(rows)
}

/// The rows of events, in room order.
pub(crate) fn sorted_rows(tx: &mut Tx<'_>, nums: impl Iterator<Item = i64>) -> Result<Vec<EventRow>, StoreError> {
    let nums: Vec<i64> = nums.collect();
    let mut rows = tx.events().rows(&nums)?;
    rows.sort_unstable_by_key(|row| (row.room_order, row.num));
    Ok(rows)
}
