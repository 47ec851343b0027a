//! The client-server API: one file per chapter of the specification.

pub(crate) mod account;
pub(crate) mod admin;
pub(crate) mod discovery;
mod errors;
pub(crate) mod media;
pub(crate) mod rooms;
pub(crate) mod sync;
pub(crate) mod users;

pub(crate) use rooms::public_rooms_page;

use crate::route::Route;

/// The routes of all chapters.
pub(crate) fn routes() -> Vec<Route> {
    [
        account::routes(),
        admin::routes(),
        discovery::routes(),
        media::routes(),
        rooms::routes(),
        sync::routes(),
        users::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}
