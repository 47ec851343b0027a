//! Rooms whose state is not all here yet, and events that were judged on a part of it.
//!
//! Spec: server-server API, `PUT /send_join`, `omit_members`.

use hearth_matrix::ruma::OwnedServerName;

use super::events::{decide_membership, move_tip};
use crate::{
    Change, DecidedMember, EventNum, Membership, Publication, RoomNum, RoomRecord, SnapshotNum, Standing, StoreError,
    StringNum, Tip, Tx, UserNum, Value, Visibility,
};

/// A room that we came into without all of its state.
#[derive(Clone, Debug)]
pub struct PartialRoom {
    /// Servers that may tell the rest, the one that let us in first.
    pub servers: Vec<OwnedServerName>,
}

/// Access to rooms whose state is incomplete.
pub struct Partials<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Rooms whose state is incomplete.
    pub fn partials(&mut self) -> Partials<'_, 'c> {
        Partials { tx: self }
    }
}

impl Partials<'_, '_> {
    /// What is known of a room whose state is incomplete; none if it is whole.
    pub fn of_room(&mut self, room: RoomNum) -> Result<Option<PartialRoom>, StoreError> {
        self.tx.one("SELECT servers FROM partial_rooms WHERE room = $1", &[room.into()], |row| {
            let servers: Vec<OwnedServerName> = serde_json::from_str(row.utf8(0)?)
                .map_err(|error| StoreError::Damaged(format!("servers of a partial room: {error}")))?;
            Ok(PartialRoom { servers })
        })
    }

    /// The next such room.
    pub fn room_after(&mut self, room: RoomNum) -> Result<Option<RoomNum>, StoreError> {
        self.tx.one("SELECT room FROM partial_rooms WHERE room > $1 ORDER BY room LIMIT 1", &[room.into()], |row| {
            Ok(RoomNum(row.int(0)?))
        })
    }

    /// We came into a room without all of its state, and these servers may tell the rest.
    pub fn begin(&mut self, room: RoomNum, partial: &PartialRoom) -> Result<(), StoreError> {
        let servers = serde_json::to_string(&partial.servers)
            .map_err(|error| StoreError::Damaged(format!("servers of a partial room: {error}")))?;
        self.tx.exec(
            "INSERT INTO partial_rooms (room, servers) VALUES ($1, $2)
             ON CONFLICT (room) DO UPDATE SET servers = excluded.servers",
            &[room.into(), servers.as_bytes().into()],
        )
    }

    /// An event was judged on a part of the state.
    pub fn add(&mut self, room: RoomNum, event: EventNum) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO partial_events (room, event) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[room.into(), event.into()],
        )
    }

    /// An event was judged anew.
    pub fn remove(&mut self, room: RoomNum, event: EventNum) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM partial_events WHERE room = $1 AND event = $2", &[room.into(), event.into()])
    }

    /// Whether one of these events was judged on a part of the state.
    pub fn any(&mut self, room: RoomNum, events: &[i64]) -> Result<bool, StoreError> {
        let found = self.tx.one(
            "SELECT 1 FROM partial_events WHERE room = $1 AND event IN ints($2) LIMIT 1",
            &[room.into(), events.into()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// Such events of a room, those that come first in it first, at most `limit`.
    pub fn events(&mut self, room: RoomNum, limit: i64) -> Result<Vec<EventNum>, StoreError> {
        self.tx.query(
            "SELECT p.event FROM partial_events p JOIN events e ON e.num = p.event
             WHERE p.room = $1 ORDER BY e.room_order, e.num LIMIT $2",
            &[room.into(), limit.into()],
            |row| Ok(EventNum(row.int(0)?)),
        )
    }

    /// The events behind which the state is not known, right before such events: those before what comes first in the room first.
    pub fn gaps(&mut self, room: RoomNum) -> Result<Vec<EventNum>, StoreError> {
        self.tx.query(
            "SELECT g.missing FROM gaps g JOIN partial_events p ON p.room = g.room AND p.event = g.event
             JOIN events e ON e.num = g.event
             WHERE g.room = $1 GROUP BY g.missing ORDER BY min(e.room_order), g.missing",
            &[room.into()],
            |row| Ok(EventNum(row.int(0)?)),
        )
    }

    /// A redaction does not stand: what it took away is there again.
    pub fn restore(&mut self, target: EventNum, redaction: EventNum) -> Result<(), StoreError> {
        self.tx.exec(
            "UPDATE events SET redacted_by = NULL WHERE num = $1 AND redacted_by = $2",
            &[target.into(), redaction.into()],
        )
    }

    /// Every current membership of a room: whose, what, by which event, and whether the user is ours.
    pub fn members(&mut self, room: RoomNum) -> Result<Vec<(UserNum, Membership, EventNum, bool)>, StoreError> {
        self.tx.query(
            "SELECT usr, membership, event, local FROM memberships WHERE room = $1 AND until IS NULL",
            &[room.into()],
            |row| {
                let membership = Membership::from_int(row.int(1)?)?;
                Ok((StringNum(row.int(0)?), membership, EventNum(row.int(2)?), row.bool(3)?))
            },
        )
    }

    /// What became of an event that was judged anew.
    pub fn revise(
        &mut self,
        event: EventNum,
        standing: Standing,
        before: Option<SnapshotNum>,
        after: Option<SnapshotNum>,
        visibility: Visibility,
    ) -> Result<(), StoreError> {
        self.tx.exec(
            "UPDATE events SET standing = $1, snapshot_before = $2, snapshot_after = $3, visibility = $4 WHERE num = $5",
            &[(standing as i64).into(), before.into(), after.into(), (visibility as i64).into(), event.into()],
        )
    }

    /// Forgets that a room's state was incomplete.
    pub fn end(&mut self, room: RoomNum) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM partial_rooms WHERE room = $1", &[room.into()])?;
        self.tx.exec("DELETE FROM partial_events WHERE room = $1", &[room.into()])
    }

    /// Keeps a tip that moved without an event, before the state is whole.
    pub fn keep_tip(&mut self, room: &RoomRecord, tip: &Tip) {
        let publication = Publication::new(Change::StateCompleted { room: room.num, whole: false });
        self.tx.publish(move_tip(publication, room.num, tip, false));
    }

    /// All of a room's state is here: the tip with it, memberships that are other than they were, and how many members each
    /// server has.
    pub fn complete(
        &mut self,
        room: &RoomRecord,
        tip: &Tip,
        decided: &[DecidedMember],
        servers: &[(StringNum, i64)],
    ) -> Result<(), StoreError> {
        self.end(room.num)?;
        for decided in decided {
            let publication = decide_membership(room, decided);
            self.tx.publish(publication);
        }
        let mut publication = Publication::new(Change::StateCompleted { room: room.num, whole: true });
        publication.exec(
            "INSERT INTO room_state (room, position, snapshot) VALUES ($1, position($2), $3)",
            &[room.num.into(), Value::Position, tip.snapshot.map_or(0, |snapshot| snapshot.0).into()],
        );
        for (server, joined) in servers {
            publication.exec(
                "INSERT INTO room_servers (room, server, since, joined)
                 SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), position($3), 0
                 WHERE NOT EXISTS (SELECT 1 FROM room_servers WHERE room = $1 AND server = $2 AND until IS NULL)",
                &[room.num.into(), (*server).into(), Value::Position],
            );
            publication.exec(
                "UPDATE room_servers SET joined = $1 WHERE room = $2 AND server = $3 AND until IS NULL",
                &[(*joined).into(), room.num.into(), (*server).into()],
            );
        }
        let kept: Vec<i64> = servers.iter().map(|(server, _)| server.0).collect();
        publication.exec(
            "UPDATE room_servers SET until = position($1) WHERE room = $2 AND until IS NULL AND server NOT IN ints($3)",
            &[Value::Position, room.num.into(), kept[..].into()],
        );
        self.tx.publish(move_tip(publication, room.num, tip, false));
        Ok(())
    }
}
