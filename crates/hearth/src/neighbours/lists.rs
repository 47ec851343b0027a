//! Lists in answers of other servers. What is beyond the bounds is passed over as it is read: it never takes memory.

use std::fmt;
use std::marker::PhantomData;

use hearth_room::{Refusal, Unanswered};
use serde::de::{Deserialize, Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Bytes of an event, in any formatting and with all that is not kept of it.
const EVENT_BYTES: usize = 1024 * 1024;

/// Events as they came, the first `MOST`; those that are far too large for an event are left out.
pub(super) type Events<const MOST: usize> = List<Event, MOST>;

/// A list of which the first `MOST` elements are taken.
pub(super) struct List<T, const MOST: usize> {
    taken: Vec<T>,
    is_cut: bool,
}

impl<T, const MOST: usize> Default for List<T, MOST> {
    fn default() -> Self {
        Self { taken: Vec::new(), is_cut: false }
    }
}

/// An element of a list. It may be none, as far as we care.
pub(super) trait Element<'de>: Sized {
    /// What is read.
    type Read: Deserialize<'de>;
    /// The element, if it is one.
    fn of(read: Self::Read) -> Option<Self>;
}

/// An event as it came.
pub(super) struct Event(String);

impl<'de> Element<'de> for Event {
    type Read = &'de RawValue;

    fn of(read: &'de RawValue) -> Option<Self> {
        (read.get().len() <= EVENT_BYTES).then(|| Self(read.get().to_owned()))
    }
}

impl<'de> Element<'de> for hearth_matrix::ruma::OwnedEventId {
    type Read = Self;

    fn of(read: Self) -> Option<Self> {
        Some(read)
    }
}

/// Names of servers are strangers' words: what is none is left out.
impl<'de> Element<'de> for hearth_matrix::ruma::OwnedServerName {
    type Read = std::borrow::Cow<'de, str>;

    fn of(read: Self::Read) -> Option<Self> {
        read.as_ref().try_into().ok()
    }
}

impl<'de, T: Element<'de>, const MOST: usize> Deserialize<'de> for List<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader<T, const MOST: usize>(PhantomData<T>);

        impl<'de, T: Element<'de>, const MOST: usize> Visitor<'de> for Reader<T, MOST> {
            type Value = List<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
                let mut list = List::default();
                for _ in 0..MOST {
                    match elements.next_element::<T::Read>()? {
                        Some(read) => list.taken.extend(T::of(read)),
                        None => return Ok(list),
                    }
                }
                while elements.next_element::<IgnoredAny>()?.is_some() {
                    list.is_cut = true;
                }
                Ok(list)
            }
        }

        deserializer.deserialize_seq(Reader(PhantomData))
    }
}

impl<T, const MOST: usize> List<T, MOST> {
    /// What was taken.
    pub(super) fn taken(self) -> Vec<T> {
        self.taken
    }

    /// The whole list; one that was cut is none.
    pub(super) fn whole(self) -> Result<Vec<T>, Unanswered> {
        match self.is_cut {
            true => Err(Unanswered::Refused(Refusal::because(format!("it sent a list of more than {MOST}")))),
            false => Ok(self.taken),
        }
    }
}

/// Events as the room reads them.
pub(super) fn texts(events: Vec<Event>) -> Vec<String> {
    events.into_iter().map(|event| event.0).collect()
}

#[cfg(test)]
mod tests {
    use hearth_matrix::ruma::OwnedServerName;

    use super::*;

    #[test]
    fn what_is_beyond_the_bounds_is_passed_over() {
        let read = |json: &str| serde_json::from_str::<Events<2>>(json);
        let list = read(r#"[{"a": 1}, 2, "three", 4]"#).expect("a list");
        assert!(list.is_cut);
        assert_eq!(texts(list.taken()), [r#"{"a": 1}"#, "2"]);
        let list = read("[1,2]").expect("a list");
        assert_eq!(texts(list.whole().expect("not cut")), ["1", "2"]);
        assert!(matches!(read("[1,2,3]").expect("a list").whole(), Err(Unanswered::Refused(_))));
        assert!(read("{}").is_err() && read("[1,2,3").is_err());
        let huge = format!("[\"{}\",1]", "x".repeat(EVENT_BYTES));
        assert_eq!(texts(read(&huge).expect("a list").taken()), ["1"]);
    }

    #[test]
    fn names_that_are_none_are_left_out() {
        let list: List<OwnedServerName, 3> = serde_json::from_str(r#"["a b", "a.test", "b.test", "c.test"]"#).unwrap();
        assert_eq!(list.taken(), ["a.test", "b.test"]);
    }
}
