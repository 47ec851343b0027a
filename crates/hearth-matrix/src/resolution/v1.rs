//! State resolution of room version 1.
//!
//! Where the text leaves a choice this does what deployed servers do: events of one type are resolved
//! apart from each other, and if no event of a key passes, the one of least depth stays.
//! Spec: room version 1, "State resolution".

use std::{cmp::Reverse, sync::Arc};

use rustc_hash::{FxHashMap, FxHashSet};
use sha1::{Digest as _, Sha1};

use super::{Difference, by_pair};
use crate::{Pdu, RoomVersionRules, auth, auth::AuthEvent};

type Resolved<'d> = FxHashMap<(&'d str, &'d str), &'d AuthEvent>;

/// What the events of one pass are checked against.
struct Checks<'a, 'd> {
    rules: &'a RoomVersionRules,
    difference: &'a Difference<'a>,
    /// Types and state keys that states do not agree on.
    conflicted: &'a FxHashSet<(&'d str, &'d str)>,
    /// What earlier passes have decided.
    before: Resolved<'d>,
}

pub(super) fn resolve(rules: &RoomVersionRules, difference: &Difference<'_>) -> Vec<Arc<Pdu>> {
    let mut resolved: Resolved<'_> = FxHashMap::default();
    let by_pair = by_pair(&difference.conflicted);
    let conflicted: FxHashSet<_> = by_pair.keys().copied().collect();
    let mut conflicts: Vec<_> = by_pair.into_iter().collect();
    // A key that some states lack, while the others agree, is no conflict.
    conflicts.retain(|(pair, events)| match events[..] {
        [event] => {
            resolved.insert(*pair, event);
            false
        }
        _ => true,
    });
    for (_, events) in &mut conflicts {
        events.sort_by_cached_key(|event| (event.pdu.depth, Reverse(Sha1::digest(event.pdu.event_id.as_str()))));
    }

    for kind in ["m.room.power_levels", "m.room.join_rules", "m.room.member"] {
        let checks = Checks { rules, difference, conflicted: &conflicted, before: resolved.clone() };
        for (pair, events) in conflicts.iter().filter(|(pair, _)| pair.0 == kind) {
            resolved.insert(*pair, checks.last_of_allowed_run(*pair, events));
        }
    }
    let checks = Checks { rules, difference, conflicted: &conflicted, before: resolved.clone() };
    for (pair, events) in &conflicts {
        if matches!(pair.0, "m.room.power_levels" | "m.room.join_rules" | "m.room.member") {
            continue;
        }
        let allowed = events.iter().rev().find(|event| checks.is_allowed(None, event));
        if let Some(event) = allowed.or(events.first()) {
            resolved.insert(*pair, event);
        }
    }
    resolved.into_values().map(|event| Arc::clone(&event.pdu)).collect()
}

impl<'d> Checks<'_, 'd> {
    /// From the event of least depth on, the last that its predecessor allows.
    fn last_of_allowed_run(&self, pair: (&'d str, &'d str), events: &[&'d AuthEvent]) -> &'d AuthEvent {
        let mut current = events[0]; // a conflict has at least two events
        for event in &events[1..] {
            if !self.is_allowed(Some((pair, current)), event) {
                break;
            }
            current = event;
        }
        current
    }

    fn is_allowed(&self, current: Option<((&str, &str), &AuthEvent)>, event: &AuthEvent) -> bool {
        let state = |kind: &str, key: &str| {
            let known = match current {
                Some((pair, event)) if pair == (kind, key) => Some(event),
                _ => self.before.get(&(kind, key)).copied(),
            };
            match known {
                Some(event) => Some(Arc::clone(&event.pdu)),
                None if self.conflicted.contains(&(kind, key)) => None,
                None => (self.difference.state)(kind, key).map(|event| event.pdu),
            }
        };
        auth::check(self.rules, &event.pdu, state).is_ok()
    }
}
