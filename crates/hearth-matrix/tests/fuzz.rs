//! Whatever a stranger sends as JSON or as an event: nothing panics, and what is read is the same when it is read again.

use std::sync::Arc;

use hearth_fuzz::{fuzz, fuzz_json};
use hearth_matrix::canonical::{Json, Object};
use hearth_matrix::client_format::{ClientFormat, write_event, write_stripped, write_told};
use hearth_matrix::push::PushEvent;
use hearth_matrix::redact::{redact, redact_content};
use hearth_matrix::ruma::{CanonicalJsonObject, CanonicalJsonValue, ServerName};
use hearth_matrix::signatures::{VerifyError, countersigned, key_ids, required, verify, verify_json};
use hearth_matrix::{
    Completion, Membership, Pdu, PowerLevels, RoomVersionRules, SUPPORTED_VERSIONS, SigningKey, auth, complete, rules,
    template_of,
};

const CREATE: &str = r#"{"type":"m.room.create","state_key":"","sender":"@a:one.test","room_id":"!r:one.test","content":{"creator":"@a:one.test","room_version":"10","m.federate":true,"additional_creators":["@b:one.test"]},"prev_events":[],"auth_events":[],"depth":1,"origin_server_ts":1,"hashes":{"sha256":"aaaa"},"signatures":{"one.test":{"ed25519:k":"sig"}}}"#;
const MEMBER: &str = r#"{"type":"m.room.member","state_key":"@b:two.test","sender":"@b:two.test","room_id":"!r:one.test","content":{"membership":"join","displayname":"B","avatar_url":"mxc://two.test/b","join_authorised_via_users_server":"@a:one.test","third_party_invite":{"display_name":"b","signed":{"mxid":"@b:two.test","token":"t","signatures":{"id.test":{"ed25519:0":"sig"}}}}},"prev_events":["$p1"],"auth_events":["$a1","$a2"],"depth":12,"origin_server_ts":1700000000000,"unsigned":{"age":1},"prev_state":[]}"#;
const LEVELS: &str = r#"{"type":"m.room.power_levels","state_key":"","sender":"@a:one.test","room_id":"!r:one.test","content":{"users":{"@a:one.test":100,"@b:two.test":"50"},"users_default":0,"events":{"m.room.name":50},"events_default":0,"state_default":50,"ban":50,"kick":50,"redact":50,"invite":0,"notifications":{"room":50}},"prev_events":["$p1"],"auth_events":["$a1"],"depth":3,"origin_server_ts":3}"#;
const RULES: &str = r#"{"type":"m.room.join_rules","state_key":"","sender":"@a:one.test","room_id":"!r:one.test","content":{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":"!s:one.test"}]},"prev_events":["$p1"],"auth_events":["$a1"],"depth":4,"origin_server_ts":4}"#;
const MESSAGE: &str = r#"{"type":"m.room.message","sender":"@b:two.test","room_id":"!r:one.test","content":{"msgtype":"m.text","body":"hello \u00e4\u2028","m.mentions":{"user_ids":["@a:one.test"],"room":true},"m.relates_to":{"rel_type":"m.thread","event_id":"$t","m.in_reply_to":{"event_id":"$t"}}},"prev_events":[["$p1:one.test",{"sha256":"x"}]],"auth_events":[["$a1:one.test",{"sha256":"x"}]],"event_id":"$e:two.test","depth":5,"origin_server_ts":5}"#;
const REDACTION: &str = r#"{"type":"m.room.redaction","sender":"@b:two.test","room_id":"!r:one.test","redacts":"$t:one.test","content":{"redacts":"$t","reason":"why"},"prev_events":["$p1"],"auth_events":["$a1"],"depth":6,"origin_server_ts":6}"#;

/// Its `auth_events` are no pairs: such an event was taken once, and could not be read again.
const TRIPLE: &str = r#"{"type":"m.room.message","sender":"@b:two.test","room_id":"!r:one.test","content":{},"prev_events":[["$p1:one.test"]],"auth_events":[["$a1:one.test",{"sha256":"x"},5]],"depth":5,"origin_server_ts":5}"#;

const EVENTS: [&str; 7] = [CREATE, MEMBER, LEVELS, RULES, MESSAGE, REDACTION, TRIPLE];

fn all_rules() -> Vec<&'static RoomVersionRules> {
    SUPPORTED_VERSIONS.iter().map(|version| rules(version).expect("known")).collect()
}

/// Which versions an input is tried with: a debug build is slow with all of them.
fn few(round: usize, all: usize) -> [usize; 2] {
    [round % all, round / all % all]
}

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32], "k").expect("a key")
}

#[test]
fn canonical_json() {
    let odd = [
        r#"{"b":1.5,"a":-0,"c":[1e300,18446744073709551615,-9223372036854775808,{"\u0000":"\ud83d\ude00"},18446740955161616161616161616161616161616161616161615]}"#,
    ];
    fuzz_json("canonical JSON", &[&EVENTS[..], &odd].concat(), |text| {
        let Ok(json) = Json::parse(text) else {
            // What serde_json reads as a value we read, too.
            if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
                panic!("not read: {value}");
            }
            return;
        };
        let mut written = String::new();
        json.write(&mut written);
        let again = Json::parse(&written).expect("what was written is JSON");
        assert_eq!(again, json, "{written}");
        let mut twice = String::new();
        again.write(&mut twice);
        assert_eq!(twice, written);
        assert_eq!(again.is_canonical(), json.is_canonical());
        // Where ruma's form can hold it, it is the same.
        if json.is_canonical() {
            let theirs: CanonicalJsonValue = serde_json::from_str(text).expect("canonical JSON");
            assert_eq!(theirs.to_string(), written);
        }
    });
}

#[test]
fn canonical_json_of_any_bytes() {
    let good: Vec<&[u8]> = EVENTS.iter().map(|event| event.as_bytes()).collect();
    fuzz("canonical JSON of any bytes", &good, |bytes| {
        let (ours, theirs) =
            (serde_json::from_slice::<Json<'_>>(bytes), serde_json::from_slice::<serde_json::Value>(bytes));
        assert_eq!(ours.is_ok(), theirs.is_ok(), "{ours:?} {theirs:?}");
    });
}

/// What must hold of every event that was read.
fn check(pdu: &Pdu, rules: &RoomVersionRules) {
    assert!(pdu.json.len() <= hearth_matrix::MAX_PDU_BYTES);
    let again = Pdu::from_remote(&pdu.json, rules).expect("what was read is read again");
    assert_eq!((&again.json, &again.event_id, &again.room_id), (&pdu.json, &pdu.event_id, &pdu.room_id));
    let stored =
        Pdu::from_stored(pdu.json.clone(), &pdu.event_id, &pdu.room_id, rules).expect("what is stored is read");
    assert_eq!(format!("{stored:?}"), format!("{again:?}"));

    let redacted = redact(&pdu.json, rules, None).expect("JSON");
    assert_eq!(redact(&redacted, rules, None).expect("JSON"), redacted);
    redact_content(&pdu.kind, pdu.content.get(), rules).expect("JSON");
    let thin = Pdu::from_remote(&redacted, rules).expect("what is redacted is an event");
    assert_eq!(thin.event_id, pdu.event_id, "redaction changes no id");

    let mut out = String::new();
    write_event(&mut out, pdu, rules, ClientFormat { room_id: true, unsigned: "\"age\":1", content: None });
    serde_json::from_str::<serde_json::Value>(&out).expect("the client format is JSON");
    out.clear();
    write_stripped(&mut out, pdu);
    serde_json::from_str::<serde_json::Value>(&out).expect("the stripped form is JSON");
    assert!(required(pdu, rules).is_ok() || required(pdu, rules) == Err(VerifyError::Malformed));
    template_of(pdu).expect("JSON");
}

#[test]
fn events() {
    let all = all_rules();
    let (mut read, mut round) = (0, 0);
    fuzz_json("events", &EVENTS, |text| {
        round += 1;
        for rules in few(round, all.len()).map(|at| all[at]) {
            if let Ok(pdu) = Pdu::from_remote(text, rules) {
                read += 1;
                check(&pdu, rules);
                for server in required(&pdu, rules).unwrap_or_default() {
                    key_ids(&pdu, &server);
                }
                let _ = verify(&pdu, rules, |_, _| Some([1; 32]));
            }
        }
        let mut out = String::new();
        if write_told(&mut out, text) {
            serde_json::from_str::<serde_json::Value>(&out).expect("JSON");
        } else {
            assert!(out.is_empty());
        }
    });
    assert!(read > 50, "{read} events were read");
}

/// Templates of other servers become events of ours: signed, and held against the auth rules in a state that is as odd.
#[test]
fn templates_and_auth_rules() {
    let (all, key) = (all_rules(), key());
    let server = <&ServerName>::try_from("two.test").expect("a name");
    let content = CanonicalJsonObject::new();
    let mut states: Vec<Vec<Arc<Pdu>>> = vec![Vec::new(); all.len()];
    let (mut completed, mut round) = (0, 0);
    fuzz_json("templates and auth rules", &EVENTS, |text| {
        round += 1;
        for at in few(round, all.len()) {
            let (rules, state) = (all[at], &mut states[at]);
            let with = Completion {
                content: &content,
                origin_server_ts: 1_700_000_000_000,
                server_name: server,
                key: &key,
                opaque: "o",
            };
            let Ok(pdu) = complete(text, &with, rules) else { continue };
            completed += 1;
            check(&pdu, rules);
            let signed =
                verify(&pdu, rules, |name, id| (name == server && id == key.key_id()).then(|| key.public_key()));
            if required(&pdu, rules).is_ok_and(|servers| servers == [server]) {
                assert_eq!(signed, Ok(()), "{}", pdu.json);
            }
            countersigned(&pdu.json, &pdu.json, server).expect("JSON");

            let pdu = Arc::new(pdu);
            let of = |kind: &str, key: &str| state.iter().rfind(|event| event.is_state(kind, key)).cloned();
            let _ = auth::check(rules, &pdu, of);
            let _ = auth::auth_types_of(&pdu, rules);
            let levels = PowerLevels::of(of, rules);
            let outcome = PushEvent::new(&pdu, rules, 5, &levels);
            outcome.for_anybody();
            outcome.named_users();
            let _ = Membership::of(&pdu);
            // The room changes with it, allowed or not.
            if pdu.state_key.is_some() {
                state.push(pdu);
                let excess = state.len().saturating_sub(12);
                state.drain(..excess);
            }
        }
    });
    assert!(completed > 50, "{completed} templates were completed");
}

#[test]
fn signed_json() {
    let key = key();
    let good = key.sign_json(r#"{"a":[1,{"b":"c"}],"unsigned":{"x":1}}"#, "two.test").expect("JSON");
    fuzz_json("signed JSON", &[&good], |text| {
        let is_good = verify_json(text, "two.test", key.key_id(), &key.public_key());
        // It is only good if nothing that is signed changed.
        if is_good {
            let signed = |text: &str| {
                let mut object = Object::parse(text).expect("an object");
                object.retain(|key, _| !matches!(key, "unsigned" | "signatures"));
                object.to_canonical()
            };
            assert_eq!(signed(text), signed(&good));
        }
    });
}
