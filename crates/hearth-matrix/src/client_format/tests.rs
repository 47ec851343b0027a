//! Events as clients get them.

use ruma::RoomVersionId;
use serde_json::{Value, json};

use super::*;
use crate::{rules, testing::event};

fn written(version: RoomVersionId, made: crate::testing::Event, format: ClientFormat<'_>) -> Value {
    let rules = rules(&version).unwrap();
    let mut out = String::new();
    write_event(&mut out, &made.make(rules), rules, format);
    serde_json::from_str(&out).unwrap()
}

#[test]
fn a_message_and_a_state_event() {
    let message = event("@a:a", "m.room.message", None, json!({"body": "\"ö\""}));
    let expected = json!({"content": {"body": "\"ö\""}, "event_id": "$event:a", "origin_server_ts": 1, "sender": "@a:a",
        "type": "m.room.message"});
    assert_eq!(written(RoomVersionId::V11, message, ClientFormat::default()), expected);

    let format = ClientFormat { room_id: true, unsigned: r#""age":5,"transaction_id":"m1""#, content: None };
    let state = event("@a:a", "m.room.topic", Some(""), json!({}));
    let expected = json!({"content": {}, "event_id": "$event:a", "origin_server_ts": 1, "room_id": "!room:a",
        "sender": "@a:a", "state_key": "", "type": "m.room.topic", "unsigned": {"age": 5, "transaction_id": "m1"}});
    assert_eq!(written(RoomVersionId::V11, state, format), expected);
}

#[test]
fn redacts_stands_where_old_and_new_clients_look() {
    for (version, content) in [
        (RoomVersionId::V1, json!({})),
        (RoomVersionId::V10, json!({"reason": "spam"})),
        (RoomVersionId::V10, json!({"redacts": "$x:a"})),
        (RoomVersionId::V11, json!({"redacts": "$x:a"})),
    ] {
        let mut redaction = event("@a:a", "m.room.redaction", None, content.clone());
        redaction.redacts = Some("$x:a".to_owned());
        let written = written(version.clone(), redaction, ClientFormat::default());
        assert_eq!(
            (&written["redacts"], &written["content"]["redacts"]),
            (&json!("$x:a"), &json!("$x:a")),
            "{version}"
        );
        assert_eq!(written["content"].get("reason"), content.get("reason"));
    }
}

#[test]
fn a_redacted_content_takes_the_place_of_the_own() {
    let format = ClientFormat { content: Some("{}"), unsigned: r#""redacted_because":{}"#, ..ClientFormat::default() };
    let message = written(RoomVersionId::V11, event("@a:a", "m.room.message", None, json!({"body": "x"})), format);
    assert_eq!((&message["content"], &message["unsigned"]), (&json!({}), &json!({"redacted_because": {}})));
    let mut redaction = event("@a:a", "m.room.redaction", None, json!({}));
    redaction.redacts = Some("$x:a".to_owned());
    let redaction = written(RoomVersionId::V10, redaction, format);
    assert_eq!((redaction.get("redacts"), &redaction["content"]), (None, &json!({})));
}

#[test]
fn the_stripped_form() {
    let rules = rules(&RoomVersionId::V11).unwrap();
    let mut out = String::new();
    write_stripped(&mut out, &event("@a:a", "m.room.name", Some(""), json!({"name": "x"})).make(rules));
    let written: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(written, json!({"content": {"name": "x"}, "sender": "@a:a", "state_key": "", "type": "m.room.name"}));
}

#[test]
fn what_others_tell_of_a_room_is_stripped() {
    let told = |json: &str| {
        let mut out = String::new();
        write_told(&mut out, json).then_some(out)
    };
    let whole = r#"{"type":"m.room.name","sender":"@a:a","state_key":"","depth":5,"content":{"name":"\u00e9"},"unsigned":{"x":1}}"#;
    let stripped = r#"{"content":{"name":"é"},"sender":"@a:a","state_key":"","type":"m.room.name"}"#;
    assert_eq!(told(whole).as_deref(), Some(stripped));
    assert_eq!(told(stripped).as_deref(), Some(stripped));
    for none in [
        "[]",
        "{",
        r#"{"content":{},"sender":"@a:a","type":"m.room.message"}"#,
        r#"{"content":[],"sender":"@a:a","state_key":"","type":"m.room.name"}"#,
        r#"{"content":{},"sender":"nobody","state_key":"","type":"m.room.name"}"#,
    ] {
        assert_eq!(told(none), None, "{none}");
    }
}
