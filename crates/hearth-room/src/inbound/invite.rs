//! Invites between servers. The server of who is invited signs the invite before it comes into the room: what it refuses has
//! never been.
//!
//! Spec: server-server API, "Inviting to a room"; client-server API, "Invite permission".

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::hash::is_intact;
use hearth_matrix::policy_server::PolicyServer;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use hearth_matrix::signatures::{VerifyError, countersigned, sign_event};
use hearth_matrix::{Draft, Pdu, RoomVersionRules, rules};
use hearth_store::{Membership, StoreError, Tx};
use tokio::task::JoinSet;

use super::elsewhere::{Hearsay, Told};
use super::handshake::shut_out;
use super::receive::standing_of;
use super::{Invitation, signatures};
use crate::append::{Appender, Decision, Submission};
use crate::policy::Asker;
use crate::turn::Step;
use crate::{RoomError, Rooms, membership, stripped};

/// Pieces of state that may be told of a room.
pub(super) const STATE: usize = 100;
/// Rooms elsewhere that a user may be invited to at once.
const INVITES: i64 = 1_000;
/// Invites of a new room that are on their way at once.
const SENT_AT_ONCE: usize = 8;
/// How long the creator of a room waits for other servers to hear of his invites.
const PATIENCE: Duration = Duration::from_secs(20);

/// An invite to a user of another server, of which nothing is written yet.
struct SealedInvite {
    invite: Arc<Pdu>,
    invitation: Invitation,
    /// Who is to sign it first.
    policy: Option<PolicyServer>,
}

impl Rooms {
    /// Invites a user of another server: an event is made, signed by his server, and only then comes into the room. The room's
    /// turn does not wait for that.
    pub(crate) async fn invite_elsewhere(
        &self,
        room_id: &RoomId,
        ts: Option<i64>,
        plan: impl Fn(&mut Appender<'_, '_>) -> Decision<Step> + Send + 'static,
    ) -> Result<OwnedEventId, RoomError> {
        let SealedInvite { mut invite, mut invitation, policy } = self.sealed_invite(room_id, ts, plan).await?;
        let target = invite.state_key.as_deref().and_then(|target| OwnedUserId::try_from(target).ok());
        let Some(target) = target else {
            return Err(RoomError::BadEvent("an invite is for a user".into()));
        };
        let Some(neighbours) = self.inner.inbound.neighbours.get() else {
            return Err(RoomError::Remote(target.to_string()));
        };
        let server = target.server_name();
        let broken =
            |error: &dyn std::fmt::Display| RoomError::Unreachable(format!("{server} signs no invite: {error}"));
        let Some(rules) = rules(&invitation.version) else {
            return Err(RoomError::UnsupportedVersion(invitation.version));
        };
        if let Some(policy) = policy {
            // Before anybody else hears of it.
            let signed = self.ask_policy_server(&policy, &invite, rules, Asker::Person).await;
            invite = signed.map_err(|error| error.into_error(policy.via))?;
            invitation.event = invite.json.to_string();
        }
        let answer = neighbours.invite(server, &invitation).await;
        let answer = answer.map_err(|error| RoomError::by(server, error))?;
        let signed = countersigned(&invite.json, &answer, server).map_err(|error| broken(&error))?;
        let signed = Arc::new(Pdu::from_remote(&signed, rules).map_err(|error| broken(&error))?);
        signatures::check_signature_of(&**neighbours, &signed, server, rules).await.map_err(|error| broken(&error))?;
        Ok(self.judge_now(room_id, signed).await?.event_id.clone())
    }

    async fn sealed_invite(
        &self,
        room_id: &RoomId,
        ts: Option<i64>,
        plan: impl Fn(&mut Appender<'_, '_>) -> Decision<Step> + Send + 'static,
    ) -> Result<SealedInvite, RoomError> {
        let (room_id, config) = (room_id.to_owned(), self.inner.config.clone());
        let (ts, opaque) = (ts.unwrap_or_else(|| self.inner.time.now_ms()), self.inner.chance.letters(18));
        // Numbers are taken, which only a write may.
        let write = self.inner.store.write(Vec::new(), move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(Err(RoomError::UnknownRoom)) };
            let mut appender = Appender::at_tip(tx, room.clone(), &config)?;
            let (sender, draft) = match plan(&mut appender)? {
                Ok(Step::Send(sender, draft)) => (sender, draft),
                Ok(Step::Nothing | Step::Stands(_) | Step::Judged(_)) => {
                    return Ok(Err(RoomError::Forbidden("this stands already".into())));
                }
                Err(refusal) => return Ok(Err(refusal)),
            };
            let policy = appender.policy_server()?;
            // Also somebody who is invited is invited anew: his server may have lost it.
            let submission = Submission { sender, draft, txn: None, ts, opaque: opaque.clone(), again: true };
            let invite = match appender.draft(submission)? {
                Ok(invite) => invite,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let room_state = stripped::federation_state(&mut appender, &invite)?;
            let invitation = Invitation {
                room_id: room.room_id.clone(),
                version: room.version.clone(),
                event_id: invite.event_id.clone(),
                event: invite.json.to_string(),
                room_state,
            };
            Ok(Ok(SealedInvite { invite, invitation, policy }))
        });
        write.await?
    }

    /// Sends the invites of a new room, and waits a little for them. Who can't be reached is not invited, and the room stands
    /// nevertheless.
    pub(crate) async fn invite_all(&self, room_id: &OwnedRoomId, sender: &OwnedUserId, drafts: Vec<Draft>) {
        if drafts.is_empty() {
            return;
        }
        let (rooms, room_id, sender) = (self.clone(), room_id.clone(), sender.clone());
        let sent = tokio::spawn(async move {
            let mut under_way = JoinSet::new();
            for draft in drafts {
                if under_way.len() >= SENT_AT_ONCE {
                    under_way.join_next().await;
                }
                let (rooms, room_id, sender) = (rooms.clone(), room_id.clone(), sender.clone());
                under_way.spawn(async move {
                    let plan = {
                        let (sender, draft) = (sender.clone(), draft.clone());
                        move |_: &mut Appender<'_, '_>| Ok(Ok(Step::Send(sender.clone(), draft.clone())))
                    };
                    if let Err(error) = rooms.invite_elsewhere(&room_id, None, plan).await {
                        let user = draft.state_key.as_deref().unwrap_or_default();
                        tracing::info!(%room_id, user, %error, "a user of another server was not invited to a new room");
                    }
                });
            }
            while under_way.join_next().await.is_some() {}
        });
        // What is still under way then goes on.
        let _ = tokio::time::timeout(PATIENCE, sent).await;
    }

    /// Takes an invite for a user of ours (`invite`): the invite with our signature, once it is durable.
    pub async fn take_invite(&self, origin: &ServerName, invitation: &Invitation) -> Result<String, RoomError> {
        let Invitation { room_id, version, event_id, event, room_state } = invitation;
        let bad = |why: &str| RoomError::InvalidParam(why.to_owned());
        let rules = rules(version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        let invite = Pdu::from_remote(event, rules).map_err(|error| bad(&error.to_string()))?;
        if invite.room_id != *room_id || invite.event_id != *event_id || !is_intact(event) {
            return Err(bad("the event is not the one that the path names"));
        }
        let target = match invite.state_pair() {
            Some(("m.room.member", target)) => OwnedUserId::try_from(target).ok(),
            _ => None,
        };
        let target = target.filter(|target| self.is_local(target)).ok_or_else(|| bad("this is for no user of ours"))?;
        if invite.membership() != Some("invite") || invite.sender.server_name() != origin {
            return Err(bad("this is no invite by a user of the asking server"));
        }
        let invite = Arc::new(invite);
        let Some(neighbours) = self.inner.inbound.neighbours.get() else {
            return Err(RoomError::Remote(target.to_string()));
        };
        let proven = signatures::check(&**neighbours, std::slice::from_ref(&invite), rules).await;
        if let Some(Err(error)) = proven.into_iter().next() {
            return Err(bad(&error.to_string()));
        }
        let said = Hearsay::of(version, room_state, &invite.sender);
        let said = said.ok_or_else(|| bad("the room's m.room.create event is of another version"))?;
        self.check_room_state(&invite, rules, room_state)?;
        if !said.federate && said.creator.server_name() != self.inner.config.server_name {
            return Err(RoomError::Forbidden("the room is not open to other servers".into()));
        }
        let (asked, origin) = (room_id.clone(), origin.to_owned());
        let (user, of_version) = (target.clone(), version.clone());
        let read = self.inner.store.read(move |tx| {
            if let Some((room, acl)) = standing_of(tx, &asked)? {
                if acl.is_some_and(|acl| !acl.allows(&origin)) {
                    return Ok(Err(shut_out(&origin)));
                }
                if room.version != of_version {
                    return Ok(Err(RoomError::InvalidParam("the room is of another version".into())));
                }
                let row = match tx.string_num(user.as_str())? {
                    Some(user) => tx.members().current(room.num, user)?,
                    None => None,
                };
                if matches!(row.map(|row| row.membership), Some(Membership::Join | Membership::Ban)) {
                    return Ok(Err(RoomError::Forbidden(format!("{user} is in the room already, or banned from it"))));
                }
            }
            may_be_invited(tx, &user)
        });
        read.await??;
        let config = &self.inner.config;
        let signed = sign_event(&invite.json, &config.server_name, &config.signing_key.get(), rules)
            .map_err(|error| bad(&error.to_string()))?;
        let told = Told {
            room_id: room_id.clone(),
            room: Some(said),
            user: target,
            membership: Membership::Invite,
            event_id: Some(invite.event_id.clone()),
            sender: invite.sender.clone(),
            stripped: Some(stripped::told(room_state, Some(&invite), rules)),
            via: invite.sender.server_name().to_owned(),
            instead_of: None,
        };
        self.note_elsewhere(told).await?;
        Ok(signed)
    }

    /// What is told of a room with an invite must be of this room; from room version 12 on with its create event.
    fn check_room_state(
        &self,
        invite: &Pdu,
        rules: &'static RoomVersionRules,
        room_state: &[String],
    ) -> Result<(), RoomError> {
        let bad = |why: &str| Err(RoomError::InvalidParam(format!("invite_room_state: {why}")));
        if room_state.len() > STATE {
            return bad("too many events");
        }
        if let Some(fault) = room_state.iter().find_map(|json| self.fault_of(json, &invite.room_id, rules)) {
            return bad(&fault);
        }
        let is_create = |json: &String| Pdu::from_remote(json, rules).is_ok_and(|it| it.is_state("m.room.create", ""));
        if rules.authorization.room_create_event_id_as_room_id && !room_state.iter().any(is_create) {
            return bad("the m.room.create event is missing");
        }
        Ok(())
    }

    /// What is wrong with an event that is told of a room that we are not in: it must be of this room. From room version 12 on it
    /// must be whole, a create event the one whose hash is the room's id, and signed, as far as we know the keys.
    pub(super) fn fault_of(&self, json: &str, room_id: &RoomId, rules: &'static RoomVersionRules) -> Option<String> {
        #[derive(serde::Deserialize)]
        struct Named {
            room_id: Option<OwnedRoomId>,
        }
        let elsewhere = || Some("an event is of another room".to_owned());
        if !rules.authorization.room_create_event_id_as_room_id {
            let named = serde_json::from_str::<Named>(json);
            return if named.is_ok_and(|it| it.room_id.is_none_or(|id| id == room_id)) { None } else { elsewhere() };
        }
        let event = match Pdu::from_remote(json, rules) {
            Ok(event) if event.room_id == room_id => Arc::new(event),
            Ok(_) => return elsewhere(),
            Err(error) => return Some(error.to_string()),
        };
        let neighbours = self.inner.inbound.neighbours.get()?;
        match signatures::check_one_at_hand(&**neighbours, event, rules) {
            Ok(()) | Err(VerifyError::UnknownKey(_)) => None,
            Err(error) => Some(error.to_string()),
        }
    }
}

/// Whether anybody may invite a user of ours.
fn may_be_invited(tx: &mut Tx<'_>, user: &UserId) -> Result<Result<(), RoomError>, StoreError> {
    let account =
        tx.accounts().by_id(user.as_str())?.filter(|account| !account.state.deactivated && !account.state.locked);
    let Some(account) = account else {
        return Ok(Err(RoomError::Forbidden(format!("{user} cannot be invited"))));
    };
    if membership::blocks_invites(tx, user)? {
        return Ok(Err(RoomError::InviteBlocked(user.to_owned())));
    }
    if tx.members().invites_elsewhere(account.user)? >= INVITES {
        return Ok(Err(RoomError::Forbidden(format!("{user} has too many invites already"))));
    }
    Ok(Ok(()))
}
