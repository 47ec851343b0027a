//! Which part of a file is wanted.
//!
//! Spec: RFC 9110, "Range Requests". Of several ranges at once the whole is answered, which is always allowed.

use std::ops::Range;

use http::{HeaderMap, header};

/// What is to be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes.
    Range(Range<u64>),
    /// Nothing: the range is beyond the end.
    Beyond,
}

impl Part {
    /// What the headers want of a file of a size, which is known by a tag.
    pub(super) fn wanted(headers: &HeaderMap, size: u64, tag: &str) -> Self {
        let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        // Of another state of the file: but files never change, so only a wrong tag says so.
        if text(header::IF_RANGE).is_some_and(|known| known != tag) {
            return Self::Whole;
        }
        text(header::RANGE).and_then(|value| Self::parse(value, size)).unwrap_or(Self::Whole)
    }

    fn parse(value: &str, size: u64) -> Option<Self> {
        let (unit, ranges) = value.split_once('=')?;
        let (from, to) = ranges.trim().split_once('-')?;
        if !unit.trim().eq_ignore_ascii_case("bytes") || ranges.contains(',') {
            return None;
        }
        let (start, end) = match (from.trim(), to.trim()) {
            ("", last) => (size.saturating_sub(number(last)?), size),
            (start, "") => (number(start)?, size),
            (start, last) => {
                let (start, last) = (number(start)?, number(last)?);
                if last < start {
                    return None;
                }
                (start, last.saturating_add(1).min(size))
            }
        };
        Some(if start < end { Self::Range(start..end) } else { Self::Beyond })
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_browsers_write_them() {
        for (value, part) in [
            ("bytes=0-", Part::Range(0..100)),
            ("bytes=0-0", Part::Range(0..1)),
            ("bytes=10-19", Part::Range(10..20)),
            ("Bytes=10-19", Part::Range(10..20)),
            ("bytes=90-1000", Part::Range(90..100)),
            ("bytes=-10", Part::Range(90..100)),
            ("bytes=-1000", Part::Range(0..100)),
            ("bytes=100-", Part::Beyond),
            ("bytes=-0", Part::Beyond),
            ("bytes=0-18446744073709551615", Part::Range(0..100)),
            // What makes no sense, or is more than one: the whole.
            ("bytes=5-4", Part::Whole),
            ("bytes=0-1,5-6", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=a-b", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=99999999999999999999-", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("nonsense", Part::Whole),
        ] {
            let headers = HeaderMap::from_iter([(header::RANGE, value.parse().unwrap())]);
            assert_eq!(Part::wanted(&headers, 100, "\"t\""), part, "{value}");
        }
        let empty = HeaderMap::from_iter([(header::RANGE, "bytes=0-".parse().unwrap())]);
        assert_eq!(Part::wanted(&empty, 0, "\"t\""), Part::Beyond);
    }

    #[test]
    fn a_range_of_another_file_is_not_given() {
        let mut headers = HeaderMap::from_iter([(header::RANGE, "bytes=1-2".parse().unwrap())]);
        headers.insert(header::IF_RANGE, "\"other\"".parse().unwrap());
        assert_eq!(Part::wanted(&headers, 100, "\"t\""), Part::Whole);
        headers.insert(header::IF_RANGE, "\"t\"".parse().unwrap());
        assert_eq!(Part::wanted(&headers, 100, "\"t\""), Part::Range(1..3));
    }
}
