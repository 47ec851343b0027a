//! Who is typing where. In memory only, counted, and forgotten after a while.
//!
//! Spec: client-server API, "Typing Notifications". Nothing polls: one task sleeps until the next notice ends.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::Duration;

use hearth_matrix::ruma::{OwnedUserId, RoomId, UserId};
use hearth_store::{Membership, RoomNum, UserNum};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::{RoomError, Rooms};

/// The longest notice: who types on says so again.
const LONGEST: Duration = Duration::from_secs(120);
/// How long an end is remembered for clients of another node or start.
const ENDED: Duration = Duration::from_secs(120);

/// Typing notices of this node. Cheap to clone.
#[derive(Clone)]
pub struct Typing {
    inner: Arc<Inner>,
}

/// Whom to tell of changes in a room.
type Listener = Box<dyn Fn(RoomNum) + Send + Sync>;

struct Inner {
    /// Tells this start of this node from all others.
    start: i64,
    notices: Mutex<Notices>,
    listeners: RwLock<Vec<Listener>>,
    /// The next end may be sooner than the task believes.
    sooner: Notify,
}

#[derive(Default)]
struct Notices {
    rooms: FxHashMap<RoomNum, RoomNotices>,
    counter: i64,
    has_task: bool,
}

struct RoomNotices {
    typing: Vec<Notice>,
    /// Counter of the last change.
    changed: i64,
    changed_at: Instant,
}

struct Notice {
    user: UserNum,
    user_id: OwnedUserId,
    until: Instant,
}

/// Who types in a room now.
#[derive(Clone, Debug)]
pub struct TypingInRoom {
    /// Where.
    pub room: RoomNum,
    /// Who, in the order they began.
    pub users: Vec<(UserNum, OwnedUserId)>,
}

impl Default for Typing {
    fn default() -> Self {
        let start = i64::from(rand::random::<u32>());
        Self {
            inner: Arc::new(Inner {
                start,
                notices: Mutex::default(),
                listeners: RwLock::default(),
                sooner: Notify::new(),
            }),
        }
    }
}

impl Typing {
    /// What tells this start of this node from all others.
    pub fn start(&self) -> i64 {
        self.inner.start
    }

    /// Whom to tell of changes. It must be short.
    pub fn on_change(&self, listener: impl Fn(RoomNum) + Send + Sync + 'static) {
        self.inner.listeners.write().unwrap_or_else(PoisonError::into_inner).push(Box::new(listener));
    }

    /// A user types for so long, or types no more. Only inside a runtime.
    pub fn set(&self, room: RoomNum, user: UserNum, user_id: &UserId, lasts: Option<Duration>) {
        let now = Instant::now();
        let changed = {
            let mut notices = self.inner.lock();
            let changed = notices.set(room, user, user_id, lasts.map(|lasts| now + lasts.min(LONGEST)));
            if lasts.is_some() && !std::mem::replace(&mut notices.has_task, true) {
                tokio::spawn(end_notices(Arc::downgrade(&self.inner)));
            }
            changed
        };
        self.inner.sooner.notify_one();
        if changed {
            self.inner.tell(room);
        }
    }

    /// The newest counter, and the rooms that changed after `since` (all that are remembered, if none) as they are now.
    pub fn changed_since(&self, since: Option<i64>) -> (i64, Vec<TypingInRoom>) {
        let notices = self.inner.lock();
        let changed = notices.rooms.iter().filter(|(_, notices)| since.is_none_or(|since| notices.changed > since));
        let rooms = changed.map(|(room, notices)| TypingInRoom {
            room: *room,
            users: notices.typing.iter().map(|notice| (notice.user, notice.user_id.clone())).collect(),
        });
        (notices.counter, rooms.collect())
    }

    /// Who types in a room.
    pub fn in_room(&self, room: RoomNum) -> TypingInRoom {
        let notices = self.inner.lock();
        let typing = notices.rooms.get(&room).map_or(&[][..], |notices| &notices.typing);
        TypingInRoom { room, users: typing.iter().map(|notice| (notice.user, notice.user_id.clone())).collect() }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Notices> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, room: RoomNum) {
        for listener in self.listeners.read().unwrap_or_else(PoisonError::into_inner).iter() {
            listener(room);
        }
    }
}

impl Notices {
    /// True if the list of those who type changed.
    fn set(&mut self, room: RoomNum, user: UserNum, user_id: &UserId, until: Option<Instant>) -> bool {
        if until.is_none() && !self.rooms.contains_key(&room) {
            return false;
        }
        let notices = self.rooms.entry(room).or_insert_with(|| RoomNotices {
            typing: Vec::new(),
            changed: 0,
            changed_at: Instant::now(),
        });
        let at = notices.typing.iter().position(|notice| notice.user == user);
        match (at, until) {
            (Some(at), Some(until)) => {
                notices.typing[at].until = until;
                return false;
            }
            (Some(at), None) => {
                notices.typing.remove(at);
            }
            (None, Some(until)) => notices.typing.push(Notice { user, user_id: user_id.to_owned(), until }),
            (None, None) => return false,
        }
        self.counter += 1;
        notices.changed = self.counter;
        notices.changed_at = Instant::now();
        true
    }

    /// Ends what is over. Returns the rooms that changed and when to look again.
    fn end(&mut self, now: Instant) -> (Vec<RoomNum>, Option<Instant>) {
        let mut changed = Vec::new();
        let mut counter = self.counter;
        for (room, notices) in &mut self.rooms {
            let before = notices.typing.len();
            notices.typing.retain(|notice| notice.until > now);
            if notices.typing.len() != before {
                counter += 1;
                notices.changed = counter;
                notices.changed_at = now;
                changed.push(*room);
            }
        }
        self.counter = counter;
        self.rooms.retain(|_, notices| !notices.typing.is_empty() || notices.changed_at + ENDED > now);
        let ends = self.rooms.values().map(|notices| {
            let first = notices.typing.iter().map(|notice| notice.until).min();
            first.unwrap_or(notices.changed_at + ENDED)
        });
        let next = ends.min();
        self.has_task = next.is_some();
        (changed, next)
    }
}

/// Sleeps until the next notice ends; goes when there are none.
async fn end_notices(inner: Weak<Inner>) {
    loop {
        let (next, sooner) = {
            let Some(inner) = inner.upgrade() else { return };
            let (changed, next) = inner.lock().end(Instant::now());
            for room in changed {
                inner.tell(room);
            }
            let Some(next) = next else { return };
            (next, inner)
        };
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            () = sooner.sooner.notified() => {}
        }
    }
}

impl Rooms {
    /// Typing notices of this node.
    pub fn typing(&self) -> &Typing {
        &self.inner.typing
    }

    /// A user begins to type in a room, for so long, or ends it.
    pub async fn set_typing(
        &self,
        user_id: &UserId,
        user: UserNum,
        room_id: &RoomId,
        lasts: Option<Duration>,
    ) -> Result<(), RoomError> {
        let room_id = room_id.to_owned();
        let room = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(None) };
            let membership = tx.members().current(room.num, user)?.map(|row| row.membership);
            Ok((membership == Some(Membership::Join)).then_some(room.num))
        });
        let room = room.await?.ok_or_else(|| RoomError::Forbidden(format!("{user_id} is not in the room")))?;
        self.inner.typing.set(room, user, user_id, lasts);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use hearth_matrix::ruma::user_id;
    use hearth_store::{RoomNum, StringNum};

    use super::Typing;

    #[tokio::test(start_paused = true)]
    async fn notices_end_by_themselves() {
        let (typing, room) = (Typing::default(), RoomNum(1));
        let told = Arc::new(AtomicUsize::new(0));
        let count = told.clone();
        typing.on_change(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        typing.set(room, StringNum(1), user_id!("@a:x"), Some(Duration::from_secs(10)));
        typing.set(room, StringNum(2), user_id!("@b:x"), Some(Duration::from_secs(20)));
        typing.set(room, StringNum(1), user_id!("@a:x"), Some(Duration::from_secs(10)));
        assert_eq!(told.load(Ordering::SeqCst), 2);
        let (counter, rooms) = typing.changed_since(None);
        assert_eq!(rooms[0].users.len(), 2);
        assert!(typing.changed_since(Some(counter)).1.is_empty());

        tokio::time::sleep(Duration::from_secs(11)).await;
        assert_eq!(typing.in_room(room).users, [(StringNum(2), user_id!("@b:x").to_owned())]);
        assert_eq!(typing.changed_since(Some(counter)).1.len(), 1);

        typing.set(room, StringNum(2), user_id!("@b:x"), None);
        assert!(typing.in_room(room).users.is_empty());
        assert_eq!(told.load(Ordering::SeqCst), 4);
        // Those who come from another node learn for a while that nobody types.
        assert_eq!(typing.changed_since(None).1.len(), 1);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(typing.changed_since(None).1.is_empty());
    }
}
