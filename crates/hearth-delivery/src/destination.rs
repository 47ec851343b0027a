//! A server's task: sends what the server lacks, transaction by transaction, until it lacks nothing or does not answer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_remote::{Limits, RemoteError, SendOptions};
use hearth_store::{Delivered, Noun, StoreError, StringNum};
use http::{Request, StatusCode, header};
use serde_json::{Value, json};

use crate::Inner;
use crate::board::PAUSE_AFTER_FAILURE;
use crate::edus::{self, Pending};
use crate::transaction::{self, EDUS, Part, Question};

/// How long a server may take for a transaction.
const LIMITS: Limits = Limits { timeout: Duration::from_secs(60), response_bytes: 1024 * 1024 };
/// Before a server that refused a transaction is asked to take it again.
const AFTER_REFUSAL_MS: i64 = 60_000;

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
    pdus: usize,
    edus: usize,
}

pub(crate) async fn run(inner: &Inner, server: OwnedServerName) {
    let until_ms = match serve(inner, &server).await {
        Ok(()) => return,
        Err(Stop::Later { until_ms }) => until_ms,
        Err(Stop::Store(error)) => {
            tracing::error!(%server, %error, "what a server lacks can't be read or noted");
            inner.time.now_ms() + PAUSE_AFTER_FAILURE.as_millis() as i64
        }
    };
    inner.board.park(&server, until_ms);
}

async fn serve(inner: &Inner, server: &ServerName) -> Result<(), Stop> {
    let name = server.to_string();
    let noun = || Noun::Name(format!("delivery {name}"));
    let interned = name.clone();
    let (num, mut delivered) = inner
        .store
        .write([noun()], move |tx| {
            let num = tx.intern(&interned)?;
            Ok((num, tx.deliveries().get(num)?.unwrap_or_default()))
        })
        .await?;
    let mut unnoted = false;
    while let Some(mut pending) = inner.board.next(server) {
        // What was under way at the last stop comes first, by itself.
        pending.look |= delivered.upto.is_some() || delivered.leap.is_some();
        loop {
            let part = look(inner, num, delivered, &pending).await?;
            let more = part.more || delivered.upto.is_some();
            let transaction = transaction_of(inner, &part, &mut pending, delivered.upto.is_some());
            let covers = !part.pdus.is_empty() || !part.edus.is_empty();
            if covers && delivered.upto != part.delivered.upto {
                // Before it is sent, so that it comes as the same one after a crash. One write for this and for the last one.
                note(inner, noun(), num, part.delivered).await?;
                unnoted = false;
            }
            if let Some(transaction) = transaction {
                send(inner, server, &transaction, pending.doubtful).await?;
                pending.doubtful = false;
            }
            if covers || part.more || delivered.upto.is_some() {
                let sent = part.delivered.upto.unwrap_or(delivered.sent);
                let leap = part.delivered.leap.filter(|target| sent < *target);
                delivered = Delivered { sent, upto: None, leap };
                unnoted = true;
            }
            if !more {
                break;
            }
        }
        // Before the task may end: another one may begin at once, and goes on from what is noted.
        if unnoted && !inner.board.has_news_for(server) {
            note(inner, noun(), num, delivered).await?;
            unnoted = false;
        }
    }
    Ok(())
}

async fn look(inner: &Inner, server: StringNum, delivered: Delivered, pending: &Pending) -> Result<Part, StoreError> {
    if !pending.look {
        return Ok(Part { delivered, ..Part::default() });
    }
    let question = Question { server, delivered, now_ms: inner.time.now_ms() };
    inner.store.read(move |tx| transaction::next(tx, &question)).await
}

async fn note(inner: &Inner, noun: Noun, server: StringNum, delivered: Delivered) -> Result<(), StoreError> {
    let write = inner.store.write([noun], move |tx| {
        tx.deliveries().forget_aside(server, delivered.sent)?;
        tx.deliveries().put(server, &delivered)
    });
    write.await
}

/// A transaction with a part of what is lacking, and with as much of the rest as fits.
fn transaction_of(inner: &Inner, part: &Part, pending: &mut Pending, again: bool) -> Option<Transaction> {
    let mut edus: Vec<Value> = part.edus.clone();
    // One that was sent before stays as it was: who has it already passes over the rest.
    if !again {
        edus.extend(pending.take_typing(EDUS.saturating_sub(edus.len() + 1)));
    }
    if !again && !pending.presence.is_empty() && edus.len() < EDUS {
        let seen = inner.presence.of_all(pending.presence.drain());
        if !seen.is_empty() {
            edus.push(edus::presence(&seen, inner.time.now_ms()));
        }
    }
    if part.pdus.is_empty() && edus.is_empty() {
        return None;
    }
    let covers = !part.pdus.is_empty() || !part.edus.is_empty();
    let id = match part.delivered.upto.filter(|_| covers) {
        Some(upto) => format!("{}-{}", part.delivered.sent.0, upto.0),
        None => passing_id(inner.time.now_ms()),
    };
    let body = format!(
        "{{\"origin\":{},\"origin_server_ts\":{},\"pdus\":[{}],\"edus\":{}}}",
        json!(inner.own),
        inner.time.now_ms(),
        part.pdus.join(","),
        Value::Array(edus.clone()),
    );
    Some(Transaction { id, body: Bytes::from(body), pdus: part.pdus.len(), edus: edus.len() })
}

/// An id for what is of the moment and covers no positions.
fn passing_id(now_ms: i64) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    format!("m{now_ms}.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

async fn send(inner: &Inner, server: &ServerName, transaction: &Transaction, doubtful: bool) -> Result<(), Stop> {
    // Those that may not answer keep nobody else waiting. The semaphores are never closed.
    let places = if doubtful { &inner.trying } else { &inner.sending };
    let _permit = places.acquire().await;
    let id: String = form_urlencoded::byte_serialize(transaction.id.as_bytes()).collect();
    let request = Request::put(format!("https://matrix.invalid/_matrix/federation/v1/send/{id}"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(transaction.body.clone());
    let request = request.map_err(|error| StoreError::Damaged(format!("a transaction is no request: {error}")))?;
    let options = SendOptions { limits: LIMITS, ..SendOptions::default() };
    let outcome = inner.remote.send_raw(server, request, true, options).await;
    let (outcome, name) = match outcome {
        Ok(answer) => {
            note_refusals(server, answer.body());
            metrics::counter!("hearth_delivery_pdus_total").increment(transaction.pdus as u64);
            metrics::counter!("hearth_delivery_edus_total").increment(transaction.edus as u64);
            (Ok(()), "arrived")
        }
        Err(RemoteError::Store(error)) => (Err(Stop::Store(error)), "failed"),
        Err(RemoteError::BackingOff { until_ts }) => (Err(Stop::Later { until_ms: until_ts }), "waits"),
        Err(RemoteError::Refused { status, errcode, message, .. }) if is_final(status) => {
            tracing::warn!(%server, %status, errcode, message, "a server does not take a transaction; it goes without");
            (Ok(()), "refused")
        }
        Err(error) => {
            tracing::debug!(%server, %error, "a transaction did not arrive");
            let retry = inner.remote.destination(server).await?.map_or(0, |destination| destination.retry_ts);
            let now = inner.time.now_ms();
            (Err(Stop::Later { until_ms: if retry > now { retry } else { now + AFTER_REFUSAL_MS } }), "failed")
        }
    };
    metrics::counter!("hearth_delivery_transactions_total", "outcome" => name).increment(1);
    outcome
}

/// Whether a refusal is about the transaction, and not about who sends it or about the moment.
fn is_final(status: StatusCode) -> bool {
    matches!(status, StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY)
}

fn note_refusals(server: &ServerName, answer: &[u8]) {
    let Ok(Value::Object(answer)) = serde_json::from_slice(answer) else { return };
    for (event_id, outcome) in answer.get("pdus").and_then(Value::as_object).into_iter().flatten() {
        if let Some(error) = outcome.get("error") {
            tracing::debug!(%server, event_id, %error, "a server does not take an event");
        }
    }
}
