//! What the store promises, checked on each engine.
//!
//! PostgreSQL takes part if `HEARTH_TEST_POSTGRES` holds a URL; each test gets a schema of its own there.

mod closures;
mod concurrency;
mod crash;
mod harness;
mod media;
mod servers;
mod statements;
