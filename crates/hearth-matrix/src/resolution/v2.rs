//! State resolution of room versions 2 to 11 (v2) and 12 (v2.1), over numbers.
//!
//! Events and keys get numbers when they are first met; what the rules read in an event is parsed
//! once for all resolutions. Auth events are fetched when somebody asks for them.
//! Spec: room versions 2 and 12, "State resolution".

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::Arc,
};

use ruma::{EventId, OwnedEventId, room_version_rules::StateResolutionV2Rules};
use rustc_hash::FxHashMap;

use super::{Difference, ResolveError, keys::Keys};
use crate::{
    Level, Membership, Pdu, PowerLevels, RoomVersionRules,
    auth::{self, AuthEvent},
};

type Number = u32;

struct Node {
    event: AuthEvent,
    /// The key it sets.
    key: u32,
    /// Its auth events, once asked for.
    auth_events: Option<Arc<[Number]>>,
    /// Whether it is in the full conflicted set.
    is_conflicted: bool,
}

struct Resolver<'a> {
    rules: &'a RoomVersionRules,
    difference: &'a Difference<'a>,
    nodes: Vec<Node>,
    numbers: FxHashMap<OwnedEventId, Number>,
    keys: Keys,
    /// What states agree on, by key, as far as it was asked for; keys in conflict have nothing.
    agreed: FxHashMap<u32, Option<AuthEvent>>,
    /// The state so far.
    resolved: FxHashMap<u32, Number>,
    create: Option<Arc<Pdu>>,
}

pub(super) fn resolve(
    rules: &RoomVersionRules,
    v2: &StateResolutionV2Rules,
    difference: &Difference<'_>,
) -> Result<Vec<Arc<Pdu>>, ResolveError> {
    let mut resolver = Resolver {
        rules,
        difference,
        nodes: Vec::with_capacity(difference.conflicted.len() * 2),
        numbers: FxHashMap::default(),
        keys: Keys::default(),
        agreed: FxHashMap::default(),
        resolved: FxHashMap::default(),
        create: None,
    };
    let mut full = Vec::with_capacity(difference.conflicted.len());
    for event in &difference.conflicted {
        let number = resolver.number(event);
        let key = resolver.nodes[number as usize].key;
        resolver.agreed.insert(key, None);
        resolver.add_conflicted(number, &mut full);
    }
    let subgraph = if v2.consider_conflicted_state_subgraph { &difference.subgraph[..] } else { &[] };
    for event in difference.auth_difference.iter().chain(subgraph) {
        let number = resolver.number(event);
        resolver.add_conflicted(number, &mut full);
    }

    let power_events = resolver.power_events_and_chains(&full)?;
    let sorted = resolver.sort_by_power(&power_events)?;
    resolver.apply(&sorted, !v2.begin_iterative_auth_checks_with_empty_state_map)?;

    let power_levels = resolver.power_levels_for_mainline(!v2.begin_iterative_auth_checks_with_empty_state_map);
    let mut is_sorted = vec![false; resolver.nodes.len()];
    sorted.iter().for_each(|number| is_sorted[*number as usize] = true);
    full.retain(|number| !is_sorted[*number as usize]);
    resolver.sort_by_mainline(&mut full, power_levels)?;
    resolver.apply(&full, !v2.begin_iterative_auth_checks_with_empty_state_map)?;
    Ok(resolver.into_changes())
}

impl Resolver<'_> {
    fn number(&mut self, event: &AuthEvent) -> Number {
        if let Some(number) = self.numbers.get(&event.pdu.event_id) {
            return *number;
        }
        let number = Number::try_from(self.nodes.len()).unwrap_or(Number::MAX); // never that many
        let (kind, key) = event.pdu.state_pair().unwrap_or_default();
        let key = self.keys.number(kind, key);
        self.numbers.insert(event.pdu.event_id.clone(), number);
        self.nodes.push(Node { event: event.clone(), key, auth_events: None, is_conflicted: false });
        number
    }

    fn add_conflicted(&mut self, number: Number, full: &mut Vec<Number>) {
        let node = &mut self.nodes[number as usize];
        if !std::mem::replace(&mut node.is_conflicted, true) {
            full.push(number);
        }
    }

    fn pdu(&self, number: Number) -> &Arc<Pdu> {
        &self.nodes[number as usize].event.pdu
    }

    fn auth_events(&mut self, number: Number) -> Result<Arc<[Number]>, ResolveError> {
        if let Some(auth_events) = &self.nodes[number as usize].auth_events {
            return Ok(Arc::clone(auth_events));
        }
        let pdu = Arc::clone(self.pdu(number));
        let mut numbers = Vec::with_capacity(pdu.auth_events.len());
        for id in &pdu.auth_events {
            let known = self.numbers.get(id).copied();
            numbers.push(match known {
                Some(number) => number,
                None => {
                    let event = (self.difference.fetch)(id).ok_or_else(|| ResolveError::Missing(id.clone()))?;
                    if event.pdu.state_key.is_none() {
                        return Err(ResolveError::NotState(id.clone()));
                    }
                    self.number(&event)
                }
            });
        }
        let numbers: Arc<[Number]> = numbers.into();
        self.nodes[number as usize].auth_events = Some(Arc::clone(&numbers));
        Ok(numbers)
    }

    /// The power levels among an event's auth events.
    fn power_levels_before(&mut self, number: Number) -> Result<Option<Number>, ResolveError> {
        let auth_events = self.auth_events(number)?;
        Ok(auth_events.iter().copied().find(|auth_event| self.pdu(*auth_event).is_state("m.room.power_levels", "")))
    }

    /// Step 1: power events, and what of their auth chains is in the full conflicted set.
    fn power_events_and_chains(&mut self, full: &[Number]) -> Result<Vec<Number>, ResolveError> {
        let mut todo: Vec<_> = full.iter().copied().filter(|number| is_power_event(self.pdu(*number))).collect();
        let mut picked = Vec::with_capacity(todo.len());
        let mut is_picked = vec![false; self.nodes.len()];
        while let Some(number) = todo.pop() {
            if std::mem::replace(&mut is_picked[number as usize], true) {
                continue;
            }
            picked.push(number);
            let auth_events = self.auth_events(number)?;
            is_picked.resize(self.nodes.len(), false);
            todo.extend(auth_events.iter().copied().filter(|number| self.nodes[*number as usize].is_conflicted));
        }
        Ok(picked)
    }

    /// Step 1: the reverse topological power ordering, by Kahn's algorithm.
    fn sort_by_power(&mut self, events: &[Number]) -> Result<Vec<Number>, ResolveError> {
        let mut waits_for: FxHashMap<Number, usize> = events.iter().map(|number| (*number, 0)).collect();
        let mut awaited_by: FxHashMap<Number, Vec<Number>> = FxHashMap::default();
        for number in events {
            let mut auth_events = self.auth_events(*number)?.to_vec();
            auth_events.sort_unstable();
            auth_events.dedup();
            for auth_event in auth_events {
                if waits_for.contains_key(&auth_event) {
                    awaited_by.entry(auth_event).or_default().push(*number);
                    *waits_for.entry(*number).or_default() += 1;
                }
            }
        }
        let mut ready = BinaryHeap::new();
        for number in events {
            if waits_for.get(number) == Some(&0) {
                ready.push(Reverse(self.power_place(*number)?));
            }
        }
        let mut sorted = Vec::with_capacity(events.len());
        while let Some(Reverse(place)) = ready.pop() {
            sorted.push(place.number);
            for waiting in awaited_by.remove(&place.number).unwrap_or_default() {
                let left = waits_for.entry(waiting).or_default();
                *left -= 1;
                if *left == 0 {
                    ready.push(Reverse(self.power_place(waiting)?));
                }
            }
        }
        Ok(sorted)
    }

    fn power_place(&mut self, number: Number) -> Result<PowerPlace, ResolveError> {
        let power_levels = self.power_levels_before(number)?.map(|number| Arc::clone(self.pdu(number)));
        let create = if self.rules.authorization.room_create_event_id_as_room_id {
            self.create_event(number)
        } else {
            let auth_events = self.auth_events(number)?;
            let create = auth_events.iter().find(|auth_event| self.pdu(**auth_event).is_state("m.room.create", ""));
            create.map(|number| Arc::clone(self.pdu(*number)))
        };
        let pdu = Arc::clone(self.pdu(number));
        let level = PowerLevels::new(create, power_levels, self.rules).user(&pdu.sender);
        Ok(PowerPlace { level, pdu, number })
    }

    /// The create event that a version 12 room id names.
    fn create_event(&mut self, number: Number) -> Option<Arc<Pdu>> {
        if self.create.is_none() {
            let id = self.pdu(number).room_id.as_str().replacen('!', "$", 1);
            let id = <&EventId>::try_from(id.as_str()).ok()?;
            self.create = (self.difference.fetch)(id).map(|event| event.pdu);
        }
        self.create.clone()
    }

    /// Steps 2 and 4: the iterative auth checks.
    fn apply(&mut self, events: &[Number], on_agreed_state: bool) -> Result<(), ResolveError> {
        for number in events {
            let auth_events = self.auth_events(*number)?;
            let create = if self.rules.authorization.room_create_event_id_as_room_id {
                self.create_event(*number)
            } else {
                None
            };
            let pdu = Arc::clone(self.pdu(*number));
            // Fetching the agreed state needs `&mut self`, so what the rules will ask is looked up before.
            if on_agreed_state {
                let types = match auth::auth_types_of(&pdu, self.rules) {
                    Ok(types) => types,
                    Err(_) => continue,
                };
                for (kind, key) in types {
                    self.ask_agreed(kind, &key);
                }
            }
            let state = |kind: &str, key: &str| {
                if kind == "m.room.create" && create.is_some() {
                    return create.clone();
                }
                let so_far = self.so_far(kind, key, on_agreed_state).filter(|event| !event.rejected);
                let own = || {
                    let mut own = auth_events.iter().map(|number| &self.nodes[*number as usize].event);
                    own.rfind(|event| !event.rejected && event.pdu.is_state(kind, key))
                };
                so_far.or_else(own).map(|event| Arc::clone(&event.pdu))
            };
            if auth::check(self.rules, &pdu, state).is_ok() {
                let key = self.nodes[*number as usize].key;
                self.resolved.insert(key, *number);
            }
        }
        Ok(())
    }

    fn ask_agreed(&mut self, kind: &str, key: &str) -> Option<&AuthEvent> {
        let number = self.keys.number(kind, key);
        let state = self.difference.state;
        self.agreed.entry(number).or_insert_with(|| state(kind, key)).as_ref()
    }

    fn so_far(&self, kind: &str, key: &str, on_agreed_state: bool) -> Option<&AuthEvent> {
        let key = self.keys.get(kind, key)?;
        match self.resolved.get(&key) {
            Some(number) => Some(&self.nodes[*number as usize].event),
            None if on_agreed_state => self.agreed.get(&key)?.as_ref(),
            None => None,
        }
    }

    fn power_levels_for_mainline(&mut self, on_agreed_state: bool) -> Option<Number> {
        if on_agreed_state {
            self.ask_agreed("m.room.power_levels", "");
        }
        let event = self.so_far("m.room.power_levels", "", on_agreed_state)?.clone();
        Some(self.number(&event))
    }

    /// Step 3: the mainline ordering.
    fn sort_by_mainline(&mut self, events: &mut [Number], power_levels: Option<Number>) -> Result<(), ResolveError> {
        if events.is_empty() {
            return Ok(());
        }
        // Positions of power level events: on the mainline, and of those that lead to it.
        let mut positions: FxHashMap<Number, usize> = FxHashMap::default();
        let mut next = power_levels;
        while let Some(number) = next {
            if positions.insert(number, positions.len()).is_some() {
                break; // a cycle cannot be hashed, but costs nothing to survive
            }
            next = self.power_levels_before(number)?;
        }
        let mut order = FxHashMap::default();
        for number in events.iter() {
            order.insert(*number, self.mainline_position(*number, &mut positions)?);
        }
        events.sort_unstable_by(|a, b| {
            let (a_position, b_position) = (order.get(a), order.get(b));
            let (a, b) = (self.pdu(*a), self.pdu(*b));
            b_position
                .cmp(&a_position)
                .then(a.origin_server_ts.cmp(&b.origin_server_ts))
                .then_with(|| a.event_id.cmp(&b.event_id))
        });
        Ok(())
    }

    /// How far back the mainline meets this event's power levels; `usize::MAX` if never.
    fn mainline_position(
        &mut self,
        number: Number,
        positions: &mut FxHashMap<Number, usize>,
    ) -> Result<usize, ResolveError> {
        let mut passed = Vec::new();
        let mut next = self.power_levels_before(number)?;
        let mut position = usize::MAX;
        while let Some(power_levels) = next {
            if let Some(known) = positions.get(&power_levels) {
                position = *known;
                break;
            }
            positions.insert(power_levels, usize::MAX); // also ends a cycle
            passed.push(power_levels);
            next = self.power_levels_before(power_levels)?;
        }
        positions.extend(passed.into_iter().map(|power_levels| (power_levels, position)));
        Ok(position)
    }

    /// Step 5: what states agree on stays; the rest is the answer.
    fn into_changes(mut self) -> Vec<Arc<Pdu>> {
        let resolved = std::mem::take(&mut self.resolved);
        let mut changes = Vec::with_capacity(resolved.len());
        for number in resolved.into_values() {
            let pdu = Arc::clone(self.pdu(number));
            let is_agreed = pdu.state_pair().is_some_and(|(kind, key)| self.ask_agreed(kind, key).is_some());
            if !is_agreed {
                changes.push(pdu);
            }
        }
        changes
    }
}

/// Might this event take away somebody's ability to do something?
fn is_power_event(pdu: &Pdu) -> bool {
    match pdu.state_pair() {
        Some(("m.room.power_levels" | "m.room.join_rules" | "m.room.create", "")) => true,
        Some(("m.room.member", target)) => {
            target != pdu.sender.as_str() && matches!(Membership::of(pdu), Membership::Leave | Membership::Ban)
        }
        _ => false,
    }
}

/// The order among events that are ready: higher power first, then older, then the smaller id.
struct PowerPlace {
    level: Level,
    pdu: Arc<Pdu>,
    number: Number,
}

impl Ord for PowerPlace {
    fn cmp(&self, other: &Self) -> Ordering {
        other
            .level
            .cmp(&self.level)
            .then(self.pdu.origin_server_ts.cmp(&other.pdu.origin_server_ts))
            .then_with(|| self.pdu.event_id.cmp(&other.pdu.event_id))
    }
}

impl PartialOrd for PowerPlace {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for PowerPlace {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for PowerPlace {}
