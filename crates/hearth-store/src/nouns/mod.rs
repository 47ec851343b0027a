//! The nouns that the store remembers, a file each.

mod account_data;
mod accounts;
mod events;
mod filters;
mod members;
mod profiles;
mod receipts;
mod rooms;
mod state;

pub use members::Membership;
