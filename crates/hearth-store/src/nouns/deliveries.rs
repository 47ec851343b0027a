//! What other servers lack of what we have to send them: a position for each, from which everything else is found.

use std::sync::Arc;

use crate::{EventNum, Position, RoomNum, StoreError, StringNum, Tx, UserNum};

/// How far a server got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// It has everything up to here.
    pub sent: Position,
    /// A transaction with what comes after that is under way.
    pub under_way: Option<UnderWay>,
    /// It was away for long: of each room it gets only the newest event up to here.
    pub leap: Option<Position>,
}

/// A transaction that has been sent and may have arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnderWay {
    /// Up to where.
    pub upto: Position,
    /// When it was sent first, milliseconds since the epoch.
    pub begun_ts: i64,
}

/// A stay of a server in a room: after `since`, up to and with `until`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerStay {
    /// Its first member joined with this event.
    pub since: Position,
    /// Its last member left with this event.
    pub until: Option<Position>,
}

impl ServerStay {
    /// Whether the server was in the room right before an event, and so gets it.
    pub fn gets(&self, position: Position) -> bool {
        self.since < position && self.until.is_none_or(|until| position <= until)
    }
}

/// A receipt to be told.
#[derive(Clone, Debug)]
pub struct OutboundReceipt {
    /// Where.
    pub room: RoomNum,
    /// Whose.
    pub user: UserNum,
    /// Empty: unthreaded; `main`; or the id of the thread's root.
    pub thread: String,
    /// The event it names.
    pub event: EventNum,
    /// When it was given, milliseconds since the epoch.
    pub ts: i64,
    /// When it changed last.
    pub position: Position,
}

/// Deliveries, seen from a transaction.
pub struct Deliveries<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// What other servers lack.
    pub fn deliveries(&mut self) -> Deliveries<'_, 'c> {
        Deliveries { tx: self }
    }
}

impl Deliveries<'_, '_> {
    /// How far a server got.
    pub fn get(&mut self, server: StringNum) -> Result<Option<Delivered>, StoreError> {
        self.tx.one("SELECT sent, upto, begun_ts, leap FROM deliveries WHERE server = $1", &[server.into()], |row| {
            let begun_ts = row.int(2)?;
            Ok(Delivered {
                sent: Position(row.int(0)?),
                under_way: row.opt_int(1)?.map(|upto| UnderWay { upto: Position(upto), begun_ts }),
                leap: row.opt_int(3)?.map(Position),
            })
        })
    }

    /// Writes down how far a server got. One sender at a time does.
    pub fn put(&mut self, server: StringNum, delivered: &Delivered) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO deliveries (server, sent, upto, begun_ts, leap) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (server) DO UPDATE SET sent = excluded.sent, upto = excluded.upto,
               begun_ts = excluded.begun_ts, leap = excluded.leap",
            &[
                server.into(),
                delivered.sent.0.into(),
                delivered.under_way.map(|under_way| under_way.upto.0).into(),
                delivered.under_way.map_or(0, |under_way| under_way.begun_ts).into(),
                delivered.leap.map(|position| position.0).into(),
            ],
        )
    }

    /// Servers that may lack something, ours perhaps among them. Looks at all there are: for the start.
    pub fn servers_with_work(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        let servers = self.tx.query(
            "SELECT DISTINCT at_start.server FROM room_servers at_start
             CROSS JOIN room_tips t LEFT JOIN deliveries d ON d.server = at_start.server
             WHERE t.room = at_start.room AND t.last_local_position > COALESCE(d.sent, 0)
               AND t.last_local_position > at_start.since
               AND (at_start.until IS NULL OR at_start.until > COALESCE(d.sent, 0))
             UNION SELECT s.server
             FROM (SELECT room, MAX(position) AS latest FROM receipts at_start WHERE outbound = 1 GROUP BY room) newest
             CROSS JOIN room_servers s LEFT JOIN deliveries d ON d.server = s.server
             WHERE s.room = newest.room AND s.until IS NULL
               AND newest.latest > COALESCE(d.sent, 0) AND newest.latest > s.since
             UNION SELECT aside_at_start.server FROM deliveries_aside aside_at_start",
            &[],
            |row| Ok(StringNum(row.int(0)?)),
        )?;
        servers.into_iter().map(|server| self.tx.string(server)).collect()
    }

    /// Rooms that a server is or was in, with events after a position that we send.
    pub fn rooms_with_work(&mut self, server: StringNum, after: Position) -> Result<Vec<RoomNum>, StoreError> {
        self.tx.query(
            "SELECT DISTINCT s.room FROM room_servers s CROSS JOIN room_tips t
             WHERE s.server = $1 AND (s.until IS NULL OR s.until > $2)
               AND t.room = s.room AND t.last_local_position > $2",
            &[server.into(), after.0.into()],
            |row| Ok(RoomNum(row.int(0)?)),
        )
    }

    /// Rooms that a server is in now, at most `limit`.
    pub fn rooms_of(&mut self, server: StringNum, limit: i64) -> Result<Vec<RoomNum>, StoreError> {
        self.tx.query(
            "SELECT room FROM room_servers WHERE server = $1 AND until IS NULL ORDER BY room LIMIT $2",
            &[server.into(), limit.into()],
            |row| Ok(RoomNum(row.int(0)?)),
        )
    }

    /// When a server was in a room.
    pub fn stays(&mut self, room: RoomNum, server: StringNum) -> Result<Vec<ServerStay>, StoreError> {
        self.tx.query(
            "SELECT since, until FROM room_servers WHERE room = $1 AND server = $2 ORDER BY since",
            &[room.into(), server.into()],
            |row| Ok(ServerStay { since: Position(row.int(0)?), until: row.opt_int(1)?.map(Position) }),
        )
    }

    /// Events of a room that we send, in `after < position <= upto`, oldest first, at most `limit`.
    pub fn outbound(
        &mut self,
        room: RoomNum,
        after: Position,
        upto: Position,
        limit: i64,
    ) -> Result<Vec<(Position, EventNum)>, StoreError> {
        self.tx.query(
            "SELECT position, num FROM events
             WHERE room = $1 AND outbound = 1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4",
            &[room.into(), after.0.into(), upto.0.into(), limit.into()],
            |row| Ok((Position(row.int(0)?), EventNum(row.int(1)?))),
        )
    }

    /// The newest of them.
    pub fn newest_outbound(
        &mut self,
        room: RoomNum,
        after: Position,
        upto: Position,
    ) -> Result<Option<(Position, EventNum)>, StoreError> {
        self.tx.one(
            "SELECT position, num FROM events
             WHERE room = $1 AND outbound = 1 AND position > $2 AND position <= $3 ORDER BY position DESC LIMIT 1",
            &[room.into(), after.0.into(), upto.0.into()],
            |row| Ok((Position(row.int(0)?), EventNum(row.int(1)?))),
        )
    }

    /// Events for a server that is not in their room, in `after < position <= upto`, oldest first, at most `limit`.
    pub fn aside(
        &mut self,
        server: StringNum,
        after: Position,
        upto: Position,
        limit: i64,
    ) -> Result<Vec<(Position, EventNum)>, StoreError> {
        self.tx.query(
            "SELECT position, event FROM deliveries_aside
             WHERE server = $1 AND position > $2 AND position <= $3 ORDER BY position LIMIT $4",
            &[server.into(), after.0.into(), upto.0.into(), limit.into()],
            |row| Ok((Position(row.int(0)?), EventNum(row.int(1)?))),
        )
    }

    /// Forgets such events up to a position: they have arrived.
    pub fn forget_aside(&mut self, server: StringNum, upto: Position) -> Result<(), StoreError> {
        self.tx
            .exec("DELETE FROM deliveries_aside WHERE server = $1 AND position <= $2", &[server.into(), upto.0.into()])
    }

    /// Where the `n`-th receipt of our users after a position stands, whatever its room.
    pub fn nth_receipt(&mut self, after: Position, n: i64) -> Result<Option<Position>, StoreError> {
        self.tx.one(
            "SELECT position FROM receipts WHERE outbound = 1 AND position > $1 ORDER BY position LIMIT 1 OFFSET $2",
            &[after.0.into(), (n - 1).into()],
            |row| Ok(Position(row.int(0)?)),
        )
    }

    /// Receipts of our users in rooms that a server is in, which changed in `after < position <= upto` and since it came in, oldest
    /// first, at most `limit`.
    pub fn receipts(
        &mut self,
        server: StringNum,
        after: Position,
        upto: Position,
        limit: i64,
    ) -> Result<Vec<OutboundReceipt>, StoreError> {
        self.tx.query(
            "SELECT r.room, r.usr, r.thread, r.event, r.ts, r.position FROM receipts r
             WHERE r.outbound = 1 AND r.position > $1 AND r.position <= $2
               AND EXISTS (SELECT 1 FROM room_servers s WHERE s.room = r.room AND s.server = $3
                           AND s.until IS NULL AND s.since < r.position)
             ORDER BY r.position LIMIT $4",
            &[after.0.into(), upto.0.into(), server.into(), limit.into()],
            |row| {
                Ok(OutboundReceipt {
                    room: RoomNum(row.int(0)?),
                    user: StringNum(row.int(1)?),
                    thread: row.utf8(2)?.to_owned(),
                    event: EventNum(row.int(3)?),
                    ts: row.int(4)?,
                    position: Position(row.int(5)?),
                })
            },
        )
    }
}
