//! An event from another server: format, size and content hash.
//!
//! Signatures are checked apart (`crate::signatures`), the auth rules in `crate::auth`.
//! Spec: server-server API, "Checks performed on receipt of a PDU", 1 to 3.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedUserId, UserId,
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomIdFormatVersion},
};
use serde_json::value::RawValue;

use super::{MAX_AUTH_EVENTS, MAX_ID_BYTES, MAX_PDU_BYTES, MAX_PREV_EVENTS, Pdu, PduError};
use crate::{
    RoomVersionRules,
    canonical::{Json, Object},
    hash::{BASE64, content_hash, event_id_of, reference_hash},
    redact::redact_in_place,
};

/// Bytes of an event in any formatting, with `unsigned`: more is not looked at, as a tree it would be many times as large.
const MAX_REMOTE_BYTES: usize = 8 * MAX_PDU_BYTES;

impl Pdu {
    /// Reads an event from another server, in any JSON formatting.
    ///
    /// If the content hash does not match, the event is returned redacted (as the specification
    /// asks), so `json` then differs from what was sent. `unsigned` is dropped.
    pub fn from_remote(json: &str, rules: &RoomVersionRules) -> Result<Self, PduError> {
        if json.len() > MAX_REMOTE_BYTES {
            return Err(PduError::TooLarge);
        }
        let mut event = Object::parse(json).map_err(|error| PduError::Json(error.to_string()))?;
        if rules.authorization.strict_canonical_json && !event.is_canonical() {
            return Err(PduError::NotCanonical);
        }
        event.retain(|key, _| key != "unsigned");
        let mut canonical = event.to_canonical();
        if canonical.len() > MAX_PDU_BYTES {
            return Err(PduError::TooLarge);
        }
        if !content_hash_matches(&event)? {
            redact_in_place(&mut event, &rules.redaction);
            canonical = event.to_canonical();
        }

        let kind = name(&event, "type", rules)?.ok_or(PduError::Field("type"))?;
        let event_id = event_id(&event, rules)?;
        let depth = number(&event, "depth", rules)?;
        if depth < 0 && rules.authorization.strict_canonical_json {
            return Err(PduError::Field("depth"));
        }
        let content = event.get("content").and_then(Json::as_object).ok_or(PduError::Field("content"))?;
        Ok(Self {
            room_id: room_id(&event, &event_id, kind, rules)?,
            sender: user_id(text(&event, "sender")?)?,
            kind: kind.into(),
            state_key: name(&event, "state_key", rules)?.map(Into::into),
            content: RawValue::from_string(content.to_canonical()).map_err(|_| PduError::Field("content"))?,
            prev_events: references(&event, "prev_events", MAX_PREV_EVENTS, rules)?,
            auth_events: references(&event, "auth_events", MAX_AUTH_EVENTS, rules)?,
            depth: depth.max(0).cast_unsigned(),
            origin_server_ts: number(&event, "origin_server_ts", rules)?,
            redacts: redacts(&event, kind, content, rules),
            json: Arc::from(canonical),
            facts: OnceLock::new(),
            event_id,
        })
    }

    /// The id of an event from another server, which may be refused for all else: what is nested too deeply to be read does not
    /// matter, if redaction takes it away.
    pub fn id_of_remote(json: &str, rules: &RoomVersionRules) -> Option<OwnedEventId> {
        let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
        let content: BTreeMap<String, &RawValue> = serde_json::from_str(members.get("content")?.get()).ok()?;
        let (mut event, mut unread) = shallow(&members);
        let (content, unread_content) = shallow(&content);
        unread.retain(|key| *key != "content");
        event.insert("content", Json::Object(content));
        let event_id = event_id(&event, rules).ok()?;
        redact_in_place(&mut event, &rules.redaction);
        let content = event.get("content").and_then(Json::as_object)?;
        let matters = unread.into_iter().any(|key| event.get(key).is_some())
            || unread_content.into_iter().any(|key| content.get(key).is_some());
        (!matters).then_some(event_id)
    }

    /// Whether the type and the state key have at most 255 bytes, as the specification asks. What has more can be read in old
    /// room versions, and counts as rejected.
    pub fn check_lengths(&self) -> Result<(), PduError> {
        if self.kind.len() > MAX_ID_BYTES {
            return Err(PduError::Field("type"));
        }
        match &self.state_key {
            Some(key) if key.len() > MAX_ID_BYTES => Err(PduError::Field("state_key")),
            _ => Ok(()),
        }
    }
}

/// An object with `null` in place of what is nested too deeply, and the keys of that.
fn shallow<'a>(members: &'a BTreeMap<String, &RawValue>) -> (Object<'a>, Vec<&'a str>) {
    let (mut object, mut unread) = (Object::default(), Vec::new());
    for (key, value) in members {
        let value = Json::parse(value.get()).unwrap_or_else(|_| {
            unread.push(key.as_str());
            Json::Null
        });
        object.insert(key.as_str(), value);
    }
    (object, unread)
}

fn content_hash_matches(event: &Object<'_>) -> Result<bool, PduError> {
    let stated = event
        .get("hashes")
        .and_then(Json::as_object)
        .and_then(|hashes| hashes.get_str("sha256"))
        .ok_or(PduError::Field("hashes"))?;
    Ok(BASE64.decode(stated).is_ok_and(|stated| stated == content_hash(event)))
}

/// An optional string of at most 255 bytes.
fn text<'e>(event: &'e Object<'_>, field: &'static str) -> Result<Option<&'e str>, PduError> {
    match event.get(field) {
        None => Ok(None),
        Some(Json::Str(string)) if string.len() <= MAX_ID_BYTES => Ok(Some(string)),
        Some(_) => Err(PduError::Field(field)),
    }
}

/// The same for a name that is no identifier. Before room version 11, servers counted characters: such events are in rooms, and
/// others follow them. They are refused when they are judged ([`Pdu::check_lengths`]), not before.
fn name<'e>(event: &'e Object<'_>, field: &'static str, rules: &RoomVersionRules) -> Result<Option<&'e str>, PduError> {
    match event.get(field) {
        Some(Json::Str(string)) if !rules.authorization.use_room_create_sender => Some(&**string)
            .filter(|string| string.chars().count() <= MAX_ID_BYTES)
            .map(Some)
            .ok_or(PduError::Field(field)),
        _ => text(event, field),
    }
}

/// An integer; before version 6 also a float, which is cut.
fn number(event: &Object<'_>, field: &'static str, rules: &RoomVersionRules) -> Result<i64, PduError> {
    match event.get(field) {
        Some(Json::Int(int)) => Ok(*int),
        Some(Json::Big(_)) if !rules.authorization.strict_canonical_json => Ok(i64::MAX),
        Some(Json::Float(float)) if !rules.authorization.strict_canonical_json => Ok(*float as i64), // saturates
        _ => Err(PduError::Field(field)),
    }
}

fn event_id(event: &Object<'_>, rules: &RoomVersionRules) -> Result<OwnedEventId, PduError> {
    if rules.event_id_format == EventIdFormatVersion::V1 {
        let id = text(event, "event_id")?.ok_or(PduError::Field("event_id"))?;
        return OwnedEventId::try_from(id)
            .ok()
            .filter(|id| id.server_name().is_some())
            .ok_or(PduError::Field("event_id"));
    }
    event_id_of(&reference_hash(event, rules), rules).ok_or(PduError::Field("event_id"))
}

fn user_id(text: Option<&str>) -> Result<OwnedUserId, PduError> {
    text.and_then(|text| <&UserId>::try_from(text).ok()).map(ToOwned::to_owned).ok_or(PduError::Field("sender"))
}

fn room_id(
    event: &Object<'_>,
    event_id: &EventId,
    kind: &str,
    rules: &RoomVersionRules,
) -> Result<OwnedRoomId, PduError> {
    let stated = text(event, "room_id")?;
    let id = if rules.room_id_format == RoomIdFormatVersion::V2 && kind == "m.room.create" {
        // Auth rule 1.2 of version 12; an event that states a room here has none that is true.
        if event.get("room_id").is_some() {
            return Err(PduError::Field("room_id"));
        }
        OwnedRoomId::try_from(event_id.as_str().replacen('$', "!", 1))
    } else {
        OwnedRoomId::try_from(stated.ok_or(PduError::Field("room_id"))?)
    };
    id.map_err(|_| PduError::Field("room_id"))
}

fn references(
    event: &Object<'_>,
    field: &'static str,
    max: usize,
    rules: &RoomVersionRules,
) -> Result<Vec<OwnedEventId>, PduError> {
    let items = event.get(field).and_then(Json::as_array).ok_or(PduError::Field(field))?;
    if items.len() > max {
        return Err(PduError::Field(field));
    }
    let id = |item: &Json<'_>| match rules.events_reference_format {
        // Pairs, neither shorter nor longer: as such they are read again from the store.
        EventsReferenceFormatVersion::V1 => match item.as_array()? {
            [id, _] => id.as_str()?.try_into().ok(),
            _ => None,
        },
        _ => item.as_str()?.try_into().ok(),
    };
    items.iter().map(id).collect::<Option<_>>().ok_or(PduError::Field(field))
}

fn redacts(event: &Object<'_>, kind: &str, content: &Object<'_>, rules: &RoomVersionRules) -> Option<OwnedEventId> {
    if kind != "m.room.redaction" {
        return None;
    }
    let holder = if rules.redaction.content_field_redacts { content } else { event };
    holder.get_str("redacts")?.try_into().ok()
}
