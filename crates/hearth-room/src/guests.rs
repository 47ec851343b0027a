//! Guests: in rooms that let them in, and nowhere else.
//!
//! Spec: client-server API, "Guest Access". Only the guests of this server are known as such.

use hearth_matrix::Draft;
use hearth_matrix::ruma::{RoomId, UserId};
use hearth_store::{StoreError, Tx, UserKind};

use crate::{MemberAction, RoomError, Rooms};

/// Whether a user is a guest of this server.
pub(crate) fn is_guest(tx: &mut Tx<'_>, user_id: &UserId) -> Result<bool, StoreError> {
    Ok(tx.accounts().by_id(user_id.as_str())?.is_some_and(|account| account.kind == UserKind::Guest))
}

/// Whether guests may not stay after this event.
pub(crate) fn turns_guests_out(draft: &Draft) -> bool {
    let access = draft.content.get("guest_access").and_then(|access| access.as_str());
    draft.kind == "m.room.guest_access" && draft.state_key.as_deref() == Some("") && access != Some("can_join")
}

impl Rooms {
    /// The room lets guests in no more: those who are there leave.
    pub(crate) async fn turn_guests_out(&self, room_id: &RoomId) -> Result<(), RoomError> {
        let asked = room_id.to_owned();
        let guests = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&asked)? else { return Ok(Vec::new()) };
            let guests = tx.members().joined_guests(room.num)?;
            guests.into_iter().map(|guest| tx.string(guest)).collect::<Result<Vec<_>, StoreError>>()
        });
        for guest in guests.await? {
            let Ok(guest) = UserId::parse(&*guest) else { continue };
            if let Err(error) = self.change_membership(&guest, room_id, MemberAction::Leave, None).await {
                tracing::warn!(%room_id, %guest, %error, "a guest could not be made to leave");
            }
        }
        Ok(())
    }
}
