//! Rooms: create, membership, state, send, aliases, the directory.

mod create;
mod directory;
mod errors;
mod membership;
mod mutual_rooms;
mod read;
mod relations;
mod send;

pub(crate) use directory::page as public_rooms_page;
use hearth_matrix::ruma::CanonicalJsonObject;

use crate::route::Route;
use crate::{ApiError, Sender};

pub(crate) fn routes() -> Vec<Route> {
    [
        create::routes(),
        directory::routes(),
        membership::routes(),
        mutual_rooms::routes(),
        read::routes(),
        relations::routes(),
        send::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Suspended users may look and leave, no more.
fn may_act(sender: &Sender) -> Result<(), ApiError> {
    if sender.is_suspended { Err(ApiError::user_suspended()) } else { Ok(()) }
}

/// The content of an event to be made. Numbers must be integers within +-(2^53 - 1).
fn content(json: &str) -> Result<CanonicalJsonObject, ApiError> {
    serde_json::from_str(json).map_err(|error| ApiError::bad_json(format!("The content is no canonical JSON: {error}")))
}
