//! Remote PDUs that were accepted for work and are not judged yet.

use hearth_matrix::ruma::EventId;

use crate::engine::Counter;
use crate::{RoomNum, RoomRecord, StoreError, StringNum, Tx};

/// A staged event (`staged.num`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StagedNum(pub i64);

/// A PDU that waits to be judged.
#[derive(Clone, Debug)]
pub struct StagedEvent {
    /// Its number.
    pub num: StagedNum,
    /// Who sent it to us.
    pub origin: StringNum,
    /// The event.
    pub json: String,
    /// Its signatures were checked.
    pub verified: bool,
}

/// Access to staged events.
pub struct Staged<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Staged events.
    pub fn staged(&mut self) -> Staged<'_, 'c> {
        Staged { tx: self }
    }
}

impl Staged<'_, '_> {
    /// Stages an event. False if it is staged already.
    pub fn stage(
        &mut self,
        room: &RoomRecord,
        origin: StringNum,
        event_id: &EventId,
        json: &str,
        received_ts: i64,
        verified: bool,
    ) -> Result<bool, StoreError> {
        let id = event_id.as_str().as_bytes();
        let there = self.tx.one(
            "SELECT num FROM staged WHERE event_id = $1 AND room = $2",
            &[id.into(), room.num.into()],
            |row| row.int(0),
        )?;
        if let Some(num) = there {
            // What is proven takes the place of what is only claimed.
            if verified {
                self.tx.exec(
                    "UPDATE staged SET json = $1, verified = 1, origin = $2 WHERE num = $3 AND verified = 0",
                    &[json.as_bytes().into(), origin.into(), num.into()],
                )?;
            }
            return Ok(false);
        }
        let num = self.tx.next_number(Counter::Staged)?;
        self.tx.exec(
            "INSERT INTO staged (num, room, origin, event_id, json, received_ts, verified)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
            &[
                num.into(),
                room.num.into(),
                origin.into(),
                id.into(),
                json.as_bytes().into(),
                received_ts.into(),
                verified.into(),
            ],
        )?;
        Ok(true)
    }

    /// Staged events of a room: all, and those of one origin.
    pub fn count(&mut self, room: RoomNum, origin: StringNum) -> Result<(i64, i64), StoreError> {
        let counts = self.tx.one(
            "SELECT CAST(count(*) AS BIGINT), CAST(count(CASE WHEN origin = $2 THEN 1 END) AS BIGINT)
             FROM staged WHERE room = $1",
            &[room.into(), origin.into()],
            |row| Ok((row.int(0)?, row.int(1)?)),
        )?;
        Ok(counts.unwrap_or((0, 0)))
    }

    /// The oldest staged events of a room behind a number, but for some.
    pub fn of_room(
        &mut self,
        room: RoomNum,
        after: StagedNum,
        without: &[i64],
        limit: i64,
    ) -> Result<Vec<StagedEvent>, StoreError> {
        self.tx.query(
            "SELECT num, origin, json, verified FROM staged WHERE room = $1 AND num > $2 AND num NOT IN ints($3)
             ORDER BY num LIMIT $4",
            &[room.into(), after.0.into(), without.into(), limit.into()],
            |row| {
                Ok(StagedEvent {
                    num: StagedNum(row.int(0)?),
                    origin: StringNum(row.int(1)?),
                    json: row.utf8(2)?.to_owned(),
                    verified: row.bool(3)?,
                })
            },
        )
    }

    /// The next room that has staged events.
    pub fn room_after(&mut self, room: RoomNum) -> Result<Option<RoomNum>, StoreError> {
        self.tx.one("SELECT room FROM staged WHERE room > $1 ORDER BY room LIMIT 1", &[room.into()], |row| {
            Ok(RoomNum(row.int(0)?))
        })
    }

    /// An event's signatures were checked.
    pub fn verified(&mut self, num: StagedNum) -> Result<(), StoreError> {
        self.tx.exec("UPDATE staged SET verified = 1 WHERE num = $1", &[num.0.into()])
    }

    /// An event is judged, or dropped.
    pub fn unstage(&mut self, num: StagedNum) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM staged WHERE num = $1", &[num.0.into()])
    }
}
