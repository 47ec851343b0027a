//! Whose turn it is to be asked something that nobody waits for: a server that answers slowly holds up itself, and what is
//! held of large answers is bounded, whoever sends them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hearth_matrix::ruma::{OwnedServerName, ServerName};
use tokio::sync::{Semaphore, SemaphorePermit};

/// What the answers to all questions under way may take, MiB.
const ALL: usize = 1024;
/// Those of one server.
const OF_SERVER: usize = 32;
/// The large ones, MiB, which have places of their own: they keep none of the others waiting.
const ALL_LARGE: usize = 1024;
/// Large ones of one server.
const LARGE_OF_SERVER: usize = 1;
/// An answer that may be larger than this is large, in MiB.
const LARGE: usize = 16;

const MEBIBYTE: usize = 1024 * 1024;

/// The turns of all servers.
pub(super) struct Turns {
    all: Semaphore,
    large: Semaphore,
    /// Of servers that are being asked something.
    of_servers: Mutex<HashMap<OwnedServerName, Weak<OfServer>>>,
}

struct OfServer {
    all: Semaphore,
    large: Semaphore,
}

/// A question may be put while this lives.
pub(super) struct Turn<'a> {
    _place: Option<SemaphorePermit<'a>>,
    _of_server: Held,
}

/// Places of one server, given back when this is dropped.
struct Held {
    server: Arc<OfServer>,
    mebibytes: usize,
}

impl Held {
    fn is_large(&self) -> bool {
        self.mebibytes > LARGE
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        match self.is_large() {
            true => self.server.large.add_permits(1),
            false => self.server.all.add_permits(self.mebibytes),
        }
    }
}

impl Default for Turns {
    fn default() -> Self {
        Self { all: Semaphore::new(ALL), large: Semaphore::new(ALL_LARGE), of_servers: Mutex::default() }
    }
}

impl Turns {
    /// Waits until a server may be asked a question with an answer of so many bytes at most.
    pub(super) async fn take(&self, server: &ServerName, bytes: usize) -> Turn<'_> {
        let mebibytes = bytes.div_ceil(MEBIBYTE).clamp(1, ALL_LARGE);
        let places = u32::try_from(mebibytes).unwrap_or(1);
        let of_server = self.of_server(server);
        // The server's own places come first: waiting for them takes none of the others'. No semaphore is ever closed.
        let permit = match mebibytes > LARGE {
            true => of_server.large.acquire().await,
            false => of_server.all.acquire_many(places).await,
        };
        if let Ok(permit) = permit {
            permit.forget();
        }
        let held = Held { server: of_server.clone(), mebibytes };
        let place = if held.is_large() { &self.large } else { &self.all }.acquire_many(places).await;
        Turn { _place: place.ok(), _of_server: held }
    }

    fn of_server(&self, server: &ServerName) -> Arc<OfServer> {
        let mut of_servers = self.of_servers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(of_server) = of_servers.get(server).and_then(Weak::upgrade) {
            return of_server;
        }
        of_servers.retain(|_, of_server| of_server.strong_count() > 0);
        let of_server = Arc::new(OfServer { all: Semaphore::new(OF_SERVER), large: Semaphore::new(LARGE_OF_SERVER) });
        of_servers.insert(server.to_owned(), Arc::downgrade(&of_server));
        of_server
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A turn, if there is one at once.
    async fn now<'a>(turns: &'a Turns, server: &ServerName, bytes: usize) -> Option<Turn<'a>> {
        tokio::time::timeout(Duration::ZERO, turns.take(server, bytes)).await.ok()
    }

    fn name(server: &str) -> OwnedServerName {
        server.try_into().expect("a server name")
    }

    #[tokio::test]
    async fn a_slow_server_holds_up_itself_alone() {
        let turns = Turns::default();
        let (slow, other) = (name("slow.test"), name("other.test"));
        let mut under_way = Vec::new();
        for _ in 0..OF_SERVER {
            under_way.push(now(&turns, &slow, 1024).await.expect("its turn"));
        }
        assert!(now(&turns, &slow, 1024).await.is_none());
        assert!(now(&turns, &other, 1024).await.is_some());
        under_way.pop();
        assert!(now(&turns, &slow, 1024).await.is_some());
    }

    #[tokio::test]
    async fn answers_take_no_more_than_some_memory() {
        let turns = Turns::default();
        let mut under_way = Vec::new();
        for n in 0..ALL / OF_SERVER {
            let server = name(&format!("s{n}.test"));
            for _ in 0..OF_SERVER / LARGE {
                under_way.push(now(&turns, &server, LARGE * MEBIBYTE).await.expect("its turn"));
            }
            assert!(now(&turns, &server, 1).await.is_none());
        }
        assert!(now(&turns, &name("more.test"), 1).await.is_none());
        under_way.pop();
        for _ in 0..LARGE {
            under_way.push(now(&turns, &name("more.test"), 1).await.expect("its turn"));
        }
        assert!(now(&turns, &name("another.test"), 1).await.is_none());
    }

    #[tokio::test]
    async fn large_answers_are_few() {
        let turns = Turns::default();
        let (quarter, mut under_way) = (ALL_LARGE / 4 * MEBIBYTE, Vec::new());
        for n in 0..4 {
            let server = name(&format!("s{n}.test"));
            under_way.push(now(&turns, &server, quarter).await.expect("its turn"));
            assert!(now(&turns, &server, quarter).await.is_none());
            assert!(now(&turns, &server, 1024).await.is_some());
        }
        assert!(now(&turns, &name("more.test"), quarter).await.is_none());
        drop(under_way);
        assert!(now(&turns, &name("more.test"), quarter).await.is_some());
        assert!(turns.of_servers.lock().expect("whole").len() <= 1, "nothing is kept of servers that nobody asks");
    }
}
