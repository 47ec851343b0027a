//! Policy servers that are asked: how many questions at once, and not while they don't answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_matrix::ruma::{OwnedServerName, ServerName};
use rustc_hash::FxHashMap;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::{Asker, Later};

/// Questions to one policy server at once, for people and for what came.
const FOR_PEOPLE: usize = 32;
const FOR_WORKERS: usize = 16;
/// After a failure nobody asks for so long; nor do workers, for twice as long after each.
const FIRST_REST: Duration = Duration::from_secs(1);
const LONGEST_REST: Duration = Duration::from_secs(30);
/// Servers remembered before those are forgotten that nobody asks.
const REMEMBERED: usize = 256;

/// All policy servers that were asked lately.
#[derive(Default)]
pub(super) struct Servers(Mutex<FxHashMap<OwnedServerName, Arc<Server>>>);

/// One policy server.
pub(super) struct Server {
    for_people: Semaphore,
    for_workers: Semaphore,
    failing: Mutex<Option<Failing>>,
}

/// It could not be asked.
struct Failing {
    since: Instant,
    rest: Duration,
    why: String,
}

/// A question that may be asked.
pub(super) struct Turn<'s> {
    server: &'s Server,
    begun: Instant,
    _place: SemaphorePermit<'s>,
}

impl Servers {
    pub(super) fn get(&self, name: &ServerName) -> Arc<Server> {
        let mut servers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(server) = servers.get(name) {
            return server.clone();
        }
        if servers.len() >= REMEMBERED {
            servers.retain(|_, server| Arc::strong_count(server) > 1);
        }
        let server = Arc::new(Server {
            for_people: Semaphore::new(FOR_PEOPLE),
            for_workers: Semaphore::new(FOR_WORKERS),
            failing: Mutex::default(),
        });
        servers.insert(name.to_owned(), server.clone());
        server
    }
}

impl Server {
    /// Waits until the server may be asked; or why it may not.
    pub(super) async fn turn(&self, asker: Asker) -> Result<Turn<'_>, String> {
        self.check_rest(asker)?;
        let places = match asker {
            Asker::Person => &self.for_people,
            Asker::Worker => &self.for_workers,
        };
        let place = places.acquire().await.map_err(|error| error.to_string())?;
        // Who was before may have asked in vain.
        self.check_rest(asker)?;
        Ok(Turn { server: self, begun: Instant::now(), _place: place })
    }

    fn check_rest(&self, asker: Asker) -> Result<(), String> {
        let failing = self.failing();
        let Some(failing) = failing.as_ref() else { return Ok(()) };
        let rest = match asker {
            Asker::Person => FIRST_REST,
            Asker::Worker => failing.rest,
        };
        if failing.since.elapsed() < rest { Err(failing.why.clone()) } else { Ok(()) }
    }

    fn failing(&self) -> MutexGuard<'_, Option<Failing>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Turn<'_> {
    pub(super) fn answered(self) {
        *self.server.failing() = None;
    }

    pub(super) fn failed(self, why: &Later) {
        let why = match why {
            Later::Busy(refusal) => refusal.to_string(),
            Later::Unreachable(why) => why.clone(),
        };
        let mut failing = self.server.failing();
        let rest = match failing.as_ref() {
            // Many questions at once that fail are one failure.
            Some(before) if before.since >= self.begun => before.rest,
            Some(before) => (before.rest * 2).min(LONGEST_REST),
            None => FIRST_REST,
        };
        *failing = Some(Failing { since: Instant::now(), rest, why });
    }
}
