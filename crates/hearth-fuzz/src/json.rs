//! JSON, changed by what it means: values of other kinds and sizes, keys gone, doubled or swapped, numbers that no type holds.

use serde_json::Value;

use crate::Dice;

/// A JSON value as it is written, so that it can hold what no parser would give.
#[derive(Clone, Debug)]
pub(crate) enum Node {
    /// Everything that has no parts, in its text.
    Plain(String),
    List(Vec<Node>),
    /// Keys in their text, with quotes.
    Table(Vec<(String, Node)>),
}

const VALUES: [&str; 48] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "1",
    "-1",
    "0.5",
    "1.0",
    "1e3",
    "1E400",
    "-1e-400",
    "9007199254740991",
    "9007199254740992",
    "-9007199254740992",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "1e308",
    "4294967296",
    "253402300800000",
    "100",
    "101",
    "50",
    "\"\"",
    "\" \"",
    "\"0\"",
    "\"100\"",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\"\\u2028\"",
    "\"\u{e9}\u{200f}\"",
    "[]",
    "{}",
    "[[]]",
    "[null]",
    "{\"\":{}}",
    "\"join\"",
    "\"invite\"",
    "\"@a:b\"",
    "\"!a:b\"",
    "\"$a:b\"",
    "\"$\"",
    "\"@\"",
    "\"#a:b\"",
    "\"m.room.create\"",
];

const KEYS: [&str; 16] = [
    "\"\"",
    "\"type\"",
    "\"content\"",
    "\"sender\"",
    "\"room_id\"",
    "\"state_key\"",
    "\"membership\"",
    "\"redacts\"",
    "\"hashes\"",
    "\"signatures\"",
    "\"unsigned\"",
    "\"event_id\"",
    "\"origin\"",
    "\"\\u0000\"",
    "\"@a:b\"",
    "\"join_authorised_via_users_server\"",
];

/// One of these trees with a few changes, in text.
pub(crate) fn changed(dice: &mut Dice, trees: &[Node]) -> String {
    let mut tree = dice.one_of(trees).clone();
    for _ in 0..=dice.below(3) {
        let other = dice.one_of(trees).pick(dice).clone();
        tree.change(dice, other);
    }
    let mut out = String::new();
    let spaces = dice.below(8) == 0;
    tree.write(&mut out, spaces);
    out
}

impl Node {
    pub(crate) fn read(text: &str) -> Self {
        // What is no JSON stays what it is.
        serde_json::from_str(text).map_or_else(|_| Self::Plain(text.to_owned()), Self::of)
    }

    fn of(value: Value) -> Self {
        match value {
            Value::Array(items) => Self::List(items.into_iter().map(Self::of).collect()),
            Value::Object(members) => {
                let member = |(key, value): (String, Value)| (Value::String(key).to_string(), Self::of(value));
                Self::Table(members.into_iter().map(member).collect())
            }
            plain => Self::Plain(plain.to_string()),
        }
    }

    fn count(&self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::List(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Self::Table(members) => 1 + members.iter().map(|(_, value)| value.count()).sum::<usize>(),
        }
    }

    fn at(&mut self, mut index: usize) -> &mut Self {
        if index == 0 {
            return self;
        }
        index -= 1;
        let parts: Vec<&mut Self> = match self {
            Self::Plain(_) => unreachable!("the index is below the count"),
            Self::List(items) => items.iter_mut().collect(),
            Self::Table(members) => members.iter_mut().map(|(_, value)| value).collect(),
        };
        for part in parts {
            let count = part.count();
            if index < count {
                return part.at(index);
            }
            index -= count;
        }
        unreachable!("the index is below the count")
    }

    /// Any part of it.
    fn pick(&self, dice: &mut Dice) -> Self {
        let index = dice.below(self.count());
        self.clone().at(index).clone()
    }

    fn change(&mut self, dice: &mut Dice, other: Self) {
        let index = dice.below(self.count());
        let node = self.at(index);
        match (dice.below(14), node) {
            (0, Self::Table(members)) if !members.is_empty() => drop(members.remove(dice.below(members.len()))),
            (1, Self::Table(members)) if !members.is_empty() => {
                // Twice the same key, with another value.
                let key = dice.one_of(members).0.clone();
                members.push((key, other));
            }
            (2, Self::Table(members)) if !members.is_empty() => {
                let at = dice.below(members.len());
                members[at].0 = (*dice.one_of(&KEYS)).to_owned();
            }
            (0..=3, Self::Table(members)) => members.push(((*dice.one_of(&KEYS)).to_owned(), other)),
            (0, Self::List(items)) if !items.is_empty() => drop(items.remove(dice.below(items.len()))),
            (1, Self::List(items)) if !items.is_empty() => {
                let item = dice.one_of(items).clone();
                let count = 1 << dice.below(9);
                items.extend(std::iter::repeat_n(item, count));
            }
            (0..=3, Self::List(items)) => items.push(other),
            (0..=4, Self::Plain(text)) if text.starts_with('"') => change_string(dice, text),
            (5..=6, node) => *node = other,
            (7, node) => {
                // Deeper than what any parser follows.
                let depth = 1 << dice.below(9);
                *node = Self::Plain(format!("{}{}", "[".repeat(depth), "]".repeat(depth)));
            }
            (8, node) => *node = Self::Plain(format!("\"{}\"", "x".repeat(200 + dice.below(200)))),
            (_, node) => *node = Self::Plain((*dice.one_of(&VALUES)).to_owned()),
        }
    }

    fn write(&self, out: &mut String, spaces: bool) {
        let space = if spaces { " \n" } else { "" };
        match self {
            Self::Plain(text) => out.push_str(text),
            Self::List(items) => {
                out.push('[');
                for (at, item) in items.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(space);
                    item.write(out, spaces);
                }
                out.push(']');
            }
            Self::Table(members) => {
                out.push('{');
                for (at, (key, value)) in members.iter().enumerate() {
                    out.push_str(if at > 0 { "," } else { "" });
                    out.push_str(space);
                    out.push_str(key);
                    out.push(':');
                    value.write(out, spaces);
                }
                out.push('}');
            }
        }
    }
}

/// Changes what stands between the quotes.
fn change_string(dice: &mut Dice, text: &mut String) {
    const PIECES: [&str; 14] =
        ["\\u0000", "\\ud800", "\\\"", "\\\\", ":", "@", "!", "$", "#", "/", "\u{1f600}", "\u{301}", "%", "."];
    let places: Vec<usize> = text.char_indices().map(|(at, _)| at).skip(1).collect();
    let Some(&at) = places.get(dice.below(places.len())) else { return };
    match dice.below(4) {
        0 if at < text.len() - 1 => drop(text.remove(at)),
        1 => text.insert_str(at, &"long".repeat(1 << dice.below(7))),
        2 => *text = text.to_uppercase(),
        _ => text.insert_str(at, PIECES[dice.below(PIECES.len())]),
    }
}
