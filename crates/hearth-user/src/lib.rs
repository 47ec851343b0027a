//! What belongs to a user: profile, account data and tags, filters, push rules, presence.
//!
//! Rooms are strangers here: whoever shows a changed profile in rooms does it with [`Users::profile`] in hand.

pub mod account_data;
pub mod filters;
pub mod presence;
pub mod profile;
pub mod push_rules;
pub mod reports;
pub mod tags;

use hearth_store::Store;

/// What belongs to users. Cheap to clone.
#[derive(Clone)]
pub struct Users {
    store: Store,
}

impl Users {
    /// Over a store.
    pub fn new(store: Store) -> Self {
        Self { store }
    }
}
