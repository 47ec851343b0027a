//! Aliases and the public directory.
//!
//! Spec: client-server API, "Room aliases", "Listing rooms".

use std::sync::Arc;

use hearth_matrix::ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomAliasId,
    RoomId, UserId,
};
use hearth_matrix::{Draft, Pdu, PowerLevels};
use hearth_store::{
    EventNum, Membership, Noun, RoomNum, RoomRecord, SnapshotNum, StateKey, StoreError, Tx, Visibility,
};

use crate::append::Appender;
use crate::servers::served;
use crate::turn::{Step, Work};
use crate::{RoomError, Rooms, Unanswered};

/// Rooms looked at for one page at most, when a filter leaves most of them out. The next page goes on behind them.
const SCAN: usize = 2000;
/// State that says how a room shows.
const DESCRIBED: [&str; 7] = [
    "m.room.name",
    "m.room.topic",
    "m.room.avatar",
    "m.room.canonical_alias",
    "m.room.join_rules",
    "m.room.history_visibility",
    "m.room.guest_access",
];
/// Servers told of with an alias.
const ALIAS_SERVERS: usize = 20;

/// Which rooms of the directory are wanted.
#[derive(Clone, Debug, Default)]
pub struct DirectoryFilter {
    /// A part of the name, topic or canonical alias, in any case.
    pub search: Option<String>,
    /// Room types; none stands for rooms without a type. Empty: all.
    pub types: Vec<Option<String>>,
}

/// A room as the directory shows it.
#[derive(Clone, Debug)]
pub struct DirectoryRoom {
    /// Its id.
    pub room_id: OwnedRoomId,
    /// Its type.
    pub room_type: Option<String>,
    /// Its name.
    pub name: Option<String>,
    /// Its topic.
    pub topic: Option<String>,
    /// Its avatar.
    pub avatar_url: Option<String>,
    /// Its canonical alias.
    pub canonical_alias: Option<String>,
    /// Its join rule.
    pub join_rule: Option<String>,
    /// Joined members.
    pub joined: i64,
    /// Anybody may read it.
    pub world_readable: bool,
    /// Guests may join.
    pub guest_can_join: bool,
}

/// A page of the directory.
#[derive(Clone, Debug, Default)]
pub struct DirectoryPage {
    /// Its rooms, largest first.
    pub rooms: Vec<DirectoryRoom>,
    /// Where the next page starts.
    pub next: Option<String>,
    /// Where the page before starts.
    pub previous: Option<String>,
    /// Rooms in the directory, filtered or not.
    pub total: i64,
}

impl Rooms {
    /// The room an alias of ours points to.
    pub async fn resolve_alias(&self, alias: &RoomAliasId) -> Result<OwnedRoomId, RoomError> {
        if alias.server_name() != &*self.inner.config.server_name {
            return Err(RoomError::Remote(alias.to_string()));
        }
        let alias = alias.to_owned();
        let room = self.inner.store.read(move |tx| match tx.rooms().alias(&alias)? {
            Some((room, _)) => Ok(Some(tx.rooms().by_num(room)?.room_id.clone())),
            None => Ok(None),
        });
        room.await?.ok_or(RoomError::NotFound("No room has this alias"))
    }

    /// The room an alias points to, whichever server's it is, and servers that are in the room.
    pub async fn follow_alias(&self, alias: &RoomAliasId) -> Result<(OwnedRoomId, Vec<OwnedServerName>), RoomError> {
        let own = &self.inner.config.server_name;
        if alias.server_name() == &**own {
            let room_id = self.resolve_alias(alias).await?;
            let mut servers = self.servers(&room_id, ALIAS_SERVERS).await?;
            // Ourselves first: whoever asks has found us already.
            servers.retain(|server| server != own);
            servers.insert(0, own.clone());
            return Ok((room_id, servers));
        }
        let Some(neighbours) = self.inner.inbound.neighbours() else {
            return Err(RoomError::Remote(alias.to_string()));
        };
        let (room_id, mut servers) = match neighbours.alias(alias.server_name(), alias).await {
            Err(Unanswered::Refused(refusal)) if refusal.status == 404 => {
                return Err(RoomError::NotFound("No room has this alias"));
            }
            answer => answer.map_err(|error| RoomError::by(alias.server_name(), error))?,
        };
        servers.truncate(ALIAS_SERVERS);
        let whose = alias.server_name();
        if !servers.iter().any(|server| server == whose) {
            servers.push(whose.to_owned());
        }
        Ok((room_id, servers))
    }

    /// Points an alias of ours to a room.
    pub async fn create_alias(&self, user: &UserId, alias: &RoomAliasId, room_id: &RoomId) -> Result<(), RoomError> {
        if alias.server_name() != &*self.inner.config.server_name {
            return Err(RoomError::InvalidParam(format!("{alias} is not an alias of this server")));
        }
        let (user, alias, room_id) = (user.to_owned(), alias.to_owned(), room_id.to_owned());
        let outcome = self.inner.store.write(vec![Noun::Name(alias.to_string())], move |tx| {
            let (Some(room), Some(creator)) = (tx.rooms().by_id(&room_id)?, tx.string_num(user.as_str())?) else {
                return Ok(Err(RoomError::UnknownRoom.unless_known()));
            };
            if tx.rooms().alias(&alias)?.is_some() {
                return Ok(Err(RoomError::AliasInUse(alias.to_string())));
            }
            if tx.members().current(room.num, creator)?.map(|row| row.membership) != Some(Membership::Join) {
                return Ok(Err(RoomError::Forbidden(format!("{user} is not in the room"))));
            }
            tx.rooms().add_alias(&alias, room.num, creator)?;
            Ok(Ok(()))
        });
        outcome.await?
    }

    /// Removes an alias: its maker may, a server admin, and those who may set the room's canonical alias.
    pub async fn delete_alias(&self, user: &UserId, is_admin: bool, alias: &RoomAliasId) -> Result<(), RoomError> {
        let (user, alias) = (user.to_owned(), alias.to_owned());
        let (unnamed_by, unnamed) = (user.clone(), alias.clone());
        let outcome = self.inner.store.write(vec![Noun::Name(alias.to_string())], move |tx| {
            let Some((room, creator)) = tx.rooms().alias(&alias)? else {
                return Ok(Err(RoomError::NotFound("No room has this alias")));
            };
            let mine = tx.string_num(user.as_str())? == Some(creator);
            if !mine && !is_admin && !may_set(tx, room, &user, "m.room.canonical_alias")? {
                return Ok(Err(RoomError::Forbidden("You don't have permission to delete the alias".into())));
            }
            tx.rooms().remove_alias(&alias)?;
            Ok(Ok(tx.rooms().by_num(room)?.room_id.clone()))
        });
        let room_id = outcome.await??;
        self.name_no_more(unnamed_by, room_id, unnamed).await;
        Ok(())
    }

    /// Takes a deleted alias out of the room's `m.room.canonical_alias`, if the user may: else it stays as it is.
    async fn name_no_more(&self, user: OwnedUserId, room_id: OwnedRoomId, alias: OwnedRoomAliasId) {
        let plan = move |appender: &mut Appender<'_, '_>| {
            let Some((_, old)) = appender.state("m.room.canonical_alias", "")? else { return Ok(Ok(Step::Nothing)) };
            let before: CanonicalJsonObject = serde_json::from_str(old.content.get())
                .map_err(|error| StoreError::Damaged(format!("event {}: {error}", old.event_id)))?;
            let mut content = before.clone();
            if content.get("alias").and_then(CanonicalJsonValue::as_str) == Some(alias.as_str()) {
                content.remove("alias");
            }
            if let Some(CanonicalJsonValue::Array(alts)) = content.get_mut("alt_aliases") {
                alts.retain(|alt| alt.as_str() != Some(alias.as_str()));
                if alts.is_empty() {
                    content.remove("alt_aliases");
                }
            }
            if content == before {
                return Ok(Ok(Step::Nothing));
            }
            Ok(Ok(Step::Send(user.clone(), Draft::state("m.room.canonical_alias", "", content))))
        };
        let work = Work::new(self.inner.time.now_ms(), None, Box::new(plan));
        match self.submit_work(&room_id, work).await {
            Ok(_) | Err(RoomError::Forbidden(_)) => {}
            Err(error) => tracing::warn!(%room_id, %error, "a deleted alias is still named by its room"),
        }
    }

    /// The aliases of ours of a room, for members and, if anybody may read it, for all.
    pub async fn aliases(&self, user: &UserId, room_id: &RoomId) -> Result<Vec<String>, RoomError> {
        let (user, room_id) = (user.to_owned(), room_id.to_owned());
        let outcome = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else {
                return Ok(Err(RoomError::Forbidden("You are not in the room".into())));
            };
            let member = match tx.string_num(user.as_str())? {
                Some(user) => tx.members().current(room.num, user)?.map(|row| row.membership),
                None => None,
            };
            if member != Some(Membership::Join) && visibility_now(tx, &room)? != Visibility::WorldReadable {
                return Ok(Err(RoomError::Forbidden("You are not in the room".into())));
            }
            Ok(Ok(tx.rooms().aliases(room.num)?))
        });
        outcome.await?
    }

    /// Whether the public directory lists a room.
    pub async fn is_published(&self, room_id: &RoomId) -> Result<bool, RoomError> {
        let room_id = room_id.to_owned();
        let outcome = self.inner.store.read(move |tx| match tx.rooms().by_id(&room_id)? {
            Some(room) => Ok(Some(tx.rooms().is_published(room.num)?)),
            None => Ok(None),
        });
        outcome.await?.ok_or(RoomError::NotFound("There is no such room"))
    }

    /// Lists a room in the public directory, or takes it out.
    pub async fn set_published(
        &self,
        user: &UserId,
        is_admin: bool,
        room_id: &RoomId,
        published: bool,
    ) -> Result<(), RoomError> {
        let (user, room_id) = (user.to_owned(), room_id.to_owned());
        let outcome = self.inner.store.write(vec![Noun::Name(format!("publish {room_id}"))], move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else {
                return Ok(Err(RoomError::NotFound("There is no such room")));
            };
            if !is_admin && !may_set(tx, room.num, &user, "m.room.canonical_alias")? {
                let reason = "You don't have permission to list the room or to take it out of the list";
                return Ok(Err(RoomError::Forbidden(reason.into())));
            }
            tx.rooms().set_published(room.num, published)?;
            Ok(Ok(()))
        });
        outcome.await?
    }

    /// A page of the public directory: `since` is a token of an earlier page.
    pub async fn directory(
        &self,
        filter: DirectoryFilter,
        limit: usize,
        since: Option<String>,
    ) -> Result<DirectoryPage, RoomError> {
        let start = match since.as_deref() {
            None | Some("") => 0,
            Some(token) => token
                .strip_prefix("d1_")
                .and_then(|offset| offset.parse::<usize>().ok())
                .ok_or_else(|| RoomError::InvalidParam(format!("{token:?} is no token of the directory")))?,
        };
        self.inner.store.read(move |tx| page(tx, &filter, limit, start)).await.map_err(RoomError::from)
    }
}

fn page(tx: &mut Tx<'_>, filter: &DirectoryFilter, limit: usize, start: usize) -> Result<DirectoryPage, StoreError> {
    let search = filter.search.as_deref().map(str::to_lowercase).filter(|search| !search.is_empty());
    let mut page = DirectoryPage { total: tx.rooms().published_count()?, ..DirectoryPage::default() };
    let mut after = None;
    let mut passed = 0;
    loop {
        let candidates = tx.rooms().published(after, 100)?;
        let Some(last) = candidates.last() else { return Ok(finish(page, start, limit)) };
        after = Some((last.joined, last.room.num));
        for candidate in candidates {
            passed += 1;
            if passed <= start {
                continue;
            }
            if passed > start + SCAN {
                page.next = Some(format!("d1_{}", passed - 1));
                return Ok(finish(page, start, limit));
            }
            let wanted = filter.types.is_empty() || filter.types.contains(&candidate.room.room_type);
            if !wanted {
                continue;
            }
            let Some(snapshot) = candidate.snapshot else { continue };
            let room = describe(tx, &candidate.room, snapshot, candidate.joined)?;
            let found = search.as_ref().is_none_or(|search| {
                [&room.name, &room.topic, &room.canonical_alias]
                    .into_iter()
                    .flatten()
                    .any(|text| text.to_lowercase().contains(search))
            });
            if !found {
                continue;
            }
            if page.rooms.len() == limit {
                page.next = Some(format!("d1_{}", passed - 1));
                return Ok(finish(page, start, limit));
            }
            page.rooms.push(room);
        }
    }
}

fn finish(mut page: DirectoryPage, start: usize, limit: usize) -> DirectoryPage {
    page.previous = (start > 0).then(|| format!("d1_{}", start.saturating_sub(limit)));
    page
}

fn describe(
    tx: &mut Tx<'_>,
    room: &Arc<RoomRecord>,
    snapshot: SnapshotNum,
    joined: i64,
) -> Result<DirectoryRoom, StoreError> {
    let mut nums = Vec::with_capacity(DESCRIBED.len());
    for kind in DESCRIBED {
        nums.extend(current_num(tx, room, snapshot, kind, "")?);
    }
    let pdus = served(tx, room, &nums)?;
    let field = |kind: &str, field: &str| {
        let pdu = pdus.iter().find(|pdu| &*pdu.kind == kind)?;
        let content = serde_json::from_str::<serde_json::Value>(pdu.content.get()).ok()?;
        content.get(field).and_then(|value| value.as_str()).filter(|v| !v.is_empty()).map(str::to_owned)
    };
    Ok(DirectoryRoom {
        name: field("m.room.name", "name"),
        topic: field("m.room.topic", "topic"),
        avatar_url: field("m.room.avatar", "url"),
        canonical_alias: field("m.room.canonical_alias", "alias"),
        join_rule: field("m.room.join_rules", "join_rule"),
        world_readable: field("m.room.history_visibility", "history_visibility").as_deref() == Some("world_readable"),
        guest_can_join: field("m.room.guest_access", "guest_access").as_deref() == Some("can_join"),
        room_id: room.room_id.clone(),
        room_type: room.room_type.clone(),
        joined,
    })
}

/// One piece of a room's state.
pub(crate) fn current(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    snapshot: SnapshotNum,
    kind: &str,
    key: &str,
) -> Result<Option<Arc<Pdu>>, StoreError> {
    match current_num(tx, room, snapshot, kind, key)? {
        Some(num) => tx.events().pdu(room, num).map(Some),
        None => Ok(None),
    }
}

fn current_num(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    snapshot: SnapshotNum,
    kind: &str,
    key: &str,
) -> Result<Option<EventNum>, StoreError> {
    let (Some(kind), Some(state_key)) = (tx.string_num(kind)?, tx.string_num(key)?) else { return Ok(None) };
    tx.state().get(room.num, snapshot, StateKey { kind, state_key })
}

fn visibility_now(tx: &mut Tx<'_>, room: &RoomRecord) -> Result<Visibility, StoreError> {
    let Some(snapshot) = tx.rooms().tip(room.num)?.and_then(|tip| tip.snapshot) else { return Ok(Visibility::Shared) };
    let event = current(tx, room, snapshot, "m.room.history_visibility", "")?;
    let content = event.and_then(|pdu| serde_json::from_str::<serde_json::Value>(pdu.content.get()).ok());
    Ok(Visibility::from_spec(content.as_ref().and_then(|c| c.get("history_visibility")).and_then(|v| v.as_str())))
}

/// Whether a joined user's level suffices for a kind of state.
pub(crate) fn may_set(tx: &mut Tx<'_>, room: RoomNum, user: &UserId, kind: &str) -> Result<bool, StoreError> {
    let room = tx.rooms().by_num(room)?;
    let Some(snapshot) = tx.rooms().tip(room.num)?.and_then(|tip| tip.snapshot) else { return Ok(false) };
    let member = current(tx, &room, snapshot, "m.room.member", user.as_str())?;
    if member.as_ref().and_then(|pdu| pdu.membership()) != Some("join") {
        return Ok(false);
    }
    let create = current(tx, &room, snapshot, "m.room.create", "")?;
    let power_levels = current(tx, &room, snapshot, "m.room.power_levels", "")?;
    let levels = PowerLevels::new(create, power_levels, room.rules);
    Ok(levels.user(user) >= levels.state(kind))
}
