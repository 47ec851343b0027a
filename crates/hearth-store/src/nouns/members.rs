//! Who is where: membership as intervals of positions.

/// A user's membership of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(i64)]
pub enum Membership {
    /// Not there (or never was).
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
