//! Documents of signing keys: reading and believing those of others, and writing our own. All pure.
//!
//! Spec: server-server API, "Retrieving server keys".

use std::fmt::Write as _;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hearth_matrix::SigningKey;
use hearth_matrix::canonical::{Json, Object, write_string};
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_matrix::signatures::verify_json;
use hearth_store::{OwnKey, ServerKey};

/// A key is not believed for longer than this after it was heard of, whatever its server says.
const MAX_VALIDITY: i64 = 7 * 24 * 3_600_000;
/// So many keys a document holds at most.
const MOST_KEYS: usize = 256;
/// So many signatures of it are looked at.
const MOST_SIGNATURES: usize = 16;
/// Keys with longer ids are none for us.
const MAX_KEY_ID_BYTES: usize = 255;

pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What a server tells of its keys, if it has signed that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ToldKeys {
    pub(crate) server: OwnedServerName,
    /// Keys in use.
    pub(crate) verify_keys: Vec<(String, [u8; 32])>,
    /// Old ones, each with the end of its use.
    pub(crate) old_verify_keys: Vec<(String, [u8; 32], i64)>,
    pub(crate) valid_until_ts: i64,
}

/// Why a document of keys is not believed.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum DocumentError {
    #[error("malformed document of keys")]
    Malformed,
    #[error("the keys are of another server")]
    OtherServer,
    #[error("the document is not signed by a key in it")]
    Unsigned,
    #[error("a signature of the document is wrong")]
    WrongSignature,
}

impl ToldKeys {
    /// Reads a document that must be signed by its server with a key in it.
    pub(crate) fn parse(json: &str) -> Result<Self, DocumentError> {
        Self::read(json).ok_or(DocumentError::Malformed).and_then(|told| told.signed(json))
    }

    /// The same, of a certain server.
    pub(crate) fn parse_of(json: &str, server: &ServerName) -> Result<Self, DocumentError> {
        let told = Self::parse(json)?;
        if told.server == server { Ok(told) } else { Err(DocumentError::OtherServer) }
    }

    fn read(json: &str) -> Option<Self> {
        let document = Object::parse(json).ok()?;
        let keys = |name| document.get(name).map_or(Some(None), |keys| keys.as_object().map(Some));
        let (verify_keys, old_verify_keys) = (keys("verify_keys")??, keys("old_verify_keys")?);
        if verify_keys.len() + old_verify_keys.map_or(0, Object::len) > MOST_KEYS {
            return None;
        }
        let key = |id: &str, value: &Json<'_>| -> Option<(String, [u8; 32])> {
            let key = BASE64.decode(value.as_object()?.get_str("key")?).ok()?;
            // Keys of algorithms that we don't know are none for us.
            let is_ours_to_know = id.starts_with("ed25519:") && id.len() <= MAX_KEY_ID_BYTES;
            is_ours_to_know.then_some((id.to_owned(), key.try_into().ok()?))
        };
        let expired = |value: &Json<'_>| value.as_object().and_then(|value| value.get("expired_ts")?.as_int());
        Some(Self {
            server: ServerName::parse(document.get_str("server_name")?).ok()?,
            verify_keys: verify_keys.iter().filter_map(|(id, value)| key(id, value)).collect(),
            old_verify_keys: old_verify_keys
                .into_iter()
                .flat_map(Object::iter)
                .filter_map(|(id, value)| key(id, value).zip(expired(value)).map(|((id, key), ts)| (id, key, ts)))
                .collect(),
            valid_until_ts: document.get("valid_until_ts")?.as_int()?,
        })
    }

    /// At least one key in use has signed, and no signature by such a key is wrong, among the first few.
    fn signed(self, json: &str) -> Result<Self, DocumentError> {
        let with = signed_with(json, &self.server);
        let mut good = false;
        for (id, key) in self.verify_keys.iter().filter(|(id, _)| with.contains(id)).take(MOST_SIGNATURES) {
            if !verify_json(json, self.server.as_str(), id, key) {
                return Err(DocumentError::WrongSignature);
            }
            good = true;
        }
        if good { Ok(self) } else { Err(DocumentError::Unsigned) }
    }

    /// The keys as they are kept; heard now.
    pub(crate) fn to_keys(&self, now: i64, from_itself: bool) -> Vec<ServerKey> {
        let valid_until_ts = self.valid_until_ts.min(now.saturating_add(MAX_VALIDITY));
        let known = |(key_id, public_key): &(String, [u8; 32]), expired_ts| ServerKey {
            key_id: key_id.clone(),
            public_key: *public_key,
            valid_until_ts,
            expired_ts,
            from_itself,
        };
        let in_use = self.verify_keys.iter().map(|key| known(key, None));
        // A key that is in use and old is in use.
        let old = self
            .old_verify_keys
            .iter()
            .filter(|(id, ..)| !self.verify_keys.iter().any(|(used, _)| used == id))
            .map(|(id, key, expired_ts)| known(&(id.clone(), *key), Some(*expired_ts)));
        in_use.chain(old).collect()
    }
}

/// The ids of the keys with which an entity has signed a JSON object.
pub(crate) fn signed_with(json: &str, entity: &ServerName) -> Vec<String> {
    let Ok(object) = Object::parse(json) else { return Vec::new() };
    let of_entity = object
        .get("signatures")
        .and_then(Json::as_object)
        .and_then(|signatures| signatures.get(entity.as_str()))
        .and_then(Json::as_object);
    of_entity.into_iter().flat_map(Object::iter).map(|(id, _)| id.to_owned()).collect()
}

/// Whether what a key has signed at a time is good. Without a time, whenever.
pub(crate) fn is_good_at(key: &ServerKey, at: Option<i64>) -> bool {
    at.is_none_or(|at| key.expired_ts.map_or(at <= key.valid_until_ts, |expired| at <= expired))
}

/// Our own document of keys, signed.
pub(crate) fn own_document(
    server: &ServerName,
    key: &SigningKey,
    own: &[OwnKey],
    valid_until_ts: i64,
) -> Result<String, serde_json::Error> {
    let mut json = String::from("{\"old_verify_keys\":{");
    let old = own.iter().filter(|old| old.key_id != key.key_id());
    for (at, (old, expired_ts)) in old.filter_map(|old| Some((old, old.expired_ts?))).enumerate() {
        if at > 0 {
            json.push(',');
        }
        write_string(&mut json, &old.key_id);
        let _ = write!(json, ":{{\"expired_ts\":{expired_ts},\"key\":\"{}\"}}", BASE64.encode(old.public_key));
    }
    json.push_str("},\"server_name\":");
    write_string(&mut json, server.as_str());
    let _ = write!(json, ",\"valid_until_ts\":{valid_until_ts},\"verify_keys\":{{");
    write_string(&mut json, key.key_id());
    let _ = write!(json, ":{{\"key\":\"{}\"}}}}}}", key.public_key_base64());
    key.sign_json(&json, server.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server() -> OwnedServerName {
        ServerName::parse("a.org").unwrap()
    }

    fn key(byte: u8, version: &str) -> SigningKey {
        SigningKey::from_seed([byte; 32], version).unwrap()
    }

    #[test]
    fn our_own_document_is_one_that_others_believe() {
        let (used, old) = (key(1, "new"), key(2, "old"));
        let own = [
            OwnKey { key_id: "ed25519:new".to_owned(), public_key: used.public_key(), expired_ts: None },
            OwnKey { key_id: "ed25519:old".to_owned(), public_key: old.public_key(), expired_ts: Some(5) },
        ];
        let json = own_document(&server(), &used, &own, 1000).unwrap();
        let told = ToldKeys::parse_of(&json, &server()).unwrap();
        assert_eq!(told.verify_keys, [("ed25519:new".to_owned(), used.public_key())]);
        assert_eq!(told.old_verify_keys, [("ed25519:old".to_owned(), old.public_key(), 5)]);
        assert_eq!(told.valid_until_ts, 1000);
        let other = ServerName::parse("b.org").unwrap();
        assert_eq!(ToldKeys::parse_of(&json, &other), Err(DocumentError::OtherServer));
    }

    #[test]
    fn what_is_not_signed_by_a_key_in_it_is_not_believed() {
        let key = key(1, "1");
        let plain = format!(
            r#"{{"server_name":"a.org","valid_until_ts":5,"verify_keys":{{"ed25519:1":{{"key":"{}"}},"x:1":{{"key":7}}}}}}"#,
            key.public_key_base64()
        );
        assert_eq!(ToldKeys::parse(&plain), Err(DocumentError::Unsigned));
        let signed = key.sign_json(&plain, "a.org").unwrap();
        assert_eq!(ToldKeys::parse(&signed).unwrap().verify_keys.len(), 1);
        assert_eq!(ToldKeys::parse(&key.sign_json(&plain, "b.org").unwrap()), Err(DocumentError::Unsigned));
        let forged = signed.replace("\"valid_until_ts\":5", "\"valid_until_ts\":50");
        assert_eq!(ToldKeys::parse(&forged), Err(DocumentError::WrongSignature));
        let other = SigningKey::from_seed([9; 32], "1").unwrap().sign_json(&plain, "a.org").unwrap();
        assert_eq!(ToldKeys::parse(&other), Err(DocumentError::WrongSignature));
        for broken in ["", "{}", "[]", r#"{"server_name":"a.org","verify_keys":[],"valid_until_ts":1}"#] {
            assert_eq!(ToldKeys::parse(broken), Err(DocumentError::Malformed), "{broken}");
        }
    }

    #[test]
    fn a_key_with_an_endless_id_is_none() {
        let (used, long) = (key(1, "1"), "x".repeat(250));
        let json = format!(
            r#"{{"server_name":"a.org","valid_until_ts":5,"verify_keys":{{"ed25519:1":{{"key":"{0}"}},"ed25519:{long}":{{"key":"{0}"}}}}}}"#,
            used.public_key_base64()
        );
        let told = ToldKeys::parse(&used.sign_json(&json, "a.org").unwrap()).unwrap();
        assert_eq!(told.verify_keys, [("ed25519:1".to_owned(), used.public_key())]);
    }

    #[test]
    fn keys_are_good_for_a_time() {
        let told = ToldKeys {
            server: server(),
            verify_keys: vec![("ed25519:1".to_owned(), [1; 32])],
            old_verify_keys: vec![("ed25519:0".to_owned(), [0; 32], 50), ("ed25519:1".to_owned(), [1; 32], 50)],
            valid_until_ts: i64::MAX,
        };
        let keys = told.to_keys(100, true);
        assert_eq!(keys.len(), 2, "a key in use is not old");
        assert_eq!(keys[0].valid_until_ts, 100 + MAX_VALIDITY, "nobody is believed for ever");
        for (key, at, good) in [
            (0, Some(0), true),
            (0, Some(100 + MAX_VALIDITY), true),
            (0, Some(101 + MAX_VALIDITY), false),
            (0, None, true),
            (1, Some(50), true),
            (1, Some(51), false),
            (1, None, true),
        ] {
            assert_eq!(is_good_at(&keys[key], at), good, "{key} {at:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_document_panics(json in "\\PC{0,100}", keys in "\\PC{0,40}", key in "\\PC{0,50}", ts: i64) {
            let _ = ToldKeys::parse(&json);
            let mut document = String::from("{\"server_name\":\"a.org\",\"verify_keys\":{");
            write_string(&mut document, &format!("ed25519:{keys}"));
            document.push_str(":{\"key\":");
            write_string(&mut document, &key);
            let _ = write!(document, "}}}},\"valid_until_ts\":{ts},\"old_verify_keys\":{{\"ed25519:1\":{json}}}}}");
            let _ = ToldKeys::parse(&document);
        }
    }
}
