//! What we say about keys: our own document, and those of others with our signature beside theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::PoisonError;
use std::time::Duration;

use hearth_matrix::ruma::OwnedServerName;
use hearth_store::{KeyDocument, StoreError};
use tokio::sync::SemaphorePermit;

use crate::Remote;
use crate::key_document::own_document;
use crate::remote::Inner;

/// Our keys are good for so long after somebody asked.
const OWN_VALIDITY: i64 = 24 * 3_600_000;
/// We answer about so many servers at once,
const MOST_SERVERS: usize = 2_000;
/// with documents of so many bytes,
const MOST_BYTES: usize = 2 * 1024 * 1024;
/// and ask so many of them anew for it.
const MOST_ASKED: usize = 100;
/// Documents that are read in one go, before their bytes are looked at.
const READ_AT_ONCE: usize = 50;
/// So many such answers are made at once.
pub(crate) const MOST_VOUCHING: usize = 8;
/// How often old documents are looked for, and how old those are.
const SWEEP_EVERY: Duration = Duration::from_secs(60 * 60);
const DOCUMENT_KEPT_FOR: i64 = 30 * 24 * 3_600_000;
/// So many go in one write.
const SWEPT_AT_ONCE: usize = 500;

impl Remote {
    /// Our own keys, signed: what `/_matrix/key/v2/server` answers.
    pub fn own_keys(&self) -> Result<String, serde_json::Error> {
        let Inner { server_name, signing_key, own_keys, time, .. } = &*self.0;
        let own = own_keys.read().unwrap_or_else(PoisonError::into_inner);
        own_document(server_name, &signing_key.get(), &own, time.now_ms() + OWN_VALIDITY)
    }

    /// What we know of other servers' keys, signed by them and by us. For each server: until when, at least, its keys should be
    /// good. A server that can't be asked any more is answered for with what it said last; so is one that is not to be asked,
    /// which `may_ask` says of each that has to be. What would make the answer too large is left out.
    pub async fn vouch(
        &self,
        wanted: BTreeMap<OwnedServerName, i64>,
        mut may_ask: impl FnMut() -> bool,
    ) -> Result<Vec<String>, StoreError> {
        let Inner { server_name, keys, time, .. } = &*self.0;
        let mut wanted: BTreeMap<OwnedServerName, i64> = wanted.into_iter().take(MOST_SERVERS).collect();
        let own = wanted.remove(server_name).and_then(|_| self.own_keys().ok());
        let mut documents = self.documents(&wanted).await?;
        // Who would not be told of any more is not asked.
        if !documents.is_cut {
            let now = time.now_ms();
            let stale: BTreeSet<OwnedServerName> = wanted
                .iter()
                .filter(|(server, until)| {
                    documents.by_server.get(server.as_str()).is_none_or(|document| {
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
                // Who only waits for others holds nothing meanwhile.
                drop(documents);
                keys.refresh(stale).await;
                documents = self.documents(&wanted).await?;
            }
        }
        Ok(own.into_iter().chain(self.signed(documents).await).collect())
    }

    /// What servers said of their keys, as far as there is room for it in an answer.
    async fn documents(&self, servers: &BTreeMap<OwnedServerName, i64>) -> Result<Documents<'_>, StoreError> {
        let turn = self.0.vouching.acquire().await.ok();
        let names: Vec<String> = servers.keys().map(ToString::to_string).collect();
        let read = self.0.store.read(move |tx| {
            let (mut by_server, mut bytes) = (BTreeMap::new(), 0);
            for part in names.chunks(READ_AT_ONCE) {
                let part: Vec<&str> = part.iter().map(String::as_str).collect();
                for (server, document) in tx.server_keys().documents_of(&part)? {
                    bytes += document.json.len();
                    if bytes > MOST_BYTES {
                        return Ok((by_server, true));
                    }
                    by_server.insert(server, document);
                }
            }
            Ok((by_server, false))
        });
        let (by_server, is_cut) = read.await?;
        Ok(Documents { by_server, is_cut, _turn: turn })
    }

    /// Documents with our signature. That many are signed holds up nobody else.
    async fn signed(&self, documents: Documents<'_>) -> Vec<String> {
        let (key, server_name) = (self.0.signing_key.get(), self.0.server_name.clone());
        let Documents { by_server, _turn, .. } = documents;
        let sign = move || {
            let signed = by_server.into_values().map(|document| key.sign_json(&document.json, server_name.as_str()));
            signed.filter_map(Result::ok).collect()
        };
        // Whoever asks is told nothing if that panics.
        tokio::task::spawn_blocking(sign).await.unwrap_or_default()
    }

    /// Keeps house for ever.
    pub async fn keep_house(self) {
        let mut rounds = tokio::time::interval(SWEEP_EVERY);
        rounds.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            rounds.tick().await;
            if let Err(error) = self.forget_documents().await {
                tracing::warn!(%error, "old documents of keys could not be forgotten");
            }
        }
    }

    /// Forgets what strangers said of their keys long ago. The keys stay: old events are proved by them.
    pub async fn forget_documents(&self) -> Result<(), StoreError> {
        let before = self.0.time.now_ms() - DOCUMENT_KEPT_FOR;
        let sweep =
            || self.0.store.write_quiet(Vec::new(), move |tx| tx.server_keys().sweep_documents(before, SWEPT_AT_ONCE));
        while sweep().await? == SWEPT_AT_ONCE {}
        Ok(())
    }
}

/// Documents for one answer; while it is made, it has one of the few turns.
struct Documents<'r> {
    by_server: BTreeMap<String, KeyDocument>,
    /// Whether there are more.
    is_cut: bool,
    _turn: Option<SemaphorePermit<'r>>,
}
