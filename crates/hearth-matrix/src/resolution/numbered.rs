//! The auth difference and the conflicted subgraph over numbers, without walking whole chains.
//!
//! They want a graph in which every event has a greater number than its auth events: the order in
//! which a store that takes auth events first has numbered them, or a topological order made for the
//! purpose. Then the newest open event is always done next, and the search ends as soon as what is
//! left is common to all: usually after a few steps behind the fork.

use std::collections::{BTreeMap, BTreeSet};

use rustc_hash::FxHashSet;

/// Which states' full auth chains reach an event; `None` stands for all.
type Reached = Option<FxHashSet<usize>>;

/// What is in the full auth chain of one state, but not in those of all: the same as
/// [`super::chains::auth_difference`].
///
/// `conflicted` are each state's own events, without those that all states have. Of these, `agreed`
/// names the ones with numbers of at least the given one, in any order; it is asked at most once.
pub fn auth_difference<N: Copy + Ord, E>(
    conflicted: &[Vec<N>],
    agreed: impl FnOnce(N) -> Result<Vec<N>, E>,
    mut auth_events: impl FnMut(N) -> Result<Vec<N>, E>,
) -> Result<Vec<N>, E> {
    let candidates = find(conflicted, &[], &mut auth_events)?;
    // Whatever an agreed event reaches is in all chains; only those above the oldest candidate can
    // reach one.
    match candidates.last() {
        Some(oldest) => find(conflicted, &agreed(*oldest)?, &mut auth_events),
        None => Ok(candidates),
    }
}

/// The difference, newest first. What an event of `agreed` reaches is common to all.
fn find<N: Copy + Ord, E>(
    conflicted: &[Vec<N>],
    agreed: &[N],
    auth_events: &mut impl FnMut(N) -> Result<Vec<N>, E>,
) -> Result<Vec<N>, E> {
    let mut open: BTreeMap<N, Reached> = agreed.iter().map(|number| (*number, None)).collect();
    let mut undecided = 0_usize;
    for (state, events) in conflicted.iter().enumerate() {
        for number in events {
            reach(&mut open, *number, &Some(FxHashSet::from_iter([state])), conflicted.len(), &mut undecided);
        }
    }
    let mut difference = Vec::new();
    while undecided > 0 {
        let Some((number, reached)) = open.pop_last() else { break };
        if reached.is_some() {
            undecided -= 1;
            difference.push(number);
        }
        for auth_event in auth_events(number)? {
            reach(&mut open, auth_event, &reached, conflicted.len(), &mut undecided);
        }
    }
    Ok(difference)
}

/// Notes that a chain reaches an event, and keeps count of the events that not all chains reach.
fn reach<N: Ord>(open: &mut BTreeMap<N, Reached>, number: N, by: &Reached, states: usize, undecided: &mut usize) {
    let entry = open.entry(number);
    let was_undecided = matches!(&entry, std::collections::btree_map::Entry::Occupied(known) if known.get().is_some());
    let reached = entry.or_insert_with(|| Some(FxHashSet::default()));
    match (reached.as_mut(), by) {
        (Some(known), Some(by)) => {
            known.extend(by);
            if known.len() == states {
                *reached = None;
            }
        }
        _ => *reached = None,
    }
    match (was_undecided, reached.is_some()) {
        (false, true) => *undecided += 1,
        (true, false) => *undecided -= 1,
        _ => {}
    }
}

/// What lies on a path of auth events from a conflicted event to another, both ends included: the same
/// as [`super::chains::conflicted_subgraph`].
pub fn conflicted_subgraph<N: Copy + Ord, E>(
    conflicted: &[N],
    mut auth_events: impl FnMut(N) -> Result<Vec<N>, E>,
) -> Result<Vec<N>, E> {
    let ends: BTreeSet<N> = conflicted.iter().copied().collect();
    // Below the oldest end nothing reaches an end.
    let Some(oldest) = ends.first().copied() else { return Ok(Vec::new()) };
    let mut open = ends.clone();
    let mut edges = Vec::new();
    while let Some(number) = open.pop_last() {
        let above: Vec<N> = auth_events(number)?.into_iter().filter(|auth_event| *auth_event >= oldest).collect();
        open.extend(&above);
        edges.push((number, above));
    }
    let mut on_path = ends;
    for (number, above) in edges.iter().rev() {
        if above.iter().any(|auth_event| on_path.contains(auth_event)) {
            on_path.insert(*number);
        }
    }
    Ok(on_path.into_iter().collect())
}
