//! History: events before the oldest that we know, fetched when somebody reads that far back.
//!
//! They take no position: no sync, no push and no delivery is told of them; only their place in room order shows them.
//! Spec: server-server API, "Backfilling and retrieving missing events".

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, RoomId};
use hearth_store::{EventNum, RoomPlace, RoomRecord, StoreError, Tx};
use rustc_hash::{FxHashMap, FxHashSet};

use super::asking::Answers;
use super::gather::{GatherError, Gathering};
use super::sorting::{By, sorted};
use super::worker::TOGETHER;
use super::{Arrival, Told, Verdict};
use crate::{RoomError, Rooms};

/// Events that history is asked before of at once.
const EDGES: usize = 20;
/// The most events asked for at once.
const LIMIT: u32 = 100;

/// An edge of what we know: the place of an event in the room, and what is missing before it.
pub(super) struct Edge {
    pub(super) room_order: i64,
    pub(super) missing: OwnedEventId,
}

impl Rooms {
    /// Fetches events that are missing on the next `limit` ones backwards from a place in room order; how many came.
    /// None came: nothing is missing there, or nobody tells.
    pub async fn backfill(&self, room_id: &RoomId, before: i64, limit: u32) -> Result<usize, RoomError> {
        let Some(neighbours) = self.inner.inbound.neighbours.get() else { return Ok(0) };
        let id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&id)? else { return Ok(None) };
            let edges = edges(tx, &room, before, i64::from(limit))?;
            Ok(Some((room, edges)))
        });
        let (room, edges) = read.await?.ok_or(RoomError::UnknownRoom)?;
        if edges.is_empty() {
            return Ok(0);
        }
        let servers = self.servers_to_ask(&**neighbours, &room, before).await?;
        let (asked, id, from) = (neighbours.clone(), room.room_id.clone(), missing(&edges));
        let mut answers = Answers::of(servers, move |server| {
            let (neighbours, room_id, from) = (asked.clone(), id.clone(), from.clone());
            Box::pin(async move { neighbours.backfill(&server, &room_id, from, limit.min(LIMIT)).await })
        });
        while let Some((server, answer)) = answers.next().await {
            let gathering = Gathering::new(self, neighbours, &room, &server);
            let came = match answer {
                Ok(events) => gathering.take_history(&edges, events).await,
                Err(error) => Err(error.into()),
            };
            match came {
                Ok(0) => {}
                Ok(came) => {
                    // What waited for an event that came is staged.
                    self.wake_worker(room.room_id.clone());
                    return Ok(came);
                }
                Err(error) => tracing::debug!(%room_id, %server, %error, "history could not be fetched"),
            }
        }
        Ok(0)
    }
}

/// The edges before which history is missing, among the next `limit` events backwards, nearest first.
fn edges(tx: &mut Tx<'_>, room: &RoomRecord, before: i64, limit: i64) -> Result<Vec<Edge>, StoreError> {
    let gaps = tx.events().gaps(room.num)?;
    if gaps.is_empty() {
        return Ok(Vec::new());
    }
    let place = RoomPlace { room_order: before, num: EventNum(i64::MAX) };
    let page = tx.events().before(room.num, place, limit)?;
    let far = i64::try_from(page.len()).is_ok_and(|len| len < limit);
    let floor = page.last().filter(|_| !far).map_or(i64::MIN, |oldest| oldest.room_order);
    let nums: Vec<i64> = gaps.iter().flat_map(|(event, missing)| [event.0, missing.0]).collect();
    let rows = tx.events().rows(&nums)?;
    let row = |num: EventNum| rows.iter().find(|row| row.num == num);
    let mut edges = Vec::new();
    for (event, missing) in gaps {
        let has_past = row(missing).is_some_and(|row| row.state_after().is_some());
        let on_page = |order: i64| (floor..=before).contains(&order);
        if let Some(event) = row(event).filter(|event| !has_past && on_page(event.room_order)) {
            edges.push(Edge { room_order: event.room_order, missing: tx.events().id(missing)? });
        }
    }
    edges.sort_by_key(|edge| std::cmp::Reverse(edge.room_order));
    edges.truncate(EDGES);
    Ok(edges)
}

impl Gathering<'_> {
    /// Fetches history before events; how many came.
    pub(super) async fn history(&self, edges: &[Edge], limit: u32) -> Result<usize, GatherError> {
        let events = self.neighbours.backfill(self.server, &self.room.room_id, missing(edges), limit).await?;
        self.take_history(edges, events).await
    }

    /// Takes in what was sent of history before events; how many came.
    ///
    /// History is what the edges lead to. What else was sent is judged like any event whose place can't be found: by the present,
    /// too, or a server could bring in behind it whatever it likes. Servers that tell the truth send such events where they refused
    /// one that another has accepted.
    async fn take_history(&self, edges: &[Edge], events: Vec<String>) -> Result<usize, GatherError> {
        let events = self.checked(events.into_iter().take(LIMIT as usize).collect()).await?;
        let order = sorted(events, By::All);
        let here: FxHashSet<OwnedEventId> = order.iter().map(|pdu| pdu.event_id.clone()).collect();
        let ceilings = ceilings(edges, &order);
        let mut arrivals = Vec::with_capacity(order.len());
        for pdu in &order {
            let history = ceilings.get(&pdu.event_id).copied();
            let mut arrival = Arrival { history, sought: true, ..Arrival::of(pdu.clone()) };
            // Behind the edge of what was sent, the state is what the other server says.
            let behind = pdu.prev_events.iter().filter(|id| !here.contains(*id)).cloned().collect();
            if !self.without_state(behind).await?.is_empty() {
                arrival.told_state = match self.fetch_state(&pdu.event_id).await {
                    // The others are good without it.
                    Err(GatherError::TooMuch) => None,
                    told => told?.map(Told::Before),
                };
            }
            arrivals.push(arrival);
        }
        let mut came = 0;
        for part in arrivals.chunks_mut(TOGETHER) {
            // What the policy server can't be asked about now does not come now.
            let verdicts = self.judge_recommended(part, false).await?;
            came += verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Accepted)).count();
        }
        Ok(came)
    }
}

/// What is missing before these edges.
fn missing(edges: &[Edge]) -> Vec<OwnedEventId> {
    edges.iter().map(|edge| edge.missing.clone()).collect()
}

/// What the place in the room of those of these events, oldest first, is at most that the edges lead to: before all that is known
/// to follow it.
fn ceilings(edges: &[Edge], order: &[Arc<Pdu>]) -> FxHashMap<OwnedEventId, i64> {
    let mut ceilings: FxHashMap<OwnedEventId, i64> = FxHashMap::default();
    let lower = |ceilings: &mut FxHashMap<OwnedEventId, i64>, id: &OwnedEventId, to: i64| {
        let ceiling = ceilings.entry(id.clone()).or_insert(to);
        *ceiling = to.min(*ceiling);
    };
    for edge in edges {
        lower(&mut ceilings, &edge.missing, edge.room_order - 1);
    }
    for pdu in order.iter().rev() {
        let Some(own) = ceilings.get(&pdu.event_id).copied() else { continue };
        for prev in &pdu.prev_events {
            lower(&mut ceilings, prev, own - 1);
        }
    }
    ceilings
}
