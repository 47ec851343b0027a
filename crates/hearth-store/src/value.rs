//! Parameters of statements and rows of results, the same on both engines.

use crate::StoreError;

/// A parameter of a statement.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// SQL NULL.
    Null,
    /// 64-bit integer; booleans are 0 and 1.
    Int(i64),
    /// Text that we chose ourselves (PostgreSQL's text cannot hold NUL: strangers' strings are `Bytes`).
    Text(&'a str),
    /// Byte string.
    Bytes(&'a [u8]),
    /// List for the `ints($n)` macro.
    Ints(&'a [i64]),
    /// List for the `blobs($n)` macro.
    Blobs(&'a [&'a [u8]]),
    /// The position of the publication that this statement belongs to; written `position($n)` in the text.
    /// Only in statements of [`Publication`](crate::Publication).
    Position,
}

/// A parameter that outlives the closure that made it: PostgreSQL sends writes later.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the same variants as Value")]
pub enum OwnedValue {
    Null,
    Int(i64),
    Text(String),
    Bytes(Vec<u8>),
    Ints(Vec<i64>),
    Blobs(Vec<Vec<u8>>),
    Position,
}

impl Value<'_> {
    /// A copy that owns its bytes.
    pub fn to_owned(&self) -> OwnedValue {
        match *self {
            Value::Null => OwnedValue::Null,
            Value::Int(v) => OwnedValue::Int(v),
            Value::Text(v) => OwnedValue::Text(v.to_owned()),
            Value::Bytes(v) => OwnedValue::Bytes(v.to_vec()),
            Value::Ints(v) => OwnedValue::Ints(v.to_vec()),
            Value::Blobs(v) => OwnedValue::Blobs(v.iter().map(|b| b.to_vec()).collect()),
            Value::Position => OwnedValue::Position,
        }
    }
}

/// Lends owned parameters, a position put in its place.
pub(crate) fn lend<T>(owned: &[OwnedValue], position: i64, with: impl FnOnce(&[Value<'_>]) -> T) -> T {
    let lists: Vec<Vec<&[u8]>> = owned
        .iter()
        .map(|value| match value {
            OwnedValue::Blobs(blobs) => blobs.iter().map(Vec::as_slice).collect(),
            _ => Vec::new(),
        })
        .collect();
    let values: Vec<Value<'_>> = owned
        .iter()
        .zip(&lists)
        .map(|(value, list)| match value {
            OwnedValue::Null => Value::Null,
            OwnedValue::Int(v) => Value::Int(*v),
            OwnedValue::Text(v) => Value::Text(v),
            OwnedValue::Bytes(v) => Value::Bytes(v),
            OwnedValue::Ints(v) => Value::Ints(v),
            OwnedValue::Blobs(_) => Value::Blobs(list),
            OwnedValue::Position => Value::Int(position),
        })
        .collect();
    with(&values)
}

macro_rules! value_from {
    ($($from:ty => |$v:ident| $to:expr),* $(,)?) => {
        $(impl<'a> From<$from> for Value<'a> { fn from($v: $from) -> Self { $to } })*
    };
}

value_from! {
    i64 => |v| Value::Int(v),
    bool => |v| Value::Int(v.into()),
    &'a str => |v| Value::Text(v),
    &'a String => |v| Value::Text(v),
    &'a [u8] => |v| Value::Bytes(v),
    &'a Vec<u8> => |v| Value::Bytes(v),
    &'a [i64] => |v| Value::Ints(v),
    &'a Vec<i64> => |v| Value::Ints(v),
    &'a [&'a [u8]] => |v| Value::Blobs(v),
    crate::RoomNum => |v| Value::Int(v.0),
    crate::EventNum => |v| Value::Int(v.0),
    crate::StringNum => |v| Value::Int(v.0),
    crate::SnapshotNum => |v| Value::Int(v.0),
    crate::DeviceNum => |v| Value::Int(v.0),
    crate::BlobNum => |v| Value::Int(v.0),
    crate::Position => |v| Value::Int(v.0),
}

impl<'a, T: Into<Value<'a>>> From<Option<T>> for Value<'a> {
    fn from(v: Option<T>) -> Self {
        v.map_or(Value::Null, Into::into)
    }
}

/// One row of a result. Columns count from 0; a wrong type or an unexpected NULL is a [`StoreError`].
pub trait Row {
    /// Integer or NULL (PostgreSQL's int4 and bool are accepted).
    fn opt_int(&self, column: usize) -> Result<Option<i64>, StoreError>;
    /// Byte string or NULL.
    fn opt_bytes(&self, column: usize) -> Result<Option<&[u8]>, StoreError>;
    /// Text or NULL.
    fn opt_text(&self, column: usize) -> Result<Option<&str>, StoreError>;

    /// Integer.
    fn int(&self, column: usize) -> Result<i64, StoreError> {
        self.opt_int(column)?.ok_or(StoreError::UnexpectedNull { column })
    }
    /// Integer as a boolean.
    fn bool(&self, column: usize) -> Result<bool, StoreError> {
        Ok(self.int(column)? != 0)
    }
    /// Byte string.
    fn bytes(&self, column: usize) -> Result<&[u8], StoreError> {
        self.opt_bytes(column)?.ok_or(StoreError::UnexpectedNull { column })
    }
    /// Text.
    fn text(&self, column: usize) -> Result<&str, StoreError> {
        self.opt_text(column)?.ok_or(StoreError::UnexpectedNull { column })
    }
    /// A byte string that holds UTF-8: an identifier or JSON of ours.
    fn utf8(&self, column: usize) -> Result<&str, StoreError> {
        std::str::from_utf8(self.bytes(column)?).map_err(|_| StoreError::NotUtf8 { column })
    }
}
