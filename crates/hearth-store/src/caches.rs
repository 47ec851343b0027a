//! Facts kept in memory. Facts never change, so nothing is ever invalidated; but a fact is learned only after COMMIT, since
//! a number given in a rolled-back transaction may belong to another string in the replay.

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::push::PushProfile;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use rustc_hash::FxHashMap;

use crate::nouns::{Listeners, Node};
use crate::{EventNum, Position, RoomNum, RoomRecord, SnapshotNum, StringNum, UserNum};

/// Room, root node and size of a snapshot.
type Root = (RoomNum, i64, i64);

/// Bytes of trie nodes kept in memory.
const NODES_BYTES: u64 = 32 << 20;
/// Bytes of events kept in memory.
const PDUS_BYTES: u64 = 32 << 20;

/// Bytes of push rules kept in memory.
const PROFILES_BYTES: u64 = 32 << 20;
/// Bytes of the rooms' members with push rules of their own kept in memory.
const LISTENERS_BYTES: u64 = 8 << 20;

#[derive(Clone)]
struct Bytes;

impl Weighter<(UserNum, Position), Arc<PushProfile>> for Bytes {
    fn weight(&self, _: &(UserNum, Position), profile: &Arc<PushProfile>) -> u64 {
        profile.size_bytes() as u64
    }
}

impl Weighter<RoomNum, Arc<Listeners>> for Bytes {
    fn weight(&self, _: &RoomNum, listeners: &Arc<Listeners>) -> u64 {
        64 + 16 * listeners.users.len() as u64
    }
}

impl Weighter<i64, Arc<Node>> for Bytes {
    fn weight(&self, _: &i64, node: &Arc<Node>) -> u64 {
        node.weight()
    }
}

impl Weighter<EventNum, Arc<Pdu>> for Bytes {
    fn weight(&self, _: &EventNum, pdu: &Arc<Pdu>) -> u64 {
        // The JSON, its content once more, and the parsed parts.
        512 + 2 * pdu.json.len() as u64
    }
}

/// What all transactions share.
pub(crate) struct Caches {
    texts: Cache<StringNum, Arc<str>>,
    strings: Cache<Arc<str>, StringNum>,
    rooms: Cache<RoomNum, Arc<RoomRecord>>,
    room_ids: Cache<Box<str>, Arc<RoomRecord>>,
    roots: Cache<SnapshotNum, Root>,
    resolved: Cache<Box<[SnapshotNum]>, SnapshotNum>,
    nodes: Cache<i64, Arc<Node>, Bytes>,
    pdus: Cache<EventNum, Arc<Pdu>, Bytes>,
    profiles: Cache<(UserNum, Position), Arc<PushProfile>, Bytes>,
    listeners: Cache<RoomNum, Arc<Listeners>, Bytes>,
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self {
            texts: Cache::new(100_000),
            strings: Cache::new(100_000),
            rooms: Cache::new(20_000),
            room_ids: Cache::new(20_000),
            roots: Cache::new(100_000),
            resolved: Cache::new(20_000),
            nodes: Cache::with_weighter(100_000, NODES_BYTES, Bytes),
            pdus: Cache::with_weighter(20_000, PDUS_BYTES, Bytes),
            profiles: Cache::with_weighter(2_000, PROFILES_BYTES, Bytes),
            listeners: Cache::with_weighter(10_000, LISTENERS_BYTES, Bytes),
        }
    }

    pub(crate) fn string_num(&self, text: &str) -> Option<StringNum> {
        self.strings.get(text)
    }

    pub(crate) fn text(&self, num: StringNum) -> Option<Arc<str>> {
        self.texts.get(&num)
    }

    /// Name and number of entries of each cache.
    pub(crate) fn entries(&self) -> [(&'static str, usize); 5] {
        [
            ("strings", self.texts.len()),
            ("rooms", self.rooms.len()),
            ("snapshots", self.roots.len()),
            ("trie_nodes", self.nodes.len()),
            ("events", self.pdus.len()),
        ]
    }

    /// Takes over what a committed transaction learned.
    pub(crate) fn learn(&self, learned: Learned) {
        for (num, text) in learned.texts {
            self.strings.insert(text.clone(), num);
            self.texts.insert(num, text);
        }
        for (num, room) in learned.rooms {
            self.room_ids.insert(room.room_id.as_str().into(), room.clone());
            self.rooms.insert(num, room);
        }
        for (num, root) in learned.roots {
            self.roots.insert(num, root);
        }
        for (states, resolved) in learned.resolved {
            self.resolved.insert(states, resolved);
        }
        for (id, node) in learned.nodes {
            self.nodes.insert(id, node);
        }
        for (num, pdu) in learned.pdus {
            self.pdus.insert(num, pdu);
        }
        for (version, profile) in learned.profiles {
            self.profiles.insert(version, profile);
        }
        for (room, listeners) in learned.listeners {
            // Of two that learned at once the later one stands.
            if self.listeners.peek(&room).is_none_or(|known| known.at <= listeners.at) {
                self.listeners.insert(room, listeners);
            }
        }
    }

    pub(crate) fn profile(&self, user: UserNum, version: Position) -> Option<Arc<PushProfile>> {
        self.profiles.get(&(user, version))
    }

    pub(crate) fn listeners(&self, room: RoomNum) -> Option<Arc<Listeners>> {
        self.listeners.get(&room)
    }

    pub(crate) fn room(&self, num: RoomNum) -> Option<Arc<RoomRecord>> {
        self.rooms.get(&num)
    }

    pub(crate) fn room_by_id(&self, room_id: &str) -> Option<Arc<RoomRecord>> {
        self.room_ids.get(room_id)
    }

    pub(crate) fn snapshot_root(&self, num: SnapshotNum) -> Option<Root> {
        self.roots.get(&num)
    }

    pub(crate) fn resolved(&self, states: &[SnapshotNum]) -> Option<SnapshotNum> {
        self.resolved.get(states)
    }

    pub(crate) fn node(&self, id: i64) -> Option<Arc<Node>> {
        self.nodes.get(&id)
    }

    pub(crate) fn pdu(&self, num: EventNum) -> Option<Arc<Pdu>> {
        self.pdus.get(&num)
    }
}

/// What one transaction (or one group of them) learned.
#[derive(Default)]
pub(crate) struct Learned {
    texts: FxHashMap<StringNum, Arc<str>>,
    strings: FxHashMap<Arc<str>, StringNum>,
    rooms: FxHashMap<RoomNum, Arc<RoomRecord>>,
    roots: FxHashMap<SnapshotNum, Root>,
    resolved: FxHashMap<Box<[SnapshotNum]>, SnapshotNum>,
    nodes: FxHashMap<i64, Arc<Node>>,
    pdus: FxHashMap<EventNum, Arc<Pdu>>,
    profiles: FxHashMap<(UserNum, Position), Arc<PushProfile>>,
    listeners: FxHashMap<RoomNum, Arc<Listeners>>,
}

impl Learned {
    pub(crate) fn learn_profile(&mut self, user: UserNum, version: Position, profile: Arc<PushProfile>) {
        self.profiles.insert((user, version), profile);
    }

    pub(crate) fn profile(&self, user: UserNum, version: Position) -> Option<Arc<PushProfile>> {
        self.profiles.get(&(user, version)).cloned()
    }

    pub(crate) fn learn_listeners(&mut self, room: RoomNum, listeners: Arc<Listeners>) {
        self.listeners.insert(room, listeners);
    }

    pub(crate) fn listeners(&self, room: RoomNum) -> Option<Arc<Listeners>> {
        self.listeners.get(&room).cloned()
    }

    pub(crate) fn learn_room(&mut self, room: Arc<RoomRecord>) {
        self.rooms.insert(room.num, room);
    }

    pub(crate) fn room(&self, num: RoomNum) -> Option<Arc<RoomRecord>> {
        self.rooms.get(&num).cloned()
    }

    pub(crate) fn room_by_id(&self, room_id: &str) -> Option<Arc<RoomRecord>> {
        self.rooms.values().find(|room| room.room_id == room_id).cloned()
    }

    pub(crate) fn snapshot(&mut self, num: SnapshotNum, root: Root) {
        self.roots.insert(num, root);
    }

    pub(crate) fn snapshot_root(&self, num: SnapshotNum) -> Option<Root> {
        self.roots.get(&num).copied()
    }

    pub(crate) fn learn_resolved(&mut self, states: &[SnapshotNum], resolved: SnapshotNum) {
        self.resolved.insert(states.into(), resolved);
    }

    pub(crate) fn resolved(&self, states: &[SnapshotNum]) -> Option<SnapshotNum> {
        self.resolved.get(states).copied()
    }

    pub(crate) fn node(&mut self, id: i64, node: Arc<Node>) {
        self.nodes.insert(id, node);
    }

    pub(crate) fn get_node(&self, id: i64) -> Option<Arc<Node>> {
        self.nodes.get(&id).cloned()
    }

    pub(crate) fn learn_pdu(&mut self, num: EventNum, pdu: Arc<Pdu>) {
        self.pdus.insert(num, pdu);
    }

    pub(crate) fn pdu(&self, num: EventNum) -> Option<Arc<Pdu>> {
        self.pdus.get(&num).cloned()
    }

    pub(crate) fn string(&mut self, num: StringNum, text: &str) {
        let text: Arc<str> = text.into();
        self.strings.insert(text.clone(), num);
        self.texts.insert(num, text);
    }

    pub(crate) fn string_num(&self, text: &str) -> Option<StringNum> {
        self.strings.get(text).copied()
    }

    pub(crate) fn text(&self, num: StringNum) -> Option<Arc<str>> {
        self.texts.get(&num).cloned()
    }
}
