//! The crate from outside: strangers on loopback that do what they can to hold us up, and media that bears it.

mod hostile_pages;
mod hostile_pictures;
mod hostile_servers;
mod rebinding;
mod s3;
mod world;
