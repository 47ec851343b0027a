//! How it stands with other servers, for those who ask why a message has not arrived.

use std::sync::Arc;

use hearth_matrix::ruma::{OwnedRoomId, OwnedServerName, ServerName};
use hearth_remote::RuleRefusal;
use hearth_store::{Delivered, Destination, Position, StoreError, Tx};
use rustc_hash::FxHashSet;

use crate::board::Task;
use crate::{Delivery, Inner, transaction};

/// Events that are counted, at most.
const EVENTS: i64 = 10_000;
/// Rooms that are looked into, at most.
const ROOMS: usize = 1_000;
/// Shared rooms that are named.
const NAMED: i64 = 100;
/// Servers that a list looks at.
const SERVERS: i64 = 500;
/// Who lacks something for less than this is being served.
const LAGS_MS: i64 = 10_000;

/// How it stands with a server.
#[derive(Clone, Debug)]
pub struct Status {
    /// Which.
    pub server: OwnedServerName,
    /// Why nothing is sent to it whatever happens.
    pub refusal: Option<RuleRefusal>,
    /// How it answered, if we ever asked it.
    pub destination: Option<Destination>,
    /// What is done for it.
    pub task: Task,
    /// What it lacks.
    pub behind: Behind,
    /// The transaction that is under way or was at the last stop: what comes after the first position, up to the second.
    pub under_way: Option<(Position, Position)>,
    /// It lacks so much that it gets the newest of each room only.
    pub leaps: bool,
    /// Rooms shared with it, the first of them.
    pub rooms: Vec<OwnedRoomId>,
}

/// What a server lacks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Events.
    pub events: usize,
    /// There are more than were counted.
    pub more: bool,
    /// When the oldest of them was sent.
    pub oldest_ts: Option<i64>,
}

/// A server that is behind or does not answer, in numbers.
#[derive(Clone, Debug)]
pub struct Lag {
    /// Which.
    pub server: OwnedServerName,
    /// Failures in a row.
    pub failures: i64,
    /// Events that it lacks, as far as they are counted.
    pub events: usize,
    /// How long it has lacked something; zero if it lacks nothing.
    pub behind_ms: i64,
}

impl Delivery {
    /// How it stands with a server.
    pub async fn status(&self, server: &ServerName) -> Result<Status, StoreError> {
        self.inner.status(server, EVENTS).await
    }

    /// How it stands with those that don't answer or lack something, the worst first, at most `limit`.
    pub async fn lagging(&self, limit: usize) -> Result<Vec<Status>, StoreError> {
        let read = self.inner.store.read(|tx| {
            let failing = tx.destinations().failing(SERVERS)?;
            Ok((failing, tx.deliveries().servers_with_work()?))
        });
        let (failing, others) = read.await?;
        let lacking = self.inner.board.longest_lacking(self.inner.time.now_ms(), SERVERS as usize);
        let lacking = lacking.iter().map(|(server, _)| server.as_str().into());
        let names = failing.into_iter().chain(lacking).chain(others);
        let mut all = Vec::new();
        for server in likely_worst(names.filter(|name| **name != *self.inner.own.as_str())) {
            let status = self.inner.status(&server, EVENTS / 10).await?;
            let fails = status.destination.as_ref().is_some_and(|destination| destination.failures > 0);
            if fails || status.behind.events > 0 {
                all.push(status);
            }
        }
        all.sort_by_key(|status| {
            let since = status.destination.as_ref().and_then(|destination| destination.failing_since_ts);
            (status.behind.events == 0, status.behind.oldest_ts.unwrap_or(i64::MAX), since.unwrap_or(i64::MAX))
        });
        all.truncate(limit);
        Ok(all)
    }

    /// The servers that have been behind for longest, then those that have been silent for longest, at most `limit`: what a look
    /// that is taken every few seconds may cost.
    pub async fn slowest(&self, limit: usize) -> Result<Vec<Lag>, StoreError> {
        let Inner { board, store, time, .. } = &*self.inner;
        let now = time.now_ms();
        let mut servers: Vec<(OwnedServerName, Option<i64>)> = Vec::with_capacity(limit);
        servers.extend(
            board.longest_lacking(now - LAGS_MS, limit).into_iter().map(|(server, since)| (server, Some(since))),
        );
        let failing = store.read(move |tx| tx.destinations().failing(limit as i64)).await?;
        for server in failing.iter().filter_map(|name| OwnedServerName::try_from(&**name).ok()) {
            if servers.len() < limit && servers.iter().all(|(known, _)| *known != server) {
                servers.push((server, None));
            }
        }
        let mut lags = Vec::with_capacity(servers.len());
        for (server, since) in servers {
            let Status { destination, behind, .. } = self.inner.status(&server, EVENTS / 10).await?;
            // A restart has forgotten since when, the events have not.
            let since = since.into_iter().chain(behind.oldest_ts).min();
            lags.push(Lag {
                server,
                failures: destination.map_or(0, |destination| destination.failures),
                events: behind.events,
                behind_ms: since.map_or(0, |since| (now - since).max(0)),
            });
        }
        Ok(lags)
    }

    /// Writes down the measures that are of the moment.
    pub fn measure(&self) {
        let since = self.inner.board.slowest_since();
        let behind_ms = since.map_or(0, |since| (self.inner.time.now_ms() - since).max(0));
        metrics::gauge!("hearth_delivery_slowest_behind_seconds").set(behind_ms as f64 / 1000.0);
    }
}

/// As many servers as are looked at, each once: the first, of which is known that they fail or lack something.
fn likely_worst(names: impl Iterator<Item = Arc<str>>) -> Vec<OwnedServerName> {
    let mut seen = FxHashSet::default();
    let servers =
        names.filter(|name| seen.insert(name.clone())).filter_map(|name| OwnedServerName::try_from(&*name).ok());
    servers.take(SERVERS as usize).collect()
}

impl Inner {
    async fn status(&self, server: &ServerName, most: i64) -> Result<Status, StoreError> {
        let name = server.to_string();
        let read = self.store.read(move |tx| {
            let destination = tx.destinations().get(&name)?;
            let Some(num) = tx.string_num(&name)? else {
                return Ok((destination, Delivered::default(), Behind::default(), Vec::new()));
            };
            let delivered = tx.deliveries().get(num)?.unwrap_or_default();
            let behind = behind(tx, num, delivered.sent, most)?;
            let mut rooms = Vec::new();
            for room in tx.deliveries().rooms_of(num, NAMED)? {
                rooms.push(tx.rooms().by_num(room)?.room_id.clone());
            }
            Ok((destination, delivered, behind, rooms))
        });
        let (destination, delivered, behind, rooms) = read.await?;
        Ok(Status {
            server: server.to_owned(),
            refusal: self.remote.refusal(server),
            destination,
            task: self.board.task_of(server),
            behind,
            under_way: delivered.under_way.map(|under_way| (delivered.sent, under_way.upto)),
            leaps: delivered.leap.is_some(),
            rooms,
        })
    }
}

fn behind(tx: &mut Tx<'_>, server: hearth_store::StringNum, sent: Position, most: i64) -> Result<Behind, StoreError> {
    let now = tx.position()?;
    let rooms = tx.deliveries().rooms_with_work(server, sent)?;
    let mut behind = Behind { more: rooms.len() > ROOMS, ..Behind::default() };
    let mut oldest = None;
    for room in rooms.into_iter().take(ROOMS) {
        let lacking = transaction::all(tx, server, &[room], sent, now, most)?;
        behind.events += lacking.len();
        oldest = oldest.into_iter().chain(lacking.into_iter().map(|(position, event, _)| (position, event))).min();
        if behind.events as i64 >= most {
            behind.more = true;
            break;
        }
    }
    let aside = tx.deliveries().aside(server, sent, now, most)?;
    behind.events += aside.len();
    oldest = oldest.into_iter().chain(aside).min();
    if let Some((_, event)) = oldest {
        behind.oldest_ts = tx.events().row(event)?.map(|row| row.origin_server_ts);
    }
    Ok(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_is_looked_at_before_the_many_who_lack_something_just_now() {
        let many = (0..2 * SERVERS).map(|n| format!("a{n}.test").into());
        let names = ["z.test", "y.test", "z.test"].into_iter().map(Arc::from).chain(many);
        let servers = likely_worst(names);
        assert_eq!(servers[..3], ["z.test", "y.test", "a0.test"]);
        assert_eq!(servers.len(), SERVERS as usize);
    }
}
