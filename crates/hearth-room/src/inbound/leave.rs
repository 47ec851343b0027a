//! Leaving through other servers, on both sides: declining an invite, taking a knock back, going.
//!
//! Spec: server-server API, "Leaving Rooms (Rejecting Invites)".

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::ruma::{EventId, OwnedServerName, RoomId, ServerName, UserId};
use hearth_matrix::{Draft, Pdu, rules};
use hearth_store::Membership;
use serde_json::json;

use super::Template;
use super::elsewhere::{Elsewhere, Told, only};
use super::handshake::Submitted;
use crate::{RoomError, Rooms, member_content};

/// How long other servers have to hear that somebody leaves; then he is gone without them.
const PATIENCE: Duration = Duration::from_secs(30);

impl Rooms {
    /// Drafts the leave of another server's user (`make_leave`). Nothing is written.
    pub async fn leave_template(&self, room_id: &RoomId, user: &UserId) -> Result<Template, RoomError> {
        let draft = self.template(room_id, user, None, |_, user| {
            Ok(Ok(Draft::state("m.room.member", user.as_str(), member_content::bare("leave", None))))
        });
        draft.await
    }

    /// Lets a user of another server go (`send_leave`). Returns the event, for the room's other servers.
    pub async fn take_leave(
        &self,
        origin: &ServerName,
        room_id: &RoomId,
        event_id: &EventId,
        event: &str,
    ) -> Result<Arc<Pdu>, RoomError> {
        self.take_submitted(Submitted { origin, room_id, event_id, event, membership: "leave" }).await
    }

    /// Leaves a room that we are not in. If no other server will hear of it, the user is rid of it all the same.
    pub(crate) async fn leave_elsewhere(
        &self,
        user: &UserId,
        room_id: &RoomId,
        elsewhere: &Elsewhere,
        reason: Option<String>,
    ) -> Result<bool, RoomError> {
        match elsewhere.membership {
            Some(Membership::Invite | Membership::Knock) => {}
            Some(Membership::Leave) => return Ok(false),
            Some(Membership::Join | Membership::Ban) | None => {
                return Err(RoomError::Forbidden(format!("{user} is not in the room")));
            }
        }
        let servers = self.sorted_ways(&elsewhere.ways, &[]);
        let asked = self.leave_through(user, room_id, &servers, reason.clone());
        let heard = tokio::time::timeout(PATIENCE, asked).await.unwrap_or(None);
        let (event_id, stripped, via) = match heard {
            Some((server, event, stripped)) => (Some(event.event_id), Some(stripped), server),
            None => (None, Some(self.unheard(user, reason.as_deref())), self.inner.config.server_name.clone()),
        };
        let told = Told {
            room_id: room_id.to_owned(),
            room: None,
            user: user.to_owned(),
            membership: Membership::Leave,
            event_id,
            sender: user.to_owned(),
            stripped,
            via,
            instead_of: None,
        };
        self.note_elsewhere(told).await?;
        Ok(true)
    }

    /// A leave that no other server heard, as clients are told of it: a JSON array. It is nobody's event; its id is for them alone.
    pub(super) fn unheard(&self, user: &UserId, reason: Option<&str>) -> String {
        let leave = json!({
            "type": "m.room.member",
            "state_key": user,
            "sender": user,
            "content": member_content::bare("leave", reason),
            "event_id": format!("${}", self.inner.chance.letters(43)),
            "origin_server_ts": self.inner.time.now_ms(),
        });
        json!([leave]).to_string()
    }

    /// The first server that takes the leave, and the leave itself, also as clients are told of it.
    async fn leave_through(
        &self,
        user: &UserId,
        room_id: &RoomId,
        servers: &[OwnedServerName],
        reason: Option<String>,
    ) -> Option<(OwnedServerName, Pdu, String)> {
        let neighbours = self.inner.inbound.neighbours.get()?;
        let content = member_content::bare("leave", reason.as_deref());
        for server in &self.in_order(&**neighbours, servers).await {
            let template = match neighbours.make_leave(server, room_id, user).await {
                Ok(template) => template,
                Err(error) => {
                    tracing::debug!(%room_id, %server, %error, "a server drafts no leave");
                    continue;
                }
            };
            let leave = match self.completed(user, room_id, &template, "leave", &content) {
                Ok(leave) => leave,
                Err(error) => {
                    tracing::debug!(%room_id, %server, %error, "a server's draft of a leave is none");
                    continue;
                }
            };
            match neighbours.send_leave(server, room_id, &leave.event_id, leave.json.to_string()).await {
                Ok(()) => {
                    let stripped = only(&leave, rules(&template.version)?);
                    return Some((server.clone(), leave, stripped));
                }
                Err(error) => tracing::debug!(%room_id, %server, %error, "a server does not take a leave"),
            }
        }
        None
    }
}
