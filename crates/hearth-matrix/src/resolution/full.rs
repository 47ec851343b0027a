//! State resolution over whole states, walking whole auth chains.

use std::sync::Arc;

use ruma::{EventId, OwnedEventId};
use rustc_hash::FxHashMap;

use super::{Difference, ResolveError, chains, resolve_difference};
use crate::{Pdu, RoomVersionRules, auth::AuthEvent};

/// A room state: event ids by type and state key.
pub type StateMap = FxHashMap<(Box<str>, Box<str>), OwnedEventId>;

/// Resolves whole states. `fetch` must know every event in them and in their auth chains.
pub fn resolve(
    rules: &RoomVersionRules,
    states: &[StateMap],
    fetch: impl Fn(&EventId) -> Option<AuthEvent>,
) -> Result<StateMap, ResolveError> {
    let (mut agreed, conflicted) = split(states);
    if conflicted.iter().all(Vec::is_empty) {
        return Ok(agreed);
    }
    let event = |id: &EventId| fetch(id).ok_or_else(|| ResolveError::Missing(id.to_owned()));
    let events = |ids: Vec<OwnedEventId>| ids.iter().map(|id| event(id)).collect::<Result<Vec<_>, _>>();

    let conflicted_ids = chains::distinct(conflicted.iter().flatten());
    let auth_difference = chains::auth_difference(&conflicted, agreed.values(), &fetch)?;
    let subgraph = chains::conflicted_subgraph(&conflicted_ids, &fetch)?;
    let difference = Difference {
        conflicted: events(conflicted_ids)?,
        auth_difference: events(auth_difference)?,
        subgraph: events(subgraph)?,
        state: &|kind, key| fetch(agreed.get(&(kind.into(), key.into()))?),
        fetch: &fetch,
    };
    let resolution = resolve_difference(rules, &difference)?;
    for pdu in &resolution.set {
        if let Some(pair) = owned_pair(pdu) {
            agreed.insert(pair, pdu.event_id.clone());
        }
    }
    Ok(agreed)
}

fn owned_pair(pdu: &Arc<Pdu>) -> Option<(Box<str>, Box<str>)> {
    pdu.state_pair().map(|(kind, key)| (kind.into(), key.into()))
}

/// What all states agree on, and the other events of each.
fn split(states: &[StateMap]) -> (StateMap, Vec<Vec<OwnedEventId>>) {
    let Some((first, others)) = states.split_first() else {
        return (StateMap::default(), Vec::new());
    };
    let agreed: StateMap = first
        .iter()
        .filter(|(pair, id)| others.iter().all(|other| other.get(*pair) == Some(*id)))
        .map(|(pair, id)| (pair.clone(), id.clone()))
        .collect();
    let conflicted = states
        .iter()
        .map(|state| state.iter().filter(|(pair, _)| !agreed.contains_key(*pair)).map(|(_, id)| id.clone()).collect())
        .collect();
    (agreed, conflicted)
}
