//! What resolving a fork and checking a message cost, with the events in memory.
//!
//! Goals: two forks with 100 keys in conflict in less than 2 ms at 5,000 members and 10 ms at 50,000;
//! a message checked again in less than 10 µs. `cargo bench -p hearth-matrix --bench resolution`.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use divan::{Bencher, black_box};
use hearth_matrix::{
    Draft, Pdu, Place, RoomVersionRules, SigningKey,
    auth::{self, AuthEvent},
    resolution::{Difference, StateMap, numbered, resolve, resolve_difference},
    rules,
    ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId, ServerName, UserId},
    seal,
};
use serde_json::{Value, json};

fn main() {
    divan::main();
}

type State = HashMap<String, HashMap<String, AuthEvent>>;

struct Room {
    rules: &'static RoomVersionRules,
    key: SigningKey,
    room_id: Option<OwnedRoomId>,
    events: HashMap<OwnedEventId, AuthEvent>,
    /// In the order they were made.
    made: Vec<OwnedEventId>,
    now: i64,
}

impl Room {
    fn send(&mut self, state: &mut State, user: &str, kind: &str, key: Option<&str>, content: &Value) -> Arc<Pdu> {
        self.now += 1;
        let sender = <&UserId>::try_from(user).unwrap();
        let content = serde_json::from_value(content.clone()).unwrap();
        let types = auth::auth_types(kind, sender, key, &content, self.rules).unwrap();
        let auth_events = types.iter().filter_map(|(kind, key)| look_up(state, &kind.to_string(), key));
        let auth_events: Vec<_> = auth_events.map(|event| event.pdu.event_id.clone()).collect();
        let draft = Draft { kind: kind.to_owned(), state_key: key.map(ToOwned::to_owned), content, redacts: None };
        let place = Place {
            room_id: self.room_id.as_deref(),
            sender,
            prev_events: &[],
            auth_events: &auth_events,
            depth: 1,
            origin_server_ts: self.now,
            server_name: <&ServerName>::try_from("a").unwrap(),
            v1: None,
        };
        let pdu = Arc::new(seal(draft, &place, &self.key, self.rules).unwrap());
        self.room_id.get_or_insert_with(|| pdu.room_id.clone());
        let event = AuthEvent { pdu: pdu.clone(), rejected: false };
        self.events.insert(pdu.event_id.clone(), event.clone());
        self.made.push(pdu.event_id.clone());
        if let Some(key) = key {
            state.entry(kind.to_owned()).or_default().insert(key.to_owned(), event);
        }
        pdu
    }
}

fn look_up(state: &State, kind: &str, key: &str) -> Option<AuthEvent> {
    state.get(kind)?.get(key).cloned()
}

fn member(n: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@member{n}:a")).unwrap()
}

/// A public room with so many members, a fifth of a percent of them named in the power levels.
fn room(version: RoomVersionId, members: usize) -> (Room, State) {
    let is_v12 = version == RoomVersionId::V12;
    let mut room = Room {
        rules: rules(&version).unwrap(),
        key: SigningKey::from_seed([1; 32], "1").unwrap(),
        room_id: (!is_v12).then(|| OwnedRoomId::try_from("!room:a").unwrap()),
        events: HashMap::new(),
        made: Vec::new(),
        now: 0,
    };
    let mut state = State::new();
    let mut users: HashMap<OwnedUserId, i64> = (0..members / 500).map(|n| (member(n), 50)).collect();
    if !is_v12 {
        users.insert(OwnedUserId::try_from("@creator:a").unwrap(), 100);
    }
    let join = json!({"membership": "join", "displayname": "Somebody"});
    room.send(&mut state, "@creator:a", "m.room.create", Some(""), &json!({"room_version": version.as_str()}));
    room.send(&mut state, "@creator:a", "m.room.member", Some("@creator:a"), &join);
    room.send(&mut state, "@creator:a", "m.room.power_levels", Some(""), &json!({"users": users}));
    room.send(&mut state, "@creator:a", "m.room.join_rules", Some(""), &json!({"join_rule": "public"}));
    for n in 0..members {
        let user = member(n);
        room.send(&mut state, user.as_str(), "m.room.member", Some(user.as_str()), &join);
    }
    (room, state)
}

/// Two forks: power levels in one, a ban in the other, and members who change their names in both.
fn fork(room: &mut Room, state: &State, keys: usize) -> [State; 2] {
    let (mut left, mut right) = (state.clone(), state.clone());
    room.send(&mut left, "@creator:a", "m.room.power_levels", Some(""), &json!({"users": {"@member1:a": 50}}));
    let ban = json!({"membership": "ban"});
    room.send(&mut right, "@creator:a", "m.room.member", Some("@member3:a"), &ban);
    for n in 10..keys + 8 {
        for (fork, name) in [(&mut left, "L"), (&mut right, "R")] {
            let user = member(n);
            let content = json!({"membership": "join", "displayname": name});
            room.send(fork, user.as_str(), "m.room.member", Some(user.as_str()), &content);
        }
    }
    [left, right]
}

/// What differs; as the store would find it.
fn conflicted(forks: &[State; 2]) -> Vec<AuthEvent> {
    let [left, right] = forks;
    let mut found = Vec::new();
    for (kind, events) in left {
        for (key, ours) in events {
            let theirs = look_up(right, kind, key).unwrap();
            if theirs.pdu.event_id != ours.pdu.event_id {
                found.extend([ours.clone(), theirs]);
            }
        }
    }
    found
}

/// The old events of these keys: of them only those in the chain of one fork are in the difference, but
/// a name changed in both forks has its join event in both chains.
fn auth_difference(room: &Room, forks: &[State; 2]) -> Vec<AuthEvent> {
    let chain = |state: &State| {
        let mut chain: HashMap<OwnedEventId, AuthEvent> = HashMap::new();
        let mut todo: Vec<AuthEvent> = state.values().flat_map(HashMap::values).cloned().collect();
        while let Some(event) = todo.pop() {
            if chain.insert(event.pdu.event_id.clone(), event.clone()).is_none() {
                todo.extend(event.pdu.auth_events.iter().filter_map(|id| room.events.get(id).cloned()));
            }
        }
        chain
    };
    let (left, right) = (chain(&forks[0]), chain(&forks[1]));
    let only = |a: &HashMap<OwnedEventId, AuthEvent>, b: &HashMap<OwnedEventId, AuthEvent>| {
        a.values().filter(|event| !b.contains_key(&event.pdu.event_id)).cloned().collect::<Vec<_>>()
    };
    [only(&left, &right), only(&right, &left)].concat()
}

#[divan::bench(args = [(11, 5_000), (12, 5_000), (11, 50_000), (12, 50_000)])]
fn hundred_keys_in_conflict(bencher: Bencher<'_, '_>, (version, members): (u8, usize)) {
    let version = RoomVersionId::try_from(version.to_string().as_str()).unwrap();
    let (mut room, state) = room(version, members);
    let forks = fork(&mut room, &state, 100);
    let conflicted = conflicted(&forks);
    let auth_difference = auth_difference(&room, &forks);
    assert!(conflicted.len() >= 198);
    bencher.bench_local(|| {
        let difference = Difference {
            conflicted: conflicted.clone(),
            auth_difference: auth_difference.clone(),
            subgraph: Vec::new(),
            state: &|kind, key| look_up(&forks[0], kind, key),
            fetch: &|id: &EventId| room.events.get(id).cloned(),
        };
        black_box(resolve_difference(room.rules, &difference).unwrap())
    });
}

/// Finding the auth difference and the conflicted subgraph of the same forks, over numbers.
#[divan::bench(args = [5_000, 50_000])]
fn hundred_keys_found_by_numbers(bencher: Bencher<'_, '_>, members: usize) {
    let (mut room, state) = room(RoomVersionId::V12, members);
    let forks = fork(&mut room, &state, 100);
    let numbers: HashMap<&OwnedEventId, u32> = room.made.iter().zip(0..).collect();
    let edges: Vec<Vec<u32>> =
        room.made.iter().map(|id| room.events[id].pdu.auth_events.iter().map(|id| numbers[id]).collect()).collect();
    let of = |state: &State| -> Vec<u32> {
        state.values().flat_map(HashMap::values).map(|event| numbers[&event.pdu.event_id]).collect()
    };
    let (left, right) = (of(&forks[0]), of(&forks[1]));
    let theirs: BTreeSet<u32> = right.iter().copied().collect();
    let in_both: BTreeSet<u32> = left.iter().copied().filter(|number| theirs.contains(number)).collect();
    let only = |events: &[u32]| events.iter().copied().filter(|number| !in_both.contains(number)).collect::<Vec<_>>();
    let conflicted = [only(&left), only(&right)];
    bencher.bench_local(|| {
        let auth_events = |number: u32| Ok::<_, std::convert::Infallible>(edges[number as usize].clone());
        let agreed = |lowest: u32| Ok(in_both.range(lowest..).copied().collect());
        let Ok(difference) = numbered::auth_difference(&conflicted, agreed, auth_events);
        let Ok(subgraph) = numbered::conflicted_subgraph(&conflicted.concat(), auth_events);
        black_box((difference, subgraph))
    });
}

#[divan::bench(args = [5_000], sample_count = 10)]
fn hundred_keys_in_conflict_over_whole_states(bencher: Bencher<'_, '_>, members: usize) {
    let (mut room, state) = room(RoomVersionId::V11, members);
    let forks = fork(&mut room, &state, 100);
    let ids = |(kind, events): (&String, &HashMap<String, AuthEvent>)| {
        events
            .iter()
            .map(|(key, event)| ((kind.as_str().into(), key.as_str().into()), event.pdu.event_id.clone()))
            .collect::<Vec<_>>()
    };
    let states: Vec<StateMap> = forks.iter().map(|state| state.iter().flat_map(ids).collect()).collect();
    bencher.bench_local(|| black_box(resolve(room.rules, &states, |id| room.events.get(id).cloned()).unwrap()));
}

#[divan::bench(args = [5_000])]
fn message_checked(bencher: Bencher<'_, '_>, members: usize) {
    let (mut room, mut state) = room(RoomVersionId::V11, members);
    let message = room.send(&mut state, "@member7:a", "m.room.message", None, &json!({"body": "x"}));
    bencher.bench_local(|| {
        auth::check_own_auth_events(room.rules, &message, |id| room.events.get(id).cloned()).unwrap();
        auth::check(room.rules, &message, |kind, key| look_up(&state, kind, key).map(|event| event.pdu)).unwrap();
    });
}
