//! History: events before the oldest that we know, fetched when somebody reads that far back.
//!
//! They take no position: no sync, no push and no delivery is told of them; only their place in room order shows them.
//! Spec: server-server API, "Backfilling and retrieving missing events".

use hearth_matrix::ruma::{OwnedEventId, OwnedServerName, RoomId};
use hearth_store::{EventNum, RoomPlace, RoomRecord, StoreError, Tx};
use rustc_hash::FxHashSet;

use super::gather::{GatherError, Gathering};
use super::sorting::{By, sorted};
use super::worker::TOGETHER;
use super::{Arrival, Verdict};
use crate::{RoomError, Rooms};

/// Servers asked, one after the other.
const SERVERS: i64 = 5;
/// Events that history is asked before of at once.
const EDGES: usize = 20;
/// The most events asked for at once.
const LIMIT: u32 = 100;

/// An edge of what we know: an event, its place in the room, and what is missing before it.
struct Edge {
    room_order: i64,
    missing: OwnedEventId,
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
            let servers = tx.rooms().servers(room.num, SERVERS)?;
            Ok(Some((room, edges, servers)))
        });
        let (room, edges, servers) = read.await?.ok_or(RoomError::UnknownRoom)?;
        let Some(ceiling) = edges.iter().map(|edge| edge.room_order).max() else { return Ok(0) };
        let from: Vec<OwnedEventId> = edges.into_iter().map(|edge| edge.missing).collect();
        // The semaphore is never closed.
        let _permit = self.inner.inbound.asking.acquire().await;
        for server in servers.iter().filter_map(|name| OwnedServerName::try_from(&**name).ok()) {
            if server == self.inner.config.server_name {
                continue;
            }
            let gathering = Gathering { rooms: self, neighbours, room: &room, server: &server };
            match gathering.history(&from, limit.min(LIMIT), ceiling).await {
                Ok(0) => {}
                Ok(came) => return Ok(came),
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
    async fn history(&self, from: &[OwnedEventId], limit: u32, ceiling: i64) -> Result<usize, GatherError> {
        let events = self.neighbours.backfill(self.server, &self.room.room_id, from.to_vec(), limit).await?;
        let events = self.checked(events.into_iter().take(LIMIT as usize).collect()).await?;
        let order = sorted(events, By::All);
        let here: FxHashSet<OwnedEventId> = order.iter().map(|pdu| pdu.event_id.clone()).collect();
        let count = i64::try_from(order.len()).unwrap_or(0);
        let mut arrivals = Vec::with_capacity(order.len());
        for (n, pdu) in (0_i64..).zip(&order) {
            let mut arrival = Arrival { history: Some(ceiling - (count - n)), ..Arrival::of(pdu.clone()) };
            // Behind the edge of what was sent, the state is what the other server says.
            if pdu.prev_events.iter().any(|id| !here.contains(id)) {
                arrival.told_state = self.fetch_state(&pdu.event_id).await?;
            }
            arrivals.push(arrival);
        }
        let mut came = 0;
        for part in arrivals.chunks(TOGETHER) {
            let verdicts = self.rooms.judge(&self.room.room_id, part.to_vec()).await?;
            came += verdicts.iter().filter(|verdict| matches!(verdict, Verdict::Accepted)).count();
        }
        Ok(came)
    }
}
