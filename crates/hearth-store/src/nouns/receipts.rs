//! Receipts: who has read how far. A receipt only moves forward.

use std::sync::Arc;

use hearth_matrix::ruma::{EventId, OwnedEventId};

use crate::{
    Change, EventNum, FeedReceipt, Position, Publication, ReadUpto, RoomNum, Row, StoreError, StringNum, Tx, UserNum,
    Value,
};

/// A receipt.
#[derive(Clone, Debug)]
pub struct Receipt {
    /// Where.
    pub room: RoomNum,
    /// Whose.
    pub user: UserNum,
    /// `m.read.private`: only its user sees it.
    pub private: bool,
    /// Empty: unthreaded; `main`; or the id of the thread's root.
    pub thread: String,
    /// The event it names.
    pub event: EventNum,
    /// When it was given, milliseconds since the epoch.
    pub ts: i64,
    /// When it changed last.
    pub position: Position,
}

fn receipt(row: &dyn Row) -> Result<Receipt, StoreError> {
    Ok(Receipt {
        room: RoomNum(row.int(0)?),
        user: StringNum(row.int(1)?),
        private: row.bool(2)?,
        thread: row.utf8(3)?.to_owned(),
        event: EventNum(row.int(4)?),
        ts: row.int(5)?,
        position: Position(row.int(6)?),
    })
}

/// Access to receipts.
pub struct Receipts<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Receipts.
    pub fn receipts(&mut self) -> Receipts<'_, 'c> {
        Receipts { tx: self }
    }
}

impl Receipts<'_, '_> {
    /// One receipt.
    pub fn get(
        &mut self,
        room: RoomNum,
        user: UserNum,
        private: bool,
        thread: &str,
    ) -> Result<Option<Receipt>, StoreError> {
        self.tx.one(
            "SELECT room, usr, kind, thread, event, ts, position FROM receipts
             WHERE room = $1 AND usr = $2 AND kind = $3 AND thread = $4",
            &[room.into(), user.into(), private.into(), thread.as_bytes().into()],
            receipt,
        )
    }

    /// Sets a receipt; one that is `outbound` other servers are told of. Whether it moves forward was decided before.
    #[allow(clippy::too_many_arguments, reason = "a receipt has this many parts")]
    pub fn set(
        &mut self,
        room: RoomNum,
        user: UserNum,
        private: bool,
        thread: &str,
        event: EventNum,
        ts: i64,
        outbound: bool,
    ) -> Result<(), StoreError> {
        let what = match thread {
            "" => Some(ReadUpto::Everything),
            "main" => Some(ReadUpto::Main),
            root => {
                let room = self.tx.rooms().by_num(room)?;
                let root = <&EventId>::try_from(root).ok();
                let num = root.map(|root| self.tx.events().num(&room, root)).transpose()?.flatten();
                num.map(ReadUpto::Thread)
            }
        };
        if let Some(what) = what {
            self.tx.notifications().read(user, room, what, event)?;
        }
        let at = self.tx.events().row(event)?.and_then(|row| row.position);
        let receipt = FeedReceipt {
            user_id: self.tx.string(user)?,
            event_id: self.tx.events().id(event)?,
            thread: thread.into(),
            ts,
            at,
        };
        let mut publication = Publication::new(Change::Receipt { room, user, private, receipt: Arc::new(receipt) });
        publication.exec(
            "INSERT INTO receipts (room, usr, kind, thread, event, ts, position, outbound)
             VALUES ($1, $2, $3, $4, $5, $6, position($7), $8)
             ON CONFLICT (room, usr, kind, thread) DO UPDATE
             SET event = excluded.event, ts = excluded.ts, position = excluded.position, outbound = excluded.outbound",
            &[
                room.into(),
                user.into(),
                private.into(),
                thread.as_bytes().into(),
                event.into(),
                ts.into(),
                Value::Position,
                outbound.into(),
            ],
        );
        self.tx.publish(publication);
        Ok(())
    }

    /// Receipts of a room that changed in `after < position <= upto` and that `reader` may see.
    pub fn changed(
        &mut self,
        room: RoomNum,
        after: Position,
        upto: Position,
        reader: UserNum,
    ) -> Result<Vec<Receipt>, StoreError> {
        self.tx.query(
            "SELECT room, usr, kind, thread, event, ts, position FROM receipts
             WHERE room = $1 AND position > $2 AND position <= $3 AND (kind = 0 OR usr = $4) ORDER BY position",
            &[room.into(), after.into(), upto.into(), reader.into()],
            receipt,
        )
    }

    /// Receipts of many rooms that changed in `after < position <= upto` and that `reader` may see, with the ids of their
    /// events, room by room.
    pub fn changed_in(
        &mut self,
        rooms: &[i64],
        after: Position,
        upto: Position,
        reader: UserNum,
    ) -> Result<Vec<(Receipt, OwnedEventId)>, StoreError> {
        self.tx.query(
            "SELECT r.room, r.usr, r.kind, r.thread, r.event, r.ts, r.position, i.event_id
             FROM receipts r JOIN event_ids i ON i.num = r.event
             WHERE r.room IN ints($1) AND r.position > $2 AND r.position <= $3 AND (r.kind = 0 OR r.usr = $4)
             ORDER BY r.room, r.position",
            &[rooms.into(), after.into(), upto.into(), reader.into()],
            |row| {
                let event_id = OwnedEventId::try_from(row.utf8(7)?)
                    .map_err(|_| StoreError::Damaged("a receipt's event has no valid id".into()))?;
                Ok((receipt(row)?, event_id))
            },
        )
    }

    /// A user's own receipts in a room.
    pub fn own(&mut self, room: RoomNum, user: UserNum) -> Result<Vec<Receipt>, StoreError> {
        self.tx.query(
            "SELECT room, usr, kind, thread, event, ts, position FROM receipts WHERE room = $1 AND usr = $2",
            &[room.into(), user.into()],
            receipt,
        )
    }
}
