//! An event as this server keeps it: parsed fields beside the canonical federation JSON.
//!
//! Made by [`crate::seal`] (our own), [`Pdu::from_remote`] (a stranger's, checked) or
//! [`Pdu::from_stored`] (our own store's, trusted). Never changed afterwards; whether it is rejected
//! or redacted is the store's knowledge, not the event's.
//! Spec: server-server API, "PDUs"; rooms, "Event format" of each version.

use std::{
    borrow::Cow,
    sync::{Arc, OnceLock},
};

use ruma::{EventId, OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, room_version_rules::EventsReferenceFormatVersion};
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::{RoomVersionRules, auth::Facts, redact::redact};

mod remote;

/// The largest event: bytes of canonical JSON with signatures.
pub const MAX_PDU_BYTES: usize = 65_536;
/// The longest identifier, event type or state key, in bytes.
pub const MAX_ID_BYTES: usize = 255;
/// The most `prev_events` of one event.
pub const MAX_PREV_EVENTS: usize = 20;
/// The most `auth_events` of one event.
pub const MAX_AUTH_EVENTS: usize = 10;

/// An event. Used as `Arc<Pdu>`.
#[derive(Debug)]
pub struct Pdu {
    /// The event's id: its hash from room version 3 on.
    pub event_id: OwnedEventId,
    /// The room; for the create event of a version 12 room, the id it gives the room.
    pub room_id: OwnedRoomId,
    /// Who sent it.
    pub sender: OwnedUserId,
    /// The event type.
    pub kind: Box<str>,
    /// Present exactly on state events.
    pub state_key: Option<Box<str>>,
    /// The content, in canonical JSON.
    pub content: Box<RawValue>,
    /// The events before it.
    pub prev_events: Vec<OwnedEventId>,
    /// The events that allow it.
    pub auth_events: Vec<OwnedEventId>,
    /// The depth as stated, clamped to 0 and `i64::MAX`.
    pub depth: u64,
    /// Milliseconds, as stated by the sender's server.
    pub origin_server_ts: i64,
    /// What a redaction redacts, from the top level or the content according to the room version.
    pub redacts: Option<OwnedEventId>,
    /// The canonical JSON in federation format, without `unsigned`.
    pub json: Arc<str>,
    /// What the auth rules read in the content, parsed once when first asked.
    pub(crate) facts: OnceLock<Facts>,
}

/// Why a remote event is dropped: it is not an event of this room version at all.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PduError {
    /// The text is not a JSON object.
    #[error("not a JSON object: {0}")]
    Json(String),
    /// Room versions 6 and later refuse other numbers than integers within +-(2^53 - 1).
    #[error("not canonical JSON")]
    NotCanonical,
    /// The event is larger than [`MAX_PDU_BYTES`].
    #[error("larger than {MAX_PDU_BYTES} bytes")]
    TooLarge,
    /// A field is absent, of the wrong type or too long.
    #[error("missing or invalid `{0}`")]
    Field(&'static str),
}

/// The fields of an event on the wire, borrowed.
#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    sender: Cow<'a, str>,
    #[serde(borrow, rename = "type")]
    kind: Cow<'a, str>,
    #[serde(borrow, default)]
    state_key: Option<Cow<'a, str>>,
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow)]
    prev_events: &'a RawValue,
    #[serde(borrow)]
    auth_events: &'a RawValue,
    #[serde(borrow)]
    depth: &'a RawValue,
    #[serde(borrow)]
    origin_server_ts: &'a RawValue,
    #[serde(borrow, default)]
    redacts: Option<&'a RawValue>,
}

/// A string that is borrowed where the JSON allows it.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Pdu {
    /// Reads an event back that this server has stored. Trusted: nothing is checked again.
    pub fn from_stored(
        json: Arc<str>,
        event_id: &EventId,
        room_id: &RoomId,
        rules: &RoomVersionRules,
    ) -> Result<Self, PduError> {
        let wire: Wire<'_> = serde_json::from_str(&json).map_err(|error| PduError::Json(error.to_string()))?;
        Ok(Self {
            event_id: event_id.to_owned(),
            room_id: room_id.to_owned(),
            sender: OwnedUserId::try_from(wire.sender.as_ref()).map_err(|_| PduError::Field("sender"))?,
            kind: wire.kind.as_ref().into(),
            state_key: wire.state_key.as_deref().map(Into::into),
            content: wire.content.to_owned(),
            prev_events: references(wire.prev_events, rules).ok_or(PduError::Field("prev_events"))?,
            auth_events: references(wire.auth_events, rules).ok_or(PduError::Field("auth_events"))?,
            depth: whole_number(wire.depth).max(0).cast_unsigned(),
            origin_server_ts: whole_number(wire.origin_server_ts),
            redacts: redacts(&wire.kind, wire.redacts, wire.content, rules),
            json: Arc::clone(&json),
            facts: OnceLock::new(),
        })
    }

    /// What is left of it when it was redacted. None if others would be judged otherwise by that than by the whole: redaction takes
    /// away some of what the auth rules read, such as `invite` of `m.room.power_levels` before room version 11, and who gets the
    /// rest alone would not agree with those who have the whole.
    pub fn redacted(&self, rules: &RoomVersionRules) -> Result<Option<Self>, PduError> {
        if matches!(&*self.kind, "m.room.create" | "m.room.third_party_invite") {
            return Ok(None);
        }
        let json = redact(&self.json, rules, None).map_err(|error| PduError::Json(error.to_string()))?;
        let redacted = Self::from_stored(json.into(), &self.event_id, &self.room_id, rules)?;
        Ok((redacted.facts() == self.facts()).then_some(redacted))
    }

    /// Whether this is the state event of this type and state key.
    pub fn is_state(&self, kind: &str, state_key: &str) -> bool {
        *self.kind == *kind && self.state_key.as_deref() == Some(state_key)
    }

    /// The type and state key, if this is a state event.
    pub fn state_pair(&self) -> Option<(&str, &str)> {
        Some((&self.kind, self.state_key.as_deref()?))
    }

    /// The membership an `m.room.member` event gives its target.
    pub fn membership(&self) -> Option<&str> {
        match self.facts() {
            Facts::Member(member) => member.membership.as_deref(),
            _ => None,
        }
    }
}

/// Event ids from `prev_events` or `auth_events`: plain, or with hashes in room versions 1 and 2.
fn references(raw: &RawValue, rules: &RoomVersionRules) -> Option<Vec<OwnedEventId>> {
    let id = |Text(id): Text<'_>| OwnedEventId::try_from(id.as_ref()).ok();
    match rules.events_reference_format {
        EventsReferenceFormatVersion::V1 => {
            let pairs: Vec<(Text<'_>, serde::de::IgnoredAny)> = serde_json::from_str(raw.get()).ok()?;
            pairs.into_iter().map(|(text, _)| id(text)).collect()
        }
        _ => {
            let ids: Vec<Text<'_>> = serde_json::from_str(raw.get()).ok()?;
            ids.into_iter().map(id).collect()
        }
    }
}

/// An integer, or what room versions 1 to 5 let through in its place, cut to an integer.
fn whole_number(raw: &RawValue) -> i64 {
    match crate::canonical::Json::parse(raw.get()) {
        Ok(crate::canonical::Json::Int(int)) => int,
        Ok(crate::canonical::Json::Big(_)) => i64::MAX,
        Ok(crate::canonical::Json::Float(float)) => float as i64, // saturates
        _ => 0,
    }
}

fn redacts(
    kind: &str,
    top_level: Option<&RawValue>,
    content: &RawValue,
    rules: &RoomVersionRules,
) -> Option<OwnedEventId> {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        redacts: Text<'a>,
    }
    if kind != "m.room.redaction" {
        return None;
    }
    let Text(id) = if rules.redaction.content_field_redacts {
        serde_json::from_str::<Content<'_>>(content.get()).ok()?.redacts
    } else {
        serde_json::from_str(top_level?.get()).ok()?
    };
    OwnedEventId::try_from(id.as_ref()).ok()
}

#[cfg(test)]
mod tests;
