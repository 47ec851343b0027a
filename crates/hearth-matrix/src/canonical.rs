//! Canonical JSON, as a borrowed tree with sorted keys.
//!
//! Unlike ruma's `CanonicalJsonObject` it also holds what room versions 1 to 5 tolerate (floats,
//! integers beyond 2^53), borrows from its source, and writes parts of an object without copying.
//! Spec: appendices, "Canonical JSON".

use std::{borrow::Cow, fmt, fmt::Write as _};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

mod rewrite;

pub use rewrite::rewrite;

/// The largest integer of canonical JSON: 2^53 - 1.
pub const MAX_INT: i64 = (1 << 53) - 1;

/// A JSON value that borrows its strings where it can.
#[derive(Debug, Clone, PartialEq)]
pub enum Json<'a> {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// An integer of 64 bits.
    Int(i64),
    /// An integer above `i64::MAX` (room versions 1 to 5).
    Big(u64),
    /// A number with a fraction or exponent, or `-0` (room versions 1 to 5).
    Float(f64),
    /// A string.
    Str(Cow<'a, str>),
    /// An array.
    Array(Vec<Json<'a>>),
    /// An object.
    Object(Object<'a>),
}

/// A JSON object: its keys are sorted, and of a repeated key the last value counts.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Object<'a>(Vec<(Cow<'a, str>, Json<'a>)>);

impl<'a> Json<'a> {
    /// Parses any JSON value.
    pub fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }

    /// Whether room versions 6 and later accept this value: integers only, within +-(2^53 - 1).
    pub fn is_canonical(&self) -> bool {
        match self {
            Self::Null | Self::Bool(_) | Self::Str(_) => true,
            Self::Int(int) => (-MAX_INT..=MAX_INT).contains(int),
            Self::Big(_) | Self::Float(_) => false,
            Self::Array(items) => items.iter().all(Self::is_canonical),
            Self::Object(object) => object.is_canonical(),
        }
    }

    /// The string, if this is one.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Str(string) => Some(string),
            _ => None,
        }
    }

    /// The integer, if this is one that fits.
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(*int),
            _ => None,
        }
    }

    /// The items, if this is an array.
    pub fn as_array(&self) -> Option<&[Json<'a>]> {
        match self {
            Self::Array(items) => Some(items),
            _ => None,
        }
    }

    /// The object, if this is one.
    pub fn as_object(&self) -> Option<&Object<'a>> {
        match self {
            Self::Object(object) => Some(object),
            _ => None,
        }
    }

    /// Appends the canonical form.
    pub fn write(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Int(int) => write_display(out, int),
            Self::Big(int) => write_display(out, int),
            Self::Float(float) => {
                // The shortest form that reads back the same, with a fraction: what others write.
                let _ = write!(out, "{float:?}");
            }
            Self::Str(string) => write_string(out, string),
            Self::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write(out);
                }
                out.push(']');
            }
            Self::Object(object) => object.write(out),
        }
    }
}

impl<'a> Object<'a> {
    /// Parses a JSON object; anything else is an error.
    pub fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        match Json::parse(json)? {
            Json::Object(object) => Ok(object),
            _ => Err(serde_json::Error::custom("expected a JSON object")),
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Json<'a>> {
        let at = self.0.binary_search_by(|(known, _)| known.as_ref().cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// The string under a key.
    pub fn get_str(&self, key: &str) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// Sets a key, replacing what it held.
    pub fn insert(&mut self, key: impl Into<Cow<'a, str>>, value: Json<'a>) {
        let key = key.into();
        match self.0.binary_search_by(|(known, _)| known.as_ref().cmp(key.as_ref())) {
            Ok(at) => self.0[at].1 = value,
            Err(at) => self.0.insert(at, (key, value)),
        }
    }

    /// The object under a key, made if it is absent or something else.
    pub fn object_mut(&mut self, key: &'a str) -> &mut Object<'a> {
        if !matches!(self.get(key), Some(Json::Object(_))) {
            self.insert(key, Json::Object(Object::default()));
        }
        match self.0.iter_mut().find(|(known, _)| known == key) {
            Some((_, Json::Object(object))) => object,
            _ => unreachable!("inserted above"),
        }
    }

    /// Keeps the keys for which `keep` holds.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &mut Json<'a>) -> bool) {
        self.0.retain_mut(|(key, value)| keep(key, value));
    }

    /// Keys and values in order of the keys.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Json<'a>)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), value))
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no key.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// See [`Json::is_canonical`].
    pub fn is_canonical(&self) -> bool {
        self.0.iter().all(|(_, value)| value.is_canonical())
    }

    /// Appends the canonical form.
    pub fn write(&self, out: &mut String) {
        self.write_where(out, |_| true);
    }

    /// Appends the canonical form of the keys for which `keep` holds.
    pub fn write_where(&self, out: &mut String, keep: impl Fn(&str) -> bool) {
        self.write_with(out, |key, value, out| {
            let kept = keep(key);
            if kept {
                write_key(out, key);
                value.write(out);
            }
            kept
        });
    }

    /// Appends the canonical form, members written by `member`, which says whether it wrote one.
    /// A comma stands before every member already, and is taken back if none was written.
    pub(crate) fn write_with(&self, out: &mut String, mut member: impl FnMut(&str, &Json<'a>, &mut String) -> bool) {
        out.push('{');
        let mut first = true;
        for (key, value) in self.iter() {
            if !first {
                out.push(',');
            }
            if member(key, value, out) {
                first = false;
            } else if !first {
                out.pop();
            }
        }
        out.push('}');
    }

    /// The canonical form.
    pub fn to_canonical(&self) -> String {
        let mut out = String::with_capacity(1024);
        self.write(&mut out);
        out
    }
}

/// Appends `"key":`.
pub(crate) fn write_key(out: &mut String, key: &str) {
    write_string(out, key);
    out.push(':');
}

pub(crate) fn write_display(out: &mut String, value: impl fmt::Display) {
    let _ = write!(out, "{value}");
}

/// Appends a string with the escapes of canonical JSON: the shortest of each.
pub fn write_string(out: &mut String, string: &str) {
    out.push('"');
    let mut plain = 0;
    for (i, byte) in string.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            0x08 => "\\b",
            b'\t' => "\\t",
            b'\n' => "\\n",
            0x0c => "\\f",
            b'\r' => "\\r",
            0x00..=0x1f => "",
            _ => continue,
        };
        out.push_str(&string[plain..i]);
        if escape.is_empty() {
            let _ = write!(out, "\\u{byte:04x}");
        } else {
            out.push_str(escape);
        }
        plain = i + 1;
    }
    out.push_str(&string[plain..]);
    out.push('"');
}

impl<'de: 'a, 'a> Deserialize<'de> for Json<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(JsonVisitor)
    }
}

struct JsonVisitor;

impl<'de> Visitor<'de> for JsonVisitor {
    type Value = Json<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(Json::Int(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(i64::try_from(value).map_or(Json::Big(value), Json::Int))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(Json::Float(value))
    }

    fn visit_borrowed_str<E>(self, value: &'de str) -> Result<Self::Value, E> {
        Ok(Json::Str(Cow::Borrowed(value)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(Json::Str(Cow::Owned(value.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Json::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members: Vec<(Cow<'de, str>, Json<'de>)> = Vec::new();
        let mut sorted = true;
        while let Some((Key(key), value)) = map.next_entry()? {
            sorted = sorted && members.last().is_none_or(|(last, _)| *last < key);
            members.push((key, value));
        }
        if !sorted {
            members.sort_by(|(a, _), (b, _)| a.cmp(b)); // stable: of equal keys the last stays last
            members.reverse();
            members.dedup_by(|(a, _), (b, _)| a == b); // drops the later element, here the earlier one
            members.reverse();
        }
        Ok(Json::Object(Object(members)))
    }
}

/// An object key, borrowed if it holds no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Key<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct KeyVisitor;
        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object key")
            }

            fn visit_borrowed_str<E>(self, key: &'de str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E>(self, key: &str) -> Result<Self::Value, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }
        deserializer.deserialize_str(KeyVisitor)
    }
}

#[cfg(test)]
mod tests;
