//! The handshake of a join, on both sides: the resident server drafts and lets in, the joining server signs and moves in.
//!
//! Spec: server-server API, "Joining Rooms"; room version 8, "Restricted rooms".

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::ruma::{
    CanonicalJsonObject, EventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId,
};
use hearth_matrix::signatures::{self, sign_event};
use hearth_matrix::{Completion, Pdu, SUPPORTED_VERSIONS, complete, rules, template_of};
use hearth_store::{Membership, Noun, Standing, StoreError};

use super::signatures as check;
use super::{Arrival, JoinAnswer, StateBefore, Template, Verdict};
use crate::append::{Appender, Submission};
use crate::turn::Step;
use crate::{RoomError, Rooms, member_content, membership};

/// Servers asked to let somebody in, one after the other.
const SERVERS: usize = 10;

/// How often, and how many times, it is looked whether a join has come in that lacked events before it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOKS: u32 = 400;

/// A user of another server who was let in.
#[derive(Clone, Debug)]
pub struct Welcomed {
    /// The join, with our signature if it needed that.
    pub event: Arc<Pdu>,
    /// The state before it.
    pub before: StateBefore,
}

impl Rooms {
    /// Drafts the join of another server's user (`make_join`). Nothing is written.
    pub async fn join_template(
        &self,
        room_id: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, RoomError> {
        let (room_id, user, versions) = (room_id.to_owned(), user.to_owned(), versions.to_vec());
        let (config, ts) = (self.inner.config.clone(), self.inner.time.now_ms());
        // Numbers are taken, which only a write may.
        let write = self.inner.store.write(Vec::new(), move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(Err(RoomError::UnknownRoom)) };
            if tx.rooms().tip(room.num)?.is_none_or(|tip| tip.joined_local == 0) {
                return Ok(Err(RoomError::UnknownRoom));
            }
            if !versions.contains(&room.version) {
                return Ok(Err(RoomError::UnsupportedVersion(room.version.clone())));
            }
            let mut appender = Appender::at_tip(tx, room.clone(), &config)?;
            if appender.membership(&user)? == Some(hearth_store::Membership::Join) {
                // Who is in may say so again: his server has lost the room.
                let draft =
                    hearth_matrix::Draft::state("m.room.member", user.as_str(), member_content::bare("join", None));
                let submission = Submission { sender: user.clone(), draft, txn: None, ts, opaque: "template".into() };
                return appender.draft(submission);
            }
            match membership::join(&mut appender, &user, false, None, CanonicalJsonObject::new())? {
                Ok(Step::Send(sender, draft)) => {
                    appender.draft(Submission { sender, draft, txn: None, ts, opaque: "template".into() })
                }
                Ok(Step::Nothing | Step::Judged(_)) => Ok(Err(RoomError::Forbidden("You are in the room".into()))),
                Err(refusal) => Ok(Err(refusal)),
            }
        });
        let pdu = write.await??;
        let version = self.version_of(&pdu.room_id).await?;
        let event = template_of(&pdu).map_err(|error| RoomError::Store(error.to_string()))?;
        Ok(Template { version, event })
    }

    async fn version_of(&self, room_id: &RoomId) -> Result<RoomVersionId, RoomError> {
        let room_id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| Ok(tx.rooms().by_id(&room_id)?.map(|room| room.version.clone())));
        read.await?.ok_or(RoomError::UnknownRoom)
    }

    /// Lets a user of another server in (`send_join`): his join is judged like any event, at once.
    pub async fn welcome(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &str,
    ) -> Result<Welcomed, RoomError> {
        let version = self.version_of(room_id).await?;
        let rules = rules(&version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        let bad = |why: &str| RoomError::BadEvent(why.to_owned());
        let mut pdu = Pdu::from_remote(event, rules).map_err(|error| bad(&error.to_string()))?;
        if pdu.room_id != room_id || pdu.event_id != event_id {
            return Err(bad("the event is not the one that the path names"));
        }
        if &*pdu.kind != "m.room.member"
            || pdu.membership() != Some("join")
            || pdu.state_key.as_deref() != Some(pdu.sender.as_str())
            || pdu.sender.server_name() != origin
        {
            return Err(bad("the event is not the join of a user of the asking server"));
        }
        let needed = signatures::required(&pdu, rules).map_err(|error| bad(&error.to_string()))?;
        if needed.contains(&self.inner.config.server_name) {
            let signed = sign_event(&pdu.json, &self.inner.config.server_name, &self.inner.config.signing_key, rules)
                .map_err(|error| bad(&error.to_string()))?;
            pdu = Pdu::from_remote(&signed, rules).map_err(|error| bad(&error.to_string()))?;
        }
        let pdu = Arc::new(pdu);
        let Some(neighbours) = self.inner.inbound.neighbours.get() else {
            return Err(RoomError::Remote(pdu.sender.to_string()));
        };
        if let Some(Err(error)) =
            check::check(&**neighbours, std::slice::from_ref(&pdu), rules).await.into_iter().next()
        {
            return Err(RoomError::Forbidden(error.to_string()));
        }
        let arrival = Arrival { outbound: true, ..Arrival::of(pdu.clone()) };
        let verdicts = self.judge(room_id, vec![arrival]).await?;
        match verdicts.into_iter().next() {
            Some(Verdict::Accepted | Verdict::Known) => {}
            Some(Verdict::Rejected(reason) | Verdict::SoftFailed(reason)) => return Err(RoomError::Forbidden(reason)),
            Some(Verdict::Missing { .. }) | None => return Err(bad("the event names others that are not here")),
        }
        let before = self.state_before(room_id, event_id).await?;
        Ok(Welcomed { event: pdu, before })
    }

    /// Comes into a room: by ourselves if a member of ours can let the user in, else through other servers, of which `servers`
    /// are said to be there. What has begun goes on also if nobody waits for it any more.
    pub async fn enter(
        &self,
        user: &UserId,
        room_id: &RoomId,
        guest: bool,
        content: CanonicalJsonObject,
        servers: Vec<OwnedServerName>,
    ) -> Result<(), RoomError> {
        let refusal = match self.join(user, room_id, guest, content.clone()).await {
            Err(refusal) if leads_elsewhere(&refusal) => refusal,
            outcome => return outcome,
        };
        let servers = self.ways_into(user, room_id, servers).await?;
        if servers.is_empty() || self.inner.inbound.neighbours.get().is_none() {
            return Err(refusal);
        }
        if guest {
            return Err(RoomError::GuestsForbidden);
        }
        let (rooms, user, room_id) = (self.clone(), user.to_owned(), room_id.to_owned());
        let joining = tokio::spawn(async move {
            let turn = rooms.inner.inbound.joining(&room_id);
            let _turn = turn.lock().await;
            // Somebody else of ours may have come in meanwhile.
            match rooms.join(&user, &room_id, false, content.clone()).await {
                Err(refusal) if leads_elsewhere(&refusal) => {
                    rooms.join_through(&user, &room_id, &servers, content).await
                }
                outcome => outcome,
            }
        });
        joining.await.map_err(|error| RoomError::Store(format!("the join ended: {error}")))?
    }

    /// Servers that may let a user into a room, the best first: who invited him, those that are named, those that we know in
    /// the room, and the one that the room's id names.
    async fn ways_into(
        &self,
        user: &UserId,
        room_id: &RoomId,
        named: Vec<OwnedServerName>,
    ) -> Result<Vec<OwnedServerName>, RoomError> {
        let (user, id) = (user.to_owned(), room_id.to_owned());
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&id)? else { return Ok((None, Vec::new())) };
            let inviter = match tx.string_num(user.as_str())? {
                Some(user) => tx.members().current(room.num, user)?,
                None => None,
            };
            let inviter = match inviter.filter(|row| row.membership == Membership::Invite) {
                Some(row) => Some(tx.string(row.sender)?),
                None => None,
            };
            Ok((inviter, tx.rooms().servers(room.num, SERVERS as i64)?))
        });
        let (inviter, known) = read.await?;
        let inviter =
            inviter.and_then(|user| <&UserId>::try_from(&*user).ok().map(|user| user.server_name().to_owned()));
        let known = known.iter().filter_map(|name| ServerName::parse(&**name).ok());
        let of_id = room_id.server_name().map(ToOwned::to_owned);
        let mut ways: Vec<OwnedServerName> = Vec::new();
        for server in inviter.into_iter().chain(named).chain(known).chain(of_id) {
            if server != self.inner.config.server_name && !ways.contains(&server) {
                ways.push(server);
            }
        }
        Ok(ways)
    }

    /// Comes into a room that we are not in, through servers that are. The first that lets the user in is enough.
    pub async fn join_through(
        &self,
        user: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        content: CanonicalJsonObject,
    ) -> Result<(), RoomError> {
        let Some(neighbours) = self.inner.inbound.neighbours.get() else {
            return Err(RoomError::Remote(room_id.to_string()));
        };
        let mut refusal = RoomError::UnknownRoom;
        let content = self.join_content(user, content).await?;
        for server in servers.iter().filter(|server| **server != self.inner.config.server_name).take(SERVERS) {
            let template = match neighbours.make_join(server, room_id, user, &SUPPORTED_VERSIONS).await {
                Ok(template) => template,
                Err(error) => {
                    refusal = worse(refusal, RoomError::by(server, error));
                    continue;
                }
            };
            let join = match self.completed(user, room_id, &template, &content) {
                Ok(join) => join,
                Err(error) => {
                    refusal = error;
                    continue;
                }
            };
            let answer = match neighbours.send_join(server, room_id, &join.event_id, join.json.to_string()).await {
                Ok(answer) => answer,
                Err(error) => {
                    refusal = worse(refusal, RoomError::by(server, error));
                    continue;
                }
            };
            match self.move_in(server, template.version, join, answer).await {
                Ok(()) => return Ok(()),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    }

    async fn join_content(
        &self,
        user: &UserId,
        mut content: CanonicalJsonObject,
    ) -> Result<CanonicalJsonObject, RoomError> {
        let user = user.to_owned();
        content.extend(member_content::bare("join", None));
        let read = self.inner.store.read(move |tx| {
            let mut content = content.clone();
            member_content::add_profile(tx, &mut content, &user)?;
            Ok(content)
        });
        Ok(read.await?)
    }

    /// The join that a template makes, if it is what was asked for.
    fn completed(
        &self,
        user: &UserId,
        room_id: &RoomId,
        template: &Template,
        content: &CanonicalJsonObject,
    ) -> Result<Pdu, RoomError> {
        let rules = rules(&template.version).ok_or_else(|| RoomError::UnsupportedVersion(template.version.clone()))?;
        let completion = Completion {
            content,
            origin_server_ts: self.inner.time.now_ms(),
            server_name: &self.inner.config.server_name,
            key: &self.inner.config.signing_key,
            opaque: &self.inner.chance.letters(18),
        };
        let join = complete(&template.event, &completion, rules)
            .map_err(|error| RoomError::BadEvent(format!("the other server's template: {error}")))?;
        if join.room_id != room_id
            || join.sender != user
            || !join.is_state("m.room.member", user.as_str())
            || join.membership() != Some("join")
        {
            return Err(RoomError::BadEvent("the other server's template is not what was asked for".into()));
        }
        Ok(join)
    }

    /// Installs the room that an answer brings. Into one that we are in already only the join comes.
    async fn move_in(
        &self,
        server: &ServerName,
        version: RoomVersionId,
        join: Pdu,
        answer: JoinAnswer,
    ) -> Result<(), RoomError> {
        let rules = rules(&version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        let signed = match &answer.event {
            Some(event) => Pdu::from_remote(event, rules).ok().filter(|signed| signed.event_id == join.event_id),
            None => None,
        };
        let join = Arc::new(signed.unwrap_or(join));
        let room_id = join.room_id.clone();
        let resident = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(false) };
            Ok(tx.rooms().tip(room.num)?.is_some_and(|tip| tip.joined_local > 0))
        });
        if resident.await? {
            return self.take_in(server, join).await;
        }
        self.install(version, join, answer.state, answer.auth_chain).await
    }

    /// A join that another server let pass comes into a room of ours, with what comes before it.
    async fn take_in(&self, server: &ServerName, join: Arc<Pdu>) -> Result<(), RoomError> {
        let verdicts = self.judge(&join.room_id, vec![Arrival::of(join.clone())]).await?;
        match verdicts.into_iter().next() {
            Some(Verdict::Accepted | Verdict::Known) => return Ok(()),
            Some(Verdict::Rejected(reason) | Verdict::SoftFailed(reason)) => return Err(RoomError::Forbidden(reason)),
            Some(Verdict::Missing { .. }) | None => {}
        }
        // The worker of the room fetches what is missing; it tells nobody when it is done.
        self.receive(server, &[join.json.to_string()]).await?;
        for _ in 0..LOOKS {
            tokio::time::sleep(LOOK_AGAIN).await;
            if let Some((_, standing)) = self.event(&join.room_id, &join.event_id).await? {
                match standing {
                    Standing::Live => return Ok(()),
                    Standing::Rejected | Standing::SoftFailed => break,
                    _ => {}
                }
            }
        }
        Err(RoomError::Unreachable("the events before the join could not be fetched".into()))
    }

    /// Nobody else moves into this room meanwhile.
    pub(super) fn moving_into(room_id: &OwnedRoomId) -> Vec<Noun> {
        vec![Noun::Name(format!("move into {room_id}"))]
    }
}

/// Whether other servers may let a user in whom we can't.
fn leads_elsewhere(refusal: &RoomError) -> bool {
    matches!(refusal, RoomError::UnknownRoom | RoomError::UnableToGrantJoin | RoomError::UnableToAuthoriseJoin)
}

/// What a user hears of two servers that did not let him in: rather what one said than that another is not there.
fn worse(before: RoomError, now: RoomError) -> RoomError {
    match (&before, &now) {
        (RoomError::RefusedBy { .. }, RoomError::Unreachable(_)) => before,
        _ => now,
    }
}

impl Appender<'_, '_> {
    /// Seals a draft at the tip as `admit` does, and writes nothing.
    fn draft(mut self, submission: Submission) -> Result<Result<Arc<Pdu>, RoomError>, StoreError> {
        // Not at the tip's many branches, but at some that an event may name.
        self.tip.extremities.truncate(crate::append::PREV_EVENTS);
        self.extremity_ids.truncate(crate::append::PREV_EVENTS);
        match self.admit(submission)? {
            Ok(event_id) => match self.pending.iter().find(|pending| pending.pdu.event_id == event_id) {
                Some(pending) => Ok(Ok(pending.pdu.clone())),
                None => Ok(Err(RoomError::Forbidden("You are in the room".into()))),
            },
            Err(refusal) => Ok(Err(refusal)),
        }
    }
}
