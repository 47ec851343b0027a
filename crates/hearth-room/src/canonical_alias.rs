//! The aliases that `m.room.canonical_alias` names: they must point to the room. Those of other servers are asked for.
//!
//! Spec: client-server API, "Room Aliases", `PUT /rooms/{roomId}/state/{eventType}/{stateKey}`.

use hearth_matrix::ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, OwnedRoomId, RoomAliasId, RoomId, ServerName, UserId,
};
use hearth_store::StoreError;
use rustc_hash::FxHashMap;
use tokio::task::JoinSet;

use crate::append::{Appender, Decision};
use crate::directory::may_set;
use crate::{RoomError, Rooms};

/// Aliases of other servers that one event may name anew.
const ASKED: usize = 20;

/// Where aliases of other servers lead, as those say.
pub(crate) type Followed = FxHashMap<OwnedRoomAliasId, Result<OwnedRoomId, RoomError>>;

impl Rooms {
    /// Asks where aliases of other servers lead that the content names and the room's present event does not: before the room's
    /// turn, which waits for nobody.
    pub(crate) async fn follow_aliases(
        &self,
        room_id: &RoomId,
        sender: &UserId,
        content: &CanonicalJsonObject,
    ) -> Result<Followed, RoomError> {
        let own = &self.inner.config.server_name;
        let parsed = aliases_in(content)?.into_iter().filter_map(|alias| OwnedRoomAliasId::try_from(alias).ok());
        let mut foreign: Vec<OwnedRoomAliasId> = parsed.filter(|alias| alias.server_name() != &**own).collect();
        if foreign.is_empty() {
            return Ok(Followed::default());
        }
        let (room_id, user, config) = (room_id.to_owned(), sender.to_owned(), self.inner.config.clone());
        let read = self.inner.store.read(move |tx| match tx.rooms().by_id(&room_id)? {
            // Nobody is asked for whom the rules of the room refuse.
            Some(room) if may_set(tx, room.num, &user, "m.room.canonical_alias")? => {
                known(&mut Appender::at_tip(tx, room, &config)?).map(Some)
            }
            _ => Ok(None),
        });
        let refusal = || RoomError::Forbidden(format!("{sender} may not say which aliases the room has"));
        let known = read.await?.ok_or_else(refusal)?;
        foreign.retain(|alias| !known.iter().any(|known| known == alias.as_str()));
        foreign.sort_unstable();
        foreign.dedup();
        if foreign.len() > ASKED {
            let message = format!("more than {ASKED} aliases of other servers are named at once");
            return Err(RoomError::InvalidParam(message));
        }
        let mut asked = JoinSet::new();
        for alias in foreign {
            let rooms = self.clone();
            asked.spawn(async move {
                let led = rooms.follow_alias(&alias).await.map(|(room_id, _)| room_id);
                (alias, led)
            });
        }
        Ok(asked.join_all().await.into_iter().collect())
    }
}

/// The aliases that an `m.room.canonical_alias` newly names must point to the room.
pub(crate) fn check(
    appender: &mut Appender<'_, '_>,
    content: &CanonicalJsonObject,
    server_name: &ServerName,
    followed: &Followed,
) -> Decision<()> {
    let known = known(appender)?;
    let named = match aliases_in(content) {
        Ok(named) => named,
        Err(refusal) => return Ok(Err(refusal)),
    };
    for alias in named {
        if known.contains(&alias) {
            continue;
        }
        let Ok(parsed) = <&RoomAliasId>::try_from(alias.as_str()) else {
            return Ok(Err(RoomError::InvalidParam(format!("{alias:?} is no room alias"))));
        };
        let points_here = match followed.get(parsed) {
            Some(Ok(room_id)) => *room_id == appender.room.room_id,
            Some(Err(RoomError::NotFound(_))) => false,
            Some(Err(error)) => return Ok(Err(error.clone())),
            None if parsed.server_name() == server_name => {
                appender.tx.rooms().alias(parsed)?.is_some_and(|(room, _)| room == appender.room.num)
            }
            // It was in the room's event until just now.
            None => false,
        };
        if !points_here {
            return Ok(Err(RoomError::BadAlias(format!("{alias} does not point to this room"))));
        }
    }
    Ok(Ok(()))
}

/// The aliases that the room's present event names.
fn known(appender: &mut Appender<'_, '_>) -> Result<Vec<String>, StoreError> {
    let before: CanonicalJsonObject = match appender.state("m.room.canonical_alias", "")? {
        Some((_, old)) => serde_json::from_str(old.content.get())
            .map_err(|error| StoreError::Damaged(format!("event {}: {error}", old.event_id)))?,
        None => CanonicalJsonObject::new(),
    };
    Ok(aliases_in(&before).unwrap_or_default())
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
