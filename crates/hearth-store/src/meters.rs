//! What the store measures of itself. Handles are taken when the store is opened: install the recorder before.

use std::panic::Location;
use std::time::Duration;

use metrics::{
    Counter, Gauge, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram,
};

use crate::{Announced, Change};

/// Longer closures are logged: they stall everybody behind them.
const SLOW: Duration = Duration::from_millis(50);

pub(crate) struct Meters {
    /// Statements run.
    pub(crate) statements: Counter,
    pub(crate) reads_waiting: Gauge,
    pub(crate) writes_waiting: Gauge,
    pub(crate) group_size: Histogram,
    pub(crate) commits: Counter,
    published: Counter,
    events: Counter,
    pub(crate) replays: Counter,
    closure_seconds: Histogram,
}

impl Meters {
    pub(crate) fn new(engine: &'static str) -> Self {
        describe_counter!("hearth_store_statements_total", "SQL statements run");
        describe_gauge!("hearth_store_waiting", "Closures that wait for a database thread");
        describe_histogram!("hearth_store_group_size", "Write closures that shared a commit");
        describe_counter!("hearth_store_commits_total", "Commits of write closures");
        describe_counter!("hearth_store_published_total", "Changes that got a position");
        describe_counter!("hearth_events_appended_total", "Live events appended to rooms");
        describe_gauge!("hearth_store_cache_entries", "Facts kept in memory");
        describe_counter!("hearth_store_replays_total", "Closures that had to run again");
        describe_histogram!("hearth_store_closure_seconds", "Time that closures hold a database thread");
        Self {
            statements: counter!("hearth_store_statements_total", "engine" => engine),
            reads_waiting: gauge!("hearth_store_waiting", "engine" => engine, "kind" => "read"),
            writes_waiting: gauge!("hearth_store_waiting", "engine" => engine, "kind" => "write"),
            group_size: histogram!("hearth_store_group_size", "engine" => engine),
            commits: counter!("hearth_store_commits_total", "engine" => engine),
            published: counter!("hearth_store_published_total", "engine" => engine),
            events: counter!("hearth_events_appended_total"),
            replays: counter!("hearth_store_replays_total", "engine" => engine),
            closure_seconds: histogram!("hearth_store_closure_seconds", "engine" => engine),
        }
    }

    /// Counts what a commit published.
    pub(crate) fn committed(&self, announced: &[Announced]) {
        self.published.increment(announced.len() as u64);
        let events = announced.iter().filter(|announced| matches!(announced.change, Change::Event(_)));
        self.events.increment(events.count() as u64);
    }

    pub(crate) fn closure(&self, place: &'static Location<'static>, took: Duration) {
        self.closure_seconds.record(took);
        if took > SLOW {
            tracing::warn!(closure = %place, took_ms = took.as_millis(), "a store closure was slow");
        }
    }
}
