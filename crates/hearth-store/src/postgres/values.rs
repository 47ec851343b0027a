//! Parameters and rows in PostgreSQL's types.

use std::error::Error;

use bytes::BytesMut;
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};

use crate::{OwnedValue, Row, StoreError};

type Anything = Box<dyn Error + Sync + Send>;

/// A parameter takes the type that the server deduced for it.
impl ToSql for OwnedValue {
    fn to_sql(&self, ty: &Type, out: &mut BytesMut) -> Result<IsNull, Anything> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(v) => match *ty {
                Type::INT4 => i32::try_from(*v)?.to_sql(ty, out),
                Type::INT2 => i16::try_from(*v)?.to_sql(ty, out),
                Type::BOOL => (*v != 0).to_sql(ty, out),
                Type::INT8 => v.to_sql(ty, out),
                _ => Err(mismatch("an integer", ty)),
            },
            Self::Text(v) if *ty == Type::TEXT || *ty == Type::VARCHAR => v.to_sql(ty, out),
            Self::Text(_) => Err(mismatch("a text", ty)),
            Self::Bytes(v) if *ty == Type::BYTEA => v.to_sql(ty, out),
            Self::Bytes(_) => Err(mismatch("a byte string", ty)),
            Self::Ints(v) => v.to_sql(ty, out),
            Self::Blobs(v) => v.to_sql(ty, out),
            Self::Position => Err("a position outside of a publication".into()),
        }
    }

    fn accepts(_: &Type) -> bool {
        true
    }

    to_sql_checked!();
}

fn mismatch(given: &str, ty: &Type) -> Anything {
    format!("{given} was given for a parameter of type {ty}").into()
}

/// An integer of any width, or a boolean.
struct Int(i64);

impl<'a> FromSql<'a> for Int {
    fn from_sql(ty: &Type, raw: &'a [u8]) -> Result<Self, Anything> {
        Ok(Self(match *ty {
            Type::INT4 => i32::from_sql(ty, raw)?.into(),
            Type::INT2 => i16::from_sql(ty, raw)?.into(),
            Type::BOOL => bool::from_sql(ty, raw)?.into(),
            _ => i64::from_sql(ty, raw)?,
        }))
    }

    fn accepts(ty: &Type) -> bool {
        matches!(*ty, Type::INT8 | Type::INT4 | Type::INT2 | Type::BOOL)
    }
}

pub(super) struct PostgresRow<'r>(pub(super) &'r tokio_postgres::Row);

impl<'r> PostgresRow<'r> {
    fn get<T: FromSql<'r>>(&self, column: usize) -> Result<Option<T>, StoreError> {
        self.0.try_get(column).map_err(|error| StoreError::Database(error.to_string()))
    }
}

impl Row for PostgresRow<'_> {
    fn opt_int(&self, column: usize) -> Result<Option<i64>, StoreError> {
        Ok(self.get::<Int>(column)?.map(|int| int.0))
    }

    fn opt_bytes(&self, column: usize) -> Result<Option<&[u8]>, StoreError> {
        self.get(column)
    }

    fn opt_text(&self, column: usize) -> Result<Option<&str>, StoreError> {
        self.get(column)
    }
}
