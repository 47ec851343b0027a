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
        let own = std::iter::once(user);
        for reader in rooms.iter().filter_map(|room| self.present.get(room)).flatten().copied().chain(own) {
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
                followed.waiting.iter().filter(|waiter| waiter.presence).for_each(|waiter| waiter.notify.notify_one());
            }
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
