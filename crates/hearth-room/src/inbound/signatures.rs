//! Signatures of many events: all keys asked for at once, checked on all cores.

use std::collections::HashMap;
use std::sync::Arc;

use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_matrix::signatures::{VerifyError, key_ids, required, verify, verify_signature_of};
use hearth_matrix::{Pdu, RoomVersionRules};

use super::{Neighbours, WantedKey};

/// Fewer events than this are checked where the caller stands: that takes no longer than to ask another thread, and with all the
/// signatures that are looked at a few milliseconds.
const FEW: usize = 4;

/// A public key, and when it is known to have been valid.
type KeyAt = (Option<i64>, [u8; 32]);

/// Keys by server and id.
#[derive(Default)]
struct Keys(HashMap<(OwnedServerName, String), Vec<KeyAt>>);

impl Keys {
    fn new(found: Vec<(WantedKey, [u8; 32])>) -> Self {
        let mut keys = Self::default();
        for (wanted, key) in found {
            keys.0.entry((wanted.server, wanted.key_id)).or_default().push((wanted.at, key));
        }
        keys
    }

    fn verify(&self, pdu: &Pdu, rules: &RoomVersionRules) -> Result<(), VerifyError> {
        let at = valid_at(pdu, rules);
        verify(pdu, rules, |server, key_id| self.get(server, key_id, at))
    }

    fn get(&self, server: &ServerName, key_id: &str, at: Option<i64>) -> Option<[u8; 32]> {
        let known = self.0.get(&(server.to_owned(), key_id.to_owned()))?;
        known.iter().find(|(valid_at, _)| *valid_at == at).map(|(_, key)| *key)
    }
}

/// Checks the signature of one server, whether the event needs it or not.
pub(super) async fn check_signature_of(
    neighbours: &dyn Neighbours,
    pdu: &Pdu,
    server: &ServerName,
    rules: &RoomVersionRules,
) -> Result<(), VerifyError> {
    let at = valid_at(pdu, rules);
    let wanted = key_ids(pdu, server).into_iter().map(|key_id| WantedKey { server: server.to_owned(), key_id, at });
    let keys = Keys::new(neighbours.keys(wanted.collect()).await);
    verify_signature_of(pdu, server, rules, |server, key_id| keys.get(server, key_id, at))
}

fn valid_at(pdu: &Pdu, rules: &RoomVersionRules) -> Option<i64> {
    rules.enforce_key_validity.then_some(pdu.origin_server_ts)
}

/// An event, and the rules of its room.
type Ruled = (Arc<Pdu>, &'static RoomVersionRules);

fn wanted(events: &[Ruled]) -> Vec<WantedKey> {
    let mut all = Vec::new();
    for (pdu, rules) in events {
        for server in required(pdu, rules).unwrap_or_default() {
            let at = valid_at(pdu, rules);
            all.extend(key_ids(pdu, &server).into_iter().map(|key_id| WantedKey {
                server: server.clone(),
                key_id,
                at,
            }));
        }
    }
    all.sort_unstable_by(|a, b| (&a.server, &a.key_id, a.at).cmp(&(&b.server, &b.key_id, b.at)));
    all.dedup();
    all
}

/// Checks with the keys at hand only; the outcomes are in the order of the events.
pub(super) async fn check_at_hand(neighbours: &dyn Neighbours, events: Vec<Ruled>) -> Vec<Result<(), VerifyError>> {
    let keys = Keys::new(neighbours.keys_at_hand(&wanted(&events)));
    verified(events, keys).await
}

/// The same of one event.
pub(super) fn check_one_at_hand(
    neighbours: &dyn Neighbours,
    pdu: Arc<Pdu>,
    rules: &'static RoomVersionRules,
) -> Result<(), VerifyError> {
    let event = (pdu, rules);
    let keys = Keys::new(neighbours.keys_at_hand(&wanted(std::slice::from_ref(&event))));
    keys.verify(&event.0, rules)
}

/// Checks events; the outcomes are in their order.
pub(super) async fn check(
    neighbours: &dyn Neighbours,
    pdus: &[Arc<Pdu>],
    rules: &'static RoomVersionRules,
) -> Vec<Result<(), VerifyError>> {
    if pdus.is_empty() {
        return Vec::new();
    }
    let events: Vec<Ruled> = pdus.iter().map(|pdu| (pdu.clone(), rules)).collect();
    let keys = Keys::new(neighbours.keys(wanted(&events)).await);
    verified(events, keys).await
}

/// Many are checked on all cores, and keep none of the threads that serve others.
async fn verified(events: Vec<Ruled>, keys: Keys) -> Vec<Result<(), VerifyError>> {
    if events.len() < FEW {
        return events.iter().map(|(pdu, rules)| keys.verify(pdu, rules)).collect();
    }
    let (count, keys) = (events.len(), Arc::new(keys));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut parts = Vec::with_capacity(cores);
    for part in events.chunks(count.div_ceil(cores)) {
        let (part, keys) = (part.to_vec(), keys.clone());
        let len = part.len();
        let check = move || part.iter().map(|(pdu, rules)| keys.verify(pdu, rules)).collect::<Vec<_>>();
        parts.push((len, tokio::task::spawn_blocking(check)));
    }
    let mut outcomes = Vec::with_capacity(count);
    for (len, part) in parts {
        // A panic is no proof.
        outcomes.extend(part.await.unwrap_or_else(|_| vec![Err(VerifyError::Malformed); len]));
    }
    outcomes
}
