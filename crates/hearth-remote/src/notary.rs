//! What we say about keys: our own document, and those of others with our signature beside theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;

use hearth_matrix::ruma::OwnedServerName;
use hearth_store::StoreError;

use crate::Remote;
use crate::key_document::own_document;
use crate::remote::Inner;

/// Our keys are good for so long after somebody asked.
const OWN_VALIDITY: i64 = 24 * 3_600_000;
/// We answer about so many servers at once,
const MOST_SERVERS: usize = 2_000;
/// and ask so many of them anew for it.
const MOST_ASKED: usize = 100;

impl Remote {
    /// Our own keys, signed: what `/_matrix/key/v2/server` answers.
    pub fn own_keys(&self) -> Result<String, serde_json::Error> {
        let Inner { server_name, signing_key, own_keys, time, .. } = &*self.0;
        let own = own_keys.read().unwrap_or_else(PoisonError::into_inner);
        own_document(server_name, &signing_key.get(), &own, time.now_ms() + OWN_VALIDITY)
    }

    /// What we know of other servers' keys, signed by them and by us. For each server: until when, at least, its keys should be
    /// good. A server that can't be asked any more is answered for with what it said last; so is one that is not to be asked,
    /// which `may_ask` says of each that has to be.
    pub async fn vouch(
        &self,
        wanted: BTreeMap<OwnedServerName, i64>,
        mut may_ask: impl FnMut() -> bool,
    ) -> Result<Vec<String>, StoreError> {
        let Inner { server_name, signing_key, keys, store, time, .. } = &*self.0;
        let wanted: BTreeMap<OwnedServerName, i64> = wanted.into_iter().take(MOST_SERVERS).collect();
        let names: BTreeSet<String> =
            wanted.keys().filter(|server| *server != server_name).map(ToString::to_string).collect();
        let documents = async || {
            let names = names.clone();
            let read = store.read(move |tx| {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                tx.server_keys().documents_of(&names)
            });
            Ok::<BTreeMap<String, _>, StoreError>(read.await?.into_iter().collect())
        };
        let mut known = documents().await?;
        let now = time.now_ms();
        let stale: BTreeSet<OwnedServerName> = wanted
            .iter()
            .filter(|(server, until)| {
                *server != server_name
                    && known.get(server.as_str()).is_none_or(|document| {
                        // An answer serves for half of its life. What it says of that is a stranger's.
                        let half = document.valid_until_ts.saturating_sub(document.fetched_ts).max(0) / 2;
                        document.valid_until_ts < **until || document.fetched_ts.saturating_add(half) <= now
                    })
            })
            .map(|(server, _)| server.clone())
            .take(MOST_ASKED)
            .take_while(|_| may_ask())
            .collect();
        if !stale.is_empty() {
            keys.refresh(stale).await;
            known = documents().await?;
        }
        let mut answer = Vec::with_capacity(known.len() + 1);
        if wanted.contains_key(server_name) {
            answer.extend(self.own_keys().ok());
        }
        for document in known.into_values() {
            answer.extend(signing_key.get().sign_json(&document.json, server_name.as_str()).ok());
        }
        Ok(answer)
    }
}
