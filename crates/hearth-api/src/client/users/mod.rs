//! What belongs to a user: profile, account data, tags, filters, push rules, presence; and what the server can do for him.

mod account_data;
mod capabilities;
mod errors;
mod filters;
mod notifications;
mod presence;
mod profile;
mod push_rules;
mod reports;
mod tags;

use hearth_matrix::ruma::UserId;

use crate::route::Route;
use crate::{ApiError, Sender};

pub(crate) fn routes() -> Vec<Route> {
    [
        capabilities::routes(),
        profile::routes(),
        account_data::routes(),
        reports::routes(),
        tags::routes(),
        filters::routes(),
        push_rules::routes(),
        notifications::routes(),
        presence::routes(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// These things are a user's own: nobody else may see or change them.
fn must_be(sender: &Sender, user_id: &UserId) -> Result<(), ApiError> {
    if sender.user_id == user_id { Ok(()) } else { Err(ApiError::forbidden("This belongs to another user")) }
}
