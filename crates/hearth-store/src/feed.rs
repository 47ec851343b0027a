//! The feed: what each commit published, told to whoever listens, in order.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use crate::{Announced, Position};

type Listener = Arc<dyn Fn(&[Announced]) + Send + Sync>;

/// Listeners, and the newest position they heard of.
#[derive(Default)]
pub(crate) struct Feed {
    listeners: RwLock<Vec<Listener>>,
    position: AtomicI64,
}

impl Feed {
    pub(crate) fn listen(&self, listener: Listener) {
        self.listeners.write().unwrap_or_else(PoisonError::into_inner).push(listener);
    }

    /// Where the clock stood when the store was opened.
    pub(crate) fn start_at(&self, position: Position) {
        self.position.fetch_max(position.0, Ordering::SeqCst);
    }

    pub(crate) fn position(&self) -> Position {
        Position(self.position.load(Ordering::SeqCst))
    }

    pub(crate) fn announce(&self, announced: &[Announced]) {
        let Some(last) = announced.last() else { return };
        self.position.fetch_max(last.position.0, Ordering::SeqCst);
        let listeners = self.listeners.read().unwrap_or_else(PoisonError::into_inner).clone();
        for listener in listeners {
            // A listener's panic must not take the committing thread with it.
            if catch_unwind(AssertUnwindSafe(|| listener(announced))).is_err() {
                tracing::error!("a listener of the feed panicked");
            }
        }
    }
}
