//! From a draft to an event: what a local user wants to say, put in its place and sealed.
//!
//! The canonical JSON is written in pieces, once; the hashes and the signature are made over the same
//! pieces, so no tree of the event is ever built.
//! Spec: server-server API, "Adding hashes and signatures to outgoing events".

use std::sync::{Arc, OnceLock};

use base64::Engine as _;
use ruma::{
    CanonicalJsonObject, CanonicalJsonValue, EventId, OwnedEventId, OwnedRoomId, RoomId, ServerName, UserId,
    room_version_rules::{EventIdFormatVersion, EventsReferenceFormatVersion, RoomIdFormatVersion},
};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use crate::{
    MAX_ID_BYTES, MAX_PDU_BYTES, Pdu, RoomVersionRules, SigningKey,
    canonical::{MAX_INT, Object, write_display, write_key, write_string},
    hash::{BASE64, event_id_of},
    redact::{keeps_no_content, write_redacted_content},
};

/// The most bytes of an event of ours. Synapse counts an `unsigned` that was never sent: what is larger than this never comes
/// to it, nor do those that follow it.
pub(crate) const MAX_SEALED_BYTES: usize = MAX_PDU_BYTES - r#","unsigned":{}"#.len();

/// What somebody wants to send, before it has a place in a room.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The event type.
    pub kind: String,
    /// Present for a state event.
    pub state_key: Option<String>,
    /// The content. From room version 11 on a redaction's `redacts` is added to it by [`seal`].
    pub content: CanonicalJsonObject,
    /// For a redaction: the event to redact.
    pub redacts: Option<OwnedEventId>,
}

/// Why a draft can be no event anywhere.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DraftError {
    /// The type is empty or longer than 255 bytes.
    #[error("the event type must have 1 to 255 bytes")]
    Kind,
    /// The state key is longer than 255 bytes.
    #[error("the state key must have at most 255 bytes")]
    StateKey,
    /// The content alone is larger than an event may be.
    #[error("the event is larger than {MAX_PDU_BYTES} bytes")]
    TooLarge,
}

/// Where an event goes.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The room; none for the create event of a version 12 room, which makes the id.
    pub room_id: Option<&'a RoomId>,
    /// Who sends it.
    pub sender: &'a UserId,
    /// The forward extremities it follows.
    pub prev_events: &'a [OwnedEventId],
    /// The state that allows it.
    pub auth_events: &'a [OwnedEventId],
    /// One more than the greatest depth of `prev_events`.
    pub depth: u64,
    /// Now, in milliseconds.
    pub origin_server_ts: i64,
    /// Who signs.
    pub server_name: &'a ServerName,
    /// What room versions 1 and 2 need beside.
    pub v1: Option<V1Place<'a>>,
}

/// In room versions 1 and 2 ids are chosen, and references carry hashes.
#[derive(Clone, Copy)]
pub struct V1Place<'a> {
    /// The part of the event id between `$` and `:server`.
    pub opaque: &'a str,
    /// The reference hash of a known event, in unpadded base64.
    pub reference_hash: &'a dyn Fn(&EventId) -> Option<String>,
}

impl std::fmt::Debug for V1Place<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("V1Place").field("opaque", &self.opaque).finish_non_exhaustive()
    }
}

/// Why a draft cannot be sealed.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// The sealed event would be larger than `MAX_SEALED_BYTES` (`M_TOO_LARGE`).
    #[error("the event is larger than {MAX_SEALED_BYTES} bytes")]
    TooLarge,
    /// The depth or the time is no integer of canonical JSON.
    #[error("`{0}` is out of range")]
    OutOfRange(&'static str),
    /// The place does not fit the room version: a room id or [`V1Place`] is missing or too much.
    #[error("the place lacks or must not have `{0}`")]
    Place(&'static str),
    /// The id made of the given opaque part is not valid.
    #[error("invalid event id")]
    EventId,
}

impl Draft {
    /// A message event.
    pub fn message(kind: impl Into<String>, content: CanonicalJsonObject) -> Self {
        Self { kind: kind.into(), state_key: None, content, redacts: None }
    }

    /// A state event.
    pub fn state(kind: impl Into<String>, state_key: impl Into<String>, content: CanonicalJsonObject) -> Self {
        Self { kind: kind.into(), state_key: Some(state_key.into()), content, redacts: None }
    }

    /// Checks what can be checked before the event has a place. The content is canonical by its type.
    pub fn check(&self, _rules: &RoomVersionRules) -> Result<(), DraftError> {
        if self.kind.is_empty() || self.kind.len() > MAX_ID_BYTES {
            return Err(DraftError::Kind);
        }
        if self.state_key.as_ref().is_some_and(|key| key.len() > MAX_ID_BYTES) {
            return Err(DraftError::StateKey);
        }
        // A lower bound that needs no serializing; `seal` measures exactly.
        if least_size(&self.content) > MAX_PDU_BYTES {
            return Err(DraftError::TooLarge);
        }
        Ok(())
    }
}

fn least_size(object: &CanonicalJsonObject) -> usize {
    use CanonicalJsonValue as Value;
    fn value_size(value: &Value) -> usize {
        match value {
            Value::Null | Value::Bool(_) | Value::Integer(_) => 1,
            Value::String(string) => string.len() + 2,
            Value::Array(items) => items.iter().map(|item| value_size(item) + 1).sum::<usize>() + 1,
            Value::Object(object) => least_size(object),
        }
    }
    object.iter().map(|(key, value)| key.len() + 4 + value_size(value)).sum::<usize>() + 1
}

/// Puts a draft in its place: hashes it, signs it and gives it its id.
pub fn seal(draft: Draft, place: &Place<'_>, key: &SigningKey, rules: &RoomVersionRules) -> Result<Pdu, SealError> {
    check_place(&draft, place, rules)?;
    let content = content_json(&draft, rules);
    if content.len() > MAX_PDU_BYTES {
        return Err(SealError::TooLarge);
    }
    let chosen_id = place.v1.map(|v1| format!("${}:{}", v1.opaque, place.server_name));
    let parts = Parts::write(&draft, place, chosen_id.as_deref(), rules);

    let hash = Sha256::new()
        .chain_update(&parts.auth_events)
        .chain_update(&content)
        .chain_update(&parts.depth)
        .chain_update(&parts.time)
        .chain_update(&parts.redacts)
        .chain_update(&parts.origin)
        .chain_update(&parts.kind)
        .finalize();
    let mut hashes = String::with_capacity(72);
    hashes.push_str(r#","hashes":{"sha256":""#);
    BASE64.encode_string(hash, &mut hashes);
    hashes.push_str("\"}");

    // Signature and reference hash are over the same bytes: redacted, without signatures.
    let mut message = String::with_capacity(content.len() + 1024);
    message.push_str(&parts.auth_events);
    write_kept_content(&draft.kind, &content, rules, &mut message);
    for part in [&parts.depth, &hashes, &parts.time, &parts.origin, &parts.kind] {
        message.push_str(part);
    }
    let signature = key.sign(message.as_bytes());
    let event_id = match &chosen_id {
        Some(id) => OwnedEventId::try_from(id.as_str()).ok(),
        None => event_id_of(&Sha256::digest(message.as_bytes()).into(), rules),
    }
    .ok_or(SealError::EventId)?;

    let mut json = message;
    json.clear();
    json.push_str(&parts.auth_events);
    json.push_str(&content);
    for part in [&parts.depth, &hashes, &parts.time, &parts.redacts, &parts.origin] {
        json.push_str(part);
    }
    json.push_str(",\"signatures\":{");
    write_string(&mut json, place.server_name.as_str());
    json.push_str(":{");
    write_string(&mut json, key.key_id());
    json.push_str(":\"");
    json.push_str(&signature);
    json.push_str("\"}}");
    json.push_str(&parts.kind);
    if json.len() > MAX_SEALED_BYTES {
        return Err(SealError::TooLarge);
    }

    let room_id = match place.room_id {
        Some(room_id) => room_id.to_owned(),
        None => OwnedRoomId::try_from(event_id.as_str().replacen('$', "!", 1)).map_err(|_| SealError::EventId)?,
    };
    Ok(Pdu {
        event_id,
        room_id,
        sender: place.sender.to_owned(),
        kind: draft.kind.into(),
        state_key: draft.state_key.map(Into::into),
        content: RawValue::from_string(content).map_err(|_| SealError::OutOfRange("content"))?,
        prev_events: place.prev_events.to_vec(),
        auth_events: place.auth_events.to_vec(),
        depth: place.depth,
        origin_server_ts: place.origin_server_ts,
        redacts: draft.redacts,
        json: Arc::from(json),
        facts: OnceLock::new(),
    })
}

fn check_place(draft: &Draft, place: &Place<'_>, rules: &RoomVersionRules) -> Result<(), SealError> {
    let makes_room_id = rules.room_id_format == RoomIdFormatVersion::V2 && draft.kind == "m.room.create";
    if place.room_id.is_none() != makes_room_id {
        return Err(SealError::Place("room_id"));
    }
    if place.v1.is_some() != (rules.event_id_format == EventIdFormatVersion::V1) {
        return Err(SealError::Place("v1"));
    }
    if place.depth > MAX_INT.cast_unsigned() {
        return Err(SealError::OutOfRange("depth"));
    }
    if !(0..=MAX_INT).contains(&place.origin_server_ts) {
        return Err(SealError::OutOfRange("origin_server_ts"));
    }
    Ok(())
}

/// The content as it is sent: with `redacts` in it where the room version puts it there.
fn content_json(draft: &Draft, rules: &RoomVersionRules) -> String {
    let mut out = String::with_capacity(512);
    match &draft.redacts {
        Some(redacts) if rules.redaction.content_field_redacts && draft.kind == "m.room.redaction" => {
            let mut content = draft.content.clone();
            content.insert("redacts".to_owned(), redacts.as_str().into());
            write_object(&content, &mut out);
        }
        _ => write_object(&draft.content, &mut out),
    }
    out
}

fn write_object(object: &CanonicalJsonObject, out: &mut String) {
    out.push('{');
    for (i, (key, value)) in object.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_key(out, key);
        write_value(value, out);
    }
    out.push('}');
}

fn write_value(value: &CanonicalJsonValue, out: &mut String) {
    match value {
        CanonicalJsonValue::Null => out.push_str("null"),
        CanonicalJsonValue::Bool(bool) => write_display(out, bool),
        CanonicalJsonValue::Integer(int) => write_display(out, i64::from(*int)),
        CanonicalJsonValue::String(string) => write_string(out, string),
        CanonicalJsonValue::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_value(item, out);
            }
            out.push(']');
        }
        CanonicalJsonValue::Object(object) => write_object(object, out),
    }
}

fn write_kept_content(kind: &str, content: &str, rules: &RoomVersionRules, out: &mut String) {
    match Object::parse(content) {
        Ok(content) if !keeps_no_content(kind) => write_redacted_content(&content, kind, &rules.redaction, out),
        _ => out.push_str("{}"),
    }
}

/// The JSON of an event in pieces, in the order of its keys; content, hashes and signatures go between.
struct Parts {
    /// From `{` to `"content":`.
    auth_events: String,
    /// Depth, and in room versions 1 and 2 the event id. Hashes follow.
    depth: String,
    /// Time and `prev_events`.
    time: String,
    /// `redacts` on the top level, before version 11; redaction drops it.
    redacts: String,
    /// Room and sender. Signatures follow.
    origin: String,
    /// State key, type and `}`.
    kind: String,
}

impl Parts {
    fn write(draft: &Draft, place: &Place<'_>, chosen_id: Option<&str>, rules: &RoomVersionRules) -> Self {
        let mut auth_events = String::with_capacity(64 + 48 * place.auth_events.len());
        auth_events.push_str("{\"auth_events\":");
        write_references(&mut auth_events, place.auth_events, place, rules);
        auth_events.push_str(",\"content\":");

        let mut depth = String::with_capacity(64);
        depth.push_str(",\"depth\":");
        write_display(&mut depth, place.depth);
        if let Some(id) = chosen_id {
            depth.push_str(",\"event_id\":");
            write_string(&mut depth, id);
        }

        let mut time = String::with_capacity(64 + 48 * place.prev_events.len());
        time.push_str(",\"origin_server_ts\":");
        write_display(&mut time, place.origin_server_ts);
        time.push_str(",\"prev_events\":");
        write_references(&mut time, place.prev_events, place, rules);

        let mut redacts = String::new();
        if let Some(id) = &draft.redacts
            && !rules.redaction.content_field_redacts
        {
            redacts.push_str(",\"redacts\":");
            write_string(&mut redacts, id.as_str());
        }

        let mut origin = String::with_capacity(128);
        if let Some(room_id) = place.room_id {
            origin.push_str(",\"room_id\":");
            write_string(&mut origin, room_id.as_str());
        }
        origin.push_str(",\"sender\":");
        write_string(&mut origin, place.sender.as_str());

        let mut kind = String::with_capacity(96);
        if let Some(state_key) = &draft.state_key {
            kind.push_str(",\"state_key\":");
            write_string(&mut kind, state_key);
        }
        kind.push_str(",\"type\":");
        write_string(&mut kind, &draft.kind);
        kind.push('}');
        Self { auth_events, depth, time, redacts, origin, kind }
    }
}

fn write_references(out: &mut String, ids: &[OwnedEventId], place: &Place<'_>, rules: &RoomVersionRules) {
    out.push('[');
    for (i, id) in ids.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        if rules.events_reference_format == EventsReferenceFormatVersion::V1 {
            out.push('[');
            write_string(out, id.as_str());
            out.push_str(",{\"sha256\":");
            write_string(out, &place.v1.and_then(|v1| (v1.reference_hash)(id)).unwrap_or_default());
            out.push_str("}]");
        } else {
            write_string(out, id.as_str());
        }
    }
    out.push(']');
}

#[cfg(test)]
mod tests;
