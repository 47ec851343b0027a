//! Sending events: messages, state, redactions.
//!
//! Spec: client-server API, "Sending events to a room".

use std::sync::Arc;

use hearth_matrix::Draft;
use hearth_matrix::ruma::{CanonicalJsonObject, CanonicalJsonValue, OwnedEventId, OwnedUserId, RoomId, UserId};
use hearth_store::{DeviceNum, Membership};

use crate::append::{Appender, Decision};
use crate::canonical_alias::{self, Followed};
use crate::turn::{Step, Work};
use crate::{RoomError, Rooms, annotations, guests, membership, power_levels};

/// A client's transaction: the same one again makes no second event.
#[derive(Clone, Debug)]
pub struct Txn {
    /// The device whose transaction it is.
    pub device: DeviceNum,
    /// Its id.
    pub txn_id: String,
}

impl Txn {
    fn parts(self) -> (DeviceNum, Arc<str>) {
        (self.device, self.txn_id.into())
    }
}

impl Rooms {
    /// Sends an event. State goes through [`set_state`](Self::set_state).
    pub async fn send(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        draft: Draft,
        txn: Option<Txn>,
        ts: Option<i64>,
    ) -> Result<OwnedEventId, RoomError> {
        let sender = sender.to_owned();
        let again = txn.clone().map(Txn::parts);
        self.submit(room_id, txn, ts, move |appender| {
            if let Err(refusal) = known_member(appender, &sender)? {
                return Ok(Err(refusal));
            }
            if annotations::is_duplicate(appender, &sender, &draft)? {
                // A retry is no second annotation.
                let retried = match &again {
                    Some((device, txn_id)) => appender.of_txn(*device, txn_id, &draft)?.is_some(),
                    None => false,
                };
                if !retried {
                    return Ok(Err(RoomError::DuplicateAnnotation));
                }
            }
            Ok(Ok(Step::Send(sender.clone(), draft.clone())))
        })
        .await
    }

    /// Redacts an event.
    pub async fn redact(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        event_id: &hearth_matrix::ruma::EventId,
        reason: Option<String>,
        txn: Option<Txn>,
    ) -> Result<OwnedEventId, RoomError> {
        let mut content = CanonicalJsonObject::new();
        if let Some(reason) = reason {
            content.insert("reason".into(), CanonicalJsonValue::String(reason));
        }
        let draft = Draft { redacts: Some(event_id.to_owned()), ..Draft::message("m.room.redaction", content) };
        self.send(sender, room_id, draft, txn, None).await
    }

    /// Sets a piece of state. Member events are judged like the endpoints that are made for them.
    pub async fn set_state(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        draft: Draft,
        ts: Option<i64>,
    ) -> Result<OwnedEventId, RoomError> {
        if let Some(target) = membership::invites(&draft).filter(|target| !self.is_local(target)) {
            return self.invite_elsewhere_by(sender, room_id, &target, draft, ts).await;
        }
        let sender = sender.to_owned();
        let server_name = self.inner.config.server_name.clone();
        let turns_guests_out = guests::turns_guests_out(&draft);
        let followed = match draft.kind.as_str() {
            "m.room.canonical_alias" => self.follow_aliases(room_id, &sender, &draft.content).await?,
            _ => Followed::default(),
        };
        let sent = self.submit(room_id, None, ts, move |appender| {
            let own_entry = draft.kind == "m.room.member" && draft.state_key.as_deref() == Some(sender.as_str());
            if !own_entry && let Err(refusal) = known_member(appender, &sender)? {
                return Ok(Err(refusal));
            }
            match draft.kind.as_str() {
                "m.room.create" => {
                    return Ok(Err(RoomError::InvalidParam("A room has one m.room.create event".into())));
                }
                "m.room.canonical_alias" => {
                    if let Err(refusal) = canonical_alias::check(appender, &draft.content, &server_name, &followed)? {
                        return Ok(Err(refusal));
                    }
                }
                "m.room.power_levels" => {
                    if let Err(reason) = power_levels::check(&draft.content, appender.room_rules()) {
                        return Ok(Err(RoomError::BadEvent(reason)));
                    }
                    if let Err(refusal) = check_creators(appender, &draft.content)? {
                        return Ok(Err(refusal));
                    }
                }
                "m.room.member" => return membership::state_step(appender, &sender, &draft),
                _ => {}
            }
            Ok(Ok(Step::Send(sender.clone(), draft.clone())))
        });
        let event_id = sent.await?;
        if turns_guests_out {
            self.turn_guests_out(room_id).await?;
        }
        Ok(event_id)
    }

    /// An invite to a user of another server that a client wrote as plain state.
    async fn invite_elsewhere_by(
        &self,
        sender: &UserId,
        room_id: &RoomId,
        target: &OwnedUserId,
        draft: Draft,
        ts: Option<i64>,
    ) -> Result<OwnedEventId, RoomError> {
        let (sender, target) = (sender.to_owned(), target.clone());
        let made = self.invite_elsewhere(room_id, ts, move |appender| {
            if let Err(refusal) = known_member(appender, &sender)? {
                return Ok(Err(refusal));
            }
            if appender.membership(&target)? == Some(Membership::Join) {
                return Ok(Err(RoomError::Forbidden(format!("{target} is already in the room"))));
            }
            Ok(Ok(Step::Send(sender.clone(), draft.clone())))
        });
        made.await.map_err(RoomError::unless_known)
    }

    async fn submit(
        &self,
        room_id: &RoomId,
        txn: Option<Txn>,
        ts: Option<i64>,
        plan: impl Fn(&mut Appender<'_, '_>) -> Decision<Step> + Send + Sync + 'static,
    ) -> Result<OwnedEventId, RoomError> {
        let ts = ts.unwrap_or_else(|| self.inner.time.now_ms());
        let work = Work::new(ts, txn.map(Txn::parts), Box::new(plan));
        let event_id = self.submit_work(room_id, work).await.map_err(RoomError::unless_known)?;
        event_id.ok_or_else(|| RoomError::Store("an event to send was no event".into()))
    }
}

/// A room that one was never in is not there; the auth rules say the rest.
fn known_member(appender: &mut Appender<'_, '_>, sender: &OwnedUserId) -> Decision<()> {
    match appender.membership(sender)? {
        Some(Membership::Join) => Ok(Ok(())),
        _ => Ok(Err(RoomError::Forbidden(format!("{sender} is not in the room")))),
    }
}

/// From room version 12 on creators stand above all levels and must not be given one: a mistake in the content, not a lack
/// of power.
fn check_creators(appender: &mut Appender<'_, '_>, content: &CanonicalJsonObject) -> Decision<()> {
    if !appender.room.rules.authorization.explicitly_privilege_room_creators {
        return Ok(Ok(()));
    }
    let Some(CanonicalJsonValue::Object(users)) = content.get("users") else { return Ok(Ok(())) };
    let levels = appender.power_levels()?;
    let creator =
        users.keys().find(|user| <&UserId>::try_from(user.as_str()).is_ok_and(|user| levels.is_creator(user)));
    Ok(match creator {
        Some(user) => Err(RoomError::BadEvent(format!("{user} created the room and needs no power level"))),
        None => Ok(()),
    })
}
