//! One state out of those of several branches, on snapshots.
//!
//! The rules are `hearth_matrix::resolution`; here they are given what differs between the snapshots, and their answer
//! becomes a snapshot again. Event numbers rise along auth edges, which the search for the auth difference relies on.

use std::cell::RefCell;
use std::collections::BTreeMap;

use hearth_matrix::auth::AuthEvent;
use hearth_matrix::resolution::{Difference, numbered, resolve_difference};
use hearth_matrix::ruma::{EventId, OwnedEventId};
use hearth_store::{EventNum, RoomRecord, SnapshotNum, StateKey, StoreError, Tx};
use rustc_hash::{FxHashMap, FxHashSet};

/// Resolves states of a room. The same states have the same answer, which is kept in mind.
pub(crate) fn resolve(tx: &mut Tx<'_>, room: &RoomRecord, states: &[SnapshotNum]) -> Result<SnapshotNum, StoreError> {
    let mut states = states.to_vec();
    states.sort_unstable();
    states.dedup();
    let Some((first, others)) = states.split_first() else {
        return Err(StoreError::Damaged(format!("{} has a branch without state", room.room_id)));
    };
    if others.is_empty() {
        return Ok(*first);
    }
    if let Some(known) = tx.state().resolved(&states)? {
        return Ok(known);
    }
    // What stands at the places where they differ, state by state.
    let mut places: BTreeMap<StateKey, Vec<Option<EventNum>>> = BTreeMap::new();
    for (n, other) in others.iter().enumerate() {
        for difference in tx.state().difference(room.num, *first, *other)? {
            let place = places.entry(difference.key).or_insert_with(|| vec![difference.before; states.len()]);
            place[n + 1] = difference.after;
        }
    }
    let resolved = Resolving::new(tx, room, *first, places).resolve()?;
    tx.state().keep_resolved(&states, resolved);
    Ok(resolved)
}

struct Resolving<'a, 't, 'c> {
    tx: RefCell<&'a mut Tx<'c>>,
    room: &'t RoomRecord,
    /// One of the states: what they agree on is looked up there.
    base: SnapshotNum,
    places: BTreeMap<StateKey, Vec<Option<EventNum>>>,
    auth_edges: FxHashMap<EventNum, Vec<EventNum>>,
    nums: RefCell<FxHashMap<OwnedEventId, EventNum>>,
    /// The rules cannot carry a store's failure: it is kept here.
    failure: RefCell<Option<StoreError>>,
}

impl<'a, 't, 'c> Resolving<'a, 't, 'c> {
    fn new(
        tx: &'a mut Tx<'c>,
        room: &'t RoomRecord,
        base: SnapshotNum,
        places: BTreeMap<StateKey, Vec<Option<EventNum>>>,
    ) -> Self {
        Self {
            tx: RefCell::new(tx),
            room,
            base,
            places,
            auth_edges: FxHashMap::default(),
            nums: RefCell::default(),
            failure: RefCell::default(),
        }
    }

    fn resolve(mut self) -> Result<SnapshotNum, StoreError> {
        let Some(states) = self.places.values().next().map(Vec::len) else { return Ok(self.base) };
        let conflicted: Vec<Vec<EventNum>> =
            (0..states).map(|n| self.places.values().filter_map(|place| place[n]).collect()).collect();
        let mut all: Vec<EventNum> = conflicted.iter().flatten().copied().collect();
        all.sort_unstable();
        all.dedup();

        let (mut auth_difference, mut subgraph) = (Vec::new(), Vec::new());
        if let hearth_matrix::ruma::room_version_rules::StateResolutionVersion::V2(v2) = &self.room.rules.state_res {
            let agreed = self.agreed()?;
            let above = |oldest| Ok(agreed.into_iter().filter(|num| *num >= oldest).collect());
            auth_difference = numbered::auth_difference(&conflicted, above, |num| self.auth_events(num))?;
            if v2.consider_conflicted_state_subgraph {
                subgraph = numbered::conflicted_subgraph(&all, |num| self.auth_events(num))?;
            }
        }
        let difference = Difference {
            conflicted: self.events(&all)?,
            auth_difference: self.events(&auth_difference)?,
            subgraph: self.events(&subgraph)?,
            state: &|kind, key| self.noting(self.at_base(kind, key)),
            fetch: &|id| self.noting(self.fetch(id)),
        };
        let resolution = resolve_difference(self.room.rules, &difference);
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let resolution = resolution.map_err(|error| StoreError::Damaged(format!("{}: {error}", self.room.room_id)))?;
        let mut changes = Vec::with_capacity(resolution.set.len() + resolution.unset.len());
        for pdu in &resolution.set {
            let Some((kind, key)) = pdu.state_pair() else { continue };
            let num = self.nums.borrow().get(&pdu.event_id).copied();
            let num = num.ok_or_else(|| StoreError::Damaged(format!("{} has no number", pdu.event_id)))?;
            changes.push((self.place(kind, key)?, Some(num)));
        }
        for (kind, key) in &resolution.unset {
            changes.push((self.place(kind, key)?, None));
        }
        self.tx.get_mut().state().apply(self.room.num, Some(self.base), &changes)
    }

    fn place(&mut self, kind: &str, key: &str) -> Result<StateKey, StoreError> {
        let tx = self.tx.get_mut();
        Ok(StateKey { kind: tx.intern(kind)?, state_key: tx.intern(key)? })
    }

    /// What all states have.
    fn agreed(&mut self) -> Result<Vec<EventNum>, StoreError> {
        let conflicted: FxHashSet<StateKey> = self.places.keys().copied().collect();
        let entries = self.tx.get_mut().state().load(self.room.num, self.base)?;
        Ok(entries.into_iter().filter(|entry| !conflicted.contains(&entry.key)).map(|entry| entry.event).collect())
    }

    fn auth_events(&mut self, num: EventNum) -> Result<Vec<EventNum>, StoreError> {
        if let Some(known) = self.auth_edges.get(&num) {
            return Ok(known.clone());
        }
        let tx = self.tx.get_mut();
        let mut auth_events: Vec<EventNum> =
            tx.events().auth_edges(&[num.0])?.into_iter().map(|(_, auth)| auth).collect();
        if auth_events.is_empty() {
            // What this transaction is about to write has no edges as rows yet.
            let pdu = tx.events().pdu(self.room, num)?;
            for id in &pdu.auth_events {
                auth_events.extend(tx.events().num(self.room, id)?);
            }
        }
        self.auth_edges.insert(num, auth_events.clone());
        Ok(auth_events)
    }

    fn events(&self, nums: &[EventNum]) -> Result<Vec<AuthEvent>, StoreError> {
        let pdus = self.tx.borrow_mut().events().pdus(self.room, nums)?;
        if pdus.len() != nums.len() {
            return Err(StoreError::Damaged(format!("{}: state without its JSON", self.room.room_id)));
        }
        let mut known = self.nums.borrow_mut();
        known.extend(pdus.iter().zip(nums).map(|(pdu, num)| (pdu.event_id.clone(), *num)));
        // Rejected events are in no state, and none in a state has a rejected one among its auth events.
        Ok(pdus.into_iter().map(|pdu| AuthEvent { pdu, rejected: false }).collect())
    }

    fn fetch(&self, id: &EventId) -> Result<Option<AuthEvent>, StoreError> {
        let num = self.tx.borrow_mut().events().num(self.room, id)?;
        match num {
            Some(num) => Ok(self.events(&[num])?.pop()),
            None => Ok(None),
        }
    }

    fn at_base(&self, kind: &str, key: &str) -> Result<Option<AuthEvent>, StoreError> {
        let num = {
            let mut tx = self.tx.borrow_mut();
            let (Some(kind), Some(state_key)) = (tx.string_num(kind)?, tx.string_num(key)?) else { return Ok(None) };
            tx.state().get(self.room.num, self.base, StateKey { kind, state_key })?
        };
        match num {
            Some(num) => Ok(self.events(&[num])?.pop()),
            None => Ok(None),
        }
    }

    fn noting<T>(&self, outcome: Result<Option<T>, StoreError>) -> Option<T> {
        outcome.unwrap_or_else(|error| {
            self.failure.borrow_mut().get_or_insert(error);
            None
        })
    }
}
