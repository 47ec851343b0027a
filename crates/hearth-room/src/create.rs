//! A new room: create event, creator, power levels, preset, initial state, name, topic, invites, in one commit.
//!
//! Spec: client-server API, "Creation"; room version 12, "Room IDs as hashes of the create event".

use std::sync::Arc;

use hearth_matrix::ruma::{
    CanonicalJsonObject, CanonicalJsonValue, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomVersionId,
};
use hearth_matrix::{Draft, Pdu, Place, RoomVersionRules, V1Place, rules, seal};
use hearth_store::{Noun, Store, Tx};
use serde_json::json;

use crate::append::{Appender, Decision, Submission};
use crate::{RoomError, Rooms, RoomsConfig, member_content, membership, power_levels};

/// Which rules a new room starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preset {
    /// By invitation; guests may join.
    PrivateChat,
    /// The same, and those invited are as powerful as the creator.
    TrustedPrivateChat,
    /// Anybody may join.
    PublicChat,
}

/// What a new room shall be.
#[derive(Clone, Debug)]
pub struct CreateRoom {
    /// Who creates it.
    pub creator: OwnedUserId,
    /// Its version, if not the default.
    pub version: Option<RoomVersionId>,
    /// Its preset.
    pub preset: Preset,
    /// More content of the create event.
    pub creation_content: CanonicalJsonObject,
    /// What the power levels differ in from the default.
    pub power_levels: Option<CanonicalJsonObject>,
    /// State set after the preset's.
    pub initial_state: Vec<Draft>,
    /// Its name.
    pub name: Option<String>,
    /// Its topic.
    pub topic: Option<String>,
    /// Localpart of an alias to point to it.
    pub alias_localpart: Option<String>,
    /// Users to invite.
    pub invite: Vec<OwnedUserId>,
    /// The invites are to a direct chat.
    pub is_direct: bool,
    /// The public directory lists it.
    pub published: bool,
}

impl Rooms {
    /// Creates a room. All of it stands, or nothing.
    pub async fn create(&self, request: CreateRoom) -> Result<OwnedRoomId, RoomError> {
        let config = self.inner.config.clone();
        let version = request.version.clone().unwrap_or_else(|| config.default_version.clone());
        let rules = rules(&version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        let (creator, is_direct) = (request.creator.clone(), request.is_direct);
        let elsewhere: Vec<OwnedUserId> = request.invite.iter().filter(|user| !self.is_local(user)).cloned().collect();
        if let (Some(remote), false) = (elsewhere.first(), self.inner.inbound.is_connected()) {
            return Err(RoomError::Remote(remote.to_string()));
        }
        let alias = request.alias_localpart.as_deref().map(|localpart| alias(localpart, &config)).transpose()?;
        let opaque = (0..request.initial_state.len() + request.invite.len() + 16)
            .map(|_| self.inner.chance.letters(18))
            .collect();
        let room = NewRoom {
            random_id: OwnedRoomId::try_from(format!("!{}:{}", self.inner.chance.letters(18), config.server_name))
                .map_err(|error| RoomError::InvalidParam(error.to_string()))?,
            ts: self.inner.time.now_ms(),
            request,
            version,
            rules,
            alias,
            opaque,
        };
        let room_id = commit(&self.inner.store, config, room).await?;
        let invites = elsewhere.iter().map(|user| invite_of(user, member_content::bare("invite", None), is_direct));
        self.invite_all(&room_id, &creator, invites.collect()).await;
        Ok(room_id)
    }
}

fn alias(localpart: &str, config: &RoomsConfig) -> Result<OwnedRoomAliasId, RoomError> {
    if localpart.is_empty() || localpart.contains(|c: char| c == ':' || c == '#' || c.is_whitespace() || c == '\0') {
        return Err(RoomError::InvalidParam(format!("{localpart:?} is no localpart of a room alias")));
    }
    OwnedRoomAliasId::try_from(format!("#{localpart}:{}", config.server_name))
        .map_err(|error| RoomError::InvalidParam(error.to_string()))
}

/// All that the commit needs; chance and time are in it, so that it can be replayed.
struct NewRoom {
    request: CreateRoom,
    version: RoomVersionId,
    rules: &'static RoomVersionRules,
    random_id: OwnedRoomId,
    alias: Option<OwnedRoomAliasId>,
    ts: i64,
    opaque: Vec<String>,
}

async fn commit(store: &Store, config: Arc<RoomsConfig>, room: NewRoom) -> Result<OwnedRoomId, RoomError> {
    let mut nouns = vec![Noun::Name(format!("create {}", room.random_id))];
    nouns.extend(room.alias.iter().map(|alias| Noun::Name(alias.to_string())));
    store.write(nouns, move |tx| found(tx, &config, &room)).await?
}

fn found(tx: &mut Tx<'_>, config: &RoomsConfig, new: &NewRoom) -> Decision<OwnedRoomId> {
    if let Some(alias) = &new.alias
        && tx.rooms().alias(alias)?.is_some()
    {
        return Ok(Err(RoomError::AliasInUse(alias.to_string())));
    }
    let Some(creator) = tx.string_num(new.request.creator.as_str())? else {
        return Ok(Err(RoomError::Forbidden(format!("{} has no account here", new.request.creator))));
    };
    // In version 12 the id is a hash of the create event: two alike in one millisecond would be one room.
    let mut ts = new.ts;
    let create = loop {
        let create = match create_event(config, new, ts) {
            Ok(create) => Arc::new(create),
            Err(refusal) => return Ok(Err(refusal)),
        };
        if tx.rooms().by_id(&create.room_id)?.is_none() {
            break create;
        }
        ts += 1;
    };
    let content: serde_json::Value = serde_json::from_str(create.content.get()).unwrap_or_default();
    let room_type = content.get("type").and_then(|t| t.as_str()).map(str::to_owned);
    let federate = content.get("m.federate").and_then(serde_json::Value::as_bool).unwrap_or(true);
    let record = tx.rooms().prepare(&create.room_id, &new.version, creator, room_type, federate, ts)?;
    let record = Arc::new(record);

    let drafts = match drafts(tx, config, new)? {
        Ok(drafts) => drafts,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut appender = match Appender::new_room(tx, record.clone(), create.clone(), config)? {
        Ok(appender) => appender,
        Err(refusal) => return Ok(Err(as_state(refusal))),
    };
    for (draft, opaque) in drafts.into_iter().zip(new.opaque.iter().skip(1)) {
        let sender = new.request.creator.clone();
        let submission = Submission { sender, draft, txn: None, ts, opaque: opaque.clone(), again: false };
        if let Err(refusal) = appender.admit(submission)? {
            return Ok(Err(as_state(refusal)));
        }
    }
    let tx = appender.write_new()?;
    if let Some(alias) = &new.alias {
        tx.rooms().add_alias(alias, record.num, creator)?;
    }
    if new.request.published {
        tx.rooms().set_published(record.num, true)?;
    }
    Ok(Ok(create.room_id.clone()))
}

/// What the rules refuse of a new room is the asker's mistake, not a lack of power.
fn as_state(refusal: RoomError) -> RoomError {
    match refusal {
        RoomError::Forbidden(reason) => RoomError::InvalidRoomState(reason),
        other => other,
    }
}

fn create_event(config: &RoomsConfig, new: &NewRoom, ts: i64) -> Result<Pdu, RoomError> {
    let request = &new.request;
    let mut content = request.creation_content.clone();
    if new.rules.authorization.use_room_create_sender {
        content.remove("creator");
    } else {
        content.insert("creator".into(), CanonicalJsonValue::String(request.creator.to_string()));
    }
    content.insert("room_version".into(), CanonicalJsonValue::String(new.version.to_string()));
    if new.rules.authorization.additional_room_creators
        && request.preset == Preset::TrustedPrivateChat
        && !request.invite.is_empty()
    {
        let named = content.remove("additional_creators");
        let mut creators = named.and_then(|named| named.as_array().map(<[_]>::to_vec)).unwrap_or_default();
        for user in &request.invite {
            let user = CanonicalJsonValue::String(user.to_string());
            if !creators.contains(&user) {
                creators.push(user);
            }
        }
        content.insert("additional_creators".into(), CanonicalJsonValue::Array(creators));
    }
    let by_hash = new.rules.authorization.room_create_event_id_as_room_id;
    let chosen = matches!(new.version, RoomVersionId::V1 | RoomVersionId::V2);
    let place = Place {
        room_id: (!by_hash).then_some(&*new.random_id),
        sender: &request.creator,
        prev_events: &[],
        auth_events: &[],
        depth: 1,
        origin_server_ts: ts,
        server_name: &config.server_name,
        v1: chosen.then_some(V1Place { opaque: &new.opaque[0], reference_hash: &|_| None }),
    };
    Ok(seal(Draft::state("m.room.create", "", content), &place, &config.signing_key.get(), new.rules)?)
}

/// Everything after the create event.
fn drafts(tx: &mut Tx<'_>, config: &RoomsConfig, new: &NewRoom) -> Decision<Vec<Draft>> {
    let request = &new.request;
    let mut drafts = Vec::new();
    let own = member_content::with_profile(tx, "join", &request.creator, None)?;
    drafts.push(Draft::state("m.room.member", request.creator.as_str(), own));

    let given = |kind: &str| request.initial_state.iter().any(|draft| draft.kind == kind);
    if !given("m.room.power_levels") {
        drafts.push(Draft::state("m.room.power_levels", "", default_levels(new)));
    }
    if let Some(alias) = new.alias.as_ref().filter(|_| !given("m.room.canonical_alias")) {
        drafts.push(Draft::state("m.room.canonical_alias", "", object(json!({ "alias": alias }))));
    }
    let (join_rule, guests) = match request.preset {
        Preset::PrivateChat | Preset::TrustedPrivateChat => ("invite", Some("can_join")),
        // Where nothing is said, guests may not come in.
        Preset::PublicChat => ("public", None),
    };
    if !given("m.room.join_rules") {
        drafts.push(Draft::state("m.room.join_rules", "", object(json!({ "join_rule": join_rule }))));
    }
    if !given("m.room.history_visibility") {
        drafts.push(Draft::state("m.room.history_visibility", "", object(json!({ "history_visibility": "shared" }))));
    }
    if let Some(guests) = guests.filter(|_| !given("m.room.guest_access")) {
        drafts.push(Draft::state("m.room.guest_access", "", object(json!({ "guest_access": guests }))));
    }
    for draft in &request.initial_state {
        if draft.kind == "m.room.canonical_alias"
            && let Err(refusal) = own_aliases(tx, draft, new)?
        {
            return Ok(Err(refusal));
        }
        drafts.push(draft.clone());
    }
    for draft in drafts.iter().filter(|draft| draft.kind == "m.room.power_levels") {
        if let Err(reason) = power_levels::check(&draft.content, new.rules) {
            return Ok(Err(RoomError::InvalidRoomState(reason)));
        }
    }
    if let Some(name) = &request.name {
        drafts.push(Draft::state("m.room.name", "", object(json!({ "name": name }))));
    }
    if let Some(topic) = &request.topic {
        let content = json!({ "topic": topic, "m.topic": { "m.text": [{ "body": topic, "mimetype": "text/plain" }] } });
        drafts.push(Draft::state("m.room.topic", "", object(content)));
    }
    // Users of other servers are invited when the room stands.
    for user in request.invite.iter().filter(|user| user.server_name() == config.server_name) {
        if membership::blocks_invites(tx, user)? {
            return Ok(Err(RoomError::InviteBlocked(user.clone())));
        }
        let content = member_content::with_profile(tx, "invite", user, None)?;
        drafts.push(invite_of(user, content, request.is_direct));
    }
    Ok(Ok(drafts))
}

fn invite_of(user: &OwnedUserId, mut content: CanonicalJsonObject, is_direct: bool) -> Draft {
    if is_direct {
        content.insert("is_direct".into(), CanonicalJsonValue::Bool(true));
    }
    Draft::state("m.room.member", user.as_str(), content)
}

/// No alias but the one made now can point to a new room.
fn own_aliases(tx: &mut Tx<'_>, draft: &Draft, new: &NewRoom) -> Decision<()> {
    let alias = draft.content.get("alias").and_then(CanonicalJsonValue::as_str).filter(|alias| !alias.is_empty());
    match alias {
        Some(alias) if new.alias.as_ref().is_none_or(|own| own.as_str() != alias) => {
            let known = match <&RoomAliasId>::try_from(alias) {
                Ok(alias) => tx.rooms().alias(alias)?.is_some(),
                Err(_) => return Ok(Err(RoomError::InvalidParam(format!("{alias:?} is no room alias")))),
            };
            let whose = if known { "another room" } else { "nothing" };
            Ok(Err(RoomError::BadAlias(format!("{alias} points to {whose}"))))
        }
        _ => Ok(Ok(())),
    }
}

/// The default power levels with the asker's changes. Creators of version 12 rooms stand above all levels and must not be
/// named.
fn default_levels(new: &NewRoom) -> CanonicalJsonObject {
    let request = &new.request;
    let creators_above = new.rules.authorization.explicitly_privilege_room_creators;
    let mut users = serde_json::Map::new();
    if !creators_above {
        users.insert(request.creator.to_string(), json!(100));
        if request.preset == Preset::TrustedPrivateChat {
            users.extend(request.invite.iter().map(|user| (user.to_string(), json!(100))));
        }
    }
    let invite = if request.preset == Preset::PublicChat { 50 } else { 0 };
    let mut content = object(json!({
        "users": users,
        "users_default": 0,
        "events": {
            "m.room.name": 50,
            "m.room.avatar": 50,
            "m.room.canonical_alias": 50,
            "m.room.power_levels": 100,
            "m.room.history_visibility": 100,
            "m.room.tombstone": if creators_above { 150 } else { 100 },
            "m.room.server_acl": 100,
            "m.room.encryption": 100,
        },
        "events_default": 0,
        "state_default": 50,
        "ban": 50,
        "kick": 50,
        "redact": 50,
        "invite": invite,
        "historical": 100,
    }));
    if let Some(changes) = &request.power_levels {
        content.extend(changes.clone());
    }
    content
}

/// A content written in code: always an object of strings and small integers.
fn object(value: serde_json::Value) -> CanonicalJsonObject {
    serde_json::from_value(value).unwrap_or_default()
}
