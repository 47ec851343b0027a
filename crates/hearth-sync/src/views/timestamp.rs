//! The event nearest to a time.
//!
//! Spec: client-server API, `GET /rooms/{roomId}/timestamp_to_event`. The time is that which senders state.

use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId};
use hearth_store::RoomPlace;

use super::access::Access;
use super::{Direction, ViewError, Views};
use crate::Reader;

/// Rows of one query, and how many queries at most.
const BATCH: (i64, usize) = (100, 50);

impl Views {
    /// The first event at or after a time, or the last at or before it, that the reader may see; with its own time.
    pub async fn event_by_timestamp(
        &self,
        reader: Reader,
        room_id: OwnedRoomId,
        ts: i64,
        direction: Direction,
    ) -> Result<(OwnedEventId, i64), ViewError> {
        self.read(move |tx| {
            let access = Access::require(tx, &reader, &room_id)?;
            let room = access.room.num;
            let mut at = match direction {
                Direction::Backward => (ts, RoomPlace::END),
                Direction::Forward => (ts, RoomPlace::START),
            };
            let (batch, batches) = BATCH;
            for _ in 0..batches {
                let rows = match direction {
                    Direction::Backward => tx.events().until_time(room, at.0, at.1, batch)?,
                    Direction::Forward => tx.events().since_time(room, at.0, at.1, batch)?,
                };
                for row in &rows {
                    if access.may_see(tx, row)? {
                        return Ok((tx.events().id(row.num)?, row.origin_server_ts));
                    }
                    at = (row.origin_server_ts, RoomPlace::before(row));
                }
                if rows.len() < batch as usize {
                    break;
                }
            }
            Err(ViewError::NotFound("There is no event at that time"))
        })
        .await
    }
}
