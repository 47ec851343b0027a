//! Whole servers in one process, and clients to knock on their doors.
