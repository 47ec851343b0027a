//! Who has work: rooms with news, servers that are being sent to, servers that wait for their time.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_matrix::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use hearth_store::{Destination, Position, RoomNum, StoreError, UserNum, WallTime};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;

use crate::Inner;
use crate::edus::Pending;

/// Before what failed for the store is tried again.
pub(crate) const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(5);
/// The clock is looked at so often while somebody waits for his time.
const LOOK: Duration = Duration::from_secs(1);
/// Who types on is told again so often: servers forget who they hear no more of, some after 30 seconds.
const TYPES_ON_MS: i64 = 25_000;
/// Servers of one room that are told of typing and the like.
pub(crate) const SERVERS: i64 = 100_000;
/// Who comes into a room is told of presence, and of his, so much later: before, the other servers need not know of each other.
const GREETED_AFTER_MS: i64 = 5_000;
/// Those who wait for that. The others hear of it when it is told anew that somebody is there.
const NEWCOMERS: usize = 10_000;

/// Who has work.
#[derive(Default)]
pub(crate) struct Board {
    state: Mutex<State>,
    news: Notify,
}

#[derive(Default)]
struct State {
    /// Rooms with new events or receipts.
    rooms: FxHashSet<RoomNum>,
    /// Servers that have something aside.
    aside: FxHashSet<OwnedServerName>,
    typing: FxHashSet<RoomNum>,
    presence: FxHashSet<UserNum>,
    /// Who came into rooms lately, the first of them first.
    newcomers: VecDeque<(i64, Newcomer)>,
    /// Servers with a task, and what has come for them since it looked last.
    busy: FxHashMap<OwnedServerName, Pending>,
    /// Servers that are to get a task.
    starting: Vec<OwnedServerName>,
    /// Servers that don't answer, by when they are tried again.
    waiting: BTreeSet<(i64, OwnedServerName)>,
    rests: FxHashMap<OwnedServerName, Rest>,
    /// Since when the servers with a task lack what their task is at.
    behind: FxHashMap<OwnedServerName, Behind>,
    /// Who typed when the servers of his room were told last.
    typers: FxHashMap<RoomNum, Typers>,
}

/// Somebody, of whichever server, who came into a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Newcomer {
    pub(crate) room: RoomNum,
    pub(crate) user: UserNum,
    /// With what.
    pub(crate) position: Position,
}

/// A server that doesn't answer.
struct Rest {
    until_ms: i64,
    lacking_since_ms: i64,
}

/// What a server's task is at.
struct Behind {
    /// Since when, in this try.
    since_ms: i64,
    lacking_since_ms: i64,
}

/// Who typed in a room when its servers were told last.
#[derive(Default)]
struct Typers {
    users: Vec<OwnedUserId>,
    /// When all of them were told.
    told_ms: i64,
}

/// What is done for a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Task {
    /// Nothing: it lacks nothing, as far as is known.
    Rests,
    /// It is being sent to.
    Sends,
    /// It does not answer, and is tried again later.
    Waits {
        /// When, at the latest.
        until_ms: i64,
    },
}

/// What came since the last look.
#[derive(Default)]
struct News {
    rooms: FxHashSet<RoomNum>,
    aside: FxHashSet<OwnedServerName>,
    typing: FxHashSet<RoomNum>,
}

impl Typers {
    fn is_due(&self, now_ms: i64) -> bool {
        !self.users.is_empty() && self.told_ms + TYPES_ON_MS <= now_ms
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something that is for other servers has happened in a room; perhaps also for one that is not in it.
    pub(crate) fn event(&self, room: RoomNum, aside: Option<&ServerName>) {
        let mut state = self.state();
        state.rooms.insert(room);
        state.aside.extend(aside.map(ToOwned::to_owned));
        drop(state);
        self.news.notify_one();
    }

    pub(crate) fn typing(&self, room: RoomNum) {
        self.state().typing.insert(room);
        self.news.notify_one();
    }

    pub(crate) fn presence(&self, user: UserNum) {
        self.state().presence.insert(user);
        self.news.notify_one();
    }

    pub(crate) fn newcomer(&self, newcomer: Newcomer, now_ms: i64) {
        let mut state = self.state();
        if state.newcomers.len() < NEWCOMERS {
            state.newcomers.push_back((now_ms + GREETED_AFTER_MS, newcomer));
            self.news.notify_one();
        }
    }

    /// A server has shown life: it need not wait any longer.
    pub(crate) fn lives(&self, server: &ServerName, now_ms: i64) {
        self.state().resume(server, false, now_ms);
        self.news.notify_one();
    }

    /// Returns when there is news, or somebody's time may have come.
    pub(crate) async fn wait(&self, time: &WallTime) {
        let somebody_waits = {
            let state = self.state();
            !state.waiting.is_empty() || !state.typers.is_empty() || !state.newcomers.is_empty()
        };
        if somebody_waits {
            let _ = tokio::time::timeout(LOOK, self.news.notified()).await;
        } else {
            self.news.notified().await;
        }
        let now = time.now_ms();
        let mut state = self.state();
        while let Some((at, server)) = state.waiting.first().cloned()
            && at <= now
        {
            state.resume(&server, true, now);
        }
    }

    /// Servers that are to get a task.
    pub(crate) fn take_starting(&self) -> Vec<OwnedServerName> {
        std::mem::take(&mut self.state().starting)
    }

    /// Whether anything has come for a server since its task looked last.
    pub(crate) fn has_news_for(&self, server: &ServerName) -> bool {
        self.state().busy.get(server).is_some_and(|pending| !pending.is_empty())
    }

    /// What has come for a server; nothing if its task is to end.
    pub(crate) fn next(&self, server: &ServerName) -> Option<Pending> {
        let mut state = self.state();
        // Whatever the task was at is done.
        state.behind.remove(server);
        let pending = state.busy.get_mut(server)?;
        if pending.is_empty() {
            state.busy.remove(server);
            return None;
        }
        let pending = std::mem::take(pending);
        let Pending { since_ms, lacking_since_ms, .. } = pending;
        state.behind.insert(server.to_owned(), Behind { since_ms, lacking_since_ms });
        Some(pending)
    }

    /// What a server's task does.
    pub(crate) fn task_of(&self, server: &ServerName) -> Task {
        let state = self.state();
        if let Some(Rest { until_ms, .. }) = state.rests.get(server) {
            return Task::Waits { until_ms: *until_ms };
        }
        match state.busy.contains_key(server) {
            true => Task::Sends,
            false => Task::Rests,
        }
    }

    /// Since when the slowest of the servers that answer lacks something.
    pub(crate) fn slowest_since(&self) -> Option<i64> {
        self.state().behind.values().map(|behind| behind.since_ms).min()
    }

    /// The servers that have lacked something for longest, since before a time, with since when: at most `most`, whether they
    /// answer or not.
    pub(crate) fn longest_lacking(&self, before_ms: i64, most: usize) -> Vec<(OwnedServerName, i64)> {
        let state = self.state();
        let resting = state.rests.iter().map(|(server, rest)| (rest.lacking_since_ms, server));
        let served = state.behind.iter().map(|(server, behind)| (behind.lacking_since_ms, server));
        let mut lacking: Vec<_> = resting.chain(served).filter(|(since_ms, _)| *since_ms < before_ms).collect();
        lacking.sort_unstable();
        lacking.into_iter().take(most).map(|(since_ms, server)| (server.clone(), since_ms)).collect()
    }

    /// A server does not answer: its task ends, and it is tried again at a time.
    pub(crate) fn park(&self, server: &ServerName, until_ms: i64, now_ms: i64) {
        let mut state = self.state();
        let pending = state.busy.remove(server).filter(|pending| !pending.is_empty());
        let behind = state.behind.remove(server).map(|behind| behind.lacking_since_ms);
        let since_ms = pending.map(|pending| pending.lacking_since_ms).into_iter().chain(behind).min();
        state.rest(server, until_ms, since_ms.unwrap_or(now_ms));
        drop(state);
        self.news.notify_one();
    }

    fn take_news(&self, now_ms: i64) -> News {
        let mut state = self.state();
        let mut typing = std::mem::take(&mut state.typing);
        typing.extend(state.typers.iter().filter(|(_, typers)| typers.is_due(now_ms)).map(|(room, _)| *room));
        News { rooms: std::mem::take(&mut state.rooms), aside: std::mem::take(&mut state.aside), typing }
    }

    /// Users whose presence changed.
    pub(crate) fn take_presence(&self) -> FxHashSet<UserNum> {
        std::mem::take(&mut self.state().presence)
    }

    /// Who came into rooms, and has been there for a moment.
    pub(crate) fn take_newcomers(&self, now_ms: i64) -> Vec<Newcomer> {
        let mut state = self.state();
        let due = state.newcomers.iter().take_while(|(due_ms, _)| *due_ms <= now_ms).count();
        state.newcomers.drain(..due).map(|(_, newcomer)| newcomer).collect()
    }

    /// Has the presence of some users told to a server.
    pub(crate) fn tell(&self, server: &ServerName, users: &[UserNum], now_ms: i64) {
        if !users.is_empty() {
            self.state().hand(server, now_ms, |pending| pending.presence.extend(users));
        }
    }
}

impl State {
    /// A server is tried again at a time, and not at the one that was meant before.
    fn rest(&mut self, server: &ServerName, until_ms: i64, lacking_since_ms: i64) {
        let mut rest = Rest { until_ms, lacking_since_ms };
        if let Some(before) = self.rests.remove(server) {
            self.waiting.remove(&(before.until_ms, server.to_owned()));
            rest.lacking_since_ms = lacking_since_ms.min(before.lacking_since_ms);
        }
        self.rests.insert(server.to_owned(), rest);
        self.waiting.insert((until_ms, server.to_owned()));
        metrics::gauge!("hearth_delivery_destinations_waiting").set(self.waiting.len() as f64);
    }

    /// Has something put down for a server, unless it waits: then all is found when its time has come.
    fn hand(&mut self, server: &ServerName, now_ms: i64, put: impl FnOnce(&mut Pending)) {
        if self.rests.contains_key(server) {
            return;
        }
        let pending = match self.busy.get_mut(server) {
            Some(pending) => pending,
            None => {
                self.starting.push(server.to_owned());
                self.busy.entry(server.to_owned()).or_default()
            }
        };
        if pending.is_empty() {
            (pending.since_ms, pending.lacking_since_ms) = (now_ms, now_ms);
        }
        put(pending);
    }

    fn resume(&mut self, server: &ServerName, doubtful: bool, now_ms: i64) {
        let Some(Rest { until_ms, lacking_since_ms }) = self.rests.remove(server) else { return };
        self.waiting.remove(&(until_ms, server.to_owned()));
        metrics::gauge!("hearth_delivery_destinations_waiting").set(self.waiting.len() as f64);
        self.hand(server, now_ms, |pending| {
            (pending.look, pending.doubtful, pending.lives) = (true, doubtful, !doubtful);
            pending.lacking_since_ms = lacking_since_ms;
        });
    }
}

/// A room with the servers in it.
struct RoomServers {
    room: RoomNum,
    room_id: OwnedRoomId,
    servers: Vec<Arc<str>>,
}

impl Inner {
    /// Finds who lacks something from earlier.
    pub(crate) async fn take_up(&self) -> Result<(), StoreError> {
        let lacking = self.store.read(|tx| {
            let servers = tx.deliveries().servers_with_work()?;
            let with_destination = |name: Arc<str>| Ok((tx.destinations().get(&name)?.unwrap_or_default(), name));
            servers.into_iter().map(with_destination).collect::<Result<Vec<_>, StoreError>>()
        });
        let now = self.time.now_ms();
        for (Destination { retry_ts, failing_since_ts, .. }, name) in lacking.await? {
            let Ok(server) = OwnedServerName::try_from(&*name) else { continue };
            if !self.is_served(&server) {
                continue;
            }
            if retry_ts > now {
                self.board.park(&server, retry_ts, failing_since_ts.unwrap_or(now));
            } else {
                self.board.state().hand(&server, now, |pending| pending.look = true);
            }
        }
        Ok(())
    }

    /// Hands out what came since the last look.
    pub(crate) async fn distribute(&self) -> Result<(), StoreError> {
        let now = self.time.now_ms();
        let News { rooms, aside, typing } = self.board.take_news(now);
        for server in aside.iter().filter(|server| self.is_served(server)) {
            self.board.state().hand(server, now, |pending| pending.look = true);
        }
        for RoomServers { servers, .. } in self.servers_of(rooms).await? {
            let mut state = self.board.state();
            for server in self.served(&servers) {
                state.hand(server, now, |pending| pending.look = true);
            }
        }
        for RoomServers { room, room_id, servers } in self.servers_of(typing).await? {
            self.tell_typing(room, &room_id, &servers);
        }
        Ok(())
    }

    pub(crate) fn served<'a>(&'a self, servers: &'a [Arc<str>]) -> impl Iterator<Item = &'a ServerName> {
        let names = servers.iter().filter_map(|name| <&ServerName>::try_from(&**name).ok());
        names.filter(|server| self.is_served(server))
    }

    async fn servers_of(&self, rooms: FxHashSet<RoomNum>) -> Result<Vec<RoomServers>, StoreError> {
        if rooms.is_empty() {
            return Ok(Vec::new());
        }
        let read = self.store.read(move |tx| {
            let mut all = Vec::with_capacity(rooms.len());
            for room in &rooms {
                let servers = tx.rooms().servers(*room, SERVERS)?;
                all.push(RoomServers { room: *room, room_id: tx.rooms().by_num(*room)?.room_id.clone(), servers });
            }
            Ok(all)
        });
        read.await
    }

    /// Those of our users who began or ended to type since the room's servers were told last, and now and then those who type on.
    fn tell_typing(&self, room: RoomNum, room_id: &OwnedRoomId, servers: &[Arc<str>]) {
        let now_ms = self.time.now_ms();
        let now = self.typing.in_room(room).users;
        let now: Vec<OwnedUserId> =
            now.into_iter().map(|(_, user)| user).filter(|user| self.is_own(user.server_name())).collect();
        let mut state = self.board.state();
        let before = state.typers.remove(&room).unwrap_or_default();
        let all = before.users.is_empty() || before.is_due(now_ms);
        if !now.is_empty() {
            let told_ms = if all { now_ms } else { before.told_ms };
            state.typers.insert(room, Typers { users: now.clone(), told_ms });
        }
        let began = now.iter().filter(|user| all || !before.users.contains(user)).map(|user| (user, true));
        let ended = before.users.iter().filter(|user| !now.contains(user)).map(|user| (user, false));
        for (user, typing) in began.chain(ended) {
            for server in self.served(servers) {
                state.hand(server, now_ms, |pending| pending.typing(room_id, user, typing));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(name: &str) -> OwnedServerName {
        name.try_into().expect("a server name")
    }

    #[tokio::test]
    async fn a_server_that_is_parked_again_is_tried_once_at_the_newer_time() {
        let (board, there, time) = (Board::default(), server("a.org"), WallTime::manual(1_000));
        board.park(&there, 2_000, 1_000);
        board.park(&there, 3_000, 1_500);
        time.advance(1_500);
        board.wait(&time).await;
        assert!(board.take_starting().is_empty());
        assert_eq!(board.task_of(&there), Task::Waits { until_ms: 3_000 });
        time.advance(500);
        board.news.notify_one();
        board.wait(&time).await;
        assert_eq!(board.take_starting(), [there]);
    }

    #[test]
    fn who_lacks_something_longest_is_named_first_over_all_tries() {
        let board = Board::default();
        for n in 0..30 {
            let there = server(&format!("s{n}.org"));
            board.state().hand(&there, 1_000 + n, |pending| pending.look = true);
            board.next(&there);
            board.park(&there, 10_000, 5_000);
        }
        // Being tried once more does not make it any better.
        board.lives(&server("s7.org"), 6_000);
        board.next(&server("s7.org"));
        assert_eq!(board.slowest_since(), Some(6_000));
        let named = board.longest_lacking(1_025, 20);
        let expected: Vec<_> = (0..20).map(|n| (server(&format!("s{n}.org")), 1_000 + n)).collect();
        assert_eq!(named, expected);
        assert_eq!(board.longest_lacking(1_005, 20).len(), 5, "the others lack it for too short a time");
        // It has got what it lacked.
        board.next(&server("s7.org"));
        assert!(board.longest_lacking(i64::MAX, 30).iter().all(|(there, _)| *there != server("s7.org")));
    }
}
