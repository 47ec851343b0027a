//! What redaction keeps, per version; ruma's redaction is the oracle.

use ruma::{CanonicalJsonObject, canonical_json};
use serde_json::{Value, json};

use super::*;
use crate::{SUPPORTED_VERSIONS, rules};

fn kept(version: usize, kind: &str, content: Value) -> Value {
    let rules = rules(&SUPPORTED_VERSIONS[version - 1]).unwrap();
    let content = redact_content(kind, &content.to_string(), rules).unwrap();
    serde_json::from_str(&content).unwrap()
}

#[test]
fn content_per_version() {
    // Type, content of which all else goes, and the versions from and to which each key stays.
    for (kind, key, versions) in [
        ("m.room.member", "membership", 1..=12),
        ("m.room.member", "displayname", 0..=0),
        ("m.room.member", "join_authorised_via_users_server", 9..=12),
        ("m.room.create", "creator", 1..=12),
        ("m.room.create", "m.federate", 11..=12),
        ("m.room.join_rules", "join_rule", 1..=12),
        ("m.room.join_rules", "allow", 8..=12),
        ("m.room.power_levels", "users", 1..=12),
        ("m.room.power_levels", "events_default", 1..=12),
        ("m.room.power_levels", "invite", 11..=12),
        ("m.room.power_levels", "notifications", 0..=0),
        ("m.room.aliases", "aliases", 1..=5),
        ("m.room.history_visibility", "history_visibility", 1..=12),
        ("m.room.redaction", "redacts", 11..=12),
        ("m.room.message", "body", 0..=0),
    ] {
        for version in 1..=12 {
            let expected = if versions.contains(&version) { json!({key: "x"}) } else { json!({}) };
            assert_eq!(
                kept(version, kind, json!({key: "x", "other": 1})).get(key),
                expected.get(key),
                "{kind} {key} {version}"
            );
        }
    }
    let invite = json!({"third_party_invite": {"display_name": "x", "signed": {"token": "t"}}});
    assert_eq!(kept(10, "m.room.member", invite.clone()), json!({}));
    assert_eq!(kept(11, "m.room.member", invite), json!({"third_party_invite": {"signed": {"token": "t"}}}));
}

#[test]
fn whole_events_as_ruma_does() {
    let contents = json!({
        "membership": "join", "creator": "@a:a", "join_rule": "x", "allow": [], "users": {}, "invite": 1, "aliases": [],
        "third_party_invite": {"signed": {"a": 1}, "b": 2}, "redacts": "$x", "history_visibility": "shared",
        "join_authorised_via_users_server": "@a:a", "body": "x",
    });
    for version in &SUPPORTED_VERSIONS {
        let rules = rules(version).unwrap();
        for kind in
            ["member", "create", "join_rules", "power_levels", "aliases", "redaction", "history_visibility", "x"]
        {
            let event = json!({
                "type": format!("m.room.{kind}"), "content": contents, "event_id": "$e:a", "room_id": "!r:a", "sender": "@a:a",
                "state_key": "", "hashes": {"sha256": "x"}, "signatures": {}, "depth": 1, "prev_events": [],
                "prev_state": [], "auth_events": [], "origin": "a", "origin_server_ts": 1, "membership": "join",
                "redacts": "$x", "unsigned": {"age": 1}, "extra": true,
            });
            let theirs: CanonicalJsonObject = serde_json::from_value(event.clone()).unwrap();
            let theirs = canonical_json::redact(theirs, &rules.redaction, None).unwrap();
            let ours = redact(&event.to_string(), rules, None).unwrap();
            assert_eq!(ours, serde_json::to_string(&theirs).unwrap(), "{version} {kind}");
        }
    }
}

#[test]
fn the_reason_is_told_in_unsigned() {
    let rules = rules(&SUPPORTED_VERSIONS[10]).unwrap();
    let event = r#"{"type":"x","content":{"a":1},"unsigned":{"age":5}}"#;
    let redacted = redact(event, rules, Some(r#"{"type":"m.room.redaction"}"#)).unwrap();
    assert_eq!(redacted, r#"{"content":{},"type":"x","unsigned":{"redacted_because":{"type":"m.room.redaction"}}}"#);
}
