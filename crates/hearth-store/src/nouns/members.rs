//! Who is where: membership as intervals of positions.

use std::sync::Arc;

use hearth_matrix::ruma::OwnedEventId;

use crate::{
    Change, EventNum, FeedDecision, Position, Publication, RoomNum, RoomRecord, Row, StoreError, StringNum, Tx,
    UserNum, Value,
};

/// A user's membership of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i64)]
pub enum Membership {
    /// Not there any more.
    Leave = 0,
    /// Invited.
    Invite = 1,
    /// Joined.
    Join = 2,
    /// Knocking.
    Knock = 3,
    /// Banned.
    Ban = 4,
}

impl Membership {
    /// From the value of `membership`.
    pub fn from_spec(value: &str) -> Option<Self> {
        Some(match value {
            "leave" => Self::Leave,
            "invite" => Self::Invite,
            "join" => Self::Join,
            "knock" => Self::Knock,
            "ban" => Self::Ban,
            _ => return None,
        })
    }

    /// The value of `membership`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Leave => "leave",
            Self::Invite => "invite",
            Self::Join => "join",
            Self::Knock => "knock",
            Self::Ban => "ban",
        }
    }

    pub(super) fn from_int(int: i64) -> Result<Self, StoreError> {
        Ok(match int {
            0 => Self::Leave,
            1 => Self::Invite,
            2 => Self::Join,
            3 => Self::Knock,
            4 => Self::Ban,
            _ => return Err(StoreError::Damaged(format!("membership {int}"))),
        })
    }
}

/// One interval of a user's membership of a room.
#[derive(Clone, Debug)]
pub struct MembershipRow {
    /// Where.
    pub room: RoomNum,
    /// Whose.
    pub user: UserNum,
    /// Position of the event that began it.
    pub since: Position,
    /// Position of the event that ended it; none if it is the current one.
    pub until: Option<Position>,
    /// The membership.
    pub membership: Membership,
    /// The newest member event within the interval.
    pub event: EventNum,
    /// Sender of that event.
    pub sender: UserNum,
    /// The user wants to hear no more of the room.
    pub forgotten: bool,
    /// Invites and knocks: the stripped state that came with them, a JSON array. Of other memberships in rooms that we are not
    /// in, the event.
    pub stripped: Option<String>,
    /// Who told of it, if we are not in the room: the room's state as we have it doesn't know of it, and `event` is none.
    pub told: Option<ToldBy>,
}

/// Who told us of a membership in a room that we are not in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldBy {
    /// The server.
    pub server: StringNum,
    /// Id of the member event.
    pub event_id: OwnedEventId,
}

impl MembershipRow {
    /// Whether the interval covers a position.
    pub fn covers(&self, position: Position) -> bool {
        self.since <= position && self.until.is_none_or(|until| position < until)
    }
}

/// A member of a room that was taken over from another server.
#[derive(Clone, Copy, Debug)]
pub struct TakenMember {
    /// Who.
    pub user: UserNum,
    /// What.
    pub membership: Membership,
    /// The member event.
    pub event: EventNum,
    /// Its sender.
    pub sender: UserNum,
    /// The user's server; none if it is ours.
    pub server: Option<StringNum>,
}

/// A membership of a user of ours in a room that we are not in.
#[derive(Clone, Debug)]
pub struct MemberElsewhere {
    /// Who.
    pub user: UserNum,
    /// What.
    pub membership: Membership,
    /// Sender of the member event.
    pub sender: UserNum,
    /// The stripped state that came with it, a JSON array; of what is no invite and no knock, the event.
    pub stripped: Option<String>,
    /// Who told of it.
    pub told: ToldBy,
}

macro_rules! select_memberships {
    ($rest:literal) => {
        concat!(
            "SELECT room, usr, since, until, membership, event, sender, forgotten, stripped, via, told_event FROM memberships WHERE ",
            $rest
        )
    };
}

fn membership_row(row: &dyn Row) -> Result<MembershipRow, StoreError> {
    Ok(MembershipRow {
        room: RoomNum(row.int(0)?),
        user: StringNum(row.int(1)?),
        since: Position(row.int(2)?),
        until: row.opt_int(3)?.map(Position),
        membership: Membership::from_int(row.int(4)?)?,
        event: EventNum(row.int(5)?),
        sender: StringNum(row.int(6)?),
        forgotten: row.bool(7)?,
        stripped: row.opt_bytes(8)?.map(|_| row.utf8(8).map(str::to_owned)).transpose()?,
        told: row.opt_int(9)?.map(|server| told_by(row, StringNum(server))).transpose()?,
    })
}

fn told_by(row: &dyn Row, server: StringNum) -> Result<ToldBy, StoreError> {
    let event_id = OwnedEventId::try_from(row.utf8(10)?)
        .map_err(|_| StoreError::Damaged("a membership of another server's room has no valid event id".into()))?;
    Ok(ToldBy { server, event_id })
}

/// Access to memberships.
pub struct Members<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Memberships.
    pub fn members(&mut self) -> Members<'_, 'c> {
        Members { tx: self }
    }
}

impl Members<'_, '_> {
    /// A user's current membership of a room.
    pub fn current(&mut self, room: RoomNum, user: UserNum) -> Result<Option<MembershipRow>, StoreError> {
        self.tx.one(
            select_memberships!("room = $1 AND usr = $2 AND until IS NULL"),
            &[room.into(), user.into()],
            membership_row,
        )
    }

    /// All intervals of a user in a room, oldest first.
    pub fn history(&mut self, room: RoomNum, user: UserNum) -> Result<Vec<MembershipRow>, StoreError> {
        self.tx.query(
            select_memberships!("room = $1 AND usr = $2 ORDER BY since"),
            &[room.into(), user.into()],
            membership_row,
        )
    }

    /// A user's current memberships, of all rooms he ever had to do with.
    pub fn of_user(&mut self, user: UserNum) -> Result<Vec<MembershipRow>, StoreError> {
        self.tx.query(select_memberships!("usr = $1 AND until IS NULL"), &[user.into()], membership_row)
    }

    /// All intervals of a user in all rooms, room by room, oldest first. Of the current ones with their stripped state.
    pub fn intervals(&mut self, user: UserNum) -> Result<Vec<MembershipRow>, StoreError> {
        self.tx.query(
            "SELECT room, usr, since, until, membership, event, sender, forgotten,
                    CASE WHEN until IS NULL THEN stripped END, via, told_event
             FROM memberships WHERE usr = $1 ORDER BY room, since",
            &[user.into()],
            membership_row,
        )
    }

    /// The rooms where a user's current membership is this one.
    pub fn rooms_of_user(&mut self, user: UserNum, membership: Membership) -> Result<Vec<MembershipRow>, StoreError> {
        self.tx.query(
            select_memberships!("usr = $1 AND until IS NULL AND membership = $2"),
            &[user.into(), (membership as i64).into()],
            membership_row,
        )
    }

    /// The intervals of a user that began after `after`, in all rooms.
    pub fn began_since(&mut self, user: UserNum, after: Position) -> Result<Vec<MembershipRow>, StoreError> {
        self.tx.query(
            select_memberships!("usr = $1 AND since > $2 ORDER BY since"),
            &[user.into(), after.into()],
            membership_row,
        )
    }

    /// A room's current members by membership, in the order they came, at most `limit`.
    pub fn of_room(
        &mut self,
        room: RoomNum,
        membership: Membership,
        limit: i64,
    ) -> Result<Vec<MembershipRow>, StoreError> {
        self.tx.query(
            select_memberships!("room = $1 AND membership = $2 AND until IS NULL ORDER BY since LIMIT $3"),
            &[room.into(), (membership as i64).into(), limit.into()],
            membership_row,
        )
    }

    /// Users of ours that are joined to a room.
    pub fn local_joined(&mut self, room: RoomNum) -> Result<Vec<UserNum>, StoreError> {
        self.tx.query(
            "SELECT usr FROM memberships WHERE room = $1 AND membership = 2 AND until IS NULL AND local = 1",
            &[room.into()],
            |row| Ok(StringNum(row.int(0)?)),
        )
    }

    /// Guests of ours that are joined to a room.
    pub fn joined_guests(&mut self, room: RoomNum) -> Result<Vec<UserNum>, StoreError> {
        self.tx.query(
            "SELECT memberships.usr FROM memberships JOIN users ON users.num = memberships.usr \
             WHERE memberships.room = $1 AND memberships.membership = 2 AND memberships.until IS NULL \
             AND memberships.local = 1 AND users.kind = 1",
            &[room.into()],
            |row| Ok(StringNum(row.int(0)?)),
        )
    }

    /// Rooms that we are not in to which a user is invited, the longest first, each with the server that told of it.
    pub fn invites_elsewhere(&mut self, user: UserNum) -> Result<Vec<(RoomNum, StringNum)>, StoreError> {
        self.tx.query(
            "SELECT room, via FROM memberships \
             WHERE usr = $1 AND membership = 1 AND until IS NULL AND via IS NOT NULL ORDER BY since",
            &[user.into()],
            |row| Ok((RoomNum(row.int(0)?), StringNum(row.int(1)?))),
        )
    }

    /// Users of ours whose current membership of a room another server told us of.
    pub fn told_elsewhere(&mut self, room: RoomNum) -> Result<Vec<MembershipRow>, StoreError> {
        self.tx.query(
            select_memberships!("room = $1 AND until IS NULL AND via IS NOT NULL ORDER BY usr"),
            &[room.into()],
            membership_row,
        )
    }

    /// The room's state knows of a membership, too, of which another server told us; by this event, if there is one.
    pub fn known_here(&mut self, room: RoomNum, user: UserNum, event: Option<EventNum>) -> Result<(), StoreError> {
        self.tx.exec(
            "UPDATE memberships SET via = NULL, event = $1 WHERE room = $2 AND usr = $3 AND until IS NULL",
            &[event.map_or(0, |event| event.0).into(), room.into(), user.into()],
        )
    }

    /// Takes down what another server told of a user of ours in a room that we are not in. The room itself stays as it is.
    pub fn elsewhere(&mut self, room: &RoomRecord, member: &MemberElsewhere) -> Result<(), StoreError> {
        let MemberElsewhere { user, membership, sender, stripped, told } = member;
        let mut publication = Publication::new(Change::MemberDecided(Arc::new(FeedDecision {
            room: room.num,
            room_id: room.room_id.clone(),
            user: *user,
            after: *membership,
        })));
        publication.exec(
            "UPDATE memberships SET until = position($1) WHERE room = $2 AND usr = $3 AND until IS NULL",
            &[Value::Position, room.num.into(), (*user).into()],
        );
        publication.exec(
            "INSERT INTO memberships (room, usr, since, membership, event, sender, local, forgotten, stripped, via,
                 told_event)
             VALUES ($1, $2, position($3), $4, 0, $5, 1, 0, $6, $7, $8)",
            &[
                room.num.into(),
                (*user).into(),
                Value::Position,
                (*membership as i64).into(),
                (*sender).into(),
                stripped.as_deref().map(str::as_bytes).into(),
                told.server.into(),
                told.event_id.as_str().as_bytes().into(),
            ],
        );
        self.tx.publish(publication);
        Ok(())
    }

    /// Members of a room that was taken over from another server: they are there since ever. Of whom another server told us
    /// before, that stays for now.
    pub fn take_over(&mut self, room: RoomNum, members: &[TakenMember]) -> Result<(), StoreError> {
        for TakenMember { user, membership, event, sender, server } in members {
            self.tx.exec(
                "INSERT INTO memberships (room, usr, since, membership, event, sender, local, forgotten, server)
                 SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), 0, CAST($3 AS BIGINT), CAST($4 AS BIGINT),
                     CAST($5 AS BIGINT), CAST($6 AS BIGINT), 0, CAST($7 AS BIGINT)
                 WHERE NOT EXISTS (SELECT 1 FROM memberships WHERE room = $1 AND usr = $2 AND until IS NULL)
                 ON CONFLICT DO NOTHING",
                &[
                    room.into(),
                    (*user).into(),
                    (*membership as i64).into(),
                    (*event).into(),
                    (*sender).into(),
                    server.is_none().into(),
                    (*server).into(),
                ],
            )?;
        }
        Ok(())
    }

    /// Forgets members and servers of a room that nobody of ours came into after all, some of them: how many members. Of whom
    /// another server told us apart from that, that stays.
    pub fn forget_taken(&mut self, room: RoomNum, limit: i64) -> Result<i64, StoreError> {
        let taken: Vec<i64> = self.tx.query(
            "SELECT usr FROM memberships WHERE room = $1 AND since = 0 AND via IS NULL LIMIT $2",
            &[room.into(), limit.into()],
            |row| row.int(0),
        )?;
        self.tx.exec(
            "DELETE FROM memberships WHERE room = $1 AND usr IN ints($2) AND since = 0 AND via IS NULL",
            &[room.into(), taken[..].into()],
        )?;
        self.tx.exec("DELETE FROM room_servers WHERE room = $1", &[room.into()])?;
        Ok(taken.len() as i64)
    }

    /// The servers of members of a room that was taken over, and how many of each are joined.
    pub fn take_over_servers(&mut self, room: RoomNum, servers: &[(StringNum, i64)]) -> Result<(), StoreError> {
        for (server, joined) in servers {
            self.tx.exec(
                "INSERT INTO room_servers (room, server, since, joined)
                 SELECT CAST($1 AS BIGINT), CAST($2 AS BIGINT), 0, CAST($3 AS BIGINT)
                 WHERE NOT EXISTS (SELECT 1 FROM room_servers WHERE room = $1 AND server = $2 AND until IS NULL)
                 ON CONFLICT (room, server, since) DO UPDATE SET until = NULL, joined = excluded.joined",
                &[room.into(), (*server).into(), (*joined).into()],
            )?;
        }
        Ok(())
    }

    /// Users of another server who ever had a membership of a room, at most `limit` of them.
    pub fn ever_of_server(
        &mut self,
        room: RoomNum,
        server: StringNum,
        membership: Membership,
        limit: i64,
    ) -> Result<Vec<UserNum>, StoreError> {
        self.tx.query(
            "SELECT DISTINCT usr FROM memberships WHERE room = $1 AND server = $2 AND membership = $3 LIMIT $4",
            &[room.into(), server.into(), (membership as i64).into(), limit.into()],
            |row| Ok(StringNum(row.int(0)?)),
        )
    }

    /// The user wants to hear no more of a room that he left.
    pub fn forget(&mut self, room: RoomNum, user: UserNum) -> Result<(), StoreError> {
        let mut publication = Publication::new(Change::Membership { user, room });
        publication
            .exec("UPDATE memberships SET forgotten = 1 WHERE room = $1 AND usr = $2", &[room.into(), user.into()]);
        self.tx.publish(publication);
        Ok(())
    }

    /// Rooms that two users are joined to: how many, and those with a number above `after`, in order.
    pub fn mutual_rooms(
        &mut self,
        one: UserNum,
        other: UserNum,
        after: RoomNum,
        limit: i64,
    ) -> Result<(i64, Vec<RoomNum>), StoreError> {
        let count = self.tx.one(
            "SELECT CAST(count(*) AS BIGINT) FROM memberships a JOIN memberships b ON b.room = a.room
             WHERE a.usr = $1 AND a.membership = 2 AND a.until IS NULL
               AND b.usr = $2 AND b.membership = 2 AND b.until IS NULL",
            &[one.into(), other.into()],
            |row| row.int(0),
        )?;
        let rooms = self.tx.query(
            "SELECT a.room FROM memberships a JOIN memberships b ON b.room = a.room
             WHERE a.usr = $1 AND a.membership = 2 AND a.until IS NULL AND a.room > $3
               AND b.usr = $2 AND b.membership = 2 AND b.until IS NULL ORDER BY a.room LIMIT $4",
            &[one.into(), other.into(), after.into(), limit.into()],
            |row| Ok(RoomNum(row.int(0)?)),
        )?;
        Ok((count.unwrap_or(0), rooms))
    }

    /// Whether two users share a room now.
    pub fn share_a_room(&mut self, one: UserNum, other: UserNum) -> Result<bool, StoreError> {
        let found = self.tx.one(
            "SELECT 1 FROM memberships a JOIN memberships b ON b.room = a.room
             WHERE a.usr = $1 AND a.membership = 2 AND a.until IS NULL
               AND b.usr = $2 AND b.membership = 2 AND b.until IS NULL LIMIT 1",
            &[one.into(), other.into()],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }
}
