//! What the handshakes of joining, leaving and knocking have in common: one server drafts a member event for another, which
//! signs and submits it.
//!
//! Spec: server-server API, "Joining Rooms", "Leaving Rooms (Rejecting Invites)", "Knocking upon a room".

use std::sync::Arc;

use hearth_matrix::ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedUserId, RoomId, RoomVersionId, ServerName, UserId,
};
use hearth_matrix::signatures::sign_event;
use hearth_matrix::{Completion, Draft, Pdu, complete, member_template, rules, template_of};
use hearth_store::{RoomRecord, Standing};

use super::receive::standing_of;
use super::signatures as check;
use super::{Arrival, Template, Verdict};
use crate::append::{Appender, Decision, PREV_EVENTS, Submission};
use crate::{RoomError, Rooms, member_content, membership};

/// A member event that another server submits.
#[derive(Clone, Copy)]
pub(super) struct Submitted<'a> {
    pub(super) origin: &'a ServerName,
    pub(super) room_id: &'a RoomId,
    pub(super) event_id: &'a EventId,
    pub(super) event: &'a str,
    /// What it must say.
    pub(super) membership: &'static str,
}

impl Rooms {
    /// Drafts a member event for a user of another server. Nothing is written.
    pub(super) async fn template(
        &self,
        room_id: &RoomId,
        user: &UserId,
        versions: Option<&[RoomVersionId]>,
        plan: impl Fn(&mut Appender<'_, '_>, &OwnedUserId) -> Decision<Draft> + Send + 'static,
    ) -> Result<Template, RoomError> {
        let (room_id, user, versions) = (room_id.to_owned(), user.to_owned(), versions.map(<[_]>::to_vec));
        let (config, ts) = (self.inner.config.clone(), self.inner.time.now_ms());
        // Numbers are taken, which only a write may.
        let write = self.inner.store.write(Vec::new(), move |tx| {
            let Some((room, acl)) = standing_of(tx, &room_id)? else { return Ok(Err(RoomError::UnknownRoom)) };
            if acl.is_some_and(|acl| !acl.allows(user.server_name())) {
                return Ok(Err(shut_out(user.server_name())));
            }
            if versions.as_ref().is_some_and(|versions| !versions.contains(&room.version)) {
                return Ok(Err(RoomError::UnsupportedVersion(room.version.clone())));
            }
            let mut appender = Appender::at_tip(tx, room.clone(), &config)?;
            if appender.tip.partial && versions.is_some() {
                return Ok(Err(RoomError::UnknownRoom));
            }
            let draft = match plan(&mut appender, &user)? {
                Ok(draft) => draft,
                Err(refusal) => return Ok(Err(refusal)),
            };
            let submission =
                Submission { sender: user.clone(), draft, txn: None, ts, opaque: "template".into(), again: true };
            Ok(appender.draft(submission)?.map(|pdu| (room.version.clone(), pdu)))
        });
        let (version, pdu) = write.await??;
        let event = template_of(&pdu).map_err(|error| RoomError::Store(error.to_string()))?;
        Ok(Template { version, event })
    }

    /// Takes a member event that another server made of our template: judged like any event, at once, and durable when this
    /// returns.
    pub(super) async fn take_submitted(&self, submitted: Submitted<'_>) -> Result<Arc<Pdu>, RoomError> {
        let Submitted { origin, room_id, event_id, event, membership } = submitted;
        let asked = room_id.to_owned();
        let room = self.inner.store.read(move |tx| {
            let Some((room, acl)) = standing_of(tx, &asked)? else { return Ok(None) };
            let partial = tx.rooms().tip(room.num)?.is_some_and(|tip| tip.partial);
            // Who comes in now could not be told what the room looks like.
            Ok((!partial || membership == "leave").then_some((room, acl)))
        });
        let Some((room, acl)) = room.await? else { return Err(RoomError::UnknownRoom) };
        if acl.is_some_and(|acl| !acl.allows(origin)) {
            return Err(shut_out(origin));
        }
        let bad = |why: &str| RoomError::InvalidParam(why.to_owned());
        let mut pdu = Pdu::from_remote(event, room.rules).map_err(|error| RoomError::BadEvent(error.to_string()))?;
        if pdu.room_id != room_id || pdu.event_id != event_id {
            return Err(bad("the event is not the one that the path names"));
        }
        if &*pdu.kind != "m.room.member"
            || pdu.membership() != Some(membership)
            || pdu.state_key.as_deref() != Some(pdu.sender.as_str())
            || pdu.sender.server_name() != origin
        {
            return Err(RoomError::InvalidParam(format!(
                "the event is no {membership} of a user of the asking server"
            )));
        }
        if let Some(voucher) = membership::voucher(&pdu, room.rules)
            && voucher.server_name() == self.inner.config.server_name
        {
            self.check_vouched(&room, &pdu.sender, voucher).await?;
            let config = &self.inner.config;
            let signed = sign_event(&pdu.json, &config.server_name, &config.signing_key.get(), room.rules)
                .map_err(|error| bad(&error.to_string()))?;
            pdu = Pdu::from_remote(&signed, room.rules).map_err(|error| bad(&error.to_string()))?;
        }
        let pdu = Arc::new(pdu);
        let Some(neighbours) = self.inner.inbound.neighbours.get() else {
            return Err(RoomError::Remote(pdu.sender.to_string()));
        };
        let outcome = check::check(&**neighbours, std::slice::from_ref(&pdu), room.rules).await;
        if let Some(Err(error)) = outcome.into_iter().next() {
            return Err(bad(&error.to_string()));
        }
        self.judge_now(room_id, pdu).await
    }

    /// Our signature under a join says that the user meets the conditions of a restricted room: they may have changed since we
    /// drafted it, and who submits it need not have asked for a draft at all.
    async fn check_vouched(
        &self,
        room: &Arc<RoomRecord>,
        user: &UserId,
        voucher: OwnedUserId,
    ) -> Result<(), RoomError> {
        let (room, user, config) = (room.clone(), user.to_owned(), self.inner.config.clone());
        let read = self.inner.store.read(move |tx| {
            let mut appender = Appender::at_tip(tx, room.clone(), &config)?;
            membership::may_vouch(&mut appender, &user, &voucher)
        });
        read.await?
    }

    /// Judges one event that is to stand, and that is for us to send on: any other outcome is a refusal. What comes back has the
    /// signature of the room's policy server, if that was asked.
    pub(super) async fn judge_now(&self, room_id: &RoomId, pdu: Arc<Pdu>) -> Result<Arc<Pdu>, RoomError> {
        let arrival = Arrival { outbound: true, ..Arrival::of(pdu) };
        let (pdu, verdict) = self.judge_asking(room_id, arrival).await?;
        match verdict {
            Some(Verdict::Accepted) => {
                // What waited for it is staged.
                self.wake_worker(room_id.to_owned());
                Ok(pdu)
            }
            Some(Verdict::Known) => match self.event(room_id, &pdu.event_id).await? {
                Some((_, Standing::Live | Standing::Partial)) => Ok(pdu),
                _ => Err(RoomError::Forbidden("the room does not allow this event".into())),
            },
            Some(Verdict::Rejected(reason) | Verdict::SoftFailed(reason)) => Err(RoomError::Forbidden(reason)),
            Some(Verdict::Missing { .. } | Verdict::Unplaced | Verdict::Unsigned(_)) | None => {
                Err(RoomError::InvalidParam("the event names others that are not here".into()))
            }
        }
    }

    /// The member event that a template makes, if it is what was asked for.
    pub(super) fn completed(
        &self,
        user: &UserId,
        room_id: &RoomId,
        template: &Template,
        membership: &str,
        content: &CanonicalJsonObject,
    ) -> Result<Pdu, RoomError> {
        let rules = rules(&template.version).ok_or_else(|| RoomError::UnsupportedVersion(template.version.clone()))?;
        let completion = Completion {
            content,
            origin_server_ts: self.inner.time.now_ms(),
            server_name: &self.inner.config.server_name,
            key: &self.inner.config.signing_key.get(),
            opaque: &self.inner.chance.letters(18),
        };
        let bad = |error: &dyn std::fmt::Display| RoomError::BadEvent(format!("the other server's template: {error}"));
        let drafted = member_template(&template.event).map_err(|error| bad(&error))?;
        let event = complete(&drafted, &completion, rules).map_err(|error| bad(&error))?;
        if event.room_id != room_id
            || event.sender != user
            || !event.is_state("m.room.member", user.as_str())
            || event.membership() != Some(membership)
        {
            return Err(RoomError::BadEvent("the other server's template is not what was asked for".into()));
        }
        Ok(event)
    }

    /// The content of a member event of a user of ours, with his profile.
    pub(super) async fn own_content(
        &self,
        user: &UserId,
        membership: &'static str,
        reason: Option<String>,
        mut content: CanonicalJsonObject,
    ) -> Result<CanonicalJsonObject, RoomError> {
        let user = user.to_owned();
        content.extend(member_content::bare(membership, reason.as_deref()));
        let read = self.inner.store.read(move |tx| {
            let mut content = content.clone();
            member_content::add_profile(tx, &mut content, &user)?;
            Ok(content)
        });
        Ok(read.await?)
    }
}

pub(super) fn shut_out(server: &ServerName) -> RoomError {
    RoomError::Forbidden(format!("{server} is shut out by the room's server ACL"))
}

impl Appender<'_, '_> {
    /// Seals a draft at the tip as `admit` does, and writes nothing.
    pub(super) fn draft(&mut self, submission: Submission) -> Decision<Arc<Pdu>> {
        let stands = |_| RoomError::Forbidden("this stands already".into());
        Ok(self.sealed(submission)?.and_then(|sealed| sealed.map_err(stands)))
    }

    /// The same: the event, or the id of the one that stands already.
    pub(crate) fn sealed(&mut self, submission: Submission) -> Decision<Result<Arc<Pdu>, OwnedEventId>> {
        // Not at the tip's many branches, but at some that an event may name.
        self.tip.extremities.truncate(PREV_EVENTS);
        self.extremity_ids.truncate(PREV_EVENTS);
        Ok(match self.admit(submission)? {
            Ok(event_id) => match self.pending.iter().find(|pending| pending.pdu.event_id == event_id) {
                Some(pending) => Ok(Ok(pending.pdu.clone())),
                None => Ok(Err(event_id)),
            },
            Err(refusal) => Err(refusal),
        })
    }
}
