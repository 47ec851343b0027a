//! Turns of those who ask strangers: so many at once, in all and of each stranger, so that who is slow holds up himself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// So many strangers are remembered before those of whom nobody wants anything are forgotten.
const MOST_REMEMBERED: usize = 1_024;

/// Who may ask whom.
pub(crate) struct Turns {
    strangers: Mutex<HashMap<String, Arc<Semaphore>>>,
    all: Arc<Semaphore>,
    at_once_of_one: usize,
    /// Of one, under way or waiting.
    most_of_one: usize,
}

/// Somebody's turn, until this is dropped.
pub(crate) struct Turn {
    _of_one: OwnedSemaphorePermit,
    _of_all: OwnedSemaphorePermit,
}

impl Turns {
    pub(crate) fn new(at_once: usize, at_once_of_one: usize, most_of_one: usize) -> Self {
        Self { strangers: Mutex::default(), all: Arc::new(Semaphore::new(at_once)), at_once_of_one, most_of_one }
    }

    /// Waits for a turn to ask a stranger. None if too many wait for him, or it takes too long.
    pub(crate) async fn turn(&self, stranger: &str, patience: Duration) -> Option<Turn> {
        let of_one = self.of(stranger)?;
        let both = async {
            let of_one = of_one.acquire_owned().await.ok()?;
            let of_all = self.all.clone().acquire_owned().await.ok()?;
            Some(Turn { _of_one: of_one, _of_all: of_all })
        };
        tokio::time::timeout(patience, both).await.ok()?
    }

    fn of(&self, stranger: &str) -> Option<Arc<Semaphore>> {
        let mut strangers = self.strangers.lock().unwrap_or_else(PoisonError::into_inner);
        if strangers.len() > MOST_REMEMBERED {
            strangers.retain(|_, permits| Arc::strong_count(permits) > 1);
        }
        let permits =
            strangers.entry(stranger.to_owned()).or_insert_with(|| Arc::new(Semaphore::new(self.at_once_of_one)));
        // Who waits or works holds one, and the map does.
        (Arc::strong_count(permits) <= self.most_of_one).then(|| permits.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn who_is_slow_holds_up_himself() {
        let turns = Turns::new(4, 2, 3);
        let (first, second) = (turns.turn("slow", LONG).await.unwrap(), turns.turn("slow", LONG).await.unwrap());
        let third = turns.turn("slow", LONG);
        tokio::pin!(third);
        assert!(futures_util::poll!(&mut third).is_pending());
        // One waits, a fourth does not.
        assert!(turns.turn("slow", LONG).await.is_none());
        let other = turns.turn("other", LONG).await.unwrap();
        drop(first);
        let third = third.await.unwrap();
        // All are busy: whoever comes waits, and not for ever.
        let another = turns.turn("other", LONG).await.unwrap();
        assert!(turns.turn("third", LONG).await.is_none());
        drop((second, third, other, another));
        assert!(turns.turn("third", LONG).await.is_some());
        assert!(turns.turn("slow", LONG).await.is_some());
    }
}
