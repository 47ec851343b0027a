//! Bytes on their way, piece by piece.

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};

/// Bytes on their way.
pub type Content = BoxStream<'static, Result<Bytes, ContentError>>;

/// Why no more bytes come.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ContentError(pub String);

/// Bytes that are all there.
pub(crate) fn whole(bytes: Bytes) -> Content {
    stream::iter((!bytes.is_empty()).then_some(Ok(bytes))).boxed()
}
