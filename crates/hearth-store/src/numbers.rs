//! Numbers that stand for identifiers inside the store. They mean nothing outside this database.

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub i64);
    };
}

number!(
    /// A room (`rooms.num`).
    RoomNum
);
number!(
    /// An event id, of an event we have or only heard of (`event_ids.num`).
    EventNum
);
number!(
    /// A string that repeats: user id, server name, event type or state key (`strings.num`).
    StringNum
);
number!(
    /// A room's whole state at some moment (`snapshots.num`).
    SnapshotNum
);
number!(
    /// A device of a local user (`devices.num`).
    DeviceNum
);
number!(
    /// The bytes of a file (`blobs.num`).
    BlobNum
);
number!(
    /// A place on the clock: the totally ordered stream of everything that clients can see change.
    Position
);

impl Default for Position {
    /// Before everything.
    fn default() -> Self {
        Self(0)
    }
}

/// A user is a string like another; the alias tells the reader which.
pub type UserNum = StringNum;
