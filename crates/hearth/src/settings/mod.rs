//! Settings: what a configuration file, the environment and the command line say.
//!
//! `sections.rs` holds the keys, `values.rs` the kinds of values, `load.rs` joins the sources and finds faults,
//! `reference.rs` writes the reference. A part of the program takes what it needs from here when it is wired; none of them
//! knows this module.

mod load;
mod reference;
mod sections;
mod values;

pub use load::{Problem, Problems, Sources};
pub use reference::{markdown, text};
pub use sections::*;
pub use values::{ByteSize, ClamAv, Database, LogFormat, LogLevel, MediaStorage, Period, PublicUrl, Secret, Terms};
