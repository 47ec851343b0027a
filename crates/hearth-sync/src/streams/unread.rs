//! How many events a user has not read in a room.
//!
//! Derived: the room's running count of what notifies, minus that at the user's receipt or own last event.
//! Spec: client-server API, "Receiving notifications".

use hearth_store::{MembershipRow, Position, RoomHead, RoomNum, StoreError, Tx, UserNum};
use rustc_hash::FxHashMap;

/// Events looked at for the user's own last one.
const SCAN_MOST: i64 = 500;

/// The running counts up to which a user has read each of these rooms, where he is joined.
pub(crate) fn read_counts(
    tx: &mut Tx<'_>,
    user: UserNum,
    rooms: &[(RoomHead, &MembershipRow)],
    upto: Position,
) -> Result<FxHashMap<RoomNum, i64>, StoreError> {
    if rooms.is_empty() {
        return Ok(FxHashMap::default());
    }
    let nums: Vec<i64> = rooms.iter().map(|(head, _)| head.room.0).collect();
    let mut read: FxHashMap<RoomNum, i64> = tx.receipts().unread_at_read(&nums, user)?.into_iter().collect();
    // Who comes in has nothing to catch up with.
    let joins: FxHashMap<i64, RoomNum> = rooms.iter().map(|(head, row)| (row.event.0, head.room)).collect();
    let events: Vec<i64> = joins.keys().copied().collect();
    for (event, unread) in tx.events().unread_at(&events)? {
        if let Some(room) = joins.get(&event.0) {
            let read = read.entry(*room).or_default();
            *read = unread.max(*read);
        }
    }
    for (head, _) in rooms {
        let read = read.entry(head.room).or_default();
        if *read < head.unread
            && let Some(own) = tx.events().unread_at_last_of(head.room, user, upto, SCAN_MOST)?
        {
            *read = own.max(*read);
        }
    }
    Ok(read)
}
