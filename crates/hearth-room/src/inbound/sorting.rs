//! Events in an order in which none comes before what it hangs on.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::OwnedEventId;
use rustc_hash::FxHashMap;

/// Which references count.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum By {
    /// `auth_events` only.
    Auth,
    /// `prev_events` and `auth_events`.
    All,
}

/// Sorts, and drops what comes twice. Among events that don't hang on each other: by stated depth, then id.
/// In room versions 1 and 2, where ids are chosen, events in a circle are left out.
pub(super) fn sorted(pdus: Vec<Arc<Pdu>>, by: By) -> Vec<Arc<Pdu>> {
    let mut waits_for: FxHashMap<OwnedEventId, (Arc<Pdu>, usize)> = FxHashMap::default();
    for pdu in pdus {
        waits_for.entry(pdu.event_id.clone()).or_insert((pdu, 0));
    }
    let mut awaited_by: FxHashMap<OwnedEventId, Vec<OwnedEventId>> = FxHashMap::default();
    let ids: Vec<OwnedEventId> = waits_for.keys().cloned().collect();
    for id in ids {
        let pdu = waits_for[&id].0.clone();
        let prev: &[OwnedEventId] = if by == By::All { &pdu.prev_events } else { &[] };
        let mut before: Vec<&OwnedEventId> = pdu.auth_events.iter().chain(prev).collect();
        before.sort_unstable();
        before.dedup();
        let before = before.into_iter().filter(|before| waits_for.contains_key(*before)).cloned().collect::<Vec<_>>();
        if let Some((_, count)) = waits_for.get_mut(&id) {
            *count = before.len();
        }
        for event in before {
            awaited_by.entry(event).or_default().push(id.clone());
        }
    }
    let mut ready: BinaryHeap<Reverse<(u64, OwnedEventId)>> = waits_for
        .values()
        .filter(|(_, count)| *count == 0)
        .map(|(pdu, _)| Reverse((pdu.depth, pdu.event_id.clone())))
        .collect();
    let mut sorted = Vec::with_capacity(waits_for.len());
    while let Some(Reverse((_, id))) = ready.pop() {
        for waiting in awaited_by.remove(&id).unwrap_or_default() {
            if let Some((pdu, count)) = waits_for.get_mut(&waiting) {
                *count -= 1;
                if *count == 0 {
                    ready.push(Reverse((pdu.depth, waiting)));
                }
            }
        }
        if let Some((pdu, _)) = waits_for.remove(&id) {
            sorted.push(pdu);
        }
    }
    sorted
}

/// Those of these events that are named, or that allow such: what else was sent along is nobody's business.
pub(super) fn reached(pdus: Vec<Arc<Pdu>>, named: impl IntoIterator<Item = OwnedEventId>) -> Vec<Arc<Pdu>> {
    let mut rest: FxHashMap<OwnedEventId, Arc<Pdu>> = pdus.into_iter().map(|pdu| (pdu.event_id.clone(), pdu)).collect();
    let mut todo: Vec<OwnedEventId> = named.into_iter().collect();
    let mut reached = Vec::new();
    while let Some(id) = todo.pop() {
        if let Some(pdu) = rest.remove(&id) {
            todo.extend(pdu.auth_events.iter().cloned());
            reached.push(pdu);
        }
    }
    reached
}
