//! A server's task: sends what the server lacks, transaction by transaction, until it lacks nothing or does not answer. What a
//! transaction is made of, and why it is the same when it is sent again, is told in `transaction.rs`.

mod refused;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_remote::{Limits, RemoteError};
use hearth_store::{Delivered, Noun, StoreError, StringNum, UnderWay};
use http::{Request, header};
use serde_json::{Value, json};

use crate::Inner;
use crate::board::PAUSE_AFTER_FAILURE;
use crate::edus::{self, Pending};
use crate::transaction::{self, EDUS, PDUS, Part, Question};

/// How long a server may take for a transaction.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(60), response_bytes: 1024 * 1024 };
/// Before a server that refused a transaction is asked to take it again.
const AFTER_REFUSAL_MS: i64 = 60_000;
/// Users of one presence EDU.
const PRESENCES: usize = 200;

/// What became of a transaction that got there.
enum Taken {
    Whole,
    Not(RemoteError),
}

/// Why a task ends before all is sent.
enum Stop {
    /// The server does not take it now.
    Later {
        until_ms: i64,
    },
    Store(StoreError),
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A transaction that is sent until it arrives.
struct Transaction {
    id: String,
    body: Bytes,
    /// When it was sent first.
    begun_ts: i64,
    pdus: usize,
    edus: usize,
}

/// Whatever becomes of a task, its server does not count as served for ever.
struct Served<'a> {
    inner: &'a Inner,
    server: &'a ServerName,
}

impl Drop for Served<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let now = self.inner.time.now_ms();
            self.inner.board.park(self.server, now + AFTER_REFUSAL_MS, now);
        }
    }
}

pub(crate) async fn run(inner: &Inner, server: OwnedServerName) {
    let _served = Served { inner, server: &server };
    let until_ms = match serve(inner, &server).await {
        Ok(()) => return,
        Err(Stop::Later { until_ms }) => until_ms,
        Err(Stop::Store(error)) => {
            tracing::error!(%server, %error, "what a server lacks can't be read or noted");
            inner.time.now_ms() + PAUSE_AFTER_FAILURE.as_millis() as i64
        }
    };
    inner.board.park(&server, until_ms, inner.time.now_ms());
}

async fn serve(inner: &Inner, server: &ServerName) -> Result<(), Stop> {
    let mut courier = Courier::at_last_stop(inner, server).await?;
    while let Some(mut pending) = inner.board.next(server) {
        courier.doubtful = (courier.doubtful || pending.doubtful) && !pending.lives;
        // What was under way at the last stop comes first, by itself.
        pending.look |= courier.at.under_way.is_some() || courier.at.leap.is_some();
        while courier.step(&mut pending).await? {}
        // Before the task may end: another one may begin at once, and goes on from what is noted.
        if courier.is_unnoted && !inner.board.has_news_for(server) {
            courier.note(courier.at).await?;
        }
    }
    Ok(())
}

/// Who sends to a server, and how that goes.
struct Courier<'a> {
    inner: &'a Inner,
    server: &'a ServerName,
    num: StringNum,
    /// From where it goes on.
    at: Delivered,
    /// That is not written down yet.
    is_unnoted: bool,
    /// It did not answer when it was tried last.
    doubtful: bool,
    /// Events of the next transaction, at most.
    most: usize,
    /// It has events alone.
    bare: bool,
    /// What is passed over at most.
    most_refused: usize,
    /// What was refused by itself, and has been passed over.
    refused: Vec<(Transaction, RemoteError)>,
}

impl<'a> Courier<'a> {
    async fn at_last_stop(inner: &'a Inner, server: &'a ServerName) -> Result<Self, Stop> {
        let name = server.to_string();
        let write = inner.store.write([noun(server)], move |tx| {
            let destination = tx.destinations().get(&name)?.unwrap_or_default();
            let num = tx.intern(&name)?;
            Ok((num, tx.deliveries().get(num)?.unwrap_or_default(), destination))
        });
        let (num, at, destination) = write.await?;
        if destination.retry_ts > inner.time.now_ms() {
            return Err(Stop::Later { until_ms: destination.retry_ts });
        }
        Ok(Self {
            inner,
            server,
            num,
            at,
            is_unnoted: false,
            doubtful: destination.failures > 0,
            most: PDUS,
            bare: false,
            most_refused: refused::most_refused(destination.failures),
            refused: Vec::new(),
        })
    }

    /// Sends a part of what is lacking; tells whether there is more to do.
    async fn step(&mut self, pending: &mut Pending) -> Result<bool, Stop> {
        let inner = self.inner;
        // Those that may not answer keep nobody else waiting, and nothing is read for them before it is their turn. The semaphores
        // are never closed.
        let _place = if self.doubtful { &inner.trying } else { &inner.sending }.acquire().await;
        let again = self.at.under_way.is_some();
        let part = look(inner, self.num, self.at, pending, self.most).await?;
        let transaction = Transaction::covering(inner, &part, self.bare);
        let more = part.more || again;
        if !part.is_empty() && self.refused.is_empty() && self.at.under_way != part.delivered.under_way {
            // Before it is sent, so that it comes as the same one after a crash. One write for this and for the last one.
            self.note(part.delivered).await?;
        }
        if let Some(transaction) = transaction {
            match send(inner, self.server, &transaction).await? {
                Taken::Whole => {
                    (self.most, self.bare, self.doubtful) = ((self.most * 2).min(PDUS), false, false);
                    if transaction.pdus > 0 {
                        self.settle().await?;
                    }
                }
                // Something in it is not to its liking: less of it, until it is known what.
                Taken::Not(_) if transaction.pdus > 1 => {
                    (self.most, self.at.under_way) = (transaction.pdus / 2, None);
                    return Ok(true);
                }
                Taken::Not(_) if transaction.pdus == 1 && transaction.edus > 0 => {
                    (self.bare, self.at.under_way) = (true, part.delivered.under_way);
                    return Ok(true);
                }
                Taken::Not(error) => {
                    (self.most, self.bare) = (1, false);
                    self.refused.push((transaction, error));
                }
            }
        }
        if !part.is_empty() || more {
            self.at = part.arrived();
            self.is_unnoted = true;
        }
        if !self.refused.is_empty() && (!more || self.refused.len() >= self.most_refused) {
            self.doubt().await?;
        }
        if self.refused.is_empty() {
            self.send_passing(pending).await?;
        }
        Ok(more || pending.has_passing())
    }

    /// Sends what is of the moment, as much as fits. Whether it is taken or not, it is not sent again.
    async fn send_passing(&mut self, pending: &mut Pending) -> Result<(), Stop> {
        let inner = self.inner;
        let seen = inner.presence.of_all(pending.take_presence(PRESENCES).into_iter());
        let presence = (!seen.is_empty()).then(|| edus::presence(&seen, inner.time.now_ms()));
        let mut edus: Vec<Value> = presence.into_iter().collect();
        edus.extend(pending.take_typing(EDUS - edus.len()));
        if !edus.is_empty()
            && matches!(send(inner, self.server, &Transaction::passing(inner, &edus)).await?, Taken::Whole)
        {
            self.doubtful = false;
        }
        Ok(())
    }

    async fn note(&mut self, delivered: Delivered) -> Result<(), StoreError> {
        let num = self.num;
        let write = self.inner.store.write([noun(self.server)], move |tx| {
            tx.deliveries().forget_aside(num, delivered.sent)?;
            tx.deliveries().put(num, &delivered)
        });
        write.await?;
        self.is_unnoted = false;
        Ok(())
    }
}

fn noun(server: &ServerName) -> Noun {
    Noun::Name(format!("delivery {server}"))
}

async fn look(
    inner: &Inner,
    server: StringNum,
    delivered: Delivered,
    pending: &Pending,
    most: usize,
) -> Result<Part, StoreError> {
    if !pending.look {
        return Ok(Part { delivered, ..Part::default() });
    }
    let question = Question { server, delivered, now_ms: inner.time.now_ms(), most };
    inner.store.read(move |tx| transaction::next(tx, &question)).await
}

impl Transaction {
    fn new(inner: &Inner, id: String, begun_ts: i64, pdus: &[String], edus: &[Value]) -> Self {
        let (own, texts) = (json!(inner.own), pdus.join(","));
        let body =
            format!("{{\"origin\":{own},\"origin_server_ts\":{begun_ts},\"pdus\":[{texts}],\"edus\":{}}}", json!(edus));
        Self { id, body: Bytes::from(body), begun_ts, pdus: pdus.len(), edus: edus.len() }
    }

    /// With a part of what is lacking, if there is anything in it. A bare one has events alone, and is another.
    fn covering(inner: &Inner, part: &Part, bare: bool) -> Option<Self> {
        let UnderWay { upto, begun_ts } = part.delivered.under_way.filter(|_| !part.is_empty())?;
        let id = format!("{}-{}", part.delivered.sent.0, upto.0);
        Some(match bare {
            true => Self::new(inner, id + "-events", begun_ts, &part.pdus, &[]),
            false => Self::new(inner, id, begun_ts, &part.pdus, &part.edus),
        })
    }

    /// With what is of the moment, and covers no positions.
    fn passing(inner: &Inner, edus: &[Value]) -> Self {
        let now_ms = inner.time.now_ms();
        Self::new(inner, passing_id(now_ms), now_ms, &[], edus)
    }

    /// With nothing: whether a server takes any at all.
    fn empty(inner: &Inner) -> Self {
        Self::passing(inner, &[])
    }
}

/// An id for what is of the moment and covers no positions.
fn passing_id(now_ms: i64) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("m{now_ms}.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Sends a transaction, and tells whether it was taken.
async fn send(inner: &Inner, server: &ServerName, transaction: &Transaction) -> Result<Taken, Stop> {
    let id: String = form_urlencoded::byte_serialize(transaction.id.as_bytes()).collect();
    let request = Request::put(format!("https://matrix.invalid/_matrix/federation/v1/send/{id}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(transaction.body.clone());
    let request = request.map_err(|error| StoreError::Damaged(format!("a transaction is no request: {error}")))?;
    let begun = inner.time.now_ms();
    let outcome = inner.remote.deliver(server, request, LIMITS).await;
    let (outcome, name) = match outcome {
        Ok(answer) => {
            note_refusals(server, answer.body());
            metrics::counter!("hearth_delivery_pdus_total").increment(transaction.pdus as u64);
            metrics::counter!("hearth_delivery_edus_total").increment(transaction.edus as u64);
            (Ok(Taken::Whole), "arrived")
        }
        Err(RemoteError::Store(error)) => (Err(Stop::Store(error)), "failed"),
        Err(RemoteError::BackingOff { until_ts }) => (Err(Stop::Later { until_ms: until_ts }), "waits"),
        Err(error) if error.is_about_content() => {
            tracing::warn!(%server, %error, pdus = transaction.pdus, "a server does not take a transaction");
            (Ok(Taken::Not(error)), "refused")
        }
        Err(error) => {
            tracing::debug!(%server, %error, "a transaction did not arrive");
            let retry = inner.remote.destination(server).await?.map_or(0, |destination| destination.retry_ts);
            // What was noted before this is no answer to when.
            let until_ms = if retry > begun { retry } else { inner.time.now_ms() + AFTER_REFUSAL_MS };
            (Err(Stop::Later { until_ms }), "failed")
        }
    };
    metrics::counter!("hearth_delivery_transactions_total", "outcome" => name).increment(1);
    outcome
}

fn note_refusals(server: &ServerName, answer: &[u8]) {
    let Ok(Value::Object(answer)) = serde_json::from_slice(answer) else { return };
    for (event_id, outcome) in answer.get("pdus").and_then(Value::as_object).into_iter().flatten() {
        if let Some(error) = outcome.get("error") {
            tracing::debug!(%server, event_id, %error, "a server does not take an event");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hearth_matrix::SigningKey;
    use hearth_remote::{AddressFilter, FixedNames, HttpClient, Patience, Remote, RemoteConfig, ServerRules, TlsRoots};
    use hearth_store::{DatabaseUrl, Store, StoreOptions, WallTime};
    use hearth_user::presence::Presence;

    use super::*;
    use crate::{Delivery, Task};

    async fn delivery(time: &WallTime) -> Delivery {
        let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.expect("opens");
        let names = Arc::new(FixedNames::new());
        let client = HttpClient::new(names, AddressFilter::default(), TlsRoots::empty()).expect("a client");
        let config = RemoteConfig {
            server_name: "us.org".try_into().expect("a server name"),
            signing_key: SigningKey::from_seed([1; 32], "1").expect("a key").into(),
            servers: ServerRules::open(),
            notaries: Vec::new(),
            patience: Patience::default(),
        };
        let remote = Remote::open(config, client, store.clone(), time.clone()).await.expect("opens");
        let presence = Presence::new(true, store.clone(), time.clone());
        Delivery::new(store, remote, Default::default(), presence, time.clone())
    }

    #[tokio::test]
    async fn a_task_that_panics_leaves_its_server_to_be_tried_later() {
        let (time, there) = (WallTime::manual(1_000), OwnedServerName::try_from("a.org").expect("a server name"));
        let inner = delivery(&time).await.inner;
        inner.board.tell(&there, &[hearth_store::StringNum(1)], time.now_ms());
        assert_eq!(inner.board.task_of(&there), Task::Sends);
        let (panics, server) = (Arc::clone(&inner), there.clone());
        let task = tokio::spawn(async move {
            let _served = Served { inner: &panics, server: &server };
            panic!("as a bug would");
        });
        assert!(task.await.is_err());
        assert_eq!(inner.board.task_of(&there), Task::Waits { until_ms: 1_000 + AFTER_REFUSAL_MS });
    }
}
