//! Reading a room along its order: what a reader may see and a filter lets pass.
//!
//! Invisible events are passed over, up to a bound; then the reader gets less than he asked for and a token to go on.

use hearth_store::{EventRow, Position, RoomPlace, StoreError, Tx};
use serde::Deserialize;

use super::access::Access;
use super::filter::Sieve;

/// Most rows that one request reads.
const MAX_ROWS: usize = 5_000;
/// Most rows of one query.
const MAX_BATCH: usize = 500;

/// Which way to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Direction {
    /// From new to old.
    #[serde(rename = "b")]
    Backward,
    /// From old to new.
    #[serde(rename = "f")]
    Forward,
}

/// A stretch of a room.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) from: RoomPlace,
    pub(crate) to: Option<RoomPlace>,
    /// What came after this position is left out.
    pub(crate) upto: Option<Position>,
    pub(crate) direction: Direction,
    pub(crate) limit: usize,
}

/// What was found.
pub(crate) struct Page {
    /// In the direction of reading.
    pub(crate) rows: Vec<EventRow>,
    /// Where to go on; none if nothing more is there for this reader.
    pub(crate) next: Option<RoomPlace>,
}

impl Stretch {
    /// Reads it from the room itself.
    pub(crate) fn read(&self, tx: &mut Tx<'_>, access: &Access, sieve: &mut Sieve<'_>) -> Result<Page, StoreError> {
        let room = access.room.num;
        self.read_from(tx, access, sieve, |tx, direction, place, limit| match direction {
            Direction::Backward => tx.events().before(room, place, limit),
            Direction::Forward => tx.events().from(room, place, limit),
        })
    }

    /// Reads it from any list of events in room order.
    pub(crate) fn read_from(
        &self,
        tx: &mut Tx<'_>,
        access: &Access,
        sieve: &mut Sieve<'_>,
        fetch: impl Fn(&mut Tx<'_>, Direction, RoomPlace, i64) -> Result<Vec<EventRow>, StoreError>,
    ) -> Result<Page, StoreError> {
        let mut found: Vec<EventRow> = Vec::new();
        let mut place = self.from;
        let mut left = MAX_ROWS;
        // One more than asked for tells whether there is more.
        let mut batch = (self.limit + 1).min(MAX_BATCH);
        loop {
            let mut rows = fetch(tx, self.direction, place, batch as i64)?;
            let is_last = rows.len() < batch || rows.iter().any(|row| !self.contains(row));
            rows.retain(|row| self.contains(row));
            left = left.saturating_sub(rows.len());
            if let Some(row) = rows.last() {
                place = self.past(row);
            }
            let mut visible = Vec::with_capacity(rows.len());
            let is_new = |row: &EventRow| self.upto.is_some_and(|upto| row.position.is_some_and(|at| at > upto));
            for row in rows.into_iter().filter(|row| !is_new(row)) {
                if access.may_see(tx, &row)? {
                    visible.push(row);
                }
            }
            sieve.retain(tx, &mut visible)?;
            found.extend(visible);
            if found.len() > self.limit {
                found.truncate(self.limit);
                let next = found.last().map_or(self.from, |row| self.past(row));
                return Ok(Page { rows: found, next: Some(next) });
            }
            if is_last {
                return Ok(Page { rows: found, next: None });
            }
            if left == 0 {
                return Ok(Page { rows: found, next: Some(place) });
            }
            batch = (batch * 2).clamp(1, MAX_BATCH).min(left);
        }
    }

    /// The place behind an event, in the direction of reading.
    pub(crate) fn past(&self, row: &EventRow) -> RoomPlace {
        match self.direction {
            Direction::Backward => RoomPlace::before(row),
            Direction::Forward => RoomPlace::after(row),
        }
    }

    fn contains(&self, row: &EventRow) -> bool {
        match (self.to, self.direction) {
            (None, _) => true,
            (Some(to), Direction::Backward) => RoomPlace::before(row) >= to,
            (Some(to), Direction::Forward) => RoomPlace::before(row) < to,
        }
    }
}
