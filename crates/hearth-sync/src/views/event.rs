//! One event.
//!
//! Spec: client-server API, `GET /rooms/{roomId}/event/{eventId}`.

use hearth_matrix::ruma::{EventId, OwnedEventId, OwnedRoomId};
use hearth_store::{EventRow, Standing, Tx};

use super::access::Access;
use super::{ViewError, Views};
use crate::Reader;

impl Views {
    /// An event of a room.
    pub async fn event(
        &self,
        reader: Reader,
        room_id: OwnedRoomId,
        event_id: OwnedEventId,
    ) -> Result<String, ViewError> {
        self.read(move |tx| {
            let access = Access::find(tx, &reader, &room_id)?.ok_or(NO_EVENT)?;
            let row = visible_event(tx, &access, &event_id)?;
            let mut out = String::new();
            access.write(tx, &mut out, &[row])?;
            if out.is_empty() { Err(NO_EVENT) } else { Ok(out) }
        })
        .await
    }
}

const NO_EVENT: ViewError = ViewError::NotFound("There is no such event");

/// An event that the reader may see.
pub(crate) fn visible_event(tx: &mut Tx<'_>, access: &Access, event_id: &EventId) -> Result<EventRow, ViewError> {
    let row = tx.events().by_id(&access.room, event_id)?;
    let row = row.filter(|row| matches!(row.standing, Standing::Live | Standing::Partial)).ok_or(NO_EVENT)?;
    if access.may_see(tx, &row)? { Ok(row) } else { Err(NO_EVENT) }
}
