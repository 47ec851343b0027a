//! Events that one server drafts for another to sign: the template of a membership handshake.
//!
//! Spec: server-server API, "Joining Rooms", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".

use base64::Engine as _;
use ruma::{CanonicalJsonObject, ServerName, room_version_rules::EventIdFormatVersion};

use crate::{
    Pdu, PduError, RoomVersionRules, SigningKey,
    canonical::{Json, Object},
    hash::{BASE64, content_hash},
    signatures::sign_event,
};

/// An event of ours as a template: without what whoever signs it adds.
///
/// The schema of the handshakes lists an `origin`, "the name of the resident homeserver". No event format has one any more, and
/// no server asks for it; but servers sign what they are given (Synapse does), so it would stand in events of theirs, and
/// name us as where they come from. Synapse's templates are without it, too.
pub fn template_of(pdu: &Pdu) -> Result<String, serde_json::Error> {
    let mut event = Object::parse(&pdu.json)?;
    event.retain(|key, _| !is_of_signer(key));
    Ok(event.to_canonical())
}

/// What counts of a template for a member event: its place in the room and, of the content, the membership and who vouches for the
/// user. Whatever else another server drafted would be signed in the user's name.
pub fn member_template(template: &str) -> Result<String, serde_json::Error> {
    const FIELDS: [&str; 8] =
        ["type", "room_id", "sender", "state_key", "prev_events", "auth_events", "depth", "content"];
    let mut event = Object::parse(template)?;
    event.retain(|key, _| FIELDS.contains(&key));
    let content = event.object_mut("content");
    content.retain(|key, _| matches!(key, "membership" | "join_authorised_via_users_server"));
    Ok(event.to_canonical())
}

/// Whether a field of an event is for whoever signs it to say. Of `origin` he says nothing.
fn is_of_signer(key: &str) -> bool {
    matches!(key, "hashes" | "signatures" | "event_id" | "unsigned" | "origin")
}

/// What makes an event of a template.
#[derive(Debug)]
pub struct Completion<'a> {
    /// More content; the template's own stays.
    pub content: &'a CanonicalJsonObject,
    /// Now, in milliseconds.
    pub origin_server_ts: i64,
    /// Who signs.
    pub server_name: &'a ServerName,
    /// With which key.
    pub key: &'a SigningKey,
    /// The part of the event id between `$` and `:server`, in room versions 1 and 2.
    pub opaque: &'a str,
}

/// Completes a template that another server made: hashes it, signs it, and reads it like any event of a stranger.
pub fn complete(template: &str, with: &Completion<'_>, rules: &RoomVersionRules) -> Result<Pdu, PduError> {
    let json = |error: serde_json::Error| PduError::Json(error.to_string());
    let more = serde_json::to_string(with.content).map_err(json)?;
    let more = Object::parse(&more).map_err(json)?;
    let mut event = Object::parse(template).map_err(json)?;
    event.retain(|key, _| !is_of_signer(key));
    let content = event.object_mut("content");
    for (key, value) in more.iter() {
        if content.get(key).is_none() {
            content.insert(key.to_owned(), value.clone());
        }
    }
    event.insert("origin_server_ts", Json::Int(with.origin_server_ts));
    if rules.event_id_format == EventIdFormatVersion::V1 {
        event.insert("event_id", Json::Str(format!("${}:{}", with.opaque, with.server_name).into()));
    }
    // As the hash is made over canonical JSON, so is what is hashed.
    let hash = BASE64.encode(content_hash(&event));
    event.object_mut("hashes").insert("sha256", Json::Str(hash.into()));
    let signed = sign_event(&event.to_canonical(), with.server_name, with.key, rules).map_err(json)?;
    Pdu::from_remote(&signed, rules)
}
