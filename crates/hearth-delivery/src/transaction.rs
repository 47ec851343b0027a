//! What a server lacks, as a transaction: pure reading.
//!
//! Its id is made of the positions that it covers: the same positions are the same events, however often it is made.

use hearth_matrix::redact::redact;
use hearth_store::{Delivered, EventNum, Position, RoomNum, StoreError, StringNum, Tx};
use rustc_hash::FxHashMap;
use serde_json::Value;

use crate::edus;

/// PDUs of a transaction.
pub(crate) const PDUS: usize = 50;
/// EDUs of a transaction.
pub(crate) const EDUS: usize = 100;
/// Receipts of a transaction; older ones are passed over.
const RECEIPTS: i64 = 1_000;
/// A server that lacks more than this, and for longer than an hour, gets the newest of each room only.
const MANY: usize = 1_000;
const LONG_MS: i64 = 3_600_000;

/// Where to look.
pub(crate) struct Question {
    pub(crate) server: StringNum,
    pub(crate) delivered: Delivered,
    pub(crate) now_ms: i64,
}

/// A part of what a server lacks.
#[derive(Debug, Default)]
pub(crate) struct Part {
    /// How far the server will be.
    pub(crate) delivered: Delivered,
    /// Events, in the format of servers.
    pub(crate) pdus: Vec<String>,
    /// Receipts.
    pub(crate) edus: Vec<Value>,
    /// There is more.
    pub(crate) more: bool,
}

/// An event that a server lacks.
type Lacking = (Position, EventNum, RoomNum);

/// The next part of what a server lacks. With `delivered.upto` it is the one that was under way.
pub(crate) fn next(tx: &mut Tx<'_>, question: &Question) -> Result<Part, StoreError> {
    let Question { server, delivered, .. } = *question;
    let now = tx.position()?;
    let end = delivered.upto.unwrap_or(now);
    let rooms = tx.deliveries().rooms_with_work(server, delivered.sent)?;
    let mut leap = delivered.leap;
    let mut lacking = match leap {
        Some(target) => newest(tx, server, &rooms, delivered.sent, target)?,
        None => all(tx, server, &rooms, delivered.sent, end)?,
    };
    if leap.is_none() && delivered.upto.is_none() && lacking.len() > MANY && is_old(tx, &lacking, question.now_ms)? {
        leap = Some(now);
        lacking = newest(tx, server, &rooms, delivered.sent, now)?;
    }
    for (position, event) in tx.deliveries().aside(server, delivered.sent, end, PDUS as i64 + 1)? {
        if let Some(row) = tx.events().row(event)? {
            lacking.push((position, event, row.room));
        }
    }
    lacking.sort_unstable();
    lacking.retain(|(position, ..)| *position <= end);
    let more = lacking.len() > PDUS;
    lacking.truncate(PDUS);
    let upto = match lacking.last() {
        Some((position, ..)) if more => *position,
        _ => leap.filter(|_| delivered.upto.is_none()).unwrap_or(end),
    };
    let receipts = tx.deliveries().receipts(delivered.sent, upto, RECEIPTS)?;
    let mut told = Vec::new();
    let mut is_there: FxHashMap<RoomNum, bool> = FxHashMap::default();
    for receipt in receipts {
        let there = match is_there.get(&receipt.room) {
            Some(there) => *there,
            None => {
                let there = tx.rooms().has_server(receipt.room, server)?;
                is_there.insert(receipt.room, there);
                there
            }
        };
        if there {
            told.push(receipt);
        }
    }
    let mut edus = edus::receipts(tx, &told)?;
    edus.truncate(EDUS);
    let pdus = texts(tx, &lacking)?;
    let more = more || leap.is_some_and(|target| upto < target);
    Ok(Part { delivered: Delivered { sent: delivered.sent, upto: Some(upto), leap }, pdus, edus, more })
}

/// All that a server gets of these rooms, as far as it can matter.
fn all(
    tx: &mut Tx<'_>,
    server: StringNum,
    rooms: &[RoomNum],
    after: Position,
    upto: Position,
) -> Result<Vec<Lacking>, StoreError> {
    let mut lacking = Vec::new();
    for room in rooms {
        let stays = tx.deliveries().stays(*room, server)?;
        for (position, event) in tx.deliveries().outbound(*room, after, upto, MANY as i64 + 1)? {
            if stays.iter().any(|stay| stay.gets(position)) {
                lacking.push((position, event, *room));
            }
        }
    }
    Ok(lacking)
}

/// The newest that a server gets of each room.
fn newest(
    tx: &mut Tx<'_>,
    server: StringNum,
    rooms: &[RoomNum],
    after: Position,
    upto: Position,
) -> Result<Vec<Lacking>, StoreError> {
    let mut lacking = Vec::new();
    for room in rooms {
        let stays = tx.deliveries().stays(*room, server)?;
        // Of a room that it left: up to when it left.
        let last = stays.last().and_then(|stay| stay.until).map_or(upto, |until| until.min(upto));
        if let Some((position, event)) = tx.deliveries().newest_outbound(*room, after, last)?
            && stays.iter().any(|stay| stay.gets(position))
        {
            lacking.push((position, event, *room));
        }
    }
    Ok(lacking)
}

fn is_old(tx: &mut Tx<'_>, lacking: &[Lacking], now_ms: i64) -> Result<bool, StoreError> {
    let Some((_, oldest, _)) = lacking.iter().min() else { return Ok(false) };
    Ok(tx.events().row(*oldest)?.is_some_and(|row| row.origin_server_ts < now_ms - LONG_MS))
}

/// Events as servers exchange them; of what was redacted meanwhile only that.
fn texts(tx: &mut Tx<'_>, lacking: &[Lacking]) -> Result<Vec<String>, StoreError> {
    let mut texts = Vec::with_capacity(lacking.len());
    for (_, event, room) in lacking {
        let room = tx.rooms().by_num(*room)?;
        let pdu = tx.events().pdu(&room, *event)?;
        let redacted = tx.events().row(*event)?.is_some_and(|row| row.redacted_by.is_some());
        texts.push(match redacted {
            true => redact(&pdu.json, room.rules, None).map_err(|error| StoreError::Damaged(error.to_string()))?,
            false => pdu.json.to_string(),
        });
    }
    Ok(texts)
}
