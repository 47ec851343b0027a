//! A changed profile, shown in the user's rooms.

use hearth_matrix::Draft;
use hearth_matrix::ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedUserId, RoomId, UserId};
use hearth_store::{Membership, Noun, StoreError, StringNum};
use tokio::task::JoinSet;

use crate::append::{Appender, Decision};
use crate::turn::{Step, Work};
use crate::{RoomError, Rooms, member_content};

/// Rooms in which a change is shown at the same time: they share commits, and others' work comes between.
const AT_ONCE: usize = 16;
/// Users that are gone on with at a time.
const USERS: i64 = 100;

impl Rooms {
    /// Shows a user's present display name and avatar in all rooms he is in. Rooms that refuse keep the old; what a restart
    /// interrupts is gone on with by [`Self::show_profiles`].
    pub async fn profile_changed(&self, user: &UserId) -> Result<(), RoomError> {
        let user_id = user.to_owned();
        let read = self.inner.store.read(move |tx| {
            let Some(user) = tx.string_num(user_id.as_str())? else { return Ok(None) };
            let rows = tx.members().rooms_of_user(user, Membership::Join)?;
            let rooms = rows.into_iter().map(|row| Ok(tx.rooms().by_num(row.room)?.room_id.clone()));
            let rooms = rooms.collect::<Result<Vec<_>, StoreError>>()?;
            Ok(Some((user, rooms, tx.profiles().changes_unshown(user)?)))
        });
        let Some((num, room_ids, changes)) = read.await? else { return Ok(()) };
        let mut under_way = JoinSet::new();
        for room_id in room_ids {
            if under_way.len() >= AT_ONCE {
                under_way.join_next().await;
            }
            let (rooms, user) = (self.clone(), user.to_owned());
            under_way.spawn(async move { rooms.show_in(&room_id, user).await });
        }
        while under_way.join_next().await.is_some() {}
        if let Some(changes) = changes {
            self.inner.store.write(vec![Noun::User(num)], move |tx| tx.profiles().set_shown(num, changes)).await?;
        }
        Ok(())
    }

    /// Goes on with what an earlier run of the server began. To be called once, at the start.
    pub async fn show_profiles(&self) -> Result<(), RoomError> {
        let mut after = StringNum(0);
        loop {
            let users = self.inner.store.read(move |tx| {
                let users = tx.profiles().unshown(after, USERS)?;
                users.into_iter().map(|user| Ok((user, tx.string(user)?))).collect::<Result<Vec<_>, StoreError>>()
            });
            let users = users.await?;
            for (user, user_id) in &users {
                after = *user;
                let user_id = <&UserId>::try_from(&**user_id)
                    .map_err(|error| StoreError::Damaged(format!("user id {user_id}: {error}")))?;
                self.profile_changed(user_id).await?;
            }
            if (users.len() as i64) < USERS {
                return Ok(());
            }
        }
    }

    async fn show_in(&self, room_id: &RoomId, user: OwnedUserId) {
        let plan = move |appender: &mut Appender<'_, '_>| show(appender, &user);
        let work = Work::new(self.inner.time.now_ms(), None, Box::new(plan));
        if let Err(error) = self.submit_work(room_id, work).await {
            tracing::warn!(%room_id, %error, "a changed profile could not be shown in a room");
        }
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
