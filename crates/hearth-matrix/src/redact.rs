//! Redaction: what is left of an event, per room version.
//!
//! Hashes and signatures are over the redacted form, so this is also what they are made of.
//! Spec: rooms, "Redactions" of each version.

use ruma::room_version_rules::RedactionRules;

use crate::{
    RoomVersionRules,
    canonical::{Json, Object, write_key},
};

/// The redacted form of an event, in canonical JSON. With `because` (the redaction event as JSON) it
/// gets `unsigned.redacted_because`; otherwise `unsigned` is gone.
pub fn redact(json: &str, rules: &RoomVersionRules, because: Option<&str>) -> Result<String, serde_json::Error> {
    let mut event = Object::parse(json)?;
    redact_in_place(&mut event, &rules.redaction);
    if let Some(because) = because {
        let mut unsigned = Object::default();
        unsigned.insert("redacted_because", Json::parse(because)?);
        event.insert("unsigned", Json::Object(unsigned));
    }
    Ok(event.to_canonical())
}

/// Redacts only a content.
pub fn redact_content(kind: &str, content: &str, rules: &RoomVersionRules) -> Result<String, serde_json::Error> {
    let mut out = String::new();
    write_redacted_content(&Object::parse(content)?, kind, &rules.redaction, &mut out);
    Ok(out)
}

/// Redacts a parsed event.
pub(crate) fn redact_in_place(event: &mut Object<'_>, rules: &RedactionRules) {
    let kind = event.get_str("type").unwrap_or_default().to_owned();
    event.retain(|key, value| {
        if key == "content"
            && let Json::Object(content) = value
        {
            content.retain(|key, value| {
                let kept = is_content_key_kept(&kind, key, rules);
                if kept
                    && is_third_party_invite(&kind, key)
                    && let Json::Object(invite) = value
                {
                    invite.retain(|key, _| key == "signed");
                }
                kept
            });
        }
        is_key_kept(key, rules)
    });
}

/// Appends the redacted form without `skip`, from which hashes and signatures are made.
pub(crate) fn write_redacted(event: &Object<'_>, rules: &RedactionRules, skip: &[&str], out: &mut String) {
    let kind = event.get_str("type").unwrap_or_default();
    event.write_with(out, |key, value, out| {
        if !is_key_kept(key, rules) || skip.contains(&key) {
            return false;
        }
        write_key(out, key);
        match value {
            Json::Object(content) if key == "content" => write_redacted_content(content, kind, rules, out),
            other => other.write(out),
        }
        true
    });
}

pub(crate) fn write_redacted_content(content: &Object<'_>, kind: &str, rules: &RedactionRules, out: &mut String) {
    content.write_with(out, |key, value, out| {
        if !is_content_key_kept(kind, key, rules) {
            return false;
        }
        write_key(out, key);
        match value {
            Json::Object(invite) if is_third_party_invite(kind, key) => invite.write_where(out, |key| key == "signed"),
            other => other.write(out),
        }
        true
    });
}

/// Whether redaction keeps nothing of the content of this type in any version.
pub(crate) fn keeps_no_content(kind: &str) -> bool {
    !matches!(
        kind,
        "m.room.member"
            | "m.room.create"
            | "m.room.join_rules"
            | "m.room.power_levels"
            | "m.room.history_visibility"
            | "m.room.redaction"
            | "m.room.aliases"
    )
}

fn is_key_kept(key: &str, rules: &RedactionRules) -> bool {
    match key {
        "event_id" | "type" | "room_id" | "sender" | "state_key" | "content" | "hashes" | "signatures" | "depth"
        | "prev_events" | "auth_events" | "origin_server_ts" => true,
        "origin" | "membership" | "prev_state" => rules.keep_origin_membership_prev_state,
        _ => false,
    }
}

fn is_content_key_kept(kind: &str, key: &str, rules: &RedactionRules) -> bool {
    match (kind, key) {
        ("m.room.member", "membership")
        | ("m.room.join_rules", "join_rule")
        | ("m.room.history_visibility", "history_visibility") => true,
        ("m.room.member", "join_authorised_via_users_server") => {
            rules.keep_room_member_join_authorised_via_users_server
        }
        ("m.room.member", "third_party_invite") => rules.keep_room_member_third_party_invite_signed,
        ("m.room.create", key) => key == "creator" || rules.keep_room_create_content,
        ("m.room.join_rules", "allow") => rules.keep_room_join_rules_allow,
        (
            "m.room.power_levels",
            "ban" | "events" | "events_default" | "kick" | "redact" | "state_default" | "users" | "users_default",
        ) => true,
        ("m.room.power_levels", "invite") => rules.keep_room_power_levels_invite,
        ("m.room.redaction", "redacts") => rules.keep_room_redaction_redacts,
        ("m.room.aliases", "aliases") => rules.keep_room_aliases_aliases,
        _ => false,
    }
}

fn is_third_party_invite(kind: &str, key: &str) -> bool {
    kind == "m.room.member" && key == "third_party_invite"
}

#[cfg(test)]
mod tests;
