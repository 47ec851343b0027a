//! State resolution: one room state out of several.
//!
//! [`resolve_difference`] works on what differs and asks for the rest; its cost does not grow with
//! the room. [`resolve`] takes whole states and walks whole auth chains: the plain form, for tests,
//! imports and small rooms. Both give the same answer.
//!
//! An auth chain counts the events it starts from, as deployed servers do. So an event that all
//! states agree on, and whatever its chain reaches, is in every chain and never in the difference.
//! Spec: rooms, "State resolution" of versions 1, 2 and 12.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, room_version_rules::StateResolutionVersion};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::{Pdu, RoomVersionRules, auth::AuthEvent};

pub mod chains;
mod full;
mod keys;
pub mod numbered;
#[cfg(test)]
mod tests;
mod v1;
mod v2;

pub use self::full::{StateMap, resolve};

/// What states disagree on, with a way to ask for the rest.
pub struct Difference<'a> {
    /// Every event that is in one of the states, but not in all.
    pub conflicted: Vec<AuthEvent>,
    /// The auth difference: what is in one state's full auth chain, but not in all. From room
    /// version 2 on. Events that are conflicted too may be left out.
    pub auth_difference: Vec<AuthEvent>,
    /// The conflicted state subgraph: what lies on a path of auth events from a conflicted event to
    /// another. From room version 12 on.
    pub subgraph: Vec<AuthEvent>,
    /// Looks into any one of the states. Keys in conflict are never taken from it.
    pub state: &'a dyn Fn(&str, &str) -> Option<AuthEvent>,
    /// Any auth event of the events at hand, and the create event of a version 12 room.
    pub fetch: &'a dyn Fn(&EventId) -> Option<AuthEvent>,
}

impl std::fmt::Debug for Difference<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Difference")
            .field("conflicted", &self.conflicted.len())
            .field("auth_difference", &self.auth_difference.len())
            .field("subgraph", &self.subgraph.len())
            .finish_non_exhaustive()
    }
}

/// How the resolved state differs from what all states agree on.
#[derive(Debug, Clone, Default)]
pub struct Resolution {
    /// The events that won, each under its own type and state key; in order of these.
    pub set: Vec<Arc<Pdu>>,
    /// Keys in conflict of which no event is allowed; in order.
    pub unset: Vec<(Box<str>, Box<str>)>,
}

/// Why states cannot be resolved.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// An auth event is not at hand.
    #[error("the auth event {0} is missing")]
    Missing(OwnedEventId),
    /// An event that is no state event stands in a state.
    #[error("{0} is no state event")]
    NotState(OwnedEventId),
}

/// Resolves a difference. The answer does not depend on the order of anything in it.
pub fn resolve_difference(rules: &RoomVersionRules, difference: &Difference<'_>) -> Result<Resolution, ResolveError> {
    for event in difference.conflicted.iter().chain(&difference.auth_difference).chain(&difference.subgraph) {
        if event.pdu.state_key.is_none() {
            return Err(ResolveError::NotState(event.pdu.event_id.clone()));
        }
    }
    let resolved = match &rules.state_res {
        StateResolutionVersion::V2(v2) => v2::resolve(rules, v2, difference)?,
        _ => v1::resolve(rules, difference),
    };
    Ok(finish(difference, resolved))
}

/// Puts the winners in order and finds the keys that nobody won.
fn finish(difference: &Difference<'_>, mut set: Vec<Arc<Pdu>>) -> Resolution {
    set.sort_unstable_by(|a, b| a.state_pair().cmp(&b.state_pair()));
    let won: FxHashSet<_> = set.iter().filter_map(|pdu| pdu.state_pair()).collect();
    let mut unset: Vec<_> = difference
        .conflicted
        .iter()
        .filter_map(|event| event.pdu.state_pair())
        .filter(|pair| !won.contains(pair))
        .map(|(kind, key)| (Box::from(kind), Box::from(key)))
        .collect();
    unset.sort_unstable();
    unset.dedup();
    Resolution { set, unset }
}

/// Conflicted events by their type and state key, each event once.
fn by_pair(events: &[AuthEvent]) -> FxHashMap<(&str, &str), Vec<&AuthEvent>> {
    let mut all: FxHashMap<(&str, &str), Vec<&AuthEvent>> = FxHashMap::default();
    for event in events {
        let Some(pair) = event.pdu.state_pair() else { continue };
        let same = all.entry(pair).or_default();
        if !same.iter().any(|known| known.pdu.event_id == event.pdu.event_id) {
            same.push(event);
        }
    }
    all
}
