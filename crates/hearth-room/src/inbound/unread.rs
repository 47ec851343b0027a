//! Events that are refused before they are read: their ids, so that who sent them hears of which it is.

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId};
use serde::Deserialize;

use super::receive::standing_of;
use crate::{RoomError, Rooms};

impl Rooms {
    /// The id of an event of a room that we are in, if that much can be told.
    pub async fn id_of_unread(&self, json: &str) -> Result<Option<OwnedEventId>, RoomError> {
        #[derive(Deserialize)]
        struct Named {
            room_id: OwnedRoomId,
        }
        let Ok(Named { room_id }) = serde_json::from_str(json) else { return Ok(None) };
        let room = self.inner.store.read(move |tx| standing_of(tx, &room_id)).await?;
        Ok(room.and_then(|(room, _)| Pdu::id_of_remote(json, room.rules)))
    }
}
