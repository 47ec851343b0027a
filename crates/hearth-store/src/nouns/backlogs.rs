//! How much waits in rooms, for those who watch the server.

use crate::{RoomNum, StoreError, Tx};

/// What waits in a room to be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// Which.
    pub room: RoomNum,
    /// Events of other servers that are staged.
    pub staged: i64,
    /// When the first of them came.
    pub oldest_ts: i64,
}

impl Tx<'_> {
    /// The rooms in which most is staged, at most `limit`. Of very many rooms a thousand are looked at.
    pub fn longest_backlogs(&mut self, limit: i64) -> Result<Vec<Backlog>, StoreError> {
        // From room to room through the index: their events are counted there, and not read.
        self.query(
            "WITH RECURSIVE backlog (room) AS (
                 SELECT min(room) FROM staged
                 UNION ALL
                 SELECT (SELECT min(further.room) FROM staged further WHERE further.room > backlog.room)
                 FROM backlog WHERE backlog.room IS NOT NULL
             )
             SELECT room,
                 (SELECT CAST(count(*) AS BIGINT) FROM staged counted WHERE counted.room = backlog.room) AS waiting,
                 (SELECT oldest.received_ts FROM staged oldest
                  WHERE oldest.room = backlog.room ORDER BY oldest.num LIMIT 1)
             FROM (SELECT room FROM backlog WHERE room IS NOT NULL LIMIT 1000) backlog
             ORDER BY waiting DESC, room LIMIT $1",
            &[limit.into()],
            |row| Ok(Backlog { room: RoomNum(row.int(0)?), staged: row.int(1)?, oldest_ts: row.int(2)? }),
        )
    }
}
