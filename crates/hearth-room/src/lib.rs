//! The event pipeline and everything about rooms.
