//! From JSON text to its canonical form without a tree: for what is only signed or checked, whatever it is.
//!
//! No recursion: what strangers nest deeply costs a few bytes a level, and no stack. Members that are out of order are moved in the
//! text; how much is moved is bounded.

use std::borrow::Cow;

use serde::de::Error as _;

use super::{Json, write_string};

/// Lists and objects within each other. Servers in Python stop near a thousand.
const DEEPEST: usize = 10_000;
/// So many times its length text may be moved to put members in order: a few times is usual.
const MOST_MOVES: usize = 64;

/// Appends the canonical form of any JSON, however deep it is; what [`Json::parse`] and [`Json::write`] would make of it, if it
/// were shallow enough for them. What was appended before an error stays.
pub fn rewrite(json: &str, out: &mut String) -> Result<(), serde_json::Error> {
    Rewriting { json, at: 0, out, open: Vec::new(), moves_left: json.len().saturating_mul(MOST_MOVES) }.run()
}

struct Rewriting<'a, 'o> {
    json: &'a str,
    at: usize,
    out: &'o mut String,
    open: Vec<Open<'a>>,
    moves_left: usize,
}

/// What has begun and not ended.
enum Open<'a> {
    /// Whether nothing stands in it yet.
    Array(bool),
    Object(Vec<Member<'a>>),
}

struct Member<'a> {
    key: Cow<'a, str>,
    /// Where it begins in what was written.
    from: usize,
}

impl<'a> Rewriting<'a, '_> {
    fn run(mut self) -> Result<(), serde_json::Error> {
        loop {
            // Here a value stands.
            match self.peek() {
                Some(b'[') => {
                    self.begin(b'[', Open::Array(true))?;
                    if self.peek() != Some(b']') {
                        self.item();
                        continue;
                    }
                }
                Some(b'{') => {
                    self.begin(b'{', Open::Object(Vec::new()))?;
                    if self.peek() != Some(b'}') {
                        self.key()?;
                        continue;
                    }
                }
                _ => self.scalar()?.write(self.out),
            }
            // A value has ended, or an empty list or object is about to.
            loop {
                let next = self.peek();
                match (self.open.last(), next) {
                    (None, None) => return Ok(()),
                    (Some(Open::Array(_)), Some(b',')) => {
                        self.at += 1;
                        self.item();
                        break;
                    }
                    (Some(Open::Object(_)), Some(b',')) => {
                        self.at += 1;
                        self.key()?;
                        break;
                    }
                    (Some(Open::Array(_)), Some(b']')) | (Some(Open::Object(_)), Some(b'}')) => self.end()?,
                    _ => return Err(self.error("what is no JSON")),
                }
            }
        }
    }

    /// The next byte that is no space.
    fn peek(&mut self) -> Option<u8> {
        let rest = self.json.as_bytes().get(self.at..)?;
        let spaces = rest.iter().take_while(|byte| b" \t\n\r".contains(byte)).count();
        self.at += spaces;
        rest.get(spaces).copied()
    }

    fn begin(&mut self, bracket: u8, open: Open<'a>) -> Result<(), serde_json::Error> {
        if self.open.len() >= DEEPEST {
            return Err(self.error("nested too deeply"));
        }
        self.at += 1;
        self.out.push(char::from(bracket));
        self.open.push(open);
        Ok(())
    }

    fn item(&mut self) {
        if let Some(Open::Array(is_empty)) = self.open.last_mut()
            && !std::mem::take(is_empty)
        {
            self.out.push(',');
        }
    }

    /// A key and its colon.
    fn key(&mut self) -> Result<(), serde_json::Error> {
        if self.peek() != Some(b'"') {
            return Err(self.error("a key is wanted"));
        }
        let Json::Str(key) = self.scalar()? else { return Err(self.error("a key is wanted")) };
        if self.peek() != Some(b':') {
            return Err(self.error("a colon is wanted"));
        }
        self.at += 1;
        let Some(Open::Object(members)) = self.open.last_mut() else { return Err(self.error("no object")) };
        if !members.is_empty() {
            self.out.push(',');
        }
        let from = self.out.len();
        write_string(self.out, &key);
        self.out.push(':');
        members.push(Member { key, from });
        Ok(())
    }

    /// A string, a number, or a word.
    fn scalar(&mut self) -> Result<Json<'a>, serde_json::Error> {
        let rest = self.json.get(self.at..).unwrap_or_default();
        let length = match rest.strip_prefix('"') {
            Some(inner) => {
                let mut escaped = false;
                let end = inner.bytes().position(|byte| {
                    let counts = !std::mem::replace(&mut escaped, false);
                    escaped = counts && byte == b'\\';
                    counts && byte == b'"'
                });
                end.map_or(rest.len(), |end| end + 2)
            }
            None => rest.bytes().position(|byte| b" \t\n\r,:[]{}\"".contains(&byte)).unwrap_or(rest.len()),
        };
        let value = Json::parse(rest.get(..length).unwrap_or_default())?;
        self.at += length;
        Ok(value)
    }

    fn end(&mut self) -> Result<(), serde_json::Error> {
        self.at += 1;
        match self.open.pop() {
            Some(Open::Object(members)) => {
                self.sort(members)?;
                self.out.push('}');
            }
            _ => self.out.push(']'),
        }
        Ok(())
    }

    /// Puts the members that were written last in order. Of a repeated key the last one counts.
    fn sort(&mut self, members: Vec<Member<'a>>) -> Result<(), serde_json::Error> {
        let Some(first) = members.first().map(|member| member.from) else { return Ok(()) };
        if members.is_sorted_by(|one, next| one.key < next.key) {
            return Ok(());
        }
        let moved = self.out.len() - first;
        self.moves_left =
            self.moves_left.checked_sub(moved).ok_or_else(|| self.error("too much of it is out of order"))?;
        // A comma stands before each but the first.
        let ends = members.iter().skip(1).map(|member| member.from - 1).chain([self.out.len()]);
        let mut pieces: Vec<(&str, &str)> =
            members.iter().zip(ends).map(|(member, end)| (&*member.key, &self.out[member.from..end])).collect();
        pieces.sort_by_key(|(key, _)| *key);
        let mut sorted = String::with_capacity(moved);
        for (n, (key, text)) in pieces.iter().enumerate() {
            if pieces.get(n + 1).is_some_and(|(next, _)| next == key) {
                continue;
            }
            if !sorted.is_empty() {
                sorted.push(',');
            }
            sorted.push_str(text);
        }
        self.out.truncate(first);
        self.out.push_str(&sorted);
        Ok(())
    }

    fn error(&self, what: &str) -> serde_json::Error {
        serde_json::Error::custom(format_args!("{what} at byte {}", self.at))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rewritten(json: &str) -> Option<String> {
        let mut out = String::new();
        rewrite(json, &mut out).ok().map(|()| out)
    }

    fn through_a_tree(json: &str) -> Option<String> {
        let tree = Json::parse(json).ok()?;
        let mut out = String::new();
        tree.write(&mut out);
        Some(out)
    }

    #[test]
    fn text_becomes_what_a_tree_becomes() {
        for json in [
            "{}",
            " [ ] ",
            r#"{"b":[1,2.5,-0,{"y":null,"x":true}],"a":"\u00e9\n\"","b":{"z":[[]],"z":{}}}"#,
            r#"[{"b":1 , "a":2,"b":3,"a":4,"ab":5},"]}", 1e3,18446744073709551615,false]"#,
            "\"text\"",
            "7",
        ] {
            assert!(rewritten(json).is_some(), "{json}");
            assert_eq!(rewritten(json), through_a_tree(json), "{json}");
        }
        for json in [
            "",
            " ",
            "[",
            "{",
            "]",
            "[1,]",
            "[,1]",
            "{,}",
            r#"{"a":1,}"#,
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{1:2}"#,
            "[1 2]",
            "[1]]",
            "{} {}",
            "nul",
            "1\"a\"",
            "\"a",
            r#""\"#,
            r#"{"a":1]"#,
            "[1}",
            "\"\\ud800\"",
            "[\"\n\"]",
            "01",
        ] {
            assert_eq!((rewritten(json), through_a_tree(json)), (None, None), "{json}");
        }
    }

    #[test]
    fn depth_takes_no_stack_and_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", r#"{"b":0,"a":["#.repeat(depth / 2), "]}".repeat(depth / 2));
        let small = std::thread::Builder::new().stack_size(128 * 1024);
        let tried = small.spawn(move || {
            let sorted =
                |depth: usize| format!("{}1{}", r#"{"a":["#.repeat(depth / 2), r#"],"b":0}"#.repeat(depth / 2));
            let deep = rewritten(&nested(200)) == Some(sorted(200));
            // Out of order on each of many levels would be moved again and again.
            (deep, rewritten(&nested(8_000)).is_none(), rewritten(&sorted(8_000)) == Some(sorted(8_000)))
        });
        assert_eq!(tried.unwrap().join().unwrap(), (true, true, true));
        assert!(rewritten(&"[".repeat(20_000)).is_none());
        assert!(rewritten(&format!("{}{}", "[".repeat(20_000), "]".repeat(20_000))).is_none());
    }

    fn values() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i64>().prop_map(Into::into),
            any::<f64>().prop_map(Into::into),
            ".{0,6}".prop_map(Into::into),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::vec((".{0,3}", inner), 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn any_value_is_rewritten_as_through_a_tree(value in values()) {
            for json in [value.to_string(), format!("{value:#}")] {
                prop_assert_eq!(rewritten(&json), through_a_tree(&json));
            }
        }

        #[test]
        fn any_text_is_taken_or_refused_alike(text in r#"[\[\]{}:," 0-9a-cn\\"\n]{0,24}"#) {
            prop_assert_eq!(rewritten(&text), through_a_tree(&text));
        }
    }
}
