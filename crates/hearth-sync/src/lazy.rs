//! Which members each device was told of, so that lazy loading does not repeat them. Memory of this node only: losing it
//! repeats members, it never omits one.

use std::sync::{Arc, Mutex, PoisonError};

use hearth_store::{DeviceNum, EventNum, Position, RoomNum, UserNum};
use quick_cache::sync::Cache;
use rustc_hash::FxHashMap;

/// Pairs of device and room that are remembered.
const PAIRS: usize = 50_000;
/// Members remembered of one pair.
const MEMBERS: usize = 1_000;

/// Member event last sent, and the position of the answer it was sent in.
type Sent = FxHashMap<UserNum, (EventNum, Position)>;

pub(crate) struct LazyMembers {
    sent: Cache<(DeviceNum, RoomNum), Arc<Mutex<Sent>>>,
}

impl LazyMembers {
    pub(crate) fn new() -> Self {
        Self { sent: Cache::new(PAIRS) }
    }

    /// Whether a device that stands at `since` has a member. An answer counts only once the client came back from it.
    pub(crate) fn has(
        &self,
        device: Option<DeviceNum>,
        room: RoomNum,
        since: Position,
        user: UserNum,
        event: Option<EventNum>,
    ) -> bool {
        let Some(sent) = device.and_then(|device| self.sent.get(&(device, room))) else { return false };
        let sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(&user).is_some_and(|(known, at)| *at <= since && event.is_none_or(|event| event == *known))
    }

    /// Notes what an answer with this position told a device. Of the `anew` rooms it has nothing else any more: they were
    /// sent as if it had never heard of them.
    pub(crate) fn note(
        &self,
        device: Option<DeviceNum>,
        at: Position,
        anew: &[RoomNum],
        members: &[(RoomNum, UserNum, EventNum)],
    ) {
        let Some(device) = device else { return };
        for room in anew {
            self.sent.remove(&(device, *room));
        }
        for (room, user, event) in members {
            let key = (device, *room);
            let sent = match self.sent.get(&key) {
                Some(sent) => sent,
                None => {
                    let fresh = Arc::default();
                    self.sent.insert(key, Arc::clone(&fresh));
                    fresh
                }
            };
            let mut sent = sent.lock().unwrap_or_else(PoisonError::into_inner);
            if sent.len() >= MEMBERS {
                sent.clear();
            }
            // What it had before stands: it may come back from there.
            match sent.get(user) {
                Some((known, _)) if known == event => {}
                _ => {
                    sent.insert(*user, (*event, at));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hearth_store::{DeviceNum, EventNum, Position, RoomNum, StringNum};

    use super::LazyMembers;

    #[test]
    fn a_member_is_known_once_the_client_came_back() {
        let (lazy, device, room, user) = (LazyMembers::new(), Some(DeviceNum(1)), RoomNum(1), StringNum(1));
        lazy.note(device, Position(5), &[], &[(room, user, EventNum(7))]);
        let has = |since, event| lazy.has(device, room, Position(since), user, Some(EventNum(event)));
        assert!(!has(4, 7));
        assert!(has(5, 7));
        assert!(!has(5, 8));
        lazy.note(device, Position(6), &[room], &[]);
        assert!(!has(6, 7));
        lazy.note(device, Position(7), &[], &[(room, user, EventNum(7))]);
        assert!(!lazy.has(Some(DeviceNum(2)), room, Position(5), user, None));
        assert!(!lazy.has(None, room, Position(5), user, None));
    }
}
