//! Transactions: what another server sends of its own accord.
//!
//! PDUs are staged durably before the answer, EDUs are worked at once. A transaction that comes twice is answered alike.
//! Spec: server-server API, "Transactions", "EDUs".

use std::sync::Arc;

use axum::response::Response;
use hearth_matrix::ruma::api::federation::transactions::send_transaction_message;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, ServerName};
use hearth_room::{Received, RemoteReceipt, RoomError};
use hearth_user::presence::RemotePresence;
use quick_cache::sync::Cache;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OnceCell;

use super::json_text;
use crate::extract::Signed;
use crate::route::Route;
use crate::{ApiError, Doors};

/// PDUs of a transaction.
const PDUS: usize = 50;
/// EDUs of a transaction.
const EDUS: usize = 100;
/// Largest body: nothing bounds what an EDU holds, and Synapse lets each have as much as an event, 64 KiB, and then some.
const BODY_SIZE_BYTES: usize = 13 * 1024 * 1024;
/// Bytes of an EDU that is looked at.
const EDU_BYTES: usize = 1024 * 1024;
/// Transactions whose answers are remembered.
const REMEMBERED: usize = 2_000;
/// Receipts of one EDU that are looked at.
const RECEIPTS: usize = 1_000;

/// EDUs that are known here; what strangers call others makes no label of a metric.
const KINDS: [&str; 3] = ["m.typing", "m.receipt", "m.presence"];

/// Answers to the transactions of late, by sender and id.
#[derive(Clone)]
pub struct Transactions(Arc<Cache<Key, Arc<OnceCell<String>>>>);

/// Who sent a transaction, and its id.
type Key = (OwnedServerName, String);

impl Default for Transactions {
    fn default() -> Self {
        Self(Arc::new(Cache::new(REMEMBERED)))
    }
}

pub(super) fn routes() -> Vec<Route> {
    super::signed(send).into_iter().map(|route| route.body_size_bytes(BODY_SIZE_BYTES)).collect()
}

/// `PUT /_matrix/federation/v1/send/{txnId}`
async fn send(
    doors: Doors,
    Signed { origin, request }: Signed<send_transaction_message::v1::Request>,
) -> Result<Response, ApiError> {
    if request.origin != origin {
        return Err(ApiError::forbidden(format!("The transaction is of {}, signed by {origin}", request.origin)));
    }
    if request.pdus.len() > PDUS || request.edus.len() > EDUS {
        return Err(ApiError::invalid_param(format!("A transaction has at most {PDUS} PDUs and {EDUS} EDUs")));
    }
    doors.remote.is_alive(&origin).await.map_err(ApiError::internal)?;
    let key = (origin.clone(), request.transaction_id.to_string());
    let answer = doors.transactions.0.get_or_insert_with(&key, || Ok::<_, ApiError>(Arc::default()))?;
    let text = answer.get_or_try_init(|| async { receive(&doors, &origin, &request).await.map_err(ApiError::from) });
    Ok(json_text(text.await?.clone()))
}

async fn receive(
    doors: &Doors,
    origin: &ServerName,
    request: &send_transaction_message::v1::Request,
) -> Result<String, RoomError> {
    let pdus: Vec<String> = request.pdus.iter().map(|pdu| pdu.get().to_owned()).collect();
    let (mut outcomes, mut unread) = (Map::new(), Vec::new());
    for (Received { event_id, outcome }, pdu) in doors.rooms.receive(origin, &pdus).await?.into_iter().zip(&pdus) {
        let name = if outcome.is_ok() { "taken" } else { "dropped" };
        metrics::counter!("hearth_federation_received_pdus_total", "outcome" => name).increment(1);
        match (event_id, outcome) {
            (Some(event_id), Ok(())) => {
                outcomes.insert(event_id.to_string(), json!({}));
            }
            (Some(event_id), Err(dropped)) => {
                tracing::debug!(%origin, %event_id, %dropped, "an event of another server is dropped");
                outcomes.insert(event_id.to_string(), json!({ "error": dropped.to_string() }));
            }
            (None, Err(dropped)) => unread.push((pdu, dropped)),
            (None, Ok(())) => {}
        }
    }
    // One that can't be read takes nothing from another that claims to be the same.
    for (pdu, dropped) in unread {
        if let Some(event_id) = doors.rooms.id_of_unread(pdu).await? {
            outcomes.entry(event_id.to_string()).or_insert_with(|| json!({ "error": dropped.to_string() }));
        }
    }
    for edu in request.edus.iter().filter(|edu| edu.json().get().len() <= EDU_BYTES) {
        if let Ok(edu) = serde_json::from_str::<Edu>(edu.json().get()) {
            take(doors, origin, edu).await?;
        }
    }
    Ok(json!({ "pdus": outcomes }).to_string())
}

#[derive(Deserialize)]
struct Edu {
    edu_type: String,
    content: Value,
}

#[derive(Deserialize)]
struct TypingContent {
    room_id: OwnedRoomId,
    user_id: OwnedUserId,
    typing: bool,
}

#[derive(Deserialize)]
struct ReceiptContent {
    #[serde(default)]
    data: ReceiptData,
    event_ids: Vec<OwnedEventId>,
}

#[derive(Default, Deserialize)]
struct ReceiptData {
    #[serde(default)]
    ts: i64,
    thread_id: Option<String>,
}

#[derive(Deserialize)]
struct PresenceContent {
    push: Vec<Value>,
}

/// What is malformed, or of a kind that is not known here, is passed over.
async fn take(doors: &Doors, origin: &ServerName, Edu { edu_type, content }: Edu) -> Result<(), RoomError> {
    let kind = KINDS.into_iter().find(|kind| *kind == edu_type).unwrap_or("other");
    metrics::counter!("hearth_federation_received_edus_total", "type" => kind).increment(1);
    match edu_type.as_str() {
        "m.typing" => {
            let Ok(typing) = serde_json::from_value::<TypingContent>(content) else { return Ok(()) };
            doors.rooms.receive_typing(origin, &typing.room_id, &typing.user_id, typing.typing).await
        }
        "m.receipt" => doors.rooms.receive_receipts(origin, receipts(content)).await,
        "m.presence" => {
            let Ok(presence) = serde_json::from_value::<PresenceContent>(content) else { return Ok(()) };
            // One that can't be read takes no other along.
            let readable = presence.push.into_iter().filter_map(|one| RemotePresence::deserialize(one).ok());
            doors.presence.receive_all(origin, readable.collect()).await?;
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The receipts of an EDU: by room, kind and user.
fn receipts(content: Value) -> Vec<RemoteReceipt> {
    let mut found = Vec::new();
    let Value::Object(rooms) = content else { return found };
    for (room_id, kinds) in rooms {
        let Ok(room_id) = OwnedRoomId::try_from(room_id) else { continue };
        // Private receipts of others are none of our business.
        let Some(Value::Object(users)) = kinds.get("m.read") else { continue };
        for (user_id, receipt) in users {
            let Ok(user_id) = OwnedUserId::try_from(user_id.as_str()) else { continue };
            let Ok(receipt) = ReceiptContent::deserialize(receipt) else { continue };
            let ReceiptData { ts, thread_id } = receipt.data;
            let Some(event_id) = receipt.event_ids.into_iter().next() else { continue };
            if found.len() >= RECEIPTS {
                return found;
            }
            found.push(RemoteReceipt { room_id: room_id.clone(), user_id, thread: thread_id, event_id, ts });
        }
    }
    found
}
