//! A changed profile, shown in the user's rooms.

use hearth_matrix::Draft;
use hearth_matrix::ruma::{CanonicalJsonObject, CanonicalJsonValue, UserId};
use hearth_store::{Membership, StoreError};

use crate::append::{Appender, Decision};
use crate::turn::{Step, Work};
use crate::{RoomError, Rooms, member_content};

impl Rooms {
    /// Shows a user's present display name and avatar in all rooms he is in, room by room. Rooms that refuse keep the old.
    pub async fn profile_changed(&self, user: &UserId) -> Result<(), RoomError> {
        let user_id = user.to_owned();
        let rooms = self.inner.store.read(move |tx| {
            let Some(user) = tx.string_num(user_id.as_str())? else { return Ok(Vec::new()) };
            let rows = tx.members().rooms_of_user(user, Membership::Join)?;
            rows.into_iter()
                .map(|row| Ok(tx.rooms().by_num(row.room)?.room_id.clone()))
                .collect::<Result<Vec<_>, StoreError>>()
        });
        for room_id in rooms.await? {
            let user = user.to_owned();
            let plan = move |appender: &mut Appender<'_, '_>| show(appender, &user);
            let work = Work::new(self.inner.time.now_ms(), None, Box::new(plan));
            if let Err(error) = self.inner.turns.submit(&room_id, work).await {
                tracing::warn!(%room_id, %error, "a changed profile could not be shown in a room");
            }
        }
        Ok(())
    }
}

fn show(appender: &mut Appender<'_, '_>, user: &UserId) -> Decision<Step> {
    let Some((_, old)) = appender.state("m.room.member", user.as_str())? else { return Ok(Ok(Step::Nothing)) };
    if old.membership() != Some("join") {
        return Ok(Ok(Step::Nothing));
    }
    let before: CanonicalJsonObject = serde_json::from_str(old.content.get())
        .map_err(|error| StoreError::Damaged(format!("event {}: {error}", old.event_id)))?;
    let mut content = before.clone();
    content.retain(|key, _| !matches!(key.as_str(), "displayname" | "avatar_url" | "reason"));
    content.remove("join_authorised_via_users_server");
    content.insert("membership".into(), CanonicalJsonValue::String("join".into()));
    member_content::add_profile(appender.tx, &mut content, user)?;
    if content == before {
        return Ok(Ok(Step::Nothing));
    }
    Ok(Ok(Step::Send(user.to_owned(), Draft::state("m.room.member", user.as_str(), content))))
}
