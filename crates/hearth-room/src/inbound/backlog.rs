//! The rooms in which most events of other servers wait to be judged.

use hearth_matrix::ruma::OwnedRoomId;
use hearth_store::StoreError;

use crate::Rooms;

/// What waits in a room.
#[derive(Clone, Debug)]
pub struct Backlog {
    /// Which.
    pub room_id: OwnedRoomId,
    /// Events of other servers that wait.
    pub events: i64,
    /// How long the first of them has waited.
    pub oldest_ms: i64,
}

impl Rooms {
    /// The rooms in which most waits, at most `limit`.
    pub async fn longest_backlogs(&self, limit: usize) -> Result<Vec<Backlog>, StoreError> {
        let now = self.inner.time.now_ms();
        let read = self.inner.store.read(move |tx| {
            let found = tx.longest_backlogs(limit as i64)?.into_iter().map(|backlog| {
                let room_id = tx.rooms().by_num(backlog.room)?.room_id.clone();
                Ok(Backlog { room_id, events: backlog.staged, oldest_ms: (now - backlog.oldest_ts).max(0) })
            });
            found.collect()
        });
        read.await
    }
}
