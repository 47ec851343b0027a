//! `m.room.canonical_alias`: what it newly names must point to the room.
//!
//! Aliases of ours are looked up in the room's turn, those of other servers before it.
//! Spec: client-server API, `PUT /rooms/{roomId}/state/{eventType}/{stateKey}`.

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, OwnedUserId, RoomAliasId, RoomId, ServerName,
};
use rustc_hash::FxHashSet;
use tokio::task::JoinSet;

use crate::append::{Appender, Decision};
use crate::directory::{current, may_set};
use crate::{RoomError, Rooms};

pub(crate) const KIND: &str = "m.room.canonical_alias";
/// Aliases of other servers that are asked about for one event.
const MOST_ASKED: usize = 10;

impl Rooms {
    /// The aliases of other servers that somebody newly names, and that point to the room as their servers say.
    pub(crate) async fn aliases_elsewhere(
        &self,
        room_id: &RoomId,
        sender: &OwnedUserId,
        content: &CanonicalJsonObject,
    ) -> Result<FxHashSet<OwnedRoomAliasId>, RoomError> {
        let (id, sender, content) = (room_id.to_owned(), sender.clone(), content.clone());
        let named = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&id)? else { return Ok(Vec::new()) };
            // Nobody is asked for whom the room's turn refuses.
            if !may_set(tx, room.num, &sender, KIND)? {
                return Ok(Vec::new());
            }
            let Some(snapshot) = tx.rooms().tip(room.num)?.and_then(|tip| tip.snapshot) else { return Ok(Vec::new()) };
            let before = current(tx, &room, snapshot, KIND, "")?;
            Ok(newly_named(before.as_deref(), &content).unwrap_or_default())
        });
        let mut named = named.await?;
        named.retain(|alias| alias.server_name() != &*self.inner.config.server_name);
        let mut asked = JoinSet::new();
        for alias in named.into_iter().take(MOST_ASKED) {
            let (rooms, room_id) = (self.clone(), room_id.to_owned());
            asked.spawn(async move {
                let (found, _) = rooms.follow_alias(&alias).await.ok()?;
                (found == room_id).then_some(alias)
            });
        }
        let mut pointing = FxHashSet::default();
        while let Some(answer) = asked.join_next().await {
            pointing.extend(answer.ok().flatten());
        }
        Ok(pointing)
    }
}

/// The aliases that an `m.room.canonical_alias` newly names must point to the room. Of those of other servers the ones that do
/// are known already.
pub(crate) fn check(
    appender: &mut Appender<'_, '_>,
    content: &CanonicalJsonObject,
    server_name: &ServerName,
    elsewhere: &FxHashSet<OwnedRoomAliasId>,
) -> Decision<()> {
    let before = appender.state(KIND, "")?;
    let named = match newly_named(before.as_ref().map(|(_, event)| &**event), content) {
        Ok(named) => named,
        Err(refusal) => return Ok(Err(refusal)),
    };
    for alias in named {
        let points_here = if alias.server_name() == server_name {
            appender.tx.rooms().alias(&alias)?.is_some_and(|(room, _)| room == appender.room.num)
        } else {
            elsewhere.contains(&alias)
        };
        if !points_here {
            return Ok(Err(RoomError::BadAlias(format!("{alias} does not point to this room"))));
        }
    }
    Ok(Ok(()))
}

/// The aliases in a content that were not in the event before.
fn newly_named(before: Option<&Pdu>, content: &CanonicalJsonObject) -> Result<Vec<OwnedRoomAliasId>, RoomError> {
    let before = before.and_then(|event| serde_json::from_str::<CanonicalJsonObject>(event.content.get()).ok());
    let known = before.and_then(|content| aliases_in(&content).ok()).unwrap_or_default();
    let named = aliases_in(content)?.into_iter().filter(|alias| !known.contains(alias));
    let parsed = named.map(|alias| {
        RoomAliasId::parse(&*alias).map_err(|_| RoomError::InvalidParam(format!("{alias:?} is no room alias")))
    });
    parsed.collect()
}

fn aliases_in(content: &CanonicalJsonObject) -> Result<Vec<String>, RoomError> {
    let wrong = |what: &str| RoomError::InvalidParam(format!("{what} of m.room.canonical_alias must be room aliases"));
    let mut aliases = Vec::new();
    match content.get("alias") {
        None | Some(CanonicalJsonValue::Null) => {}
        Some(CanonicalJsonValue::String(alias)) if alias.is_empty() => {}
        Some(CanonicalJsonValue::String(alias)) => aliases.push(alias.clone()),
        Some(_) => return Err(wrong("alias")),
    }
    match content.get("alt_aliases") {
        None | Some(CanonicalJsonValue::Null) => {}
        Some(CanonicalJsonValue::Array(alts)) => {
            for alt in alts {
                aliases.push(alt.as_str().ok_or_else(|| wrong("alt_aliases"))?.to_owned());
            }
        }
        Some(_) => return Err(wrong("alt_aliases")),
    }
    Ok(aliases)
}
