//! What follows when somebody's presence changed: a task calls those who wait, as long as there is anybody to call.

use std::sync::Weak;

use hearth_store::{Membership, Store, StoreError, Tx, UserNum};

use crate::hub::{Hub, Standing, Stay, TICK};
use crate::streams::account_data;

/// A user's presence changed.
pub(crate) fn changed(hub: &Weak<Hub>, store: &Store, user: UserNum) {
    let Some(at_work) = hub.upgrade().map(|hub| hub.presence_changed(user)) else { return };
    if at_work && let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(call(Weak::clone(hub), store.clone()));
    }
}

async fn call(hub: Weak<Hub>, store: Store) {
    loop {
        tokio::time::sleep(TICK).await;
        let Some(strangers) = hub.upgrade().and_then(|hub| hub.call()) else { return };
        for user in strangers {
            let standing = match store.read(move |tx| standing(tx, user)).await {
                Ok(standing) => standing,
                Err(error) => {
                    tracing::warn!(%error, "nobody can be told of a change of presence");
                    continue;
                }
            };
            let Some(hub) = hub.upgrade() else { return };
            hub.follow_stranger(user, standing);
        }
    }
}

/// Where a user is.
fn standing(tx: &mut Tx<'_>, user: UserNum) -> Result<Standing, StoreError> {
    let rows = tx.members().rooms_of_user(user, Membership::Join)?;
    let stay = |tx: &mut Tx<'_>, room| {
        Ok::<_, StoreError>((
            room,
            Stay { room_id: tx.rooms().by_num(room)?.room_id.clone(), badge: None, partial: false },
        ))
    };
    Ok(Standing {
        at: tx.position()?,
        rooms: rows.iter().map(|row| stay(tx, row.room)).collect::<Result<_, _>>()?,
        ignored: account_data::ignored(tx, user)?,
    })
}
