//! The state of a room: all of it, or what changed between two moments, at the start or at the end of a timeline.
//!
//! Spec: client-server API, "Syncing", `state` and `state_after`; "Lazy-loading room members".

use hearth_store::{
    EventNum, EventRow, RoomRecord, SnapshotNum, StateEntry, StateKey, StoreError, StringNum, Tx, UserNum,
};
use rustc_hash::{FxHashMap, FxHashSet};

/// Between which moments.
pub(crate) struct StateQuery<'a> {
    pub(crate) room: &'a RoomRecord,
    /// What the client knows; none if nothing.
    pub(crate) since: Option<SnapshotNum>,
    /// At the end of the timeline.
    pub(crate) end: SnapshotNum,
    /// The timeline, oldest first.
    pub(crate) timeline: &'a [EventRow],
    /// Tell the state at the end of the timeline, not that at its start.
    pub(crate) after: bool,
}

/// What to tell, in no particular order.
///
/// What happened within the timeline without being shown there (filtered out, invisible, or decided between forks) is told,
/// too: a client that puts the timeline on top has the state at its end.
pub(crate) fn state(tx: &mut Tx<'_>, query: &StateQuery<'_>) -> Result<FxHashMap<StateKey, EventNum>, StoreError> {
    let room = query.room.num;
    if query.after {
        return changes(tx, query.room, query.since, Some(query.end));
    }
    // None before the create event.
    let start = match query.timeline.first() {
        Some(first) => first.snapshot_before,
        None => Some(query.end),
    };
    let mut told = changes(tx, query.room, query.since, start)?;
    if start != Some(query.end) {
        let shown: FxHashSet<EventNum> = query.timeline.iter().map(|row| row.num).collect();
        let within = match start {
            Some(start) => tx
                .state()
                .difference(room, start, query.end)?
                .into_iter()
                .filter_map(|difference| Some((difference.key, difference.after?)))
                .collect::<Vec<_>>(),
            None => tx.state().load(room, query.end)?.into_iter().map(|entry| (entry.key, entry.event)).collect(),
        };
        told.extend(within.into_iter().filter(|(_, event)| !shown.contains(event)));
    }
    Ok(told)
}

fn changes(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    since: Option<SnapshotNum>,
    upto: Option<SnapshotNum>,
) -> Result<FxHashMap<StateKey, EventNum>, StoreError> {
    Ok(match (since, upto) {
        (_, None) => FxHashMap::default(),
        (Some(since), Some(upto)) if since == upto => FxHashMap::default(),
        (Some(since), Some(upto)) => tx
            .state()
            .difference(room.num, since, upto)?
            .into_iter()
            .filter_map(|difference| Some((difference.key, difference.after?)))
            .collect(),
        (None, Some(upto)) => {
            let load = tx.state().load(room.num, upto)?;
            load.into_iter().map(|StateEntry { key, event }| (key, event)).collect()
        }
    })
}

/// Which members a client that loads them lazily is told of.
pub(crate) struct LazyQuery<'a> {
    pub(crate) room: &'a RoomRecord,
    /// The type `m.room.member`.
    pub(crate) member: StringNum,
    /// Nothing of the room was told before: leave out who is not needed. Else all changes are told, and who is needed
    /// besides.
    pub(crate) anew: bool,
    /// Where the others are looked up.
    pub(crate) snapshot: SnapshotNum,
    /// Who is needed: senders of the timeline, heroes, the reader.
    pub(crate) needed: &'a FxHashSet<UserNum>,
}

pub(crate) fn lazy_members(
    tx: &mut Tx<'_>,
    query: &LazyQuery<'_>,
    told: &mut FxHashMap<StateKey, EventNum>,
    known: impl Fn(UserNum, EventNum) -> bool,
) -> Result<(), StoreError> {
    if query.anew {
        told.retain(|key, _| key.kind != query.member || query.needed.contains(&key.state_key));
        return Ok(());
    }
    for user in query.needed {
        let key = StateKey { kind: query.member, state_key: *user };
        if told.contains_key(&key) {
            continue;
        }
        if let Some(event) = tx.state().get(query.room.num, query.snapshot, key)?
            && !known(*user, event)
        {
            told.insert(key, event);
        }
    }
    Ok(())
}
