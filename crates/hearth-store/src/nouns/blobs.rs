//! Bytes of files: kept once however often they are uploaded, and until nothing uses them.
//!
//! Small ones are kept here, in the commit that makes them visible. Of the others only the name is: their bytes are in the
//! media storage, which knows no transactions. So they are claimed before they are stored there, and let go here before
//! they are deleted there; who comes between waits. What has no use is loose, and collected when it was so for a while.

use crate::engine::Counter;
use crate::{BlobNum, StoreError, Tx};

const STORING: i64 = 0;
const STORED: i64 = 1;
const HERE: i64 = 2;
const GOING: i64 = 3;

/// The bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Its number.
    pub num: BlobNum,
    /// Its hash, and its name in the media storage.
    pub sha256: [u8; 32],
    /// Its size.
    pub size: i64,
    /// Whether its bytes are in the database.
    pub is_here: bool,
}

/// What came of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobClaim {
    /// Its bytes are to be stored now.
    Store(BlobNum),
    /// They are stored already.
    Stored(BlobNum),
    /// They are being deleted: to be claimed again in a moment.
    Going,
}

/// What to do with a blob that was loose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// Nothing: it is used, or gone.
    Settled,
    /// Delete its bytes in the media storage, then tell [`Blobs::deleted`].
    Delete([u8; 32]),
}

/// What kind of a thumbnail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ThumbnailKind {
    /// Its width at most.
    pub width: u32,
    /// Its height at most.
    pub height: u32,
    /// Cropped to that shape.
    pub crop: bool,
    /// It moves.
    pub animated: bool,
}

/// A thumbnail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thumbnail {
    /// Its bytes.
    pub blob: Blob,
    /// Its content type.
    pub content_type: String,
}

/// Blobs, seen from a transaction.
pub struct Blobs<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Bytes of files.
    pub fn blobs(&mut self) -> Blobs<'_, 'c> {
        Blobs { tx: self }
    }
}

impl Blobs<'_, '_> {
    /// The bytes of a blob that has them in the database.
    pub fn data(&mut self, blob: BlobNum) -> Result<Option<Vec<u8>>, StoreError> {
        let sql = "SELECT data FROM blob_data WHERE num = $1";
        self.tx.one(sql, &[blob.into()], |row| row.bytes(0).map(<[u8]>::to_vec))
    }

    /// Keeps a small blob in the database. The caller holds the blob's lock, and gives it a use in the same transaction.
    pub fn keep(&mut self, sha256: &[u8; 32], data: &[u8]) -> Result<BlobNum, StoreError> {
        let size = i64::try_from(data.len()).unwrap_or(i64::MAX);
        let known = self.state(sha256)?;
        if let Some((num, HERE | STORED)) = known {
            return Ok(num);
        }
        let num = match known {
            // What is being stored or deleted elsewhere has its bytes here from now on.
            Some((num, _)) => num,
            None => BlobNum(self.tx.next_number(Counter::Blobs)?),
        };
        self.tx.exec(
            "INSERT INTO blobs (num, sha256, size, state) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (num) DO UPDATE SET state = excluded.state",
            &[num.into(), sha256.as_slice().into(), size.into(), HERE.into()],
        )?;
        self.tx.exec("INSERT INTO blob_data (num, data) VALUES ($1, $2)", &[num.into(), data.into()])?;
        Ok(num)
    }

    /// Before bytes are stored in the media storage. The caller holds the blob's lock.
    pub fn claim(&mut self, sha256: &[u8; 32], size: i64, now: i64) -> Result<BlobClaim, StoreError> {
        let (num, claim) = match self.state(sha256)? {
            Some((_, GOING)) => return Ok(BlobClaim::Going),
            Some((num, STORED | HERE)) => (num, BlobClaim::Stored(num)),
            Some((num, _)) => (num, BlobClaim::Store(num)),
            None => {
                let num = BlobNum(self.tx.next_number(Counter::Blobs)?);
                self.tx.exec(
                    "INSERT INTO blobs (num, sha256, size, state) VALUES ($1, $2, $3, $4)",
                    &[num.into(), sha256.as_slice().into(), size.into(), STORING.into()],
                )?;
                (num, BlobClaim::Store(num))
            }
        };
        self.loosen(num, now)?;
        Ok(claim)
    }

    /// Its bytes are in the media storage, and it has a use. False if it was collected meanwhile.
    pub fn stored(&mut self, blob: BlobNum) -> Result<bool, StoreError> {
        let state = self.tx.one("SELECT state FROM blobs WHERE num = $1", &[blob.into()], |row| row.int(0))?;
        match state {
            None | Some(GOING) => return Ok(false),
            Some(STORING) => {
                self.tx.exec("UPDATE blobs SET state = $2 WHERE num = $1", &[blob.into(), STORED.into()])?;
            }
            Some(_) => {}
        }
        self.tx.exec("DELETE FROM blobs_loose WHERE num = $1", &[blob.into()])?;
        Ok(true)
    }

    /// A use of it has gone: it may have been the last one. Whoever claims it at the same time has more time.
    pub fn loosen(&mut self, blob: BlobNum, since: i64) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO blobs_loose (num, since_ts) VALUES ($1, $2) ON CONFLICT (num) DO UPDATE SET since_ts = \
                 CASE WHEN excluded.since_ts > blobs_loose.since_ts THEN excluded.since_ts \
                 ELSE blobs_loose.since_ts END",
            &[blob.into(), since.into()],
        )
    }

    /// Blobs that are loose since before a time, with their hashes.
    pub fn loose(&mut self, before: i64, limit: i64) -> Result<Vec<(BlobNum, [u8; 32])>, StoreError> {
        self.tx.query(
            "SELECT l.num, b.sha256 FROM blobs_loose l CROSS JOIN blobs b \
             WHERE l.since_ts < $1 AND b.num = l.num ORDER BY l.since_ts LIMIT $2",
            &[before.into(), limit.into()],
            |row| Ok((BlobNum(row.int(0)?), hash(row.bytes(1)?)?)),
        )
    }

    /// Lets go of a blob that is loose since before a time, if nothing uses it. The caller holds the blob's lock.
    pub fn collect(&mut self, blob: BlobNum, before: i64, now: i64) -> Result<Collected, StoreError> {
        let found = self.tx.one(
            "SELECT b.state, b.sha256, \
                 EXISTS (SELECT 1 FROM media m WHERE m.blob = b.num) \
                 OR EXISTS (SELECT 1 FROM thumbnails t WHERE t.thumbnail = b.num AND t.blob <> b.num) \
             FROM blobs_loose l CROSS JOIN blobs b WHERE l.num = $1 AND l.since_ts < $2 AND b.num = l.num",
            &[blob.into(), before.into()],
            |row| Ok((row.int(0)?, hash(row.bytes(1)?)?, row.bool(2)?)),
        )?;
        let Some((state, sha256, is_used)) = found else { return Ok(Collected::Settled) };
        if is_used && state != GOING {
            self.tx.exec("DELETE FROM blobs_loose WHERE num = $1", &[blob.into()])?;
            return Ok(Collected::Settled);
        }
        if state != GOING {
            self.drop_thumbnails(blob, now)?;
        }
        if state == HERE {
            self.tx.exec("DELETE FROM blob_data WHERE num = $1", &[blob.into()])?;
            self.forget(blob)?;
            return Ok(Collected::Settled);
        }
        self.tx.exec("UPDATE blobs SET state = $2 WHERE num = $1", &[blob.into(), GOING.into()])?;
        Ok(Collected::Delete(sha256))
    }

    /// Its bytes are not in the media storage any more. The caller holds the blob's lock.
    pub fn deleted(&mut self, blob: BlobNum) -> Result<(), StoreError> {
        let state = self.tx.one("SELECT state FROM blobs WHERE num = $1", &[blob.into()], |row| row.int(0))?;
        // Its bytes may be in the database since.
        if state == Some(GOING) { self.forget(blob) } else { Ok(()) }
    }

    /// A thumbnail of a picture.
    pub fn thumbnail(&mut self, picture: BlobNum, kind: ThumbnailKind) -> Result<Option<Thumbnail>, StoreError> {
        self.tx.one(
            "SELECT b.num, b.sha256, b.size, b.state, t.content_type FROM thumbnails t CROSS JOIN blobs b \
             WHERE t.blob = $1 AND t.width = $2 AND t.height = $3 AND t.crop = $4 AND t.animated = $5 \
                 AND b.num = t.thumbnail",
            &[
                picture.into(),
                i64::from(kind.width).into(),
                i64::from(kind.height).into(),
                kind.crop.into(),
                kind.animated.into(),
            ],
            |row| {
                let blob = Blob {
                    num: BlobNum(row.int(0)?),
                    sha256: hash(row.bytes(1)?)?,
                    size: row.int(2)?,
                    is_here: row.int(3)? == HERE,
                };
                Ok(Thumbnail { blob, content_type: row.text(4)?.to_owned() })
            },
        )
    }

    /// Keeps a thumbnail, unless another one like it was kept meanwhile: of a picture that needs none, the picture itself.
    /// The caller holds the picture's lock. False if the picture is gone.
    pub fn keep_thumbnail(
        &mut self,
        picture: BlobNum,
        kind: ThumbnailKind,
        thumbnail: BlobNum,
        content_type: &str,
    ) -> Result<bool, StoreError> {
        let state = self.tx.one("SELECT state FROM blobs WHERE num = $1", &[picture.into()], |row| row.int(0))?;
        if state.is_none_or(|state| state == GOING) {
            return Ok(false);
        }
        self.tx.exec(
            "INSERT INTO thumbnails (blob, width, height, crop, animated, thumbnail, content_type) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (blob, width, height, crop, animated) DO NOTHING",
            &[
                picture.into(),
                i64::from(kind.width).into(),
                i64::from(kind.height).into(),
                kind.crop.into(),
                kind.animated.into(),
                thumbnail.into(),
                content_type.into(),
            ],
        )?;
        Ok(true)
    }

    /// Files that are not wanted here.
    pub fn is_blocked(&mut self, sha256: &[u8; 32]) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM blocked_files WHERE sha256 = $1";
        Ok(self.tx.one(sql, &[sha256.as_slice().into()], |_| Ok(()))?.is_some())
    }

    /// From now on a file is not wanted here.
    pub fn block(&mut self, sha256: &[u8; 32], now: i64) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO blocked_files (sha256, blocked_ts) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING",
            &[sha256.as_slice().into(), now.into()],
        )
    }

    /// A file is wanted again.
    pub fn unblock(&mut self, sha256: &[u8; 32]) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM blocked_files WHERE sha256 = $1", &[sha256.as_slice().into()])
    }

    /// Blobs whose bytes are in the media storage, by number: one page after another.
    pub fn in_storage(&mut self, after: BlobNum, limit: i64) -> Result<Vec<Blob>, StoreError> {
        self.tx.query(
            "SELECT num, sha256, size FROM blobs WHERE num > $1 AND state = $2 ORDER BY num LIMIT $3",
            &[after.into(), STORED.into(), limit.into()],
            |row| {
                let (num, sha256) = (BlobNum(row.int(0)?), hash(row.bytes(1)?)?);
                Ok(Blob { num, sha256, size: row.int(2)?, is_here: false })
            },
        )
    }

    /// Whether the bytes with this hash belong in the media storage.
    pub fn belongs_in_storage(&mut self, sha256: &[u8; 32]) -> Result<bool, StoreError> {
        Ok(self.state(sha256)?.is_some_and(|(_, state)| state != HERE))
    }

    /// Before bytes are deleted in the media storage that nobody knows: whoever brings them meanwhile waits. None if they
    /// are known. The caller holds the blob's lock, and tells [`Blobs::deleted`]; if he can't, the blob is loose since then.
    pub fn doom(&mut self, sha256: &[u8; 32], since: i64) -> Result<Option<BlobNum>, StoreError> {
        let num = match self.state(sha256)? {
            // Its bytes are elsewhere.
            Some((num, HERE)) => return Ok(Some(num)),
            Some(_) => return Ok(None),
            None => BlobNum(self.tx.next_number(Counter::Blobs)?),
        };
        self.tx.exec(
            "INSERT INTO blobs (num, sha256, size, state) VALUES ($1, $2, 0, $3)",
            &[num.into(), sha256.as_slice().into(), GOING.into()],
        )?;
        self.loosen(num, since)?;
        Ok(Some(num))
    }

    fn state(&mut self, sha256: &[u8; 32]) -> Result<Option<(BlobNum, i64)>, StoreError> {
        let sql = "SELECT num, state FROM blobs WHERE sha256 = $1";
        self.tx.one(sql, &[sha256.as_slice().into()], |row| Ok((BlobNum(row.int(0)?), row.int(1)?)))
    }

    fn drop_thumbnails(&mut self, picture: BlobNum, now: i64) -> Result<(), StoreError> {
        let thumbnails =
            self.tx.query("SELECT thumbnail FROM thumbnails WHERE blob = $1", &[picture.into()], |row| row.int(0))?;
        for thumbnail in thumbnails {
            self.loosen(BlobNum(thumbnail), now)?;
        }
        self.tx.exec("DELETE FROM thumbnails WHERE blob = $1", &[picture.into()])
    }

    fn forget(&mut self, blob: BlobNum) -> Result<(), StoreError> {
        self.tx.exec("DELETE FROM blobs WHERE num = $1", &[blob.into()])?;
        self.tx.exec("DELETE FROM blobs_loose WHERE num = $1", &[blob.into()])
    }
}

pub(super) fn blob(num: i64, sha256: &[u8], size: i64, state: i64) -> Result<Blob, StoreError> {
    Ok(Blob { num: BlobNum(num), sha256: hash(sha256)?, size, is_here: state == HERE })
}

fn hash(bytes: &[u8]) -> Result<[u8; 32], StoreError> {
    bytes.try_into().map_err(|_| StoreError::Damaged(format!("a hash of {} bytes", bytes.len())))
}
