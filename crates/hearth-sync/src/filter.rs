//! Filters, made ready for use.
//!
//! Spec: client-server API, "Filtering". What clients keep here is `hearth-user`'s; this says what passes.

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::api::client::filter::{
    EventFormat, Filter as PlainFilter, FilterDefinition, LazyLoadOptions, RoomEventFilter, UrlFilter,
};
use hearth_matrix::ruma::{OwnedRoomId, OwnedUserId, RoomId};
use hearth_store::UserNum;
use hearth_user::filters::{self, FilterError};
use quick_cache::sync::Cache;

use crate::Syncs;

/// Events of a timeline if the client names no number.
const TIMELINE_DEFAULT: usize = 10;
/// Events of a timeline at most.
const TIMELINE_MOST: usize = 100;

/// Filters kept ready, of each kind.
const KEPT: usize = 2_000;
/// Largest inline filter that is kept ready.
const INLINE_BYTES: usize = 1_024;

/// A filter of `/sync`.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only these fields of events.
    pub(crate) fields: Option<Vec<String>>,
    /// Events as servers exchange them.
    pub(crate) federation: bool,
    pub(crate) include_leave: bool,
    pub(crate) rooms: RoomMatch,
    pub(crate) account_data: EventMatch,
    pub(crate) presence: EventMatch,
    pub(crate) presence_limit: usize,
    pub(crate) room_account_data: EventMatch,
    pub(crate) ephemeral: EventMatch,
    pub(crate) timeline: EventMatch,
    pub(crate) timeline_limit: usize,
    /// Unread counts of threads apart.
    pub(crate) unread_threads: bool,
    pub(crate) state: EventMatch,
    /// Members only where they are needed.
    pub(crate) lazy_members: bool,
    /// Members also where they were sent before.
    pub(crate) redundant_members: bool,
}

/// Which rooms pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct RoomMatch {
    only: Option<Vec<OwnedRoomId>>,
    not: Vec<OwnedRoomId>,
}

/// Which events pass.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventMatch {
    types: Option<Vec<Pattern>>,
    not_types: Vec<Pattern>,
    senders: Option<Vec<OwnedUserId>>,
    not_senders: Vec<OwnedUserId>,
    rooms: RoomMatch,
    url: Option<bool>,
}

impl Filter {
    /// The filter of a client that has none.
    pub fn none() -> Self {
        Self::new(FilterDefinition::default())
    }

    /// From what the client wrote.
    pub fn new(filter: FilterDefinition) -> Self {
        let room = filter.room;
        let limit = room.timeline.limit.map_or(TIMELINE_DEFAULT, |limit| usize::try_from(limit).unwrap_or(usize::MAX));
        let (lazy_members, redundant_members) = match room.state.lazy_load_options {
            LazyLoadOptions::Enabled { include_redundant_members } => (true, include_redundant_members),
            LazyLoadOptions::Disabled => (false, false),
        };
        Self {
            fields: filter.event_fields.filter(|fields| !fields.is_empty()),
            federation: filter.event_format == EventFormat::Federation,
            include_leave: room.include_leave,
            rooms: RoomMatch { only: room.rooms, not: room.not_rooms },
            account_data: EventMatch::plain(filter.account_data),
            presence_limit: filter
                .presence
                .limit
                .map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(usize::MAX)),
            presence: EventMatch::plain(filter.presence),
            room_account_data: EventMatch::of_room(room.account_data),
            ephemeral: EventMatch::of_room(room.ephemeral),
            unread_threads: room.timeline.unread_thread_notifications,
            timeline: EventMatch::of_room(room.timeline),
            timeline_limit: limit.min(TIMELINE_MOST),
            state: EventMatch::of_room(room.state),
            lazy_members,
            redundant_members,
        }
    }

    /// Whether presence is wanted at all.
    pub(crate) fn wants_presence(&self) -> bool {
        self.presence_limit > 0 && !self.presence.is_shut() && self.presence.allows_type("m.presence")
    }

    /// Whether events are written as they are.
    pub(crate) fn is_plain_format(&self) -> bool {
        self.fields.is_none() && !self.federation
    }
}

/// Filters that clients named lately, ready for use.
pub(crate) struct Filters {
    none: Arc<Filter>,
    stored: Cache<(UserNum, i64), Arc<Filter>>,
    inline: Cache<Box<str>, Arc<Filter>>,
}

impl Filters {
    pub(crate) fn new() -> Self {
        Self { none: Arc::new(Filter::none()), stored: Cache::new(KEPT), inline: Cache::new(KEPT) }
    }
}

impl Syncs {
    /// The filter that a client names: by its id, or as JSON.
    pub async fn filter(&self, user: UserNum, named: Option<&str>) -> Result<Arc<Filter>, FilterError> {
        let filters = &self.inner.filters;
        match named {
            None | Some("") => Ok(Arc::clone(&filters.none)),
            Some(json) if json.starts_with('{') => {
                if let Some(known) = filters.inline.get(json) {
                    return Ok(known);
                }
                let filter = Arc::new(Filter::new(filters::parse(json)?));
                if json.len() <= INLINE_BYTES {
                    filters.inline.insert(json.into(), Arc::clone(&filter));
                }
                Ok(filter)
            }
            Some(filter_id) => {
                let num: i64 = filter_id.parse().map_err(|_| FilterError::NotFound)?;
                if let Some(known) = filters.stored.get(&(user, num)) {
                    return Ok(known);
                }
                let read = self.inner.store.read(move |tx| tx.filters().get(user, num));
                let json = read.await?.ok_or(FilterError::NotFound)?;
                let filter = Arc::new(Filter::new(filters::parse(&json)?));
                // What has a number never changes.
                filters.stored.insert((user, num), Arc::clone(&filter));
                Ok(filter)
            }
        }
    }
}

impl RoomMatch {
    pub(crate) fn allows(&self, room_id: &RoomId) -> bool {
        self.only.as_ref().is_none_or(|only| only.iter().any(|id| id == room_id))
            && !self.not.iter().any(|id| id == room_id)
    }
}

impl EventMatch {
    fn plain(filter: PlainFilter) -> Self {
        Self {
            types: filter.types.map(patterns),
            not_types: patterns(filter.not_types),
            senders: filter.senders,
            not_senders: filter.not_senders,
            ..Self::default()
        }
    }

    fn of_room(filter: RoomEventFilter) -> Self {
        Self {
            types: filter.types.map(patterns),
            not_types: patterns(filter.not_types),
            senders: filter.senders,
            not_senders: filter.not_senders,
            rooms: RoomMatch { only: filter.rooms, not: filter.not_rooms },
            url: filter.url_filter.map(|url| url == UrlFilter::EventsWithUrl),
        }
    }

    /// Whether every event passes, of whatever room.
    pub(crate) fn is_open(&self) -> bool {
        self.is_open_to_types()
            && self.is_open_to_senders()
            && self.url.is_none()
            && self.rooms.only.is_none()
            && self.rooms.not.is_empty()
    }

    fn is_open_to_types(&self) -> bool {
        self.types.is_none() && self.not_types.is_empty()
    }

    pub(crate) fn is_open_to_senders(&self) -> bool {
        self.senders.is_none() && self.not_senders.is_empty()
    }

    pub(crate) fn is_open_to_content(&self) -> bool {
        self.url.is_none()
    }

    /// Whether nothing passes.
    pub(crate) fn is_shut(&self) -> bool {
        self.types.as_ref().is_some_and(Vec::is_empty)
            || self.senders.as_ref().is_some_and(Vec::is_empty)
            || self.rooms.only.as_ref().is_some_and(Vec::is_empty)
    }

    pub(crate) fn allows_room(&self, room_id: &RoomId) -> bool {
        self.rooms.allows(room_id)
    }

    pub(crate) fn allows_type(&self, kind: &str) -> bool {
        self.types.as_ref().is_none_or(|types| types.iter().any(|pattern| pattern.matches(kind)))
            && !self.not_types.iter().any(|pattern| pattern.matches(kind))
    }

    pub(crate) fn allows_sender(&self, sender: &str) -> bool {
        self.senders.as_ref().is_none_or(|senders| senders.iter().any(|user| user.as_str() == sender))
            && !self.not_senders.iter().any(|user| user.as_str() == sender)
    }

    pub(crate) fn allows_content(&self, content: &str) -> bool {
        self.url.is_none_or(|wanted| has_url(content) == wanted)
    }

    /// Whether an event passes whose room does.
    pub(crate) fn allows(&self, pdu: &Pdu) -> bool {
        self.allows_type(&pdu.kind) && self.allows_sender(pdu.sender.as_str()) && self.allows_content(pdu.content.get())
    }
}

fn has_url(content: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Content {
        url: Option<serde::de::IgnoredAny>,
    }
    content.contains("\"url\"") && serde_json::from_str::<Content>(content).is_ok_and(|content| content.url.is_some())
}

/// An event type in which `*` stands for anything.
#[derive(Clone, Debug)]
struct Pattern(String);

fn patterns(texts: Vec<String>) -> Vec<Pattern> {
    texts.into_iter().map(Pattern).collect()
}

impl Pattern {
    fn matches(&self, text: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = text.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use hearth_matrix::ruma::room_id;

    use super::{Filter, Pattern, has_url};

    fn filter(json: serde_json::Value) -> Filter {
        Filter::new(serde_json::from_value(json).unwrap())
    }

    #[test]
    fn stars_match_anything() {
        let cases = [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.name", true),
            ("m.room.*", "m.roomname", false),
            ("*", "", true),
            ("*.name", "m.room.name", true),
            ("m.*.n*e", "m.room.name", true),
            ("m.*.n*e", "m.room.topic", false),
            ("a*a", "a", false),
            ("", "m.room.name", false),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(Pattern(pattern.to_owned()).matches(text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn exclusion_wins() {
        let filter = filter(serde_json::json!({
            "room": {
                "rooms": ["!a:x", "!b:x"], "not_rooms": ["!b:x"],
                "timeline": {"types": ["m.room.*"], "not_types": ["m.room.name"], "not_senders": ["@b:x"], "limit": 3},
                "state": {"types": []},
            }
        }));
        assert!(filter.rooms.allows(room_id!("!a:x")));
        assert!(!filter.rooms.allows(room_id!("!b:x")));
        assert!(!filter.rooms.allows(room_id!("!c:x")));
        assert!(filter.timeline.allows_type("m.room.topic"));
        assert!(!filter.timeline.allows_type("m.room.name"));
        assert!(!filter.timeline.allows_type("other"));
        assert!(filter.timeline.allows_sender("@a:x"));
        assert!(!filter.timeline.allows_sender("@b:x"));
        assert_eq!(filter.timeline_limit, 3);
        assert!(filter.state.is_shut());
        assert!(Filter::none().timeline.is_open());
    }

    #[test]
    fn an_url_is_a_key_of_the_content() {
        assert!(has_url(r#"{"url":"mxc://x/y"}"#));
        assert!(!has_url(r#"{"body":"\"url\"","file":{"url":"x"}}"#));
        assert!(!has_url(r#"{"body":"no"}"#));
    }
}
