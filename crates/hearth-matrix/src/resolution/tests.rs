//! Resolution on generated rooms: bans, kicks, demotions, restored old power levels, changed join
//! rules, forks and merges. ruma's full algorithm is the oracle; the order of inputs must not matter.

use std::collections::HashMap;

use proptest::prelude::*;
use ruma::{RoomVersionId, events::StateEventType, state_res::utils::event_id_set::EventIdSet};
use serde_json::{Value, json};

use super::*;
use crate::testing::{Room, Theirs, USERS};

/// One attempt to do something in the room. Which events it builds on is among the latest.
#[derive(Debug, Clone)]
struct Step {
    prev: Vec<u8>,
    sender: usize,
    target: usize,
    action: u8,
    value: u8,
    ts: i64,
}

fn steps(len: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (prop::collection::vec(0u8..12, 1..3), 0usize..8, 0usize..5, 0u8..12, 0u8..6, 0i64..50).prop_map(
        // The creator and the moderator act more often, or little would happen.
        |(prev, sender, target, action, value, ts)| Step { prev, sender: sender % 5, target, action, value, ts },
    );
    prop::collection::vec(step, len)
}

fn grow(version: RoomVersionId, steps: &[Step]) -> Room {
    let mut room = Room::new(version);
    for step in steps {
        let latest: Vec<_> = room.made.iter().skip(5).rev().take(12).map(|(id, _)| id.clone()).collect();
        let mut prev: Vec<_> = step.prev.iter().filter_map(|back| latest.get(usize::from(*back)).cloned()).collect();
        prev.sort();
        prev.dedup();
        if prev.is_empty() {
            continue;
        }
        let (sender, target) = (USERS[step.sender], USERS[step.target]);
        let member = |membership: &str| ("m.room.member", target, json!({"membership": membership, "n": step.value}));
        let (kind, key, content): (&str, &str, Value) = match step.action {
            0 | 1 => ("m.room.member", sender, json!({"membership": "join", "n": step.value})),
            2 => ("m.room.member", sender, json!({"membership": "leave"})),
            3 => member("invite"),
            4 | 5 => member("ban"),
            6 => member("leave"),
            7 => {
                let rule = ["public", "invite", "knock"][usize::from(step.value) % 3];
                ("m.room.join_rules", "", json!({"join_rule": rule}))
            }
            8 => ("m.room.topic", "", json!({"topic": step.value})),
            9 => ("m.room.power_levels", "", old_power_levels(&room, step.value)),
            _ => ("m.room.power_levels", "", new_power_levels(&room, &prev, target, step.value)),
        };
        room.send(&prev, sender, kind, Some(key), content, step.ts);
    }
    room
}

fn power_levels(room: &Room, id: &ruma::EventId) -> Value {
    serde_json::from_str(room.events[id].pdu.content.get()).unwrap()
}

fn new_power_levels(room: &Room, prev: &[OwnedEventId], target: &str, value: u8) -> Value {
    let before = room.state_before(prev);
    let Some(id) = before.get(&("m.room.power_levels".into(), "".into())) else { return json!({}) };
    let mut content = power_levels(room, id);
    match value {
        0..3 => content["users"][target] = json!(50 * value),
        3 => content["invite"] = json!(50),
        4 => content["ban"] = json!(100),
        _ => content["users_default"] = json!(50),
    }
    content
}

fn old_power_levels(room: &Room, back: u8) -> Value {
    let all: Vec<_> = room.made.iter().filter(|(id, _)| &*room.events[id].pdu.kind == "m.room.power_levels").collect();
    power_levels(room, &all[usize::from(back) % all.len()].0)
}

fn by_ruma(room: &Room, states: &[StateMap]) -> StateMap {
    let maps: Vec<HashMap<_, _>> = states
        .iter()
        .map(|state| {
            let entry = |((kind, key), id): (&(Box<str>, Box<str>), &OwnedEventId)| {
                ((StateEventType::from(&**kind), key.to_string()), id.clone())
            };
            state.iter().map(entry).collect()
        })
        .collect();
    let fetch = |id: &ruma::EventId| room.fetch(id);
    let chain = |state: &StateMap| chains::full_chain(state.values(), &fetch).unwrap();
    let auth_chains = states.iter().map(|state| chain(state).into_iter().collect::<EventIdSet<_>>()).collect();
    // Plainly by its definition, not as the code under test does it.
    let subgraph = |conflicted: &HashMap<_, Vec<OwnedEventId>>| {
        let ends: FxHashSet<_> = conflicted.values().flatten().cloned().collect();
        let below = chains::full_chain(&ends, &fetch).unwrap();
        let reaches = |id: &OwnedEventId| chains::full_chain([id], &fetch).unwrap().iter().any(|id| ends.contains(id));
        Some(below.into_iter().filter(reaches).collect::<EventIdSet<_>>())
    };
    let resolved = ruma::state_res::resolve(
        &room.rules.authorization,
        room.rules.state_res.v2_rules().unwrap(),
        &maps,
        auth_chains,
        |id| room.fetch(id).map(Theirs::new),
        subgraph,
    )
    .unwrap();
    resolved.into_iter().map(|((kind, key), id)| ((kind.to_string().into(), key.into()), id)).collect()
}

/// The search over numbers, which stops early, against the walk over whole chains.
/// What it finds resolves to the same, with any one whole state to look into.
fn numbers_find_the_same(room: &Room, states: &[StateMap], expected: &StateMap) -> Result<(), TestCaseError> {
    let numbers: HashMap<&OwnedEventId, usize> = room.made.iter().map(|(id, _)| id).zip(0..).collect();
    let auth_events = |number: usize| {
        let auth_events = &room.events[&room.made[number].0].pdu.auth_events;
        Ok::<_, std::convert::Infallible>(auth_events.iter().map(|id| numbers[id]).collect::<Vec<_>>())
    };
    let is_agreed = |pair: &(Box<str>, Box<str>)| states.iter().all(|state| state.get(pair) == states[0].get(pair));
    let agreed: Vec<_> = states[0].iter().filter(|(pair, _)| is_agreed(pair)).map(|(_, id)| id.clone()).collect();
    let conflicted =
        |state: &StateMap| state.iter().filter(|(pair, _)| !is_agreed(pair)).map(|(_, id)| id.clone()).collect();
    let conflicted: Vec<Vec<OwnedEventId>> = states.iter().map(conflicted).collect();
    let ids = |numbers: Vec<usize>| {
        let mut ids: Vec<_> = numbers.into_iter().map(|number| room.made[number].0.clone()).collect();
        ids.sort();
        ids
    };
    let sorted = |mut ids: Vec<OwnedEventId>| {
        ids.sort();
        ids
    };
    let numbered: Vec<Vec<usize>> =
        conflicted.iter().map(|events| events.iter().map(|id| numbers[id]).collect()).collect();
    let above = |lowest: usize| Ok(agreed.iter().map(|id| numbers[id]).filter(|number| *number >= lowest).collect());

    let fetch = |id: &ruma::EventId| room.fetch(id);
    let whole = chains::auth_difference(&conflicted, &agreed, &fetch).unwrap();
    let Ok(found) = numbered::auth_difference(&numbered, above, auth_events);
    let auth_difference = ids(found);
    prop_assert_eq!(&auth_difference, &sorted(whole));

    let distinct = chains::distinct(conflicted.iter().flatten());
    let whole = chains::conflicted_subgraph(&distinct, &fetch).unwrap();
    let Ok(found) = numbered::conflicted_subgraph(&numbered.concat(), auth_events);
    let subgraph = ids(found);
    prop_assert_eq!(&subgraph, &sorted(whole));

    let events = |ids: &[OwnedEventId]| ids.iter().map(|id| room.fetch(id).unwrap()).collect();
    for state in states {
        let difference = Difference {
            conflicted: events(&distinct),
            auth_difference: events(&auth_difference),
            subgraph: events(&subgraph),
            state: &|kind, key| room.fetch(state.get(&(kind.into(), key.into()))?),
            fetch: &|id| room.fetch(id),
        };
        let resolution = resolve_difference(room.rules, &difference).unwrap();
        let mut resolved = state.clone();
        for pair in &resolution.unset {
            resolved.remove(pair);
        }
        for pdu in &resolution.set {
            let (kind, key) = pdu.state_pair().unwrap();
            resolved.insert((kind.into(), key.into()), pdu.event_id.clone());
        }
        prop_assert_eq!(&resolved, expected);
    }
    Ok(())
}

fn check_room(version: RoomVersionId, steps: &[Step], tips: &[u8]) -> Result<(), TestCaseError> {
    let room = grow(version, steps);
    let latest: Vec<_> = room.made.iter().rev().take(16).collect();
    let states: Vec<StateMap> = tips
        .iter()
        .filter_map(|back| latest.get(usize::from(*back) % latest.len()))
        .map(|(_, state)| state.clone())
        .collect();
    let ours = resolve(room.rules, &states, |id| room.fetch(id)).unwrap();
    numbers_find_the_same(&room, &states, &ours)?;

    let mut other_order = states.clone();
    other_order.reverse();
    other_order.rotate_left(1);
    prop_assert_eq!(&ours, &resolve(room.rules, &other_order, |id| room.fetch(id)).unwrap());
    if room.rules.state_res.v2_rules().is_some() {
        prop_assert_eq!(&ours, &by_ruma(&room, &states));
    }
    Ok(())
}

fn tips() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(0u8..16, 2..5)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, ..ProptestConfig::default() })]

    #[test]
    fn version_1_does_not_depend_on_order(steps in steps(40), tips in tips()) {
        check_room(RoomVersionId::V1, &steps, &tips)?;
    }

    #[test]
    fn version_2_agrees_with_ruma(steps in steps(40), tips in tips()) {
        check_room(RoomVersionId::V2, &steps, &tips)?;
    }

    #[test]
    fn version_6_agrees_with_ruma(steps in steps(40), tips in tips()) {
        check_room(RoomVersionId::V6, &steps, &tips)?;
    }

    #[test]
    fn version_11_agrees_with_ruma(steps in steps(40), tips in tips()) {
        check_room(RoomVersionId::V11, &steps, &tips)?;
    }

    #[test]
    fn version_12_agrees_with_ruma(steps in steps(40), tips in tips()) {
        check_room(RoomVersionId::V12, &steps, &tips)?;
    }
}

/// A state that fell back to old power levels, against one that did not. What lies between the two is
/// in both auth chains, so only the conflicted subgraph of version 12 brings it in.
#[test]
fn version_12_replays_what_lies_between_conflicted_events() {
    let mut room = Room::new(RoomVersionId::V12);
    let tip = |room: &Room| vec![room.made.last().unwrap().0.clone()];
    let before = room.made.last().unwrap().1.clone();
    let promoted = json!({"users": {"@b:a": 50, "@c:b": 50}, "events": {"m.room.power_levels": 50}});
    let demoted = json!({"users": {"@b:a": 50, "@c:b": 50}, "events": {"m.room.power_levels": 50}, "ban": 40});
    let send = |room: &mut Room, sender: &str, kind: &str, content: &Value, ts| {
        let prev = tip(room);
        assert!(room.send(&prev, sender, kind, Some(""), content.clone(), ts));
    };
    send(&mut room, "@a:a", "m.room.power_levels", &promoted, 10);
    send(&mut room, "@c:b", "m.room.topic", &json!({"topic": "x"}), 11);
    let topic = room.made.last().unwrap().0.clone();
    send(&mut room, "@c:b", "m.room.power_levels", &demoted, 12);
    let after = room.made.last().unwrap().1.clone();

    let pair = |kind: &str| (Box::from(kind), Box::from(""));
    let mut fallen_back = before;
    fallen_back.insert(pair("m.room.topic"), topic);
    let states = [after.clone(), fallen_back];
    let resolved = resolve(room.rules, &states, |id| room.fetch(id)).unwrap();
    assert_eq!(resolved, by_ruma(&room, &states));
    assert_eq!(resolved[&pair("m.room.power_levels")], after[&pair("m.room.power_levels")]);

    // The same without the subgraph: the sender of the newest power levels is not yet promoted.
    let event = |id: &OwnedEventId| room.fetch(id).unwrap();
    let difference = Difference {
        conflicted: ["m.room.power_levels", "m.room.topic"]
            .iter()
            .flat_map(|kind| states.iter().filter_map(|state| state.get(&pair(kind))))
            .map(event)
            .collect(),
        auth_difference: Vec::new(),
        subgraph: Vec::new(),
        state: &|kind, key| states[0].get(&(kind.into(), key.into())).map(event),
        fetch: &|id| room.fetch(id),
    };
    let without = resolve_difference(room.rules, &difference).unwrap();
    let power_levels = without.set.iter().find(|pdu| pdu.is_state("m.room.power_levels", "")).unwrap();
    assert_eq!(power_levels.event_id, states[1][&pair("m.room.power_levels")]);
}

#[test]
fn a_missing_auth_event_is_told() {
    let mut room = Room::new(RoomVersionId::V11);
    let prev = [room.made.last().unwrap().0.clone()];
    for topic in ["x", "y"] {
        assert!(room.send(&prev, "@b:a", "m.room.topic", Some(""), json!({"topic": topic}), 10));
    }
    let states: Vec<_> = room.made.iter().rev().take(2).map(|(_, state)| state.clone()).collect();
    let power_levels = states[0][&("m.room.power_levels".into(), "".into())].clone();
    let fetch = |id: &ruma::EventId| room.fetch(id).filter(|event| event.pdu.event_id != power_levels);
    assert_eq!(resolve(room.rules, &states, fetch).unwrap_err(), ResolveError::Missing(power_levels.clone()));
}

/// In version 1 the deepest event wins, and of equal depth the one whose id has the smaller hash.
#[test]
fn version_1_takes_the_deepest() {
    let mut room = Room::new(RoomVersionId::V1);
    let prev = [room.made.last().unwrap().0.clone()];
    assert!(room.send(&prev, "@b:a", "m.room.topic", Some(""), json!({"topic": "shallow"}), 99));
    let shallow = room.made.last().unwrap().1.clone();
    assert!(room.send(&prev, "@b:a", "m.room.name", Some(""), json!({"name": "n"}), 1));
    let name = [room.made.last().unwrap().0.clone()];
    assert!(room.send(&name, "@b:a", "m.room.topic", Some(""), json!({"topic": "deep"}), 1));
    let deep = room.made.last().unwrap().1.clone();
    let resolved = resolve(room.rules, &[shallow, deep.clone()], |id| room.fetch(id)).unwrap();
    assert_eq!(resolved, deep);
}
