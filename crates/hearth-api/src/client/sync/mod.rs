//! `/sync`, and what clients tell each other through it without events: typing and receipts.

mod events;
mod receipts;
mod session_end;
mod typing;
mod v3;

pub(in crate::client) use v3::Json;

use crate::route::Route;

pub(crate) fn routes() -> Vec<Route> {
    [events::routes(), receipts::routes(), typing::routes(), v3::routes()].into_iter().flatten().collect()
}
