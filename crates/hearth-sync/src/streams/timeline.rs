//! The timeline of a room: the newest events that a reader may see, as far back as he asked.
//!
//! Spec: client-server API, "Syncing"; "Ignoring users" (their events are left out, but for state).

use hearth_store::{EventNum, EventRow, MembershipRow, Position, RoomPlace, RoomRecord, StoreError, Tx, UserNum};
use rustc_hash::FxHashSet;

use crate::PageToken;
use crate::client_event::is_visible;
use crate::filter::Filter;

/// Rows looked at for one timeline: behind them it is cut.
const SCAN_MOST: i64 = 1_000;
/// Rows asked for at once when not all of them pass.
const SCAN_STEP: i64 = 100;

/// A part of a room's timeline.
pub(crate) struct Timeline {
    /// Its events, oldest first.
    pub(crate) rows: Vec<EventRow>,
    /// There are more, between the client's last sight of the room and the oldest of these.
    pub(crate) limited: bool,
    /// From where to page back.
    pub(crate) prev_batch: PageToken,
}

/// Which part.
pub(crate) struct TimelineQuery<'a> {
    pub(crate) room: &'a RoomRecord,
    pub(crate) after: Position,
    pub(crate) upto: Position,
    pub(crate) reader: UserNum,
    /// The reader's memberships of the room.
    pub(crate) history: &'a [MembershipRow],
    pub(crate) ignored: &'a FxHashSet<UserNum>,
    pub(crate) filter: &'a Filter,
}

pub(crate) fn timeline(tx: &mut Tx<'_>, query: &TimelineQuery<'_>) -> Result<Timeline, StoreError> {
    let filter = query.filter;
    let room = query.room;
    let shut = filter.timeline.is_shut() || !filter.timeline.allows_room(&room.room_id);
    let limit = if shut { 0 } else { filter.timeline_limit };
    // Who knows nothing of the room gets it in its order; who knows some of it, as it came.
    let anew = query.after == Position(0);
    let (mut rows, limited) = match (shut, anew) {
        (true, _) => (Vec::new(), false),
        (false, true) => last(tx, query, limit)?,
        (false, false) => newest(tx, query, limit)?,
    };
    rows.reverse();
    let prev_batch = match (rows.first(), anew) {
        (Some(first), true) => PageToken::Before(RoomPlace::before(first), query.upto),
        // What came before it, also where its place in the room is before theirs.
        (Some(EventRow { position: Some(Position(position)), .. }), false) => {
            let upto = Position(position - 1);
            PageToken::Before(tx.events().place_at(room.num, upto)?, upto)
        }
        _ => PageToken::Before(tx.events().place_at(room.num, query.upto)?, query.upto),
    };
    Ok(Timeline { rows, limited, prev_batch })
}

/// The last events in the room's order that pass, last first, and whether there are more.
fn last(tx: &mut Tx<'_>, query: &TimelineQuery<'_>, limit: usize) -> Result<(Vec<EventRow>, bool), StoreError> {
    let mut rows: Vec<EventRow> = Vec::new();
    let mut place = tx.events().place_at(query.room.num, query.upto)?;
    let (mut step, mut scanned) = (i64::try_from(limit).unwrap_or(0) + 1, 0);
    let gaps: FxHashSet<EventNum> = tx.events().gaps(query.room.num)?.into_iter().map(|(event, _)| event).collect();
    loop {
        let before = tx.events().before(query.room.num, place, step)?;
        let found = i64::try_from(before.len()).unwrap_or(i64::MAX);
        for row in before {
            place = RoomPlace::before(&row);
            let gap = gaps.contains(&row.num);
            let came = row.position.is_some_and(|position| position <= query.upto);
            if came && passes(tx, query, &row)? {
                if rows.len() == limit {
                    return Ok((rows, true));
                }
                rows.push(row);
            }
            // What is missing before it is not in the timeline: it ends there.
            if gap && came {
                return Ok((rows, true));
            }
        }
        scanned += found;
        if found < step || scanned >= SCAN_MOST {
            return Ok((rows, found == step));
        }
        step = SCAN_STEP;
    }
}

/// The newest events that pass, newest first, and whether there are more.
fn newest(tx: &mut Tx<'_>, query: &TimelineQuery<'_>, limit: usize) -> Result<(Vec<EventRow>, bool), StoreError> {
    let mut rows: Vec<EventRow> = Vec::new();
    let (mut upto, mut step) = (query.upto, i64::try_from(limit).unwrap_or(0) + 1);
    let mut scanned = 0;
    let gaps: FxHashSet<EventNum> = tx.events().gaps(query.room.num)?.into_iter().map(|(event, _)| event).collect();
    loop {
        let newest = tx.events().newest(query.room.num, query.after, upto, step)?;
        let found = i64::try_from(newest.len()).unwrap_or(i64::MAX);
        for row in newest {
            upto = Position(row.position.map_or(0, |position| position.0 - 1));
            let gap = gaps.contains(&row.num);
            if passes(tx, query, &row)? {
                if rows.len() == limit {
                    return Ok((rows, true));
                }
                rows.push(row);
            }
            // What is missing before it is not in the timeline: it ends there.
            if gap {
                return Ok((rows, true));
            }
        }
        scanned += found;
        if found < step || scanned >= SCAN_MOST {
            return Ok((rows, found == step));
        }
        step = SCAN_STEP;
    }
}

fn passes(tx: &mut Tx<'_>, query: &TimelineQuery<'_>, row: &EventRow) -> Result<bool, StoreError> {
    if row.state_key.is_none() && query.ignored.contains(&row.sender) {
        return Ok(false);
    }
    let filter = &query.filter.timeline;
    if !filter.is_open() {
        let kind = tx.string(row.kind)?;
        if !filter.allows_type(&kind) {
            return Ok(false);
        }
        if !filter.is_open_to_senders() && !filter.allows_sender(&tx.string(row.sender)?) {
            return Ok(false);
        }
        // What was redacted has no url any more.
        if !filter.is_open_to_content() {
            let pdu = tx.events().pdu(query.room, row.num)?;
            if !filter.allows_content(if row.redacted_by.is_some() { "{}" } else { pdu.content.get() }) {
                return Ok(false);
            }
        }
    }
    is_visible(tx, query.history, query.reader, row)
}
