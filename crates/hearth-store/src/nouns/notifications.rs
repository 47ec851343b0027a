//! What a user has not read: how far he has, and what an event means to him where that differs from what it means to all.
//!
//! Running counts of what the default push rules notify for stand with the events (main timeline) and with the threads.
//! Rows here are few: highlights, outcomes of rules of one's own, and what was redacted.
//! Spec: client-server API, "Receiving notifications", "Receipts".

use std::sync::Arc;

use super::events::NewEvent;
use crate::{EventNum, Position, Publication, RoomNum, StoreError, StringNum, Tx, UserNum, Value};

/// Everything, the main timeline, or the thread with this root: as far as somebody has read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadUpto {
    /// All timelines of the room.
    Everything,
    /// What is in no thread.
    Main,
    /// A thread.
    Thread(EventNum),
}

impl ReadUpto {
    fn num(self) -> i64 {
        match self {
            Self::Everything => EVERYTHING,
            Self::Main => MAIN,
            Self::Thread(root) => root.0,
        }
    }
}

const EVERYTHING: i64 = -1;
const MAIN: i64 = 0;
/// Threads of one answer, at most: those with the newest events.
const THREADS: i64 = 1_000;

/// Whom an event notifies.
#[derive(Clone, Debug, Default)]
pub struct EventPush {
    /// What the default push rules make of it, for all but the sender and those told otherwise.
    pub outcome: i64,
    /// Users for whom it is something else, sorted by number.
    pub told: Arc<[Told]>,
}

/// What an event means to one user.
#[derive(Clone, Debug)]
pub struct Told {
    /// Who.
    pub user: UserNum,
    /// It counts.
    pub notify: bool,
    /// It stands out.
    pub highlight: bool,
    /// Actions of his rule, a JSON array. Empty if it does not notify.
    pub actions: String,
    /// It must be written down: it does not follow from his rules when his count is read.
    pub written: bool,
}

/// Sums of what is written of a user's unread events, per timeline.
#[derive(Clone, Copy, Debug)]
pub struct UnreadRow {
    /// Where.
    pub room: RoomNum,
    /// Root of the thread; none for the main timeline.
    pub thread: Option<EventNum>,
    /// Events that notify him.
    pub notify: i64,
    /// Events that stand out for him.
    pub highlight: i64,
    /// Those among the events written down for which the default rules notify.
    pub plain: i64,
    /// Those that stand out by the default rules.
    pub plain_highlight: i64,
}

/// Sums of what is written for everybody of the events that a user has not read, per timeline.
#[derive(Clone, Copy, Debug)]
pub struct RoomNote {
    /// Where.
    pub room: RoomNum,
    /// Root of the thread; none for the main timeline.
    pub thread: Option<EventNum>,
    /// To be added to what notifies.
    pub notify: i64,
    /// To be added to what stands out.
    pub highlight: i64,
}

/// An event that notified a user.
#[derive(Clone, Debug)]
pub struct Notification {
    /// Its position.
    pub position: Position,
    /// Its room.
    pub room: RoomNum,
    /// The event.
    pub event: EventNum,
    /// Root of its thread.
    pub thread: Option<EventNum>,
    /// Whether the user has read it, where that is written down.
    pub read: Option<bool>,
    /// JSON array.
    pub actions: String,
}

/// Access to what is unread.
pub struct Notifications<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Notifications and unread counts.
    pub fn notifications(&mut self) -> Notifications<'_, 'c> {
        Notifications { tx: self }
    }
}

fn thread(num: i64) -> Option<EventNum> {
    (num > 0).then_some(EventNum(num))
}

impl Notifications<'_, '_> {
    /// The user has read up to an event. Never moves back.
    pub fn read(&mut self, user: UserNum, room: RoomNum, what: ReadUpto, event: EventNum) -> Result<(), StoreError> {
        let Some(row) = self.tx.events().row(event)? else { return Ok(()) };
        // What came as history lies before all that counts.
        let Some(position) = row.position else { return Ok(()) };
        let unread = match what {
            ReadUpto::Everything | ReadUpto::Main => row.unread,
            ReadUpto::Thread(root) => self.count_in_thread(root, position)?,
        };
        self.tx.exec(MOVE, &[user.into(), room.into(), what.num().into(), position.into(), unread.into()])?;
        match what {
            ReadUpto::Everything => self.tx.exec(
                "UPDATE notifications SET unread = 0 WHERE usr = $1 AND room = $2 AND position <= $3 AND unread = 1",
                &[user.into(), room.into(), position.into()],
            ),
            ReadUpto::Main | ReadUpto::Thread(_) => self.tx.exec(
                "UPDATE notifications SET unread = 0
                 WHERE usr = $1 AND room = $2 AND thread = $3 AND position <= $4 AND unread = 1",
                &[user.into(), room.into(), what.num().into(), position.into()],
            ),
        }
    }

    fn count_in_thread(&mut self, root: EventNum, at: Position) -> Result<i64, StoreError> {
        let count = self.tx.one(
            "SELECT unread_thread FROM events WHERE thread = $1 AND position <= $2 ORDER BY position DESC LIMIT 1",
            &[root.into(), at.into()],
            |row| row.int(0),
        )?;
        Ok(count.unwrap_or(0))
    }

    /// The running count of a thread at its end.
    pub fn count_of_thread(&mut self, room: RoomNum, root: EventNum) -> Result<i64, StoreError> {
        let count = self.tx.one(
            "SELECT unread FROM threads WHERE room = $1 AND root = $2",
            &[room.into(), root.into()],
            |row| row.int(0),
        )?;
        Ok(count.unwrap_or(0))
    }

    /// The running counts of the main timelines up to which a user has read these rooms.
    pub fn read_of_main(&mut self, user: UserNum, rooms: &[i64]) -> Result<Vec<(RoomNum, i64)>, StoreError> {
        self.tx.query(
            "SELECT room, CAST(max(unread) AS BIGINT) FROM reads
             WHERE usr = $1 AND room IN ints($2) AND thread IN (-1, 0) GROUP BY room",
            &[user.into(), rooms.into()],
            |row| Ok((RoomNum(row.int(0)?), row.int(1)?)),
        )
    }

    /// Threads in these rooms with events that a user has not read, and how many of them the default rules notify for.
    pub fn unread_threads(
        &mut self,
        user: UserNum,
        rooms: &[i64],
    ) -> Result<Vec<(RoomNum, EventNum, i64)>, StoreError> {
        self.tx.query(
            "SELECT t.room, t.root, t.unread - CASE WHEN r.position >= u.position THEN r.unread ELSE COALESCE(
                        (SELECT e.unread_thread FROM events e WHERE e.thread = t.root AND e.position <= u.position
                         ORDER BY e.position DESC LIMIT 1), 0) END
             FROM reads u CROSS JOIN threads t LEFT JOIN reads r ON r.usr = u.usr AND r.room = u.room AND r.thread = t.root
             WHERE u.usr = $1 AND u.room IN ints($2) AND u.thread = -1 AND t.room = u.room AND t.position > u.position
               AND (r.position IS NULL OR r.position < t.position)
             ORDER BY t.position DESC LIMIT $3",
            &[user.into(), rooms.into(), THREADS.into()],
            |row| Ok((RoomNum(row.int(0)?), EventNum(row.int(1)?), row.int(2)?)),
        )
    }

    /// What is written of a user's unread events in these rooms.
    pub fn unread(&mut self, user: UserNum, rooms: &[i64]) -> Result<Vec<UnreadRow>, StoreError> {
        self.tx.query(
            "SELECT room, thread, CAST(sum(notify) AS BIGINT), CAST(sum(highlight) AS BIGINT),
                    CAST(sum(plain) AS BIGINT), CAST(sum(plain_highlight) AS BIGINT)
             FROM notifications WHERE usr = $1 AND unread = 1 AND room IN ints($2) GROUP BY room, thread",
            &[user.into(), rooms.into()],
            |row| {
                Ok(UnreadRow {
                    room: RoomNum(row.int(0)?),
                    thread: thread(row.int(1)?),
                    notify: row.int(2)?,
                    highlight: row.int(3)?,
                    plain: row.int(4)?,
                    plain_highlight: row.int(5)?,
                })
            },
        )
    }

    /// What is written for everybody of the events that a user has not read in these rooms: to be added to the counts.
    pub fn notes(&mut self, user: UserNum, rooms: &[i64]) -> Result<Vec<RoomNote>, StoreError> {
        self.tx.query(
            "SELECT n.room, n.thread, CAST(sum(n.notify) AS BIGINT), CAST(sum(n.highlight) AS BIGINT)
             FROM reads u CROSS JOIN room_notes n
                  LEFT JOIN reads r ON r.usr = u.usr AND r.room = u.room AND r.thread = n.thread
             WHERE u.usr = $1 AND u.room IN ints($2) AND u.thread = -1 AND n.room = u.room AND n.position > u.position
               AND (r.position IS NULL OR n.position > r.position)
             GROUP BY n.room, n.thread",
            &[user.into(), rooms.into()],
            |row| {
                Ok(RoomNote {
                    room: RoomNum(row.int(0)?),
                    thread: thread(row.int(1)?),
                    notify: row.int(2)?,
                    highlight: row.int(3)?,
                })
            },
        )
    }

    /// What was written down as notifying a user before a position, newest first.
    pub fn written_before(
        &mut self,
        user: UserNum,
        before: Position,
        highlights: bool,
        limit: i64,
    ) -> Result<Vec<Notification>, StoreError> {
        self.tx.query(
            "SELECT position, room, event, thread, unread, actions FROM notifications
             WHERE usr = $1 AND position < $2 AND notify = 1 AND highlight >= $3 ORDER BY position DESC LIMIT $4",
            &[user.into(), before.into(), highlights.into(), limit.into()],
            |row| {
                Ok(Notification {
                    position: Position(row.int(0)?),
                    room: RoomNum(row.int(1)?),
                    event: EventNum(row.int(2)?),
                    thread: thread(row.int(3)?),
                    read: Some(!row.bool(4)?),
                    actions: row.utf8(5)?.to_owned(),
                })
            },
        )
    }

    /// Events of a room in `after < position < before` by which the default rules notify a user of whom nothing else is
    /// written, newest first.
    pub fn plain_before(
        &mut self,
        room: RoomNum,
        user: UserNum,
        (after, before): (Position, Position),
        highlights: bool,
        limit: i64,
    ) -> Result<Vec<Notification>, StoreError> {
        let plain = |row: &dyn crate::Row| {
            Ok(Notification {
                position: Position(row.int(0)?),
                room,
                event: EventNum(row.int(1)?),
                thread: row.opt_int(2)?.map(EventNum),
                read: None,
                actions: hearth_matrix::push::Outcome::actions_of(row.int(3)?).to_owned(),
            })
        };
        let params = [room.into(), user.into(), after.into(), before.into(), limit.into()];
        if highlights {
            return self.tx.query(
                "SELECT e.position, e.num, e.thread, e.outcome FROM room_notes h CROSS JOIN events e
                 WHERE h.room = $1 AND h.position > $3 AND h.position < $4 AND h.highlight > 0
                   AND e.room = h.room AND e.position = h.position AND e.sender <> $2
                   AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.usr = $2 AND n.position = h.position)
                 ORDER BY h.position DESC LIMIT $5",
                &params,
                plain,
            );
        }
        self.tx.query(
            "SELECT e.position, e.num, e.thread, e.outcome FROM events e
             WHERE e.room = $1 AND e.position > $3 AND e.position < $4 AND e.outcome > 0 AND e.sender <> $2
               AND e.redacted_by IS NULL AND e.standing = 0
               AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.usr = $2 AND n.position = e.position)
             ORDER BY e.position DESC LIMIT $5",
            &params,
            plain,
        )
    }

    /// Up to where a user has read a room: everything, the main timeline, and threads.
    pub fn read_positions(&mut self, user: UserNum, room: RoomNum) -> Result<Vec<(ReadUpto, Position)>, StoreError> {
        self.tx.query(
            "SELECT thread, position FROM reads WHERE usr = $1 AND room = $2",
            &[user.into(), room.into()],
            |row| {
                let what = match row.int(0)? {
                    EVERYTHING => ReadUpto::Everything,
                    MAIN => ReadUpto::Main,
                    root => ReadUpto::Thread(EventNum(root)),
                };
                Ok((what, Position(row.int(1)?)))
            },
        )
    }
}

const MOVE: &str = "INSERT INTO reads (usr, room, thread, position, unread) VALUES ($1, $2, $3, $4, $5)
     ON CONFLICT (usr, room, thread) DO UPDATE SET position = excluded.position, unread = excluded.unread
     WHERE reads.position < excluded.position";
const MOVE_HERE: &str = "INSERT INTO reads (usr, room, thread, position, unread) VALUES ($1, $2, $3, position($4), $5)
     ON CONFLICT (usr, room, thread) DO UPDATE SET position = excluded.position, unread = excluded.unread";

/// Adds to an event's publication what it means to whom, and what its sender or target has read by it.
pub(super) fn publish(publication: &mut Publication, room: RoomNum, sender: StringNum, event: &NewEvent) {
    let thread = event.thread.as_ref().map_or(MAIN, |(root, _)| root.0);
    if let Some((root, _)) = &event.thread {
        publication.exec(
            "INSERT INTO threads (room, root, position, unread) VALUES ($1, $2, position($3), $4)
             ON CONFLICT (room, root) DO UPDATE SET position = excluded.position, unread = excluded.unread",
            &[room.into(), (*root).into(), Value::Position, event.unread_thread.into()],
        );
    }
    for told in event.push.told.iter().filter(|told| told.written) {
        publication.exec(
            "INSERT INTO notifications (usr, position, room, event, thread, notify, highlight, plain, plain_highlight,
                 unread, actions) VALUES ($1, position($2), $3, $4, $5, $6, $7, $8, $9, 1, $10)",
            &[
                told.user.into(),
                Value::Position,
                room.into(),
                event.num.into(),
                thread.into(),
                told.notify.into(),
                told.highlight.into(),
                (event.push.outcome > 0).into(),
                hearth_matrix::push::Outcome::is_highlight(event.push.outcome).into(),
                told.actions.as_bytes().into(),
            ],
        );
    }
    if hearth_matrix::push::Outcome::is_highlight(event.push.outcome) {
        publication.exec(
            "INSERT INTO room_notes (room, position, thread, notify, highlight) VALUES ($1, position($2), $3, 0, 1)",
            &[room.into(), Value::Position, thread.into()],
        );
    }
    if let Some(redacted) = event.redacts {
        take_back(publication, room, redacted);
    }
    if let Some(user) = event.joins {
        // Who comes in has nothing to catch up with.
        let unread = event.unread;
        publication.exec(MOVE_HERE, &[user.into(), room.into(), EVERYTHING.into(), Value::Position, unread.into()]);
        publication.exec(
            "UPDATE notifications SET unread = 0 WHERE usr = $1 AND room = $2 AND unread = 1",
            &[user.into(), room.into()],
        );
    } else if event.reads {
        let unread = if event.thread.is_some() { event.unread_thread } else { event.unread };
        publication.exec(MOVE_HERE, &[sender.into(), room.into(), thread.into(), Value::Position, unread.into()]);
        publication.exec(
            "UPDATE notifications SET unread = 0 WHERE usr = $1 AND room = $2 AND thread = $3 AND unread = 1",
            &[sender.into(), room.into(), thread.into()],
        );
    }
}

/// A redacted event counts no more. Runs before it is marked as redacted.
fn take_back(publication: &mut Publication, room: RoomNum, redacted: EventNum) {
    publication.exec(
        "INSERT INTO room_notes (room, position, thread, notify, highlight)
         SELECT room, position, COALESCE(thread, 0), -1, 0 FROM events
         WHERE num = $1 AND room = $2 AND outcome > 0 AND position IS NOT NULL AND redacted_by IS NULL
         ON CONFLICT (room, position) DO UPDATE SET notify = -1, highlight = 0",
        &[redacted.into(), room.into()],
    );
    publication.exec("DELETE FROM notifications WHERE event = $1 AND room = $2", &[redacted.into(), room.into()]);
}
