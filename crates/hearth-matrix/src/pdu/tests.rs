//! What another server's event must be to be read at all, and what a wrong hash does to it.

use std::sync::Arc;

use base64::Engine as _;
use ruma::RoomVersionId;
use serde_json::{Value, json};

use super::*;
use crate::{
    canonical::{Json, Object},
    hash::{BASE64, content_hash},
    rules,
};

fn v11() -> &'static RoomVersionRules {
    rules(&RoomVersionId::V11).unwrap()
}

fn template() -> Value {
    json!({
        "auth_events": ["$a"], "prev_events": ["$b", "$c"], "content": {"body": "x"}, "depth": 5, "origin_server_ts": 9,
        "room_id": "!r:a", "sender": "@a:a", "type": "m.room.message", "signatures": {}, "unsigned": {"age": 1},
    })
}

/// The event with the content hash that belongs to it.
fn hashed(event: &Value) -> String {
    let text = event.to_string();
    let mut event = Object::parse(&text).unwrap();
    let hash = BASE64.encode(content_hash(&event));
    event.object_mut("hashes").insert("sha256", Json::Str(hash.into()));
    event.to_canonical()
}

fn with(key: &str, value: Value) -> String {
    let mut event = template();
    event[key] = value;
    hashed(&event)
}

#[test]
fn a_good_event_is_read() {
    let pdu = Pdu::from_remote(&hashed(&template()), v11()).unwrap();
    assert_eq!((&*pdu.kind, pdu.sender.as_str(), pdu.depth, pdu.origin_server_ts), ("m.room.message", "@a:a", 5, 9));
    assert_eq!(pdu.prev_events.len(), 2);
    assert_eq!(pdu.content.get(), r#"{"body":"x"}"#);
    assert!(!pdu.json.contains("unsigned"));
    assert!(pdu.state_key.is_none());
}

#[test]
fn formatting_does_not_matter() {
    let pretty = serde_json::to_string_pretty(&serde_json::from_str::<Value>(&hashed(&template())).unwrap()).unwrap();
    let (a, b) = (Pdu::from_remote(&pretty, v11()).unwrap(), Pdu::from_remote(&hashed(&template()), v11()).unwrap());
    assert_eq!((a.event_id, a.json), (b.event_id, b.json));
}

#[test]
fn a_wrong_hash_redacts() {
    let altered = hashed(&template()).replace(r#""body":"x""#, r#""body":"y""#);
    let pdu = Pdu::from_remote(&altered, v11()).unwrap();
    assert_eq!(pdu.content.get(), "{}");
    // The id is over the redacted form, so it is still the same event.
    assert_eq!(pdu.event_id, Pdu::from_remote(&hashed(&template()), v11()).unwrap().event_id);
}

#[test]
fn bad_fields_are_refused() {
    let long = "x".repeat(256);
    let ids: Vec<_> = (0..21).map(|n| format!("${n}")).collect();
    for (key, value) in [
        ("type", json!(null)),
        ("type", json!(long)),
        ("sender", json!("a")),
        ("sender", json!(format!("@{long}:a"))),
        ("state_key", json!(null)),
        ("state_key", json!(5)),
        ("state_key", json!(long)),
        ("room_id", json!("r")),
        ("content", json!([])),
        ("depth", json!("5")),
        ("depth", json!(-1)),
        ("origin_server_ts", json!("x")),
        ("prev_events", json!({})),
        ("prev_events", json!(ids)),
        ("prev_events", json!([["$a", {}]])),
        ("auth_events", json!(ids[..11])),
        ("auth_events", json!(["x"])),
    ] {
        assert_eq!(Pdu::from_remote(&with(key, value.clone()), v11()).unwrap_err(), PduError::Field(key), "{value}");
    }
    for key in ["type", "sender", "room_id", "content", "depth", "origin_server_ts", "prev_events", "auth_events"] {
        let mut event = template();
        event.as_object_mut().unwrap().remove(key);
        assert_eq!(Pdu::from_remote(&hashed(&event), v11()).unwrap_err(), PduError::Field(key));
    }
    assert_eq!(Pdu::from_remote(&template().to_string(), v11()).unwrap_err(), PduError::Field("hashes"));
    assert!(matches!(Pdu::from_remote("[]", v11()).unwrap_err(), PduError::Json(_)));
    assert!(matches!(Pdu::from_remote("{", v11()).unwrap_err(), PduError::Json(_)));
    let large = with("content", json!({"body": "x".repeat(MAX_PDU_BYTES)}));
    assert_eq!(Pdu::from_remote(&large, v11()).unwrap_err(), PduError::TooLarge);
    let endless = format!("{{\"a\":[{}0]}}", "0,".repeat(8 * MAX_PDU_BYTES / 2));
    assert_eq!(Pdu::from_remote(&endless, v11()).unwrap_err(), PduError::TooLarge);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(Pdu::from_remote(&format!("{{\"a\":{deep}}}"), v11()).unwrap_err(), PduError::Json(_)));
}

#[test]
fn names_may_have_255_characters_until_version_10_but_do_not_stand() {
    let wide = "\u{1f4a5}".repeat(70);
    for key in ["type", "state_key"] {
        for (version, is_read) in [(RoomVersionId::V6, true), (RoomVersionId::V10, true), (RoomVersionId::V11, false)] {
            let read = Pdu::from_remote(&with(key, json!(wide)), rules(&version).unwrap());
            match (is_read, read) {
                (true, read) => assert_eq!(read.unwrap().check_lengths(), Err(PduError::Field(key)), "{version}"),
                (false, read) => assert_eq!(read.unwrap_err(), PduError::Field(key), "{version}"),
            }
            let wider = with(key, json!("\u{1f4a5}".repeat(256)));
            assert_eq!(Pdu::from_remote(&wider, rules(&version).unwrap()).unwrap_err(), PduError::Field(key));
        }
    }
    assert_eq!(Pdu::from_remote(&with("state_key", json!("k".repeat(255))), v11()).unwrap().check_lengths(), Ok(()));
}

#[test]
fn strict_numbers_from_version_6_on() {
    for content in [json!({"n": 1.5}), json!({"n": 9_007_199_254_740_992_i64}), json!({"n": [-0.0]})] {
        for (version, strict) in [(RoomVersionId::V5, false), (RoomVersionId::V6, true)] {
            let read = Pdu::from_remote(&with("content", content.clone()), rules(&version).unwrap());
            assert_eq!(read.is_err_and(|error| error == PduError::NotCanonical), strict, "{content} {version}");
        }
    }
}

#[test]
fn version_1_names_its_events_and_hashes_references() {
    let v1 = rules(&RoomVersionId::V1).unwrap();
    let mut event = template();
    event["event_id"] = json!("$e:a");
    event["prev_events"] = json!([["$p:a", {"sha256": "x"}]]);
    event["auth_events"] = json!([["$q:a", {"sha256": "x"}]]);
    event["depth"] = json!(i64::MAX);
    let pdu = Pdu::from_remote(&hashed(&event), v1).unwrap();
    assert_eq!((pdu.event_id.as_str(), pdu.prev_events[0].as_str(), pdu.depth), ("$e:a", "$p:a", i64::MAX as u64));
    let stored = Pdu::from_stored(pdu.json.clone(), &pdu.event_id, &pdu.room_id, v1).unwrap();
    assert_eq!((stored.prev_events, stored.depth), (pdu.prev_events, pdu.depth));
    event["event_id"] = json!("$e");
    assert_eq!(Pdu::from_remote(&hashed(&event), v1).unwrap_err(), PduError::Field("event_id"));
}

#[test]
fn a_version_12_create_event_must_not_state_a_room() {
    let v12 = rules(&RoomVersionId::V12).unwrap();
    let mut event = template();
    event["type"] = json!("m.room.create");
    event["state_key"] = json!("");
    assert_eq!(Pdu::from_remote(&hashed(&event), v12).unwrap_err(), PduError::Field("room_id"));
    event.as_object_mut().unwrap().remove("room_id");
    let pdu = Pdu::from_remote(&hashed(&event), v12).unwrap();
    assert_eq!(pdu.room_id.as_str()[1..], pdu.event_id.as_str()[1..]);
}

#[test]
fn what_a_redaction_redacts() {
    for (version, top, in_content) in
        [(RoomVersionId::V10, Some("$top"), None), (RoomVersionId::V11, None, Some("$in"))]
    {
        let mut event = template();
        event["type"] = json!("m.room.redaction");
        event["redacts"] = json!("$top");
        event["content"] = json!({"redacts": "$in"});
        let rules = rules(&version).unwrap();
        let pdu = Pdu::from_remote(&hashed(&event), rules).unwrap();
        assert_eq!(pdu.redacts.as_ref().map(|id| id.as_str()), top.or(in_content));
        let stored = Pdu::from_stored(Arc::clone(&pdu.json), &pdu.event_id, &pdu.room_id, rules).unwrap();
        assert_eq!(stored.redacts, pdu.redacts);
    }
}

#[test]
fn what_others_are_judged_by_stays_when_it_is_redacted() {
    let v6 = rules(&RoomVersionId::V6).unwrap();
    let pdu = |kind: &str, content: Value, rules: &RoomVersionRules| {
        let mut event: Value = serde_json::from_str(&with("type", json!(kind))).unwrap();
        event["content"] = content;
        let (event_id, room_id) = (EventId::parse("$e").unwrap(), RoomId::parse("!r:a").unwrap());
        Pdu::from_stored(event.to_string().into(), &event_id, &room_id, rules).unwrap()
    };
    let left = |kind: &str, content: Value, rules: &RoomVersionRules| {
        let redacted = pdu(kind, content, rules).redacted(rules).unwrap();
        redacted.map(|redacted| redacted.content.get().to_owned())
    };
    assert_eq!(left("m.room.topic", json!({ "topic": "abuse" }), v6).as_deref(), Some("{}"));
    let join = json!({ "membership": "join", "displayname": "abuse" });
    assert_eq!(left("m.room.member", join, v6).as_deref(), Some(r#"{"membership":"join"}"#));
    let levels = json!({ "invite": 50, "ban": 50 });
    assert_eq!(left("m.room.power_levels", levels.clone(), v6), None);
    assert_eq!(left("m.room.power_levels", levels, v11()).as_deref(), Some(r#"{"ban":50,"invite":50}"#));
    assert_eq!(left("m.room.create", json!({ "m.federate": false }), v6), None);
}

#[test]
fn the_id_of_what_is_too_deep_is_known_if_redaction_takes_the_depths_away() {
    let depths = format!("{}1{}", "[".repeat(200), "]".repeat(200));
    let event = hashed(&template());
    let deep = event.replace("\"x\"", &depths);
    assert!(matches!(Pdu::from_remote(&deep, v11()), Err(PduError::Json(_))));
    assert_eq!(Pdu::id_of_remote(&deep, v11()), Some(Pdu::from_remote(&event, v11()).unwrap().event_id));
    let beside = event.replacen('{', &format!("{{\"deep\":{depths},"), 1);
    assert_eq!(Pdu::id_of_remote(&beside, v11()), Pdu::id_of_remote(&event, v11()));
    // What stays is part of the hash.
    let kept = with("type", json!("m.room.create")).replace("\"x\"", &depths);
    assert_eq!(Pdu::id_of_remote(&kept, v11()), None);
    assert_eq!(Pdu::id_of_remote(&event.replace("[\"$a\"]", &depths), v11()), None);
    for rubbish in ["", "[]", "{}", r#"{"content":[]}"#, r#"{"content":{}"#] {
        assert_eq!(Pdu::id_of_remote(rubbish, v11()), None);
    }
}
