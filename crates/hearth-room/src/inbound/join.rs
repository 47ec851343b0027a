//! The handshake of a join, on both sides: the resident server drafts and lets in, the joining server signs and moves in.
//!
//! Spec: server-server API, "Joining Rooms"; room version 8, "Restricted rooms".

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::policy_server::{POLICY_EVENT, PolicyServer};
use hearth_matrix::ruma::{
    CanonicalJsonObject, EventId, OwnedRoomId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId,
};
use hearth_matrix::signatures::{countersigned, required};
use hearth_matrix::{Draft, Pdu, RoomVersionRules, SUPPORTED_VERSIONS, rules};
use hearth_store::{Membership, Noun, Standing};

use super::asking::Answers;
use super::handshake::Submitted;
use super::{Arrival, JoinAnswer, StateBefore, Template, Verdict};
use crate::turn::Step;
use crate::{RoomError, Rooms, member_content, membership};

/// How often, and how many times, it is looked whether a join has come in that lacked events before it.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
const LOOKS: u32 = 400;

/// A user of another server who was let in.
#[derive(Clone, Debug)]
pub struct Welcomed {
    /// The join, with our signature if it needed that.
    pub event: Arc<Pdu>,
    /// The state before it, or the part that was asked for.
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
        let draft = self.template(room_id, user, Some(versions), |appender, user| {
            if appender.membership(user)? == Some(Membership::Join) {
                // Who is in may say so again: his server has lost the room.
                return Ok(Ok(Draft::state("m.room.member", user.as_str(), member_content::bare("join", None))));
            }
            match membership::join(appender, user, false, None, CanonicalJsonObject::new())? {
                Ok(Step::Send(_, draft)) => Ok(Ok(draft)),
                Ok(Step::Nothing | Step::Stands(_) | Step::Judged(_)) => {
                    Ok(Err(RoomError::Forbidden("You are in the room".into())))
                }
                Err(refusal) => Ok(Err(refusal)),
            }
        });
        draft.await
    }

    /// Lets a user of another server in (`send_join`): his join is judged like any event, at once.
    pub async fn welcome(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &str,
        omit_members: bool,
    ) -> Result<Welcomed, RoomError> {
        let submitted = Submitted { origin, room_id, event_id, event, membership: "join" };
        let pdu = self.take_submitted(submitted).await?;
        let before = match omit_members {
            true => self.part_before(room_id, event_id).await?,
            false => self.state_before(room_id, event_id).await?,
        };
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
        let servers = self.ways_in(user, room_id, &servers).await?;
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
        let content = self.own_content(user, "join", None, content).await?;
        let servers = self.in_order(&**neighbours, servers).await;
        let (asked, room, joining) = (neighbours.clone(), room_id.to_owned(), user.to_owned());
        let mut drafts = Answers::of(servers, move |server| {
            let (neighbours, room_id, user) = (asked.clone(), room.clone(), joining.clone());
            Box::pin(async move { neighbours.make_join(&server, &room_id, &user, &SUPPORTED_VERSIONS).await })
        });
        while let Some((server, template)) = drafts.next().await {
            let template = match template {
                Ok(template) => template,
                Err(error) => {
                    refusal = worse(refusal, RoomError::by(&server, error));
                    continue;
                }
            };
            let join = match self.completed(user, room_id, &template, "join", &content) {
                Ok(join) => join,
                Err(error) => {
                    refusal = error;
                    continue;
                }
            };
            let answer = match neighbours.send_join(&server, room_id, &join.event_id, join.json.to_string()).await {
                Ok(answer) => answer,
                Err(error) => {
                    refusal = worse(refusal, RoomError::by(&server, error));
                    continue;
                }
            };
            match self.move_in(&server, template.version, join, answer).await {
                Ok(()) => return Ok(()),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
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
        let join = Arc::new(with_signatures(join, &answer, rules));
        if self.is_resident(&join.room_id).await? {
            return self.take_in(server, join).await;
        }
        self.install(server, version, join, answer).await
    }

    /// A join that another server let pass comes into a room of ours, with what comes before it.
    async fn take_in(&self, server: &ServerName, join: Arc<Pdu>) -> Result<(), RoomError> {
        let (join, verdict) = self.judge_asking(&join.room_id, Arrival::of(join.clone())).await?;
        match verdict {
            Some(Verdict::Accepted | Verdict::Known) => return Ok(()),
            Some(Verdict::Rejected(reason) | Verdict::SoftFailed(reason)) => return Err(RoomError::Forbidden(reason)),
            Some(Verdict::Missing { .. } | Verdict::Unplaced | Verdict::Unsigned(_)) | None => {}
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

/// Our join with the signatures that it got there: of the server that vouches for the user, and of the room's policy server.
/// Nothing else of the copy is taken: in room versions 1 and 2 another event may have the same id.
fn with_signatures(join: Pdu, answer: &JoinAnswer, rules: &'static RoomVersionRules) -> Pdu {
    let Some(copy) = &answer.event else { return join };
    let mut signed = join.json.to_string();
    for server in required(&join, rules).unwrap_or_default() {
        if server != join.sender.server_name() {
            signed = countersigned(&signed, copy, &server).unwrap_or(signed);
        }
    }
    let vouched = Pdu::from_remote(&signed, rules).unwrap_or(join);
    let policy = answer.state.iter().filter(|json| json.contains(POLICY_EVENT)).find_map(|json| {
        let event = Pdu::from_remote(json, rules).ok().filter(|event| event.is_state(POLICY_EVENT, ""))?;
        PolicyServer::from_content(event.content.get())
    });
    let of_policy_server = policy.and_then(|policy| {
        let signed = Pdu::from_remote(&policy.countersigned(&vouched.json, copy)?, rules).ok()?;
        policy.has_signed(&signed, rules).then_some(signed)
    });
    of_policy_server.unwrap_or(vouched)
}

/// Whether other servers may let a user in whom we can't.
fn leads_elsewhere(refusal: &RoomError) -> bool {
    matches!(refusal, RoomError::UnknownRoom | RoomError::UnableToGrantJoin | RoomError::UnableToAuthoriseJoin)
}

/// What a user hears of two servers that did not let him in: rather what one said than that another is not there.
pub(super) fn worse(before: RoomError, now: RoomError) -> RoomError {
    match (&before, &now) {
        (RoomError::RefusedBy { .. }, RoomError::Unreachable(_)) => before,
        _ => now,
    }
}
