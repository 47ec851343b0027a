//! PDUs of a transaction: checked for what can be checked at once. Those that lack nothing are judged, the others staged: what
//! was taken is durable before it is answered.
//!
//! Spec: server-server API, "Transactions", "Checks performed on receipt of a PDU", 1 to 3.

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, ServerName};
use hearth_matrix::signatures::VerifyError;
use hearth_store::{Noun, RoomNum, RoomRecord, Standing, StateKey, StoreError, Tx};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use tokio::task::JoinSet;

use super::acl::ServerAcl;
use super::sorting::{By, sorted};
use super::worker::{TOGETHER, is_closed};
use super::{Arrival, signatures};
use crate::{RoomError, Rooms};

/// Events that may wait for one room.
const STAGED: i64 = 10_000;
/// Events that may wait for one room, from one server.
const STAGED_OF_ORIGIN: i64 = 2_000;
/// The same of servers that are not known to be in the room: they leave most of it to those that are.
const STAGED_OF_STRANGERS: (i64, i64) = (STAGED / 4, 50);

/// What became of a PDU at the door.
#[derive(Clone, Debug)]
pub struct Received {
    /// Its id, if that much could be read.
    pub event_id: Option<OwnedEventId>,
    /// Staged (or here already), or dropped.
    pub outcome: Result<(), Dropped>,
}

/// Why a PDU was dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Dropped {
    /// It is no event of its room's version.
    #[error("{0}")]
    Malformed(String),
    /// We are not in the room.
    #[error("this server is not in the room")]
    UnknownRoom,
    /// The room's server ACL shuts out who sent it to us.
    #[error("{0} is shut out by the room's server ACL")]
    ShutOut(String),
    /// A signature is missing or wrong.
    #[error("{0}")]
    Signature(String),
    /// Too much waits already, of this server or for this room.
    #[error("too many events wait for this room")]
    TooMany,
}

/// A room that we are in, and its server ACL.
pub(super) type KnownRoom = (Arc<RoomRecord>, Option<ServerAcl>);

/// A PDU with its place in the transaction.
struct Candidate {
    at: usize,
    room: Arc<RoomRecord>,
    pdu: Arc<Pdu>,
    verified: bool,
}

impl Rooms {
    /// Takes PDUs that another server sent. What is accepted for work is durable when this returns.
    pub async fn receive(&self, origin: &ServerName, pdus: &[String]) -> Result<Vec<Received>, RoomError> {
        let mut received: Vec<Received> =
            pdus.iter().map(|_| Received { event_id: None, outcome: Err(Dropped::UnknownRoom) }).collect();
        let rooms: Vec<Option<OwnedRoomId>> = pdus.iter().map(|json| room_id(json)).collect();
        let mut distinct: Vec<OwnedRoomId> = rooms.iter().flatten().cloned().collect();
        distinct.sort_unstable();
        distinct.dedup();
        let known = self.inner.store.read(move |tx| distinct.iter().map(|room| standing_of(tx, room)).collect());
        let known: Vec<Option<KnownRoom>> = known.await?;

        let mut candidates = Vec::new();
        for (at, (json, room_id)) in pdus.iter().zip(&rooms).enumerate() {
            let Some(room_id) = room_id else {
                received[at].outcome = Err(Dropped::Malformed("it names no room".into()));
                continue;
            };
            let Some((room, acl)) = known.iter().flatten().find(|(room, _)| room.room_id == *room_id) else {
                received[at] = self.end_elsewhere(json, room_id).await?;
                continue;
            };
            match candidate(origin, json, room, acl.as_ref()) {
                Ok(pdu) => {
                    received[at] = Received { event_id: Some(pdu.event_id.clone()), outcome: Ok(()) };
                    candidates.push(Candidate { at, room: room.clone(), pdu: Arc::new(pdu), verified: false });
                }
                Err((event_id, dropped)) => received[at] = Received { event_id, outcome: Err(dropped) },
            }
        }
        let candidates = self.check_at_hand(candidates, &mut received).await;
        let candidates = self.judge_at_hand(candidates).await?;
        self.stage(origin, candidates, &mut received).await?;
        Ok(received)
    }

    /// Signatures whose keys are at hand are checked before anything is stored; the others later.
    async fn check_at_hand(&self, candidates: Vec<Candidate>, received: &mut [Received]) -> Vec<Candidate> {
        let Some(neighbours) = self.inner.inbound.neighbours.get() else { return candidates };
        let events = candidates.iter().map(|candidate| (candidate.pdu.clone(), candidate.room.rules)).collect();
        let outcomes = signatures::check_at_hand(&**neighbours, events).await;
        let mut kept = Vec::with_capacity(candidates.len());
        for (mut candidate, outcome) in candidates.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => candidate.verified = true,
                Err(VerifyError::UnknownKey(_)) => {}
                Err(error @ (VerifyError::Wrong(_) | VerifyError::Unsigned(_) | VerifyError::Malformed)) => {
                    received[candidate.at].outcome = Err(Dropped::Signature(error.to_string()));
                    continue;
                }
            }
            kept.push(candidate);
        }
        kept
    }

    /// Judges what lacks nothing, each room's events in its turn, all rooms beside each other. Returns what must wait: for its
    /// keys, for events that are missing, or because its room is too busy.
    async fn judge_at_hand(&self, candidates: Vec<Candidate>) -> Result<Vec<Candidate>, RoomError> {
        let mut by_room: BTreeMap<RoomNum, (Arc<RoomRecord>, Vec<Arc<Pdu>>)> = BTreeMap::new();
        for candidate in candidates.iter().filter(|candidate| candidate.verified) {
            let of_room = by_room.entry(candidate.room.num).or_insert_with(|| (candidate.room.clone(), Vec::new()));
            of_room.1.push(candidate.pdu.clone());
        }
        let mut rooms: JoinSet<Result<(RoomNum, Vec<OwnedEventId>), RoomError>> = JoinSet::new();
        for (room, pdus) in by_room.into_values() {
            let this = self.clone();
            rooms.spawn(async move { Ok((room.num, this.judge_of_room(&room, pdus).await?)) });
        }
        let mut judged: FxHashMap<RoomNum, Vec<OwnedEventId>> = FxHashMap::default();
        while let Some(of_room) = rooms.join_next().await {
            // What a task that broke off had is staged with the rest.
            if let Ok(of_room) = of_room {
                let (room, events) = of_room?;
                judged.insert(room, events);
            }
        }
        let is_judged = |candidate: &Candidate| {
            judged.get(&candidate.room.num).is_some_and(|judged| judged.contains(&candidate.pdu.event_id))
        };
        Ok(candidates.into_iter().filter(|candidate| !is_judged(candidate)).collect())
    }

    /// Judges events of a room as far as they lack nothing; the ids of those that were judged.
    async fn judge_of_room(&self, room: &Arc<RoomRecord>, pdus: Vec<Arc<Pdu>>) -> Result<Vec<OwnedEventId>, RoomError> {
        let (mut judged, mut is_crowded) = (Vec::with_capacity(pdus.len()), false);
        for part in sorted(pdus, By::All).chunks(TOGETHER) {
            let arrivals = part.iter().map(|pdu| Arrival::of(pdu.clone())).collect();
            let judgement = match self.judged(&room.room_id, arrivals).await {
                Ok(judgement) => judgement,
                Err(error) if is_closed(&error) => return Err(error),
                // The worker finds out which of them it was.
                Err(_) => continue,
            };
            is_crowded = judgement.is_crowded;
            for (pdu, verdict) in part.iter().zip(judgement.verdicts) {
                if verdict.is_final() {
                    judged.push(pdu.event_id.clone());
                }
            }
        }
        if is_crowded {
            self.merge_branches(room).await?;
        }
        if !judged.is_empty() {
            self.tell_worker(&room.room_id, judged.clone());
        }
        Ok(judged)
    }

    async fn stage(
        &self,
        origin: &ServerName,
        candidates: Vec<Candidate>,
        received: &mut [Received],
    ) -> Result<(), RoomError> {
        if candidates.is_empty() {
            return Ok(());
        }
        let mut rooms: Vec<Arc<RoomRecord>> = candidates.iter().map(|candidate| candidate.room.clone()).collect();
        rooms.sort_unstable_by_key(|room| room.num);
        rooms.dedup_by_key(|room| room.num);
        let nouns: Vec<Noun> = rooms.iter().map(|room| Noun::Room(room.num)).collect();
        let (origin, ts) = (origin.to_owned(), self.inner.time.now_ms());
        let write = self.inner.store.write(nouns, move |tx| {
            let origin = tx.intern(origin.as_str())?;
            let mut refused = Vec::new();
            let mut staged_in = Vec::new();
            for room in &rooms {
                let (mut all, mut of_origin) = tx.staged().count(room.num, origin)?;
                let is_there = tx.rooms().has_server(room.num, origin)?
                    || tx.rooms().tip(room.num)?.is_some_and(|tip| tip.partial);
                let (most, most_of_origin) = if is_there { (STAGED, STAGED_OF_ORIGIN) } else { STAGED_OF_STRANGERS };
                for Candidate { at, pdu, verified, .. } in candidates.iter().filter(|c| c.room.num == room.num) {
                    if is_known(tx, room, pdu)? {
                        continue;
                    }
                    if all >= most || of_origin >= most_of_origin {
                        refused.push(*at);
                        continue;
                    }
                    if tx.staged().stage(room, origin, &pdu.event_id, &pdu.json, ts, *verified)? {
                        (all, of_origin) = (all + 1, of_origin + 1);
                        staged_in.push(room.room_id.clone());
                    }
                }
            }
            Ok((refused, staged_in))
        });
        let (refused, mut staged_in) = write.await?;
        for at in refused {
            received[at].outcome = Err(Dropped::TooMany);
        }
        staged_in.dedup();
        for room_id in staged_in {
            self.wake_worker(room_id);
        }
        Ok(())
    }
}

/// Whether an event was judged already.
pub(super) fn is_known(tx: &mut Tx<'_>, room: &RoomRecord, pdu: &Pdu) -> Result<bool, StoreError> {
    let row = tx.events().by_id(room, &pdu.event_id)?;
    Ok(row.is_some_and(|row| row.standing != Standing::Outlier))
}

/// The room that an event names. Create events of version 12 name none; they come with a join.
fn room_id(json: &str) -> Option<OwnedRoomId> {
    #[derive(Deserialize)]
    struct Named {
        room_id: OwnedRoomId,
    }
    serde_json::from_str::<Named>(json).ok().map(|named| named.room_id)
}

/// A room that we are in, and its server ACL.
pub(super) fn standing_of(tx: &mut Tx<'_>, room_id: &OwnedRoomId) -> Result<Option<KnownRoom>, StoreError> {
    let Some(room) = tx.rooms().by_id(room_id)? else { return Ok(None) };
    let Some(tip) = tx.rooms().tip(room.num)?.filter(|tip| tip.joined_local > 0) else { return Ok(None) };
    let (Some(kind), Some(state_key)) = (tx.string_num("m.room.server_acl")?, tx.string_num("")?) else {
        return Ok(Some((room, None)));
    };
    let Some(snapshot) = tip.snapshot else { return Ok(Some((room, None))) };
    let acl = match tx.state().get(room.num, snapshot, StateKey { kind, state_key })? {
        Some(num) => ServerAcl::parse(tx.events().pdu(&room, num)?.content.get()),
        None => None,
    };
    Ok(Some((room, acl)))
}

fn candidate(
    origin: &ServerName,
    json: &str,
    room: &RoomRecord,
    acl: Option<&ServerAcl>,
) -> Result<Pdu, (Option<OwnedEventId>, Dropped)> {
    let pdu = Pdu::from_remote(json, room.rules).map_err(|error| (None, Dropped::Malformed(error.to_string())))?;
    let drop = |dropped| Err((Some(pdu.event_id.clone()), dropped));
    if pdu.room_id != room.room_id {
        return drop(Dropped::Malformed("it is of another room".into()));
    }
    if pdu.prev_events.is_empty() {
        return drop(Dropped::Malformed("nothing comes before it".into()));
    }
    // Whoever made it: an ACL stands between servers, and is none of the rules that events are judged by.
    if acl.is_some_and(|acl| !acl.allows(origin)) {
        return drop(Dropped::ShutOut(origin.to_string()));
    }
    Ok(pdu)
}
