//! Who is online: what a user's devices do, taken together. In memory, with a counter of this node like typing notices;
//! only the status message survives a restart.
//!
//! A device is there while it syncs and a little longer. The best of a user's devices counts; who does nothing for a while
//! is idle. Who may see it is not known here. What other servers tell of their users goes in by [`Presence::receive`], and
//! what is to be told to them comes out by [`Presence::on_change`].
//! Spec: client-server API, "Presence".

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use hearth_matrix::canonical::write_string;
use hearth_matrix::ruma::{OwnedUserId, ServerName, UserId};
use hearth_store::{DeviceNum, Noun, Store, StoreError, UserNum, WallTime};
use rustc_hash::FxHashMap;

/// Who does nothing for so long is idle.
const IDLE_MS: i64 = 5 * 60_000;
/// A device is there for so long after its last sync.
const GRACE_MS: i64 = 30_000;
/// Who went is remembered for so long, so that those who come back late hear of it.
const FORGET_MS: i64 = 30 * 60_000;
/// Who is at another server is there for so long after it told of him last.
const REMOTE_MS: i64 = 30 * 60_000;
/// So often it is told anew that somebody of ours is still there.
const STILL_THERE_MS: i64 = 25 * 60_000;
/// How often what is over is looked for.
const TICK: Duration = Duration::from_secs(1);
/// Users taken from one message of another server.
const TOLD_AT_ONCE: usize = 1_000;
/// Longest status message.
const STATUS_BYTES: usize = 1_024;

/// How present a user is, the least first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PresenceState {
    /// Not there, or not to be seen.
    Offline,
    /// There, but idle.
    Unavailable,
    /// There.
    Online,
    /// There, and not to be disturbed (MSC3026).
    Busy,
}

impl PresenceState {
    /// From the value of `presence`.
    pub fn from_spec(value: &str) -> Option<Self> {
        Some(match value {
            "offline" => Self::Offline,
            "unavailable" => Self::Unavailable,
            "online" => Self::Online,
            "org.matrix.msc3026.busy" => Self::Busy,
            _ => return None,
        })
    }

    /// The value of `presence`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Unavailable => "unavailable",
            Self::Online => "online",
            Self::Busy => "org.matrix.msc3026.busy",
        }
    }
}

/// What a client that syncs says of its user by it.
#[derive(Clone, Copy, Debug)]
pub struct SetPresence {
    /// The state. [`PresenceState::Offline`] leaves all as it is.
    pub state: PresenceState,
    /// The client said so: it knows whether somebody sits before it.
    pub explicit: bool,
}

impl Default for SetPresence {
    fn default() -> Self {
        Self { state: PresenceState::Online, explicit: false }
    }
}

/// Why presence can't be set that way.
#[derive(Debug, thiserror::Error)]
pub enum SetPresenceError {
    /// The message is too long.
    #[error("status_msg is longer than {STATUS_BYTES} bytes")]
    StatusTooLong,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why presence can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum GetPresenceError {
    /// No such user, or no room shared with him: who asks is not told which.
    #[error("not allowed to see this user's presence")]
    Forbidden,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What another server tells of a user of its: an entry of an `m.presence` EDU.
#[derive(Clone, Debug, serde::Deserialize)]
pub struct RemotePresence {
    /// Who.
    pub user_id: OwnedUserId,
    /// What he is.
    pub presence: String,
    /// What he says.
    pub status_msg: Option<String>,
    /// Milliseconds since he last did something.
    pub last_active_ago: Option<i64>,
    /// He does something just now.
    #[serde(default)]
    pub currently_active: bool,
}

/// What a user is, and says, now.
#[derive(Clone, Debug)]
pub struct Status {
    /// What he is.
    pub state: PresenceState,
    /// What he says.
    pub status_msg: Option<String>,
    /// How long ago he last did something.
    pub last_active_ago_ms: Option<i64>,
    /// He does something just now.
    pub currently_active: bool,
}

impl Status {
    fn offline(status_msg: Option<String>) -> Self {
        let state = PresenceState::Offline;
        Self { state, status_msg, last_active_ago_ms: None, currently_active: false }
    }
}

/// What others see of a user.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Whose.
    pub user: UserNum,
    /// What he is, and says.
    pub shown: Arc<Shown>,
    /// When he last did something, milliseconds since the epoch.
    pub last_active_ms: Option<i64>,
    /// Counter of the last change of it.
    pub changed: i64,
}

/// What does not move by itself.
#[derive(Debug)]
pub struct Shown {
    /// The user's id.
    pub user_id: Box<str>,
    /// What he is.
    pub state: PresenceState,
    /// What he says.
    pub status_msg: Option<Arc<str>>,
    /// He does something just now. Who is here and not idle counts as active all the time: his last activity is no news.
    pub currently_active: bool,
    /// An `m.presence` event up to the end of its content.
    head: Box<str>,
}

impl Shown {
    fn new(user_id: &str, state: PresenceState, currently_active: bool, status_msg: Option<Arc<str>>) -> Arc<Self> {
        let mut head = String::from("{\"type\":\"m.presence\",\"sender\":");
        write_string(&mut head, user_id);
        head.push_str(",\"content\":{\"presence\":");
        write_string(&mut head, state.as_str());
        head.push_str(",\"currently_active\":");
        head.push_str(if currently_active { "true" } else { "false" });
        if let Some(status_msg) = &status_msg {
            head.push_str(",\"status_msg\":");
            write_string(&mut head, status_msg);
        }
        Arc::new(Self { user_id: user_id.into(), state, status_msg, currently_active, head: head.into() })
    }
}

impl Seen {
    /// Appends an `m.presence` event.
    pub fn write(&self, out: &mut String, now_ms: i64) {
        out.push_str(&self.shown.head);
        if let Some(ago) = self.last_active_ago_ms(now_ms) {
            out.push_str(",\"last_active_ago\":");
            out.push_str(&ago.to_string());
        }
        out.push_str("}}");
    }

    /// How long ago he last did something.
    pub fn last_active_ago_ms(&self, now_ms: i64) -> Option<i64> {
        self.last_active_ms.map(|at| (now_ms - at).max(0))
    }
}

/// Presence as this node knows it. Cheap to clone.
#[derive(Clone)]
pub struct Presence {
    inner: Arc<Inner>,
}

type Listener = Box<dyn Fn(UserNum) + Send + Sync>;

struct Inner {
    enabled: bool,
    store: Store,
    time: WallTime,
    board: Mutex<Board>,
    /// The board's counter, to be looked at without a lock.
    counter: AtomicI64,
    listeners: RwLock<Vec<Listener>>,
}

#[derive(Default)]
struct Board {
    users: FxHashMap<UserNum, Entry>,
    /// Users by the counter under which they are news.
    news: BTreeMap<i64, UserNum>,
    counter: i64,
    /// When to look at whom again.
    due: BTreeSet<(i64, UserNum)>,
    has_task: bool,
}

struct Entry {
    shown: Arc<Shown>,
    status_msg: Option<Arc<str>>,
    /// Not of this server: what was told is all there is.
    remote: bool,
    devices: Vec<Device>,
    last_active_ms: Option<i64>,
    /// Counter of the last change.
    changed: i64,
    changed_ms: i64,
    /// When others heard of him last; of one who is not of this server, when we did.
    told_ms: i64,
    /// Counter under which he is news: the same, or later if he met new people.
    news: i64,
    due_ms: Option<i64>,
}

struct Device {
    device: Option<DeviceNum>,
    state: PresenceState,
    /// Requests that sync.
    syncing: u32,
    /// When it was last there.
    seen_ms: i64,
}

/// A request that syncs: its device is there.
#[must_use]
pub struct Syncing {
    presence: Presence,
    user: UserNum,
    device: Option<DeviceNum>,
}

impl Drop for Syncing {
    fn drop(&mut self) {
        self.presence.change(self.user, |entry, now_ms| {
            if let Some(device) = entry.devices.iter_mut().find(|known| known.device == self.device) {
                device.syncing = device.syncing.saturating_sub(1);
                device.seen_ms = now_ms;
            }
        });
    }
}

impl Presence {
    /// Presence on this server; if not `enabled`, everybody is offline and nothing is kept.
    pub fn new(enabled: bool, store: Store, time: WallTime) -> Self {
        let inner = Inner {
            enabled,
            store,
            time,
            board: Mutex::default(),
            counter: AtomicI64::new(0),
            listeners: RwLock::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Whom to tell of changes. It must be short.
    pub fn on_change(&self, listener: impl Fn(UserNum) + Send + Sync + 'static) {
        self.inner.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// A device begins to sync; it does until the answer is dropped. None if that says nothing of the user.
    pub async fn begin_sync(
        &self,
        user: UserNum,
        user_id: &UserId,
        device: Option<DeviceNum>,
        set: SetPresence,
    ) -> Result<Option<Syncing>, StoreError> {
        if !self.inner.enabled || set.state == PresenceState::Offline {
            return Ok(None);
        }
        let change = |entry: &mut Entry, now_ms| {
            let device = entry.device(device, now_ms);
            device.syncing += 1;
            let was = device.state;
            // Who is busy stays so until he says otherwise.
            if was != PresenceState::Busy {
                device.state = set.state;
            }
            if set.state >= PresenceState::Online && (set.explicit || was < PresenceState::Online) {
                entry.last_active_ms = Some(now_ms);
            }
        };
        if !self.change(user, change) {
            self.learn(user, user_id).await?;
            self.change(user, change);
        }
        Ok(Some(Syncing { presence: self.clone(), user, device }))
    }

    /// A user says what he is; without a message, the old one goes.
    pub async fn set(
        &self,
        user: UserNum,
        user_id: &UserId,
        device: Option<DeviceNum>,
        state: PresenceState,
        status_msg: Option<String>,
    ) -> Result<(), SetPresenceError> {
        if !self.inner.enabled {
            return Ok(());
        }
        let status_msg = status_msg.filter(|status_msg| !status_msg.is_empty());
        if status_msg.as_ref().is_some_and(|status_msg| status_msg.len() > STATUS_BYTES) {
            return Err(SetPresenceError::StatusTooLong);
        }
        if !self.inner.lock().users.contains_key(&user) {
            self.learn(user, user_id).await?;
        }
        let known = self.inner.lock().users.get(&user).and_then(|entry| entry.status_msg.clone());
        if known.as_deref() != status_msg.as_deref() {
            let kept = status_msg.clone();
            let write = self
                .inner
                .store
                .write(vec![Noun::User(user)], move |tx| tx.status_messages().set(user, kept.as_deref()));
            write.await?;
        }
        self.change(user, |entry, now_ms| {
            entry.status_msg = status_msg.as_deref().map(Arc::from);
            let device = entry.device(device, now_ms);
            device.state = state;
            device.seen_ms = now_ms;
            if state >= PresenceState::Online {
                entry.last_active_ms = Some(now_ms);
            }
        });
        Ok(())
    }

    /// A user does something. Who is not to be seen stays so.
    pub fn active(&self, user: UserNum, device: Option<DeviceNum>) {
        if !self.inner.enabled {
            return;
        }
        self.change(user, |entry, now_ms| {
            let Some(device) = entry.devices.iter_mut().find(|known| known.device == device) else { return };
            if device.state == PresenceState::Offline || !device.is_there(now_ms) {
                return;
            }
            device.state = device.state.max(PresenceState::Online);
            entry.last_active_ms = Some(now_ms);
        });
    }

    /// What another server tells of its users, of those whom we know. Others nobody here can see.
    pub async fn receive_all(&self, origin: &ServerName, told: Vec<RemotePresence>) -> Result<(), StoreError> {
        if !self.inner.enabled {
            return Ok(());
        }
        let theirs: Vec<RemotePresence> =
            told.into_iter().take(TOLD_AT_ONCE).filter(|told| told.user_id.server_name() == origin).collect();
        let ids: Vec<OwnedUserId> = theirs.iter().map(|told| told.user_id.clone()).collect();
        let read = self
            .inner
            .store
            .read(move |tx| ids.iter().map(|id| tx.string_num(id.as_str())).collect::<Result<Vec<_>, _>>());
        let now_ms = self.inner.time.now_ms();
        for (told, user) in theirs.into_iter().zip(read.await?) {
            let (Some(user), Some(state)) = (user, PresenceState::from_spec(&told.presence)) else { continue };
            let status = told.status_msg.filter(|status| status.len() <= STATUS_BYTES).map(Arc::from);
            let active = told.last_active_ago.map(|ago| now_ms.saturating_sub(ago.max(0)));
            self.receive(user, &told.user_id, state, status, active, told.currently_active);
        }
        Ok(())
    }

    /// What another server tells of a user of its.
    pub fn receive(
        &self,
        user: UserNum,
        user_id: &UserId,
        state: PresenceState,
        status_msg: Option<Arc<str>>,
        last_active_ms: Option<i64>,
        currently_active: bool,
    ) {
        if !self.inner.enabled {
            return;
        }
        self.inner.lock().users.entry(user).or_insert_with(|| Entry::new(user_id, None, true));
        self.change(user, |entry, now_ms| {
            entry.told_ms = now_ms;
            entry.status_msg.clone_from(&status_msg);
            entry.last_active_ms = last_active_ms;
            if (entry.shown.state, entry.shown.currently_active) != (state, currently_active) {
                entry.shown = Shown::new(&entry.shown.user_id, state, currently_active, None);
                entry.changed = -1;
            }
        });
    }

    /// What a user is and says, for one who shares a room with him, or himself.
    pub async fn of(&self, viewer: UserNum, user_id: &UserId) -> Result<Status, GetPresenceError> {
        let wanted = user_id.to_owned();
        let found = self.inner.store.read(move |tx| {
            let Some(user) = tx.string_num(wanted.as_str())? else { return Ok(None) };
            if user != viewer && !tx.members().share_a_room(viewer, user)? {
                return Ok(None);
            }
            Ok(Some((user, tx.status_messages().get(user)?)))
        });
        let (user, status_msg) = found.await?.ok_or(GetPresenceError::Forbidden)?;
        if !self.inner.enabled {
            return Ok(Status::offline(None));
        }
        self.tick();
        let known = self.inner.lock().users.get(&user).map(|entry| entry.seen(user));
        Ok(match known {
            Some(seen) => Status {
                state: seen.shown.state,
                status_msg: seen.shown.status_msg.as_deref().map(str::to_owned),
                last_active_ago_ms: seen.last_active_ago_ms(self.inner.time.now_ms()),
                currently_active: seen.shown.currently_active,
            },
            None => Status::offline(status_msg),
        })
    }

    /// The newest counter.
    pub fn counter(&self) -> i64 {
        self.inner.counter.load(Ordering::Acquire)
    }

    /// Who is news after a counter, the oldest first, at most so many; and up to which counter.
    pub fn changed_since(&self, since: i64, most: usize) -> (i64, Vec<Seen>) {
        let board = self.inner.lock();
        let mut upto = board.counter;
        let mut changed = Vec::new();
        for (counter, user) in board.news.range(since.saturating_add(1)..) {
            if changed.len() == most {
                break;
            }
            changed.extend(board.users.get(user).map(|entry| entry.seen(*user)));
            if changed.len() == most {
                upto = *counter;
            }
        }
        (upto, changed)
    }

    /// What is seen of some users, without those who are offline.
    pub fn online_among(&self, users: impl Iterator<Item = UserNum>) -> Vec<Seen> {
        let board = self.inner.lock();
        let known = users.filter_map(|user| Some((user, board.users.get(&user)?)));
        let online = known.filter(|(_, entry)| entry.shown.state != PresenceState::Offline);
        online.map(|(user, entry)| entry.seen(user)).collect()
    }

    /// What is seen of some users, those who went lately among them.
    pub fn of_all(&self, users: impl Iterator<Item = UserNum>) -> Vec<Seen> {
        let board = self.inner.lock();
        users.filter_map(|user| Some(board.users.get(&user)?.seen(user))).collect()
    }

    /// Whether a user is online or was lately.
    pub fn is_known(&self, user: UserNum) -> bool {
        self.inner.enabled && self.inner.lock().users.contains_key(&user)
    }

    /// A user met new people: he is news once more, if he is there. The listener does not hear of it.
    pub fn meets(&self, user: UserNum) {
        if !self.inner.enabled {
            return;
        }
        let mut board = self.inner.lock();
        if board.users.get(&user).is_some_and(|entry| entry.shown.state != PresenceState::Offline) {
            board.renew(user);
            self.inner.counter.store(board.counter, Ordering::Release);
        }
    }

    /// Ends what is over by now: devices that went, and activity of long ago.
    pub fn tick(&self) {
        let now_ms = self.inner.time.now_ms();
        let mut changed = Vec::new();
        {
            let mut board = self.inner.lock();
            while let Some((due_ms, user)) = board.due.first().copied()
                && due_ms <= now_ms
            {
                board.due.pop_first();
                if board.look_at(user, now_ms) {
                    changed.push(user);
                }
            }
            self.inner.counter.store(board.counter, Ordering::Release);
        }
        self.tell(&changed);
    }

    /// Users that are remembered.
    pub fn known(&self) -> usize {
        self.inner.lock().users.len()
    }

    /// Reads what is remembered of a user.
    async fn learn(&self, user: UserNum, user_id: &UserId) -> Result<(), StoreError> {
        let status_msg = self.inner.store.read(move |tx| tx.status_messages().get(user)).await?;
        let entry = || Entry::new(user_id, status_msg.map(Arc::from), false);
        self.inner.lock().users.entry(user).or_insert_with(entry);
        Ok(())
    }

    /// False if nothing is known of the user.
    fn change(&self, user: UserNum, change: impl FnOnce(&mut Entry, i64)) -> bool {
        let now_ms = self.inner.time.now_ms();
        let changed = {
            let mut board = self.inner.lock();
            let Some(entry) = board.users.get_mut(&user) else { return false };
            change(entry, now_ms);
            let changed = board.look_at(user, now_ms);
            self.inner.counter.store(board.counter, Ordering::Release);
            if !board.has_task
                && !board.due.is_empty()
                && let Ok(runtime) = tokio::runtime::Handle::try_current()
            {
                board.has_task = true;
                runtime.spawn(keep_ticking(Arc::downgrade(&self.inner)));
            }
            changed
        };
        if changed {
            self.tell(&[user]);
        }
        true
    }

    fn tell(&self, changed: &[UserNum]) {
        for listener in self.inner.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            changed.iter().for_each(|user| listener(*user));
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks once a second for what is over, while there is anybody.
async fn keep_ticking(inner: Weak<Inner>) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(inner) = inner.upgrade() else { return };
        let presence = Presence { inner };
        presence.tick();
        let mut board = presence.inner.lock();
        if board.due.is_empty() {
            board.has_task = false;
            return;
        }
    }
}

impl Board {
    /// Works out anew what a user is and when to look again. True if others are to hear of it.
    fn look_at(&mut self, user: UserNum, now_ms: i64) -> bool {
        let Some(entry) = self.users.get_mut(&user) else { return false };
        if !entry.remote {
            entry.devices.retain(|device| device.is_there(now_ms));
        }
        let state = entry.state(now_ms);
        let changed = state != entry.shown.state || entry.status_msg != entry.shown.status_msg || entry.changed < 0;
        if changed {
            let active = match entry.remote {
                true => entry.shown.currently_active && state != PresenceState::Offline,
                false => state == PresenceState::Online,
            };
            entry.shown = Shown::new(&entry.shown.user_id, state, active, entry.status_msg.clone());
            entry.changed_ms = now_ms;
        }
        let still_there = !entry.remote && state != PresenceState::Offline && now_ms >= entry.told_ms + STILL_THERE_MS;
        if !entry.remote && (changed || still_there) {
            entry.told_ms = now_ms;
        }
        let next_ms = entry.next_look_ms(now_ms);
        if next_ms.is_some_and(|next_ms| next_ms <= now_ms) {
            if let Some(due_ms) = entry.due_ms {
                self.due.remove(&(due_ms, user));
            }
            self.news.remove(&entry.news);
            self.users.remove(&user);
            return changed;
        }
        // A look too early does no harm, and spares moving it with each request.
        let is_set = entry.due_ms.is_some_and(|due_ms| due_ms > now_ms && next_ms.is_some_and(|next| due_ms <= next));
        if !is_set {
            if let Some(due_ms) = std::mem::replace(&mut entry.due_ms, next_ms) {
                self.due.remove(&(due_ms, user));
            }
            self.due.extend(next_ms.map(|next_ms| (next_ms, user)));
        }
        if changed {
            self.renew(user);
            if let Some(entry) = self.users.get_mut(&user) {
                entry.changed = entry.news;
            }
        }
        changed || still_there
    }

    /// Makes a user the newest news.
    fn renew(&mut self, user: UserNum) {
        let Some(entry) = self.users.get_mut(&user) else { return };
        self.counter += 1;
        self.news.remove(&entry.news);
        self.news.insert(self.counter, user);
        entry.news = self.counter;
    }
}

impl Entry {
    fn new(user_id: &UserId, status_msg: Option<Arc<str>>, remote: bool) -> Self {
        Self {
            shown: Shown::new(user_id.as_str(), PresenceState::Offline, false, status_msg.clone()),
            status_msg,
            remote,
            devices: Vec::new(),
            last_active_ms: None,
            changed: 0,
            changed_ms: 0,
            told_ms: 0,
            news: 0,
            due_ms: None,
        }
    }

    fn seen(&self, user: UserNum) -> Seen {
        let Self { shown, last_active_ms, changed, .. } = self;
        Seen { user, shown: Arc::clone(shown), last_active_ms: *last_active_ms, changed: *changed }
    }

    fn device(&mut self, device: Option<DeviceNum>, now_ms: i64) -> &mut Device {
        let at = match self.devices.iter().position(|known| known.device == device) {
            Some(at) => at,
            None => {
                self.devices.push(Device { device, state: PresenceState::Offline, syncing: 0, seen_ms: now_ms });
                self.devices.len() - 1
            }
        };
        &mut self.devices[at]
    }

    /// The best of the devices, unless nobody did anything for long.
    fn state(&self, now_ms: i64) -> PresenceState {
        if self.remote {
            let is_there = now_ms < self.told_ms + REMOTE_MS;
            return if is_there { self.shown.state } else { PresenceState::Offline };
        }
        let best = self.devices.iter().map(|device| device.state).max().unwrap_or(PresenceState::Offline);
        let is_idle = self.last_active_ms.is_none_or(|at| now_ms - at >= IDLE_MS);
        if best == PresenceState::Online && is_idle { PresenceState::Unavailable } else { best }
    }

    /// When something may be over; not after now if nothing is worth remembering.
    fn next_look_ms(&self, now_ms: i64) -> Option<i64> {
        if self.shown.state == PresenceState::Offline && self.devices.is_empty() {
            return Some(self.changed_ms + FORGET_MS);
        }
        let told_again = match self.remote {
            true => self.told_ms + REMOTE_MS,
            false => self.told_ms + STILL_THERE_MS,
        };
        let gone = self.devices.iter().filter(|device| device.syncing == 0).map(|device| device.seen_ms + GRACE_MS);
        let idle = self.last_active_ms.map(|at| at + IDLE_MS).filter(|at| *at > now_ms);
        let idle = idle.filter(|_| self.shown.state == PresenceState::Online && !self.remote);
        gone.chain(idle).chain([told_again].into_iter().filter(|_| self.shown.state != PresenceState::Offline)).min()
    }
}

impl Device {
    fn is_there(&self, now_ms: i64) -> bool {
        self.syncing > 0 || now_ms < self.seen_ms + GRACE_MS
    }
}
