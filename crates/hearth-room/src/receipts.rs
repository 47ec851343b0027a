//! Receipts and read markers: who has read how far.
//!
//! A receipt only moves forward in the room. Private receipts never leave this server.
//! Spec: client-server API, "Receipts", "Fully read markers".

use hearth_matrix::ruma::{EventId, OwnedEventId, OwnedRoomId, RoomId, UserId};
use hearth_store::{EventRow, Membership, Noun, RoomRecord, Standing, StoreError, Tx, UserNum};

use crate::{RemoteReceipt, RoomError, Rooms};

/// Relations followed from an event to its thread.
const RELATIONS: usize = 4;

/// A receipt to be given.
#[derive(Clone, Debug)]
pub struct NewReceipt {
    /// Only the user himself sees it.
    pub private: bool,
    /// `main`, the root of a thread, or none if it is for everything.
    pub thread: Option<String>,
    /// The event it names.
    pub event_id: OwnedEventId,
}

/// What a client says about how far its user has read.
#[derive(Clone, Debug, Default)]
pub struct ReadMarkers {
    /// The user read everything up to here.
    pub fully_read: Option<OwnedEventId>,
    /// Receipts.
    pub receipts: Vec<NewReceipt>,
}

impl Rooms {
    /// Moves receipts and the fully-read marker of a user forward. Those that would move back stay.
    pub async fn set_read_markers(
        &self,
        user_id: &UserId,
        user: UserNum,
        room_id: &RoomId,
        markers: ReadMarkers,
    ) -> Result<(), RoomError> {
        let now_ms = self.inner.time.now_ms();
        let (room_id, user_id): (OwnedRoomId, _) = (room_id.to_owned(), user_id.to_owned());
        let outcome = self.inner.store.write(vec![Noun::User(user)], move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(Err(RoomError::UnknownRoom.unless_known())) };
            if tx.members().current(room.num, user)?.map(|row| row.membership) != Some(Membership::Join) {
                return Ok(Err(RoomError::Forbidden(format!("{user_id} is not in the room"))));
            }
            let mut moves = Vec::new();
            for receipt in &markers.receipts {
                if let Some(thread) = receipt.thread.as_deref()
                    && thread != "main"
                    && !is_in_thread(tx, &room, &receipt.event_id, thread)?
                {
                    return Ok(Err(RoomError::InvalidParam("The event is not in this thread".into())));
                }
                if let Some(row) = forward(tx, &room, user, receipt)? {
                    moves.push((receipt, row));
                }
            }
            if let Some(event_id) = &markers.fully_read {
                set_fully_read(tx, &room, user, event_id)?;
            }
            for (receipt, row) in moves {
                let thread = receipt.thread.as_deref().unwrap_or_default();
                tx.receipts().set(room.num, user, receipt.private, thread, row.num, now_ms, !receipt.private)?;
            }
            Ok(Ok(()))
        });
        outcome.await?
    }
}

/// Whether an event is here that may be read up to.
pub(crate) fn has_come(tx: &mut Tx<'_>, room: &RoomRecord, event_id: &EventId) -> Result<bool, StoreError> {
    let row = tx.events().by_id(room, event_id)?;
    Ok(row.is_some_and(|row| matches!(row.standing, Standing::Live | Standing::Partial)))
}

/// A receipt of another server's user moves forward. False if its event has not come yet.
pub(crate) fn receive(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    user: UserNum,
    receipt: &RemoteReceipt,
) -> Result<bool, StoreError> {
    let RemoteReceipt { thread, event_id, ts, .. } = receipt.clone();
    if !has_come(tx, room, &event_id)? {
        return Ok(false);
    }
    let new = NewReceipt { private: false, thread, event_id };
    if let Some(row) = forward(tx, room, user, &new)? {
        let thread = new.thread.as_deref().unwrap_or_default();
        tx.receipts().set(room.num, user, false, thread, row.num, ts, false)?;
    }
    Ok(true)
}

/// The event that a receipt moves to, if it is one that we have and that lies ahead.
fn forward(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    user: UserNum,
    receipt: &NewReceipt,
) -> Result<Option<EventRow>, StoreError> {
    let Some(row) = tx.events().by_id(room, &receipt.event_id)? else { return Ok(None) };
    let thread = receipt.thread.as_deref().unwrap_or_default();
    let before = match tx.receipts().get(room.num, user, receipt.private, thread)? {
        Some(before) => tx.events().row(before.event)?,
        None => None,
    };
    Ok(before.is_none_or(|before| is_ahead(&row, &before)).then_some(row))
}

/// Whether an event comes later in the room than another.
fn is_ahead(row: &EventRow, before: &EventRow) -> bool {
    (row.room_order, row.num) > (before.room_order, before.num)
}

/// Whether an event belongs to a thread: it is its root, in it, or relates to such an event over a few others.
fn is_in_thread(tx: &mut Tx<'_>, room: &RoomRecord, event_id: &EventId, thread: &str) -> Result<bool, StoreError> {
    let Ok(root) = <&EventId>::try_from(thread) else { return Ok(false) };
    let Some(root) = tx.events().num(room, root)? else { return Ok(false) };
    let mut event_id = event_id.to_owned();
    for _ in 0..RELATIONS {
        let Some(row) = tx.events().by_id(room, &event_id)? else { return Ok(false) };
        if row.num == root || row.thread == Some(root) {
            return Ok(true);
        }
        match related(&*tx.events().pdu(room, row.num)?) {
            Some(parent) => event_id = parent,
            None => return Ok(false),
        }
    }
    Ok(false)
}

fn related(pdu: &hearth_matrix::Pdu) -> Option<OwnedEventId> {
    let content: serde_json::Value = serde_json::from_str(pdu.content.get()).ok()?;
    OwnedEventId::try_from(content.get("m.relates_to")?.get("event_id")?.as_str()?).ok()
}

fn set_fully_read(tx: &mut Tx<'_>, room: &RoomRecord, user: UserNum, event_id: &EventId) -> Result<(), StoreError> {
    #[derive(serde::Deserialize)]
    struct Content {
        event_id: OwnedEventId,
    }
    let before = tx.account_data().get(user, Some(room.num), "m.fully_read")?;
    if let Some(before) = before.and_then(|content| serde_json::from_str::<Content>(&content).ok())
        && let Some(before) = tx.events().by_id(room, &before.event_id)?
        && !tx.events().by_id(room, event_id)?.is_some_and(|row| is_ahead(&row, &before))
    {
        return Ok(());
    }
    let content = serde_json::json!({ "event_id": event_id }).to_string();
    tx.account_data().set(user, Some(room.num), "m.fully_read", &content)
}
