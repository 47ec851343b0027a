//! Events: their rows, their JSON, and the one way in.

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{EventId, OwnedEventId};
use rustc_hash::FxHashMap;

use super::graph::Graph;
use super::notifications;
use crate::engine::Counter;
use crate::{
    Change, DeviceNum, EventNum, EventPush, FeedEvent, Membership, Position, Publication, RoomNum, RoomRecord, Row,
    SnapshotNum, StoreError, StringNum, Tip, Tx, UserNum, Value,
};

/// How an event stands with us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i64)]
pub enum Standing {
    /// Part of the room.
    Live = 0,
    /// Known without the events before it: an auth event, or state at a gap.
    Outlier = 1,
    /// Accepted while the room's state is still incomplete.
    Partial = 2,
    /// Refused by its own auth events or the state before it.
    Rejected = 3,
    /// Refused by the room's current state only: kept, not shown.
    SoftFailed = 4,
}

impl Standing {
    fn from_int(int: i64) -> Result<Self, StoreError> {
        Ok(match int {
            0 => Self::Live,
            1 => Self::Outlier,
            2 => Self::Partial,
            3 => Self::Rejected,
            4 => Self::SoftFailed,
            _ => return Err(StoreError::Damaged(format!("an event stands at {int}"))),
        })
    }
}

/// Who may see an event, by the room's history visibility at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(i64)]
pub enum Visibility {
    /// Those invited or joined at it.
    Invited = 0,
    /// Those joined at it.
    Joined = 1,
    /// Those who joined at any time since.
    Shared = 2,
    /// Everybody.
    WorldReadable = 3,
}

impl Visibility {
    fn from_int(int: i64) -> Result<Self, StoreError> {
        Ok(match int {
            0 => Self::Invited,
            1 => Self::Joined,
            2 => Self::Shared,
            3 => Self::WorldReadable,
            _ => return Err(StoreError::Damaged(format!("an event has visibility {int}"))),
        })
    }

    /// The one under which more is seen.
    pub fn or(self, other: Self) -> Self {
        let order = [Self::Joined, Self::Invited, Self::Shared, Self::WorldReadable];
        order.into_iter().rev().find(|it| [self, other].contains(it)).unwrap_or(self)
    }

    /// From the value of `history_visibility`; the default, and what unknown values mean, is shared.
    pub fn from_spec(value: Option<&str>) -> Self {
        match value {
            Some("invited") => Self::Invited,
            Some("joined") => Self::Joined,
            Some("world_readable") => Self::WorldReadable,
            _ => Self::Shared,
        }
    }
}

/// An event without its JSON.
#[derive(Clone, Debug)]
pub struct EventRow {
    /// Its number.
    pub num: EventNum,
    /// Its room.
    pub room: RoomNum,
    /// Event type.
    pub kind: StringNum,
    /// State key of a state event.
    pub state_key: Option<StringNum>,
    /// Sender.
    pub sender: UserNum,
    /// How it stands with us.
    pub standing: Standing,
    /// Arrival; none for outliers and history.
    pub position: Option<Position>,
    /// Its place in the room, for `/messages`.
    pub room_order: i64,
    /// Milliseconds since the epoch, by the sender's server.
    pub origin_server_ts: i64,
    /// State before it.
    pub snapshot_before: Option<SnapshotNum>,
    /// History visibility at it.
    pub visibility: Visibility,
    /// The event that redacted it.
    pub redacted_by: Option<EventNum>,
    /// Root of the thread it belongs to.
    pub thread: Option<EventNum>,
    /// Running count of what notifies at it, main timeline.
    pub unread: i64,
    /// The local device that sent it, and its transaction id.
    pub txn: Option<(DeviceNum, String)>,
    /// Of state events that stand: the state after it on its own branch.
    pub snapshot_after: Option<SnapshotNum>,
}

impl EventRow {
    /// The state after it on its own branch, as far as it is known.
    pub fn state_after(&self) -> Option<SnapshotNum> {
        self.snapshot_after.or(self.snapshot_before)
    }
}

macro_rules! select_events {
    ($rest:literal) => {
        concat!(
            "SELECT e.num, e.room, e.kind, e.state_key, e.sender, e.standing, e.position, e.room_order, ",
            "e.origin_server_ts, e.snapshot_before, e.visibility, e.redacted_by, e.thread, e.unread, e.txn_device, e.txn_id, ",
            "e.snapshot_after ",
            "FROM events e ",
            $rest
        )
    };
}

fn event_row(row: &dyn Row) -> Result<EventRow, StoreError> {
    let txn = match (row.opt_int(14)?, row.opt_bytes(15)?) {
        (Some(device), Some(_)) => Some((DeviceNum(device), row.utf8(15)?.to_owned())),
        _ => None,
    };
    Ok(EventRow {
        num: EventNum(row.int(0)?),
        room: RoomNum(row.int(1)?),
        kind: StringNum(row.int(2)?),
        state_key: row.opt_int(3)?.map(StringNum),
        sender: StringNum(row.int(4)?),
        standing: Standing::from_int(row.int(5)?)?,
        position: row.opt_int(6)?.map(Position),
        room_order: row.int(7)?,
        origin_server_ts: row.int(8)?,
        snapshot_before: row.opt_int(9)?.map(SnapshotNum),
        visibility: Visibility::from_int(row.int(10)?)?,
        redacted_by: row.opt_int(11)?.map(EventNum),
        thread: row.opt_int(12)?.map(EventNum),
        unread: row.int(13)?,
        txn,
        snapshot_after: row.opt_int(16)?.map(SnapshotNum),
    })
}

/// A live event on its way in, decided and sealed.
#[derive(Clone, Debug)]
pub struct NewEvent {
    /// Its number, from [`Events::next_num`].
    pub num: EventNum,
    /// The event.
    pub pdu: Arc<Pdu>,
    /// The events right before it.
    pub prev_events: Vec<EventNum>,
    /// Of state events: the auth events it names.
    pub auth_events: Vec<EventNum>,
    /// State before it; none for the create event.
    pub snapshot_before: Option<SnapshotNum>,
    /// Current state of the room after it, if it moved.
    pub snapshot_after: Option<SnapshotNum>,
    /// Of state events: the state after it on its own branch.
    pub state_after: Option<SnapshotNum>,
    /// The timeline alone does not tell what it did: others' state moved with it, or a gap lies behind it.
    pub aside: bool,
    /// History visibility at it.
    pub visibility: Visibility,
    /// Its place in the room.
    pub room_order: i64,
    /// Whom it notifies.
    pub push: EventPush,
    /// Running count of what notifies in the main timeline, itself included if it is there.
    pub unread: i64,
    /// Running count of what notifies in its thread, itself included.
    pub unread_thread: i64,
    /// Its sender is ours and shows by it that he has read its timeline.
    pub reads: bool,
    /// A user of ours comes in by it.
    pub joins: Option<UserNum>,
    /// The local device that sent it, and its transaction id.
    pub txn: Option<(DeviceNum, Arc<str>)>,
    /// The event it redacts, if it may.
    pub redacts: Option<EventNum>,
    /// The event that redacted it before it came.
    pub redacted_by: Option<EventNum>,
    /// The event it relates to and how.
    pub relates_to: Option<(EventNum, String)>,
    /// Root of the thread it belongs to, and its id.
    pub thread: Option<(EventNum, Arc<str>)>,
    /// The state event that it replaces.
    pub replaces: Option<EventNum>,
    /// For `m.room.member`.
    pub member: Option<MemberChange>,
    /// Other memberships that were decided between branches with it.
    pub decided: Vec<DecidedMember>,
    /// It is for us to send it to the other servers in the room.
    pub outbound: bool,
}

/// A membership that changed without an event of its own, by state resolution.
#[derive(Clone, Debug)]
pub struct DecidedMember {
    /// The member event that stands now; the one that stood if none does.
    pub event: EventNum,
    /// Its sender.
    pub sender: UserNum,
    /// What it does.
    pub change: MemberChange,
}

/// What a member event does.
#[derive(Clone, Debug)]
pub struct MemberChange {
    /// Whose membership.
    pub user: UserNum,
    /// The user's server.
    pub server: StringNum,
    /// The user is ours.
    pub local: bool,
    /// What it was.
    pub before: Option<Membership>,
    /// What it is from now on.
    pub after: Membership,
    /// For invites and knocks of local users: the stripped state, a JSON array.
    pub stripped: Option<String>,
    /// Members of the room who are joined and who are invited, with it.
    pub counts: (i64, i64),
}

/// Access to events.
pub struct Events<'t, 'c> {
    pub(super) tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Events.
    pub fn events(&mut self) -> Events<'_, 'c> {
        Events { tx: self }
    }
}

impl Events<'_, '_> {
    /// The number of an event id in a room, if it was ever heard of there. Each room has numbers of its own: what one says of an
    /// id is nothing to another.
    pub fn num(&mut self, room: &RoomRecord, event_id: &EventId) -> Result<Option<EventNum>, StoreError> {
        self.tx.one(
            "SELECT num FROM event_ids WHERE event_id = $1 AND room = $2",
            &[event_id.as_str().as_bytes().into(), room.num.into()],
            |row| Ok(EventNum(row.int(0)?)),
        )
    }

    /// The number of an event id, given to it now if it has none. Only in writes.
    pub fn intern(&mut self, room: &RoomRecord, event_id: &EventId) -> Result<EventNum, StoreError> {
        if let Some(num) = self.num(room, event_id)? {
            return Ok(num);
        }
        let num = self.next_num()?;
        self.tx.exec(
            "INSERT INTO event_ids (num, room, event_id) VALUES ($1, $2, $3)",
            &[num.into(), room.num.into(), event_id.as_str().as_bytes().into()],
        )?;
        Ok(num)
    }

    /// A number for an event whose id nobody has heard of: a fresh one of ours.
    pub fn next_num(&mut self) -> Result<EventNum, StoreError> {
        self.tx.next_number(Counter::Events).map(EventNum)
    }

    /// Such a number that is greater than others: those of the events that allow it.
    pub fn next_num_above(&mut self, others: &[EventNum]) -> Result<EventNum, StoreError> {
        let above = others.iter().max().map_or(i64::MIN, |num| num.0);
        self.tx.next_number_above(Counter::Events, above).map(EventNum)
    }

    /// The id behind a number.
    pub fn id(&mut self, num: EventNum) -> Result<OwnedEventId, StoreError> {
        if let Some(pdu) = self.tx.learned.pdu(num).or_else(|| self.tx.caches.pdu(num)) {
            return Ok(pdu.event_id.clone());
        }
        self.tx
            .one("SELECT event_id FROM event_ids WHERE num = $1", &[num.into()], |row| {
                OwnedEventId::try_from(row.utf8(0)?).map_err(|_| StoreError::Damaged(format!("event id {}", num.0)))
            })?
            .ok_or_else(|| StoreError::Damaged(format!("event {} has no id", num.0)))
    }

    /// The ids behind many numbers, in the order asked.
    pub fn ids(&mut self, nums: &[EventNum]) -> Result<Vec<OwnedEventId>, StoreError> {
        let asked: Vec<i64> = nums.iter().map(|num| num.0).collect();
        let found: FxHashMap<EventNum, OwnedEventId> = self
            .tx
            .query("SELECT num, event_id FROM event_ids WHERE num IN ints($1)", &[asked[..].into()], |row| {
                let num = EventNum(row.int(0)?);
                let id = OwnedEventId::try_from(row.utf8(1)?);
                Ok((num, id.map_err(|_| StoreError::Damaged(format!("event id {}", num.0)))?))
            })?
            .into_iter()
            .collect();
        let id = |num: &EventNum| {
            found.get(num).cloned().ok_or_else(|| StoreError::Damaged(format!("event {} has no id", num.0)))
        };
        nums.iter().map(id).collect()
    }

    /// An event of a room, if we have it.
    pub fn by_id(&mut self, room: &RoomRecord, event_id: &EventId) -> Result<Option<EventRow>, StoreError> {
        match self.num(room, event_id)? {
            Some(num) => Ok(self.row(num)?.filter(|row| row.room == room.num)),
            None => Ok(None),
        }
    }

    /// Rooms in which there is an event of this id: more than one only in room versions 1 and 2, of those the first ten.
    pub fn rooms_of_id(&mut self, event_id: &EventId) -> Result<Vec<RoomNum>, StoreError> {
        self.tx.query(
            "SELECT e.room FROM event_ids i CROSS JOIN events e
             WHERE i.event_id = $1 AND e.num = i.num ORDER BY e.num LIMIT 10",
            &[event_id.as_str().as_bytes().into()],
            |row| Ok(RoomNum(row.int(0)?)),
        )
    }

    /// One event's row.
    pub fn row(&mut self, num: EventNum) -> Result<Option<EventRow>, StoreError> {
        self.tx.one(select_events!("WHERE e.num = $1"), &[num.into()], event_row)
    }

    /// Rows of many events, in no particular order.
    pub fn rows(&mut self, nums: &[i64]) -> Result<Vec<EventRow>, StoreError> {
        if nums.is_empty() {
            return Ok(Vec::new());
        }
        self.tx.query(select_events!("WHERE e.num IN ints($1)"), &[nums.into()], event_row)
    }

    /// Those of some events that were redacted.
    pub fn redacted_among(&mut self, nums: &[i64]) -> Result<Vec<EventNum>, StoreError> {
        self.tx.query(
            "SELECT num FROM events WHERE num IN ints($1) AND redacted_by IS NOT NULL",
            &[nums.into()],
            |row| Ok(EventNum(row.int(0)?)),
        )
    }

    /// One event.
    pub fn pdu(&mut self, room: &RoomRecord, num: EventNum) -> Result<Arc<Pdu>, StoreError> {
        if let Some(pdu) = self.tx.learned.pdu(num).or_else(|| self.tx.caches.pdu(num)) {
            return Ok(pdu);
        }
        let mut found = self.pdus(room, &[num])?;
        found.pop().ok_or_else(|| StoreError::Damaged(format!("event {} has no JSON", num.0)))
    }

    /// Many events of one room, in the order asked; those whose JSON was deleted are left out.
    pub fn pdus(&mut self, room: &RoomRecord, nums: &[EventNum]) -> Result<Vec<Arc<Pdu>>, StoreError> {
        let missing: Vec<i64> = nums
            .iter()
            .filter(|num| self.tx.learned.pdu(**num).or_else(|| self.tx.caches.pdu(**num)).is_none())
            .map(|num| num.0)
            .collect();
        if !missing.is_empty() {
            let loaded = self.tx.query(
                "SELECT j.num, j.json, i.event_id FROM event_json j JOIN event_ids i ON i.num = j.num
                 WHERE j.num IN ints($1)",
                &[missing[..].into()],
                |row| {
                    let num = EventNum(row.int(0)?);
                    let damaged = || StoreError::Damaged(format!("event {}", num.0));
                    let event_id = <&EventId>::try_from(row.utf8(2)?).map_err(|_| damaged())?;
                    let pdu = Pdu::from_stored(row.utf8(1)?.into(), event_id, &room.room_id, room.rules)
                        .map_err(|_| damaged())?;
                    Ok((num, Arc::new(pdu)))
                },
            )?;
            for (num, pdu) in loaded {
                self.tx.learned.learn_pdu(num, pdu);
            }
        }
        Ok(nums.iter().filter_map(|num| self.tx.learned.pdu(*num).or_else(|| self.tx.caches.pdu(*num))).collect())
    }

    /// The events that a device's transactions with this id made in a room, oldest first: one for each path it came on.
    pub fn of_txn(&mut self, room: RoomNum, device: DeviceNum, txn_id: &str) -> Result<Vec<EventNum>, StoreError> {
        self.tx.query(
            "SELECT num FROM events WHERE txn_device = $1 AND txn_id = $2 AND room = $3 ORDER BY num",
            &[device.into(), txn_id.as_bytes().into(), room.into()],
            |row| Ok(EventNum(row.int(0)?)),
        )
    }

    /// The newest live events of a room in `after < position <= upto`, newest first.
    pub fn newest(
        &mut self,
        room: RoomNum,
        after: Position,
        upto: Position,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        self.tx.query(
            select_events!(
                "WHERE e.room = $1 AND e.position > $2 AND e.position <= $3 AND e.standing = 0
                 ORDER BY e.position DESC LIMIT $4"
            ),
            &[room.into(), after.into(), upto.into(), limit.into()],
            event_row,
        )
    }

    /// Events of a room before a place in room order (exclusive), newest first.
    pub fn before(&mut self, room: RoomNum, place: RoomPlace, limit: i64) -> Result<Vec<EventRow>, StoreError> {
        self.tx.query(
            select_events!(
                "WHERE e.room = $1 AND (e.room_order, e.num) < ($2, $3) AND e.standing = 0
                 ORDER BY e.room_order DESC, e.num DESC LIMIT $4"
            ),
            &[room.into(), place.room_order.into(), place.num.into(), limit.into()],
            event_row,
        )
    }

    /// Events of a room from a place in room order on (inclusive), oldest first.
    pub fn from(&mut self, room: RoomNum, place: RoomPlace, limit: i64) -> Result<Vec<EventRow>, StoreError> {
        self.tx.query(
            select_events!(
                "WHERE e.room = $1 AND (e.room_order, e.num) >= ($2, $3) AND e.standing = 0
                 ORDER BY e.room_order, e.num LIMIT $4"
            ),
            &[room.into(), place.room_order.into(), place.num.into(), limit.into()],
            event_row,
        )
    }

    /// Where in room order a reader at a position stands: right behind the events at or before it. What came last may have its
    /// place before what came a little earlier.
    pub fn place_at(&mut self, room: RoomNum, at: Position) -> Result<RoomPlace, StoreError> {
        let place = self.tx.one(
            "SELECT room_order, num FROM
                 (SELECT room_order, num FROM events WHERE room = $1 AND position <= $2 AND standing = 0
                  ORDER BY position DESC LIMIT 100) newest
             ORDER BY room_order DESC, num DESC LIMIT 1",
            &[room.into(), at.into()],
            |row| Ok(RoomPlace { room_order: row.int(0)?, num: EventNum(row.int(1)? + 1) }),
        )?;
        Ok(place.unwrap_or(RoomPlace::START))
    }

    /// Children that relate to an event in one way, oldest first.
    pub fn relations(&mut self, parent: EventNum, rel: StringNum) -> Result<Vec<EventNum>, StoreError> {
        self.tx.query(
            "SELECT child FROM relations WHERE parent = $1 AND rel = $2 ORDER BY child",
            &[parent.into(), rel.into()],
            |row| Ok(EventNum(row.int(0)?)),
        )
    }

    /// Live events of one sender and type that relate to an event in one way.
    pub fn relations_of(
        &mut self,
        room: RoomNum,
        parent: EventNum,
        rel: StringNum,
        sender: UserNum,
        kind: StringNum,
    ) -> Result<Vec<EventNum>, StoreError> {
        self.tx.query(
            "SELECT e.num FROM relations r JOIN events e ON e.num = r.child
             WHERE r.parent = $1 AND r.rel = $2 AND r.room = $3
               AND e.sender = $4 AND e.kind = $5 AND e.standing = 0 AND e.redacted_by IS NULL",
            &[parent.into(), rel.into(), room.into(), sender.into(), kind.into()],
            |row| Ok(EventNum(row.int(0)?)),
        )
    }

    /// Live events of a room that relate to an event, in one way or in all, before a place in room order (exclusive), newest first.
    /// Redacted ones relate to nothing any more.
    pub fn related_before(
        &mut self,
        room: RoomNum,
        parent: EventNum,
        rel: Option<StringNum>,
        place: RoomPlace,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        self.tx.query(
            select_events!(
                "WHERE e.num IN (SELECT child FROM relations WHERE parent = $1 AND room = $6 AND ($2 = 0 OR rel = $2))
                   AND (e.room_order, e.num) < ($3, $4) AND e.standing = 0 AND e.redacted_by IS NULL
                 ORDER BY e.room_order DESC, e.num DESC LIMIT $5"
            ),
            &[
                parent.into(),
                rel.map_or(0, |rel| rel.0).into(),
                place.room_order.into(),
                place.num.into(),
                limit.into(),
                room.into(),
            ],
            event_row,
        )
    }

    /// The same from a place in room order on (inclusive), oldest first.
    pub fn related_from(
        &mut self,
        room: RoomNum,
        parent: EventNum,
        rel: Option<StringNum>,
        place: RoomPlace,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        self.tx.query(
            select_events!(
                "WHERE e.num IN (SELECT child FROM relations WHERE parent = $1 AND room = $6 AND ($2 = 0 OR rel = $2))
                   AND (e.room_order, e.num) >= ($3, $4) AND e.standing = 0 AND e.redacted_by IS NULL
                 ORDER BY e.room_order, e.num LIMIT $5"
            ),
            &[
                parent.into(),
                rel.map_or(0, |rel| rel.0).into(),
                place.room_order.into(),
                place.num.into(),
                limit.into(),
                room.into(),
            ],
            event_row,
        )
    }

    /// What relates in a room to any of these events, and how, in no particular order; at most `limit`.
    pub fn children(
        &mut self,
        room: RoomNum,
        parents: &[i64],
        limit: i64,
    ) -> Result<Vec<(EventNum, StringNum)>, StoreError> {
        self.tx.query(
            "SELECT child, rel FROM relations WHERE parent IN ints($1) AND room = $2 LIMIT $3",
            &[parents.into(), room.into(), limit.into()],
            |row| Ok((EventNum(row.int(0)?), StringNum(row.int(1)?))),
        )
    }

    /// Live events of a room stated to be sent at a time or later, behind a row that was given (exclusive), oldest first.
    pub fn since_time(
        &mut self,
        room: RoomNum,
        ts: i64,
        behind: RoomPlace,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        self.tx.query(
            select_events!(
                "WHERE e.room = $1 AND (e.origin_server_ts, e.room_order, e.num) > ($2, $3, $4) AND e.standing = 0
                 ORDER BY e.origin_server_ts, e.room_order, e.num LIMIT $5"
            ),
            &[room.into(), ts.into(), behind.room_order.into(), behind.num.into(), limit.into()],
            event_row,
        )
    }

    /// Those stated to be sent at a time or earlier, before a row that was given (exclusive), newest first.
    pub fn until_time(
        &mut self,
        room: RoomNum,
        ts: i64,
        before: RoomPlace,
        limit: i64,
    ) -> Result<Vec<EventRow>, StoreError> {
        self.tx.query(
            select_events!(
                "WHERE e.room = $1 AND (e.origin_server_ts, e.room_order, e.num) < ($2, $3, $4) AND e.standing = 0
                 ORDER BY e.origin_server_ts DESC, e.room_order DESC, e.num DESC LIMIT $5"
            ),
            &[room.into(), ts.into(), before.room_order.into(), before.num.into(), limit.into()],
            event_row,
        )
    }

    /// Appends live events of one room, in order, and moves its tip. Everything was decided before.
    pub fn append(&mut self, room: &RoomRecord, events: &[NewEvent], tip: &Tip) -> Result<(), StoreError> {
        let mut publications = Vec::with_capacity(events.len());
        for event in events {
            publications.push(self.insert(room, event, tip.partial)?);
            publications.extend(event.decided.iter().map(|decided| decide_membership(room, decided)));
        }
        let Some(last) = publications.pop() else { return Ok(()) };
        let outbound = events.iter().any(|event| event.outbound);
        publications.push(move_tip(last, room.num, tip, outbound));
        publications.into_iter().for_each(|publication| self.tx.publish(publication));
        Ok(())
    }

    fn insert(&mut self, room: &RoomRecord, event: &NewEvent, partial: bool) -> Result<Publication, StoreError> {
        let pdu = &event.pdu;
        let num = event.num;
        let kind = self.tx.intern(&pdu.kind)?;
        let state_key = pdu.state_key.as_deref().map(|key| self.tx.intern(key)).transpose()?;
        let sender = self.tx.intern(pdu.sender.as_str())?;
        let graph = Graph {
            prev_events: &event.prev_events,
            auth_events: &event.auth_events,
            relates_to: event.relates_to.as_ref().map(|(parent, rel)| (*parent, &**rel)),
        };
        self.insert_facts(room, num, pdu, &graph)?;

        let mut publication = Publication::new(Change::Event(Arc::new(FeedEvent {
            room: room.num,
            num,
            kind,
            state_key,
            sender,
            pdu: pdu.clone(),
            rules: room.rules,
            visibility: event.visibility,
            snapshot_before: event.snapshot_before,
            snapshot_after: event.snapshot_after,
            push: event.push.clone(),
            thread: event.thread.as_ref().map(|(_, root)| root.clone()),
            txn: event.txn.clone(),
            replaces: event.replaces,
            redacts: event.redacts,
            membership: event.member.as_ref().map(|m| (m.user, m.before, m.after)),
            member_counts: event.member.as_ref().map(|m| m.counts),
            aside: event.aside,
            outbound: event.outbound,
            partial,
        })));
        publication.exec(
            "INSERT INTO events (num, room, kind, state_key, sender, standing, moved, position, room_order, depth,
                 origin_server_ts, snapshot_before, visibility, thread, outcome, unread, unread_thread, txn_device,
                 txn_id, snapshot_after, redacted_by, outbound)
             VALUES ($1, $2, $3, $4, $5, $6, position($7), position($7), $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,
                 $18, $19, $20, $21)
             ON CONFLICT (num) DO UPDATE SET outbound = excluded.outbound, standing = excluded.standing, moved = excluded.moved,
                 position = excluded.position, room_order = excluded.room_order,
                 snapshot_before = excluded.snapshot_before, snapshot_after = excluded.snapshot_after,
                 visibility = excluded.visibility, thread = excluded.thread, outcome = excluded.outcome,
                 unread = excluded.unread, unread_thread = excluded.unread_thread,
                 redacted_by = COALESCE(events.redacted_by, excluded.redacted_by)",
            &[
                num.into(),
                room.num.into(),
                kind.into(),
                state_key.into(),
                sender.into(),
                (Standing::Live as i64).into(),
                Value::Position,
                event.room_order.into(),
                i64::try_from(pdu.depth).unwrap_or(i64::MAX).into(),
                pdu.origin_server_ts.into(),
                event.snapshot_before.into(),
                (event.visibility as i64).into(),
                event.thread.as_ref().map(|(root, _)| *root).into(),
                event.push.outcome.into(),
                event.unread.into(),
                event.unread_thread.into(),
                event.txn.as_ref().map(|(device, _)| *device).into(),
                event.txn.as_ref().map(|(_, txn_id)| txn_id.as_bytes()).into(),
                event.state_after.into(),
                event.redacted_by.into(),
                event.outbound.into(),
            ],
        );
        notifications::publish(&mut publication, room.num, sender, event);
        if let Some(redacted) = event.redacts {
            publication.exec(
                "UPDATE events SET redacted_by = $1, moved = position($2)
                 WHERE num = $3 AND room = $4 AND redacted_by IS NULL",
                &[num.into(), Value::Position, redacted.into(), room.num.into()],
            );
        }
        if let Some(snapshot) = event.snapshot_after {
            publication.exec(
                "INSERT INTO room_state (room, position, snapshot) VALUES ($1, position($2), $3)",
                &[room.num.into(), Value::Position, snapshot.into()],
            );
        }
        if let Some(member) = &event.member {
            if event.outbound {
                send_aside(&mut publication, room.num, num, member);
            }
            change_membership(&mut publication, room.num, num, sender, member);
        }
        Ok(publication)
    }
}

/// Where a reader stands in a room: between the event with this room order and number, and the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct RoomPlace {
    /// Room order.
    pub room_order: i64,
    /// Event number.
    pub num: EventNum,
}

impl RoomPlace {
    /// Before everything.
    pub const START: Self = Self { room_order: i64::MIN, num: EventNum(0) };
    /// After everything.
    pub const END: Self = Self { room_order: i64::MAX, num: EventNum(i64::MAX) };

    /// Right before an event.
    pub fn before(event: &EventRow) -> Self {
        Self { room_order: event.room_order, num: event.num }
    }

    /// Right after an event.
    pub fn after(event: &EventRow) -> Self {
        Self { room_order: event.room_order, num: EventNum(event.num.0 + 1) }
    }
}

/// The end of an invite or of a knock is told to the user's server, which has no members in the room yet.
fn send_aside(publication: &mut Publication, room: RoomNum, event: EventNum, member: &MemberChange) {
    let was_outside = matches!(member.before, Some(Membership::Invite | Membership::Knock));
    if member.local || !was_outside || !matches!(member.after, Membership::Leave | Membership::Ban) {
        return;
    }
    publication.exec(
        "INSERT INTO deliveries_aside (server, position, event)
         SELECT CAST($1 AS BIGINT), position($2), CAST($3 AS BIGINT)
         WHERE NOT EXISTS (SELECT 1 FROM room_servers WHERE room = $4 AND server = $1 AND until IS NULL)",
        &[member.server.into(), Value::Position, event.into(), room.into()],
    );
}

pub(super) fn move_tip(mut publication: Publication, room: RoomNum, tip: &Tip, outbound: bool) -> Publication {
    let extremities: Vec<u8> = tip.extremities.iter().flat_map(|num| num.0.to_be_bytes()).collect();
    publication.exec(
        "INSERT INTO room_tips (room, extremities, depth, room_order, snapshot, last_position, last_local_position,
             joined, invited, knocked, joined_local, unread, partial_state, policy)
         VALUES ($1, $2, $3, $4, $5, position($6), position($6), $7, $8, $9, $10, $11, $13, $14)
         ON CONFLICT (room) DO UPDATE SET extremities = excluded.extremities, depth = excluded.depth,
             room_order = excluded.room_order, snapshot = excluded.snapshot, last_position = excluded.last_position,
             last_local_position =
                 CASE WHEN $12 = 1 THEN excluded.last_local_position ELSE room_tips.last_local_position END, joined = excluded.joined, invited = excluded.invited,
             knocked = excluded.knocked, joined_local = excluded.joined_local, unread = excluded.unread,
             policy = excluded.policy,
             partial_state =
                 CASE WHEN $13 < 0 THEN -1 WHEN room_tips.partial_state < 0 THEN excluded.last_position
                      ELSE room_tips.partial_state END",
        &[
            room.into(),
            extremities[..].into(),
            tip.depth.into(),
            tip.room_order.into(),
            tip.snapshot.map_or(0, |s| s.0).into(),
            Value::Position,
            tip.joined.into(),
            tip.invited.into(),
            tip.knocked.into(),
            tip.joined_local.into(),
            tip.unread.into(),
            outbound.into(),
            (-i64::from(tip.partial)).into(),
            tip.policy.map_or(0, |policy| policy.0).into(),
        ],
    );
    publication
}

fn change_membership(
    publication: &mut Publication,
    room: RoomNum,
    event: EventNum,
    sender: UserNum,
    member: &MemberChange,
) {
    let joins = i64::from(member.after == Membership::Join) - i64::from(member.before == Some(Membership::Join));
    count_server(publication, room, member.server, joins);
    if member.before == Some(member.after) {
        // The same membership with another profile or reason: the interval goes on.
        publication.exec(
            "UPDATE memberships SET event = $1, sender = $2, via = NULL WHERE room = $3 AND usr = $4 AND until IS NULL",
            &[event.into(), sender.into(), room.into(), member.user.into()],
        );
        return;
    }
    // There may be one also where the state before knew none: state resolution can take a membership away.
    publication.exec(
        "UPDATE memberships SET until = position($1) WHERE room = $2 AND usr = $3 AND until IS NULL",
        &[Value::Position, room.into(), member.user.into()],
    );
    publication.exec(
        "INSERT INTO memberships (room, usr, since, membership, event, sender, local, forgotten, stripped, server)
         VALUES ($1, $2, position($3), $4, $5, $6, $7, 0, $8, $9)",
        &[
            room.into(),
            member.user.into(),
            Value::Position,
            (member.after as i64).into(),
            event.into(),
            sender.into(),
            member.local.into(),
            member.stripped.as_deref().map(str::as_bytes).into(),
            (!member.local).then_some(member.server).into(),
        ],
    );
}

pub(super) fn decide_membership(room: &RoomRecord, decided: &DecidedMember) -> Publication {
    let DecidedMember { event, sender, change } = decided;
    let mut publication = Publication::new(Change::MemberDecided(Arc::new(crate::FeedDecision {
        room: room.num,
        room_id: room.room_id.clone(),
        user: change.user,
        after: change.after,
    })));
    change_membership(&mut publication, room.num, *event, *sender, change);
    publication
}

/// One member more or less of a server.
fn count_server(publication: &mut Publication, room: RoomNum, server: StringNum, joins: i64) {
    if joins == 0 {
        return;
    }
    if joins > 0 {
        publication.exec(
            "INSERT INTO room_servers (room, server, since, joined) SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), position($3), 0
             WHERE NOT EXISTS (SELECT 1 FROM room_servers WHERE room = $1 AND server = $2 AND until IS NULL)",
            &[room.into(), server.into(), Value::Position],
        );
    }
    publication.exec(
        "UPDATE room_servers SET joined = joined + $1 WHERE room = $2 AND server = $3 AND until IS NULL",
        &[joins.into(), room.into(), server.into()],
    );
    if joins < 0 {
        publication.exec(
            "UPDATE room_servers SET until = position($1) WHERE room = $2 AND server = $3 AND until IS NULL AND joined <= 0",
            &[Value::Position, room.into(), server.into()],
        );
    }
}
