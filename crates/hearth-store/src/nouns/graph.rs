//! The graph of a room: what each event is, what came before it, what allows it, and what is missing of it.
//!
//! Also events that stand beside the timeline: outliers, rejected and soft-failed ones, history.

use std::sync::Arc;

use hearth_matrix::Pdu;

use crate::{EventNum, Events, Position, RoomNum, RoomRecord, SnapshotNum, Standing, StoreError, UserNum, Visibility};

/// An event that takes no position: nobody waiting is told of it.
#[derive(Clone, Debug)]
pub struct KeptEvent {
    /// Its number, from [`Events::intern`].
    pub num: EventNum,
    /// The event.
    pub pdu: Arc<Pdu>,
    /// How it stands; history is live.
    pub standing: Standing,
    /// The events right before it; of outliers they are not noted.
    pub prev_events: Vec<EventNum>,
    /// Of state events: the auth events it names.
    pub auth_events: Vec<EventNum>,
    /// State before it, if known.
    pub snapshot_before: Option<SnapshotNum>,
    /// Of state events that stand: the state after it on its own branch.
    pub snapshot_after: Option<SnapshotNum>,
    /// History visibility at it.
    pub visibility: Visibility,
    /// Its place in the room.
    pub room_order: i64,
    /// The event that redacted it before it came.
    pub redacted_by: Option<EventNum>,
    /// The event it relates to and how.
    pub relates_to: Option<(EventNum, String)>,
    /// Root of the thread it belongs to.
    pub thread: Option<EventNum>,
}

/// A gap that nobody has filled yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenGap {
    /// What is missing.
    pub missing: EventNum,
    /// Stated depth of the event after it.
    pub depth: i64,
    /// The place of that event in the room.
    pub room_order: i64,
}

/// What an event hangs on.
pub(super) struct Graph<'a> {
    pub(super) prev_events: &'a [EventNum],
    pub(super) auth_events: &'a [EventNum],
    pub(super) relates_to: Option<(EventNum, &'a str)>,
}

impl Events<'_, '_> {
    /// Writes an event that takes no position, or moves the standing of one that is there.
    pub fn keep(&mut self, room: &RoomRecord, event: &KeptEvent) -> Result<(), StoreError> {
        let (num, pdu) = (event.num, &event.pdu);
        let graph = Graph {
            prev_events: &event.prev_events,
            auth_events: &event.auth_events,
            relates_to: event.relates_to.as_ref().map(|(parent, rel)| (*parent, &**rel)),
        };
        self.insert_facts(room, num, pdu, &graph)?;
        let kind = self.tx.intern(&pdu.kind)?;
        let state_key = pdu.state_key.as_deref().map(|key| self.tx.intern(key)).transpose()?;
        let sender: UserNum = self.tx.intern(pdu.sender.as_str())?;
        self.tx.exec(
            "INSERT INTO events (num, room, kind, state_key, sender, standing, moved, room_order, depth, origin_server_ts,
                 snapshot_before, snapshot_after, visibility, redacted_by, thread, outcome, unread, unread_thread)
             VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9, $10, $11, $12, $13, $14, 0, 0, 0)
             ON CONFLICT (num) DO UPDATE SET standing = excluded.standing, room_order = excluded.room_order,
                 snapshot_before = excluded.snapshot_before, snapshot_after = excluded.snapshot_after,
                 visibility = excluded.visibility, redacted_by = COALESCE(events.redacted_by, excluded.redacted_by)",
            &[
                num.into(),
                room.num.into(),
                kind.into(),
                state_key.into(),
                sender.into(),
                (event.standing as i64).into(),
                event.room_order.into(),
                i64::try_from(pdu.depth).unwrap_or(i64::MAX).into(),
                pdu.origin_server_ts.into(),
                event.snapshot_before.into(),
                event.snapshot_after.into(),
                (event.visibility as i64).into(),
                event.redacted_by.into(),
                event.thread.into(),
            ],
        )
    }

    /// A redaction from before what we know takes an event of its room away. It takes no position, so nobody is told.
    pub fn redact_quietly(&mut self, room: RoomNum, target: EventNum, redaction: EventNum) -> Result<(), StoreError> {
        self.tx.exec(
            "UPDATE events SET redacted_by = $1 WHERE num = $2 AND room = $3 AND redacted_by IS NULL",
            &[redaction.into(), target.into(), room.into()],
        )
    }

    /// What never changes about an event. An outlier's facts may be there already.
    pub(super) fn insert_facts(
        &mut self,
        room: &RoomRecord,
        num: EventNum,
        pdu: &Arc<Pdu>,
        graph: &Graph<'_>,
    ) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO event_ids (num, room, event_id) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[num.into(), room.num.into(), pdu.event_id.as_str().as_bytes().into()],
        )?;
        self.tx.exec(
            "INSERT INTO event_json (num, json) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[num.into(), pdu.json.as_bytes().into()],
        )?;
        for parent in graph.prev_events {
            self.tx.exec(
                "INSERT INTO event_edges (parent, event) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                &[(*parent).into(), num.into()],
            )?;
        }
        for auth in graph.auth_events {
            self.tx.exec(
                "INSERT INTO event_auth (event, auth) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                &[num.into(), (*auth).into()],
            )?;
        }
        if let Some((parent, rel)) = graph.relates_to {
            let rel = self.tx.intern(rel)?;
            self.tx.exec(
                "INSERT INTO relations (parent, rel, child, room) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                &[parent.into(), rel.into(), num.into(), room.num.into()],
            )?;
        }
        self.tx.learned.learn_pdu(num, pdu.clone());
        Ok(())
    }

    /// An event that this transaction is about to write is found by its number from now on.
    pub fn foresee(&mut self, num: EventNum, pdu: &Arc<Pdu>) {
        self.tx.learned.learn_pdu(num, pdu.clone());
    }

    /// The auth events of many state events, as pairs of event and auth event.
    pub fn auth_edges(&mut self, nums: &[i64]) -> Result<Vec<(EventNum, EventNum)>, StoreError> {
        self.tx.query("SELECT event, auth FROM event_auth WHERE event IN ints($1)", &[nums.into()], |row| {
            Ok((EventNum(row.int(0)?), EventNum(row.int(1)?)))
        })
    }

    /// The least room order among the live events right after an event; none if there are no such.
    pub fn lowest_child(&mut self, num: EventNum) -> Result<Option<i64>, StoreError> {
        self.tx.one(
            "SELECT e.room_order FROM event_edges x JOIN events e ON e.num = x.event
             WHERE x.parent = $1 AND e.standing = 0 ORDER BY e.room_order LIMIT 1",
            &[num.into()],
            |row| row.int(0),
        )
    }

    /// Redactions that wait for an event.
    pub fn redactions_of(&mut self, target: EventNum) -> Result<Vec<EventNum>, StoreError> {
        self.tx.query("SELECT event FROM redactions WHERE target = $1 ORDER BY event", &[target.into()], |row| {
            Ok(EventNum(row.int(0)?))
        })
    }

    /// Notes a redaction whose target is not here yet.
    pub fn await_target(&mut self, target: EventNum, redaction: EventNum) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO redactions (target, event) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[target.into(), redaction.into()],
        )
    }

    /// Notes that an event was rejected for want of an auth event.
    pub fn await_auth(&mut self, auth: EventNum, event: EventNum) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO awaited_auth (auth, event) VALUES ($1, $2) ON CONFLICT DO NOTHING",
            &[auth.into(), event.into()],
        )
    }

    /// The events that were rejected for want of this one; they are no longer noted.
    pub fn take_awaiting(&mut self, auth: EventNum) -> Result<Vec<EventNum>, StoreError> {
        let waiting =
            self.tx.query("SELECT event FROM awaited_auth WHERE auth = $1 ORDER BY event", &[auth.into()], |row| {
                Ok(EventNum(row.int(0)?))
            })?;
        if !waiting.is_empty() {
            self.tx.exec("DELETE FROM awaited_auth WHERE auth = $1", &[auth.into()])?;
        }
        Ok(waiting)
    }

    /// Forgets events of a room that nobody of ours came into, some of them: how many.
    pub fn forget_some(&mut self, room: RoomNum, limit: i64) -> Result<i64, StoreError> {
        let nums: Vec<i64> = self.tx.query(
            "SELECT num FROM events WHERE room = $1 ORDER BY room_order, num LIMIT $2",
            &[room.into(), limit.into()],
            |row| row.int(0),
        )?;
        for sql in [
            "DELETE FROM awaited_auth WHERE event IN ints($1)",
            "DELETE FROM event_auth WHERE event IN ints($1)",
            "DELETE FROM event_json WHERE num IN ints($1)",
            "DELETE FROM event_ids WHERE num IN ints($1)",
            "DELETE FROM events WHERE num IN ints($1)",
        ] {
            self.tx.exec(sql, &[nums[..].into()])?;
        }
        Ok(nums.len() as i64)
    }

    /// Notes a gap behind an event.
    pub fn add_gap(&mut self, room: RoomNum, event: EventNum, missing: EventNum) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO gaps (room, event, missing) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            &[room.into(), event.into(), missing.into()],
        )
    }

    /// The gaps of a room: events, and what was missing before each.
    pub fn gaps(&mut self, room: RoomNum) -> Result<Vec<(EventNum, EventNum)>, StoreError> {
        self.tx.query("SELECT event, missing FROM gaps WHERE room = $1", &[room.into()], |row| {
            Ok((EventNum(row.int(0)?), EventNum(row.int(1)?)))
        })
    }

    /// Gaps of a room that are still open, behind events of more than this depth, the greatest first.
    pub fn open_gaps(&mut self, room: RoomNum, above: i64, limit: i64) -> Result<Vec<OpenGap>, StoreError> {
        self.tx.query(
            "SELECT g.missing, e.depth, e.room_order FROM gaps g JOIN events e ON e.num = g.event
             LEFT JOIN events m ON m.num = g.missing
             WHERE g.room = $1 AND e.depth > $2
               AND (m.num IS NULL OR (m.snapshot_before IS NULL AND m.snapshot_after IS NULL))
             ORDER BY e.depth DESC, g.missing LIMIT $3",
            &[room.into(), above.into(), limit.into()],
            |row| Ok(OpenGap { missing: EventNum(row.int(0)?), depth: row.int(1)?, room_order: row.int(2)? }),
        )
    }

    /// Whether a live event right after this one is history, or came no later than a position.
    pub fn has_child_upto(&mut self, num: EventNum, upto: Position) -> Result<bool, StoreError> {
        let found = self.tx.one(
            "SELECT 1 FROM event_edges x JOIN events e ON e.num = x.event
             WHERE x.parent = $1 AND e.standing = 0 AND (e.position IS NULL OR e.position <= $2) LIMIT 1",
            &[num.into(), upto.into()],
            |row| row.int(0),
        )?;
        Ok(found.is_some())
    }

    /// Gives an event that is only heard of, or was rejected, a fresh number: greater than those of the events that allow it.
    ///
    /// Whatever names it by its number is told; it is in no state, nobody's membership, and redacts nothing.
    pub fn renumber(
        &mut self,
        room: &RoomRecord,
        pdu: &Pdu,
        old: EventNum,
        auth: &[EventNum],
    ) -> Result<EventNum, StoreError> {
        let new = self.next_num_above(auth)?;
        for sql in [
            // Those that name it among what allows them were rejected, and wait for it.
            "UPDATE event_auth SET auth = $1 WHERE auth = $2 AND event IN (SELECT event FROM awaited_auth WHERE auth = $2)",
            "UPDATE awaited_auth SET auth = $1 WHERE auth = $2",
            "UPDATE awaited_auth SET event = $1 WHERE event = $2",
            "UPDATE event_auth SET event = $1 WHERE event = $2",
            "UPDATE event_ids SET num = $1 WHERE num = $2",
            "UPDATE events SET num = $1 WHERE num = $2",
            "UPDATE event_json SET num = $1 WHERE num = $2",
            "UPDATE event_edges SET parent = $1 WHERE parent = $2",
            "UPDATE relations SET parent = $1 WHERE parent = $2",
            "UPDATE redactions SET target = $1 WHERE target = $2",
        ] {
            self.tx.exec(sql, &[new.into(), old.into()])?;
        }
        for sql in [
            "UPDATE gaps SET event = $1 WHERE room = $3 AND event = $2",
            "UPDATE gaps SET missing = $1 WHERE room = $3 AND missing = $2",
            "UPDATE partial_events SET event = $1 WHERE room = $3 AND event = $2",
        ] {
            self.tx.exec(sql, &[new.into(), old.into(), room.num.into()])?;
        }
        self.renumber_thread(room.num, old, new)?;
        for id in &pdu.prev_events {
            if let Some(parent) = self.num(room, id)? {
                let sql = "UPDATE event_edges SET event = $1 WHERE parent = $2 AND event = $3";
                self.tx.exec(sql, &[new.into(), parent.into(), old.into()])?;
            }
        }
        Ok(new)
    }

    /// A thread may begin before its root comes.
    fn renumber_thread(&mut self, room: RoomNum, old: EventNum, new: EventNum) -> Result<(), StoreError> {
        let sql = "SELECT 1 FROM threads WHERE room = $1 AND root = $2";
        if self.tx.one(sql, &[room.into(), old.into()], |row| row.int(0))?.is_none() {
            return Ok(());
        }
        self.tx.exec(
            "UPDATE notifications SET thread = $1 WHERE event IN (SELECT num FROM events WHERE thread = $2)",
            &[new.into(), old.into()],
        )?;
        self.tx.exec("UPDATE events SET thread = $1 WHERE thread = $2", &[new.into(), old.into()])?;
        for sql in [
            "UPDATE threads SET root = $1 WHERE room = $3 AND root = $2",
            "UPDATE room_notes SET thread = $1 WHERE room = $3 AND thread = $2",
            "UPDATE reads SET thread = $1 WHERE room = $3 AND thread = $2
             AND usr IN (SELECT usr FROM memberships WHERE room = $3 AND local = 1)",
        ] {
            self.tx.exec(sql, &[new.into(), old.into(), room.into()])?;
        }
        Ok(())
    }
}
