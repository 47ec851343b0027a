//! Room state as numbered snapshots that share structure.
//!
//! A snapshot is the root of a persistent 16-way trie, ordered by a hash of (type, state key), with leaves of up to 32
//! entries. Nodes are rows with integer ids, never changed once written; a change writes the path from its leaf to a new
//! root, about four small rows in a room of 50,000 keys. Two snapshots are compared only where they differ, one query per
//! level. What no event and no room refers to is removed by [`State::sweep`].

use std::sync::Arc;

use rustc_hash::FxHashSet;
use smallvec::SmallVec;

use crate::engine::Counter;
use crate::{EventNum, RoomNum, SnapshotNum, StoreError, StringNum, Tx};

/// Entries that a leaf holds before it is split.
const LEAF_MAX: usize = 32;
/// Bits of the hash that choose a child.
const FAN_BITS: u32 = 4;

/// A place in the state of a room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateKey {
    /// Event type.
    pub kind: StringNum,
    /// State key.
    pub state_key: StringNum,
}

impl StateKey {
    /// Where the trie keeps it. Any fixed mixing of the two numbers does, it only has to spread.
    fn hash(self) -> u64 {
        let mut x = (self.kind.0 as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (self.state_key.0 as u64);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// One entry of a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateEntry {
    /// Where.
    pub key: StateKey,
    /// The event that stands there.
    pub event: EventNum,
}

/// What stands at one place in two states that differ there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateDifference {
    /// Where.
    pub key: StateKey,
    /// In the first state.
    pub before: Option<EventNum>,
    /// In the second state.
    pub after: Option<EventNum>,
}

/// A node of a trie.
#[derive(Debug)]
pub(crate) enum Node {
    Leaf(Vec<StateEntry>),
    /// Node ids by the next bits of the hash; 0 where nothing is.
    Branch([i64; 16]),
}

impl Node {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        match self {
            Self::Leaf(entries) => {
                bytes.push(0);
                for entry in entries {
                    push_varint(&mut bytes, entry.key.kind.0);
                    push_varint(&mut bytes, entry.key.state_key.0);
                    push_varint(&mut bytes, entry.event.0);
                }
            }
            Self::Branch(children) => {
                bytes.push(1);
                let present = (0..16).filter(|i| children[*i] != 0).fold(0u16, |bits, i| bits | (1 << i));
                bytes.extend(present.to_be_bytes());
                for child in children.iter().filter(|c| **c != 0) {
                    push_varint(&mut bytes, *child);
                }
            }
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (&form, mut rest) = bytes.split_first()?;
        if form == 0 {
            let mut entries = Vec::new();
            while !rest.is_empty() {
                let kind = StringNum(take_varint(&mut rest)?);
                let state_key = StringNum(take_varint(&mut rest)?);
                let event = EventNum(take_varint(&mut rest)?);
                entries.push(StateEntry { key: StateKey { kind, state_key }, event });
            }
            return Some(Self::Leaf(entries));
        }
        let (present, mut rest) = rest.split_first_chunk::<2>()?;
        let present = u16::from_be_bytes(*present);
        let mut children = [0; 16];
        for (i, child) in children.iter_mut().enumerate() {
            if present & (1 << i) != 0 {
                *child = take_varint(&mut rest)?;
            }
        }
        Some(Self::Branch(children))
    }

    /// Bytes it takes in memory, roughly.
    pub(crate) fn weight(&self) -> u64 {
        match self {
            Self::Leaf(entries) => 64 + 24 * entries.len() as u64,
            Self::Branch(_) => 192,
        }
    }
}

/// Numbers are positive; 7 bits a byte, lowest first.
pub(crate) fn push_varint(bytes: &mut Vec<u8>, value: i64) {
    let mut value = value as u64;
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value as i64);
        }
    }
    None
}

fn slot(hash: u64, level: u32) -> usize {
    ((hash >> (64 - FAN_BITS * (level + 1))) & 0xf) as usize
}

/// Changes to a state: what shall stand where, or nothing.
pub type StateChange = (StateKey, Option<EventNum>);

/// Access to snapshots.
pub struct State<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Room state.
    pub fn state(&mut self) -> State<'_, 'c> {
        State { tx: self }
    }
}

impl State<'_, '_> {
    /// What stands at one place.
    pub fn get(&mut self, room: RoomNum, snapshot: SnapshotNum, key: StateKey) -> Result<Option<EventNum>, StoreError> {
        let hash = key.hash();
        let mut id = self.root(snapshot)?.1;
        let mut level = 0;
        while id != 0 {
            match &*self.node(room, id)? {
                Node::Leaf(entries) => return Ok(entries.iter().find(|e| e.key == key).map(|e| e.event)),
                Node::Branch(children) => id = children[slot(hash, level)],
            }
            level += 1;
        }
        Ok(None)
    }

    /// The whole state, in no particular order.
    pub fn load(&mut self, room: RoomNum, snapshot: SnapshotNum) -> Result<Vec<StateEntry>, StoreError> {
        let mut entries = Vec::new();
        let mut level = vec![self.root(snapshot)?.1];
        level.retain(|id| *id != 0);
        while !level.is_empty() {
            let mut next = Vec::new();
            for node in self.nodes(room, &level)? {
                match &*node {
                    Node::Leaf(leaf) => entries.extend_from_slice(leaf),
                    Node::Branch(children) => next.extend(children.iter().filter(|c| **c != 0)),
                }
            }
            level = next;
        }
        Ok(entries)
    }

    /// Number of entries of a snapshot.
    pub fn size(&mut self, snapshot: SnapshotNum) -> Result<i64, StoreError> {
        Ok(self.root(snapshot)?.2)
    }

    /// Where two states of a room differ, and how.
    pub fn difference(
        &mut self,
        room: RoomNum,
        before: SnapshotNum,
        after: SnapshotNum,
    ) -> Result<Vec<StateDifference>, StoreError> {
        let mut differences = Vec::new();
        // Pairs of subtrees at one place. A leaf may face a branch: then its entries are carried down as `loose`.
        let mut pairs = vec![Pair { before: self.root(before)?.1, after: self.root(after)?.1 }];
        pairs.retain(|p| p.before != p.after);
        while !pairs.is_empty() {
            let ids: Vec<i64> = pairs.iter().flat_map(|p| [p.before, p.after]).filter(|id| *id != 0).collect();
            self.warm(room, &ids)?;
            let mut next = Vec::new();
            for pair in &pairs {
                let a = if pair.before == 0 { None } else { Some(self.node(room, pair.before)?) };
                let b = if pair.after == 0 { None } else { Some(self.node(room, pair.after)?) };
                match (a.as_deref(), b.as_deref()) {
                    (Some(Node::Branch(a)), Some(Node::Branch(b))) => {
                        next.extend(
                            (0..16).map(|i| Pair { before: a[i], after: b[i] }).filter(|p| p.before != p.after),
                        );
                    }
                    // At most one side is deep here, and a deep side facing a leaf or nothing is wholly part of the answer
                    // but for the entries that the leaf shares with it.
                    _ => {
                        let before = self.entries_below(room, pair.before)?;
                        let after = self.entries_below(room, pair.after)?;
                        compare(&before, &after, &mut differences);
                    }
                }
            }
            pairs = next;
        }
        Ok(differences)
    }

    /// The state that comes of `snapshot` (none: the empty state) by `changes`, which name each place once.
    /// Returns `snapshot` itself if nothing changes.
    pub fn apply(
        &mut self,
        room: RoomNum,
        snapshot: Option<SnapshotNum>,
        changes: &[StateChange],
    ) -> Result<SnapshotNum, StoreError> {
        let (root, size) = match snapshot {
            Some(snapshot) => {
                let (_, root, size) = self.root(snapshot)?;
                (root, size)
            }
            None => (0, 0),
        };
        let mut changes: Vec<(u64, StateChange)> = changes.iter().map(|c| (c.0.hash(), *c)).collect();
        changes.sort_unstable_by_key(|(hash, (key, _))| (*hash, *key));
        let mut growth = 0;
        let new_root = self.rewrite(room, root, 0, &changes, &mut growth)?;
        if let Some(snapshot) = snapshot.filter(|_| new_root == root) {
            return Ok(snapshot);
        }
        let num = SnapshotNum(self.tx.next_number(Counter::Snapshots)?);
        self.tx.exec(
            "INSERT INTO snapshots (num, room, root, size) VALUES ($1, $2, $3, $4)",
            &[num.into(), room.into(), new_root.into(), (size + growth).into()],
        )?;
        self.tx.learned.snapshot(num, (room, new_root, size + growth));
        Ok(num)
    }

    /// What these states (numbers in order, none twice) were resolved to before, if that is still there.
    pub fn resolved(&mut self, states: &[SnapshotNum]) -> Result<Option<SnapshotNum>, StoreError> {
        let Some(known) = self.tx.learned.resolved(states).or_else(|| self.tx.caches.resolved(states)) else {
            return Ok(None);
        };
        // A snapshot that nobody refers to may have been swept.
        self.tx.one("SELECT num FROM snapshots WHERE num = $1", &[known.into()], |row| Ok(SnapshotNum(row.int(0)?)))
    }

    /// Keeps in mind what these states (numbers in order, none twice) resolve to.
    pub fn keep_resolved(&mut self, states: &[SnapshotNum], resolved: SnapshotNum) {
        self.tx.learned.learn_resolved(states, resolved);
    }

    /// Applies sorted changes below a node; returns the id of the node that replaces it (itself if nothing changed).
    fn rewrite(
        &mut self,
        room: RoomNum,
        id: i64,
        level: u32,
        changes: &[(u64, StateChange)],
        growth: &mut i64,
    ) -> Result<i64, StoreError> {
        if changes.is_empty() {
            return Ok(id);
        }
        let node = if id == 0 { None } else { Some(self.node(room, id)?) };
        match node.as_deref() {
            Some(Node::Branch(children)) => {
                let mut new = *children;
                let mut rest = changes;
                while let Some((hash, _)) = rest.first() {
                    let i = slot(*hash, level);
                    let n = rest.iter().take_while(|(h, _)| slot(*h, level) == i).count();
                    new[i] = self.rewrite(room, children[i], level + 1, &rest[..n], growth)?;
                    rest = &rest[n..];
                }
                if new == *children {
                    return Ok(id);
                }
                if new.iter().all(|c| *c == 0) {
                    return Ok(0);
                }
                self.insert(room, Node::Branch(new))
            }
            leaf => {
                let old: &[StateEntry] = match leaf {
                    Some(Node::Leaf(entries)) => entries,
                    _ => &[],
                };
                let mut entries = old.to_vec();
                for (_, (key, event)) in changes {
                    let at = entries.iter().position(|e| e.key == *key);
                    match (at, event) {
                        (Some(at), Some(event)) => entries[at].event = *event,
                        (Some(at), None) => {
                            entries.swap_remove(at);
                        }
                        (None, Some(event)) => entries.push(StateEntry { key: *key, event: *event }),
                        (None, None) => {}
                    }
                }
                *growth += entries.len() as i64 - old.len() as i64;
                if entries == old {
                    return Ok(id);
                }
                self.build(room, entries, level)
            }
        }
    }

    /// A subtree of these entries.
    fn build(&mut self, room: RoomNum, entries: Vec<StateEntry>, level: u32) -> Result<i64, StoreError> {
        if entries.is_empty() {
            return Ok(0);
        }
        // 64 bits of hash are 16 levels; keys that agree in all of them stay together in one leaf.
        if entries.len() <= LEAF_MAX || level == 15 {
            return self.insert(room, Node::Leaf(entries));
        }
        let mut parts: [Vec<StateEntry>; 16] = Default::default();
        for entry in entries {
            parts[slot(entry.key.hash(), level)].push(entry);
        }
        let mut children = [0; 16];
        for (child, part) in children.iter_mut().zip(parts) {
            *child = self.build(room, part, level + 1)?;
        }
        self.insert(room, Node::Branch(children))
    }

    fn insert(&mut self, room: RoomNum, node: Node) -> Result<i64, StoreError> {
        let id = self.tx.next_number(Counter::TrieNodes)?;
        let data = node.encode();
        self.tx.exec(
            "INSERT INTO trie_nodes (room, node, data) VALUES ($1, $2, $3)",
            &[room.into(), id.into(), data[..].into()],
        )?;
        self.tx.learned.node(id, Arc::new(node));
        Ok(id)
    }

    /// Room, root node and size of a snapshot.
    fn root(&mut self, snapshot: SnapshotNum) -> Result<(RoomNum, i64, i64), StoreError> {
        if let Some(root) = self.tx.learned.snapshot_root(snapshot).or_else(|| self.tx.caches.snapshot_root(snapshot)) {
            return Ok(root);
        }
        let root = self
            .tx
            .one("SELECT room, root, size FROM snapshots WHERE num = $1", &[snapshot.into()], |row| {
                Ok((RoomNum(row.int(0)?), row.int(1)?, row.int(2)?))
            })?
            .ok_or_else(|| StoreError::Damaged(format!("snapshot {} is gone", snapshot.0)))?;
        self.tx.learned.snapshot(snapshot, root);
        Ok(root)
    }

    fn node(&mut self, room: RoomNum, id: i64) -> Result<Arc<Node>, StoreError> {
        if let Some(node) = self.tx.learned.get_node(id).or_else(|| self.tx.caches.node(id)) {
            return Ok(node);
        }
        self.warm(room, &[id])?;
        self.tx.learned.get_node(id).ok_or_else(|| StoreError::Damaged(format!("trie node {id} is gone")))
    }

    fn nodes(&mut self, room: RoomNum, ids: &[i64]) -> Result<Vec<Arc<Node>>, StoreError> {
        self.warm(room, ids)?;
        ids.iter().map(|id| self.node(room, *id)).collect()
    }

    /// Brings nodes into memory with one query.
    fn warm(&mut self, room: RoomNum, ids: &[i64]) -> Result<(), StoreError> {
        let missing: SmallVec<[i64; 16]> = ids
            .iter()
            .copied()
            .filter(|id| self.tx.learned.get_node(*id).or_else(|| self.tx.caches.node(*id)).is_none())
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        let found = match missing[..] {
            [id] => self.tx.query(
                "SELECT node, data FROM trie_nodes WHERE room = $1 AND node = $2",
                &[room.into(), id.into()],
                decode_row,
            )?,
            _ => self.tx.query(
                "SELECT node, data FROM trie_nodes WHERE room = $1 AND node IN ints($2)",
                &[room.into(), missing[..].into()],
                decode_row,
            )?,
        };
        for (id, node) in found {
            self.tx.learned.node(id, Arc::new(node));
        }
        Ok(())
    }

    fn entries_below(&mut self, room: RoomNum, id: i64) -> Result<Vec<StateEntry>, StoreError> {
        let mut entries = Vec::new();
        let mut level: Vec<i64> = if id == 0 { Vec::new() } else { vec![id] };
        while !level.is_empty() {
            let mut next = Vec::new();
            for node in self.nodes(room, &level)? {
                match &*node {
                    Node::Leaf(leaf) => entries.extend_from_slice(leaf),
                    Node::Branch(children) => next.extend(children.iter().filter(|c| **c != 0)),
                }
            }
            level = next;
        }
        Ok(entries)
    }

    /// Snapshots and nodes of a room that nothing refers to, at most about `limit` rows of them.
    /// What is written after this was asked is never among them.
    pub fn garbage(&mut self, room: RoomNum, limit: usize) -> Result<Garbage, StoreError> {
        let live: Vec<(i64, i64)> = self.tx.query(
            "SELECT num, root FROM snapshots WHERE room = $1 AND num IN (
                 SELECT snapshot_before FROM events WHERE room = $1 AND snapshot_before IS NOT NULL
                 UNION SELECT snapshot_after FROM events WHERE room = $1 AND snapshot_after IS NOT NULL
                 UNION SELECT snapshot FROM room_state WHERE room = $1
                 UNION SELECT snapshot FROM room_tips WHERE room = $1)",
            &[room.into()],
            |row| Ok((row.int(0)?, row.int(1)?)),
        )?;
        let known: FxHashSet<i64> = live.iter().map(|(num, _)| *num).collect();
        let snapshots: Vec<i64> = self
            .tx
            .query("SELECT num FROM snapshots WHERE room = $1", &[room.into()], |row| row.int(0))?
            .into_iter()
            .filter(|num| !known.contains(num))
            .take(limit)
            .collect();
        let mut marked: FxHashSet<i64> = FxHashSet::default();
        let mut level: Vec<i64> = live.iter().map(|(_, root)| *root).filter(|r| *r != 0).collect();
        while !level.is_empty() {
            level.retain(|id| marked.insert(*id));
            let mut next = Vec::new();
            for chunk in level.chunks(500) {
                for node in self.nodes(room, chunk)? {
                    if let Node::Branch(children) = &*node {
                        next.extend(children.iter().filter(|c| **c != 0 && !marked.contains(c)));
                    }
                }
            }
            level = next;
        }
        let nodes = self
            .tx
            .query("SELECT node FROM trie_nodes WHERE room = $1", &[room.into()], |row| row.int(0))?
            .into_iter()
            .filter(|id| !marked.contains(id))
            .take(limit)
            .collect();
        Ok(Garbage { room, snapshots, nodes })
    }

    /// Deletes what [`garbage`](Self::garbage) found, in the same transaction or a later one that holds the room.
    pub fn sweep(&mut self, garbage: &Garbage) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM snapshots WHERE num IN ints($1)", &[garbage.snapshots[..].into()])?;
        self.tx.exec(
            "DELETE FROM trie_nodes WHERE room = $1 AND node IN ints($2)",
            &[garbage.room.into(), garbage.nodes[..].into()],
        )
    }
}

/// State that nothing refers to.
#[derive(Clone, Debug)]
pub struct Garbage {
    room: RoomNum,
    snapshots: Vec<i64>,
    nodes: Vec<i64>,
}

impl Garbage {
    /// Rows found.
    pub fn len(&self) -> usize {
        self.snapshots.len() + self.nodes.len()
    }

    /// Nothing to do.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Copy)]
struct Pair {
    before: i64,
    after: i64,
}

fn decode_row(row: &dyn crate::Row) -> Result<(i64, Node), StoreError> {
    let id = row.int(0)?;
    let node = Node::decode(row.bytes(1)?).ok_or_else(|| StoreError::Damaged(format!("trie node {id}")))?;
    Ok((id, node))
}

fn compare(before: &[StateEntry], after: &[StateEntry], differences: &mut Vec<StateDifference>) {
    let old: rustc_hash::FxHashMap<StateKey, EventNum> = before.iter().map(|e| (e.key, e.event)).collect();
    let new: rustc_hash::FxHashMap<StateKey, EventNum> = after.iter().map(|e| (e.key, e.event)).collect();
    for entry in after {
        let before = old.get(&entry.key).copied();
        if before != Some(entry.event) {
            differences.push(StateDifference { key: entry.key, before, after: Some(entry.event) });
        }
    }
    for entry in before.iter().filter(|e| !new.contains_key(&e.key)) {
        differences.push(StateDifference { key: entry.key, before: Some(entry.event), after: None });
    }
}
