//! Signing keys: those of other servers with how long they are good for, and our own that are old.
//!
//! Whether a key may be believed is decided above; here is what was found good.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use crate::{StoreError, StringNum, Tx};

/// So many keys are kept of one server. Servers that change theirs by hand have a few in all their life.
const MOST_KEYS: usize = 100;

/// A key of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerKey {
    /// `ed25519:…`
    pub key_id: String,
    /// The key.
    pub public_key: [u8; 32],
    /// What is signed later is not good.
    pub valid_until_ts: i64,
    /// Of an old key: until when the server used it.
    pub expired_ts: Option<i64>,
    /// Whether the server itself has told us, not another one about it.
    pub from_itself: bool,
}

impl ServerKey {
    /// Until when it may have signed something.
    fn end(&self) -> i64 {
        self.expired_ts.unwrap_or(self.valid_until_ts)
    }
}

/// A server's document of its keys, signed by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyDocument {
    /// As it came.
    pub json: String,
    /// Until when it says to be good.
    pub valid_until_ts: i64,
    /// When it came.
    pub fetched_ts: i64,
}

/// A key with which this server has signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnKey {
    /// `ed25519:…`
    pub key_id: String,
    /// The key.
    pub public_key: [u8; 32],
    /// Since when it is not used any more.
    pub expired_ts: Option<i64>,
}

/// Keys, seen from a transaction.
pub struct ServerKeys<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Signing keys.
    pub fn server_keys(&mut self) -> ServerKeys<'_, 'c> {
        ServerKeys { tx: self }
    }
}

impl ServerKeys<'_, '_> {
    /// All known keys of some servers, each with its server's name.
    pub fn of_servers(&mut self, servers: &[&str]) -> Result<Vec<(String, ServerKey)>, StoreError> {
        let servers: Vec<&[u8]> = servers.iter().map(|server| server.as_bytes()).collect();
        self.tx.query(
            "SELECT text, key_id, public_key, valid_until_ts, expired_ts, vouched \
             FROM strings CROSS JOIN server_keys WHERE text IN blobs($1) AND server = num",
            &[servers.as_slice().into()],
            |row| {
                let key = ServerKey {
                    key_id: row.utf8(1)?.to_owned(),
                    public_key: public_key(row.bytes(2)?)?,
                    valid_until_ts: row.int(3)?,
                    expired_ts: row.opt_int(4)?,
                    from_itself: !row.bool(5)?,
                };
                Ok((row.utf8(0)?.to_owned(), key))
            },
        )
    }

    /// The newest document of some servers, each with its server's name.
    pub fn documents_of(&mut self, servers: &[&str]) -> Result<Vec<(String, KeyDocument)>, StoreError> {
        let servers: Vec<&[u8]> = servers.iter().map(|server| server.as_bytes()).collect();
        self.tx.query(
            "SELECT text, document, valid_until_ts, fetched_ts \
             FROM strings CROSS JOIN server_key_documents WHERE text IN blobs($1) AND server = num",
            &[servers.as_slice().into()],
            |row| {
                let document =
                    KeyDocument { json: row.utf8(1)?.to_owned(), valid_until_ts: row.int(2)?, fetched_ts: row.int(3)? };
                Ok((row.utf8(0)?.to_owned(), document))
            },
        )
    }

    /// Keeps what a document of a server told, the document itself only if it is given, and returns all keys of the server that are
    /// known then. What the server says itself replaces what is known; what others say about it only adds, or makes a key good for
    /// longer that is the same. The caller holds the server's lock.
    ///
    /// Old keys stay, since old events are proved by them, until the server has had more of them than anybody needs: then those go
    /// of which only others told, those that its own newest document does not name any more, and of them what ended first.
    pub fn keep(
        &mut self,
        server: &str,
        keys: &[ServerKey],
        document: Option<&KeyDocument>,
    ) -> Result<Vec<ServerKey>, StoreError> {
        let known = self.of_servers(&[server])?.into_iter().map(|(_, key)| (key.key_id.clone(), key));
        let mut known: BTreeMap<String, ServerKey> = known.collect();
        let stored: BTreeSet<String> = known.keys().cloned().collect();
        let num = self.tx.intern(server)?;
        let mut changed = BTreeSet::new();
        for key in keys {
            let before = known.get(&key.key_id);
            let adds = before
                .is_none_or(|before| before.public_key == key.public_key && before.valid_until_ts < key.valid_until_ts);
            if (key.from_itself || adds) && before != Some(key) {
                known.insert(key.key_id.clone(), key.clone());
                changed.insert(key.key_id.as_str());
            }
        }
        let told: BTreeSet<&str> = keys.iter().filter(|key| key.from_itself).map(|key| key.key_id.as_str()).collect();
        let mut kept: Vec<ServerKey> = known.into_values().collect();
        kept.sort_by_key(|key| Reverse((key.from_itself, told.contains(key.key_id.as_str()), key.end())));
        let dropped = kept.split_off(kept.len().min(MOST_KEYS));
        self.forget(num, dropped.iter().map(|key| key.key_id.as_str()).filter(|key_id| stored.contains(*key_id)))?;
        for key in kept.iter().filter(|key| changed.contains(key.key_id.as_str())) {
            self.put(num, key)?;
        }
        if let Some(document) = document {
            self.put_document(num, document, !told.is_empty())?;
        }
        Ok(kept)
    }

    /// The server's own word replaces what is there; another's does if it is good for as long.
    fn put_document(&mut self, server: StringNum, document: &KeyDocument, from_itself: bool) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO server_key_documents (server, document, valid_until_ts, fetched_ts) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (server) DO UPDATE SET document = excluded.document, \
                 valid_until_ts = excluded.valid_until_ts, fetched_ts = excluded.fetched_ts \
             WHERE CAST($5 AS BIGINT) = 1 OR server_key_documents.valid_until_ts <= excluded.valid_until_ts",
            &[
                server.into(),
                document.json.as_bytes().into(),
                document.valid_until_ts.into(),
                document.fetched_ts.into(),
                from_itself.into(),
            ],
        )
    }

    /// Forgets documents that came before a time, of servers that are and were in no room that we know: at most so many, and says
    /// how many those were. Their keys stay.
    pub fn sweep_documents(&mut self, before_ts: i64, most: usize) -> Result<usize, StoreError> {
        let old = self.tx.query(
            "SELECT server FROM server_key_documents WHERE fetched_ts < $1 AND NOT EXISTS \
             (SELECT 1 FROM room_servers WHERE room_servers.server = server_key_documents.server) LIMIT $2",
            &[before_ts.into(), i64::try_from(most).unwrap_or(i64::MAX).into()],
            |row| row.int(0),
        )?;
        self.tx.exec("DELETE FROM server_key_documents WHERE server IN ints($1)", &[old[..].into()])?;
        Ok(old.len())
    }

    fn forget<'k>(&mut self, server: StringNum, key_ids: impl Iterator<Item = &'k str>) -> Result<(), StoreError> {
        let key_ids: Vec<&[u8]> = key_ids.map(str::as_bytes).collect();
        if key_ids.is_empty() {
            return Ok(());
        }
        self.tx.exec(
            "DELETE FROM server_keys WHERE server = $1 AND key_id IN blobs($2)",
            &[server.into(), key_ids.as_slice().into()],
        )
    }

    fn put(&mut self, server: StringNum, key: &ServerKey) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO server_keys (server, key_id, public_key, valid_until_ts, expired_ts, vouched) \
             VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (server, key_id) DO UPDATE SET \
                 public_key = excluded.public_key, valid_until_ts = excluded.valid_until_ts, \
                 expired_ts = excluded.expired_ts, vouched = excluded.vouched",
            &[
                server.into(),
                key.key_id.as_bytes().into(),
                key.public_key.as_slice().into(),
                key.valid_until_ts.into(),
                key.expired_ts.into(),
                (!key.from_itself).into(),
            ],
        )
    }

    /// The keys that this server signs with or has signed with.
    pub fn own(&mut self) -> Result<Vec<OwnKey>, StoreError> {
        self.tx.query("SELECT key_id, public_key, expired_ts FROM own_keys ORDER BY key_id", &[], |row| {
            Ok(OwnKey {
                key_id: row.utf8(0)?.to_owned(),
                public_key: public_key(row.bytes(1)?)?,
                expired_ts: row.opt_int(2)?,
            })
        })
    }

    /// Notes with which key this server signs from now on; others become old ones.
    pub fn sign_with(&mut self, key_id: &str, key: &[u8; 32], now: i64) -> Result<(), StoreError> {
        self.tx.exec(
            "UPDATE own_keys SET expired_ts = $1 WHERE key_id <> $2 AND expired_ts IS NULL",
            &[now.into(), key_id.as_bytes().into()],
        )?;
        self.tx.exec(
            "INSERT INTO own_keys (key_id, public_key, expired_ts) VALUES ($1, $2, NULL) \
             ON CONFLICT (key_id) DO UPDATE SET public_key = excluded.public_key, expired_ts = NULL",
            &[key_id.as_bytes().into(), key.as_slice().into()],
        )
    }
}

fn public_key(bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged("a public key has not 32 bytes".to_owned()))
}
