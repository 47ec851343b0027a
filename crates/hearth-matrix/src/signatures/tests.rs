//! Whose signatures an event needs, and what is said when one is missing or wrong.

use ruma::{RoomVersionId, event_id, room_id, server_name, user_id};
use serde_json::{Value, json};

use super::*;
use crate::{Draft, Place, rules, seal, testing::event};

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed([seed; 32], "k").unwrap()
}

fn public(key: &SigningKey) -> [u8; 32] {
    BASE64.decode(key.public_key_base64()).unwrap().try_into().unwrap()
}

fn joined(rules: &RoomVersionRules) -> Pdu {
    let content: Value = json!({"membership": "join", "join_authorised_via_users_server": "@b:b"});
    let draft = Draft::state("m.room.member", "@a:a", serde_json::from_value(content).unwrap());
    let place = Place {
        room_id: Some(room_id!("!r:a")),
        sender: user_id!("@a:a"),
        prev_events: &[],
        auth_events: &[],
        depth: 1,
        origin_server_ts: 1,
        server_name: server_name!("a"),
        v1: None,
    };
    seal(draft, &place, &key(1), rules).unwrap()
}

#[test]
fn who_must_sign() {
    let servers = |version: RoomVersionId, kind: &str, content: Value| {
        let rules = rules(&version).unwrap();
        let mut made = event("@a:sender", kind, Some("@t:target"), content);
        made.id = "$e:origin".to_owned();
        let servers = required(&made.make(rules), rules).unwrap();
        servers.iter().map(|server| server.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(servers(RoomVersionId::V1, "x", json!({})), ["sender", "origin"]);
    assert_eq!(servers(RoomVersionId::V3, "x", json!({})), ["sender"]);
    let third_party = json!({"membership": "invite", "third_party_invite": {"signed": {}}});
    assert_eq!(servers(RoomVersionId::V11, "m.room.member", third_party.clone()), [""; 0]);
    assert_eq!(servers(RoomVersionId::V2, "m.room.member", third_party), ["origin"]);
    let vouched = json!({"membership": "join", "join_authorised_via_users_server": "@b:voucher"});
    assert_eq!(servers(RoomVersionId::V7, "m.room.member", vouched.clone()), ["sender"]);
    assert_eq!(servers(RoomVersionId::V8, "m.room.member", vouched.clone()), ["sender", "voucher"]);
    assert_eq!(servers(RoomVersionId::V8, "x", vouched), ["sender"]);
}

#[test]
fn signatures_are_checked() {
    let rules = rules(&RoomVersionId::V11).unwrap();
    let pdu = joined(rules);
    let keys = |server: &ServerName, key_id: &str| {
        let seed = match server.as_str() {
            "a" => 1,
            "b" => 2,
            _ => return None,
        };
        (key_id == "ed25519:k").then(|| public(&key(seed)))
    };
    assert_eq!(verify(&pdu, rules, keys), Err(VerifyError::Unsigned(server_name!("b").to_owned())));

    let signed = sign_event(&pdu.json, server_name!("b"), &key(2), rules).unwrap();
    let signed = Pdu::from_remote(&signed, rules).unwrap();
    assert_eq!(signed.event_id, pdu.event_id);
    assert_eq!(verify(&signed, rules, keys), Ok(()));
    assert_eq!(key_ids(&signed, server_name!("b")), ["ed25519:k"]);
    assert_eq!(verify(&signed, rules, |_, _| None), Err(VerifyError::UnknownKey(server_name!("a").to_owned())));
    let swapped = |_: &ServerName, _: &str| Some(public(&key(2)));
    assert_eq!(verify(&signed, rules, swapped), Err(VerifyError::Wrong(server_name!("a").to_owned())));

    // A signature holds for the redacted form, so a stripped content does not break it.
    let stripped = crate::redact::redact(&signed.json, rules, None).unwrap();
    let stripped = Pdu::from_stored(stripped.into(), event_id!("$x"), room_id!("!r:a"), rules).unwrap();
    assert_eq!(verify(&stripped, rules, keys), Ok(()));
    let altered = signed.json.replace("\"depth\":1", "\"depth\":2");
    let altered = Pdu::from_stored(altered.into(), event_id!("$x"), room_id!("!r:a"), rules).unwrap();
    assert!(matches!(verify(&altered, rules, keys), Err(VerifyError::Wrong(_))));
}

/// Appendices, "Cryptographic Test Vectors", "JSON Signing".
#[test]
fn the_signed_json_of_the_specification() {
    let key = SigningKey::from_file_format("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap();
    assert_eq!(key.key_id(), "ed25519:1");
    let public = BASE64.decode("XGX0JRS2Af3be3knz2fBiRbApjm2Dh61gXDJA8kcJNI").unwrap();
    assert_eq!(key.public_key_base64(), BASE64.encode(&public));
    for (json, signature) in [
        ("{}", "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ"),
        (
            r#"{"one": 1, "two": "Two"}"#,
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        ),
    ] {
        let signed = key.sign_json(json, "domain").unwrap();
        assert!(signed.contains(signature), "{signed}");
        assert!(verify_json(&signed, "domain", "ed25519:1", &public));
        assert!(!verify_json(&signed, "other", "ed25519:1", &public));
        assert!(!verify_json(&signed.replace("domain", "d"), "domain", "ed25519:1", &public));
        let twice = key.sign_json(&signed, "other").unwrap();
        assert!(
            verify_json(&twice, "domain", "ed25519:1", &public) && verify_json(&twice, "other", "ed25519:1", &public)
        );
    }
}

#[test]
fn of_very_many_signatures_few_are_looked_at() {
    let rules = rules(&RoomVersionId::V11).unwrap();
    let draft = Draft::state("m.room.topic", "", serde_json::from_value(json!({ "topic": "x" })).unwrap());
    let place = Place {
        room_id: Some(room_id!("!r:a")),
        sender: user_id!("@a:a"),
        prev_events: &[],
        auth_events: &[],
        depth: 1,
        origin_server_ts: 1,
        server_name: server_name!("a"),
        v1: None,
    };
    let good = seal(draft, &place, &key(1), rules).unwrap();
    // Others stand before the good one, which is by `ed25519:k`.
    let with = |others: usize| {
        let mut event: Value = serde_json::from_str(&good.json).unwrap();
        for n in 0..others {
            event["signatures"]["a"][format!("ed25519:a{n:03}")] = BASE64.encode([7; 64]).into();
        }
        Pdu::from_remote(&event.to_string(), rules).unwrap()
    };
    let looked_up = std::cell::Cell::new(0);
    let verdict = |pdu: &Pdu, are_known: bool| {
        looked_up.set(0);
        verify(pdu, rules, |_, key_id| {
            looked_up.set(looked_up.get() + 1);
            (are_known || key_id == "ed25519:k").then(|| public(&key(1)))
        })
    };
    for others in [0, 1, 15] {
        // Whether their keys are unknown, or out of date, or known: one good signature is enough.
        assert_eq!(verdict(&with(others), false), Ok(()), "{others}");
        assert_eq!(verdict(&with(others), true), Ok(()), "{others}");
    }
    let wrong = Err(VerifyError::Wrong(server_name!("a").to_owned()));
    assert_eq!((verdict(&with(400), true), looked_up.get()), (wrong, 16));
    assert_eq!(key_ids(&with(400), server_name!("a")).len(), 16);
}

#[test]
fn keys_are_made_and_refused() {
    let made = SigningKey::generate().unwrap();
    let read = SigningKey::from_file_format(&made.to_file_format()).unwrap();
    assert_eq!((made.key_id(), made.public_key_base64()), (read.key_id(), read.public_key_base64()));
    assert_ne!(made.public_key_base64(), SigningKey::generate().unwrap().public_key_base64());
    for (text, error) in [
        ("", crate::KeyError::Format),
        ("ed25519 a_1", crate::KeyError::Format),
        ("rsa a_1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", crate::KeyError::Format),
        ("ed25519 a:1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1", crate::KeyError::Format),
        ("ed25519 a_1 YJDB", crate::KeyError::Seed),
    ] {
        assert_eq!(SigningKey::from_file_format(text).unwrap_err(), error, "{text}");
    }
}

#[test]
fn a_countersigned_event_takes_nothing_but_the_signature() {
    let rules = rules(&RoomVersionId::V11).unwrap();
    let ours = joined(rules);
    let theirs = sign_event(&ours.json, server_name!("b"), &key(2), rules).unwrap();
    let meddled = theirs.replace("\"depth\":1", "\"depth\":2");
    let signed = countersigned(&ours.json, &meddled, server_name!("b")).unwrap();
    assert_eq!(signed, theirs);
    let signed = Pdu::from_remote(&signed, rules).unwrap();
    let keys = |server: &ServerName, _: &str| Some(public(&key(if server == "a" { 1 } else { 2 })));
    for server in ["a", "b"] {
        let server = <&ServerName>::try_from(server).unwrap();
        assert_eq!(verify_signature_of(&signed, server, rules, keys), Ok(()));
    }
    let mut object: serde_json::Value = serde_json::from_str(&theirs).unwrap();
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    object["signatures"]["b"]["ed25519:deep"] = serde_json::from_str(&deep).unwrap();
    object["signatures"]["b"]["ed25519:long"] = "x".repeat(300).into();
    object["signatures"]["b"]["ed25519:".to_owned() + &"x".repeat(300)] = "x".into();
    object["signatures"]["b"]["other"] = "x".into();
    let more = countersigned(&ours.json, &object.to_string(), server_name!("b")).unwrap();
    assert_eq!(more, theirs, "what is no signature is left out");
    let unsigned = Err(VerifyError::Unsigned(server_name!("b").to_owned()));
    assert_eq!(verify_signature_of(&ours, server_name!("b"), rules, keys), unsigned);
    let wrong = Err(VerifyError::Wrong(server_name!("b").to_owned()));
    let other_key = |_: &ServerName, _: &str| Some(public(&key(3)));
    assert_eq!(verify_signature_of(&signed, server_name!("b"), rules, other_key), wrong);
}
