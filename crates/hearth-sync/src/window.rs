//! The window of recent changes: everything since some position, without a gap, in memory.
//!
//! Events in it are serialised once and shared among all who are told of them.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use hearth_store::{Announced, Change, EventNum, FeedEvent, Position, RoomNum, SnapshotNum};
use rustc_hash::FxHashMap;

use crate::client_event::{Prepared, Source};

/// Changes kept.
const ENTRIES: usize = 8_192;
/// Bytes of events kept.
const BYTES: usize = 16 << 20;
/// Rooms whose current state is kept in mind.
const ROOMS: usize = 50_000;

/// A recent event.
#[derive(Debug)]
pub(crate) struct LiveEvent {
    pub(crate) event: Arc<FeedEvent>,
    /// It stands on the room's current state as the client knows it: nothing was decided beside the timeline.
    pub(crate) in_line: bool,
    /// The event that redacted it since.
    redacted_by: OnceLock<Arc<FeedEvent>>,
    /// The state event that it replaced.
    replaced: Option<Arc<FeedEvent>>,
    /// What it replaced was redacted since.
    ask_store: AtomicBool,
    prepared: OnceLock<Option<Prepared>>,
    redacted: OnceLock<Option<Prepared>>,
}

impl LiveEvent {
    /// The event as all see it; none if that takes the store.
    pub(crate) fn prepared(&self) -> Option<&Prepared> {
        if self.ask_store.load(Ordering::Relaxed) {
            return None;
        }
        match self.redacted_by.get() {
            Some(because) => self.redacted.get_or_init(|| self.prepare(Some(because))).as_ref(),
            None => self.prepared.get_or_init(|| self.prepare(None)).as_ref(),
        }
    }

    fn prepare(&self, because: Option<&FeedEvent>) -> Option<Prepared> {
        let event = &self.event;
        if event.replaces.is_some() && self.replaced.is_none() {
            return None;
        }
        let source = Source {
            pdu: &event.pdu,
            rules: event.rules,
            redacted: because.is_some(),
            redacted_because: because.map(|because| &*because.pdu),
            replaces: self.replaced.as_ref().map(|replaced| (&*replaced.pdu, None)),
        };
        Prepared::new(&source).ok()
    }

    fn is_redacted(&self) -> bool {
        self.redacted_by.get().is_some()
    }
}

/// A recent change.
pub(crate) struct Entry {
    pub(crate) position: Position,
    pub(crate) change: Change,
    pub(crate) live: Option<Arc<LiveEvent>>,
}

/// Recent changes, oldest first.
pub(crate) struct Window {
    entries: VecDeque<Entry>,
    bytes: usize,
    events: FxHashMap<EventNum, Arc<LiveEvent>>,
    /// The rooms' current states, as far as they were seen here.
    current: FxHashMap<RoomNum, SnapshotNum>,
    /// Everything after it is here.
    complete_after: Position,
    newest: Position,
}

impl Window {
    /// A window on what comes after a position.
    pub(crate) fn after(position: Position) -> Self {
        Self {
            entries: VecDeque::new(),
            bytes: 0,
            events: FxHashMap::default(),
            current: FxHashMap::default(),
            complete_after: position,
            newest: position,
        }
    }

    pub(crate) fn newest(&self) -> Position {
        self.newest
    }

    /// Everything after a position, oldest first; none if that is not all here any more.
    pub(crate) fn since(&self, position: Position) -> Option<impl Iterator<Item = &Entry>> {
        if position < self.complete_after {
            return None;
        }
        let from = self.entries.partition_point(|entry| entry.position <= position);
        Some(self.entries.range(from..))
    }

    /// Takes in what was just committed.
    pub(crate) fn push(&mut self, announced: &Announced, is_local: impl Fn(&FeedEvent) -> bool) {
        let live = match &announced.change {
            Change::Event(event) => Some(self.push_event(event, is_local(event))),
            _ => None,
        };
        self.newest = announced.position;
        self.bytes += live.as_ref().map_or(0, |live| size_bytes(&live.event));
        self.entries.push_back(Entry { position: announced.position, change: announced.change.clone(), live });
        while self.entries.len() > ENTRIES || (self.bytes > BYTES && self.entries.len() > 1) {
            let Some(oldest) = self.entries.pop_front() else { break };
            self.complete_after = oldest.position;
            if let Some(live) = oldest.live {
                self.bytes -= size_bytes(&live.event);
                self.events.remove(&live.event.num);
            }
        }
    }

    fn push_event(&mut self, event: &Arc<FeedEvent>, local: bool) -> Arc<LiveEvent> {
        if let Some(num) = event.redacts
            && let Some(target) = self.events.get(&num)
        {
            let _ = target.redacted_by.set(Arc::clone(event));
            if target.event.state_key.is_some() {
                let after = self.events.values().filter(|live| live.event.replaces == Some(num));
                after.for_each(|live| live.ask_store.store(true, Ordering::Relaxed));
            }
        }
        // Our own events are made on the current state; others must be seen to be.
        let in_line = match (self.current.get(&event.room), event.snapshot_before) {
            (Some(current), Some(before)) => *current == before,
            _ => local,
        };
        let in_line = in_line && !event.aside;
        if let Some(current) = event.snapshot_after.or(event.snapshot_before.filter(|_| in_line)) {
            if self.current.len() >= ROOMS {
                self.current.clear();
            }
            self.current.insert(event.room, current);
        }
        let replaced = event.replaces.and_then(|num| self.events.get(&num)).filter(|replaced| !replaced.is_redacted());
        let live = Arc::new(LiveEvent {
            event: Arc::clone(event),
            in_line,
            redacted_by: OnceLock::new(),
            replaced: replaced.map(|replaced| Arc::clone(&replaced.event)),
            ask_store: AtomicBool::new(false),
            prepared: OnceLock::new(),
            redacted: OnceLock::new(),
        });
        self.events.insert(event.num, Arc::clone(&live));
        live
    }
}

fn size_bytes(event: &FeedEvent) -> usize {
    // The event, its content once more, and its client format.
    1_024 + 3 * event.pdu.json.len()
}
