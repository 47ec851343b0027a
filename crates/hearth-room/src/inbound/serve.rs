//! What other servers ask of our rooms: events between two edges, state before an event, what allows an event, history.
//!
//! Whether the asker is in the room, and which events it may see, is for the caller to judge.
//! Spec: server-server API, "Retrieving events".

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{EventId, OwnedEventId, RoomId};
use hearth_store::{EventNum, EventRow, Membership, RoomRecord, SnapshotNum, Standing, StateKey, StoreError, Tx};
use rustc_hash::FxHashSet;

use super::{MissingEvents, StateIdsAt};
use crate::append::Decision;
use crate::servers::served;
use crate::{RoomError, Rooms};

/// Events walked past for one answer.
const WALKED: usize = 1_000;
/// The most events of one answer.
const MOST: usize = 100;
/// Members by whom a room without a name is called: five, and who just comes in is none of them.
const HEROES: i64 = 6;

/// The state before an event, and all that allows it.
#[derive(Clone, Debug)]
pub struct StateBefore {
    /// The state.
    pub state: Vec<Arc<Pdu>>,
    /// Its full auth chain.
    pub auth_chain: Vec<Arc<Pdu>>,
}

impl Rooms {
    /// Events that come before `latest` and are not (before) `earliest`, oldest first.
    pub async fn missing_events(&self, room_id: &RoomId, question: MissingEvents) -> Result<Vec<Arc<Pdu>>, RoomError> {
        let room_id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(None) };
            let limit = (question.limit as usize).min(MOST);
            let mut found = walk_back(tx, &room, &question.latest, &question.earliest, limit, true)?;
            found.retain(|pdu| pdu.depth >= question.min_depth);
            found.reverse();
            Ok(Some(found))
        });
        read.await?.ok_or(RoomError::UnknownRoom)
    }

    /// Events from `from` backwards, those included, newest first.
    pub async fn history_before(
        &self,
        room_id: &RoomId,
        from: Vec<OwnedEventId>,
        limit: usize,
    ) -> Result<Vec<Arc<Pdu>>, RoomError> {
        let room_id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(None) };
            walk_back(tx, &room, &from, &[], limit.min(MOST), false).map(Some)
        });
        read.await?.ok_or(RoomError::UnknownRoom)
    }

    /// The state before an event.
    pub async fn state_before(&self, room_id: &RoomId, event_id: &EventId) -> Result<StateBefore, RoomError> {
        let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
        let read = self.inner.store.read(move |tx| {
            let (room, state) = match numbers_before(tx, &room_id, &event_id)? {
                Ok(before) => before,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let auth_chain = auth_chain(tx, &room, &state)?;
            Ok(Ok(StateBefore { state: served(tx, &room, &state)?, auth_chain: served(tx, &room, &auth_chain)? }))
        });
        read.await?
    }

    /// The same by ids alone. No event is read for it.
    pub async fn state_ids_before(&self, room_id: &RoomId, event_id: &EventId) -> Result<StateIdsAt, RoomError> {
        let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
        let read = self.inner.store.read(move |tx| {
            let (room, state) = match numbers_before(tx, &room_id, &event_id)? {
                Ok(before) => before,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let auth_chain = auth_chain(tx, &room, &state)?;
            Ok(Ok(StateIdsAt { state: tx.events().ids(&state)?, auth_chain: tx.events().ids(&auth_chain)? }))
        });
        read.await?
    }

    /// The state before an event without its members, but for those by whom a room without a name is called, and what allows
    /// that and the event, without what is in the state (`omit_members`).
    pub(super) async fn part_before(&self, room_id: &RoomId, event_id: &EventId) -> Result<StateBefore, RoomError> {
        let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(Err(RoomError::UnknownRoom)) };
            let row = tx.events().by_id(&room, &event_id)?;
            let Some((row, snapshot)) = row.and_then(|row| Some((row.num, row.snapshot_before?))) else {
                return Ok(Err(RoomError::NotFound("The state before this event is not known")));
            };
            let heroes = match is_named(tx, &room, snapshot)? {
                true => Vec::new(),
                false => heroes(tx, &room)?,
            };
            let member = tx.string_num("m.room.member")?;
            let entries = tx.state().load(room.num, snapshot)?;
            let told = entries.iter().filter(|entry| Some(entry.key.kind) != member || heroes.contains(&entry.event));
            let mut nums: Vec<EventNum> = told.map(|entry| entry.event).collect();
            nums.sort_unstable();
            let of: Vec<EventNum> = nums.iter().copied().chain([row]).collect();
            let mut auth_chain = auth_chain(tx, &room, &of)?;
            auth_chain.retain(|num| nums.binary_search(num).is_err());
            Ok(Ok(StateBefore { state: served(tx, &room, &nums)?, auth_chain: served(tx, &room, &auth_chain)? }))
        });
        read.await?
    }

    /// The full auth chain of an event, what allows others first.
    pub async fn auth_chain(&self, room_id: &RoomId, event_id: &EventId) -> Result<Vec<Arc<Pdu>>, RoomError> {
        let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(Err(RoomError::UnknownRoom)) };
            let Some(row) = tx.events().by_id(&room, &event_id)? else {
                return Ok(Err(RoomError::NotFound("This event is not known")));
            };
            let mut first = Vec::new();
            for id in &tx.events().pdu(&room, row.num)?.auth_events {
                first.extend(tx.events().num(&room, id)?);
            }
            let auth_chain = with_auth_chain(tx, &room, first)?;
            served(tx, &room, &auth_chain).map(Ok)
        });
        read.await?
    }

    /// An event of a room, and how it stands here.
    pub async fn event(&self, room_id: &RoomId, event_id: &EventId) -> Result<Option<(Arc<Pdu>, Standing)>, RoomError> {
        let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(None) };
            match tx.events().by_id(&room, &event_id)? {
                Some(row) => Ok(Some((tx.events().pdu(&room, row.num)?, row.standing))),
                None => Ok(None),
            }
        });
        Ok(read.await?)
    }
}

/// Whether a room has a name or a canonical alias.
fn is_named(tx: &mut Tx<'_>, room: &RoomRecord, snapshot: SnapshotNum) -> Result<bool, StoreError> {
    let Some(state_key) = tx.string_num("")? else { return Ok(false) };
    for kind in ["m.room.name", "m.room.canonical_alias"] {
        if let Some(kind) = tx.string_num(kind)?
            && tx.state().get(room.num, snapshot, StateKey { kind, state_key })?.is_some()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Member events of those by whom a room without a name is called.
fn heroes(tx: &mut Tx<'_>, room: &RoomRecord) -> Result<Vec<EventNum>, StoreError> {
    let mut heroes = Vec::new();
    for membership in [Membership::Join, Membership::Invite, Membership::Leave, Membership::Ban] {
        let rows = tx.members().of_room(room.num, membership, HEROES)?;
        heroes.extend(rows.into_iter().map(|row| row.event));
        if heroes.len() as i64 >= HEROES {
            break;
        }
    }
    Ok(heroes)
}

/// Walks from events backwards along `prev_events`, nearest first.
fn walk_back(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    from: &[OwnedEventId],
    until: &[OwnedEventId],
    limit: usize,
    behind: bool,
) -> Result<Vec<Arc<Pdu>>, StoreError> {
    let stop: FxHashSet<&OwnedEventId> = until.iter().collect();
    let mut seen = FxHashSet::default();
    let mut todo: VecDeque<OwnedEventId> = from.iter().filter(|id| seen.insert((*id).clone())).cloned().collect();
    let mut found = Vec::new();
    let mut walked = 0;
    while let Some(id) = todo.pop_front() {
        walked += 1;
        if found.len() >= limit || walked > WALKED {
            break;
        }
        let Some(row) = tx.events().by_id(room, &id)?.filter(has_past) else { continue };
        let pdu = tx.events().pdu(room, row.num)?;
        for prev in &pdu.prev_events {
            if !stop.contains(prev) && seen.insert(prev.clone()) {
                todo.push_back(prev.clone());
            }
        }
        if row.standing != Standing::Rejected && !(behind && from.contains(&id)) {
            found.push(pdu);
        }
    }
    Ok(found)
}

fn has_past(row: &EventRow) -> bool {
    row.standing != Standing::Outlier
}

/// The room of an event, and the numbers of the state before it.
fn numbers_before(tx: &mut Tx<'_>, room_id: &RoomId, event_id: &EventId) -> Decision<(Arc<RoomRecord>, Vec<EventNum>)> {
    let Some(room) = tx.rooms().by_id(room_id)? else { return Ok(Err(RoomError::UnknownRoom)) };
    let not_found = Ok(Err(RoomError::NotFound("The state before this event is not known")));
    let Some(row) = tx.events().by_id(&room, event_id)? else { return not_found };
    if &*tx.string(row.kind)? == "m.room.create" {
        // Before it there is nothing.
        return Ok(Ok((room, Vec::new())));
    }
    let Some(snapshot) = row.snapshot_before else { return not_found };
    if tx.partials().any(room.num, &[row.num.0])? {
        return Ok(Err(RoomError::Forbidden("not all of this room's state is here yet".into())));
    }
    let mut nums: Vec<EventNum> = tx.state().load(room.num, snapshot)?.into_iter().map(|entry| entry.event).collect();
    nums.sort_unstable();
    Ok(Ok((room, nums)))
}

/// Everything that allows these state events, without them unless they allow each other; what allows others first.
fn auth_chain(tx: &mut Tx<'_>, room: &RoomRecord, of: &[EventNum]) -> Result<Vec<EventNum>, StoreError> {
    if of.is_empty() {
        return Ok(Vec::new());
    }
    let first = allowing(tx, of)?;
    with_auth_chain(tx, room, first)
}

/// The events that allow state events.
fn allowing(tx: &mut Tx<'_>, state: &[EventNum]) -> Result<Vec<EventNum>, StoreError> {
    let nums: Vec<i64> = state.iter().map(|num| num.0).collect();
    Ok(tx.events().auth_edges(&nums)?.into_iter().map(|(_, auth)| auth).collect())
}

/// These events, which allow others, and everything that allows them; what allows others first.
fn with_auth_chain(tx: &mut Tx<'_>, room: &RoomRecord, first: Vec<EventNum>) -> Result<Vec<EventNum>, StoreError> {
    let mut chain: BTreeSet<EventNum> = BTreeSet::new();
    if room.rules.authorization.room_create_event_id_as_room_id
        && let Ok(id) = OwnedEventId::try_from(room.room_id.as_str().replacen('!', "$", 1))
    {
        chain.extend(tx.events().num(room, &id)?);
    }
    let mut level = first;
    while !level.is_empty() {
        level.retain(|num| chain.insert(*num));
        level = allowing(tx, &level)?;
    }
    Ok(chain.into_iter().collect())
}
