//! Sealed events against ruma's hashing, signing and event ids; the specification's signed events.

use ruma::{CanonicalJsonObject, event_id, room_id, server_name, signatures, user_id};
use serde_json::json;

use super::*;
use crate::{SUPPORTED_VERSIONS, canonical::Json, rules};

fn object(value: serde_json::Value) -> CanonicalJsonObject {
    serde_json::from_value(value).unwrap()
}

fn key() -> SigningKey {
    SigningKey::from_file_format("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap()
}

fn drafts() -> Vec<Draft> {
    let mut all = vec![
        Draft::message("m.room.message", object(json!({"msgtype": "m.text", "body": "h\"ö\n"}))),
        Draft::state("m.room.create", "", object(json!({"creator": "@a:domain", "room_version": "1"}))),
        Draft::state(
            "m.room.power_levels",
            "",
            object(json!({"users": {"@a:domain": 100}, "invite": 5, "x": [1, null]})),
        ),
        Draft::state(
            "m.room.member",
            "@b:domain",
            object(json!({"membership": "invite", "third_party_invite": {"signed": {"mxid": "@b:domain"}, "x": 1},
                "join_authorised_via_users_server": "@c:domain"})),
        ),
        Draft::state("m.room.join_rules", "", object(json!({"join_rule": "restricted", "allow": [], "y": true}))),
        Draft::state("m.room.aliases", "domain", object(json!({"aliases": ["#a:domain"], "z": {}}))),
    ];
    let redacts = Some(event_id!("$old:domain").to_owned());
    all.push(Draft { redacts, ..Draft::message("m.room.redaction", object(json!({"reason": "spam"}))) });
    all
}

#[test]
fn every_version_seals_as_ruma_does() {
    let (key, room) = (key(), room_id!("!r:domain"));
    let edges = [event_id!("$a:domain").to_owned(), event_id!("$b:domain").to_owned()];
    for version in SUPPORTED_VERSIONS {
        let rules = rules(&version).unwrap();
        for draft in drafts() {
            let lone = rules.room_id_format == RoomIdFormatVersion::V2 && draft.kind == "m.room.create";
            let v1 = V1Place { opaque: "e", reference_hash: &|_| Some("hash".to_owned()) };
            let place = Place {
                room_id: (!lone).then_some(room),
                sender: user_id!("@a:domain"),
                prev_events: &edges,
                auth_events: &edges[..1],
                depth: 7,
                origin_server_ts: 1_000_000,
                server_name: server_name!("domain"),
                v1: (rules.event_id_format == EventIdFormatVersion::V1).then_some(v1),
            };
            let pdu = seal(draft.clone(), &place, &key, rules).unwrap();

            // Canonical, and exactly what ruma makes of the same event.
            let mut theirs: CanonicalJsonObject = serde_json::from_str(&pdu.json).unwrap();
            assert_eq!(serde_json::to_string(&theirs).unwrap(), *pdu.json);
            theirs.remove("hashes");
            theirs.remove("signatures");
            signatures::hash_and_sign_event("domain", key.pair(), &mut theirs, &rules.redaction).unwrap();
            assert_eq!(serde_json::to_string(&theirs).unwrap(), *pdu.json, "{version} {}", draft.kind);
            if rules.event_id_format != EventIdFormatVersion::V1 {
                assert_eq!(pdu.event_id.as_str(), format!("${}", signatures::reference_hash(&theirs, rules).unwrap()));
            }

            // And what is read back is the same event, from the store and from a stranger.
            let stored = Pdu::from_stored(pdu.json.clone(), &pdu.event_id, &pdu.room_id, rules).unwrap();
            let remote = Pdu::from_remote(&pdu.json, rules).unwrap();
            for read in [stored, remote] {
                assert_eq!((&read.event_id, &read.room_id, &read.sender), (&pdu.event_id, &pdu.room_id, &pdu.sender));
                assert_eq!((&read.kind, &read.state_key, &read.json), (&pdu.kind, &pdu.state_key, &pdu.json));
                assert_eq!((&read.prev_events, &read.auth_events), (&pdu.prev_events, &pdu.auth_events));
                assert_eq!((read.depth, read.origin_server_ts), (pdu.depth, pdu.origin_server_ts));
                assert_eq!((&read.redacts, read.content.get()), (&pdu.redacts, pdu.content.get()));
            }
        }
    }
}

#[test]
fn a_version_12_create_event_names_its_room() {
    let rules = rules(&ruma::RoomVersionId::V12).unwrap();
    let draft = Draft::state("m.room.create", "", object(json!({"room_version": "12"})));
    let place = Place {
        room_id: None,
        sender: user_id!("@a:domain"),
        prev_events: &[],
        auth_events: &[],
        depth: 1,
        origin_server_ts: 1,
        server_name: server_name!("domain"),
        v1: None,
    };
    let pdu = seal(draft.clone(), &place, &key(), rules).unwrap();
    assert_eq!(pdu.room_id.as_str()[1..], pdu.event_id.as_str()[1..]);
    assert!(!pdu.json.contains("room_id"));
    let with_room = Place { room_id: Some(room_id!("!r:domain")), ..place };
    assert_eq!(seal(draft, &with_room, &key(), rules).unwrap_err(), SealError::Place("room_id"));
}

#[test]
fn too_large_is_told_apart() {
    let rules = rules(&ruma::RoomVersionId::V11).unwrap();
    let place = Place {
        room_id: Some(room_id!("!r:domain")),
        sender: user_id!("@a:domain"),
        prev_events: &[],
        auth_events: &[],
        depth: 1,
        origin_server_ts: 1,
        server_name: server_name!("domain"),
        v1: None,
    };
    let draft = |length| Draft::message("m.room.message", object(json!({"body": "x".repeat(length)})));
    let overhead = seal(draft(0), &place, &key(), rules).unwrap().json.len();
    let largest = seal(draft(MAX_SEALED_BYTES - overhead), &place, &key(), rules).unwrap();
    assert_eq!(largest.json.replacen('{', r#"{"unsigned":{},"#, 1).len(), MAX_PDU_BYTES);
    assert!(Pdu::from_remote(&largest.json, rules).is_ok());
    assert_eq!(seal(draft(MAX_SEALED_BYTES - overhead + 1), &place, &key(), rules).unwrap_err(), SealError::TooLarge);
    assert_eq!(draft(MAX_PDU_BYTES).check(rules), Err(DraftError::TooLarge));
    assert_eq!(draft(9).check(rules), Ok(()));
    assert_eq!(Draft::message("", object(json!({}))).check(rules), Err(DraftError::Kind));
    assert_eq!(Draft::message("x".repeat(256), object(json!({}))).check(rules), Err(DraftError::Kind));
    assert_eq!(Draft::state("x", "k".repeat(256), object(json!({}))).check(rules), Err(DraftError::StateKey));
}

/// Appendices, "Cryptographic Test Vectors", "Event Signing": an event with minimal and with redactable content.
#[test]
fn the_signed_events_of_the_specification() {
    for (unsigned, hash, signature) in [
        (
            json!({"room_id": "!x:domain", "sender": "@a:domain", "origin": "domain", "origin_server_ts": 1000000,
                "signatures": {}, "hashes": {}, "type": "X", "content": {}, "prev_events": [], "auth_events": [],
                "depth": 3, "unsigned": {"age_ts": 1000000}}),
            "5jM4wQpv6lnBo7CLIghJuHdW+s2CMBJPUOGOC89ncos",
            "KxwGjPSDEtvnFgU00fwFz+l6d2pJM6XBIaMEn81SXPTRl16AqLAYqfIReFGZlHi5KLjAWbOoMszkwsQma+lYAg",
        ),
        (
            json!({"content": {"body": "Here is the message content"}, "event_id": "$0:domain", "origin": "domain",
                "origin_server_ts": 1000000, "type": "m.room.message", "room_id": "!r:domain",
                "sender": "@u:domain", "signatures": {}, "unsigned": {"age_ts": 1000000}}),
            "onLKD1bGljeBWQhWZ1kaP9SorVmRQNdN5aM2JYU2n/g",
            "Wm+VzmOUOz08Ds+0NTWb1d4CZrVsJSikkeRxh6aCcUwu6pNC78FunoD7KNWzqFn241eYHYMGCA5McEiVPdhzBA",
        ),
    ] {
        let rules = rules(&ruma::RoomVersionId::V1).unwrap();
        let json = unsigned.to_string();
        let mut event = Object::parse(&json).unwrap();
        let computed = BASE64.encode(crate::hash::content_hash(&event));
        assert_eq!(computed, hash);
        event.object_mut("hashes").insert("sha256", Json::Str(hash.into()));
        let signed =
            crate::signatures::sign_event(&event.to_canonical(), server_name!("domain"), &key(), rules).unwrap();
        let signed = Object::parse(&signed).unwrap();
        let of_domain = signed.get("signatures").unwrap().as_object().unwrap().get("domain").unwrap();
        assert_eq!(of_domain.as_object().unwrap().get_str("ed25519:1"), Some(signature));
    }
}
