//! Invites between servers. The server of who is invited signs the invite before it comes into the room: what it refuses has
//! never been.
//!
//! Spec: server-server API, "Inviting to a room"; client-server API, "Invite permission".

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::hash::is_intact;
use hearth_matrix::policy_server::PolicyServer;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId, ServerName, UserId};
use hearth_matrix::signatures::{VerifyError, countersigned, sign_event};
use hearth_matrix::{Draft, Pdu, RoomVersionRules, rules};
use hearth_store::{Membership, StoreError, Tx, UserNum};
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
/// Rooms elsewhere that a user may be invited to at once. All are told to each new client of his.
const INVITES: usize = 500;
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
            if !room.federate {
                return Ok(Err(RoomError::Forbidden("the room is for users of its own server alone".into())));
            }
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
        // Many signatures may be checked there, which is no work for a thread that serves others.
        let (rooms, about, state) = (self.clone(), invite.clone(), room_state.clone());
        let checked = tokio::task::spawn_blocking(move || rooms.check_room_state(&about, rules, &state)).await;
        checked.unwrap_or_else(|_| Err(bad("invite_room_state can't be read")))?;
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
            let Some(account) = invitee(tx, &user)? else {
                return Ok(Err(RoomError::Forbidden(format!("{user} cannot be invited"))));
            };
            if membership::blocks_invites(tx, &user)? {
                return Ok(Err(RoomError::InviteBlocked(user.clone())));
            }
            giving_way(tx, account).map(Ok)
        });
        for invite in read.await?? {
            self.give_up(&target, invite).await?;
        }
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

    /// An invite gives way to others: the user sees it no more. Its server is not told, so that he can still be let in by it.
    async fn give_up(&self, user: &UserId, invite: Pending) -> Result<(), RoomError> {
        let Pending { room_id, domain } = invite;
        tracing::info!(%user, %room_id, from = domain, "an invite gives way to others, of which there are too many");
        let told = Told {
            room_id,
            room: None,
            user: user.to_owned(),
            membership: Membership::Leave,
            event_id: None,
            sender: user.to_owned(),
            stripped: Some(self.unheard(user, None)),
            via: self.inner.config.server_name.clone(),
            instead_of: None,
        };
        self.note_elsewhere(told).await
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

/// An invite of a user of ours into a room elsewhere.
struct Pending {
    room_id: OwnedRoomId,
    /// Who is behind the server that told of it.
    domain: String,
}

/// The account of a user of ours who can be invited.
fn invitee(tx: &mut Tx<'_>, user: &UserId) -> Result<Option<UserNum>, StoreError> {
    let account = tx.accounts().by_id(user.as_str())?;
    Ok(account.filter(|account| !account.state.deactivated && !account.state.locked).map(|account| account.user))
}

/// Which invites give way to one more: of whoever has most of them the one that has waited longest. That servers are made up by
/// the hundred keeps no honest one out.
fn giving_way(tx: &mut Tx<'_>, user: UserNum) -> Result<Vec<Pending>, StoreError> {
    let invites = tx.members().invites_elsewhere(user)?;
    let too_many = (invites.len() + 1).saturating_sub(INVITES);
    if too_many == 0 {
        return Ok(Vec::new());
    }
    let mut pending = Vec::with_capacity(invites.len());
    for (room, server) in invites {
        let room_id = tx.rooms().by_num(room)?.room_id.clone();
        pending.push(Pending { room_id, domain: domain(&tx.string(server)?) });
    }
    Ok((0..too_many).filter_map(|_| oldest_of_most(&pending).map(|at| pending.remove(at))).collect())
}

fn oldest_of_most(pending: &[Pending]) -> Option<usize> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for invite in pending {
        *counts.entry(&invite.domain).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    pending.iter().position(|invite| counts.get(invite.domain.as_str()) == Some(&most))
}

/// Who is behind a server, nearly: whoever has a domain has all the names below it, and whoever has an address of the sixth version
/// has the network.
fn domain(server: &str) -> String {
    let host = <&ServerName>::try_from(server).map_or(server, ServerName::host);
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return match address {
            IpAddr::V4(_) => host.to_owned(),
            IpAddr::V6(address) => format!("{:x}", address.to_bits() >> 80),
        };
    }
    let start = host.rmatch_indices('.').nth(1).map_or(0, |(dot, _)| dot + 1);
    host[start..].to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_below_one_are_of_one() {
        for (server, of) in [
            ("example.org", "example.org"),
            ("matrix.Example.org:8448", "example.org"),
            ("a.b.c.example.org", "example.org"),
            ("localhost:8008", "localhost"),
            ("192.0.2.7:8448", "192.0.2.7"),
            ("[2001:db8:1::1]:8448", "20010db80001"),
            ("[2001:db8:1:2::1]", "20010db80001"),
        ] {
            assert_eq!(domain(server), of, "{server}");
        }
    }
}
