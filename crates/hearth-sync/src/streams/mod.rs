//! One file for each stream of what clients see: each answers what there is, and what changed between two positions.

pub(crate) mod account_data;
pub(crate) mod receipts;
pub(crate) mod state;
pub(crate) mod summary;
pub(crate) mod timeline;
pub(crate) mod unread;
