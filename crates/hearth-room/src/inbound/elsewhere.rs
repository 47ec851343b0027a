//! Users of ours and rooms that we are not in: their invites and knocks, the ways that lead there, and how it ends.
//!
//! What we know of such a room is hearsay. Its invites and knocks stand in the memberships only, with the server that told of
//! them; when we come into the room, its state decides.
//! Spec: server-server API, "Inviting to a room", "Knocking upon a room", "Leaving Rooms (Rejecting Invites)".

use std::sync::Arc;

use hearth_matrix::client_format::{ClientFormat, write_event};
use hearth_matrix::ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
};
use hearth_matrix::{Pdu, RoomVersionRules};
use hearth_store::{
    DecidedMember, EventNum, MemberElsewhere, Membership, MembershipRow, Noun, RoomRecord, StoreError, Tip, ToldBy, Tx,
};
use serde::Deserialize;

use super::{Dropped, Received, signatures};
use crate::append::{Appender, MemberStep, member_change};
use crate::{RoomError, Rooms, stripped};

/// Servers that are asked for one room at most.
const SERVERS: usize = 10;

/// A user of ours before a room that we are not in.
#[derive(Clone, Debug)]
pub(crate) struct Elsewhere {
    pub(crate) membership: Option<Membership>,
    pub(super) ways: Ways,
}

/// Servers that should know a room.
#[derive(Clone, Debug, Default)]
pub(super) struct Ways {
    /// Those by which a user of ours is invited or has knocked.
    inviting: Vec<OwnedServerName>,
    /// Others.
    there: Vec<OwnedServerName>,
    /// What is left where nobody names any: those that were there when we were, and the one that the room's id names.
    otherwise: Vec<OwnedServerName>,
}

/// A membership of a user of ours, as another server told of it.
#[derive(Clone, Debug)]
pub(super) struct Told {
    pub(super) room_id: OwnedRoomId,
    /// What is said of the room, if that is said now.
    pub(super) room: Option<Hearsay>,
    pub(super) user: OwnedUserId,
    pub(super) membership: Membership,
    /// The member event; that of before if there is no new one.
    pub(super) event_id: Option<OwnedEventId>,
    pub(super) sender: OwnedUserId,
    pub(super) stripped: Option<String>,
    pub(super) via: OwnedServerName,
    /// Only while the membership of before is this one.
    pub(super) instead_of: Option<OwnedEventId>,
}

/// What others say of a room.
#[derive(Clone, Debug)]
pub(super) struct Hearsay {
    pub(super) version: RoomVersionId,
    pub(super) creator: OwnedUserId,
    pub(super) room_type: Option<String>,
    pub(super) federate: bool,
    pub(super) created_ts: i64,
}

/// A piece of state as others tell it.
#[derive(Deserialize)]
struct ToldEvent {
    #[serde(rename = "type")]
    kind: String,
    state_key: Option<String>,
    sender: OwnedUserId,
    #[serde(default)]
    content: serde_json::Value,
    #[serde(default)]
    origin_server_ts: serde_json::Value,
}

impl Hearsay {
    /// From the create event among the state that is told; none if that is of another version.
    pub(super) fn of(version: &RoomVersionId, state: &[String], else_creator: &UserId) -> Option<Self> {
        let told = state.iter().filter_map(|json| serde_json::from_str::<ToldEvent>(json).ok());
        let mut creates = told.filter(|event| event.kind == "m.room.create" && event.state_key.as_deref() == Some(""));
        let Some(create) = creates.next() else {
            let (version, creator) = (version.clone(), else_creator.to_owned());
            return Some(Self { version, creator, room_type: None, federate: true, created_ts: 0 });
        };
        let text = |field: &str| create.content.get(field).and_then(|value| value.as_str());
        let federate = create.content.get("m.federate").and_then(serde_json::Value::as_bool).unwrap_or(true);
        (text("room_version").unwrap_or("1") == version.as_str()).then(|| Self {
            version: version.clone(),
            room_type: text("type").map(str::to_owned),
            federate,
            created_ts: create.origin_server_ts.as_i64().unwrap_or(0),
            creator: create.sender.clone(),
        })
    }
}

impl Rooms {
    /// Servers that may let a user of ours into a room, the likeliest first: whoever invited him, those he names, those that we
    /// know in the room, and the one that the room's id names.
    pub async fn ways_in(
        &self,
        user: &UserId,
        room_id: &RoomId,
        named: &[OwnedServerName],
    ) -> Result<Vec<OwnedServerName>, RoomError> {
        let (user_id, id) = (user.to_owned(), room_id.to_owned());
        let known = self.inner.store.read(move |tx| ways(tx, &user_id, &id)).await?;
        Ok(self.sorted_ways(&known, named))
    }

    /// At most some servers: who invited the user, those he names, then others that are known.
    pub(super) fn sorted_ways(&self, known: &Ways, named: &[OwnedServerName]) -> Vec<OwnedServerName> {
        let mut sorted: Vec<OwnedServerName> = Vec::new();
        // Whoever names servers knows better than what we remember.
        let is_other = |server: &OwnedServerName| *server != self.inner.config.server_name;
        let otherwise = if named.iter().any(is_other) { &[][..] } else { &known.otherwise };
        for server in known.inviting.iter().chain(named).chain(&known.there).chain(otherwise) {
            if *server != self.inner.config.server_name && !sorted.contains(server) {
                sorted.push(server.clone());
            }
        }
        sorted.truncate(SERVERS);
        sorted
    }

    /// Whether users of ours are in a room.
    pub(crate) async fn is_resident(&self, room_id: &RoomId) -> Result<bool, RoomError> {
        let room_id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(false) };
            Ok(tx.rooms().tip(room.num)?.is_some_and(|tip| tip.joined_local > 0))
        });
        Ok(read.await?)
    }

    /// How a user of ours stands to a room that we are not in; none if we are in it, or nobody else is.
    pub(crate) async fn elsewhere(&self, user: &UserId, room_id: &RoomId) -> Result<Option<Elsewhere>, RoomError> {
        let (user, room_id) = (user.to_owned(), room_id.to_owned());
        let read = self.inner.store.read(move |tx| {
            let mut membership = None;
            if let Some(room) = tx.rooms().by_id(&room_id)? {
                let row = current(tx, &room, &user)?;
                let is_told = row.as_ref().is_some_and(|row| row.told.is_some());
                let tip = tx.rooms().tip(room.num)?;
                if tip.is_some_and(|tip| tip.joined_local > 0 || !is_told && tip.joined == 0) {
                    return Ok(None);
                }
                membership = row.map(|row| row.membership);
            }
            Ok(Some(Elsewhere { membership, ways: ways(tx, &user, &room_id)? }))
        });
        Ok(read.await?)
    }

    /// Takes down what another server told. Nothing is written if we are in the room by now.
    pub(super) async fn note_elsewhere(&self, told: Told) -> Result<(), RoomError> {
        loop {
            let asked = told.room_id.clone();
            let known = self.inner.store.read(move |tx| Ok(tx.rooms().by_id(&asked)?.map(|room| room.num))).await?;
            let mut nouns = Self::moving_into(&told.room_id);
            nouns.extend(known.map(Noun::Room));
            let told = told.clone();
            let write = self.inner.store.write(nouns, move |tx| {
                if tx.rooms().by_id(&told.room_id)?.map(|room| room.num) != known {
                    return Ok(None);
                }
                note(tx, &told).map(Some)
            });
            if let Some(outcome) = write.await? {
                return outcome;
            }
        }
    }

    /// A PDU about a room that we are not in can end an invite, in the name of who sent it, or refuse a knock. That needs no
    /// other state: the event names the one that it ends among those that allow it, so it is neither older nor made up.
    pub(super) async fn end_elsewhere(&self, json: &str, room_id: &OwnedRoomId) -> Result<Received, RoomError> {
        #[derive(Deserialize)]
        struct Kind {
            #[serde(rename = "type")]
            kind: String,
        }
        let unknown = Received { event_id: None, outcome: Err(Dropped::UnknownRoom) };
        if !serde_json::from_str::<Kind>(json).is_ok_and(|event| event.kind == "m.room.member") {
            return Ok(unknown);
        }
        let (json, asked, config) = (json.to_owned(), room_id.clone(), self.inner.config.clone());
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&asked)? else { return Ok(None) };
            let Ok(pdu) = Pdu::from_remote(&json, room.rules) else { return Ok(None) };
            let Some(("m.room.member", target)) = pdu.state_pair() else { return Ok(None) };
            let Ok(target) = OwnedUserId::try_from(target) else { return Ok(None) };
            if pdu.room_id != asked || target.server_name() != &*config.server_name || pdu.sender == target {
                return Ok(None);
            }
            let Some(row) = current(tx, &room, &target)? else { return Ok(None) };
            let Some(ends) = id_of(tx, &row)? else { return Ok(None) };
            let inviter = row.membership == Membership::Invite && *tx.string(row.sender)? == *pdu.sender.as_str();
            let may = inviter || row.membership == Membership::Knock;
            Ok((may && pdu.auth_events.contains(&ends)).then_some((room, pdu, target, ends)))
        });
        let Some((room, pdu, user, ends)) = read.await? else { return Ok(unknown) };
        let Some(membership @ (Membership::Leave | Membership::Ban)) = pdu.membership().and_then(Membership::from_spec)
        else {
            return Ok(unknown);
        };
        let Some(neighbours) = self.inner.inbound.neighbours.get() else { return Ok(unknown) };
        let (pdu, event_id) = (Arc::new(pdu), |pdu: &Pdu| Some(pdu.event_id.clone()));
        let proven = signatures::check(&**neighbours, std::slice::from_ref(&pdu), room.rules).await;
        if let Some(Err(error)) = proven.into_iter().next() {
            return Ok(Received { event_id: event_id(&pdu), outcome: Err(Dropped::Signature(error.to_string())) });
        }
        self.note_elsewhere(Told {
            room_id: room_id.clone(),
            room: None,
            user,
            membership,
            event_id: event_id(&pdu),
            sender: pdu.sender.clone(),
            stripped: Some(only(&pdu, room.rules)),
            via: pdu.sender.server_name().to_owned(),
            instead_of: Some(ends),
        })
        .await?;
        Ok(Received { event_id: event_id(&pdu), outcome: Ok(()) })
    }
}

/// A member event alone, as clients are told of it: a JSON array.
pub(super) fn only(pdu: &Pdu, rules: &RoomVersionRules) -> String {
    let mut out = String::from("[");
    write_event(&mut out, pdu, rules, ClientFormat::default());
    out.push(']');
    out
}

fn current(tx: &mut Tx<'_>, room: &RoomRecord, user: &UserId) -> Result<Option<MembershipRow>, StoreError> {
    match tx.string_num(user.as_str())? {
        Some(user) => tx.members().current(room.num, user),
        None => Ok(None),
    }
}

fn ways(tx: &mut Tx<'_>, user: &UserId, room_id: &RoomId) -> Result<Ways, StoreError> {
    let mut ways = Ways::default();
    if let Some(room) = tx.rooms().by_id(room_id)? {
        if let Some(row) = current(tx, &room, user)? {
            let offers = matches!(row.membership, Membership::Invite | Membership::Knock);
            let servers = if offers { &mut ways.inviting } else { &mut ways.there };
            if let Some(told) = &row.told {
                servers.extend(ServerName::parse(&*tx.string(told.server)?));
            }
            if offers {
                let sender = tx.string(row.sender)?;
                servers.extend(<&UserId>::try_from(&*sender).map(|sender| sender.server_name().to_owned()));
            }
        }
        let known = tx.rooms().servers(room.num, SERVERS as i64)?;
        let resident = tx.rooms().tip(room.num)?.is_some_and(|tip| tip.joined_local > 0);
        let servers = if resident { &mut ways.there } else { &mut ways.otherwise };
        servers.extend(known.iter().filter_map(|server| ServerName::parse(&**server).ok()));
    }
    ways.otherwise.extend(room_id.server_name().map(ToOwned::to_owned));
    Ok(ways)
}

/// The event that made a membership, if there is one.
fn id_of(tx: &mut Tx<'_>, row: &MembershipRow) -> Result<Option<OwnedEventId>, StoreError> {
    match &row.told {
        Some(told) => Ok(Some(told.event_id.clone())),
        None if row.event == EventNum(0) => Ok(None),
        None => tx.events().id(row.event).map(Some),
    }
}

fn note(tx: &mut Tx<'_>, told: &Told) -> Result<Result<(), RoomError>, StoreError> {
    let room = match (tx.rooms().by_id(&told.room_id)?, &told.room) {
        (Some(room), Some(said)) if room.hearsay => {
            let room = Arc::new(record(tx, &told.room_id, said, Some(&room))?);
            tx.rooms().revise(&room)?;
            room
        }
        (Some(room), Some(said)) if room.version != said.version => {
            return Ok(Err(RoomError::InvalidParam("the room is of another version".into())));
        }
        (Some(room), _) => room,
        (None, Some(said)) => {
            let room = Arc::new(record(tx, &told.room_id, said, None)?);
            tx.rooms().insert(&room)?;
            room
        }
        (None, None) => return Ok(Err(RoomError::UnknownRoom)),
    };
    if tx.rooms().tip(room.num)?.is_some_and(|tip: Tip| tip.joined_local > 0) {
        return Ok(Ok(()));
    }
    let user = tx.intern(told.user.as_str())?;
    let known = match tx.members().current(room.num, user)? {
        Some(row) => id_of(tx, &row)?,
        None => None,
    };
    let is_known = told.event_id.is_some() && told.event_id == known;
    if is_known || told.instead_of.is_some() && told.instead_of != known {
        return Ok(Ok(()));
    }
    let Some(event_id) = told.event_id.clone().or(known) else { return Ok(Ok(())) };
    let member = MemberElsewhere {
        user,
        membership: told.membership,
        sender: tx.intern(told.sender.as_str())?,
        stripped: told.stripped.clone(),
        told: ToldBy { server: tx.intern(told.via.as_str())?, event_id },
    };
    tx.members().elsewhere(&room, &member)?;
    Ok(Ok(()))
}

fn record(
    tx: &mut Tx<'_>,
    room_id: &RoomId,
    said: &Hearsay,
    known: Option<&RoomRecord>,
) -> Result<RoomRecord, StoreError> {
    let creator = tx.intern(said.creator.as_str())?;
    let room_type = said.room_type.clone();
    let prepared = tx.rooms().prepare(room_id, &said.version, creator, room_type, said.federate, said.created_ts)?;
    let num = known.map_or(prepared.num, |known| known.num);
    Ok(RoomRecord { num, hearsay: true, ..prepared })
}

impl Appender<'_, '_> {
    /// We have come into the room: what others told of users of ours before gives way to its state.
    pub(super) fn settle_hearsay(&mut self) -> Result<(), StoreError> {
        for row in self.tx.members().told_elsewhere(self.room.num)? {
            let target = self.tx.string(row.user)?;
            // His own join ends it.
            if self.pending.iter().any(|pending| pending.pdu.is_state("m.room.member", &target)) {
                continue;
            }
            let Ok(user) = <&UserId>::try_from(&*target) else { continue };
            let state = self.state("m.room.member", user.as_str())?;
            if self.tip.partial && state.is_none() {
                continue; // Not known yet.
            }
            let after = state.as_ref().and_then(|(_, pdu)| pdu.membership()).and_then(Membership::from_spec);
            let after = after.unwrap_or(Membership::Leave);
            if after == row.membership {
                self.tx.members().known_here(row.room, row.user, state.map(|(num, _)| num))?;
                continue;
            }
            let stripped = match &state {
                Some((_, pdu)) if matches!(after, Membership::Invite | Membership::Knock) => {
                    Some(stripped::stripped_state(self, pdu)?)
                }
                _ => None,
            };
            let (event, sender) = match &state {
                Some((num, pdu)) => (*num, self.tx.intern(pdu.sender.as_str())?),
                None => (row.event, row.sender),
            };
            let counts = (self.tip.joined, self.tip.invited);
            let step = MemberStep { local: true, before: Some(row.membership), after, stripped, counts };
            let Some(change) = member_change(self.tx, &target, step)? else { continue };
            if let Some(last) = self.pending.last_mut() {
                last.decided.push(DecidedMember { event, sender, change });
            }
        }
        Ok(())
    }
}
