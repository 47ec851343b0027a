//! Rooms: create, membership, state, send, read.

use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    Vec::new()
}
