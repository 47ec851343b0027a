//! Who has work: rooms with news, servers that are being sent to, servers that wait for their time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_matrix::ruma::{OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use hearth_store::{RoomNum, StoreError, UserNum, WallTime};
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
const SERVERS: i64 = 100_000;

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
    /// Servers with a task, and what has come for them since it looked last.
    busy: FxHashMap<OwnedServerName, Pending>,
    /// Servers that are to get a task.
    starting: Vec<OwnedServerName>,
    /// Servers that don't answer, by when they are tried again.
    waiting: BTreeSet<(i64, OwnedServerName)>,
    waits_until: FxHashMap<OwnedServerName, i64>,
    /// Since when the servers with a task lack what their task is at.
    behind: FxHashMap<OwnedServerName, i64>,
    /// Who typed when the servers of his room were told last.
    typers: FxHashMap<RoomNum, Typers>,
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

    /// A server has shown life: it need not wait any longer.
    pub(crate) fn lives(&self, server: &ServerName, now_ms: i64) {
        self.state().resume(server, false, now_ms);
        self.news.notify_one();
    }

    /// Returns when there is news, or somebody's time may have come.
    pub(crate) async fn wait(&self, time: &WallTime) {
        let somebody_waits = {
            let state = self.state();
            !state.waiting.is_empty() || !state.typers.is_empty()
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
        state.behind.insert(server.to_owned(), pending.since_ms);
        Some(pending)
    }

    /// What a server's task does.
    pub(crate) fn task_of(&self, server: &ServerName) -> Task {
        let state = self.state();
        if let Some(until_ms) = state.waits_until.get(server) {
            return Task::Waits { until_ms: *until_ms };
        }
        match state.busy.contains_key(server) {
            true => Task::Sends,
            false => Task::Rests,
        }
    }

    /// Since when the slowest of the servers that answer lacks something.
    pub(crate) fn slowest_since(&self) -> Option<i64> {
        self.state().behind.values().copied().min()
    }

    /// A server does not answer: its task ends, and it is tried again at a time.
    pub(crate) fn park(&self, server: &ServerName, until_ms: i64) {
        let mut state = self.state();
        state.busy.remove(server);
        state.behind.remove(server);
        state.waits_until.insert(server.to_owned(), until_ms);
        state.waiting.insert((until_ms, server.to_owned()));
        metrics::gauge!("hearth_delivery_destinations_waiting").set(state.waiting.len() as f64);
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
}

impl State {
    /// Has something put down for a server, unless it waits: then all is found when its time has come.
    fn hand(&mut self, server: &ServerName, now_ms: i64, put: impl FnOnce(&mut Pending)) {
        if self.waits_until.contains_key(server) {
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
            pending.since_ms = now_ms;
        }
        put(pending);
    }

    fn resume(&mut self, server: &ServerName, doubtful: bool, now_ms: i64) {
        let Some(until) = self.waits_until.remove(server) else { return };
        self.waiting.remove(&(until, server.to_owned()));
        metrics::gauge!("hearth_delivery_destinations_waiting").set(self.waiting.len() as f64);
        self.hand(server, now_ms, |pending| {
            (pending.look, pending.doubtful, pending.lives) = (true, doubtful, !doubtful);
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
            let retry = |tx: &mut hearth_store::Tx<'_>, server: &Arc<str>| {
                Ok::<_, StoreError>(tx.destinations().get(server)?.map_or(0, |destination| destination.retry_ts))
            };
            servers.into_iter().map(|server| Ok((retry(tx, &server)?, server))).collect::<Result<Vec<_>, StoreError>>()
        });
        let now = self.time.now_ms();
        for (retry_ts, name) in lacking.await? {
            let Ok(server) = OwnedServerName::try_from(&*name) else { continue };
            if !self.is_served(&server) {
                continue;
            }
            if retry_ts > now {
                self.board.park(&server, retry_ts);
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

    fn served<'a>(&'a self, servers: &'a [Arc<str>]) -> impl Iterator<Item = &'a ServerName> {
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

    /// What our users are, for the servers of those they share rooms with.
    pub(crate) async fn tell_presence(&self, users: FxHashSet<UserNum>) -> Result<(), StoreError> {
        let seen = self.presence.of_all(users.into_iter());
        for seen in seen {
            if seen.shown.user_id.split_once(':').is_none_or(|(_, server)| server != self.own.as_str()) {
                continue;
            }
            let user = seen.user;
            let read = self.store.read(move |tx| {
                let mut servers: FxHashSet<Arc<str>> = FxHashSet::default();
                for row in tx.members().rooms_of_user(user, hearth_store::Membership::Join)? {
                    servers.extend(tx.rooms().servers(row.room, SERVERS)?);
                }
                Ok(servers.into_iter().collect::<Vec<_>>())
            });
            let servers = read.await?;
            let mut state = self.board.state();
            for server in self.served(&servers) {
                state.hand(server, self.time.now_ms(), |pending| {
                    pending.presence.insert(user);
                });
            }
        }
        Ok(())
    }
}
