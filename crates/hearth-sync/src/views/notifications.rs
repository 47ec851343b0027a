//! What a user was notified about, newest first, over all his rooms.
//!
//! What the default rules notify for is read from the rooms, as few of them as a page takes; what his own rules say of an
//! event stands written. Rooms that are muted now show only the latter.
//! Spec: client-server API, "Listing Notifications".

use hearth_matrix::canonical::write_string;
use hearth_store::{
    Membership, MembershipRow, Notification, Position, ReadUpto, RoomHead, RoomNum, StoreError, Tx, UserNum,
};
use rustc_hash::FxHashMap;

use super::access::Access;
use super::{ViewError, Views};
use crate::v3::write::push;
use crate::{BadToken, EventOptions, Reader, write_events};

/// Notifications of a page if the client names no number, and at most.
const DEFAULT: usize = 50;
const MOST: usize = 500;

/// What a client asks for.
#[derive(Clone, Debug, Default)]
pub struct NotificationsRequest {
    /// Where to go on: what an earlier page gave as `next_token`.
    pub from: Option<String>,
    /// Most notifications.
    pub limit: Option<u64>,
    /// Only what stands out.
    pub highlights: bool,
}

impl Views {
    /// A page of what a user was notified about.
    pub async fn notifications(&self, reader: Reader, request: NotificationsRequest) -> Result<String, ViewError> {
        self.read(move |tx| {
            let before = match &request.from {
                Some(from) => parse(from)?,
                None => Position(i64::MAX),
            };
            let limit = request.limit.map_or(DEFAULT, |limit| usize::try_from(limit).unwrap_or(MOST)).clamp(1, MOST);
            let mut found = page(tx, reader.user, before, request.highlights, limit + 1)?;
            let more = found.len() > limit;
            found.truncate(limit);
            let mut out = String::from("{\"notifications\":[");
            let mut rooms: FxHashMap<RoomNum, Option<Shown>> = FxHashMap::default();
            let mut any = false;
            for notification in &found {
                let shown = match rooms.entry(notification.room) {
                    std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
                    std::collections::hash_map::Entry::Vacant(new) => {
                        new.insert(Shown::of(tx, &reader, notification.room)?)
                    }
                };
                let Some(shown) = shown else { continue };
                any |= shown.write(tx, &mut out, notification, any)?;
            }
            out.push(']');
            if let (true, Some(last)) = (more, found.last()) {
                push(&mut out, format_args!(",\"next_token\":\"n1_{}\"", last.position.0));
            }
            out.push('}');
            Ok(out)
        })
        .await
    }
}

fn parse(token: &str) -> Result<Position, BadToken> {
    let position = token.strip_prefix("n1_").and_then(|number| number.parse().ok()).ok_or(BadToken)?;
    Ok(Position(position))
}

/// The newest notifications before a position.
fn page(
    tx: &mut Tx<'_>,
    user: UserNum,
    before: Position,
    highlights: bool,
    limit: usize,
) -> Result<Vec<Notification>, StoreError> {
    let most = i64::try_from(limit).unwrap_or(i64::MAX);
    let joined = tx.members().rooms_of_user(user, Membership::Join)?;
    let mut found = tx.notifications().written_before(user, before, highlights, most)?;
    let since: FxHashMap<RoomNum, &MembershipRow> = joined.iter().map(|row| (row.room, row)).collect();
    for head in heard(tx, user, &joined)? {
        // Rooms come by their newest event: those that are left have nothing newer than what the page has already.
        if found.len() >= limit && found.get(limit - 1).is_some_and(|last| head.last_position < last.position) {
            break;
        }
        let Some(row) = since.get(&head.room) else { continue };
        let stretch = (row.since, before);
        found.extend(tx.notifications().plain_before(head.room, user, stretch, highlights, most)?);
        found.sort_by_key(|notification| std::cmp::Reverse(notification.position));
        found.truncate(limit);
    }
    Ok(found)
}

/// Rooms of which the user hears ordinary messages, by their newest event.
fn heard(tx: &mut Tx<'_>, user: UserNum, joined: &[MembershipRow]) -> Result<Vec<RoomHead>, StoreError> {
    let nums: Vec<i64> = joined.iter().map(|row| row.room.0).collect();
    let mut heads = tx.rooms().heads(&nums)?;
    if let Some(profile) = tx.push_profiles().of(user)? {
        let mut heard = Vec::with_capacity(heads.len());
        for head in heads {
            let room = tx.rooms().by_num(head.room)?;
            if profile.hears_messages(&room.room_id, u64::try_from(head.joined).unwrap_or(0)) {
                heard.push(head);
            }
        }
        heads = heard;
    }
    heads.sort_by_key(|head| std::cmp::Reverse(head.last_position));
    Ok(heads)
}

/// A room of which something is shown.
struct Shown {
    access: Access,
    read: Vec<(ReadUpto, Position)>,
}

impl Shown {
    fn of(tx: &mut Tx<'_>, reader: &Reader, room: RoomNum) -> Result<Option<Self>, StoreError> {
        let room_id = tx.rooms().by_num(room)?.room_id.clone();
        let Some(access) = Access::find(tx, reader, &room_id)? else { return Ok(None) };
        let read = tx.notifications().read_positions(reader.user, room)?;
        Ok(Some(Self { access, read }))
    }

    /// Appends a notification. False if the reader may not see its event (any more).
    fn write(
        &self,
        tx: &mut Tx<'_>,
        out: &mut String,
        notification: &Notification,
        comma: bool,
    ) -> Result<bool, StoreError> {
        let access = &self.access;
        let Some(row) = tx.events().row(notification.event)? else { return Ok(false) };
        if !access.may_see(tx, &row)? {
            return Ok(false);
        }
        let before = out.len();
        if comma {
            out.push(',');
        }
        let actions = &notification.actions;
        push(out, format_args!("{{\"actions\":{actions},\"event\":"));
        let begin = out.len();
        let rows = std::slice::from_ref(&row);
        let options = EventOptions::default();
        write_events(tx, out, &access.room, rows, &access.reader, &access.history, options)?;
        if out.len() == begin {
            // Its JSON is deleted.
            out.truncate(before);
            return Ok(false);
        }
        let read = notification.read.unwrap_or_else(|| self.is_read(notification));
        push(out, format_args!(",\"read\":{read},\"room_id\":"));
        write_string(out, access.room.room_id.as_str());
        push(out, format_args!(",\"ts\":{}}}", row.origin_server_ts));
        Ok(true)
    }

    fn is_read(&self, notification: &Notification) -> bool {
        let timeline = notification.thread.map_or(ReadUpto::Main, ReadUpto::Thread);
        self.read
            .iter()
            .any(|(what, upto)| (*what == ReadUpto::Everything || *what == timeline) && *upto >= notification.position)
    }
}
