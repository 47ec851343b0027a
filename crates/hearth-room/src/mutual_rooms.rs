//! Rooms that two users share, page by page.
//!
//! Spec: client-server API, "Mutual rooms".

use hearth_matrix::ruma::{OwnedRoomId, UserId};
use hearth_store::{RoomNum, StoreError};

use crate::{RoomError, Rooms};

/// Rooms of one page.
const PAGE: i64 = 100;

/// A page of rooms that two users share.
#[derive(Clone, Debug, Default)]
pub struct MutualRooms {
    /// The rooms that both are joined to.
    pub joined: Vec<OwnedRoomId>,
    /// How many there are in all.
    pub count: i64,
    /// Where the next page begins, if there is one.
    pub next_batch: Option<String>,
}

impl Rooms {
    /// The rooms that two users share, from a page's `next_batch` on.
    pub async fn mutual_rooms(
        &self,
        one: &UserId,
        other: &UserId,
        from: Option<&str>,
    ) -> Result<MutualRooms, RoomError> {
        let after = from.map_or(Some(0), |from| from.strip_prefix('m')?.parse().ok());
        let after = after.ok_or_else(|| RoomError::InvalidParam("from is no token of this endpoint".into()))?;
        let (one, other) = (one.to_owned(), other.to_owned());
        let page = self.inner.store.read(move |tx| {
            let (Some(one), Some(other)) = (tx.string_num(one.as_str())?, tx.string_num(other.as_str())?) else {
                return Ok(MutualRooms::default());
            };
            let (count, mut rooms) = tx.members().mutual_rooms(one, other, RoomNum(after), PAGE + 1)?;
            let more = rooms.len() as i64 > PAGE;
            rooms.truncate(PAGE as usize);
            let next_batch = rooms.last().filter(|_| more).map(|room| format!("m{}", room.0));
            let joined = rooms.into_iter().map(|room| Ok(tx.rooms().by_num(room)?.room_id.clone()));
            Ok(MutualRooms { joined: joined.collect::<Result<_, StoreError>>()?, count, next_batch })
        });
        Ok(page.await?)
    }
}
