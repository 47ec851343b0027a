//! Rooms: what never changes about one, its tip, its aliases, and the public directory.

use std::sync::Arc;

use hearth_matrix::ruma::{OwnedRoomId, RoomAliasId, RoomId, RoomVersionId};
use hearth_matrix::{RoomVersionRules, rules};

use crate::engine::Counter;
use crate::{EventNum, Position, RoomNum, Row, SnapshotNum, StoreError, StringNum, Tx, UserNum};

/// What never changes about a room.
#[derive(Debug)]
pub struct RoomRecord {
    /// Its number.
    pub num: RoomNum,
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    /// The rules of its version.
    pub rules: &'static RoomVersionRules,
    /// Sender of its create event.
    pub creator: UserNum,
    /// `type` of its create event.
    pub room_type: Option<String>,
    /// False if servers other than the creator's are shut out for ever (`m.federate`).
    pub federate: bool,
    /// When it was created, milliseconds since the epoch.
    pub created_ts: i64,
    /// Invites and knocks alone tell of the room: until we come in, all of this may be wrong.
    pub hearsay: bool,
}

/// What changes with nearly every event of a room.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tip {
    /// Forward extremities, newest first.
    pub extremities: Vec<EventNum>,
    /// Greatest depth among them.
    pub depth: i64,
    /// Greatest room order.
    pub room_order: i64,
    /// Current state, resolved over all forward extremities. None before the first state event.
    pub snapshot: Option<SnapshotNum>,
    /// Of the newest event with a position.
    pub last_position: Position,
    /// Of the newest event of a local sender.
    pub last_local_position: Position,
    /// Joined members.
    pub joined: i64,
    /// Invited members.
    pub invited: i64,
    /// Knocking users.
    pub knocked: i64,
    /// Joined members that are ours.
    pub joined_local: i64,
    /// Running count of the events that the default push rules notify for.
    pub unread: i64,
    /// The `m.room.policy` event of the current state.
    pub policy: Option<EventNum>,
    /// A part of the state is not here yet: see [`Partials`](crate::Partials).
    pub partial: bool,
}

impl Tip {
    /// The tip of a room without events.
    pub fn empty() -> Self {
        Self {
            extremities: Vec::new(),
            depth: 0,
            room_order: 0,
            snapshot: None,
            last_position: Position(0),
            last_local_position: Position(0),
            joined: 0,
            invited: 0,
            knocked: 0,
            joined_local: 0,
            unread: 0,
            policy: None,
            partial: false,
        }
    }
}

/// What readers of many rooms need of their tips.
#[derive(Clone, Copy, Debug)]
pub struct RoomHead {
    /// The room.
    pub room: RoomNum,
    /// Current state.
    pub snapshot: Option<SnapshotNum>,
    /// Of the newest event with a position.
    pub last_position: Position,
    /// Joined members.
    pub joined: i64,
    /// Invited members.
    pub invited: i64,
    /// Running count of the events that the default push rules notify for.
    pub unread: i64,
    /// A part of the state is not here yet.
    pub partial: bool,
    /// When the last part of it came, of a room that we came into without.
    pub completed: Position,
}

/// A room in the public directory.
#[derive(Clone, Debug)]
pub struct PublishedRoom {
    /// The room.
    pub room: Arc<RoomRecord>,
    /// Its current state.
    pub snapshot: Option<SnapshotNum>,
    /// Joined members.
    pub joined: i64,
}

/// Access to rooms.
pub struct RoomNouns<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Rooms.
    pub fn rooms(&mut self) -> RoomNouns<'_, 'c> {
        RoomNouns { tx: self }
    }
}

impl RoomNouns<'_, '_> {
    /// A room by its id.
    pub fn by_id(&mut self, room_id: &RoomId) -> Result<Option<Arc<RoomRecord>>, StoreError> {
        let text = room_id.as_str();
        if let Some(room) = self.tx.learned.room_by_id(text).or_else(|| self.tx.caches.room_by_id(text)) {
            return Ok(Some(room));
        }
        let found = self.tx.one(
            "SELECT num, room_id, version, creator, room_type, federate, created_ts, hearsay FROM rooms WHERE room_id = $1",
            &[text.as_bytes().into()],
            record,
        )?;
        Ok(found.map(|room| self.learn(room)))
    }

    /// A room by its number.
    pub fn by_num(&mut self, num: RoomNum) -> Result<Arc<RoomRecord>, StoreError> {
        if let Some(room) = self.tx.learned.room(num).or_else(|| self.tx.caches.room(num)) {
            return Ok(room);
        }
        let room = self
            .tx
            .one(
                "SELECT num, room_id, version, creator, room_type, federate, created_ts, hearsay FROM rooms WHERE num = $1",
                &[num.into()],
                record,
            )?
            .ok_or_else(|| StoreError::Damaged(format!("room {} is gone", num.0)))?;
        Ok(self.learn(room))
    }

    fn learn(&mut self, room: RoomRecord) -> Arc<RoomRecord> {
        let room = Arc::new(room);
        // What may change is not remembered.
        if !room.hearsay {
            self.tx.learned.learn_room(room.clone());
        }
        room
    }

    /// A record for a room to be, with a number of its own. Nothing is written.
    pub fn prepare(
        &mut self,
        room_id: &RoomId,
        version: &RoomVersionId,
        creator: UserNum,
        room_type: Option<String>,
        federate: bool,
        created_ts: i64,
    ) -> Result<RoomRecord, StoreError> {
        let rules = rules(version).ok_or_else(|| StoreError::Damaged(format!("room version {version} is unknown")))?;
        Ok(RoomRecord {
            num: RoomNum(self.tx.next_number(Counter::Rooms)?),
            room_id: room_id.to_owned(),
            version: version.clone(),
            rules,
            creator,
            room_type,
            federate,
            created_ts,
            hearsay: false,
        })
    }

    /// Makes a prepared room known. Its events come with [`append`](crate::Events::append).
    pub fn insert(&mut self, room: &Arc<RoomRecord>) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO rooms (num, room_id, version, creator, room_type, federate, created_ts, hearsay)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
            &[
                room.num.into(),
                room.room_id.as_str().as_bytes().into(),
                room.version.as_str().into(),
                room.creator.into(),
                room.room_type.as_deref().map(str::as_bytes).into(),
                room.federate.into(),
                room.created_ts.into(),
                room.hearsay.into(),
            ],
        )?;
        if !room.hearsay {
            self.tx.learned.learn_room(room.clone());
        }
        Ok(())
    }

    /// Writes anew what we know of a room by hearsay. From now on it stands, unless the record says otherwise.
    pub fn revise(&mut self, room: &Arc<RoomRecord>) -> Result<(), StoreError> {
        self.tx.exec(
            "UPDATE rooms SET version = $1, creator = $2, room_type = $3, federate = $4, created_ts = $5, hearsay = $6
             WHERE num = $7 AND hearsay = 1",
            &[
                room.version.as_str().into(),
                room.creator.into(),
                room.room_type.as_deref().map(str::as_bytes).into(),
                room.federate.into(),
                room.created_ts.into(),
                room.hearsay.into(),
                room.num.into(),
            ],
        )?;
        if !room.hearsay {
            self.tx.learned.learn_room(room.clone());
        }
        Ok(())
    }

    /// We have come into a room of which we knew by hearsay: what we were told of it last stands from now on.
    pub fn confirm(&mut self, room: &RoomRecord) -> Result<(), StoreError> {
        let RoomRecord { num, version, rules, creator, federate, created_ts, .. } = room;
        let confirmed = RoomRecord {
            num: *num,
            room_id: room.room_id.clone(),
            version: version.clone(),
            rules,
            creator: *creator,
            room_type: room.room_type.clone(),
            federate: *federate,
            created_ts: *created_ts,
            hearsay: false,
        };
        self.revise(&Arc::new(confirmed))
    }

    /// The tip; none before the room's first event.
    pub fn tip(&mut self, room: RoomNum) -> Result<Option<Tip>, StoreError> {
        self.tx.one(
            "SELECT extremities, depth, room_order, snapshot, last_position, last_local_position,
                    joined, invited, knocked, joined_local, unread, partial_state, policy
             FROM room_tips WHERE room = $1",
            &[room.into()],
            |row| {
                let extremities = row.bytes(0)?.chunks_exact(8).filter_map(|c| c.try_into().ok());
                let snapshot = row.int(3)?;
                Ok(Tip {
                    extremities: extremities.map(|c| EventNum(i64::from_be_bytes(c))).collect(),
                    depth: row.int(1)?,
                    room_order: row.int(2)?,
                    snapshot: (snapshot != 0).then_some(SnapshotNum(snapshot)),
                    last_position: Position(row.int(4)?),
                    last_local_position: Position(row.int(5)?),
                    joined: row.int(6)?,
                    invited: row.int(7)?,
                    knocked: row.int(8)?,
                    joined_local: row.int(9)?,
                    unread: row.int(10)?,
                    partial: row.int(11)? < 0,
                    policy: Some(row.int(12)?).filter(|num| *num != 0).map(EventNum),
                })
            },
        )
    }

    /// The heads of many rooms, in no particular order.
    pub fn heads(&mut self, rooms: &[i64]) -> Result<Vec<RoomHead>, StoreError> {
        self.tx.query(
            "SELECT room, snapshot, last_position, joined, invited, unread, partial_state FROM room_tips WHERE room IN ints($1)",
            &[rooms.into()],
            |row| {
                let snapshot = row.int(1)?;
                Ok(RoomHead {
                    room: RoomNum(row.int(0)?),
                    snapshot: (snapshot != 0).then_some(SnapshotNum(snapshot)),
                    last_position: Position(row.int(2)?),
                    joined: row.int(3)?,
                    invited: row.int(4)?,
                    unread: row.int(5)?,
                    partial: row.int(6)? < 0,
                    completed: Position(row.int(6)?.max(0)),
                })
            },
        )
    }

    /// The current state of a room at or before a position.
    pub fn snapshot_at(&mut self, room: RoomNum, at: Position) -> Result<Option<SnapshotNum>, StoreError> {
        self.tx.one(
            "SELECT snapshot FROM room_state WHERE room = $1 AND position <= $2 ORDER BY position DESC LIMIT 1",
            &[room.into(), at.into()],
            |row| Ok(SnapshotNum(row.int(0)?)),
        )
    }

    /// The room an alias points to and who made it.
    pub fn alias(&mut self, alias: &RoomAliasId) -> Result<Option<(RoomNum, UserNum)>, StoreError> {
        self.tx.one("SELECT room, creator FROM aliases WHERE alias = $1", &[alias.as_str().as_bytes().into()], |row| {
            Ok((RoomNum(row.int(0)?), StringNum(row.int(1)?)))
        })
    }

    /// Points an alias to a room. False if it points somewhere already. The caller holds the alias's name as a noun.
    pub fn add_alias(&mut self, alias: &RoomAliasId, room: RoomNum, creator: UserNum) -> Result<bool, StoreError> {
        if self.alias(alias)?.is_some() {
            return Ok(false);
        }
        self.tx.exec(
            "INSERT INTO aliases (alias, room, creator) VALUES ($1, $2, $3)",
            &[alias.as_str().as_bytes().into(), room.into(), creator.into()],
        )?;
        Ok(true)
    }

    /// Removes an alias.
    pub fn remove_alias(&mut self, alias: &RoomAliasId) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM aliases WHERE alias = $1", &[alias.as_str().as_bytes().into()])
    }

    /// The aliases on this server of a room, sorted.
    pub fn aliases(&mut self, room: RoomNum) -> Result<Vec<String>, StoreError> {
        self.tx.query("SELECT alias FROM aliases WHERE room = $1 ORDER BY alias", &[room.into()], |row| {
            Ok(row.utf8(0)?.to_owned())
        })
    }

    /// Whether the public directory lists a room.
    pub fn is_published(&mut self, room: RoomNum) -> Result<bool, StoreError> {
        Ok(self.tx.one("SELECT 1 FROM published_rooms WHERE room = $1", &[room.into()], |_| Ok(()))?.is_some())
    }

    /// Lists a room in the public directory, or takes it out.
    pub fn set_published(&mut self, room: RoomNum, published: bool) -> Result<(), StoreError> {
        if published {
            self.tx.exec("INSERT INTO published_rooms (room) VALUES ($1) ON CONFLICT (room) DO NOTHING", &[room.into()])
        } else {
            self.tx.exec("DELETE FROM published_rooms WHERE room = $1", &[room.into()])
        }
    }

    /// The public directory, rooms of ours, largest first: at most `limit` rooms after the one given by (joined, room).
    pub fn published(&mut self, after: Option<(i64, RoomNum)>, limit: i64) -> Result<Vec<PublishedRoom>, StoreError> {
        let (joined, num) = after.unwrap_or((i64::MAX, RoomNum(0)));
        let rows = self.tx.query(
            "SELECT p.room, t.snapshot, t.joined FROM published_rooms p CROSS JOIN room_tips t
             WHERE t.room = p.room AND t.joined > 0 AND t.joined_local > 0 AND (t.joined < $1 OR (t.joined = $1 AND p.room > $2))
             ORDER BY t.joined DESC, p.room LIMIT $3",
            &[joined.into(), num.into(), limit.into()],
            |row| Ok((RoomNum(row.int(0)?), row.int(1)?, row.int(2)?)),
        )?;
        rows.into_iter()
            .map(|(room, snapshot, joined)| {
                let snapshot = (snapshot != 0).then_some(SnapshotNum(snapshot));
                Ok(PublishedRoom { room: self.by_num(room)?, snapshot, joined })
            })
            .collect()
    }

    /// Number of rooms in the public directory: all, or those that other servers may come into.
    pub fn published_count(&mut self, federated_only: bool) -> Result<i64, StoreError> {
        let count = self.tx.one(
            "SELECT CAST(count(*) AS BIGINT) FROM published_rooms p CROSS JOIN room_tips t CROSS JOIN rooms r
             WHERE t.room = p.room AND t.joined_local > 0 AND r.num = p.room AND r.federate >= $1",
            &[federated_only.into()],
            |row| row.int(0),
        )?;
        Ok(count.unwrap_or(0))
    }

    /// Servers that have members in a room, those longest there first, at most `limit`.
    pub fn servers(&mut self, room: RoomNum, limit: i64) -> Result<Vec<Arc<str>>, StoreError> {
        let servers = self.tx.query(
            "SELECT server FROM room_servers WHERE room = $1 AND until IS NULL ORDER BY since, server LIMIT $2",
            &[room.into(), limit.into()],
            |row| Ok(StringNum(row.int(0)?)),
        )?;
        servers.into_iter().map(|server| self.tx.string(server)).collect()
    }

    /// Whether a server has members in a room.
    pub fn has_server(&mut self, room: RoomNum, server: StringNum) -> Result<bool, StoreError> {
        let found = self.tx.one(
            "SELECT 1 FROM room_servers WHERE room = $1 AND server = $2 AND until IS NULL",
            &[room.into(), server.into()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// The newest positions of many rooms.
    pub fn last_positions(&mut self, rooms: &[i64]) -> Result<Vec<(RoomNum, Position)>, StoreError> {
        self.tx.query("SELECT room, last_position FROM room_tips WHERE room IN ints($1)", &[rooms.into()], |row| {
            Ok((RoomNum(row.int(0)?), Position(row.int(1)?)))
        })
    }
}

fn record(row: &dyn Row) -> Result<RoomRecord, StoreError> {
    let version = RoomVersionId::try_from(row.text(2)?)
        .map_err(|_| StoreError::Damaged(format!("a room has no valid version: {:?}", row.text(2))))?;
    let rules = rules(&version).ok_or_else(|| StoreError::Damaged(format!("room version {version} is unknown")))?;
    Ok(RoomRecord {
        num: RoomNum(row.int(0)?),
        room_id: OwnedRoomId::try_from(row.utf8(1)?)
            .map_err(|_| StoreError::Damaged("a room has no valid id".into()))?,
        version,
        rules,
        creator: StringNum(row.int(3)?),
        room_type: row.opt_bytes(4)?.map(|_| row.utf8(4).map(str::to_owned)).transpose()?,
        federate: row.bool(5)?,
        created_ts: row.int(6)?,
        hearsay: row.bool(7)?,
    })
}
