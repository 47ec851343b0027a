//! Auth chains by walking: what only some states' chains reach, and the conflicted subgraph.
//!
//! The store has an index and does not walk; these functions say what it must find, and serve where
//! chains are short.

use ruma::{EventId, OwnedEventId};
use rustc_hash::{FxHashMap, FxHashSet};

use super::ResolveError;
use crate::auth::AuthEvent;

/// Ids without repetition, in their order.
pub(super) fn distinct<'i>(ids: impl Iterator<Item = &'i OwnedEventId>) -> Vec<OwnedEventId> {
    let mut seen = FxHashSet::default();
    ids.filter(|id| seen.insert(*id)).cloned().collect()
}

/// The events from which `start` can be reached backwards: `start` and its full auth chain.
pub fn full_chain<'i>(
    start: impl IntoIterator<Item = &'i OwnedEventId>,
    fetch: &impl Fn(&EventId) -> Option<AuthEvent>,
) -> Result<FxHashSet<OwnedEventId>, ResolveError> {
    let mut chain = FxHashSet::default();
    let mut todo: Vec<OwnedEventId> = start.into_iter().cloned().collect();
    while let Some(id) = todo.pop() {
        if chain.contains(&id) {
            continue;
        }
        let event = fetch(&id).ok_or_else(|| ResolveError::Missing(id.clone()))?;
        todo.extend(event.pdu.auth_events.iter().filter(|id| !chain.contains(*id)).cloned());
        chain.insert(id);
    }
    Ok(chain)
}

/// What is in the full auth chain of one state, but not in those of all. Takes the conflicted events
/// of each state; `agreed` are the events in all of them, whose chains are in none's difference.
pub fn auth_difference<'i>(
    conflicted: &[Vec<OwnedEventId>],
    agreed: impl IntoIterator<Item = &'i OwnedEventId>,
    fetch: &impl Fn(&EventId) -> Option<AuthEvent>,
) -> Result<Vec<OwnedEventId>, ResolveError> {
    let common = full_chain(agreed, fetch)?;
    let mut times: FxHashMap<OwnedEventId, usize> = FxHashMap::default();
    for events in conflicted {
        for id in full_chain(events, fetch)? {
            *times.entry(id).or_default() += 1;
        }
    }
    times.retain(|id, times| *times < conflicted.len() && !common.contains(id));
    Ok(times.into_keys().collect())
}

/// What lies on a path of auth events from a conflicted event to another, both ends included.
pub fn conflicted_subgraph(
    conflicted: &[OwnedEventId],
    fetch: &impl Fn(&EventId) -> Option<AuthEvent>,
) -> Result<Vec<OwnedEventId>, ResolveError> {
    let ends: FxHashSet<&OwnedEventId> = conflicted.iter().collect();
    // An event is on a path if it is reached from a conflicted event (all that is walked here is) and
    // reaches one; the second is known once all its auth events are done.
    let mut reaches: FxHashMap<OwnedEventId, bool> = FxHashMap::default();
    let mut todo: Vec<(OwnedEventId, bool)> = conflicted.iter().map(|id| (id.clone(), false)).collect();
    while let Some((id, are_auth_events_done)) = todo.pop() {
        if reaches.contains_key(&id) {
            continue;
        }
        let event = fetch(&id).ok_or_else(|| ResolveError::Missing(id.clone()))?;
        if are_auth_events_done {
            let on_path =
                ends.contains(&id) || event.pdu.auth_events.iter().any(|id| reaches.get(id).copied().unwrap_or(false));
            reaches.insert(id, on_path);
        } else {
            todo.push((id, true));
            let open = event.pdu.auth_events.iter().filter(|id| !reaches.contains_key(*id));
            todo.extend(open.map(|id| (id.clone(), false)));
        }
    }
    Ok(reaches.into_iter().filter(|(_, on_path)| *on_path).map(|(id, _)| id).collect())
}
