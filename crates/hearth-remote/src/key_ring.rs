//! Keys of other servers: from memory, from the store, from the servers themselves, or from notaries that know them.
//!
//! Many servers are asked at once, each by one task, whoever waits for it; nobody waits longer than the ring's patience. A
//! server that did not answer is left alone for a while.
//! Spec: server-server API, "Retrieving server keys"; room versions 5 and later, "Signing key validity period".

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt as _, Shared};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_store::{KeyDocument, Noun, ServerKey, Store, StoreError, WallTime};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use tokio::sync::Semaphore;

use crate::key_document::{ToldKeys, is_good_at};
use crate::key_sources::KeySources;

/// Servers whose keys are kept in memory, and servers that did not answer.
const MOST_SERVERS: usize = 20_000;
/// Keys that are kept in memory.
const MOST_KEYS: u64 = 10 * MOST_SERVERS as u64;
/// So many servers are asked at once for those who need them, and for those who ask us.
const MOST_AT_ONCE: usize = 256;
const MOST_FOR_OTHERS: usize = 32;
/// So many are asked or wait for that: of the events of a large room, to let somebody in, and for others.
const MOST_UNDER_WAY: [usize; 3] = [20_000, 1_000, 200];
/// Notaries are not asked so soon about a server of which they knew nothing.
const CALM_AFTER_NOTARIES: i64 = 60_000;
/// Whoever wants the keys of many servers waits for so many rounds of them.
const MOST_ROUNDS: u32 = 10;
/// A longer document is used, but not kept for those who ask us about the server.
const MAX_KEPT_DOCUMENT_BYTES: usize = 16 * 1024;
/// A server that has answered is not asked again so soon, whatever is missing; one that always has us ask again, later each time.
const CALM_AFTER_ANSWER: i64 = 30_000;
const MAX_CALM_AFTER_ANSWER: i64 = 10 * 60_000;
/// For whoever needs a key to let somebody in, a server is asked after this part of it,
const ENTRY_PART: i64 = 3;
/// and this soon, however often it failed: it is there, for it sends.
const CALM_BEFORE_ENTRY: i64 = 10_000;
const FIRST_FAILURE: i64 = 30_000;
const MAX_FAILURE: i64 = 10 * 60_000;

/// A key that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WantedKey {
    /// Whose.
    pub server: OwnedServerName,
    /// Which.
    pub key_id: String,
    /// When it must have been good; without, it matters not (room versions 1 to 4).
    pub at: Option<i64>,
}

/// How long the ring waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For servers, before notaries are asked beside them.
    pub before_notaries: Duration,
    /// For everybody.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { before_notaries: Duration::from_secs(2), whole: Duration::from_secs(20) }
    }
}

/// Keys that were found, and until when each is good.
#[derive(Clone, Debug, Default)]
pub struct FoundKeys(HashMap<OwnedServerName, Arc<Vec<ServerKey>>>);

impl FoundKeys {
    /// A key that was good at a time; without a time, whenever it was.
    pub fn get(&self, server: &ServerName, key_id: &str, at: Option<i64>) -> Option<[u8; 32]> {
        let key = self.0.get(server)?.iter().find(|key| key.key_id == key_id)?;
        is_good_at(key, at).then_some(key.public_key)
    }

    fn has(&self, wanted: &WantedKey) -> bool {
        self.get(&wanted.server, &wanted.key_id, wanted.at).is_some()
    }
}

/// The ring. Cheap to clone; clones share what they know.
#[derive(Clone)]
pub struct KeyRing(Arc<Ring>);

struct Ring {
    /// Our own name and keys: events of our users come back to us from others.
    own: (OwnedServerName, RwLock<Arc<Vec<ServerKey>>>),
    sources: KeySources,
    store: Store,
    time: WallTime,
    patience: Patience,
    known: Cache<OwnedServerName, Arc<Vec<ServerKey>>, ByKeys>,
    asked: Cache<OwnedServerName, Asked>,
    /// Servers of which notaries knew nothing, or not what was wanted, with when that was.
    unknown_to_notaries: Cache<OwnedServerName, i64>,
    under_way: Mutex<HashMap<OwnedServerName, Shared<BoxFuture<'static, ()>>>>,
    lanes: [Lane; 3],
}

/// Each kind of want has turns of its own, and room for so many.
struct Lane {
    turns: Semaphore,
    under_way: AtomicUsize,
}

/// What is kept of a server weighs as much as it has keys.
#[derive(Clone)]
struct ByKeys;

impl Weighter<OwnedServerName, Arc<Vec<ServerKey>>> for ByKeys {
    fn weight(&self, _: &OwnedServerName, keys: &Arc<Vec<ServerKey>>) -> u64 {
        1 + keys.len() as u64
    }
}

/// How it went when a server was asked.
#[derive(Clone, Copy, Default)]
struct Asked {
    /// When that ended.
    at: i64,
    /// How often in a row it failed.
    failures: u32,
    /// When it answered last, and for how long it is left alone for that.
    answer: Option<(i64, i64)>,
}

impl Asked {
    fn answered(self, now: i64) -> Self {
        let calm = match self.answer {
            Some((at, calm)) if now < at + 2 * calm => (2 * calm).min(MAX_CALM_AFTER_ANSWER),
            _ => CALM_AFTER_ANSWER,
        };
        Self { at: now, failures: 0, answer: Some((now, calm)) }
    }

    fn failed(self, now: i64) -> Self {
        Self { at: now, failures: self.failures.saturating_add(1), ..self }
    }

    fn not_before(self, whom: For) -> i64 {
        let is_entry = whom == For::Entry;
        let after_failure = match self.failures {
            0 => 0,
            _ if is_entry => self.at + CALM_BEFORE_ENTRY,
            failures => self.at + (FIRST_FAILURE << (failures - 1).min(10)).min(MAX_FAILURE),
        };
        // A failure in between does not shorten it.
        let after_answer = self.answer.map_or(0, |(at, calm)| at + if is_entry { calm / ENTRY_PART } else { calm });
        after_failure.max(after_answer)
    }
}

/// For whom keys are looked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    /// Events: whoever failed lately is left alone.
    Events,
    /// A request of the server itself.
    Entry,
    /// Others who ask us about it.
    Others,
}

impl KeyRing {
    pub(crate) fn new(
        own: (OwnedServerName, Vec<ServerKey>),
        sources: KeySources,
        store: Store,
        time: WallTime,
        patience: Patience,
    ) -> Self {
        Self(Arc::new(Ring {
            own: (own.0, RwLock::new(Arc::new(own.1))),
            sources,
            store,
            time,
            patience,
            known: Cache::with_weighter(MOST_SERVERS, MOST_KEYS, ByKeys),
            asked: Cache::new(MOST_SERVERS),
            unknown_to_notaries: Cache::new(MOST_SERVERS),
            under_way: Mutex::default(),
            lanes: [MOST_AT_ONCE, MOST_AT_ONCE, MOST_FOR_OTHERS]
                .map(|most| Lane { turns: Semaphore::new(most), under_way: AtomicUsize::new(0) }),
        }))
    }

    fn own(&self) -> Arc<Vec<ServerKey>> {
        self.0.own.1.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Our own keys are others from now on.
    pub(crate) fn set_own(&self, keys: Vec<ServerKey>) {
        *self.0.own.1.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys);
    }

    /// Finds keys, as many of them as can be had.
    pub async fn find(&self, wanted: Vec<WantedKey>) -> Result<FoundKeys, StoreError> {
        self.find_for(For::Events, wanted).await
    }

    async fn find_for(&self, whom: For, wanted: Vec<WantedKey>) -> Result<FoundKeys, StoreError> {
        let ring = &self.0;
        let mut found = FoundKeys::default();
        for wanted in &wanted {
            let own = (wanted.server == ring.own.0).then(|| self.own());
            if let Some(keys) = own.or_else(|| ring.known.get(&wanted.server)) {
                found.0.insert(wanted.server.clone(), keys);
            }
        }
        let mut missing = wanted;
        missing.retain(|wanted| wanted.server != ring.own.0 && !found.has(wanted));
        self.recall(&mut missing, &mut found).await?;
        if !missing.is_empty() {
            self.ask(whom, missing, &mut found, ring.sources.has_notaries()).await;
        }
        Ok(found)
    }

    /// How many servers are asked, or are to be asked.
    pub fn under_way(&self) -> usize {
        self.0.under_way.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// A key that is in memory, without asking anybody for it.
    pub fn at_hand(&self, wanted: &WantedKey) -> Option<[u8; 32]> {
        let own = (wanted.server == self.0.own.0).then(|| self.own());
        let keys = own.or_else(|| self.0.known.get(&wanted.server))?;
        let key = keys.iter().find(|key| key.key_id == wanted.key_id)?;
        is_good_at(key, wanted.at).then_some(key.public_key)
    }

    /// What one request needs: a key that is good now.
    pub(crate) async fn find_now(&self, server: &ServerName, key_ids: &[&str]) -> Result<FoundKeys, StoreError> {
        let now = self.0.time.now_ms();
        let wanted = key_ids.iter().map(|key_id| WantedKey {
            server: server.to_owned(),
            key_id: (*key_id).to_owned(),
            at: Some(now),
        });
        self.find_for(For::Entry, wanted.collect()).await
    }

    /// Asks servers for their keys although some are known, if it is not too soon; for those who ask us about them.
    pub(crate) async fn refresh(&self, servers: BTreeSet<OwnedServerName>) {
        // A key of this name there is not: everybody is asked.
        let wanted = servers.into_iter().map(|server| WantedKey { server, key_id: String::new(), at: None }).collect();
        // Without notaries: two that are each other's would ask in circles.
        self.ask(For::Others, wanted, &mut FoundKeys::default(), false).await;
    }

    /// A notary's key, as the notary itself tells.
    pub(crate) async fn of_notary(&self, server: &ServerName, key_id: &str) -> Option<[u8; 32]> {
        let wanted = WantedKey { server: server.to_owned(), key_id: key_id.to_owned(), at: Some(self.0.time.now_ms()) };
        let mut found = FoundKeys::default();
        found.0.extend(self.0.known.get(server).map(|keys| (server.to_owned(), keys)));
        let mut missing = vec![wanted];
        missing.retain(|wanted| !found.has(wanted));
        self.recall(&mut missing, &mut found).await.ok()?;
        if !missing.is_empty() {
            self.ask(For::Entry, missing, &mut found, false).await;
        }
        found.get(server, key_id, Some(self.0.time.now_ms()))
    }

    async fn recall(&self, missing: &mut Vec<WantedKey>, found: &mut FoundKeys) -> Result<(), StoreError> {
        if missing.is_empty() {
            return Ok(());
        }
        let servers: BTreeSet<String> = missing.iter().map(|wanted| wanted.server.to_string()).collect();
        let stored = self.0.store.read(move |tx| {
            let servers: Vec<&str> = servers.iter().map(String::as_str).collect();
            tx.server_keys().of_servers(&servers)
        });
        let mut by_server: HashMap<OwnedServerName, Vec<ServerKey>> = HashMap::new();
        for (server, key) in stored.await? {
            if let Ok(server) = ServerName::parse(server) {
                by_server.entry(server).or_default().push(key);
            }
        }
        for (server, keys) in by_server {
            let keys = Arc::new(keys);
            self.0.known.insert(server.clone(), keys.clone());
            found.0.insert(server, keys);
        }
        missing.retain(|wanted| !found.has(wanted));
        Ok(())
    }

    async fn ask(&self, whom: For, mut missing: Vec<WantedKey>, found: &mut FoundKeys, through_notaries: bool) {
        let ring = &self.0;
        let servers: BTreeSet<OwnedServerName> = missing.iter().map(|wanted| wanted.server.clone()).collect();
        let rounds = match whom {
            For::Events => u32::try_from(servers.len() / MOST_AT_ONCE).map_or(MOST_ROUNDS, |more| more + 1),
            For::Entry | For::Others => 1,
        };
        let mut answers: FuturesUnordered<_> = servers
            .into_iter()
            .filter_map(|server| self.ask_server(whom, &server).map(|answer| answer.map(move |()| server)))
            .collect();
        let mut notaries = std::pin::pin!(futures_util::future::OptionFuture::from(None));
        let mut notaries_asked = !through_notaries;
        let mut notaries_done = notaries_asked;
        let whole = tokio::time::sleep(ring.patience.whole * rounds.min(MOST_ROUNDS));
        let before_notaries = tokio::time::sleep(ring.patience.before_notaries);
        tokio::pin!(whole, before_notaries);
        loop {
            missing.retain(|wanted| !found.has(wanted));
            if missing.is_empty() || (answers.is_empty() && notaries_done) {
                return;
            }
            let mut patient = true;
            if notaries_asked || !answers.is_empty() {
                tokio::select! {
                    Some(server) = answers.next(), if !answers.is_empty() => {
                        if let Some(keys) = ring.known.get(&server) {
                            found.0.insert(server, keys);
                        }
                    }
                    () = &mut before_notaries, if !notaries_asked => patient = false,
                    learned = &mut notaries, if notaries_asked && !notaries_done => {
                        notaries_done = true;
                        let learned: Option<Vec<OwnedServerName>> = learned;
                        for server in learned.into_iter().flatten() {
                            if let Some(keys) = ring.known.get(&server) {
                                found.0.insert(server, keys);
                            }
                        }
                    }
                    () = &mut whole => return,
                }
            } else {
                patient = false;
            }
            if !patient {
                notaries_asked = true;
                notaries.set(Some(self.ask_notaries(missing.clone())).into());
            }
        }
    }

    /// Asks a server, or joins those who wait for its answer. Nothing if it is too soon to ask.
    fn ask_server(&self, whom: For, server: &OwnedServerName) -> Option<Shared<BoxFuture<'static, ()>>> {
        let ring = &self.0;
        let mut under_way = ring.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = under_way.get(server) {
            return Some(answer.clone());
        }
        let now = ring.time.now_ms();
        if ring.asked.get(server).is_some_and(|asked| now < asked.not_before(whom)) {
            return None;
        }
        let lane = &ring.lanes[whom as usize];
        if lane.under_way.load(Ordering::Relaxed) >= MOST_UNDER_WAY[whom as usize] {
            return None;
        }
        lane.under_way.fetch_add(1, Ordering::Relaxed);
        // However the task ends, it does not stay under way.
        let under = UnderWay { ring: self.clone(), server: server.clone(), whom };
        // A task of its own: it goes on when those who wait have lost their patience, and the next ones profit.
        let task = tokio::spawn(async move { under.ring.hear(under.whom, &under.server).await });
        let answer = task.map(|_| ()).boxed().shared();
        under_way.insert(server.clone(), answer.clone());
        Some(answer)
    }

    async fn hear(&self, whom: For, server: &OwnedServerName) {
        let ring = &self.0;
        let Ok(_turn) = ring.lanes[whom as usize].turns.acquire().await else { return };
        let heard = ring.sources.ask_itself(server).await;
        let now = ring.time.now_ms();
        let before = ring.asked.get(server).unwrap_or_default();
        let asked = match heard {
            Ok((told, json)) => {
                self.learn(&told, json, true).await;
                before.answered(now)
            }
            Err(error) => {
                tracing::debug!(%server, %error, "no keys from a server itself");
                ring.sources.discovery.doubt(server);
                before.failed(now)
            }
        };
        ring.asked.insert(server.clone(), asked);
    }

    /// A server answers what we ask it: if it had no answer about its keys, it may be asked again.
    pub(crate) fn answers(&self, server: &ServerName) {
        if let Some(asked) = self.0.asked.get(server).filter(|asked| asked.failures > 0) {
            self.0.asked.insert(server.to_owned(), Asked { failures: 0, ..asked });
        }
    }

    /// The servers of which notaries knew something.
    async fn ask_notaries(&self, missing: Vec<WantedKey>) -> Vec<OwnedServerName> {
        let mut by_server: BTreeMap<OwnedServerName, BTreeMap<String, i64>> = BTreeMap::new();
        let now = self.0.time.now_ms();
        let unknown = &self.0.unknown_to_notaries;
        for wanted in missing {
            if unknown.get(&wanted.server).is_some_and(|since| now < since + CALM_AFTER_NOTARIES) {
                continue;
            }
            let keys = by_server.entry(wanted.server).or_default();
            if !wanted.key_id.is_empty() {
                let at = wanted.at.unwrap_or(0).min(now);
                let until = keys.entry(wanted.key_id).or_insert(at);
                *until = at.max(*until);
            }
        }
        let mut vain = by_server.clone();
        let mut learned = Vec::new();
        for (told, json) in self.0.sources.ask_notaries(self, by_server).await {
            self.learn(&told, json, false).await;
            let keys = told.to_keys(now, false);
            let is_told = |key_id: &String, until: i64| {
                keys.iter().any(|key| key.key_id == *key_id && is_good_at(key, Some(until)))
            };
            if vain.get(&told.server).is_some_and(|keys| keys.iter().all(|(key_id, until)| is_told(key_id, *until))) {
                vain.remove(&told.server);
            }
            learned.push(told.server);
        }
        for server in vain.into_keys() {
            unknown.insert(server, now);
        }
        learned
    }

    async fn learn(&self, told: &ToldKeys, json: String, from_itself: bool) {
        let ring = &self.0;
        let now = ring.time.now_ms();
        let keys = told.to_keys(now, from_itself);
        let is_kept = json.len() <= MAX_KEPT_DOCUMENT_BYTES;
        let document = is_kept.then_some(KeyDocument { json, valid_until_ts: told.valid_until_ts, fetched_ts: now });
        let server = told.server.to_string();
        let kept = ring
            .store
            .write([server_noun(&told.server)], move |tx| tx.server_keys().keep(&server, &keys, document.as_ref()));
        match kept.await {
            Ok(known) => ring.known.insert(told.server.clone(), Arc::new(known)),
            Err(error) => tracing::warn!(server = %told.server, %error, "keys of a server are not kept"),
        }
    }
}

/// A server that is being asked.
struct UnderWay {
    ring: KeyRing,
    server: OwnedServerName,
    whom: For,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        let ring = &self.ring.0;
        ring.under_way.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.server);
        ring.lanes[self.whom as usize].under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Whoever changes what is known of a server holds this.
pub(crate) fn server_noun(server: &ServerName) -> Noun {
    Noun::Name(format!("server:{server}"))
}

#[cfg(test)]
mod tests {
    use hearth_store::{DatabaseUrl, StoreOptions};

    use super::*;
    use crate::{AddressFilter, Discovery, HttpClient, NameError, Names, Service, TlsRoots};

    /// Nobody answers about any name.
    struct NoNames;

    impl Names for NoNames {
        fn addresses(&self, _: &str, _: u16) -> BoxFuture<'static, Result<Vec<std::net::SocketAddr>, NameError>> {
            std::future::pending().boxed()
        }

        fn services(&self, _: &str) -> BoxFuture<'static, Result<Vec<Service>, NameError>> {
            std::future::pending().boxed()
        }
    }

    async fn ring(patience: Patience, may_ask: fn(&ServerName) -> bool) -> KeyRing {
        let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.unwrap();
        let time = WallTime::manual(1_000_000);
        let client = HttpClient::new(Arc::new(NoNames), AddressFilter::default(), TlsRoots::empty()).unwrap();
        let discovery = Discovery::new(client.clone(), time.clone());
        let sources = KeySources { client, discovery, notaries: Vec::new(), may_ask: Box::new(may_ask) };
        KeyRing::new((ServerName::parse("us.org").unwrap(), Vec::new()), sources, store, time, patience)
    }

    fn wanted(count: usize) -> Vec<WantedKey> {
        let server = |n| ServerName::parse(format!("n{n}.org")).unwrap();
        (0..count).map(|n| WantedKey { server: server(n), key_id: "ed25519:1".to_owned(), at: None }).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn for_the_keys_of_many_servers_one_waits_longer_but_not_for_ever() {
        let whole = Duration::from_secs(3);
        for (servers, rounds) in
            [(1, 1), (MOST_AT_ONCE - 1, 1), (3 * MOST_AT_ONCE, 4), (20 * MOST_AT_ONCE, MOST_ROUNDS)]
        {
            let ring = ring(Patience { whole, ..Patience::default() }, |_| true).await;
            let begun = tokio::time::Instant::now();
            ring.find(wanted(servers)).await.unwrap();
            assert_eq!(begun.elapsed().as_secs(), u64::from(rounds) * whole.as_secs(), "{servers}");
            // Somebody who is let in or not is kept waiting for one only.
            let begun = tokio::time::Instant::now();
            ring.find_now(&ServerName::parse("other.org").unwrap(), &["ed25519:1"]).await.unwrap();
            assert_eq!(begun.elapsed().as_secs(), whole.as_secs());
        }
    }

    #[tokio::test]
    async fn a_question_that_panics_is_over() {
        let ring = ring(Patience::default(), |_| panic!("as a bug would")).await;
        for _ in 0..2 {
            ring.find(wanted(3)).await.unwrap();
            assert_eq!(ring.under_way(), 0);
            assert!(ring.0.lanes.iter().all(|lane| lane.under_way.load(Ordering::Relaxed) == 0));
        }
    }
}
