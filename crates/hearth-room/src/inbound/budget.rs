//! How much is asked for, and read of the answers, before the others get their turn: a server may make up as much as it likes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::gather::GatherError;

/// States asked for at once.
const STATES: usize = 50;
/// Events and ids read at once: more than the state of any room and all that allows it.
const EVENTS: usize = 1_000_000;
/// How long one server is asked for the same events. It may be a slow one: what has come by then is kept.
const TIME: Duration = Duration::from_secs(300);

/// What may still be asked for and read.
pub(super) struct Budget {
    until: Instant,
    states: AtomicUsize,
    events: AtomicUsize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { until: Instant::now() + TIME, states: AtomicUsize::new(STATES), events: AtomicUsize::new(EVENTS) }
    }
}

impl Budget {
    /// For one state more.
    pub(super) fn state(&self) -> Result<(), GatherError> {
        spend(&self.states, 1)
    }

    /// For so many events or ids more.
    pub(super) fn events(&self, count: usize) -> Result<(), GatherError> {
        if Instant::now() > self.until {
            return Err(GatherError::TooMuch);
        }
        spend(&self.events, count)
    }
}

fn spend(left: &AtomicUsize, count: usize) -> Result<(), GatherError> {
    let spent = left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(count));
    spent.map(|_| ()).map_err(|_| GatherError::TooMuch)
}
