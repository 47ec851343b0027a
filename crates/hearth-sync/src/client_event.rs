//! Events as clients see them: client format, with what `unsigned` says to this reader, and who may see which.
//!
//! What all readers see alike is made once ([`Prepared`]); the reader's part is spliced in.
//! Spec: client-server API, "Room event format", "Room history visibility".

use std::fmt::Write;
use std::sync::Arc;

use hearth_matrix::canonical::write_string;
use hearth_matrix::client_format::{ClientFormat, write_event};
use hearth_matrix::redact::redact_content;
use hearth_matrix::ruma::OwnedUserId;
use hearth_matrix::{Pdu, RoomVersionRules};
use hearth_store::{
    DeviceNum, EventNum, EventRow, Membership, MembershipRow, Position, RoomRecord, StateKey, StoreError, Tx, UserNum,
    Visibility,
};
use rustc_hash::FxHashMap;

/// Who reads.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The user's number.
    pub user: UserNum,
    /// The user's id.
    pub user_id: OwnedUserId,
    /// The session's device: its own transaction ids are shown to it.
    pub device: Option<DeviceNum>,
    /// Now, for `age`.
    pub now_ms: i64,
}

/// How events are written.
#[derive(Clone, Copy, Debug, Default)]
pub struct EventOptions<'a> {
    /// Whether to name the room; `/sync` leaves it out.
    pub room_id: bool,
    /// Write the event as servers exchange it (`event_format`: `federation`).
    pub federation: bool,
    /// Write these fields only (`event_fields`); all if none.
    pub fields: Option<&'a [String]>,
}

/// Whether a reader with these memberships of the room (all intervals, oldest first) may see an event.
pub fn is_visible(
    tx: &mut Tx<'_>,
    history: &[MembershipRow],
    reader: UserNum,
    row: &EventRow,
) -> Result<bool, StoreError> {
    // Who merges branches of a room says nothing by it.
    if row.state_key.is_none() && tx.string_num(hearth_room::DUMMY_EVENT)? == Some(row.kind) {
        return Ok(false);
    }
    let own = row.state_key == Some(reader) && tx.string_num("m.room.member")? == Some(row.kind);
    if row.position.is_none() && matches!(row.visibility, Visibility::Invited | Visibility::Joined) {
        // History has no position, by which the memberships would tell what he was then: the state does.
        return Ok(match membership_after(tx, row, reader)? {
            Some(Membership::Join) => true,
            Some(Membership::Invite) => row.visibility == Visibility::Invited,
            Some(Membership::Leave | Membership::Ban) => own,
            Some(Membership::Knock) | None => false,
        });
    }
    Ok(may_see(history, row.position, row.visibility, own))
}

/// What a user was right after an event, by the state there.
fn membership_after(tx: &mut Tx<'_>, row: &EventRow, user: UserNum) -> Result<Option<Membership>, StoreError> {
    let (Some(snapshot), Some(kind)) = (row.state_after(), tx.string_num("m.room.member")?) else { return Ok(None) };
    let Some(event) = tx.state().get(row.room, snapshot, StateKey { kind, state_key: user })? else { return Ok(None) };
    let room = tx.rooms().by_num(row.room)?;
    Ok(tx.events().pdu(&room, event)?.membership().and_then(Membership::from_spec))
}

/// The same for an event of which this much is known. Of his own member events a reader sees those after which he may see
/// the room, and each that ends his stay.
pub(crate) fn may_see(
    history: &[MembershipRow],
    position: Option<Position>,
    visibility: Visibility,
    own_member_event: bool,
) -> bool {
    let after = membership_at(history, position);
    let before = position.and_then(|position| membership_at(history, Some(Position(position.0 - 1))));
    if own_member_event
        && (after.is_some_and(|it| matches!(it, Membership::Leave | Membership::Ban))
            || [before, after].contains(&Some(Membership::Join)))
    {
        return true;
    }
    match visibility {
        Visibility::WorldReadable => true,
        _ if after == Some(Membership::Join) => true,
        Visibility::Shared => history.iter().any(|row| {
            row.membership == Membership::Join && position.is_none_or(|at| row.until.is_none_or(|until| at < until))
        }),
        Visibility::Invited => after == Some(Membership::Invite),
        Visibility::Joined => false,
    }
}

/// The membership at a position; before the first interval there is none.
pub(crate) fn membership_at(history: &[MembershipRow], position: Option<Position>) -> Option<Membership> {
    let position = position?;
    history.iter().rev().find(|row| row.covers(position)).map(|row| row.membership)
}

/// An event as all readers see it, but for their part of `unsigned`.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The reader's part goes in at `splice`.
    text: Box<str>,
    splice: usize,
    origin_server_ts: i64,
}

/// What a reader's part of `unsigned` is made of.
pub(crate) struct ReaderPart<'a> {
    pub(crate) now_ms: i64,
    pub(crate) membership: Membership,
    pub(crate) transaction_id: Option<&'a str>,
}

/// What goes into a [`Prepared`].
pub(crate) struct Source<'a> {
    pub(crate) pdu: &'a Pdu,
    pub(crate) rules: &'a RoomVersionRules,
    pub(crate) redacted: bool,
    /// The event that redacted it, if we have it.
    pub(crate) redacted_because: Option<&'a Pdu>,
    /// The state event that it replaced; its content, unless that was redacted to nothing we know.
    pub(crate) replaces: Option<(&'a Pdu, Option<&'a str>)>,
}

impl Prepared {
    pub(crate) fn new(source: &Source<'_>) -> Result<Self, StoreError> {
        let mut text = String::new();
        source.write_head(&mut text, false)?;
        let splice = text.len();
        source.write_tail(&mut text);
        Ok(Self { text: text.into(), splice, origin_server_ts: source.pdu.origin_server_ts })
    }

    /// Appends it for one reader.
    pub(crate) fn write(&self, out: &mut String, part: &ReaderPart<'_>) {
        out.reserve(self.text.len() + 96);
        let (head, tail) = self.text.split_at(self.splice);
        out.push_str(head);
        part.write(out, self.origin_server_ts);
        out.push_str(tail);
    }
}

impl Source<'_> {
    /// Appends the event up to the begin of `unsigned`.
    fn write_head(&self, out: &mut String, room_id: bool) -> Result<(), StoreError> {
        let redacted = self.redacted.then(|| redacted_content(self.pdu, self.rules)).transpose()?;
        let format = ClientFormat { content: redacted.as_deref(), room_id, ..ClientFormat::default() };
        write_event(out, self.pdu, self.rules, format);
        out.pop();
        out.push_str(",\"unsigned\":{");
        Ok(())
    }

    /// Appends what comes after the reader's part of `unsigned`.
    fn write_tail(&self, out: &mut String) {
        if let Some((replaced, content)) = self.replaces {
            out.push_str(",\"prev_content\":");
            out.push_str(content.unwrap_or(replaced.content.get()));
            out.push_str(",\"replaces_state\":");
            write_string(out, replaced.event_id.as_str());
            // Not of the specification, but clients look for it: who invited somebody who has joined since.
            out.push_str(",\"prev_sender\":");
            write_string(out, replaced.sender.as_str());
        }
        if let Some(because) = self.redacted_because {
            out.push_str(",\"redacted_because\":");
            write_event(out, because, self.rules, ClientFormat::default());
        }
        out.push_str("}}");
    }

    /// Appends the event for one reader.
    fn write(&self, out: &mut String, room_id: bool, part: &ReaderPart<'_>) -> Result<(), StoreError> {
        self.write_head(out, room_id)?;
        part.write(out, self.pdu.origin_server_ts);
        self.write_tail(out);
        Ok(())
    }
}

impl ReaderPart<'_> {
    fn write(&self, out: &mut String, origin_server_ts: i64) {
        let (age, membership) = (self.now_ms.saturating_sub(origin_server_ts), self.membership.as_str());
        // Writing to a string does not fail.
        let _ = write!(out, "\"age\":{age},\"membership\":\"{membership}\"");
        if let Some(txn_id) = self.transaction_id {
            out.push_str(",\"transaction_id\":");
            write_string(out, txn_id);
        }
    }
}

/// The content that redaction leaves of an event.
fn redacted_content(pdu: &Pdu, rules: &RoomVersionRules) -> Result<String, StoreError> {
    redact_content(&pdu.kind, pdu.content.get(), rules)
        .map_err(|error| StoreError::Damaged(format!("{}: {error}", pdu.event_id)))
}

/// Appends events of one room, comma-separated, in the order given. Whose JSON is deleted is left out.
///
/// `history`: all intervals of the reader's membership of the room. Visibility was judged before.
pub fn write_events(
    tx: &mut Tx<'_>,
    out: &mut String,
    room: &RoomRecord,
    rows: &[EventRow],
    reader: &Reader,
    history: &[MembershipRow],
    options: EventOptions<'_>,
) -> Result<(), StoreError> {
    let loaded = Loaded::of(tx, room, rows)?;
    let mut first = true;
    for row in rows {
        let Some(source) = loaded.source(room, row)? else { continue };
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        let part = reader_part(tx, room, row, reader, history)?;
        write_one(out, &source, &part, options)?;
    }
    Ok(())
}

/// The same for state, without what each event replaced: clients that are told of a state have no use for it.
pub(crate) fn write_state(
    tx: &mut Tx<'_>,
    out: &mut String,
    room: &RoomRecord,
    rows: &[&EventRow],
    reader: &Reader,
    history: &[MembershipRow],
    options: EventOptions<'_>,
) -> Result<(), StoreError> {
    let mut wanted: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
    wanted.extend(rows.iter().filter_map(|row| row.redacted_by));
    let loaded = Loaded { pdus: load_pdus(tx, room, &wanted)?, replaced: FxHashMap::default() };
    let mut first = true;
    for row in rows {
        let Some(source) = loaded.source(room, row)? else { continue };
        if !std::mem::take(&mut first) {
            out.push(',');
        }
        let part = reader_part(tx, room, row, reader, history)?;
        write_one(out, &source, &part, options)?;
    }
    Ok(())
}

fn reader_part<'a>(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    row: &'a EventRow,
    reader: &Reader,
    history: &[MembershipRow],
) -> Result<ReaderPart<'a>, StoreError> {
    let membership = match row.position {
        Some(_) => membership_at(history, row.position),
        None => membership_in_state(tx, room, row, reader.user)?,
    };
    Ok(ReaderPart {
        now_ms: reader.now_ms,
        membership: membership.unwrap_or(Membership::Leave),
        transaction_id: match &row.txn {
            Some((device, txn_id)) if reader.device == Some(*device) => Some(txn_id),
            _ => None,
        },
    })
}

fn write_one(
    out: &mut String,
    source: &Source<'_>,
    part: &ReaderPart<'_>,
    options: EventOptions<'_>,
) -> Result<(), StoreError> {
    let write_whole = |out: &mut String| match options.federation {
        true => write_federation(out, source, part),
        false => source.write(out, options.room_id, part),
    };
    let Some(fields) = options.fields else { return write_whole(out) };
    let mut whole = String::new();
    write_whole(&mut whole)?;
    write_fields(out, &whole, fields)
}

/// The event as servers exchange it, `unsigned` added.
fn write_federation(out: &mut String, source: &Source<'_>, part: &ReaderPart<'_>) -> Result<(), StoreError> {
    let pdu = source.pdu;
    let json = match source.redacted {
        false => std::borrow::Cow::Borrowed(&*pdu.json),
        true => std::borrow::Cow::Owned(
            hearth_matrix::redact::redact(&pdu.json, source.rules, None)
                .map_err(|error| StoreError::Damaged(format!("{}: {error}", pdu.event_id)))?,
        ),
    };
    out.push_str(json.strip_suffix('}').unwrap_or(&json));
    out.push_str(",\"unsigned\":{");
    part.write(out, pdu.origin_server_ts);
    source.write_tail(out);
    Ok(())
}

/// Only some fields of an event: `content.body` names a field in a field, `\.` is a dot in a name.
fn write_fields(out: &mut String, event: &str, fields: &[String]) -> Result<(), StoreError> {
    use serde_json::{Map, Value};
    let whole: Value = serde_json::from_str(event).map_err(|error| StoreError::Damaged(error.to_string()))?;
    let mut kept = Map::new();
    for field in fields {
        let path = split_path(field);
        if let Some(value) = path.iter().try_fold(&whole, |value, name| value.get(name)) {
            keep(&mut kept, &path, value);
        }
    }
    out.push_str(&Value::Object(kept).to_string());
    Ok(())
}

fn keep(kept: &mut serde_json::Map<String, serde_json::Value>, path: &[String], value: &serde_json::Value) {
    match path {
        [] => {}
        [name] => {
            kept.insert(name.clone(), value.clone());
        }
        [name, rest @ ..] => {
            let below = kept.entry(name.clone()).or_insert_with(|| serde_json::Value::Object(serde_json::Map::new()));
            if let Some(below) = below.as_object_mut() {
                keep(below, rest, value);
            }
        }
    }
}

fn split_path(field: &str) -> Vec<String> {
    let mut path = vec![String::new()];
    let mut chars = field.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '.' => path.push(String::new()),
            '\\' if matches!(chars.peek(), Some('.' | '\\')) => {
                if let (Some(last), Some(c)) = (path.last_mut(), chars.next()) {
                    last.push(c);
                }
            }
            c => {
                if let Some(last) = path.last_mut() {
                    last.push(c);
                }
            }
        }
    }
    path
}

/// The membership of a user in the state right before an event of which we have no position.
fn membership_in_state(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    row: &EventRow,
    user: UserNum,
) -> Result<Option<Membership>, StoreError> {
    let (Some(snapshot), Some(kind)) = (row.snapshot_before, tx.string_num("m.room.member")?) else { return Ok(None) };
    let event = if row.kind == kind && row.state_key == Some(user) {
        Some(row.num)
    } else {
        tx.state().get(room.num, snapshot, StateKey { kind, state_key: user })?
    };
    let Some(event) = event else { return Ok(None) };
    Ok(tx.events().pdu(room, event)?.membership().and_then(Membership::from_spec))
}

/// What a page of events is made of, brought together with few queries.
struct Loaded {
    pdus: FxHashMap<EventNum, Arc<Pdu>>,
    replaced: FxHashMap<EventNum, (EventNum, Option<String>)>,
}

impl Loaded {
    fn of(tx: &mut Tx<'_>, room: &RoomRecord, rows: &[EventRow]) -> Result<Self, StoreError> {
        let mut wanted: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        wanted.extend(rows.iter().filter_map(|row| row.redacted_by));
        let mut before = Vec::new();
        for row in rows {
            let (Some(state_key), Some(snapshot)) = (row.state_key, row.snapshot_before) else { continue };
            let key = StateKey { kind: row.kind, state_key };
            if let Some(num) = tx.state().get(room.num, snapshot, key)? {
                before.push((row.num, num));
                wanted.push(num);
            }
        }
        let nums: Vec<i64> = before.iter().map(|(_, num)| num.0).collect();
        let redacted: Vec<EventNum> =
            tx.events().rows(&nums)?.iter().filter(|row| row.redacted_by.is_some()).map(|row| row.num).collect();
        let pdus = load_pdus(tx, room, &wanted)?;
        let mut replaced = FxHashMap::default();
        for (num, earlier) in before {
            let content = match pdus.get(&earlier) {
                Some(pdu) if redacted.contains(&earlier) => Some(redacted_content(pdu, room.rules)?),
                _ => None,
            };
            replaced.insert(num, (earlier, content));
        }
        Ok(Self { pdus, replaced })
    }

    fn source<'a>(&'a self, room: &'a RoomRecord, row: &EventRow) -> Result<Option<Source<'a>>, StoreError> {
        let Some(pdu) = self.pdus.get(&row.num) else { return Ok(None) };
        Ok(Some(Source {
            pdu,
            rules: room.rules,
            redacted: row.redacted_by.is_some(),
            redacted_because: row.redacted_by.and_then(|num| self.pdus.get(&num)).map(|pdu| &**pdu),
            replaces: self
                .replaced
                .get(&row.num)
                .and_then(|(num, content)| Some((&**self.pdus.get(num)?, content.as_deref()))),
        }))
    }
}

fn load_pdus(
    tx: &mut Tx<'_>,
    room: &RoomRecord,
    nums: &[EventNum],
) -> Result<FxHashMap<EventNum, Arc<Pdu>>, StoreError> {
    let found = tx.events().pdus(room, nums)?;
    if found.len() == nums.len() {
        return Ok(nums.iter().copied().zip(found).collect());
    }
    // Some are gone: ask one by one for those that are there.
    let mut pdus = FxHashMap::default();
    for num in nums {
        if let Some(pdu) = tx.events().pdus(room, &[*num])?.pop() {
            pdus.insert(*num, pdu);
        }
    }
    Ok(pdus)
}

#[cfg(test)]
mod tests {
    use hearth_store::{EventNum, Membership, MembershipRow, Position, RoomNum, StringNum, Visibility};

    use super::{may_see, membership_at, split_path, write_fields};

    /// Intervals that follow one another: (since, membership).
    fn history(intervals: &[(i64, Membership)]) -> Vec<MembershipRow> {
        let ends = intervals.iter().skip(1).map(|(since, _)| Some(Position(*since))).chain([None]);
        intervals
            .iter()
            .zip(ends)
            .map(|((since, membership), until)| MembershipRow {
                room: RoomNum(1),
                user: StringNum(1),
                since: Position(*since),
                until,
                membership: *membership,
                event: EventNum(1),
                sender: StringNum(1),
                forgotten: false,
                stripped: None,
                told: None,
            })
            .collect()
    }

    #[test]
    fn history_is_visible_as_the_specification_says() {
        use Membership::{Invite, Join, Leave};
        use Visibility::{Invited, Joined, Shared, WorldReadable};
        let member = history(&[(10, Invite), (20, Join), (30, Leave)]);
        let cases = [
            // Before the invite, at it, between, at the join, between, at the leave, after it.
            (Joined, [false, false, false, true, true, false, false]),
            (Invited, [false, true, true, true, true, false, false]),
            (Shared, [true, true, true, true, true, false, false]),
            (WorldReadable, [true; 7]),
        ];
        for (visibility, expected) in cases {
            for (at, expected) in [5, 10, 15, 20, 25, 30, 35].into_iter().zip(expected) {
                let seen = may_see(&member, Some(Position(at)), visibility, false);
                assert_eq!(seen, expected, "{visibility:?} at {at}");
            }
        }
        let invited = history(&[(10, Invite)]);
        assert!(!may_see(&invited, Some(Position(5)), Shared, false));
        assert!(!may_see(&[], Some(Position(5)), Shared, false));
        assert!(may_see(&member, None, Shared, false));
        assert!(!may_see(&member, None, Joined, false));
    }

    #[test]
    fn who_leaves_sees_it() {
        let rejected = history(&[(10, Membership::Invite), (20, Membership::Leave)]);
        assert!(may_see(&rejected, Some(Position(20)), Visibility::Joined, true));
        assert!(!may_see(&rejected, Some(Position(20)), Visibility::Joined, false));
    }

    #[test]
    fn membership_is_that_after_the_own_event() {
        let member = history(&[(10, Membership::Invite), (20, Membership::Join)]);
        assert_eq!(membership_at(&member, Some(Position(9))), None);
        assert_eq!(membership_at(&member, Some(Position(19))), Some(Membership::Invite));
        assert_eq!(membership_at(&member, Some(Position(20))), Some(Membership::Join));
    }

    #[test]
    fn fields_are_picked_by_path() {
        assert_eq!(split_path(r"content.m\.relates_to.a\\b"), ["content", "m.relates_to", r"a\b"]);
        let event = r#"{"content":{"body":"x","a.b":1,"other":2},"type":"m.room.message"}"#;
        let mut out = String::new();
        write_fields(&mut out, event, &["content.body".into(), r"content.a\.b".into(), "nothing.there".into()])
            .unwrap();
        let picked: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(picked, serde_json::json!({"content": {"body": "x", "a.b": 1}}));
    }
}
