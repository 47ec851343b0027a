//! Presence in the hub: who sees whom, and when those who wait are woken for it.
//!
//! A change is news at once for whoever asks. Waking for it is rationed: so many a second in all, and for each user the
//! more seldom the more people see him. What piles up meanwhile is told together.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use hearth_store::{RoomNum, UserNum};
use hearth_user::presence::{Presence, Seen};
use rustc_hash::FxHashSet;
use tokio::time::Instant;

use super::{Board, Hub, Standing};

/// Users told of in one answer, at most; the others come with the next.
const MOST: usize = 5_000;
/// How often the queue is looked at.
pub(crate) const TICK: Duration = Duration::from_millis(50);
/// Users woken between two looks.
const RATION: usize = 50;
/// For each one whom a user's change concerns, his next is held back by so much.
const HOLD_EACH: Duration = Duration::from_millis(10);
/// But not longer than this.
const HOLD_LONGEST: Duration = Duration::from_secs(60);

/// Who is to be woken for presence.
#[derive(Default)]
pub(super) struct Calls {
    /// Readers to wake, in turn.
    queue: VecDeque<UserNum>,
    /// Users whose change is announced later.
    held: BinaryHeap<Reverse<(Instant, UserNum)>>,
    /// Users with news of whom it is not known in which rooms they are.
    strangers: FxHashSet<UserNum>,
    /// Rooms in which everybody who waits is in the queue already.
    full: FxHashSet<RoomNum>,
    woken: usize,
    has_task: bool,
}

/// Of whose presence a client stands in need.
#[derive(Clone, Copy)]
pub(crate) enum PresenceSince {
    /// All who are there.
    Start,
    /// What is news after a counter.
    Counter(i64),
}

/// What there is to tell of presence, and up to which counter.
pub(crate) struct PresenceNews {
    pub(crate) upto: i64,
    pub(crate) seen: Vec<Seen>,
}

impl Hub {
    /// A user's presence changed. True if [`Self::call`] is to be called from time to time, until it says otherwise.
    pub(crate) fn presence_changed(&self, user: UserNum) -> bool {
        let mut board = self.board();
        if board.followed.contains_key(&user) {
            board.announce(user, Instant::now());
            board.wake_some();
        } else {
            board.calls.strangers.insert(user);
        }
        board.calls.is_at_work() && !std::mem::replace(&mut board.calls.has_task, true)
    }

    /// Wakes who is next. Returns those who must be followed first, or none if nothing is left to do.
    pub(crate) fn call(&self) -> Option<Vec<UserNum>> {
        let mut board = self.board();
        let now = Instant::now();
        board.calls.woken = 0;
        while let Some(Reverse((at, user))) = board.calls.held.peek().copied()
            && at <= now
        {
            board.calls.held.pop();
            if let Some(followed) = board.followed.get_mut(&user) {
                followed.is_held = false;
                board.announce(user, now);
            }
        }
        board.wake_some();
        let strangers: Vec<UserNum> = board.calls.strangers.drain().collect();
        board.calls.has_task = !strangers.is_empty() || board.calls.is_at_work();
        board.calls.has_task.then_some(strangers)
    }

    /// What a reader in these rooms sees. Of those whose rooms are not known yet it says nothing: they are news again as
    /// soon as they are.
    pub(crate) fn presence(
        &self,
        reader: UserNum,
        since: PresenceSince,
        rooms: &FxHashSet<RoomNum>,
        newly: &[RoomNum],
        ignored: &FxHashSet<UserNum>,
    ) -> PresenceNews {
        let board = self.board();
        let (after, present): (i64, Vec<RoomNum>) = match since {
            PresenceSince::Start => (i64::MAX, rooms.iter().copied().collect()),
            PresenceSince::Counter(after) => (after, newly.to_vec()),
        };
        let (upto, mut seen) = match since {
            PresenceSince::Start => (self.presence.counter(), Vec::new()),
            PresenceSince::Counter(_) => self.presence.changed_since(after, MOST),
        };
        seen.retain(|seen| {
            seen.user == reader && seen.changed > after
                || seen.user != reader && board.followed.get(&seen.user).is_some_and(|other| other.is_in(rooms))
        });
        let told: FxHashSet<UserNum> = seen.iter().map(|seen| seen.user).collect();
        let mut others: FxHashSet<UserNum> = FxHashSet::default();
        for room in present {
            others.extend(board.present.get(&room).into_iter().flatten().filter(|user| !told.contains(user)));
        }
        match since {
            PresenceSince::Start => others.insert(reader),
            PresenceSince::Counter(_) => others.remove(&reader),
        };
        seen.extend(self.presence.online_among(others.into_iter().take(MOST)));
        seen.retain(|seen| !ignored.contains(&seen.user));
        PresenceNews { upto, seen }
    }

    /// Takes over where a user is of whom there is news, and announces him.
    pub(crate) fn follow_stranger(&self, user: UserNum, standing: Standing) {
        let mut board = self.board();
        board.calls.strangers.insert(user);
        board.follow(user, standing, &self.presence);
    }
}

impl Calls {
    fn is_at_work(&self) -> bool {
        !self.queue.is_empty() || !self.held.is_empty() || !self.strangers.is_empty()
    }
}

impl Board {
    /// What is news for a reader after a counter.
    pub(super) fn presence_news(&self, presence: &Presence, reader: UserNum, after: i64) -> PresenceNews {
        if presence.counter() == after {
            return PresenceNews { upto: after, seen: Vec::new() };
        }
        let (upto, mut seen) = presence.changed_since(after, MOST);
        let Some(followed) = self.followed.get(&reader) else { return PresenceNews { upto, seen: Vec::new() } };
        seen.retain(|seen| {
            if seen.user == reader {
                return seen.changed > after;
            }
            !followed.ignored.contains(&seen.user)
                && self.followed.get(&seen.user).is_some_and(|other| followed.shares_a_room(other))
        });
        PresenceNews { upto, seen }
    }

    /// Now it is known where a user is: he is news for those he shares a room with.
    pub(super) fn no_stranger(&mut self, user: UserNum, presence: &Presence) {
        if self.calls.strangers.remove(&user) {
            presence.meets(user);
            self.announce(user, Instant::now());
            self.wake_some();
        }
    }

    /// Puts those who see a user in the queue, or the user aside if he was announced lately.
    fn announce(&mut self, user: UserNum, now: Instant) {
        let Some(followed) = self.followed.get_mut(&user) else { return };
        if followed.next_announced > now {
            if !std::mem::replace(&mut followed.is_held, true) {
                self.calls.held.push(Reverse((followed.next_announced, user)));
            }
            return;
        }
        let rooms: Vec<RoomNum> = followed.rooms.keys().copied().collect();
        self.tick += 1;
        let (tick, mut audience) = (self.tick, 0);
        let mut readers = vec![user];
        for room in rooms {
            let Some(present) = self.present.get(&room) else { continue };
            if self.calls.full.insert(room) {
                readers.extend(present);
            } else {
                audience += present.len() as u32;
            }
        }
        for reader in readers {
            let Some(followed) = self.followed.get_mut(&reader) else { continue };
            if std::mem::replace(&mut followed.heard, tick) == tick || !followed.waiting.iter().any(|w| w.presence) {
                continue;
            }
            audience += 1;
            if !std::mem::replace(&mut followed.is_called, true) {
                self.calls.queue.push_back(reader);
            }
        }
        if let Some(followed) = self.followed.get_mut(&user) {
            followed.next_announced = now + (HOLD_EACH * audience).min(HOLD_LONGEST);
        }
    }

    fn wake_some(&mut self) {
        while self.calls.woken < RATION
            && let Some(reader) = self.calls.queue.pop_front()
        {
            let Some(followed) = self.followed.get_mut(&reader) else { continue };
            // He may have come and gone meanwhile, and has heard.
            if std::mem::replace(&mut followed.is_called, false) {
                self.calls.woken += 1;
                self.calls.make_place_in(followed.rooms.keys());
                followed.waiting.iter().filter(|waiter| waiter.presence).for_each(|waiter| waiter.notify.notify_one());
            }
        }
    }
}

impl Calls {
    /// Somebody in these rooms waits, and is not in the queue.
    pub(super) fn make_place_in<'r>(&mut self, rooms: impl Iterator<Item = &'r RoomNum>) {
        if !self.full.is_empty() {
            rooms.for_each(|room| {
                self.full.remove(room);
            });
        }
    }
}

impl super::Followed {
    fn is_in(&self, rooms: &FxHashSet<RoomNum>) -> bool {
        if self.rooms.len() < rooms.len() {
            self.rooms.keys().any(|room| rooms.contains(room))
        } else {
            rooms.iter().any(|room| self.rooms.contains_key(room))
        }
    }

    fn shares_a_room(&self, other: &Self) -> bool {
        let (few, many) = if self.rooms.len() < other.rooms.len() { (self, other) } else { (other, self) };
        few.rooms.keys().any(|room| many.rooms.contains_key(room))
    }
}

#[cfg(test)]
mod tests {
    use hearth_matrix::ruma::{OwnedRoomId, OwnedUserId};
    use hearth_store::{DatabaseUrl, Position, RoomNum, Store, StoreOptions, StringNum, WallTime};
    use hearth_user::presence::{Presence, PresenceState};
    use rustc_hash::FxHashSet;

    use super::{Hub, RATION};
    use crate::hub::{Standing, Stay};

    const USERS: i64 = 10_000;
    const ROOM_OF: i64 = 100;

    /// Rooms of a hundred people, and one of all.
    fn standing(user: i64) -> Standing {
        let stay = |room: i64| {
            let room_id = OwnedRoomId::try_from(format!("!{room}:x")).unwrap();
            (RoomNum(room), Stay { room_id, badge: None, partial: false })
        };
        let rooms = vec![stay(1), stay(2 + user / ROOM_OF)];
        Standing { at: Position(0), rooms, ignored: FxHashSet::default() }
    }

    /// Wakes are rationed, however many come and go; and each who waits hears of all of it.
    #[tokio::test]
    async fn ten_thousand_come_and_go() {
        let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.unwrap();
        let presence = Presence::new(true, store, WallTime::manual(0));
        let hub = Hub::new(Position(0), presence.clone(), |_| true);
        let ids: Vec<OwnedUserId> =
            (0..USERS).map(|user| OwnedUserId::try_from(format!("@{user}:x")).unwrap()).collect();
        let mut waiting = Vec::new();
        for user in 0..USERS {
            hub.follow(StringNum(user), standing(user));
            waiting.push(hub.wait(StringNum(user), Position(0), Some(0)).unwrap());
        }
        let woken = |waiting: &[super::super::Waiting<'_>]| {
            let is_woken = |waiting: &&super::super::Waiting<'_>| {
                let mut notified = std::pin::pin!(waiting.notified());
                let mut context = std::task::Context::from_waker(std::task::Waker::noop());
                notified.as_mut().poll(&mut context).is_ready()
            };
            waiting.iter().filter(is_woken).count()
        };

        let began = std::time::Instant::now();
        for state in [PresenceState::Online, PresenceState::Unavailable, PresenceState::Offline] {
            for (user, user_id) in (0..USERS).zip(&ids) {
                presence.receive(StringNum(user), user_id, state, None, None, false);
                hub.presence_changed(StringNum(user));
            }
        }
        eprintln!("{:?} per change, {USERS} waiting in one room", began.elapsed() / (3 * USERS as u32));
        assert_eq!(woken(&waiting), RATION);
        assert!(hub.call().is_some());
        assert_eq!(woken(&waiting), RATION);
        let one = presence.changed_since(0, usize::MAX);
        assert_eq!((one.0, one.1.len()), (presence.counter(), USERS as usize));
        let news = hub.presence(
            StringNum(5),
            super::PresenceSince::Counter(0),
            &[RoomNum(2)].into_iter().collect(),
            &[],
            &FxHashSet::default(),
        );
        assert_eq!(news.seen.len(), ROOM_OF as usize);
    }
}
