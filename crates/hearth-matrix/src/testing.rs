//! For this crate's tests: events in one line, rooms that grow by rule, and ruma's view of an event.

use std::{collections::HashMap, sync::Arc};

use ruma::{
    EventId, MilliSecondsSinceUnixEpoch, OwnedEventId, RoomId, RoomVersionId, UInt, UserId,
    events::TimelineEventType,
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion},
};
use serde_json::{Value, json, value::RawValue};

use crate::{
    Pdu, RoomVersionRules,
    auth::{self, AuthEvent},
    resolution::StateMap,
};

/// An event to be made; everything that a test does not care about has a default.
pub(crate) struct Event {
    pub id: String,
    pub room_id: String,
    pub sender: String,
    pub kind: String,
    pub state_key: Option<String>,
    pub content: Value,
    pub prev_events: Vec<OwnedEventId>,
    pub auth_events: Vec<OwnedEventId>,
    pub depth: i64,
    pub ts: i64,
    pub redacts: Option<String>,
}

pub(crate) fn event(sender: &str, kind: &str, state_key: Option<&str>, content: Value) -> Event {
    Event {
        id: "$event:a".to_owned(),
        room_id: "!room:a".to_owned(),
        sender: sender.to_owned(),
        kind: kind.to_owned(),
        state_key: state_key.map(ToOwned::to_owned),
        content,
        prev_events: Vec::new(),
        auth_events: Vec::new(),
        depth: 1,
        ts: 1,
        redacts: None,
    }
}

impl Event {
    pub(crate) fn make(self, rules: &RoomVersionRules) -> Arc<Pdu> {
        let references = |ids: &[OwnedEventId]| match rules.events_reference_format {
            EventsReferenceFormatVersion::V1 => json!(ids.iter().map(|id| json!([id, {}])).collect::<Vec<_>>()),
            _ => json!(ids),
        };
        let mut json = json!({
            "auth_events": references(&self.auth_events),
            "prev_events": references(&self.prev_events),
            "content": self.content,
            "depth": self.depth,
            "origin_server_ts": self.ts,
            "sender": self.sender,
            "type": self.kind,
        });
        if let Some(state_key) = self.state_key {
            json["state_key"] = state_key.into();
        }
        if let Some(redacts) = self.redacts {
            json["redacts"] = redacts.into();
        }
        let (id, room) = (<&EventId>::try_from(&*self.id).unwrap(), <&RoomId>::try_from(&*self.room_id).unwrap());
        Arc::new(Pdu::from_stored(json.to_string().into(), id, room, rules).unwrap())
    }
}

/// A state of a few events.
pub(crate) fn state_of(events: Vec<Arc<Pdu>>) -> impl Fn(&str, &str) -> Option<Arc<Pdu>> + Clone {
    move |kind, key| events.iter().rfind(|event| event.is_state(kind, key)).cloned()
}

/// A room in which events are made on top of chosen ones, with the state that resolution gives there.
pub(crate) struct Room {
    pub version: RoomVersionId,
    pub rules: &'static RoomVersionRules,
    pub room_id: String,
    pub events: HashMap<OwnedEventId, AuthEvent>,
    /// Accepted events in the order they were made, with the state after each.
    pub made: Vec<(OwnedEventId, StateMap)>,
}

pub(crate) const USERS: [&str; 5] = ["@a:a", "@b:a", "@c:b", "@d:b", "@e:c"];

impl Room {
    pub(crate) fn new(version: RoomVersionId) -> Self {
        let rules = crate::rules(&version).unwrap();
        let is_v12 = rules.authorization.room_create_event_id_as_room_id;
        let room_id = if is_v12 { "!0000" } else { "!room:a" }.to_owned();
        let mut room = Self { version, rules, room_id, events: HashMap::new(), made: Vec::new() };
        let version = room.version.as_str().to_owned();
        let users = if is_v12 { json!({"@b:a": 50}) } else { json!({"@a:a": 100, "@b:a": 50}) };
        let creates = json!({"creator": "@a:a", "room_version": version});
        for (kind, key, content) in [
            ("m.room.create", "", creates),
            ("m.room.member", "@a:a", json!({"membership": "join"})),
            ("m.room.power_levels", "", json!({"users": users, "invite": 0})),
            ("m.room.join_rules", "", json!({"join_rule": "public"})),
        ] {
            let prev = room.made.last().map(|(id, _)| id.clone());
            let ts = room.made.len() as i64;
            assert!(room.send(prev.as_slice(), "@a:a", kind, Some(key), content, ts), "{kind}");
        }
        for user in ["@b:a", "@c:b"] {
            let prev = room.made.last().map(|(id, _)| id.clone());
            let ts = room.made.len() as i64;
            assert!(room.send(prev.as_slice(), user, "m.room.member", Some(user), json!({"membership": "join"}), ts));
        }
        room
    }

    pub(crate) fn fetch(&self, id: &EventId) -> Option<AuthEvent> {
        self.events.get(id).cloned()
    }

    pub(crate) fn state_before(&self, prev_events: &[OwnedEventId]) -> StateMap {
        let states: Vec<_> = prev_events.iter().map(|id| self.state_after(id).clone()).collect();
        crate::resolution::resolve(self.rules, &states, |id| self.fetch(id)).unwrap()
    }

    pub(crate) fn state_after(&self, id: &OwnedEventId) -> &StateMap {
        &self.made.iter().find(|(made, _)| made == id).unwrap().1
    }

    /// Makes an event if the rules allow it.
    pub(crate) fn send(
        &mut self,
        prev_events: &[OwnedEventId],
        sender: &str,
        kind: &str,
        state_key: Option<&str>,
        content: Value,
        ts: i64,
    ) -> bool {
        let before = self.state_before(prev_events);
        let lookup = |kind: &str, key: &str| {
            before.get(&(kind.into(), key.into())).and_then(|id| self.fetch(id)).map(|event| event.pdu)
        };
        let sender_id = <&UserId>::try_from(sender).unwrap();
        let canonical = serde_json::from_value(content.clone()).unwrap();
        let Ok(types) = auth::auth_types(kind, sender_id, state_key, &canonical, self.rules) else { return false };
        let auth_events = types.iter().filter_map(|(kind, key)| lookup(&kind.to_string(), key));
        let auth_events: Vec<_> = auth_events.map(|pdu| pdu.event_id.clone()).collect();
        // Ids whose order has nothing to do with the order of making.
        let count = self.events.len() as u64;
        let scrambled = if count == 0 { 0 } else { count.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 };
        let id = match self.rules.event_id_format {
            EventIdFormatVersion::V1 => format!("${scrambled:04x}n{count}:a"),
            _ if count == 0 => "$0000".to_owned(),
            _ => format!("${scrambled:04x}n{count}"),
        };
        let depth = prev_events.iter().map(|id| self.events[id].pdu.depth).max().unwrap_or(0) + 1;
        let pdu = Event {
            id,
            room_id: self.room_id.clone(),
            prev_events: prev_events.to_vec(),
            auth_events,
            depth: depth as i64,
            ts,
            ..event(sender, kind, state_key, content)
        }
        .make(self.rules);
        let own = auth::check_own_auth_events(self.rules, &pdu, |id| self.fetch(id));
        let verdict = own.and_then(|()| auth::check(self.rules, &pdu, lookup));
        // Without join rules ruma refuses what the specification's default, `invite`, may allow.
        if lookup("m.room.join_rules", "").is_some() {
            self.compare_with_ruma(&pdu, &lookup, verdict.is_ok());
        }
        if verdict.is_err() {
            return false;
        }
        let mut after = before;
        if let Some((kind, key)) = pdu.state_pair() {
            after.insert((kind.into(), key.into()), pdu.event_id.clone());
        }
        self.made.push((pdu.event_id.clone(), after));
        self.events.insert(pdu.event_id.clone(), AuthEvent { pdu, rejected: false });
        true
    }

    fn compare_with_ruma(&self, pdu: &Arc<Pdu>, lookup: &dyn Fn(&str, &str) -> Option<Arc<Pdu>>, ours: bool) {
        use ruma::state_res::{check_state_dependent_auth_rules, check_state_independent_auth_rules};
        let rules = &self.rules.authorization;
        let theirs = |pdu: Arc<Pdu>| Theirs::new(AuthEvent { pdu, rejected: false });
        let event = theirs(pdu.clone());
        let own = check_state_independent_auth_rules(rules, &event, |id| self.fetch(id).map(Theirs::new));
        let verdict = own.and_then(|()| {
            check_state_dependent_auth_rules(rules, &event, |kind, key| lookup(&kind.to_string(), key).map(theirs))
        });
        assert_eq!(ours, verdict.is_ok(), "{} {verdict:?} {}", self.version, pdu.json);
    }
}

/// An event as ruma's functions want it.
#[derive(Clone)]
pub(crate) struct Theirs {
    event: AuthEvent,
    kind: TimelineEventType,
}

impl Theirs {
    pub(crate) fn new(event: AuthEvent) -> Self {
        let kind = TimelineEventType::from(&*event.pdu.kind);
        Self { event, kind }
    }
}

impl ruma::state_res::Event for Theirs {
    type Id = OwnedEventId;

    fn event_id(&self) -> &Self::Id {
        &self.event.pdu.event_id
    }

    fn room_id(&self) -> Option<&RoomId> {
        let is_v12_create = &*self.event.pdu.kind == "m.room.create" && self.event.pdu.room_id.server_name().is_none();
        (!is_v12_create).then_some(&self.event.pdu.room_id)
    }

    fn sender(&self) -> &UserId {
        &self.event.pdu.sender
    }

    fn origin_server_ts(&self) -> MilliSecondsSinceUnixEpoch {
        MilliSecondsSinceUnixEpoch(UInt::try_from(self.event.pdu.origin_server_ts).unwrap())
    }

    fn event_type(&self) -> &TimelineEventType {
        &self.kind
    }

    fn content(&self) -> &RawValue {
        &self.event.pdu.content
    }

    fn state_key(&self) -> Option<&str> {
        self.event.pdu.state_key.as_deref()
    }

    fn prev_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.event.pdu.prev_events.iter())
    }

    fn auth_events(&self) -> Box<dyn DoubleEndedIterator<Item = &Self::Id> + '_> {
        Box::new(self.event.pdu.auth_events.iter())
    }

    fn redacts(&self) -> Option<&Self::Id> {
        self.event.pdu.redacts.as_ref()
    }

    fn rejected(&self) -> bool {
        self.event.rejected
    }
}
