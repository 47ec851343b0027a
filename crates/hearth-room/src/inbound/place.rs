//! Where an event belongs that does not follow what came last: beside it, or before it, behind a gap.
//!
//! A room that we came into begins with our join; what lies before is not known. An event from there that comes late is no
//! forward extremity, however little we know of what follows it: it would bring old state back. So before an event becomes
//! one that may come from there, the gap is filled as far down as its depth.
//! Spec: server-server API, "PDUs" (forward extremities), "Backfilling and retrieving missing events".

use hearth_matrix::ruma::OwnedEventId;
use hearth_store::{EventNum, OpenGap, Position, Standing, StoreError};

use super::gather::{GatherError, Gathering, Lacking};
use super::history::Edge;
use super::judge::{FAILED, Known};
use super::{Arrival, Told};
use crate::append::Appender;

/// Pages of history fetched to find the place of an event.
const PAGES: usize = 10;
/// Events on a page.
const PAGE: u32 = 100;
/// What lies deeper below a gap is not looked for.
const REACH: i64 = 1_000;
/// Gaps filled with one page.
const GAPS: i64 = 20;

/// Where an event belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whereabouts {
    /// Not behind a gap.
    Ahead,
    /// Before what we know; its place in the room is at most this.
    Behind(i64),
    /// Perhaps before what we know; then its place in the room is at most this.
    Unknown(i64),
}

impl Whereabouts {
    /// What its place in the room is at most, if it is not known to be ahead.
    pub(super) fn ceiling(self) -> Option<i64> {
        match self {
            Self::Ahead => None,
            Self::Behind(ceiling) | Self::Unknown(ceiling) => Some(ceiling),
        }
    }
}

impl Arrival {
    /// Whether the state is told that takes the place of missing events: after each of them or, of what was sent as history, before
    /// itself.
    pub(super) fn is_told(&self, missing: &[OwnedEventId]) -> bool {
        match &self.told_state {
            None => false,
            Some(Told::Before(_)) => true,
            Some(Told::After(told)) => missing.iter().all(|id| told.iter().any(|(told, _)| told == id)),
            Some(Told::Known(told)) => missing.iter().all(|id| told.iter().any(|(told, _)| told == id)),
        }
    }

    fn depth(&self) -> i64 {
        i64::try_from(self.pdu.depth).unwrap_or(i64::MAX)
    }
}

impl Appender<'_, '_> {
    /// Where an event belongs, as far as can be told by what is here.
    pub(super) fn place_of(
        &mut self,
        arrival: &Arrival,
        num: Option<EventNum>,
        prev_events: &[(EventNum, Known)],
    ) -> Result<Whereabouts, StoreError> {
        if let Some(ceiling) = arrival.history {
            return Ok(Whereabouts::Behind(ceiling));
        }
        let Some(since) = self.in_room_since()? else { return Ok(Whereabouts::Ahead) };
        let child = match num {
            Some(num) => self.tx.events().lowest_child(num)?.map(|order| (num, order)),
            None => None,
        };
        if let Some((num, order)) = child {
            let is_behind = self.tx.events().has_child_upto(num, since)?;
            return Ok(if is_behind { Whereabouts::Behind(order - 1) } else { Whereabouts::Ahead });
        }
        if self.follows_what_came_since(since, prev_events)? {
            return Ok(Whereabouts::Ahead);
        }
        let gaps = self.tx.events().open_gaps(self.room.num, arrival.depth(), GAPS)?;
        let lowest = gaps.iter().map(|gap| gap.room_order - 1).min();
        Ok(lowest.map_or(Whereabouts::Ahead, Whereabouts::Unknown))
    }

    /// Since when users of ours are in the room.
    fn in_room_since(&mut self) -> Result<Option<Position>, StoreError> {
        let Some(us) = self.tx.string_num(self.config.server_name.as_str())? else { return Ok(None) };
        let stays = self.tx.deliveries().stays(self.room.num, us)?;
        Ok(stays.iter().rfind(|stay| stay.until.is_none()).map(|stay| stay.since))
    }

    /// Whether one of these events, or one that failed ones follow, has come since a position: it is not behind what came then.
    fn follows_what_came_since(
        &mut self,
        since: Position,
        prev_events: &[(EventNum, Known)],
    ) -> Result<bool, StoreError> {
        let mut todo: Vec<EventNum> = prev_events.iter().map(|(num, _)| *num).collect();
        let mut walked = 0;
        while let Some(num) = todo.pop() {
            walked += 1;
            if walked > FAILED {
                break;
            }
            if self.tip.extremities.contains(&num) {
                return Ok(true);
            }
            if let Some(pending) = self.pending.iter().rfind(|pending| pending.num == num) {
                if pending.standing == Standing::Live && !pending.history {
                    return Ok(true);
                }
                todo.extend(&pending.prev_events);
                continue;
            }
            let Some(row) = self.tx.events().row(num)? else { continue };
            match row.standing {
                Standing::Live | Standing::Partial if row.position.is_some_and(|position| position >= since) => {
                    return Ok(true);
                }
                Standing::SoftFailed | Standing::Rejected => {
                    let pdu = self.tx.events().pdu(&self.room, num)?;
                    for id in &pdu.prev_events {
                        todo.extend(self.tx.events().num(&self.room, id)?);
                    }
                }
                _ => {}
            }
        }
        Ok(false)
    }
}

impl Gathering<'_> {
    /// Fills the gaps of the room down to the depth of events whose place is not known. Afterwards they count as sought, whatever
    /// was found.
    pub(super) async fn seek_places(&self, lacking: &mut [Lacking]) -> Result<(), GatherError> {
        let mut last = None;
        for _ in 0..PAGES {
            let depths: Vec<i64> =
                lacking.iter().filter(|event| !event.arrival.sought).map(|event| event.arrival.depth()).collect();
            let Some(lowest) = depths.iter().copied().min() else { return Ok(()) };
            let num = self.room.num;
            let read = self.rooms.inner.store.read(move |tx| {
                let gaps = tx.events().open_gaps(num, lowest, GAPS)?;
                let edge =
                    |gap: &OpenGap| Ok(Edge { room_order: gap.room_order, missing: tx.events().id(gap.missing)? });
                let edges = gaps.iter().map(edge).collect::<Result<Vec<_>, StoreError>>()?;
                Ok((gaps, edges))
            });
            let (gaps, edges) = read.await?;
            // The same once more: nobody tells.
            let Some(top) = gaps.first().filter(|_| last.as_ref() != Some(&gaps)) else { break };
            let reach = |depth: i64| depth >= top.depth.saturating_sub(REACH);
            if !reach(lowest) {
                for event in lacking.iter_mut().filter(|event| !reach(event.arrival.depth())) {
                    event.arrival.sought = true;
                }
                continue;
            }
            self.history(&edges, PAGE).await?;
            last = Some(gaps);
        }
        for event in lacking {
            event.arrival.sought = true;
        }
        Ok(())
    }
}
