//! Answers from the store: everything, or what changed since any position. All reads of an answer are one closure.

use std::sync::Arc;

use hearth_matrix::ruma::RoomId;
use hearth_store::{
    EventNum, EventRow, Membership, MembershipRow, Position, RoomHead, RoomNum, RoomRecord, SnapshotNum, StoreError,
    StringNum, Tx, UserNum,
};
use rustc_hash::{FxHashMap, FxHashSet};

use super::write::{self, Ephemeral};
use super::{Counters, SyncRequest};
use crate::Syncs;
use crate::client_event::{EventOptions, Reader, write_events, write_state};
use crate::hub::{PresenceNews, PresenceSince, Stay};
use crate::streams::account_data::{self, AccountData};
use crate::streams::receipts::{self, Told};
use crate::streams::state::{LazyQuery, StateQuery, lazy_members, state};
use crate::streams::summary::{Summary, summary};
use crate::streams::timeline::{Timeline, TimelineQuery, timeline};
use crate::streams::unread::{Badge, Badges, badges};

pub(super) struct Question<'a> {
    pub(super) request: &'a SyncRequest,
    pub(super) reader: &'a Reader,
    pub(super) typing: &'a [hearth_room::TypingInRoom],
    pub(super) syncs: &'a Syncs,
}

/// An answer, and what was learned on the way.
pub(super) struct Found {
    pub(super) json: String,
    pub(super) upto: Position,
    pub(super) empty: bool,
    /// Presence up to here is in it.
    pub(super) presence: i64,
    pub(super) stays: Vec<(RoomNum, Stay)>,
    pub(super) ignored: FxHashSet<UserNum>,
    /// Rooms told as if the client had never heard of them.
    pub(super) rooms_anew: Vec<RoomNum>,
    /// Members that the client was told of, if it loads them lazily.
    pub(super) members: Vec<(RoomNum, UserNum, EventNum)>,
}

/// What an answer is made from.
struct Sources<'a> {
    since: Option<Position>,
    upto: Position,
    member: StringNum,
    ignored: &'a FxHashSet<UserNum>,
    /// He lets nobody invite him.
    blocks_invites: bool,
    heads: FxHashMap<RoomNum, RoomHead>,
    account_data: AccountData,
    receipts: FxHashMap<RoomNum, Vec<Told>>,
    badges: Badges,
    /// The user's push rules changed: all counts may have.
    recounted: bool,
}

/// A joined or left room that has something to tell.
struct RoomPart<'a> {
    room: Arc<RoomRecord>,
    history: &'a [MembershipRow],
    timeline: Timeline,
    /// State to tell, in order.
    state: Vec<EventNum>,
    summary: Option<Summary>,
    account_data: Vec<hearth_store::AccountDataEvent>,
    receipts: Vec<Told>,
    typing: Option<&'a hearth_room::TypingInRoom>,
    badge: Option<Badge>,
    /// The counts may be others, even if there is no other news.
    recounted: bool,
    /// The event that ended it, of a room that we are not in: a JSON array. None of the room's events is here.
    told: Option<&'a str>,
    /// The client hears of it for the first time, or once more from the start.
    anew: bool,
}

impl Question<'_> {
    pub(super) fn answer(&self, tx: &mut Tx<'_>, typing: i64) -> Result<Found, StoreError> {
        let request = self.request;
        let upto = tx.position()?;
        let since = request.since.map(|since| since.position.min(upto));
        let intervals = tx.members().intervals(request.user)?;
        let ignored = account_data::ignored(tx, request.user)?;
        let stays: Vec<&[MembershipRow]> = intervals.chunk_by(|a, b| a.room == b.room).collect();
        let joined: Vec<&[MembershipRow]> =
            stays.iter().copied().filter(|history| is_now(history, Membership::Join)).collect();
        let nums: Vec<i64> = joined.iter().filter_map(|history| Some(history.first()?.room.0)).collect();
        let heads = tx.rooms().heads(&nums)?.into_iter().map(|head| (head.room, head)).collect();
        let changed = tx.push_profiles().changed_at(request.user)?.unwrap_or(Position(0));
        let sources = Sources {
            since,
            upto,
            member: tx.string_num("m.room.member")?.unwrap_or(StringNum(0)),
            ignored: &ignored,
            blocks_invites: tx.account_data().blocks_invites(request.user)?,
            heads,
            account_data: account_data::account_data(tx, request.user, &request.user_id, since, upto)?,
            receipts: receipts::receipts(tx, &nums, since.unwrap_or(Position(0)), upto, request.user)?,
            badges: Badges::default(),
            recounted: since.is_some_and(|since| since < changed),
        };
        self.assemble(tx, sources, &joined, &stays, typing)
    }

    fn assemble<'a>(
        &'a self,
        tx: &mut Tx<'_>,
        mut sources: Sources<'a>,
        joined: &[&'a [MembershipRow]],
        all: &[&'a [MembershipRow]],
        typing: i64,
    ) -> Result<Found, StoreError> {
        let mut told: Vec<&'a [MembershipRow]> = joined.to_vec();
        told.retain(|history| sources.recounted || self.has_news(&sources, history));
        let counted: Vec<RoomHead> =
            told.iter().filter_map(|history| sources.heads.get(&history.last()?.room).copied()).collect();
        sources.badges = badges(tx, self.request.user, &counted)?;
        told.retain(|history| {
            history.last().is_some_and(|row| sources.badges.unread.contains(&row.room))
                || self.has_news(&sources, history)
        });
        let mut members = Vec::new();
        let mut join = Vec::new();
        for history in told {
            join.extend(self.joined_room(tx, &mut sources, history, &mut members)?);
        }
        let mut leave = Vec::new();
        for history in all {
            leave.extend(self.left_room(tx, &sources, history, &mut members)?);
        }
        let presence = self.presence(&sources, joined);
        let token = self.syncs.token(sources.upto, Counters { typing, presence: presence.upto });
        let mut json = String::with_capacity(1024 + 8192 * join.len());
        write::begin(&mut json, token);
        let head = json.len();
        self.write(tx, &mut json, &sources, &join, &leave, all)?;
        let seen = write::wanted_presence(&presence, &self.request.filter);
        let empty = json.len() == head && seen.is_empty();
        write::end(&mut json, &seen, self.reader.now_ms);
        let stays = joined.iter().filter_map(|history| {
            let row = history.last()?;
            let room = tx.rooms().by_num(row.room);
            let badge = sources.badges.by_room.remove(&row.room);
            let partial = sources.heads.get(&row.room).is_some_and(|head| head.partial);
            Some(room.map(|room| (row.room, Stay { room_id: room.room_id.clone(), badge, partial })))
        });
        let stays = stays.collect::<Result<_, StoreError>>()?;
        let parts = join.iter().chain(&leave);
        Ok(Found {
            json,
            upto: sources.upto,
            empty,
            presence: presence.upto,
            stays,
            ignored: sources.ignored.clone(),
            rooms_anew: parts.filter(|part| part.anew).map(|part| part.room.num).collect(),
            members,
        })
    }

    /// Of those he shares a room with; of people in rooms that he came to since, as they are.
    fn presence(&self, sources: &Sources<'_>, joined: &[&[MembershipRow]]) -> PresenceNews {
        if !self.request.filter.wants_presence() {
            return PresenceNews { upto: self.syncs.inner.presence.counter(), seen: Vec::new() };
        }
        let now = || joined.iter().filter_map(|history| history.last());
        let newly: Vec<RoomNum> =
            now().filter(|row| sources.since.is_some_and(|since| row.since > since)).map(|row| row.room).collect();
        let since = match self.request.since {
            Some(_) => PresenceSince::Counter(self.syncs.presence_since(self.request.since)),
            None => PresenceSince::Start,
        };
        let rooms = now().map(|row| row.room).collect();
        self.syncs.inner.hub.presence(self.request.user, since, &rooms, &newly, sources.ignored)
    }

    /// Whether anything may have changed in a joined room.
    fn has_news(&self, sources: &Sources<'_>, history: &[MembershipRow]) -> bool {
        let (Some(row), Some(since)) = (history.last(), sources.since) else { return true };
        self.request.full_state
            || row.since > since
            || sources.heads.get(&row.room).is_some_and(|head| head.last_position > since)
            || sources.receipts.contains_key(&row.room)
            || sources.account_data.by_room.contains_key(&row.room)
            || self.typing.iter().any(|typing| typing.room == row.room)
    }

    fn joined_room<'a>(
        &'a self,
        tx: &mut Tx<'_>,
        sources: &mut Sources<'a>,
        history: &'a [MembershipRow],
        members: &mut Vec<(RoomNum, UserNum, EventNum)>,
    ) -> Result<Option<RoomPart<'a>>, StoreError> {
        let request = self.request;
        let Some(row) = history.last() else { return Ok(None) };
        let room = tx.rooms().by_num(row.room)?;
        if !request.filter.rooms.allows(&room.room_id) {
            return Ok(None);
        }
        let Some(head) = sources.heads.get(&row.room).copied() else { return Ok(None) };
        // Who wants all members hears of the room when they are known.
        let eager = !request.filter.lazy_members;
        if head.partial && eager {
            return Ok(None);
        }
        // Who came in (again) since then hears of it anew.
        let newly = sources.since.is_some_and(|since| row.since > since || eager && head.completed > since);
        let since = sources.since.filter(|_| !newly);
        let anew = since.is_none() || request.full_state;
        let mut timeline = self.timeline(tx, sources, &room, history, since, sources.upto)?;
        timeline.limited |= newly;
        let moved = anew || since.is_some_and(|since| head.last_position > since);
        let mut summary_of_room = None;
        let mut told = Vec::new();
        if let (true, Some(end)) = (moved, head.snapshot) {
            let base = match since.filter(|_| !request.full_state) {
                Some(since) => tx.rooms().snapshot_at(room.num, since)?,
                None => None,
            };
            let members_moved = anew || self.members_moved(tx, &room, base, end, sources.member)?;
            if members_moved {
                summary_of_room = Some(summary(tx, &room, &head, request.user)?);
            }
            let heroes = summary_of_room.as_ref().and_then(|summary| summary.heroes.as_deref()).unwrap_or_default();
            let stale = match sources.since.filter(|since| newly && was_joined(history, *since)) {
                Some(since) => tx.rooms().snapshot_at(room.num, since)?,
                None => None,
            };
            told = self.state(tx, sources, &room, base, stale, end, &timeline, heroes, members)?;
        }
        let account_data = match newly {
            true => account_data::of_room(tx, request.user, room.num)?,
            false => sources.account_data.by_room.remove(&room.num).unwrap_or_default(),
        };
        let receipts = match newly {
            // Also those given before he came.
            true => receipts::receipts(tx, &[room.num.0], Position(0), sources.upto, request.user)?
                .remove(&room.num)
                .unwrap_or_default(),
            false => sources.receipts.remove(&room.num).unwrap_or_default(),
        };
        let part = RoomPart {
            history,
            timeline,
            state: told,
            summary: summary_of_room,
            account_data: account_data
                .into_iter()
                .filter(|event| {
                    let filter = &request.filter.room_account_data;
                    filter.allows_room(&room.room_id) && filter.allows_type(&event.kind)
                })
                .collect(),
            receipts,
            typing: self.typing.iter().find(|typing| typing.room == room.num),
            badge: sources.badges.by_room.get(&room.num).cloned(),
            recounted: sources.recounted && sources.badges.unread.contains(&room.num),
            told: None,
            anew,
            room,
        };
        Ok((anew || !self.is_empty(&part)).then_some(part))
    }

    fn is_empty(&self, part: &RoomPart<'_>) -> bool {
        part.timeline.rows.is_empty()
            && part.state.is_empty()
            && part.account_data.is_empty()
            && self.ephemeral(part).is_empty()
            && !part.recounted
            && !part.receipts.iter().any(|told| *told.user_id == *self.request.user_id.as_str())
    }

    fn ephemeral<'a>(&self, part: &'a RoomPart<'_>) -> Ephemeral<'a> {
        Ephemeral { receipts: &part.receipts, typing: part.typing }
            .passing(&self.request.filter.ephemeral, &part.room.room_id)
    }

    /// A room that the user left since, or ever if he wants to hear of those.
    fn left_room<'a>(
        &'a self,
        tx: &mut Tx<'_>,
        sources: &Sources<'a>,
        history: &'a [MembershipRow],
        members: &mut Vec<(RoomNum, UserNum, EventNum)>,
    ) -> Result<Option<RoomPart<'a>>, StoreError> {
        let request = self.request;
        let Some((row, before)) = history.split_last() else { return Ok(None) };
        if !matches!(row.membership, Membership::Leave | Membership::Ban) {
            return Ok(None);
        }
        let newly = sources.since.is_some_and(|since| row.since > since);
        // A client that knew the room is told that it ended, even if another client has it forgotten.
        let ever = !row.forgotten && request.filter.include_leave && (sources.since.is_none() || request.full_state);
        if !newly && !ever {
            return Ok(None);
        }
        // An invite by somebody whom he ignores was never shown, nor is its end.
        if before.last().is_some_and(|before| self.is_hidden_invite(sources, before)) {
            return Ok(None);
        }
        let room = tx.rooms().by_num(row.room)?;
        if !request.filter.rooms.allows(&room.room_id) {
            return Ok(None);
        }
        // Only who was in the room at `since` knows its state of then.
        let knew = |since: &Position| {
            history.iter().any(|row| row.membership == Membership::Join && row.covers(*since))
                && !history.iter().any(|row| row.membership == Membership::Join && row.since > *since)
        };
        let since = sources.since.filter(knew);
        let timeline = self.timeline(tx, sources, &room, history, since, row.since)?;
        let was_in = before.last().is_some_and(|before| before.membership == Membership::Join);
        let end = if was_in { tx.rooms().snapshot_at(room.num, row.since)? } else { None };
        let mut told = Vec::new();
        if let Some(end) = end {
            let base = match since.filter(|_| !request.full_state) {
                Some(since) => tx.rooms().snapshot_at(room.num, since)?,
                None => None,
            };
            told = self.state(tx, sources, &room, base, None, end, &timeline, &[], members)?;
        }
        let room_id = room.room_id.clone();
        Ok(Some(RoomPart {
            room,
            history,
            timeline,
            state: told,
            summary: None,
            account_data: Vec::new(),
            receipts: Vec::new(),
            typing: None,
            badge: None,
            recounted: false,
            told: row.stripped.as_deref().filter(|_| row.told.is_some() && self.shows_members(&room_id)),
            anew: true,
        }))
    }

    /// Whether member events of a room pass the filter.
    fn shows_members(&self, room_id: &RoomId) -> bool {
        let filter = &self.request.filter;
        let timeline = &filter.timeline;
        filter.timeline_limit > 0 && timeline.allows_room(room_id) && timeline.allows_type("m.room.member")
    }

    fn is_hidden_invite(&self, sources: &Sources<'_>, row: &MembershipRow) -> bool {
        row.membership == Membership::Invite && (sources.blocks_invites || sources.ignored.contains(&row.sender))
    }

    fn timeline(
        &self,
        tx: &mut Tx<'_>,
        sources: &Sources<'_>,
        room: &RoomRecord,
        history: &[MembershipRow],
        since: Option<Position>,
        upto: Position,
    ) -> Result<Timeline, StoreError> {
        let query = TimelineQuery {
            room,
            after: since.unwrap_or(Position(0)),
            upto,
            reader: self.request.user,
            history,
            ignored: sources.ignored,
            filter: &self.request.filter,
        };
        timeline(tx, &query)
    }

    fn members_moved(
        &self,
        tx: &mut Tx<'_>,
        room: &RoomRecord,
        base: Option<SnapshotNum>,
        end: SnapshotNum,
        member: StringNum,
    ) -> Result<bool, StoreError> {
        let Some(base) = base else { return Ok(true) };
        if base == end {
            return Ok(false);
        }
        Ok(tx.state().difference(room.num, base, end)?.iter().any(|difference| difference.key.kind == member))
    }

    /// The state events to tell, in order. `stale` is the state that the client knew of a room that is told anew.
    #[allow(clippy::too_many_arguments, reason = "state depends on all of it")]
    fn state(
        &self,
        tx: &mut Tx<'_>,
        sources: &Sources<'_>,
        room: &RoomRecord,
        base: Option<SnapshotNum>,
        stale: Option<SnapshotNum>,
        end: SnapshotNum,
        timeline: &Timeline,
        heroes: &[UserNum],
        members: &mut Vec<(RoomNum, UserNum, EventNum)>,
    ) -> Result<Vec<EventNum>, StoreError> {
        let request = self.request;
        let filter = &request.filter;
        let after = request.state_after.is_some();
        let query = StateQuery { room, since: base, end, timeline: &timeline.rows, after };
        let mut told = state(tx, &query)?;
        if filter.lazy_members {
            let mut needed: FxHashSet<UserNum> = timeline.rows.iter().map(|row| row.sender).collect();
            needed.extend(heroes);
            if base.is_none() {
                needed.insert(request.user);
            }
            // Who left and came back between two answers may still hold members of before.
            if let Some(stale) = stale {
                let moved = tx.state().difference(room.num, stale, end)?;
                needed.extend(moved.iter().filter(|d| d.key.kind == sources.member).map(|d| d.key.state_key));
            }
            let start = timeline.rows.first().and_then(|row| row.snapshot_before);
            let snapshot = start.filter(|_| !after).unwrap_or(end);
            let lazy = LazyQuery { room, member: sources.member, anew: base.is_none(), snapshot, needed: &needed };
            lazy_members(tx, &lazy, &mut told, |user, event| {
                let since = request.since.map_or(Position(0), |since| since.position);
                !filter.redundant_members
                    && self.syncs.inner.lazy.has(request.device, room.num, since, user, Some(event))
            })?;
            let of_state = told.iter().map(|(key, event)| (key.kind, key.state_key, *event));
            let of_timeline = timeline.rows.iter().filter_map(|row| Some((row.kind, row.state_key?, row.num)));
            let new = of_state.chain(of_timeline).filter(|(kind, _, _)| *kind == sources.member);
            members.extend(new.map(|(_, user, event)| (room.num, user, event)));
        }
        if !filter.state.allows_room(&room.room_id) {
            return Ok(Vec::new());
        }
        if !filter.state.is_open() {
            let mut passing = Vec::new();
            for (key, event) in &told {
                if filter.state.allows_type(&tx.string(key.kind)?)
                    && (filter.state.is_open_to_senders() && filter.state.is_open_to_content()
                        || filter.state.allows(&*tx.events().pdu(room, *event)?))
                {
                    passing.push(*event);
                }
            }
            passing.sort_unstable();
            return Ok(passing);
        }
        let mut events: Vec<EventNum> = told.into_values().collect();
        events.sort_unstable();
        Ok(events)
    }

    fn write(
        &self,
        tx: &mut Tx<'_>,
        out: &mut String,
        sources: &Sources<'_>,
        join: &[RoomPart<'_>],
        leave: &[RoomPart<'_>],
        all: &[&[MembershipRow]],
    ) -> Result<(), StoreError> {
        let before = out.len();
        write::key(out, "account_data");
        out.push_str("{\"events\":[");
        if account_data::write(out, &sources.account_data.global, &self.request.filter.account_data) {
            out.push_str("]}");
        } else {
            out.truncate(before);
        }
        let nums: Vec<i64> = join.iter().chain(leave).flat_map(|part| &part.state).map(|num| num.0).collect();
        let rows: FxHashMap<EventNum, EventRow> =
            tx.events().rows(&nums)?.into_iter().map(|row| (row.num, row)).collect();
        let before = out.len();
        write::key(out, "rooms");
        out.push('{');
        self.write_rooms(tx, out, "join", join, &rows, sources)?;
        self.write_rooms(tx, out, "leave", leave, &rows, sources)?;
        self.write_offers(tx, out, sources, all, Membership::Invite)?;
        self.write_offers(tx, out, sources, all, Membership::Knock)?;
        if out.ends_with('{') {
            out.truncate(before);
        } else {
            out.push('}');
        }
        Ok(())
    }

    fn write_rooms(
        &self,
        tx: &mut Tx<'_>,
        out: &mut String,
        section: &str,
        parts: &[RoomPart<'_>],
        rows: &FxHashMap<EventNum, EventRow>,
        sources: &Sources<'_>,
    ) -> Result<(), StoreError> {
        if parts.is_empty() {
            return Ok(());
        }
        write::key(out, section);
        out.push('{');
        for part in parts {
            self.write_room(tx, out, part, rows, sources)?;
        }
        out.push('}');
        Ok(())
    }

    fn write_room(
        &self,
        tx: &mut Tx<'_>,
        out: &mut String,
        part: &RoomPart<'_>,
        rows: &FxHashMap<EventNum, EventRow>,
        sources: &Sources<'_>,
    ) -> Result<(), StoreError> {
        let filter = &self.request.filter;
        let options = EventOptions { room_id: false, federation: filter.federation, fields: filter.fields.as_deref() };
        write::key(out, part.room.room_id.as_str());
        out.push('{');
        write::key(out, "timeline");
        out.push_str("{\"events\":[");
        write_events(tx, out, &part.room, &part.timeline.rows, self.reader, part.history, options)?;
        if let Some(told) = part.told.and_then(|told| told.strip_prefix('[')?.strip_suffix(']')) {
            if !part.timeline.rows.is_empty() {
                out.push(',');
            }
            out.push_str(told);
        }
        let Timeline { limited, prev_batch, .. } = &part.timeline;
        write::push(out, format_args!("],\"limited\":{limited},\"prev_batch\":\"{prev_batch}\"}}"));
        write::key(out, self.request.state_after.unwrap_or("state"));
        out.push_str("{\"events\":[");
        let state: Vec<&EventRow> = part.state.iter().filter_map(|num| rows.get(num)).collect();
        write_state(tx, out, &part.room, &state, self.reader, part.history, options)?;
        out.push_str("]}");
        if !part.account_data.is_empty() {
            write::key(out, "account_data");
            out.push_str("{\"events\":[");
            account_data::write(out, &part.account_data, &filter.room_account_data);
            out.push_str("]}");
        }
        self.ephemeral(part).write(out, sources.ignored);
        if let Some(badge) = &part.badge {
            badge.write(out, filter.unread_threads);
        }
        if let Some(summary) = &part.summary {
            write::summary(tx, out, summary)?;
        }
        out.push('}');
        Ok(())
    }

    /// Rooms that the user is invited to or knocks at.
    fn write_offers(
        &self,
        tx: &mut Tx<'_>,
        out: &mut String,
        sources: &Sources<'_>,
        all: &[&[MembershipRow]],
        membership: Membership,
    ) -> Result<(), StoreError> {
        let section = membership.as_str();
        let before = out.len();
        write::key(out, section);
        out.push('{');
        for history in all {
            let Some(row) = history.last().filter(|row| row.membership == membership) else { continue };
            let is_new = sources.since.is_none_or(|since| row.since > since) || self.request.full_state;
            if !is_new || self.is_hidden_invite(sources, row) {
                continue;
            }
            let room = tx.rooms().by_num(row.room)?;
            if !self.request.filter.rooms.allows(&room.room_id) {
                continue;
            }
            write::key(out, room.room_id.as_str());
            let stripped = row.stripped.as_deref().unwrap_or("[]");
            write::push(out, format_args!("{{\"{section}_state\":{{\"events\":{stripped}}}}}"));
        }
        if out.ends_with('{') {
            out.truncate(before);
        } else {
            out.push('}');
        }
        Ok(())
    }
}

fn is_now(history: &[MembershipRow], membership: Membership) -> bool {
    history.last().is_some_and(|row| row.membership == membership)
}

fn was_joined(history: &[MembershipRow], at: Position) -> bool {
    history.iter().any(|row| row.membership == Membership::Join && row.covers(at))
}
