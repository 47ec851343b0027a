//! Pages of a room's history.
//!
//! Spec: client-server API, `GET /rooms/{roomId}/messages`, "Lazy-loading room members".

use hearth_matrix::canonical::write_string;
use hearth_matrix::ruma::OwnedRoomId;
use hearth_store::{EventRow, RoomPlace, SnapshotNum, StateKey, StoreError, Tx};
use rustc_hash::FxHashSet;

use super::access::Access;
use super::filter::{RoomEventFilter, Sieve};
use super::page::{Direction, Stretch};
use super::state::state_rows;
use super::{DEFAULT_LIMIT, MAX_LIMIT, ViewError, Views};
use crate::{PageToken, Reader};

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct MessagesRequest {
    /// Where to begin; at the end that the reader sees first, if absent.
    pub from: Option<String>,
    /// Where to stop.
    pub to: Option<String>,
    /// Which way.
    pub direction: Option<Direction>,
    /// Most events.
    pub limit: Option<u64>,
    /// Which events.
    pub filter: RoomEventFilter,
}

/// A page of a room's history.
#[derive(Clone, Debug)]
pub struct MessagesPage {
    /// The answer.
    pub json: String,
    /// Where other servers may have more.
    pub missing: Option<Missing>,
}

/// A stretch of history that may not be whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// It goes backwards from this place in room order.
    pub before: i64,
    /// So many events.
    pub limit: u32,
}

impl Views {
    /// A page of a room's history, as far as it is here.
    pub async fn messages(
        &self,
        reader: Reader,
        room_id: OwnedRoomId,
        request: MessagesRequest,
    ) -> Result<MessagesPage, ViewError> {
        self.read(move |tx| {
            // The room first: who may not look into it learns nothing else.
            let access = Access::require(tx, &reader, &room_id)?;
            let direction = request.direction.ok_or(ViewError::MissingParam("dir"))?;
            let read = |token: &Option<String>| token.as_deref().map(str::parse::<PageToken>).transpose();
            let (from, to) = (read(&request.from)?, read(&request.to)?);
            let place = |tx: &mut Tx<'_>, token: Option<PageToken>| {
                token.map(|token| token.place(tx, access.room.num)).transpose()
            };
            let upto = from.and_then(PageToken::upto).filter(|_| direction == Direction::Backward);
            let (from, to) = (place(tx, from)?, place(tx, to)?);
            let stretch = Stretch {
                from: match from {
                    Some(from) => from,
                    None => outset(tx, &access, direction)?,
                },
                to,
                upto,
                direction,
                limit: limit(request.limit, request.filter.limit),
            };
            let stretch = until_leave(tx, &access, stretch)?;
            let mut sieve = Sieve::new(tx, &request.filter, &access.room)?;
            let page = stretch.read(tx, &access, &mut sieve)?;

            let mut out = String::from("{\"start\":");
            match &request.from {
                Some(from) => write_string(&mut out, from),
                None => write_token(&mut out, stretch.from),
            }
            // A client that looks for some events only may look further, though there is nothing.
            let end =
                page.next.or_else(|| page.rows.last().map(|row| stretch.past(row)).filter(|_| request.filter.picks()));
            if let Some(next) = end {
                out.push_str(",\"end\":");
                write_string(&mut out, &PageToken::at(next, upto).to_string());
            }
            out.push_str(",\"chunk\":[");
            access.write(tx, &mut out, &page.rows)?;
            out.push(']');
            if request.filter.lazy_load_members {
                let newest = match direction {
                    Direction::Backward => page.rows.first(),
                    Direction::Forward => page.rows.last(),
                };
                let members = match newest {
                    Some(newest) => members_of_senders(tx, &access, newest, &page.rows)?,
                    None => Vec::new(),
                };
                out.push_str(",\"state\":[");
                access.write(tx, &mut out, &members)?;
                out.push(']');
            }
            out.push('}');
            let gaps = direction == Direction::Backward && !tx.events().gaps(access.room.num)?.is_empty();
            let missing = gaps.then(|| Missing {
                before: stretch.from.room_order,
                limit: u32::try_from(stretch.limit).unwrap_or(u32::MAX),
            });
            Ok(MessagesPage { json: out, missing })
        })
        .await
    }
}

/// How many events a client wants and gets.
pub(crate) fn limit(of_query: Option<u64>, of_filter: Option<u64>) -> usize {
    let limit = match (of_query, of_filter) {
        (Some(one), Some(other)) => one.min(other),
        (one, other) => one.or(other).unwrap_or(DEFAULT_LIMIT),
    };
    limit.min(MAX_LIMIT) as usize
}

pub(crate) fn write_token(out: &mut String, place: RoomPlace) {
    write_string(out, &PageToken::from(place).to_string());
}

/// Where a reader begins who names no place.
fn outset(tx: &mut Tx<'_>, access: &Access, direction: Direction) -> Result<RoomPlace, StoreError> {
    if direction == Direction::Forward {
        return Ok(RoomPlace::START);
    }
    let newest = tx.events().before(access.room.num, RoomPlace::END, 1)?;
    Ok(newest.first().map_or(RoomPlace::START, RoomPlace::after))
}

/// Who left sees nothing behind his leave: no need to read there.
fn until_leave(tx: &mut Tx<'_>, access: &Access, mut stretch: Stretch) -> Result<Stretch, StoreError> {
    if let Some(left) = access.left_at() {
        let last = tx.events().place_at(access.room.num, left)?;
        match stretch.direction {
            Direction::Backward => stretch.from = stretch.from.min(last),
            Direction::Forward => stretch.to = Some(stretch.to.map_or(last, |to| to.min(last))),
        }
    }
    Ok(stretch)
}

/// The state after an event.
pub(crate) fn state_after(tx: &mut Tx<'_>, access: &Access, row: &EventRow) -> Result<Option<SnapshotNum>, StoreError> {
    match row.position {
        Some(position) => tx.rooms().snapshot_at(access.room.num, position),
        None => Ok(row.snapshot_before),
    }
}

/// The member events of those who sent these events, in the state after the newest of them.
pub(crate) fn members_of_senders(
    tx: &mut Tx<'_>,
    access: &Access,
    newest: &EventRow,
    rows: &[EventRow],
) -> Result<Vec<EventRow>, StoreError> {
    let Some(snapshot) = state_after(tx, access, newest)? else { return Ok(Vec::new()) };
    let Some(kind) = tx.string_num("m.room.member")? else { return Ok(Vec::new()) };
    let senders: FxHashSet<_> = rows.iter().map(|row| row.sender).collect();
    let mut members = Vec::with_capacity(senders.len());
    for sender in senders {
        let key = StateKey { kind, state_key: sender };
        members.extend(tx.state().get(access.room.num, snapshot, key)?.map(|num| num.0));
    }
    state_rows(tx, members.into_iter())
}
