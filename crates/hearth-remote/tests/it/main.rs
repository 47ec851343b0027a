//! The crate from outside, against real servers on loopback.

mod diagnosis;
mod discovery;
mod harness;
mod http;
mod keys;
mod remote;
