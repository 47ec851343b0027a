//! The hub: hears of each commit, keeps the window of recent changes, and wakes exactly those whom a change concerns.
//!
//! Of users who sync it knows ("follows") in which rooms they are, so that neither waking nor answering asks the store.
//! A waiting client is a notifier here and nothing else. All is memory: losing it costs a read of the store.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_matrix::ruma::OwnedRoomId;
use hearth_room::TypingInRoom;
use hearth_store::{Announced, Change, FeedEvent, FeedReceipt, Membership, Position, RoomNum, UserNum};
use hearth_user::presence::Presence;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio::time::Instant;

pub(crate) use self::presence::{PresenceNews, PresenceSince, TICK};
use crate::streams::unread::Badge;
use crate::window::{LiveEvent, Window};

mod presence;

/// Users that are followed without waiting, at most.
const FOLLOWED: usize = 10_000;
/// Changes that one answer takes from the window, at most: those who are further behind get a limited timeline anyway.
const NEWS: usize = 500;

pub(crate) struct Hub {
    board: Mutex<Board>,
    presence: Presence,
    is_local: Box<dyn Fn(&FeedEvent) -> bool + Send + Sync>,
}

struct Board {
    window: Window,
    followed: FxHashMap<UserNum, Followed>,
    /// Followed users by the room they are joined to.
    present: FxHashMap<RoomNum, FxHashSet<UserNum>>,
    /// Who listens to a room, or to all, without being followed.
    watching: Vec<(Option<RoomNum>, Arc<Notify>)>,
    calls: presence::Calls,
    tick: u64,
}

/// A user who syncs.
struct Followed {
    rooms: FxHashMap<RoomNum, Stay>,
    ignored: Arc<FxHashSet<UserNum>>,
    /// Where following began: memberships of then and before are known.
    known_at: Position,
    /// Whom the user ignored at this position.
    ignored_at: Position,
    /// Position of the last change of account data.
    account_data_at: Position,
    waiting: Vec<Arc<Waiter>>,
    used: u64,
    /// When others may be woken again for his presence.
    next_announced: Instant,
    is_held: bool,
    /// He is in the queue of those to be woken for others' presence.
    is_called: bool,
    /// Tick of the last announcement that concerned him.
    heard: u64,
}

/// A user in a room.
#[derive(Clone, Debug)]
pub(crate) struct Stay {
    /// The room's id.
    pub(crate) room_id: OwnedRoomId,
    /// What the user has not read there, if known.
    pub(crate) badge: Option<Badge>,
    /// Not all of the room's state is here yet: clients that want all members don't know of it.
    pub(crate) partial: bool,
}

/// What a read of the store found out about a user.
pub(crate) struct Standing {
    pub(crate) at: Position,
    pub(crate) rooms: Vec<(RoomNum, Stay)>,
    pub(crate) ignored: FxHashSet<UserNum>,
}

/// A request that waits.
#[derive(Debug)]
pub(crate) struct Waiter {
    notify: Notify,
    /// It is to be woken for presence, too.
    presence: bool,
    /// Position of the first change that concerned it.
    first: AtomicI64,
}

/// Holds a request's place among those who wait.
pub(crate) struct Waiting<'h> {
    hub: &'h Hub,
    user: UserNum,
    waiter: Arc<Waiter>,
}

/// Holds the place of a request that listens to a room.
pub(crate) struct Watching<'h> {
    hub: &'h Hub,
    notify: Arc<Notify>,
}

impl Watching<'_> {
    /// Returns when there was an event.
    pub(crate) async fn notified(&self) {
        self.notify.notified().await;
    }
}

impl Drop for Watching<'_> {
    fn drop(&mut self) {
        self.hub.board().watching.retain(|(_, notify)| !Arc::ptr_eq(notify, &self.notify));
    }
}

/// What the window knows for a user.
pub(crate) enum News {
    /// It doesn't: ask the store.
    AskStore,
    /// Nothing happened up to a position, nor in presence up to a counter.
    Nothing(Position, i64),
    /// This happened.
    Rooms(RoomsNews),
}

/// What happened in the rooms of a user.
pub(crate) struct RoomsNews {
    pub(crate) upto: Position,
    pub(crate) rooms: Vec<(RoomNum, RoomNews)>,
    pub(crate) ignored: Arc<FxHashSet<UserNum>>,
    pub(crate) presence: PresenceNews,
}

pub(crate) struct RoomNews {
    pub(crate) stay: Stay,
    pub(crate) events: Vec<(Position, Arc<LiveEvent>)>,
    pub(crate) receipts: Vec<(bool, Arc<FeedReceipt>)>,
}

impl Hub {
    /// A hub that hears of everything after a position.
    pub(crate) fn new(
        position: Position,
        presence: Presence,
        is_local: impl Fn(&FeedEvent) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self {
            presence,
            board: Mutex::new(Board {
                window: Window::after(position),
                followed: FxHashMap::default(),
                present: FxHashMap::default(),
                watching: Vec::new(),
                calls: presence::Calls::default(),
                tick: 0,
            }),
            is_local: Box::new(is_local),
        }
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was just committed. Runs on the committing thread.
    pub(crate) fn hear(&self, announced: &[Announced]) {
        let mut board = self.board();
        for change in announced {
            board.window.push(change, &self.is_local);
            if let Change::Event(event) = &change.change
                && let Some((user, before, Membership::Join)) = event.membership
                && before != Some(Membership::Join)
            {
                self.presence.meets(user);
            }
            board.hear(change);
        }
    }

    /// Something in a room that has no position changed.
    pub(crate) fn wake_room(&self, room: RoomNum) {
        let board = self.board();
        for user in board.present.get(&room).into_iter().flatten() {
            if let Some(followed) = board.followed.get(user) {
                followed.waiting.iter().for_each(|waiter| waiter.notify.notify_one());
            }
        }
    }

    /// Takes over what a read of the store found out about a user.
    pub(crate) fn follow(&self, user: UserNum, standing: Standing) {
        self.board().follow(user, standing, &self.presence);
    }

    /// What happened for a user after a position, in his rooms among those with typing notices, and in presence after a
    /// counter, if that is wanted.
    pub(crate) fn news(&self, user: UserNum, after: Position, typing: &[TypingInRoom], presence: Option<i64>) -> News {
        let mut board = self.board();
        let presence = match presence {
            Some(after) => board.presence_news(&self.presence, user, after),
            None => PresenceNews { upto: self.presence.counter(), seen: Vec::new() },
        };
        board.news(user, after, typing, presence)
    }

    /// Listens from now on to a room; without one, to all events. For few and old clients: each event is held against
    /// all who watch.
    pub(crate) fn watch(&self, room: Option<RoomNum>) -> Watching<'_> {
        let notify = Arc::new(Notify::new());
        self.board().watching.push((room, Arc::clone(&notify)));
        Watching { hub: self, notify }
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.board().followed.values().map(|followed| followed.waiting.len()).sum()
    }

    /// Waits from now on for what concerns a user, also in presence after a counter if that is wanted. None if something
    /// happened after `checked`, or if he is not followed.
    pub(crate) fn wait(&self, user: UserNum, checked: Position, presence: Option<i64>) -> Option<Waiting<'_>> {
        let mut board = self.board();
        let board = &mut *board;
        let news = match presence {
            Some(after) => board.presence_news(&self.presence, user, after),
            None => PresenceNews { upto: 0, seen: Vec::new() },
        };
        match board.news(user, checked, &[], news) {
            News::Nothing(..) => {}
            News::AskStore | News::Rooms(_) => return None,
        }
        let first = AtomicI64::new(i64::MAX);
        let waiter = Arc::new(Waiter { notify: Notify::new(), presence: presence.is_some(), first });
        let followed = board.followed.get_mut(&user)?;
        followed.is_called = false;
        followed.waiting.push(Arc::clone(&waiter));
        board.calls.make_place_in(followed.rooms.keys());
        metrics::gauge!("hearth_sync_waiting").increment(1.0);
        Some(Waiting { hub: self, user, waiter })
    }
}

impl Waiting<'_> {
    /// Returns when something concerned the user.
    pub(crate) async fn notified(&self) {
        self.waiter.notify.notified().await;
    }

    /// Ends waiting: all that concerned the user came after this position.
    pub(crate) fn end(self) -> Position {
        let board = self.hub.board();
        let first = self.waiter.first.load(Ordering::Relaxed);
        let newest = board.window.newest();
        drop(board);
        if first == i64::MAX { newest } else { Position(first - 1) }
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut board = self.hub.board();
        if let Some(followed) = board.followed.get_mut(&self.user) {
            followed.waiting.retain(|waiter| !Arc::ptr_eq(waiter, &self.waiter));
        }
        metrics::gauge!("hearth_sync_waiting").decrement(1.0);
    }
}

impl Board {
    fn hear(&mut self, announced: &Announced) {
        let position = announced.position;
        match &announced.change {
            Change::Event(event) => {
                for (room, notify) in &self.watching {
                    if room.is_none_or(|room| room == event.room) {
                        notify.notify_one();
                    }
                }
                if let Some((user, _, after)) = event.membership {
                    self.membership_changed(user, event, after, position);
                }
                for user in self.present.get(&event.room).into_iter().flatten() {
                    if let Some(followed) = self.followed.get_mut(user) {
                        if let Some(stay) = followed.rooms.get_mut(&event.room) {
                            stay.hear(*user, event, position);
                        }
                        followed.wake(position);
                    }
                }
            }
            Change::Receipt { room, user, private, receipt } => {
                if let Some(followed) = self.followed.get_mut(user) {
                    if let Some(stay) = followed.rooms.get_mut(room) {
                        stay.hear_receipt(receipt);
                    }
                    followed.wake(position);
                }
                if !private {
                    for reader in self.present.get(room).into_iter().flatten() {
                        if let Some(followed) = self.followed.get(reader) {
                            followed.wake(position);
                        }
                    }
                }
            }
            Change::AccountData { user, push, .. } => {
                if let Some(followed) = self.followed.get_mut(user) {
                    followed.account_data_at = position;
                    if *push {
                        followed.rooms.values_mut().for_each(|stay| stay.badge = None);
                    }
                    followed.wake(position);
                }
            }
            Change::MemberDecided(decision) => {
                for user in self.present.get(&decision.room).into_iter().flatten().chain([&decision.user]) {
                    if let Some(followed) = self.followed.get(user) {
                        followed.wake(position);
                    }
                }
                // Whose own place was decided finds it in the store.
                self.forget(decision.user);
            }
            Change::StateCompleted { room, whole } => {
                for user in self.present.get(room).into_iter().flatten() {
                    if let Some(followed) = self.followed.get_mut(user) {
                        if let Some(stay) = followed.rooms.get_mut(room) {
                            stay.partial &= !whole;
                        }
                        followed.wake(position);
                    }
                }
            }
            Change::Sessions { .. } | Change::Profile { .. } | Change::Membership { .. } => {}
        }
    }

    fn forget(&mut self, user: UserNum) {
        if let Some(followed) = self.followed.remove(&user) {
            for room in followed.rooms.keys() {
                leave_room(&mut self.present, *room, user);
            }
        }
    }

    fn membership_changed(&mut self, user: UserNum, event: &FeedEvent, after: Membership, position: Position) {
        let Some(followed) = self.followed.get_mut(&user) else { return };
        if position <= followed.known_at {
            return;
        }
        if after == Membership::Join {
            // Who comes in has nothing to catch up with.
            let fresh =
                Stay { room_id: event.pdu.room_id.clone(), badge: Some(Badge::default()), partial: event.partial };
            followed.rooms.entry(event.room).or_insert(fresh);
            self.present.entry(event.room).or_default().insert(user);
            self.calls.make_place_in(std::iter::once(&event.room));
        } else {
            followed.rooms.remove(&event.room);
            leave_room(&mut self.present, event.room, user);
        }
        followed.wake(position);
    }

    fn follow(&mut self, user: UserNum, standing: Standing, presence: &Presence) {
        self.tick += 1;
        let tick = self.tick;
        if let Some(followed) = self.followed.get_mut(&user) {
            followed.used = tick;
            followed.count_anew(user, &standing, &self.window);
            if standing.at > followed.ignored_at {
                followed.ignored = Arc::new(standing.ignored);
                followed.ignored_at = standing.at;
            }
            return;
        }
        let since: Vec<Announced> = match self.window.since(standing.at) {
            Some(entries) => {
                entries.map(|entry| Announced { position: entry.position, change: entry.change.clone() }).collect()
            }
            // Too much happened meanwhile: next time.
            None => return,
        };
        self.make_place(presence);
        for (room, _) in &standing.rooms {
            self.present.entry(*room).or_default().insert(user);
        }
        let followed = Followed {
            rooms: standing.rooms.into_iter().collect(),
            ignored: Arc::new(standing.ignored),
            known_at: standing.at,
            ignored_at: standing.at,
            account_data_at: Position(0),
            waiting: Vec::new(),
            used: tick,
            next_announced: Instant::now(),
            is_held: false,
            is_called: false,
            heard: 0,
        };
        self.followed.insert(user, followed);
        for announced in since {
            self.catch_up(user, &announced);
        }
        self.no_stranger(user, presence);
    }

    /// What `hear` does, for one user who was not followed yet.
    fn catch_up(&mut self, user: UserNum, announced: &Announced) {
        let Some(followed) = self.followed.get_mut(&user) else { return };
        match &announced.change {
            Change::Event(event) => {
                if let Some(stay) = followed.rooms.get_mut(&event.room) {
                    stay.hear(user, event, announced.position);
                }
                if let Some((target, _, after)) = event.membership
                    && target == user
                {
                    self.membership_changed(user, event, after, announced.position);
                }
            }
            Change::MemberDecided(decision) if decision.user == user => self.forget(user),
            Change::StateCompleted { room, whole } => {
                if let Some(stay) = followed.rooms.get_mut(room) {
                    stay.partial &= !whole;
                }
            }
            Change::Receipt { room, user: reader, receipt, .. } if *reader == user => {
                if let Some(stay) = followed.rooms.get_mut(room) {
                    stay.hear_receipt(receipt);
                }
            }
            Change::AccountData { user: owner, push, .. } if *owner == user => {
                followed.account_data_at = announced.position;
                if *push {
                    followed.rooms.values_mut().for_each(|stay| stay.badge = None);
                }
            }
            _ => {}
        }
    }

    /// Forgets those who have not synced for longest. Who is or was online lately stays, so that others hear of his going.
    fn make_place(&mut self, presence: &Presence) {
        if self.followed.len() < FOLLOWED {
            return;
        }
        let mut idle: Vec<(u64, UserNum)> = self
            .followed
            .iter()
            .filter(|(user, followed)| followed.waiting.is_empty() && !presence.is_known(**user))
            .map(|(user, followed)| (followed.used, *user))
            .collect();
        idle.sort_unstable();
        for (_, user) in idle.into_iter().take(FOLLOWED / 4) {
            self.forget(user);
        }
    }

    fn news(&mut self, user: UserNum, after: Position, typing: &[TypingInRoom], presence: PresenceNews) -> News {
        self.tick += 1;
        let Some(followed) = self.followed.get_mut(&user) else { return News::AskStore };
        followed.used = self.tick;
        if followed.account_data_at > after || followed.account_data_at > followed.ignored_at {
            return News::AskStore;
        }
        let Some(entries) = self.window.since(after) else { return News::AskStore };
        let mut rooms: Vec<(RoomNum, RoomNews)> = Vec::new();
        let mut count = 0;
        for entry in entries {
            let room = match &entry.change {
                Change::Event(event) => {
                    if event.membership.is_some_and(|(target, _, _)| target == user) {
                        return News::AskStore;
                    }
                    event.room
                }
                Change::Receipt { room, user: reader, private, .. } if !private || *reader == user => *room,
                // State moved without a timeline to show it.
                Change::MemberDecided(decision) if followed.rooms.contains_key(&decision.room) => {
                    return News::AskStore;
                }
                Change::StateCompleted { room, .. } if followed.rooms.contains_key(room) => return News::AskStore,
                _ => continue,
            };
            let Some(stay) = followed.rooms.get(&room) else { continue };
            count += 1;
            if count > NEWS {
                return News::AskStore;
            }
            let at = match rooms.iter().position(|(known, _)| *known == room) {
                Some(at) => at,
                None => {
                    rooms.push((room, RoomNews::none(stay)));
                    rooms.len() - 1
                }
            };
            match (&entry.change, &entry.live) {
                (Change::Event(_), Some(live)) => rooms[at].1.events.push((entry.position, Arc::clone(live))),
                (Change::Receipt { private, receipt, .. }, _) => {
                    rooms[at].1.receipts.push((*private, Arc::clone(receipt)));
                }
                _ => {}
            }
        }
        for TypingInRoom { room, .. } in typing {
            if let Some(stay) = followed.rooms.get(room)
                && !rooms.iter().any(|(known, _)| known == room)
            {
                rooms.push((*room, RoomNews::none(stay)));
            }
        }
        let upto = self.window.newest().max(after);
        if rooms.is_empty() && presence.seen.is_empty() {
            return News::Nothing(upto, presence.upto);
        }
        News::Rooms(RoomsNews { upto, rooms, ignored: Arc::clone(&followed.ignored), presence })
    }
}

impl Followed {
    fn wake(&self, position: Position) {
        for waiter in &self.waiting {
            waiter.first.fetch_min(position.0, Ordering::Relaxed);
            waiter.notify.notify_one();
        }
    }
}

impl Followed {
    /// Takes over counts that were not known here, and what came since.
    fn count_anew(&mut self, user: UserNum, standing: &Standing, window: &Window) {
        let unknown = |(room, stay): &&(RoomNum, Stay)| {
            stay.badge.is_some() && self.rooms.get(room).is_some_and(|known| known.badge.is_none())
        };
        let anew: FxHashSet<RoomNum> = standing.rooms.iter().filter(unknown).map(|(room, _)| *room).collect();
        if anew.is_empty() {
            return;
        }
        let Some(since) = window.since(standing.at) else { return };
        for (room, stay) in standing.rooms.iter().filter(|(room, _)| anew.contains(room)) {
            if let Some(known) = self.rooms.get_mut(room) {
                known.badge.clone_from(&stay.badge);
            }
        }
        for entry in since {
            match &entry.change {
                Change::Event(event) if anew.contains(&event.room) => {
                    if let Some(stay) = self.rooms.get_mut(&event.room) {
                        stay.hear(user, event, entry.position);
                    }
                }
                Change::Receipt { room, user: reader, receipt, .. } if *reader == user && anew.contains(room) => {
                    if let Some(stay) = self.rooms.get_mut(room) {
                        stay.hear_receipt(receipt);
                    }
                }
                Change::AccountData { user: owner, push: true, .. } if *owner == user => {
                    anew.iter().for_each(|room| _ = self.rooms.get_mut(room).map(|stay| stay.badge = None));
                }
                _ => {}
            }
        }
    }
}

impl RoomNews {
    fn none(stay: &Stay) -> Self {
        Self { stay: stay.clone(), events: Vec::new(), receipts: Vec::new() }
    }
}

impl Stay {
    /// An event came in the room.
    fn hear(&mut self, user: UserNum, event: &FeedEvent, position: Position) {
        let Some(badge) = &mut self.badge else { return };
        let known = match &event.membership {
            _ if event.redacts.is_some() && !badge.is_zero() => false,
            // A profile that changes in all rooms.
            Some((_, before, after)) if *before == Some(*after) => true,
            _ if event.sender == user => badge.read(event.thread.as_deref().unwrap_or("main"), position),
            _ => {
                badge.count(user, &event.push, event.thread.as_ref(), position);
                true
            }
        };
        if !known {
            self.badge = None;
        }
    }

    /// The user gave a receipt in the room.
    fn hear_receipt(&mut self, receipt: &FeedReceipt) {
        if let (Some(badge), Some(at)) = (&mut self.badge, receipt.at)
            && !badge.read(&receipt.thread, at)
        {
            self.badge = None;
        }
    }
}

fn leave_room(present: &mut FxHashMap<RoomNum, FxHashSet<UserNum>>, room: RoomNum, user: UserNum) {
    if let Some(users) = present.get_mut(&room) {
        users.remove(&user);
        if users.is_empty() {
            present.remove(&room);
        }
    }
}
