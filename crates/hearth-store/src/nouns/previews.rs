//! Previews of linked pages: what they said of themselves, at several times.

use crate::{StoreError, Tx};

/// Previews, seen from a transaction.
pub struct Previews<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Previews of linked pages.
    pub fn previews(&mut self) -> Previews<'_, 'c> {
        Previews { tx: self }
    }
}

impl Previews<'_, '_> {
    /// The newest preview that is not older than a time.
    pub fn since(&mut self, url: &str, from_ts: i64) -> Result<Option<Vec<u8>>, StoreError> {
        self.tx.one(
            "SELECT preview FROM previews WHERE url = $1 AND fetched_ts >= $2 ORDER BY fetched_ts DESC LIMIT 1",
            &[url.as_bytes().into(), from_ts.into()],
            |row| row.bytes(0).map(<[u8]>::to_vec),
        )
    }

    /// The preview as it was at a time.
    pub fn at(&mut self, url: &str, ts: i64) -> Result<Option<Vec<u8>>, StoreError> {
        self.tx.one(
            "SELECT preview FROM previews WHERE url = $1 AND fetched_ts <= $2 ORDER BY fetched_ts DESC LIMIT 1",
            &[url.as_bytes().into(), ts.into()],
            |row| row.bytes(0).map(<[u8]>::to_vec),
        )
    }

    /// Keeps a preview.
    pub fn keep(&mut self, url: &str, fetched_ts: i64, preview: &[u8]) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO previews (url, fetched_ts, preview) VALUES ($1, $2, $3) \
             ON CONFLICT (url, fetched_ts) DO UPDATE SET preview = excluded.preview",
            &[url.as_bytes().into(), fetched_ts.into(), preview.into()],
        )
    }

    /// Forgets those from before a time.
    pub fn sweep(&mut self, before_ts: i64) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM previews WHERE fetched_ts < $1", &[before_ts.into()])
    }
}
