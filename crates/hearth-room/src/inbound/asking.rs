//! Whom to ask about events of a room, and how not to wait for those who don't answer.

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::ruma::{OwnedServerName, UserId};
use hearth_store::{EventNum, RoomPlace, RoomRecord, StoreError, Tx};
use tokio::task::JoinSet;

use super::{Answer, Neighbours, Unanswered};
use crate::Rooms;

/// A server that does not answer within this is not waited for alone.
const SLOW: Duration = Duration::from_secs(3);
/// Servers that are considered.
const CONSIDERED: i64 = 50;
/// Servers that are asked one thing.
const ASKED: usize = 10;
/// Events that tell who speaks.
const SPOKEN: i64 = 50;

impl Rooms {
    /// Servers to ask, as they are sorted; those that failed lately last: they may take long to fail again.
    pub(super) async fn in_order(
        &self,
        neighbours: &dyn Neighbours,
        servers: &[OwnedServerName],
    ) -> Vec<OwnedServerName> {
        let others = servers.iter().filter(|server| **server != self.inner.config.server_name);
        let mut servers: Vec<OwnedServerName> = others.cloned().collect();
        let resting = neighbours.resting(&servers).await;
        servers.sort_by_key(|server| resting.contains(server));
        servers.truncate(ASKED);
        servers
    }

    /// Other servers of a room to ask about events right before a place in it: those whose users spoke there have what they
    /// answered to, those who spoke last are most likely there; then the others, those that came first before.
    pub(super) async fn servers_to_ask(
        &self,
        neighbours: &dyn Neighbours,
        room: &Arc<RoomRecord>,
        before: i64,
    ) -> Result<Vec<OwnedServerName>, StoreError> {
        let asked = room.clone();
        let read = self.inner.store.read(move |tx| {
            let mut servers = speakers(tx, &asked, before)?;
            if before < i64::MAX {
                servers.extend(speakers(tx, &asked, i64::MAX)?);
            }
            let inside = tx.rooms().servers(asked.num, CONSIDERED)?;
            servers.extend(inside.iter().filter_map(|name| OwnedServerName::try_from(&**name).ok()));
            Ok(servers)
        });
        let mut servers: Vec<OwnedServerName> = Vec::new();
        for server in read.await? {
            if !servers.contains(&server) {
                servers.push(server);
            }
        }
        Ok(self.in_order(neighbours, &servers).await)
    }
}

/// Servers of the room whose users sent the events right before a place in it, the nearest first.
fn speakers(tx: &mut Tx<'_>, room: &RoomRecord, before: i64) -> Result<Vec<OwnedServerName>, StoreError> {
    let place = RoomPlace { room_order: before, num: EventNum(i64::MAX) };
    let mut servers: Vec<OwnedServerName> = Vec::new();
    for row in tx.events().before(room.num, place, SPOKEN)? {
        let sender = tx.string(row.sender)?;
        let Ok(sender) = <&UserId>::try_from(&*sender) else { continue };
        let server = sender.server_name();
        if servers.iter().all(|known| known != server)
            && let Some(num) = tx.string_num(server.as_str())?
            && tx.rooms().has_server(room.num, num)?
        {
            servers.push(server.to_owned());
        }
    }
    Ok(servers)
}

/// Answers of several servers to one question, as they come. One server is asked after the other; where one is slow, the next is
/// asked beside it: the question changes nothing anywhere.
pub(super) struct Answers<T> {
    /// Those not asked yet.
    servers: std::vec::IntoIter<OwnedServerName>,
    ask: Box<dyn Fn(OwnedServerName) -> Answer<'static, Result<T, Unanswered>> + Send>,
    asked: JoinSet<(OwnedServerName, Result<T, Unanswered>)>,
}

impl<T: Send + 'static> Answers<T> {
    pub(super) fn of(
        servers: Vec<OwnedServerName>,
        ask: impl Fn(OwnedServerName) -> Answer<'static, Result<T, Unanswered>> + Send + 'static,
    ) -> Self {
        Self { servers: servers.into_iter(), ask: Box::new(ask), asked: JoinSet::new() }
    }

    /// The next answer; none is left if there is none.
    pub(super) async fn next(&mut self) -> Option<(OwnedServerName, Result<T, Unanswered>)> {
        loop {
            if let Some(server) = self.servers.next() {
                let answer = (self.ask)(server.clone());
                self.asked.spawn(async move { (server, answer.await) });
            }
            let is_last = self.servers.len() == 0;
            tokio::select! {
                biased;
                answer = self.asked.join_next() => match answer {
                    Some(Ok(answer)) => return Some(answer),
                    Some(Err(error)) => tracing::error!(%error, "a server could not be asked"),
                    None => return None,
                },
                () = tokio::time::sleep(SLOW), if !is_last => {}
            }
        }
    }
}
