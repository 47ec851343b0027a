//! Answers from the window of recent changes: plain events and receipts of joined rooms, without a query.
//!
//! So are people who come into rooms of many. Whatever is rarer or harder (who leaves, state that must be told apart, long
//! timelines, special formats) is left to the store.

use hearth_store::{EventNum, Membership, Position, RoomNum, UserNum};

use super::SyncRequest;
use super::write::{self, Ephemeral};
use crate::SyncToken;
use crate::client_event::{Reader, ReaderPart};
use crate::hub::{RoomNews, RoomsNews};
use crate::lazy::LazyMembers;
use crate::streams::receipts::Told;
use crate::window::LiveEvent;

/// In a room with more members, nobody who comes in is one by whom the room is called.
const FIRST_COMERS: i64 = 8;

pub(super) struct Window<'a> {
    pub(super) request: &'a SyncRequest,
    pub(super) reader: Reader,
    /// Where the client stands.
    pub(super) since: Position,
    pub(super) token: SyncToken,
    pub(super) typing: &'a [hearth_room::TypingInRoom],
}

impl Window<'_> {
    /// The answer, and whether it is empty. None if it takes the store.
    pub(super) fn answer(&self, lazy: &LazyMembers, news: &RoomsNews) -> Option<(String, bool)> {
        let filter = &self.request.filter;
        if !filter.is_plain_format() {
            return None;
        }
        let mut out = String::with_capacity(2048);
        write::begin(&mut out, self.token);
        let head = out.len();
        out.push_str(",\"rooms\":{\"join\":{");
        let mut empty = true;
        for (room, news_of_room) in &news.rooms {
            let typing = self.typing.iter().find(|typing| typing.room == *room);
            empty &= !self.room(&mut out, lazy, news, news_of_room, typing)?;
        }
        if empty {
            out.truncate(head);
        } else {
            out.push_str("}}");
        }
        let presence = write::wanted_presence(&news.presence, filter);
        write::end(&mut out, &presence, self.reader.now_ms);
        if filter.lazy_members {
            lazy.note(self.request.device, news.upto, &[], &self.members(news));
        }
        Some((out, empty && presence.is_empty()))
    }

    /// True if there was something to tell of the room; none if it takes the store.
    fn room(
        &self,
        out: &mut String,
        lazy: &LazyMembers,
        all: &RoomsNews,
        news: &RoomNews,
        typing: Option<&hearth_room::TypingInRoom>,
    ) -> Option<bool> {
        let filter = &self.request.filter;
        let room_id = &news.stay.room_id;
        if !filter.rooms.allows(room_id) || news.stay.partial && !filter.lazy_members {
            return Some(false);
        }
        let mut shown: Vec<(Position, &LiveEvent)> = Vec::new();
        let mut counts = None;
        for (position, live) in &news.events {
            let event = &live.event;
            if !live.in_line {
                return None;
            }
            match event.membership {
                None | Some((_, Some(Membership::Join), Membership::Join)) => {}
                // The heroes are those who came first.
                Some((_, None | Some(Membership::Leave), Membership::Join))
                    if event.member_counts.is_some_and(|(joined, _)| joined > FIRST_COMERS) =>
                {
                    counts = event.member_counts;
                }
                Some(_) => return None,
            }
            if &*event.pdu.kind == hearth_room::DUMMY_EVENT {
                continue;
            }
            let passes = filter.timeline.is_open()
                || (filter.timeline.allows_room(room_id) && filter.timeline.allows(&event.pdu));
            if event.state_key.is_some() {
                if !passes || self.request.state_after.is_some() {
                    return None;
                }
            } else if !passes || all.ignored.contains(&event.sender) {
                continue;
            }
            let tells_of_sender = event.membership.is_some_and(|(user, _, _)| user == event.sender);
            if filter.lazy_members
                && !tells_of_sender
                && (filter.redundant_members
                    || !lazy.has(self.request.device, event.room, self.since, event.sender, None))
            {
                return None;
            }
            shown.push((*position, live));
        }
        if shown.len() > filter.timeline_limit {
            return None;
        }
        let receipts = receipts(news);
        let ephemeral = Ephemeral { receipts: &receipts, typing }.passing(&filter.ephemeral, room_id);
        // The user's own receipt alone changes the counts, too.
        let own = receipts.iter().any(|told| *told.user_id == *self.reader.user_id.as_str());
        if shown.is_empty() && ephemeral.is_empty() && !own {
            return Some(false);
        }
        let badge = match news.events.is_empty() && !own {
            true => None,
            false => Some(news.stay.badge.as_ref()?),
        };

        write::key(out, room_id.as_str());
        out.push('{');
        if !shown.is_empty() {
            self.timeline(out, &shown)?;
        }
        ephemeral.write(out, &all.ignored);
        if let Some(badge) = badge {
            badge.write(out, filter.unread_threads);
        }
        if let Some((joined, invited)) = counts {
            write::key(out, "summary");
            let invited = format_args!("\"m.invited_member_count\":{invited}");
            write::push(out, format_args!("{{\"m.joined_member_count\":{joined},{invited}}}"));
        }
        out.push('}');
        Some(true)
    }

    /// Members that the client is told of by their own events.
    fn members(&self, news: &RoomsNews) -> Vec<(RoomNum, UserNum, EventNum)> {
        let rooms = news.rooms.iter().filter(|(_, news)| self.request.filter.rooms.allows(&news.stay.room_id));
        let events = rooms.flat_map(|(_, news)| &news.events);
        events.filter_map(|(_, live)| Some((live.event.room, live.event.membership?.0, live.event.num))).collect()
    }

    fn timeline(&self, out: &mut String, shown: &[(Position, &LiveEvent)]) -> Option<()> {
        write::key(out, "timeline");
        out.push_str("{\"events\":[");
        for (n, (_, live)) in shown.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            self.event(out, live)?;
        }
        // Right before the first event; all before it was sent.
        let position = shown.first().map_or(self.token.position, |(position, _)| Position(position.0 - 1));
        let prev_batch = SyncToken { position, ..self.token };
        write::push(out, format_args!("],\"limited\":false,\"prev_batch\":\"{prev_batch}\"}}"));
        write::key(out, self.request.state_after.unwrap_or("state"));
        out.push_str("{\"events\":[]}");
        Some(())
    }

    fn event(&self, out: &mut String, live: &LiveEvent) -> Option<()> {
        let transaction_id = match &live.event.txn {
            Some((device, txn_id)) if self.reader.device == Some(*device) => Some(&**txn_id),
            _ => None,
        };
        let part = ReaderPart { now_ms: self.reader.now_ms, membership: Membership::Join, transaction_id };
        live.prepared()?.write(out, &part);
        Some(())
    }
}

/// Of each user, kind and thread the last one.
fn receipts(news: &RoomNews) -> Vec<Told> {
    let mut receipts: Vec<Told> = Vec::new();
    for (private, receipt) in &news.receipts {
        receipts.retain(|told| {
            told.user_id != receipt.user_id || told.private != *private || *told.thread != *receipt.thread
        });
        receipts.push(Told {
            user_id: receipt.user_id.clone(),
            event_id: receipt.event_id.to_string(),
            private: *private,
            thread: receipt.thread.to_string(),
            ts: receipt.ts,
        });
    }
    receipts
}
