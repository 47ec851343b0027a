//! Tests through HTTP, of whole servers.

mod account;
mod account_management;
mod bounds;
mod chat;
mod doors;
mod errors;
mod federated;
mod federation;
mod guests;
mod limits;
mod listeners;
mod media;
mod moderation;
mod operations;
mod profiles;
mod push_rules;
mod rooms;
mod sessions;
mod stopping;
mod sync;
mod users;
mod views;
