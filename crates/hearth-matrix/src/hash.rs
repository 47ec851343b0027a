//! Hashes: of an event's content, and of the event itself (its id from room version 3 on).
//!
//! Spec: server-server API, "Calculating the content hash" and "Calculating the reference hash".

use base64::{
    Engine as _, alphabet,
    engine::{
        DecodePaddingMode,
        general_purpose::{GeneralPurpose, GeneralPurposeConfig},
    },
};
use ruma::{
    OwnedEventId,
    room_version_rules::{EventIdFormatVersion, RoomVersionRules},
};
use sha2::{Digest as _, Sha256};

use crate::{canonical::Object, redact::write_redacted};

const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_encode_padding(false)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent)
    .with_decode_allow_trailing_bits(true);

/// Unpadded base64, as the specification writes hashes, keys and signatures; reads padding too.
pub const BASE64: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);

/// Unpadded URL-safe base64, as event ids are written from room version 4 on.
pub const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// The hash over everything a sender wrote: all but `hashes`, `signatures` and `unsigned`.
pub fn content_hash(event: &Object<'_>) -> [u8; 32] {
    let mut out = String::with_capacity(1024);
    event.write_where(&mut out, |key| !matches!(key, "hashes" | "signatures" | "unsigned"));
    Sha256::digest(out.as_bytes()).into()
}

/// Whether an event of another server is as it was when it was hashed. What is not is taken redacted.
pub fn is_intact(json: &str) -> bool {
    let Ok(event) = Object::parse(json) else { return false };
    let stated = event.get("hashes").and_then(|hashes| hashes.as_object()).and_then(|hashes| hashes.get_str("sha256"));
    stated.and_then(|stated| BASE64.decode(stated).ok()).is_some_and(|stated| stated == content_hash(&event))
}

/// The hash over the redacted event without its signatures.
pub fn reference_hash(event: &Object<'_>, rules: &RoomVersionRules) -> [u8; 32] {
    Sha256::digest(signed_bytes(event, rules).as_bytes()).into()
}

/// What signatures and the reference hash of an event are made over.
pub(crate) fn signed_bytes(event: &Object<'_>, rules: &RoomVersionRules) -> String {
    let mut out = String::with_capacity(1024);
    write_redacted(event, &rules.redaction, &["signatures", "unsigned"], &mut out);
    out
}

/// The event id that follows from a reference hash, in room versions 3 and later.
pub fn event_id_of(hash: &[u8; 32], rules: &RoomVersionRules) -> Option<OwnedEventId> {
    let encoded = match rules.event_id_format {
        EventIdFormatVersion::V1 => return None,
        EventIdFormatVersion::V2 => BASE64.encode(hash),
        _ => BASE64_URL.encode(hash),
    };
    OwnedEventId::try_from(format!("${encoded}")).ok()
}
