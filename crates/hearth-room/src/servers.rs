//! What other servers may do in our rooms and see of them, and what they tell that is no event: typing, receipts.
//!
//! A server may ask about rooms in which it has members, unless the room's ACL shuts it out. What it may not see of them it gets
//! redacted.
//! Spec: server-server API, "Server Access Control Lists (ACLs)", "Typing Notifications", "Receipts"; client-server API, "Room
//! History Visibility".

mod sight;

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{
    OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
};
use hearth_store::{EventNum, Membership, Noun, RoomRecord, StateKey, StoreError, Tx, UserNum};
use rustc_hash::FxHashSet;

use self::sight::Sight;
use crate::inbound::ServerAcl;
use crate::{RoomError, Rooms};

/// How long somebody of another server types if that server says no more. Some say it again after 40 seconds only.
const TYPES_FOR: Duration = Duration::from_secs(60);
/// When, and how many times, it is looked whether the event of a receipt has come: each time after twice as long.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const LOOKS: u32 = 7;
/// Receipts of one message that wait for their events.
const EARLY: usize = 100;
/// Receipts taken together.
const RECEIPTS: usize = 200;

/// A receipt that another server tells of.
#[derive(Clone, Debug)]
pub struct RemoteReceipt {
    /// Where.
    pub room_id: OwnedRoomId,
    /// Whose.
    pub user_id: OwnedUserId,
    /// `main`, the root of a thread, or none if it is for everything.
    pub thread: Option<String>,
    /// Up to where.
    pub event_id: OwnedEventId,
    /// When, in milliseconds.
    pub ts: i64,
}

impl Rooms {
    /// Whether a server may knock at a room: we are in it, and its ACL does not shut the server out.
    pub async fn admits(&self, server: &ServerName, room_id: &RoomId) -> Result<(), RoomError> {
        let (server, room_id) = (server.to_owned(), room_id.to_owned());
        let read = self.inner.store.read(move |tx| Ok(admitted(tx, &server, &room_id)?.map(|_| ())));
        read.await?
    }

    /// Whether a server may ask about a room: beside that, it has members there.
    pub async fn may_ask(&self, server: &ServerName, room_id: &RoomId) -> Result<(), RoomError> {
        let (server, room_id) = (server.to_owned(), room_id.to_owned());
        let read = self.inner.store.read(move |tx| {
            let room = match admitted(tx, &server, &room_id)? {
                Ok(room) => room,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let there = match tx.string_num(server.as_str())? {
                Some(server) => tx.rooms().has_server(room.num, server)?,
                None => false,
            };
            Ok(if there { Ok(()) } else { Err(RoomError::Forbidden(format!("{server} is not in the room"))) })
        });
        read.await?
    }

    /// Events, the newest first, as a server gets them: what it may not see, and what was redacted, without content, unless others
    /// are judged by that. From the first of which it takes too long to find out whether the server may see it, all are left out:
    /// it can ask for them again, or somebody else.
    pub async fn shown_to(&self, server: &ServerName, pdus: Vec<Arc<Pdu>>) -> Result<Vec<String>, RoomError> {
        let server = server.to_owned();
        let read = self.inner.store.read(move |tx| {
            let mut shown = Vec::with_capacity(pdus.len());
            let mut sight = Sight::of(&server);
            for pdu in &pdus {
                let Some(room) = tx.rooms().by_id(&pdu.room_id)? else { continue };
                let Some(row) = tx.events().by_id(&room, &pdu.event_id)? else { continue };
                let Some(may_see) = sight.may_see(tx, &room, &row, pdu)? else { break };
                let is_whole = may_see && row.redacted_by.is_none();
                let told = if is_whole { pdu.clone() } else { redacted(pdu, &room)? };
                shown.push(told.json.to_string());
            }
            Ok(shown)
        });
        Ok(read.await?)
    }

    /// The room of an event that is known by its id alone, if the server may ask about it.
    pub async fn room_of_event(&self, server: &ServerName, event_id: &OwnedEventId) -> Result<OwnedRoomId, RoomError> {
        let wanted = event_id.clone();
        let read = self.inner.store.read(move |tx| {
            let rooms = tx.events().rooms_of_id(&wanted)?;
            rooms.into_iter().map(|room| Ok(tx.rooms().by_num(room)?.room_id.clone())).collect::<Result<Vec<_>, _>>()
        });
        let mut refusal = RoomError::NotFound("There is no such event");
        for room_id in read.await? {
            match self.may_ask(server, &room_id).await {
                Ok(()) => return Ok(room_id),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    /// The version of a room that we are in, or were.
    pub async fn version_of(&self, room_id: &RoomId) -> Result<Option<RoomVersionId>, RoomError> {
        let room_id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| Ok(tx.rooms().by_id(&room_id)?.map(|room| room.version.clone())));
        Ok(read.await?)
    }

    /// Servers that have members in a room, those longest there first.
    pub async fn servers(&self, room_id: &RoomId, limit: usize) -> Result<Vec<OwnedServerName>, RoomError> {
        let room_id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| match tx.rooms().by_id(&room_id)? {
            Some(room) => tx.rooms().servers(room.num, i64::try_from(limit).unwrap_or(i64::MAX)),
            None => Ok(Vec::new()),
        });
        Ok(read.await?.iter().filter_map(|name| ServerName::parse(&**name).ok()).collect())
    }

    /// Another server's user types, or types no more.
    pub async fn receive_typing(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
        typing: bool,
    ) -> Result<(), RoomError> {
        let Some((room, user)) = self.remote_member(origin, room_id, user_id).await? else { return Ok(()) };
        self.inner.typing.set(room.num, user, user_id, typing.then_some(TYPES_FOR));
        Ok(())
    }

    /// Other servers' users have read. Those that would move back, or are of nobody in the room, stay out. One may
    /// come before the event that it names has been judged: it waits for it, a little while and beside.
    pub async fn receive_receipts(&self, origin: &ServerName, receipts: Vec<RemoteReceipt>) -> Result<(), RoomError> {
        let early = self.take_receipts(origin, receipts).await?;
        if early.is_empty() {
            return Ok(());
        }
        let Some(place) = self.inner.inbound.early_of(origin) else { return Ok(()) };
        let (rooms, origin) = (self.clone(), origin.to_owned());
        tokio::spawn(async move {
            let _place = place;
            let (mut early, mut pause) = (early, LOOK_AGAIN);
            early.truncate(EARLY);
            for _ in 0..LOOKS {
                tokio::time::sleep(pause).await;
                pause *= 2;
                match rooms.take_receipts(&origin, early).await {
                    Ok(still) if !still.is_empty() => early = still,
                    _ => return,
                }
            }
        });
        Ok(())
    }

    /// Takes the receipts whose events are here; returns those whose events have not come yet. Nothing is written for these.
    async fn take_receipts(
        &self,
        origin: &ServerName,
        mut receipts: Vec<RemoteReceipt>,
    ) -> Result<Vec<RemoteReceipt>, RoomError> {
        let mut early = Vec::new();
        while !receipts.is_empty() {
            let part: Vec<RemoteReceipt> = receipts.drain(..receipts.len().min(RECEIPTS)).collect();
            let server = origin.to_owned();
            let read = self.inner.store.read(move |tx| {
                let (mut ready, mut early) = (Vec::new(), Vec::new());
                for receipt in &part {
                    let Some((room, user)) = remote_member(tx, &server, &receipt.room_id, &receipt.user_id)? else {
                        continue;
                    };
                    match crate::receipts::has_come(tx, &room, &receipt.event_id)? {
                        true => ready.push((room, user, receipt.clone())),
                        false => early.push(receipt.clone()),
                    }
                }
                Ok((ready, early))
            });
            let (ready, waiting) = read.await?;
            early.extend(waiting);
            if ready.is_empty() {
                continue;
            }
            let mut known = Vec::with_capacity(ready.len());
            for (room, user, receipt) in ready {
                let user = match user {
                    Some(user) => user,
                    None => self.number_of(&receipt.user_id).await?,
                };
                known.push((room, user, receipt));
            }
            let mut nouns: Vec<Noun> = known.iter().map(|(_, user, _)| Noun::User(*user)).collect();
            nouns.sort_unstable();
            nouns.dedup();
            let write = self.inner.store.write(nouns, move |tx| {
                for (room, user, receipt) in &known {
                    crate::receipts::receive(tx, room, *user, receipt)?;
                }
                Ok(())
            });
            write.await?;
        }
        Ok(early)
    }

    /// A member of a room of ours whose server says so itself.
    async fn remote_member(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        user_id: &UserId,
    ) -> Result<Option<(Arc<RoomRecord>, UserNum)>, RoomError> {
        let (origin, room_id, user) = (origin.to_owned(), room_id.to_owned(), user_id.to_owned());
        let read = self.inner.store.read(move |tx| remote_member(tx, &origin, &room_id, &user));
        Ok(match read.await? {
            Some((room, Some(user))) => Some((room, user)),
            Some((room, None)) => Some((room, self.number_of(user_id).await?)),
            None => None,
        })
    }

    async fn number_of(&self, user_id: &UserId) -> Result<UserNum, RoomError> {
        let user_id = user_id.to_owned();
        Ok(self.inner.store.write_quiet(Vec::new(), move |tx| tx.intern(user_id.as_str())).await?)
    }
}

/// Events of a room as everybody gets them who asks for state: what was redacted, without its content, unless others are judged
/// by that.
pub(crate) fn served(tx: &mut Tx<'_>, room: &RoomRecord, nums: &[EventNum]) -> Result<Vec<Arc<Pdu>>, StoreError> {
    let mut pdus = tx.events().pdus(room, nums)?;
    let asked: Vec<i64> = nums.iter().map(|num| num.0).collect();
    let mut ids = FxHashSet::default();
    for num in tx.events().redacted_among(&asked)? {
        ids.insert(tx.events().id(num)?);
    }
    for pdu in pdus.iter_mut().filter(|pdu| ids.contains(&pdu.event_id)) {
        *pdu = redacted(pdu, room)?;
    }
    Ok(pdus)
}

/// An event as other servers are told it when it was redacted: without what that takes away, unless they are judged by it. What is
/// told of redacted events to whomever, by whichever way, goes through here: who has an event whole and who has the rest of it alone
/// would not agree.
pub fn redacted(pdu: &Arc<Pdu>, room: &RoomRecord) -> Result<Arc<Pdu>, StoreError> {
    let redacted = pdu.redacted(room.rules);
    let redacted = redacted.map_err(|error| StoreError::Damaged(format!("{}: {error}", pdu.event_id)))?;
    Ok(redacted.map_or_else(|| pdu.clone(), Arc::new))
}

/// A room that we are in and that lets a server take part.
fn admitted(
    tx: &mut Tx<'_>,
    server: &ServerName,
    room_id: &RoomId,
) -> Result<Result<Arc<RoomRecord>, RoomError>, StoreError> {
    let Some(room) = tx.rooms().by_id(room_id)? else { return Ok(Err(RoomError::UnknownRoom)) };
    let Some(tip) = tx.rooms().tip(room.num)?.filter(|tip| tip.joined_local > 0) else {
        return Ok(Err(RoomError::UnknownRoom));
    };
    let acl = match (tip.snapshot, tx.string_num("m.room.server_acl")?, tx.string_num("")?) {
        (Some(snapshot), Some(kind), Some(state_key)) => {
            match tx.state().get(room.num, snapshot, StateKey { kind, state_key })? {
                Some(num) => ServerAcl::parse(tx.events().pdu(&room, num)?.content.get()),
                None => None,
            }
        }
        _ => None,
    };
    match acl {
        Some(acl) if !acl.allows(server) => {
            Ok(Err(RoomError::Forbidden(format!("{server} is shut out by the room's server ACL"))))
        }
        _ => Ok(Ok(room)),
    }
}

/// A room of ours and somebody in it, by his number if that is known.
type RemoteMember = (Arc<RoomRecord>, Option<UserNum>);

/// A member of a room of ours whose server says so itself, if his number is known.
fn remote_member(
    tx: &mut Tx<'_>,
    origin: &OwnedServerName,
    room_id: &OwnedRoomId,
    user_id: &UserId,
) -> Result<Option<RemoteMember>, StoreError> {
    if user_id.server_name() != origin {
        return Ok(None);
    }
    let Ok(room) = admitted(tx, origin, room_id)? else { return Ok(None) };
    let user = tx.string_num(user_id.as_str())?;
    let membership = match user {
        Some(user) => tx.members().current(room.num, user)?.map(|row| row.membership),
        None => None,
    };
    match (membership, user) {
        (Some(Membership::Join), Some(user)) => Ok(Some((room, Some(user)))),
        // Whoever is not known where not all are known: his server is believed to be there.
        (None, user) if tx.rooms().tip(room.num)?.is_some_and(|tip| tip.partial) => {
            let there = match tx.string_num(origin.as_str())? {
                Some(server) => tx.rooms().has_server(room.num, server)?,
                None => false,
            };
            Ok(there.then_some((room, user)))
        }
        _ => Ok(None),
    }
}
