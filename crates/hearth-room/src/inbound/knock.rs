//! Knocking through other servers, on both sides.
//!
//! Spec: server-server API, "Knocking upon a room".

use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, EventId, OwnedServerName, RoomId, RoomVersionId, ServerName, UserId};
use hearth_matrix::{Draft, Pdu, SUPPORTED_VERSIONS, rules};
use hearth_store::Membership;

use super::elsewhere::{Hearsay, Told};
use super::handshake::Submitted;
use super::invite::STATE;
use super::join::worse;
use super::{Neighbours, Template};
use crate::append::Appender;
use crate::{MemberAction, RoomError, Rooms, member_content, stripped};

/// A user of another server who was heard.
#[derive(Clone, Debug)]
pub struct Heard {
    /// The knock, for the room's other servers.
    pub event: Arc<Pdu>,
    /// What his server is told of the room: events as JSON.
    pub room_state: Vec<String>,
}

impl Rooms {
    /// Drafts the knock of another server's user (`make_knock`). Nothing is written.
    pub async fn knock_template(
        &self,
        room_id: &RoomId,
        user: &UserId,
        versions: &[RoomVersionId],
    ) -> Result<Template, RoomError> {
        let draft = self.template(room_id, user, Some(versions), |_, user| {
            Ok(Ok(Draft::state("m.room.member", user.as_str(), member_content::bare("knock", None))))
        });
        draft.await
    }

    /// Hears the knock of another server's user (`send_knock`).
    pub async fn take_knock(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &str,
    ) -> Result<Heard, RoomError> {
        let submitted = Submitted { origin, room_id, event_id, event, membership: "knock" };
        let event = self.take_submitted(submitted).await?;
        let (asked, knock, config) = (room_id.to_owned(), event.clone(), self.inner.config.clone());
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&asked)? else { return Ok(Vec::new()) };
            stripped::federation_state(&mut Appender::at_tip(tx, room, &config)?, &knock)
        });
        Ok(Heard { room_state: read.await?, event })
    }

    /// Knocks at a room: in its turn if we are in it, else through servers that are, those named by the user and those we know.
    pub async fn knock(
        &self,
        user: &UserId,
        room_id: &RoomId,
        named: &[OwnedServerName],
        reason: Option<String>,
    ) -> Result<(), RoomError> {
        let elsewhere = match self.elsewhere(user, room_id).await? {
            Some(elsewhere) => elsewhere,
            None => match self.change_membership(user, room_id, MemberAction::Knock, reason.clone()).await {
                // The last of ours was shown out meanwhile.
                Err(RoomError::UnknownRoom) => self.elsewhere(user, room_id).await?.ok_or(RoomError::UnknownRoom)?,
                outcome => return outcome.map(|_| ()),
            },
        };
        if elsewhere.membership == Some(Membership::Invite) {
            return Err(RoomError::Forbidden(format!("{user} is invited already")));
        }
        let Some(neighbours) = self.inner.inbound.neighbours.get() else { return Err(RoomError::UnknownRoom) };
        let content = self.own_content(user, "knock", reason, CanonicalJsonObject::new()).await?;
        let mut refusal = RoomError::UnknownRoom;
        let servers = self.sorted_ways(&elsewhere.ways, named);
        for server in self.in_order(&**neighbours, &servers).await {
            match self.knock_at(&**neighbours, &server, user, room_id, &content).await {
                Ok(told) => return self.note_elsewhere(told).await,
                Err(error) => refusal = worse(refusal, error),
            }
        }
        Err(refusal)
    }

    async fn knock_at(
        &self,
        neighbours: &dyn Neighbours,
        server: &ServerName,
        user: &UserId,
        room_id: &RoomId,
        content: &CanonicalJsonObject,
    ) -> Result<Told, RoomError> {
        let refused = |error| RoomError::by(server, error);
        let template = neighbours.make_knock(server, room_id, user, &SUPPORTED_VERSIONS).await.map_err(refused)?;
        let knock = self.completed(user, room_id, &template, "knock", content)?;
        let sent = neighbours.send_knock(server, room_id, &knock.event_id, knock.json.to_string());
        let mut room_state = sent.await.map_err(refused)?;
        let version = template.version;
        let rules = rules(&version).ok_or_else(|| RoomError::UnsupportedVersion(version.clone()))?;
        room_state.truncate(STATE);
        room_state.retain(|json| self.fault_of(json, room_id, rules).is_none());
        // The knock stands there, whatever is told of the room.
        let said = Hearsay::of(&version, &room_state, user);
        Ok(Told {
            room_id: room_id.to_owned(),
            room: said.or_else(|| Hearsay::of(&version, &[], user)),
            user: user.to_owned(),
            membership: Membership::Knock,
            event_id: Some(knock.event_id.clone()),
            sender: user.to_owned(),
            stripped: Some(stripped::told(&room_state, Some(&knock), rules)),
            via: server.to_owned(),
            instead_of: None,
        })
    }
}
