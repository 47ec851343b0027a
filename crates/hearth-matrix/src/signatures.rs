//! Signatures of events: whose are needed, checking them, and adding ours.
//!
//! Which keys a server had when is not known here; the caller looks them up.
//! Spec: server-server API, "Validating hashes and signatures on received events".

use base64::Engine as _;
use ruma::{OwnedServerName, ServerName, SigningKeyAlgorithm, UserId, signatures::verify_canonical_json_bytes};

use crate::{
    Pdu, RoomVersionRules, SigningKey,
    canonical::{Json, Object},
    hash::{BASE64, signed_bytes},
    key::add_signature,
    policy_server::POLICY_KEY_ID,
};

/// Why the signatures of an event do not suffice.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum VerifyError {
    /// The event's JSON or an id in it cannot be read.
    #[error("malformed event")]
    Malformed,
    /// A server that must have signed has not, with an algorithm we know.
    #[error("not signed by {0}")]
    Unsigned(OwnedServerName),
    /// There are signatures of this server, but none by a key at hand.
    #[error("no key of {0} at hand")]
    UnknownKey(OwnedServerName),
    /// A signature is wrong.
    #[error("wrong signature of {0}")]
    Wrong(OwnedServerName),
}

/// The servers that must have signed an event of this room version.
pub fn required(pdu: &Pdu, rules: &RoomVersionRules) -> Result<Vec<OwnedServerName>, VerifyError> {
    let mut servers = Vec::with_capacity(1);
    let mut need = |server: &ServerName| {
        if !servers.iter().any(|known: &OwnedServerName| known == server) {
            servers.push(server.to_owned());
        }
    };
    let content = match &*pdu.kind {
        "m.room.member" => Some(Object::parse(pdu.content.get()).map_err(|_| VerifyError::Malformed)?),
        _ => None,
    };
    // An invite through a third party is signed by whoever redeemed it, not by the inviter's server.
    let through_third_party = content.as_ref().is_some_and(|content| {
        content.get_str("membership") == Some("invite") && content.get("third_party_invite").is_some()
    });
    if !through_third_party {
        need(pdu.sender.server_name());
    }
    if rules.signatures.check_event_id_server {
        need(pdu.event_id.server_name().ok_or(VerifyError::Malformed)?);
    }
    if rules.signatures.check_join_authorised_via_users_server
        && let Some(user) = content.as_ref().and_then(|content| content.get("join_authorised_via_users_server"))
    {
        let user = user.as_str().and_then(|user| <&UserId>::try_from(user).ok()).ok_or(VerifyError::Malformed)?;
        need(user.server_name());
    }
    Ok(servers)
}

/// The ids of the Ed25519 keys with which a server has signed.
pub fn key_ids(pdu: &Pdu, server: &ServerName) -> Vec<String> {
    let Ok(event) = Object::parse(&pdu.json) else { return Vec::new() };
    signatures_of(&event, server).map(|(key_id, _)| key_id.to_owned()).collect()
}

/// So many signatures of one server are looked at; each costs some time. None has so many keys.
const MOST_LOOKED_AT: usize = 16;

fn signatures_of<'e>(event: &'e Object<'_>, server: &ServerName) -> impl Iterator<Item = (&'e str, &'e str)> {
    event
        .get("signatures")
        .and_then(Json::as_object)
        .and_then(|signatures| signatures.get(server.as_str()))
        .and_then(Json::as_object)
        .into_iter()
        .flat_map(Object::iter)
        // A policy server's key is known to its rooms alone, and vouches for nothing that its server sends.
        .filter(|(key_id, _)| key_id.starts_with("ed25519:") && *key_id != POLICY_KEY_ID)
        .filter_map(|(key_id, signature)| Some((key_id, signature.as_str()?)))
        .take(MOST_LOOKED_AT)
}

/// Checks that every server that must has signed the event.
///
/// `key` gives the public key of a server by its id, if it was valid when the event was sent (the
/// caller knows, and `rules.enforce_key_validity` says whether it matters). One good signature by
/// each server is enough, among the first few that there are of it; keys that are not at hand are passed over.
pub fn verify(
    pdu: &Pdu,
    rules: &RoomVersionRules,
    key: impl Fn(&ServerName, &str) -> Option<[u8; 32]>,
) -> Result<(), VerifyError> {
    let event = Object::parse(&pdu.json).map_err(|_| VerifyError::Malformed)?;
    let message = signed_bytes(&event, rules);
    required(pdu, rules)?.iter().try_for_each(|server| verify_one(&event, &message, server, &key))
}

/// Checks that one server has signed the event, whether it must or not.
pub fn verify_signature_of(
    pdu: &Pdu,
    server: &ServerName,
    rules: &RoomVersionRules,
    key: impl Fn(&ServerName, &str) -> Option<[u8; 32]>,
) -> Result<(), VerifyError> {
    let event = Object::parse(&pdu.json).map_err(|_| VerifyError::Malformed)?;
    verify_one(&event, &signed_bytes(&event, rules), server, &key)
}

fn verify_one(
    event: &Object<'_>,
    message: &str,
    server: &ServerName,
    key: &impl Fn(&ServerName, &str) -> Option<[u8; 32]>,
) -> Result<(), VerifyError> {
    let mut verdict = VerifyError::Unsigned(server.to_owned());
    for (key_id, signature) in signatures_of(event, server) {
        let Some(public_key) = key(server, key_id) else {
            if matches!(verdict, VerifyError::Unsigned(_)) {
                verdict = VerifyError::UnknownKey(server.to_owned());
            }
            continue;
        };
        if verify_bytes(message.as_bytes(), &public_key, signature) {
            return Ok(());
        }
        verdict = VerifyError::Wrong(server.to_owned());
    }
    Err(verdict)
}

/// Whether a signature (in base64) over some bytes is by an Ed25519 key.
pub fn verify_bytes(message: &[u8], public_key: &[u8], signature: &str) -> bool {
    BASE64.decode(signature).is_ok_and(|signature| {
        verify_canonical_json_bytes(&SigningKeyAlgorithm::Ed25519, public_key, &signature, message).is_ok()
    })
}

/// Whether any JSON object (not an event) is signed by an entity with a given key.
///
/// Spec: appendices, "Checking for a Signature".
pub fn verify_json(json: &str, entity: &str, key_id: &str, public_key: &[u8]) -> bool {
    let Ok(object) = Object::parse(json) else { return false };
    let signature = object
        .get("signatures")
        .and_then(Json::as_object)
        .and_then(|signatures| signatures.get(entity))
        .and_then(Json::as_object)
        .and_then(|of_entity| of_entity.get_str(key_id));
    let Some(signature) = signature else { return false };
    let mut message = String::with_capacity(json.len());
    object.write_where(&mut message, |key| !matches!(key, "signatures" | "unsigned"));
    verify_bytes(message.as_bytes(), public_key, signature)
}

/// Adds our signature to an event that another server made (an invite to one of our users, a join
/// that we authorise). Takes and returns JSON in federation format.
pub fn sign_event(
    json: &str,
    server_name: &ServerName,
    key: &SigningKey,
    rules: &RoomVersionRules,
) -> Result<String, serde_json::Error> {
    let mut event = Object::parse(json)?;
    let signature = key.sign(signed_bytes(&event, rules).as_bytes());
    add_signature(&mut event, server_name.as_str(), key.key_id(), signature);
    Ok(event.to_canonical())
}

/// Signatures of a server that was asked for one, at most.
const MOST_SIGNATURES: usize = 8;
/// Bytes of a signature or of its key's id, at most.
const MAX_SIGNATURE_BYTES: usize = 255;

/// An event of ours with the signatures of a server that was asked to sign it, too; nothing else of its copy is taken, and nothing
/// that is no signature.
pub fn countersigned(ours: &str, theirs: &str, server: &ServerName) -> Result<String, serde_json::Error> {
    let mut event = Object::parse(ours)?;
    let copy = Object::parse(theirs)?;
    for (key_id, signature) in signatures_of(&copy, server).take(MOST_SIGNATURES) {
        let fits = key_id.len() <= MAX_SIGNATURE_BYTES && signature.len() <= MAX_SIGNATURE_BYTES;
        // Ours has what it needs of a policy server, which may be the same server.
        if fits && key_id != POLICY_KEY_ID {
            add_signature(&mut event, server.as_str(), key_id, signature.to_owned());
        }
    }
    Ok(event.to_canonical())
}

#[cfg(test)]
mod tests;
