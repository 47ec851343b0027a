//! The summary of a room: how many are there, and by whom to call it if it has no name.
//!
//! Spec: client-server API, "Syncing", `RoomSummary`.

use hearth_store::{Membership, RoomHead, RoomRecord, SnapshotNum, StateKey, StoreError, Tx, UserNum};

/// Members that a room without a name is called by.
const HEROES: usize = 5;

pub(crate) struct Summary {
    pub(crate) joined: i64,
    pub(crate) invited: i64,
    /// None if the room has a name.
    pub(crate) heroes: Option<Vec<UserNum>>,
}

pub(crate) fn summary(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    head: &RoomHead,
    reader: UserNum,
) -> Result<Summary, StoreError> {
    let named = match head.snapshot {
        Some(snapshot) => {
            has_text(tx, room, snapshot, "m.room.name", "name")?
                || has_text(tx, room, snapshot, "m.room.canonical_alias", "alias")?
        }
        None => false,
    };
    let heroes = if named { None } else { Some(heroes(tx, room, reader)?) };
    Ok(Summary { joined: head.joined, invited: head.invited, heroes })
}

/// The first who are there or invited, else the first who were.
fn heroes(tx: &mut Tx<'_>, room: &RoomRecord, reader: UserNum) -> Result<Vec<UserNum>, StoreError> {
    let mut heroes = Vec::new();
    for memberships in [[Membership::Join, Membership::Invite], [Membership::Leave, Membership::Ban]] {
        for membership in memberships {
            let rows = tx.members().of_room(room.num, membership, HEROES as i64 + 1)?;
            heroes.extend(rows.into_iter().filter(|row| row.user != reader));
        }
        if !heroes.is_empty() {
            break;
        }
    }
    heroes.sort_by_key(|row| row.since);
    Ok(heroes.into_iter().take(HEROES).map(|row| row.user).collect())
}

fn has_text(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    snapshot: SnapshotNum,
    kind: &str,
    field: &str,
) -> Result<bool, StoreError> {
    let (Some(kind), Some(state_key)) = (tx.string_num(kind)?, tx.string_num("")?) else { return Ok(false) };
    let Some(event) = tx.state().get(room.num, snapshot, StateKey { kind, state_key })? else { return Ok(false) };
    let pdu = tx.events().pdu(room, event)?;
    let content = serde_json::from_str::<serde_json::Value>(pdu.content.get()).unwrap_or_default();
    Ok(content.get(field).and_then(|text| text.as_str()).is_some_and(|text| !text.is_empty()))
}
