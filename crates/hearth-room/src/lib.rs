//! The event pipeline and everything about rooms.

/// Everything about rooms. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rooms;
