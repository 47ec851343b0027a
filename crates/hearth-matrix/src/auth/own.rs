//! The auth rules that need no state: an event against the auth events it names, and create events.
//!
//! Spec: rooms, "Authorization rules", 1 and "Considering the event's `auth_events`".

use std::sync::Arc;

use ruma::{EventId, OwnedEventId, RoomVersionId};

use super::{AuthRefusal, Facts, auth_types_of, refuse};
use crate::{Pdu, RoomVersionRules};

/// An event named in `auth_events`, and whether it was rejected here.
#[derive(Debug, Clone)]
pub struct AuthEvent {
    /// The event.
    pub pdu: Arc<Pdu>,
    /// Whether it failed its own checks.
    pub rejected: bool,
}

/// Checks an event against its own `auth_events`: none twice, none that is not needed, none of
/// another room, none rejected, and the create event among them (in version 12: named by the room
/// id, and not among them). Create events are checked whole.
///
/// `fetch` is also asked for the create event of a version 12 room. An auth event that it does not
/// have makes the event refused: fetch missing ones first.
pub fn check_own_auth_events(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    fetch: impl Fn(&EventId) -> Option<AuthEvent>,
) -> Result<(), AuthRefusal> {
    if &*pdu.kind == "m.room.create" {
        return check_create(rules, pdu);
    }
    let expected = auth_types_of(pdu, rules)?;
    let mut seen = vec![false; expected.len()];
    let mut has_create = false;

    if rules.authorization.room_create_event_id_as_room_id {
        let create = create_event_id(pdu).and_then(|id| fetch(&id));
        match create {
            Some(create) if &*create.pdu.kind == "m.room.create" && !create.rejected => {}
            _ => return refuse("the room id is not that of an accepted m.room.create event"),
        }
    }
    for event_id in &pdu.auth_events {
        let Some(AuthEvent { pdu: auth_event, rejected }) = fetch(event_id) else {
            return refuse(format!("auth event {event_id} is missing"));
        };
        if auth_event.room_id != pdu.room_id {
            return refuse(format!("auth event {event_id} is of another room"));
        }
        let Some(pair) = auth_event.state_pair() else {
            return refuse(format!("auth event {event_id} is no state event"));
        };
        let position = expected.iter().position(|(kind, key)| (*kind, &**key) == pair);
        let Some(place) = position.and_then(|at| seen.get_mut(at)) else {
            return refuse(format!("auth event {event_id} is not needed"));
        };
        if std::mem::replace(place, true) {
            return refuse(format!("auth event {event_id} is a second one for its type and state key"));
        }
        if rejected {
            return refuse(format!("auth event {event_id} was rejected"));
        }
        has_create |= pair == ("m.room.create", "");
    }
    if !has_create && !rules.authorization.room_create_event_id_as_room_id {
        return refuse("no m.room.create event among the auth events");
    }
    Ok(())
}

/// In version 12 the room id is the create event's id with another sigil.
fn create_event_id(pdu: &Pdu) -> Option<OwnedEventId> {
    OwnedEventId::try_from(pdu.room_id.as_str().replacen('!', "$", 1)).ok()
}

pub(super) fn check_create(rules: &RoomVersionRules, pdu: &Pdu) -> Result<(), AuthRefusal> {
    let Facts::Create(facts) = pdu.facts() else {
        return refuse("not an m.room.create event");
    };
    if !pdu.prev_events.is_empty() {
        return refuse("m.room.create must not have prev_events");
    }
    if rules.authorization.room_create_event_id_as_room_id {
        // That the event states no room id was checked when it was read.
        if create_event_id(pdu).as_deref() != Some(&*pdu.event_id) {
            return refuse("the room id is not that of the m.room.create event");
        }
    } else if pdu.room_id.server_name() != Some(pdu.sender.server_name()) {
        return refuse("the room id is not of the sender's server");
    }
    let version = facts.room_version.as_deref().and_then(|version| RoomVersionId::try_from(version).ok());
    if version.is_none_or(|version| crate::rules(&version).is_none()) {
        return refuse("unknown room version");
    }
    if !rules.authorization.use_room_create_sender && !facts.has_creator {
        return refuse("m.room.create lacks a creator");
    }
    if rules.authorization.additional_room_creators && facts.additional_creators.is_none() {
        return refuse("additional_creators is not an array of user ids");
    }
    Ok(())
}
