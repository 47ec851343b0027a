//! Our server's signing key, and its file format (the one Synapse writes too).

use base64::Engine as _;
use rand::TryRng as _;
use ruma::signatures::{Ed25519KeyPair, KeyPair as _};

use crate::{
    canonical::{Json, Object},
    hash::BASE64,
};

/// An Ed25519 key that signs events and requests.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    key_id: String,
    seed: [u8; 32],
}

/// Why a signing key cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum KeyError {
    /// The text is not `ed25519 VERSION SEED`.
    #[error("expected `ed25519 VERSION BASE64_SEED` on one line")]
    Format,
    /// The seed is not 32 bytes of base64.
    #[error("the seed is not 32 bytes of base64")]
    Seed,
    /// No random bytes were to be had.
    #[error("the system gave no random bytes")]
    NoRandomness,
}

/// The DER around a 32-byte Ed25519 seed (RFC 8410, without the public key).
const PKCS8_PREFIX: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

impl SigningKey {
    /// A new key from the system's randomness.
    pub fn generate() -> Result<Self, KeyError> {
        let mut bytes = [0; 35];
        rand::rngs::SysRng.try_fill_bytes(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        let [a, b, c, seed @ ..] = bytes;
        Self::from_seed(seed, &format!("a_{:06x}", u32::from_be_bytes([0, a, b, c])))
    }

    /// A key with a given seed and version.
    pub fn from_seed(seed: [u8; 32], version: &str) -> Result<Self, KeyError> {
        if version.is_empty() || !version.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(KeyError::Format);
        }
        let mut der = [0; 48];
        der[..16].copy_from_slice(&PKCS8_PREFIX);
        der[16..].copy_from_slice(&seed);
        let pair = Ed25519KeyPair::from_der(&der, version.to_owned()).map_err(|_| KeyError::Seed)?;
        Ok(Self { pair, key_id: format!("ed25519:{version}"), seed })
    }

    /// Reads `ed25519 a_xxxx base64seed`.
    pub fn from_file_format(text: &str) -> Result<Self, KeyError> {
        let mut words = text.split_ascii_whitespace();
        let (Some("ed25519"), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(KeyError::Format);
        };
        let seed = BASE64.decode(seed).ok().and_then(|seed| seed.try_into().ok()).ok_or(KeyError::Seed)?;
        Self::from_seed(seed, version)
    }

    /// What [`Self::from_file_format`] reads, with a line end.
    pub fn to_file_format(&self) -> String {
        format!("ed25519 {} {}\n", self.pair.version(), BASE64.encode(self.seed))
    }

    /// `ed25519:VERSION`
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The public half, in unpadded base64.
    pub fn public_key_base64(&self) -> String {
        BASE64.encode(self.pair.public_key())
    }

    /// The public half.
    pub fn public_key(&self) -> [u8; 32] {
        self.pair.public_key()
    }

    /// The key as ruma's requests want it.
    pub fn pair(&self) -> &Ed25519KeyPair {
        &self.pair
    }

    /// The signature over some bytes, in unpadded base64.
    pub fn sign(&self, message: &[u8]) -> String {
        BASE64.encode(self.pair.sign(message).as_bytes())
    }

    /// Signs any JSON object (not an event) and returns it with the signature added.
    ///
    /// Spec: appendices, "Signing JSON".
    pub fn sign_json(&self, json: &str, entity: &str) -> Result<String, serde_json::Error> {
        let mut object = Object::parse(json)?;
        let mut message = String::with_capacity(json.len());
        object.write_where(&mut message, |key| !matches!(key, "signatures" | "unsigned"));
        let signature = self.sign(message.as_bytes());
        add_signature(&mut object, entity, &self.key_id, signature);
        Ok(object.to_canonical())
    }
}

/// Adds a signature beside those that are there.
pub(crate) fn add_signature(object: &mut Object<'_>, entity: &str, key_id: &str, signature: String) {
    let mut of_entity = object
        .get("signatures")
        .and_then(Json::as_object)
        .and_then(|signatures| signatures.get(entity))
        .and_then(Json::as_object)
        .cloned()
        .unwrap_or_default();
    of_entity.insert(key_id.to_owned(), Json::Str(signature.into()));
    object.object_mut("signatures").insert(entity.to_owned(), Json::Object(of_entity));
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SigningKey").field("key_id", &self.key_id).finish_non_exhaustive()
    }
}
