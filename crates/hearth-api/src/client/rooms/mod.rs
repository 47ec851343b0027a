//! Rooms: create, membership, state, send, read.
