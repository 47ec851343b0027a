//! Which events of a room a client asks for.
//!
//! Spec: client-server API, "Filtering", `RoomEventFilter`.

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_store::{EventNum, EventRow, RoomRecord, StoreError, StringNum, Tx};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::ViewError;

/// A filter as clients write it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RoomEventFilter {
    /// Event types, with `*` for anything; all if absent.
    pub types: Option<Vec<String>>,
    /// Event types that are left out.
    pub not_types: Option<Vec<String>>,
    /// Senders; all if absent.
    pub senders: Option<Vec<String>>,
    /// Senders that are left out.
    pub not_senders: Option<Vec<String>>,
    /// Rooms; all if absent.
    pub rooms: Option<Vec<String>>,
    /// Rooms that are left out.
    pub not_rooms: Option<Vec<String>>,
    /// Only events that have a `url` in their content, or only those that have none.
    pub contains_url: Option<bool>,
    /// Of the members only those matter that sent what is shown.
    pub lazy_load_members: bool,
    /// Only events to which others relate in one of these ways.
    pub related_by_rel_types: Option<Vec<String>>,
    /// Only events to which events of one of these senders relate.
    pub related_by_senders: Option<Vec<String>>,
    /// Most events.
    pub limit: Option<u64>,
}

impl RoomEventFilter {
    /// Whether it picks events out of those of the room.
    pub(crate) fn picks(&self) -> bool {
        let Self {
            types, not_types, senders, not_senders, contains_url, related_by_rel_types, related_by_senders, ..
        } = self;
        [types, not_types, senders, not_senders, related_by_rel_types, related_by_senders]
            .into_iter()
            .any(Option::is_some)
            || contains_url.is_some()
    }

    /// From the JSON in a query.
    pub fn parse(json: &str) -> Result<Self, ViewError> {
        // The parser would take a list for a struct without names.
        if !json.trim_start().starts_with('{') {
            return Err(ViewError::BadFilter("a filter is an object".into()));
        }
        serde_json::from_str(json).map_err(|error| ViewError::BadFilter(error.to_string()))
    }
}

/// A filter at work in one room.
pub(crate) struct Sieve<'f> {
    filter: &'f RoomEventFilter,
    room: Arc<RoomRecord>,
    nothing: bool,
    senders: Option<Vec<StringNum>>,
    not_senders: Vec<StringNum>,
    /// Types that were judged already.
    kinds: FxHashMap<StringNum, bool>,
}

impl<'f> Sieve<'f> {
    pub(crate) fn new(
        tx: &mut Tx<'_>,
        filter: &'f RoomEventFilter,
        room: &Arc<RoomRecord>,
    ) -> Result<Self, StoreError> {
        let names = |list: &Option<Vec<String>>| {
            list.as_ref().map(|list| list.iter().any(|room_id| room_id == room.room_id.as_str()))
        };
        let nothing = names(&filter.rooms) == Some(false) || names(&filter.not_rooms) == Some(true);
        Ok(Self {
            filter,
            room: room.clone(),
            nothing,
            senders: filter.senders.as_deref().map(|senders| numbers(tx, senders)).transpose()?,
            not_senders: numbers(tx, filter.not_senders.as_deref().unwrap_or_default())?,
            kinds: FxHashMap::default(),
        })
    }

    /// Leaves of these events those that pass.
    pub(crate) fn retain(&mut self, tx: &mut Tx<'_>, rows: &mut Vec<EventRow>) -> Result<(), StoreError> {
        if self.nothing {
            rows.clear();
            return Ok(());
        }
        let mut kept = Vec::with_capacity(rows.len());
        for row in rows.drain(..) {
            if self.passes(tx, &row)? {
                kept.push(row);
            }
        }
        if let Some(wanted) = self.filter.contains_url {
            let nums: Vec<EventNum> = kept.iter().map(|row| row.num).collect();
            // Those that are missing have no JSON any more.
            let pdus = tx.events().pdus(&self.room, &nums)?;
            let with_url: Vec<_> = pdus.iter().filter(|pdu| has_url(pdu)).map(|pdu| pdu.event_id.clone()).collect();
            let mut matching = Vec::with_capacity(kept.len());
            for row in kept {
                let has_url = row.redacted_by.is_none() && with_url.contains(&tx.events().id(row.num)?);
                if has_url == wanted {
                    matching.push(row);
                }
            }
            kept = matching;
        }
        *rows = kept;
        Ok(())
    }

    fn passes(&mut self, tx: &mut Tx<'_>, row: &EventRow) -> Result<bool, StoreError> {
        if self.senders.as_ref().is_some_and(|senders| !senders.contains(&row.sender))
            || self.not_senders.contains(&row.sender)
        {
            return Ok(false);
        }
        let kind_passes = match self.kinds.get(&row.kind) {
            Some(passes) => *passes,
            None => {
                let kind = tx.string(row.kind)?;
                let passes = self.kind_passes(&kind);
                self.kinds.insert(row.kind, passes);
                passes
            }
        };
        Ok(kind_passes && self.is_related(tx, row)?)
    }

    fn kind_passes(&self, kind: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, kind));
        self.filter.types.as_deref().is_none_or(any) && !self.filter.not_types.as_deref().is_some_and(any)
    }

    fn is_related(&self, tx: &mut Tx<'_>, row: &EventRow) -> Result<bool, StoreError> {
        let (rels, senders) = (&self.filter.related_by_rel_types, &self.filter.related_by_senders);
        if rels.is_none() && senders.is_none() {
            return Ok(true);
        }
        let senders = senders.as_deref().map(|senders| numbers(tx, senders)).transpose()?;
        let rels = match rels {
            Some(rels) => numbers(tx, rels)?.into_iter().map(Some).collect(),
            None => vec![None],
        };
        for rel in rels {
            let related = tx.events().related_before(self.room.num, row.num, rel, hearth_store::RoomPlace::END, 100)?;
            let by = |row: &EventRow| senders.as_ref().is_none_or(|senders| senders.contains(&row.sender));
            if related.iter().any(by) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// The numbers of those strings that have one.
fn numbers(tx: &mut Tx<'_>, strings: &[String]) -> Result<Vec<StringNum>, StoreError> {
    let mut numbers = Vec::with_capacity(strings.len());
    for string in strings {
        numbers.extend(tx.string_num(string)?);
    }
    Ok(numbers)
}

fn has_url(pdu: &Pdu) -> bool {
    #[derive(Deserialize)]
    struct Content<'a> {
        #[serde(borrow)]
        url: Option<&'a RawValue>,
    }
    serde_json::from_str::<Content<'_>>(pdu.content.get()).is_ok_and(|content| content.url.is_some())
}

/// Whether a text fits a pattern in which `*` stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts = rest.split('*').peekable();
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return text.ends_with(part);
        }
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn stars_stand_for_anything() {
        let cases = [
            ("m.room.message", "m.room.message", true),
            ("m.room.message", "m.room.messages", false),
            ("m.room.*", "m.room.name", true),
            ("m.room.*", "m.roomy", false),
            ("*", "", true),
            ("*.name", "m.room.name", true),
            ("*.name", "m.room.names", false),
            ("m.*.na*e", "m.room.name", true),
            ("m.*.x*e", "m.room.name", false),
            ("a*a", "a", false),
            ("", "", true),
        ];
        for (pattern, text, expected) in cases {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }
}
