//! The pieces of an answer that both assemblers write alike.

use std::fmt::{Display, Write};

use hearth_matrix::canonical::write_string;
use hearth_store::{StoreError, Tx, UserNum};
use hearth_user::presence::Seen;
use rustc_hash::FxHashSet;

use crate::SyncToken;
use crate::filter::{EventMatch, Filter};
use crate::hub::PresenceNews;
use crate::streams::receipts::{self, Told};
use crate::streams::summary::Summary;

/// Appends what can be displayed.
pub(crate) fn push(out: &mut String, what: impl Display) {
    // Writing to a string does not fail.
    let _ = write!(out, "{what}");
}

/// Appends `"KEY":` after a comma, unless it comes first.
pub(crate) fn key(out: &mut String, key: &str) {
    if !out.ends_with('{') {
        out.push(',');
    }
    write_string(out, key);
    out.push(':');
}

/// How every answer begins and ends.
pub(super) fn begin(out: &mut String, next_batch: SyncToken) {
    out.push('{');
    key(out, "next_batch");
    push(out, format_args!("\"{next_batch}\""));
}

pub(super) fn end(out: &mut String, presence: &[&Seen], now_ms: i64) {
    out.push_str(",\"to_device\":{\"events\":[]},\"presence\":{\"events\":[");
    self::presence(out, presence.iter().copied(), now_ms);
    out.push_str("]}");
    out.push_str(",\"device_one_time_keys_count\":{},\"device_unused_fallback_key_types\":[]}");
}

/// Appends presence events, comma-separated.
pub(crate) fn presence<'a>(out: &mut String, seen: impl Iterator<Item = &'a Seen>, now_ms: i64) {
    for (n, seen) in seen.enumerate() {
        if n > 0 {
            out.push(',');
        }
        seen.write(out, now_ms);
    }
}

/// The answer of which only the token is new.
pub(super) fn nothing(next_batch: SyncToken) -> String {
    let mut out = String::with_capacity(256);
    begin(&mut out, next_batch);
    end(&mut out, &[], 0);
    out
}

/// The presence that a client wants: of too many the newest.
pub(super) fn wanted_presence<'a>(news: &'a PresenceNews, filter: &Filter) -> Vec<&'a Seen> {
    if !filter.wants_presence() {
        return Vec::new();
    }
    let mut seen: Vec<&Seen> =
        news.seen.iter().filter(|seen| filter.presence.allows_sender(&seen.shown.user_id)).collect();
    if seen.len() > filter.presence_limit {
        seen.sort_unstable_by_key(|seen| seen.changed);
        seen.drain(..seen.len() - filter.presence_limit);
    }
    seen
}

/// The ephemeral events of a room that a client wants.
pub(super) struct Ephemeral<'a> {
    pub(super) receipts: &'a [Told],
    pub(super) typing: Option<&'a hearth_room::TypingInRoom>,
}

impl<'a> Ephemeral<'a> {
    /// Only what passes.
    pub(super) fn passing(self, filter: &EventMatch, room_id: &hearth_matrix::ruma::RoomId) -> Self {
        let open = filter.allows_room(room_id);
        Self {
            receipts: if open && filter.allows_type("m.receipt") { self.receipts } else { &[] },
            typing: self.typing.filter(|_| open && filter.allows_type("m.typing")),
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.receipts.is_empty() && self.typing.is_none()
    }

    /// Writes them, also where there are none: clients look for the list.
    pub(super) fn write(&self, out: &mut String, ignored: &FxHashSet<UserNum>) {
        key(out, "ephemeral");
        out.push_str("{\"events\":[");
        if let Some(typing) = self.typing {
            out.push_str("{\"content\":{\"user_ids\":[");
            let users = typing.users.iter().filter(|(user, _)| !ignored.contains(user));
            for (n, (_, user_id)) in users.enumerate() {
                if n > 0 {
                    out.push(',');
                }
                write_string(out, user_id.as_str());
            }
            out.push_str("]},\"type\":\"m.typing\"}");
        }
        if !self.receipts.is_empty() {
            if self.typing.is_some() {
                out.push(',');
            }
            receipts::write(out, self.receipts);
        }
        out.push_str("]}");
    }
}

/// The summary of a room.
pub(super) fn summary(tx: &mut Tx<'_>, out: &mut String, summary: &Summary) -> Result<(), StoreError> {
    key(out, "summary");
    out.push('{');
    if let Some(heroes) = &summary.heroes {
        key(out, "m.heroes");
        out.push('[');
        for (n, hero) in heroes.iter().enumerate() {
            if n > 0 {
                out.push(',');
            }
            hearth_matrix::canonical::write_string(out, &tx.string(*hero)?);
        }
        out.push(']');
    }
    key(out, "m.joined_member_count");
    push(out, summary.joined);
    key(out, "m.invited_member_count");
    push(out, summary.invited);
    out.push('}');
    Ok(())
}
