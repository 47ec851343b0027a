//! The older way to begin: `initialSync` of one room or of all, a picture from which `/events` goes on.
//!
//! Deprecated; room by room, since a user may be in thousands.
//! Spec: client-server API, "Syncing" (deprecated endpoints), "Room previews".

use hearth_matrix::canonical::write_string;
use hearth_matrix::ruma::{OwnedRoomId, UserId};
use hearth_store::{Membership, MembershipRow, Position, RoomPlace, StoreError, Tx};
use rustc_hash::FxHashSet;
use serde_json::value::RawValue;

use crate::events::{MOST, newest, refusal_as_value};
use crate::filter::EventMatch;
use crate::hub::PresenceSince;
use crate::streams::account_data;
use crate::v3::write;
use crate::views::access::Access;
use crate::views::state::state_rows;
use crate::{PageToken, Reader, Syncs, ViewError};

/// Events of a room if the client names no number.
const USUAL: usize = 10;

/// What there is besides rooms, and which rooms there are.
struct Beginning {
    upto: Position,
    rooms: Vec<(OwnedRoomId, MembershipRow)>,
    /// `account_data` and `presence`, written.
    rest: String,
}

impl Syncs {
    /// All rooms of a user (with `archived` also those that he left), and from where to listen. What happens meanwhile
    /// may be in it and comes again with `/events`; nothing is left out.
    pub async fn initial_sync(
        &self,
        reader: Reader,
        limit: Option<usize>,
        archived: bool,
    ) -> Result<String, ViewError> {
        let (syncs, begun_by) = (self.clone(), reader.clone());
        let begin = self.inner.store.read(move |tx| begin(tx, &syncs, &begun_by, archived));
        let Beginning { upto, rooms, rest } = begin.await?;
        let mut out = String::from("{\"end\":");
        write_string(&mut out, &self.plain_token(upto).to_string());
        out.push_str(",\"rooms\":[");
        let mut any = false;
        for (room_id, row) in rooms {
            let room = match row.membership {
                Membership::Invite | Membership::Knock => stripped(&room_id, &row, &reader.user_id),
                // Forgotten or gone since.
                _ => match self.room_initial_sync(reader.clone(), room_id, limit).await {
                    Err(ViewError::NotInRoom) => continue,
                    room => room?,
                },
            };
            if std::mem::replace(&mut any, true) {
                out.push(',');
            }
            out.push_str(&room);
        }
        out.push(']');
        out.push_str(&rest);
        out.push('}');
        Ok(out)
    }

    /// What a room is like now, and from where to listen.
    pub async fn room_initial_sync(
        &self,
        reader: Reader,
        room_id: OwnedRoomId,
        limit: Option<usize>,
    ) -> Result<String, ViewError> {
        let syncs = self.clone();
        let read = self.inner.store.read(move |tx| {
            let access = match refusal_as_value(Access::require(tx, &reader, &room_id))? {
                Ok(access) => access,
                Err(refusal) => return Ok(Err(refusal)),
            };
            write_room(tx, &syncs, &access, limit.unwrap_or(USUAL).min(MOST)).map(Ok)
        });
        read.await?
    }
}

fn begin(tx: &mut Tx<'_>, syncs: &Syncs, reader: &Reader, archived: bool) -> Result<Beginning, StoreError> {
    let upto = tx.position()?;
    let ignored = account_data::ignored(tx, reader.user)?;
    let blocks_invites = tx.account_data().blocks_invites(reader.user)?;
    let mut rooms = Vec::new();
    for row in tx.members().of_user(reader.user)? {
        let shown = match row.membership {
            Membership::Join | Membership::Knock => true,
            Membership::Invite => !blocks_invites && !ignored.contains(&row.sender),
            Membership::Leave | Membership::Ban => archived && !row.forgotten,
        };
        if shown {
            rooms.push((tx.rooms().by_num(row.room)?.room_id.clone(), row));
        }
    }
    let joined: FxHashSet<_> =
        rooms.iter().filter(|(_, row)| row.membership == Membership::Join).map(|(_, row)| row.room).collect();
    let presence = syncs.inner.hub.presence(reader.user, PresenceSince::Start, &joined, &[], &ignored);
    let events = account_data::account_data(tx, reader.user, &reader.user_id, None, upto)?;
    let mut rest = String::from(",\"account_data\":[");
    account_data::write(&mut rest, &events.global, &EventMatch::default());
    rest.push_str("],\"presence\":[");
    write::presence(&mut rest, presence.seen.iter(), reader.now_ms);
    rest.push(']');
    Ok(Beginning { upto, rooms, rest })
}

/// A room that the user is invited to or knocks at.
fn stripped(room_id: &OwnedRoomId, row: &MembershipRow, user_id: &UserId) -> String {
    let mut out = String::from("{\"room_id\":");
    write_string(&mut out, room_id.as_str());
    out.push_str(",\"membership\":");
    write_string(&mut out, row.membership.as_str());
    if row.membership == Membership::Invite
        && let Some(invite) = row.stripped.as_deref().and_then(|state| invite_of(state, user_id))
    {
        out.push_str(",\"invite\":");
        out.push_str(&invite);
    }
    out.push_str(",\"state\":");
    out.push_str(row.stripped.as_deref().unwrap_or("[]"));
    out.push('}');
    out
}

/// The event that invites a user, among the state that came with it.
fn invite_of(stripped: &str, user_id: &UserId) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Member {
        r#type: String,
        state_key: Option<String>,
    }
    let events: Vec<&RawValue> = serde_json::from_str(stripped).ok()?;
    let is_invite = |event: &&&RawValue| {
        serde_json::from_str::<Member>(event.get())
            .is_ok_and(|event| event.r#type == "m.room.member" && event.state_key.as_deref() == Some(user_id.as_str()))
    };
    events.iter().find(is_invite).map(|event| event.get().to_owned())
}

fn write_room(tx: &mut Tx<'_>, syncs: &Syncs, access: &Access, limit: usize) -> Result<String, StoreError> {
    let upto = tx.position()?;
    let newest = newest(tx, access, Position(0), upto, limit)?;
    let start = match newest.first() {
        Some(oldest) => RoomPlace::before(oldest),
        None => tx.events().place_at(access.room.num, upto)?,
    };
    let state = match access.state_now(tx)? {
        Some(snapshot) => {
            let entries = tx.state().load(access.room.num, snapshot)?;
            state_rows(tx, entries.iter().map(|entry| entry.event.0))?
        }
        None => Vec::new(),
    };
    let mut out = String::from("{\"room_id\":");
    write_string(&mut out, access.room.room_id.as_str());
    if let Some(row) = access.history.last() {
        out.push_str(",\"membership\":");
        write_string(&mut out, row.membership.as_str());
    }
    let visibility = if tx.rooms().is_published(access.room.num)? { "public" } else { "private" };
    out.push_str(",\"visibility\":");
    write_string(&mut out, visibility);
    out.push_str(",\"messages\":{\"start\":");
    write_string(&mut out, &PageToken::from(start).to_string());
    out.push_str(",\"end\":");
    write_string(&mut out, &syncs.plain_token(upto).to_string());
    out.push_str(",\"chunk\":[");
    access.write(tx, &mut out, &newest)?;
    out.push_str("]},\"state\":[");
    access.write(tx, &mut out, &state)?;
    out.push_str("],\"account_data\":[");
    let events = account_data::of_room(tx, access.reader.user, access.room.num)?;
    account_data::write(&mut out, &events, &EventMatch::default());
    out.push_str("]}");
    Ok(out)
}
