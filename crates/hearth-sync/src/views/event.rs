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

    /// An event of which only the id is known. Ids of room versions 1 and 2 may be those of several rooms: the first that
    /// the reader may see.
    pub async fn event_anywhere(&self, reader: Reader, event_id: OwnedEventId) -> Result<String, ViewError> {
        self.read(move |tx| {
            for room in tx.events().rooms_of_id(&event_id)? {
                let room_id = tx.rooms().by_num(room)?.room_id.clone();
                let Some(access) = Access::find(tx, &reader, &room_id)? else { continue };
                let row = match visible_event(tx, &access, &event_id) {
                    Err(ViewError::NotFound(_)) => continue,
                    row => row?,
                };
                let mut out = String::new();
                access.write(tx, &mut out, &[row])?;
                if !out.is_empty() {
                    return Ok(out);
                }
            }
            Err(NO_EVENT)
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
