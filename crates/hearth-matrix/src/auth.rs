//! The auth rules: may this event be, given that state?
//!
//! [`check_own_auth_events`] is the half that needs no state, [`check`] the half that is asked three
//! times: of the event's own auth events, of the state before it, and of the current state.
//! Rules that differ between room versions are named by `rules.authorization`.
//! Spec: server-server API, "Authorization rules"; rooms, "Authorization rules" of each version.

use std::sync::Arc;

use ruma::EventId;

use crate::{Level, Membership, Pdu, PowerLevels, RoomVersionRules};

mod facts;
mod member;
mod own;
mod power_levels;
mod selection;
#[cfg(test)]
mod tests;

pub(crate) use self::facts::{Facts, Named, PowerFacts};
pub use self::{
    own::{AuthEvent, check_own_auth_events},
    selection::{auth_types, auth_types_of},
};

/// Why an event is not allowed.
#[derive(Debug, Clone, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct AuthRefusal(pub String);

pub(crate) fn refuse<T>(reason: impl Into<String>) -> Result<T, AuthRefusal> {
    Err(AuthRefusal(reason.into()))
}

/// Whether an event is allowed in a state, which is asked for by event type and state key.
///
/// Signatures are taken as checked: that also answers the rule on `join_authorised_via_users_server`.
pub fn check(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    state: impl Fn(&str, &str) -> Option<Arc<Pdu>>,
) -> Result<(), AuthRefusal> {
    if &*pdu.kind == "m.room.create" {
        return own::check_create(rules, pdu);
    }
    let Some(create) = state("m.room.create", "") else {
        return refuse("the room has no m.room.create event");
    };
    let Facts::Create(create_facts) = create.facts() else {
        return refuse("the room's m.room.create event is of another type");
    };
    if !create_facts.federate && create.sender.server_name() != pdu.sender.server_name() {
        return refuse("the room is not federated and the sender is of another server");
    }
    if rules.authorization.special_case_room_aliases && &*pdu.kind == "m.room.aliases" {
        return if pdu.state_key.as_deref() == Some(pdu.sender.server_name().as_str()) {
            Ok(())
        } else {
            refuse("the state key of m.room.aliases is not the sender's server")
        };
    }
    if &*pdu.kind == "m.room.member" {
        return member::check(rules, pdu, &create, &state);
    }

    let sender = pdu.sender.as_str();
    if membership(&state, sender) != Membership::Join {
        return refuse("the sender is not joined");
    }
    let power_levels = state("m.room.power_levels", "");
    let levels = PowerLevels::new(Some(create.clone()), power_levels.clone(), rules);
    let sender_level = levels.user(&pdu.sender);
    if &*pdu.kind == "m.room.third_party_invite" {
        return if sender_level >= levels.invite() { Ok(()) } else { refuse("the sender may not invite") };
    }
    let required = match pdu.state_key {
        Some(_) => levels.state(&pdu.kind),
        None => levels.message(&pdu.kind),
    };
    if sender_level < required {
        return refuse(format!("the sender's power level is below {required}, which {} takes", pdu.kind));
    }
    if let Some(state_key) = pdu.state_key.as_deref()
        && state_key.starts_with('@')
        && state_key != sender
    {
        return refuse("the state key is another user's id");
    }
    match &*pdu.kind {
        "m.room.power_levels" => self::power_levels::check(rules, pdu, power_levels.as_deref(), &levels, sender_level),
        "m.room.redaction" if rules.authorization.special_case_room_redaction => {
            check_redaction(pdu, &levels, sender_level)
        }
        _ => Ok(()),
    }
}

/// Room versions 1 and 2: the redact level, or the same server made both events.
fn check_redaction(pdu: &Pdu, levels: &PowerLevels, sender_level: Level) -> Result<(), AuthRefusal> {
    let redacted_server = pdu.redacts.as_deref().and_then(EventId::server_name);
    if sender_level >= levels.redact() || redacted_server.is_some() && redacted_server == pdu.event_id.server_name() {
        return Ok(());
    }
    refuse("the sender may not redact events of other servers")
}

/// A user's membership in a state; `leave` if there is none.
fn membership(state: &impl Fn(&str, &str) -> Option<Arc<Pdu>>, user: &str) -> Membership {
    state("m.room.member", user).map_or(Membership::Leave, |event| Membership::of(&event))
}
