//! What carries a position: rows to be stamped at COMMIT, and what is announced of them afterwards.

use std::sync::Arc;

use hearth_matrix::ruma::OwnedEventId;
use hearth_matrix::{Pdu, RoomVersionRules};

use crate::{DeviceNum, EventNum, EventPush, OwnedValue, Position, RoomNum, SnapshotNum, StringNum, UserNum, Value};

/// Statements that share one position, and what the feed says of them once they are committed.
///
/// Statements name their position `position($n)` with [`Value::Position`] as parameter `n`.
#[derive(Clone, Debug)]
pub struct Publication {
    pub(crate) statements: Vec<(&'static str, Vec<OwnedValue>)>,
    pub(crate) change: Change,
}

impl Publication {
    /// A publication without statements yet.
    pub fn new(change: Change) -> Self {
        Self { statements: Vec::new(), change }
    }

    /// Adds a statement.
    pub(crate) fn exec(&mut self, sql: &'static str, params: &[Value<'_>]) {
        self.statements.push((sql, params.iter().map(Value::to_owned).collect()));
    }
}

/// What changed, for the hub and for other readers of the feed.
#[derive(Clone, Debug)]
pub enum Change {
    /// A live event.
    Event(Arc<FeedEvent>),
    /// A receipt moved forward.
    Receipt {
        /// Where.
        room: RoomNum,
        /// Whose.
        user: UserNum,
        /// Only the user himself sees it.
        private: bool,
        /// The rest of it.
        receipt: Arc<FeedReceipt>,
    },
    /// Account data of a user, global or of a room.
    AccountData {
        /// Whose.
        user: UserNum,
        /// Of which room, if not global.
        room: Option<RoomNum>,
        /// It may change what notifies the user.
        push: bool,
    },
    /// A local user's sessions were ended or his rights changed: what is remembered of them must be looked at anew.
    Sessions {
        /// Whose.
        user: UserNum,
    },
    /// A field of a local user's profile.
    Profile {
        /// Whose.
        user: UserNum,
    },
    /// A user's membership changed without a live event: it was decided between branches of the room.
    MemberDecided(Arc<FeedDecision>),
    /// More of a room's state came that we had entered without.
    StateCompleted {
        /// Where.
        room: RoomNum,
        /// It is all here.
        whole: bool,
    },
    /// A user's membership record changed without an event: forgotten.
    Membership {
        /// Whose.
        user: UserNum,
        /// Where.
        room: RoomNum,
    },
}

/// A live event as the feed carries it: enough to serve it to a client without asking the store again.
#[derive(Clone, Debug)]
pub struct FeedEvent {
    /// Its room.
    pub room: RoomNum,
    /// Its number.
    pub num: EventNum,
    /// Event type.
    pub kind: StringNum,
    /// State key of a state event.
    pub state_key: Option<StringNum>,
    /// Sender.
    pub sender: UserNum,
    /// The event.
    pub pdu: Arc<Pdu>,
    /// The rules of its room's version.
    pub rules: &'static RoomVersionRules,
    /// History visibility at it.
    pub visibility: crate::Visibility,
    /// State before it; none for the create event.
    pub snapshot_before: Option<SnapshotNum>,
    /// Current state of the room after it, if it moved.
    pub snapshot_after: Option<SnapshotNum>,
    /// Whom it notifies.
    pub push: EventPush,
    /// Id of the root of the thread it belongs to.
    pub thread: Option<Arc<str>>,
    /// The sending device and its transaction id.
    pub txn: Option<(DeviceNum, Arc<str>)>,
    /// The state event that it replaced.
    pub replaces: Option<EventNum>,
    /// The event that it redacts.
    pub redacts: Option<EventNum>,
    /// For `m.room.member`: the user and his membership before and after.
    pub membership: Option<(UserNum, Option<crate::Membership>, crate::Membership)>,
    /// Of such an event: the room's members who are joined and who are invited, with it.
    pub member_counts: Option<(i64, i64)>,
    /// The timeline alone does not tell what it did: others' state moved with it, or a gap lies behind it.
    pub aside: bool,
    /// It is for us to send it to the other servers in the room.
    pub outbound: bool,
    /// A part of the room's state is not here yet.
    pub partial: bool,
}

/// A membership that state resolution decided, as the feed carries it.
#[derive(Clone, Debug)]
pub struct FeedDecision {
    /// Where.
    pub room: RoomNum,
    /// Its id.
    pub room_id: hearth_matrix::ruma::OwnedRoomId,
    /// Whose.
    pub user: UserNum,
    /// What it is from now on.
    pub after: crate::Membership,
}

/// A receipt as the feed carries it.
#[derive(Clone, Debug)]
pub struct FeedReceipt {
    /// Whose.
    pub user_id: Arc<str>,
    /// The event it names.
    pub event_id: OwnedEventId,
    /// Empty: unthreaded; `main`; or the id of the thread's root.
    pub thread: Box<str>,
    /// When it was given, milliseconds since the epoch.
    pub ts: i64,
    /// Position of that event, if it has one.
    pub at: Option<Position>,
}

/// A committed change with its position.
#[derive(Clone, Debug)]
pub struct Announced {
    /// Its place on the clock.
    pub position: Position,
    /// What changed.
    pub change: Change,
}
