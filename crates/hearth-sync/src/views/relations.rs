//! What relates to an event.
//!
//! Spec: client-server API, `GET /rooms/{roomId}/relations/{eventId}` and its longer forms.

use std::fmt::Write;

use hearth_matrix::canonical::write_string;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId};
use hearth_store::{EventNum, EventRow, RoomPlace, Standing, StoreError, StringNum, Tx};
use rustc_hash::FxHashMap;

use super::access::Access;
use super::event::visible_event;
use super::filter::{RoomEventFilter, Sieve};
use super::messages::{limit, write_token};
use super::page::{Direction, Stretch};
use super::state::sorted_rows;
use super::{ViewError, Views};
use crate::{PageToken, Reader};

/// How far relations of relations are followed.
const MAX_DEPTH: usize = 3;
/// Most events that are gathered on the way.
const MAX_GATHERED: usize = 5_000;

/// What a client asks for.
#[derive(Clone, Debug)]
pub struct RelationsRequest {
    /// Only events that relate in this way.
    pub rel_type: Option<String>,
    /// Only events of this type.
    pub event_type: Option<String>,
    /// Where to begin; at the newest or oldest, if absent.
    pub from: Option<String>,
    /// Where to stop.
    pub to: Option<String>,
    /// Which way.
    pub direction: Direction,
    /// Most events.
    pub limit: Option<u64>,
    /// Also what relates to what relates to the event.
    pub recurse: bool,
}

impl Views {
    /// A page of what relates to an event.
    pub async fn relations(
        &self,
        reader: Reader,
        room_id: OwnedRoomId,
        event_id: OwnedEventId,
        request: RelationsRequest,
    ) -> Result<String, ViewError> {
        self.read(move |tx| {
            let access = Access::find(tx, &reader, &room_id)?.ok_or(ViewError::NotFound("There is no such event"))?;
            let room = access.room.num;
            let parent = visible_event(tx, &access, &event_id)?;
            let place = |tx: &mut Tx<'_>, token: &Option<String>| match token {
                Some(token) => Ok(Some(token.parse::<PageToken>()?.place(tx, room)?)),
                None => Ok::<_, ViewError>(None),
            };
            let outset = match request.direction {
                Direction::Backward => RoomPlace::END,
                Direction::Forward => RoomPlace::START,
            };
            let stretch = Stretch {
                from: place(tx, &request.from)?.unwrap_or(outset),
                to: place(tx, &request.to)?,
                upto: None,
                direction: request.direction,
                limit: limit(request.limit, None),
            };
            let filter =
                RoomEventFilter { types: request.event_type.clone().map(|kind| vec![kind]), ..Default::default() };
            let mut sieve = Sieve::new(tx, &filter, &access.room)?;
            // A type that nothing ever had is none that anything relates by; no string has the number -1.
            let rel = match &request.rel_type {
                Some(rel) => Some(tx.string_num(rel)?.unwrap_or(StringNum(-1))),
                None => None,
            };
            let page = if request.recurse {
                let gathered = descendants(tx, &access, parent.num, rel)?;
                stretch.read_from(tx, &access, &mut sieve, |_, direction, place, limit| {
                    Ok(slice(&gathered, direction, place, limit as usize))
                })?
            } else {
                stretch.read_from(tx, &access, &mut sieve, |tx, direction, place, limit| match direction {
                    Direction::Backward => tx.events().related_before(room, parent.num, rel, place, limit),
                    Direction::Forward => tx.events().related_from(room, parent.num, rel, place, limit),
                })?
            };

            let mut out = String::from("{\"chunk\":[");
            access.write(tx, &mut out, &page.rows)?;
            out.push(']');
            if let Some(next) = page.next {
                out.push_str(",\"next_batch\":");
                write_token(&mut out, next);
            }
            if let Some(from) = &request.from {
                out.push_str(",\"prev_batch\":");
                write_string(&mut out, from);
            }
            if request.recurse {
                // Writing to a string does not fail.
                let _ = write!(out, ",\"recursion_depth\":{MAX_DEPTH}");
            }
            out.push('}');
            Ok(out)
        })
        .await
    }
}

/// What relates to an event, directly or through others, in room order. How the last one relates is what counts.
fn descendants(
    tx: &mut Tx<'_>,
    access: &Access,
    root: EventNum,
    rel: Option<StringNum>,
) -> Result<Vec<EventRow>, StoreError> {
    let mut found: FxHashMap<EventNum, StringNum> = FxHashMap::default();
    let mut level = vec![root.0];
    for _ in 0..MAX_DEPTH {
        let room_left = MAX_GATHERED - found.len();
        let children = tx.events().children(access.room.num, &level, room_left as i64)?;
        level.clear();
        for (child, rel) in children {
            if child != root && found.insert(child, rel).is_none() {
                level.push(child.0);
            }
        }
        if level.is_empty() || found.len() >= MAX_GATHERED {
            break;
        }
    }
    let wanted = found.iter().filter(|(_, by)| rel.is_none_or(|rel| **by == rel)).map(|(num, _)| num.0);
    let mut rows = sorted_rows(tx, wanted)?;
    rows.retain(|row| row.room == access.room.num && row.standing == Standing::Live && row.redacted_by.is_none());
    Ok(rows)
}

/// As the store would answer from a list in room order.
fn slice(rows: &[EventRow], direction: Direction, place: RoomPlace, limit: usize) -> Vec<EventRow> {
    let at = rows.partition_point(|row| RoomPlace::before(row) < place);
    match direction {
        Direction::Backward => rows[..at].iter().rev().take(limit).cloned().collect(),
        Direction::Forward => rows[at..].iter().take(limit).cloned().collect(),
    }
}
