//! What a server lacks, as a transaction: pure reading.
//!
//! All of it is made of the positions that it covers and of when it was begun, which are written down before it goes: its id, its time,
//! its events and its receipts. So it is the same to the byte however often it is made, also after a crash, and what waits for a
//! server that does not answer takes no memory. What has changed meanwhile is missing in it, and never is there more than was: the
//! content of an event that was redacted, and a receipt that has moved on, which comes with a later one. So a server that took it, and
//! passes over what comes under the same id again, misses nothing, and one that didn't has all that still holds.
//!
//! What is of the moment, typing and presence, covers no positions. It goes in transactions of its own, which are not sent again:
//! beside events it could not be made once more, and would be lost, or be passed over.

use hearth_store::{Delivered, EventNum, Position, RoomNum, StoreError, StringNum, Tx, UnderWay};
use serde_json::Value;

use crate::edus;

/// PDUs of a transaction.
pub(crate) const PDUS: usize = 50;
/// EDUs of a transaction.
pub(crate) const EDUS: usize = 100;
/// Receipts of a transaction: they become few EDUs.
const RECEIPTS: i64 = 500;
/// Receipts that are looked at for them.
const LOOKED_AT: i64 = 10_000;
/// Bytes of the events of a transaction: what stands before many servers takes no more than a mebibyte.
const BYTES: usize = 800 * 1024;
/// A server that lacks more than this, and for longer than an hour, gets the newest of each room only.
const MANY: usize = 1_000;
const LONG_MS: i64 = 3_600_000;

/// Where to look.
pub(crate) struct Question {
    pub(crate) server: StringNum,
    pub(crate) delivered: Delivered,
    pub(crate) now_ms: i64,
    /// So many events at most.
    pub(crate) most: usize,
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

impl Part {
    /// Whether there is anything in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.pdus.is_empty() && self.edus.is_empty()
    }

    /// How far the server is, once it has it.
    pub(crate) fn arrived(&self) -> Delivered {
        let Delivered { sent, under_way, leap } = self.delivered;
        let sent = under_way.map_or(sent, |under_way| under_way.upto);
        Delivered { sent, under_way: None, leap: leap.filter(|target| sent < *target) }
    }
}

/// The next part of what a server lacks. With `delivered.under_way` it is the one that was under way.
pub(crate) fn next(tx: &mut Tx<'_>, question: &Question) -> Result<Part, StoreError> {
    let Question { server, delivered, most, .. } = *question;
    let again = delivered.under_way.is_some();
    let most = if again { PDUS } else { most };
    let now = tx.position()?;
    let end = delivered.under_way.map_or(now, |under_way| under_way.upto);
    let rooms = tx.deliveries().rooms_with_work(server, delivered.sent)?;
    let mut leap = delivered.leap;
    let mut lacking = match leap {
        Some(target) => newest(tx, server, &rooms, delivered.sent, target)?,
        None => all(tx, server, &rooms, delivered.sent, end, PDUS as i64 + 1)?,
    };
    // Whether it is far behind is asked only of those whose oldest event is old.
    if leap.is_none()
        && !again
        && lacking.len() > PDUS
        && is_old(tx, &lacking, question.now_ms)?
        && all(tx, server, &rooms, delivered.sent, end, MANY as i64 + 1)?.len() > MANY
    {
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
    let mut more = lacking.len() > most;
    lacking.truncate(most);
    let mut pdus = texts(tx, &mut lacking, &mut more, again)?;
    let mut upto = match lacking.last() {
        Some((position, ..)) if more => *position,
        _ => leap.filter(|_| !again).unwrap_or(end),
    };
    let mut edus = Vec::new();
    // Receipts of long ago tell little to who was away for long.
    if leap.is_none() {
        let receipts = receipts(tx, server, delivered.sent, upto, again)?;
        edus = receipts.edus;
        if let Some(reach) = receipts.reach.filter(|_| !again) {
            // What lies behind the last one that fits comes with the next part.
            (upto, more) = (reach, true);
            pdus.retain(|(position, _)| *position <= reach);
        }
    }
    let more = more || leap.is_some_and(|target| upto < target);
    let pdus = pdus.into_iter().map(|(_, text)| text).collect();
    let begun_ts = delivered.under_way.map_or(question.now_ms, |under_way| under_way.begun_ts);
    let under_way = Some(UnderWay { upto, begun_ts });
    Ok(Part { delivered: Delivered { sent: delivered.sent, under_way, leap }, pdus, edus, more })
}

/// Receipts as EDUs.
struct Receipts {
    edus: Vec<Value>,
    /// Up to where they are all there are; without, to the end.
    reach: Option<Position>,
}

fn receipts(
    tx: &mut Tx<'_>,
    server: StringNum,
    after: Position,
    upto: Position,
    again: bool,
) -> Result<Receipts, StoreError> {
    // Those of other rooms are looked at, too: what a server that is away for long costs is bounded.
    let far = tx.deliveries().nth_receipt(after, LOOKED_AT)?.filter(|far| *far < upto && !again);
    let found = tx.deliveries().receipts(server, after, far.unwrap_or(upto), RECEIPTS + 1)?;
    let fitting = found.get(..RECEIPTS as usize).unwrap_or(&found);
    let (edus, told) = edus::receipts(tx, fitting, EDUS)?;
    let reach = match found.get(told) {
        // It moves on in any case.
        Some(left) => Some(Position(left.position.0 - 1).max(Position(after.0 + 1))),
        None => far,
    };
    Ok(Receipts { edus, reach })
}

/// All that a server gets of these rooms, as far as it can matter.
pub(crate) fn all(
    tx: &mut Tx<'_>,
    server: StringNum,
    rooms: &[RoomNum],
    after: Position,
    upto: Position,
    most: i64,
) -> Result<Vec<Lacking>, StoreError> {
    let mut lacking = Vec::new();
    for room in rooms {
        for stay in tx.deliveries().stays(*room, server)? {
            // What it gets comes after its first member came, up to and with the event by which the last one left.
            let from = after.max(stay.since);
            let to = stay.until.map_or(upto, |until| until.min(upto));
            if from < to {
                let found = tx.deliveries().outbound(*room, from, to, most)?;
                lacking.extend(found.into_iter().map(|(position, event)| (position, event, *room)));
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

/// Events as servers exchange them; of what was redacted meanwhile only what is left of it, and nothing of what is gone. As many as
/// fit; `whole` if it must be all.
fn texts(
    tx: &mut Tx<'_>,
    lacking: &mut Vec<Lacking>,
    more: &mut bool,
    whole: bool,
) -> Result<Vec<(Position, String)>, StoreError> {
    let mut texts = Vec::with_capacity(lacking.len());
    let mut bytes = 0;
    for (n, (position, event, room)) in lacking.iter().enumerate() {
        let room = tx.rooms().by_num(*room)?;
        let Some(pdu) = tx.events().pdus(&room, &[*event])?.pop() else { continue };
        let is_redacted = tx.events().row(*event)?.is_some_and(|row| row.redacted_by.is_some());
        let told = if is_redacted { hearth_room::redacted(&pdu, &room)? } else { pdu };
        let text = told.json.to_string();
        bytes += text.len();
        if bytes > BYTES && n > 0 && !whole {
            lacking.truncate(n);
            *more = true;
            break;
        }
        texts.push((*position, text));
    }
    Ok(texts)
}
