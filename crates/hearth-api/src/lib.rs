//! The doors: the only place that serves HTTP.

mod client;
