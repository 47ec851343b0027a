//! Policy servers: the server that a room asks about every event, and its signature.
//!
//! Whether the server has a member in the room, without which it is not asked, is for the caller to know.
//! Spec: server-server API, "Policy Servers"; client-server API, "Policy Servers", `m.room.policy`.

use base64::Engine as _;
use ruma::{OwnedServerName, ServerName};

use crate::{
    Pdu, RoomVersionRules,
    canonical::{Json, Object},
    hash::{BASE64, BASE64_URL, signed_bytes},
    key::add_signature,
    signatures::verify_bytes,
};

/// The type of the state event that names a room's policy server.
pub const POLICY_EVENT: &str = "m.room.policy";
/// The id of every policy server's key. It is never among the keys that a server publishes.
pub const POLICY_KEY_ID: &str = "ed25519:policy_server";

/// A room's policy server, as its `m.room.policy` event says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PolicyServer {
    /// The server.
    pub via: OwnedServerName,
    /// Its public key in base64, as it is written there: what is no key verifies nothing.
    key: Box<str>,
}

/// Whether an event is none of the policy server's business: the one that says who it is, so that a room can always do
/// without it.
pub fn is_exempt(kind: &str, state_key: Option<&str>) -> bool {
    kind == POLICY_EVENT && state_key == Some("")
}

impl PolicyServer {
    /// What the content of an `m.room.policy` event says; none if it is not valid, and then the room has no policy server.
    pub fn from_content(content: &str) -> Option<Self> {
        let content = Object::parse(content).ok()?;
        let keys = content.get("public_keys").and_then(Json::as_object)?;
        let via = ServerName::parse(content.get_str("via")?).ok()?;
        Some(Self { via, key: keys.get_str("ed25519")?.into() })
    }

    /// Whether the policy server has signed an event, with the key that the room knows of it.
    pub fn has_signed(&self, pdu: &Pdu, rules: &RoomVersionRules) -> bool {
        let Ok(event) = Object::parse(&pdu.json) else { return false };
        let signature = event.get("signatures").and_then(Json::as_object).and_then(|all| signature(all, &self.via));
        let (Some(signature), Some(key)) = (signature, self.public_key()) else { return false };
        verify_bytes(signed_bytes(&event, rules).as_bytes(), &key, signature)
    }

    /// An event with the signature that the policy server answered with (`POST /sign`); none if there is none in the answer.
    /// Other signatures stay as they are, also those of the same server.
    pub fn add_signature(&self, event: &str, answer: &str) -> Option<String> {
        self.with_signature_among(event, &Object::parse(answer).ok()?)
    }

    /// An event with the policy server's signature on another copy of it; none if there is none.
    pub fn countersigned(&self, event: &str, copy: &str) -> Option<String> {
        self.with_signature_among(event, Object::parse(copy).ok()?.get("signatures")?.as_object()?)
    }

    fn with_signature_among(&self, event: &str, signatures: &Object<'_>) -> Option<String> {
        let signature = signature(signatures, &self.via)?.to_owned();
        let mut event = Object::parse(event).ok()?;
        add_signature(&mut event, self.via.as_str(), POLICY_KEY_ID, signature);
        Some(event.to_canonical())
    }

    /// Both alphabets are in use: the specification's own example has the other one.
    fn public_key(&self) -> Option<[u8; 32]> {
        let key = BASE64.decode(&*self.key).or_else(|_| BASE64_URL.decode(&*self.key)).ok()?;
        key.try_into().ok()
    }
}

/// The policy server's signature among signatures by server.
fn signature<'s>(signatures: &'s Object<'_>, via: &ServerName) -> Option<&'s str> {
    signatures.get(via.as_str()).and_then(Json::as_object).and_then(|own| own.get_str(POLICY_KEY_ID))
}

#[cfg(test)]
mod tests {
    use ruma::{RoomVersionId, room_id, server_name, user_id};
    use serde_json::{Value, json};

    use super::*;
    use crate::{Draft, Place, SigningKey, rules, seal, signatures};

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed([seed; 32], "policy_server").unwrap()
    }

    fn policy(key: &SigningKey) -> PolicyServer {
        let content = json!({ "via": "p", "public_keys": { "ed25519": key.public_key_base64() } });
        PolicyServer::from_content(&content.to_string()).unwrap()
    }

    /// A message of a user of the policy server, signed by it as any server's is.
    fn message(rules: &RoomVersionRules) -> Pdu {
        let content = serde_json::from_value(json!({ "body": "hi" })).unwrap();
        let place = Place {
            room_id: Some(room_id!("!r:p")),
            sender: user_id!("@a:p"),
            prev_events: &[],
            auth_events: &[],
            depth: 1,
            origin_server_ts: 1,
            server_name: server_name!("p"),
            v1: None,
        };
        seal(Draft::message("m.room.message", content), &place, &SigningKey::from_seed([9; 32], "k").unwrap(), rules)
            .unwrap()
    }

    #[test]
    fn only_a_whole_policy_names_a_server() {
        let of = |content: Value| PolicyServer::from_content(&content.to_string()).map(|policy| policy.via.to_string());
        assert_eq!(of(json!({ "via": "p", "public_keys": { "ed25519": "k", "x": 1 } })).as_deref(), Some("p"));
        for content in [
            json!({}),
            json!({ "via": "p" }),
            json!({ "via": 1, "public_keys": { "ed25519": "k" } }),
            json!({ "via": "no server", "public_keys": { "ed25519": "k" } }),
            json!({ "public_keys": { "ed25519": "k" } }),
            json!({ "via": "p", "public_keys": "k" }),
            json!({ "via": "p", "public_keys": {} }),
            json!({ "via": "p", "public_keys": { "ed25519": ["k"] } }),
        ] {
            assert_eq!(of(content.clone()), None, "{content}");
        }
    }

    #[test]
    fn the_policy_itself_is_exempt_and_nothing_else_is() {
        assert!(is_exempt("m.room.policy", Some("")));
        assert!(!is_exempt("m.room.policy", Some("x")));
        assert!(!is_exempt("m.room.policy", None));
        assert!(!is_exempt("m.room.power_levels", Some("")));
    }

    #[test]
    fn a_signature_is_added_beside_others_and_checked_with_the_rooms_key() {
        let rules = rules(&RoomVersionId::V11).unwrap();
        let pdu = message(rules);
        let policy = policy(&key(1));
        assert!(!policy.has_signed(&pdu, rules));
        let copy = signatures::sign_event(&pdu.json, server_name!("p"), &key(1), rules).unwrap();
        let copy: Value = serde_json::from_str(&copy).unwrap();
        let answer = json!({ "p": { POLICY_KEY_ID: copy["signatures"]["p"][POLICY_KEY_ID] } }).to_string();
        let signed = Pdu::from_remote(&policy.add_signature(&pdu.json, &answer).unwrap(), rules).unwrap();
        assert_eq!(signed.event_id, pdu.event_id);
        assert!(policy.has_signed(&signed, rules));
        assert!(!self::policy(&key(2)).has_signed(&signed, rules), "another key");
        // The server's own signature stays, and is all that its keys are looked up for.
        assert_eq!(signatures::key_ids(&signed, server_name!("p")), ["ed25519:k"]);
        let stripped = crate::redact::redact(&signed.json, rules, None).unwrap();
        let stripped = Pdu::from_remote(&stripped, rules).unwrap();
        assert!(policy.has_signed(&stripped, rules), "a signature holds for the redacted form");
        for nothing in ["{}", "[]", r#"{"q":{"ed25519:policy_server":"x"}}"#, r#"{"p":{"ed25519:k":"x"}}"#] {
            assert_eq!(policy.add_signature(&pdu.json, nothing), None);
        }
    }

    #[test]
    fn a_key_may_be_written_in_either_alphabet() {
        let rules = rules(&RoomVersionId::V11).unwrap();
        let both = |key: &SigningKey| key.public_key_base64().contains(['+', '/']);
        let key = (1..).map(key).find(both).unwrap();
        let signed = signatures::sign_event(&message(rules).json, server_name!("p"), &key, rules).unwrap();
        let signed = Pdu::from_remote(&signed, rules).unwrap();
        let url = key.public_key_base64().replace('+', "-").replace('/', "_");
        let content = json!({ "via": "p", "public_keys": { "ed25519": url } }).to_string();
        assert!(PolicyServer::from_content(&content).unwrap().has_signed(&signed, rules));
    }
}
