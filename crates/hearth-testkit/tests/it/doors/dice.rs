//! Chance that can be repeated, and what it makes of a proper request.

use hearth_testkit::Value;

/// A small generator of pseudo-random numbers (SplitMix64).
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One of `0..bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub fn one_of<'a, T: ?Sized>(&mut self, all: &[&'a T]) -> &'a T {
        all[self.below(all.len())]
    }
}

/// Pieces that no path expects.
const SEGMENTS: [&str; 20] = [
    "",
    "%2F",
    "%00",
    "%FF",
    "%C0%80",
    "%zz",
    "%",
    "%E2%80%AE",
    "..",
    ".",
    "%2e%2e",
    "+",
    "%20",
    "@",
    "!",
    "$",
    "{roomId}",
    "%F0%9F%94%A5",
    "a:b",
    "@a:b:c:d",
];

/// Parameters that no endpoint expects in this way.
const PARAMETERS: [&str; 28] = [
    "limit=18446744073709551616",
    "limit=-1",
    "limit=0",
    "limit=9223372036854775807",
    "limit=1e3",
    "limit=",
    "dir=",
    "dir=B",
    "dir=f&dir=b",
    "from=t1_9223372036854775807_9223372036854775807",
    "from=s1_9223372036854775807_0_0",
    "from=t1_-1_-1",
    "to=t1_-9223372036854775808_-9223372036854775808",
    "at=s1_0_0_0",
    "at=t1_0_0",
    "since=s1_9223372036854775807_1_1",
    "since=d1_18446744073709551615",
    "filter=%7B%22limit%22%3A-1%7D",
    "filter=%7B%22types%22%3A%5B%22%2A%2A%2A%22%5D%7D",
    "filter=%22%00%22",
    "ts=9223372036854775807",
    "ts=9007199254740991",
    "ts=-1",
    "membership=leave&not_membership=join",
    "%FF=%FF",
    "&&=&",
    "format=event",
    "kind=%00",
];

/// Values that no body expects.
fn odd_value(dice: &mut Dice) -> String {
    let values = [
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "1e400",
        "-0",
        "9007199254740993",
        "-9223372036854775809",
        "1e-7",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"\\udc00\\ud800\"",
        "\"\u{202e}\u{feff}\"",
        "[]",
        "{}",
        "[[[[[]]]]]",
        "{\"a\":{\"b\":null}}",
        "[null]",
        "\"@a:b\"",
        "\"!a:b\"",
        "\"$a\"",
        "\"#a:b\"",
        "{\"\":\"\"}",
    ];
    match dice.below(12) {
        0 => format!("\"{}\"", "x".repeat(70_000)),
        1 => format!("{}1{}", "[".repeat(200), "]".repeat(200)),
        2 => format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100)),
        3 => format!("[{}0]", "0,".repeat(5_000)),
        _ => dice.one_of(&values).to_owned(),
    }
}

/// A body that is a little or altogether wrong.
pub fn odd_body(dice: &mut Dice, proper: &str) -> Vec<u8> {
    let object =
        serde_json::from_str::<Value>(proper).ok().and_then(|value| value.as_object().cloned()).unwrap_or_default();
    let keys: Vec<&str> = object.keys().map(String::as_str).collect();
    let fields: Vec<String> =
        object.iter().map(|(key, value)| format!("{}:{value}", Value::from(key.as_str()))).collect();
    let whole = |fields: &[String]| format!("{{{}}}", fields.join(",")).into_bytes();
    let extra =
        ["reason", "type", "content", "state_key", "user_id", "room_id", "m.relates_to", "auth", "url", "", "filter"];
    match dice.below(10) {
        0..=3 => {
            let mut fields = fields;
            let at = dice.below(fields.len() + 1);
            let key = keys.get(at).copied().unwrap_or_else(|| dice.one_of(&extra));
            let field = format!("{}:{}", Value::from(key), odd_value(dice));
            if at < fields.len() {
                fields[at] = field
            } else {
                fields.push(field)
            }
            whole(&fields)
        }
        4 if !fields.is_empty() => {
            let mut fields = fields;
            fields.remove(dice.below(keys.len()));
            whole(&fields)
        }
        5 if !fields.is_empty() => {
            let mut fields = fields;
            let key = keys[dice.below(keys.len())];
            fields.push(format!("{}:{}", Value::from(key), odd_value(dice)));
            whole(&fields)
        }
        6 => odd_value(dice).into_bytes(),
        7 => {
            let mut bytes = proper.as_bytes().to_vec();
            let at = dice.below(bytes.len());
            match (bytes.get_mut(at), dice.below(3)) {
                (Some(byte), 0) => *byte ^= 1 << dice.below(8),
                (_, 1) => bytes.truncate(at),
                _ => bytes.insert(at, dice.below(256) as u8),
            }
            bytes
        }
        8 => dice
            .one_of(&[
                &b"\xef\xbb\xbf{}"[..],
                b"{}\0",
                b"\xff\xfe",
                b"{\"a\":1}{",
                b"NaN",
                b"'x'",
                b" ",
                b"{\"\xff\":1}",
            ])
            .to_vec(),
        _ => "[".repeat(20_000).into_bytes(),
    }
}

/// A path that is a little wrong.
pub fn odd_path(dice: &mut Dice, proper: &str) -> String {
    let mut segments: Vec<String> = proper.split('/').map(str::to_owned).collect();
    // Mostly behind the API's version, where routes still match.
    let at = if dice.below(4) == 0 {
        dice.below(segments.len())
    } else {
        segments.len() - 1 - dice.below(3.min(segments.len()))
    };
    match dice.below(8) {
        0 => segments.push(String::new()),
        1 => segments.insert(at, String::new()),
        2 => segments[at] = format!("{}{}", segments[at], dice.one_of(&SEGMENTS)),
        3 => segments[at] = "x".repeat(dice.below(4_000)),
        4 => segments[at] = segments[at].bytes().map(|byte| format!("%{byte:02x}")).collect(),
        _ => segments[at] = dice.one_of(&SEGMENTS).to_owned(),
    }
    let path = segments.join("/");
    if path.starts_with('/') { path } else { format!("/{path}") }
}

/// A query that is a little wrong.
pub fn odd_query(dice: &mut Dice, proper: &str) -> String {
    let mut query = if dice.below(3) == 0 { String::new() } else { proper.to_owned() };
    for _ in 0..=dice.below(3) {
        query = format!("{query}&{}", dice.one_of(&PARAMETERS));
    }
    query
}
