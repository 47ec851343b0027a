//! Where accounts meet rooms: what an account's end or a changed profile moves there.

use std::time::Duration;

use hearth_account::{Residence, Work};
use hearth_matrix::ruma::OwnedUserId;
use hearth_room::Rooms;

/// How long a client waits for its changed profile to show in all rooms.
const PROFILE_WAIT: Duration = Duration::from_millis(500);

/// The rooms as accounts know them.
pub(crate) struct InRooms(pub(crate) Rooms);

impl Residence for InRooms {
    fn leave_all(&self, user_id: OwnedUserId) -> Work<Result<(), String>> {
        let rooms = self.0.clone();
        Box::pin(async move { rooms.leave_all(&user_id).await.map_err(|error| error.to_string()) })
    }

    fn profile_changed(&self, user_id: OwnedUserId) -> Work<()> {
        let rooms = self.0.clone();
        let shown = tokio::spawn(async move {
            if let Err(error) = rooms.profile_changed(&user_id).await {
                tracing::warn!(%user_id, %error, "a changed profile could not be shown in rooms");
            }
        });
        // In few rooms it is done before the answer, as everybody expects; in many it goes on without the client.
        Box::pin(async move {
            let _ = tokio::time::timeout(PROFILE_WAIT, shown).await;
        })
    }
}
