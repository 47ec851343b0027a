//! Media: what an `mxc://` URI stands for. Its bytes are a blob.

use super::blobs::{Blob, blob};
use crate::{BlobNum, StoreError, StringNum, Tx, UserNum};

/// Media, of ours or of another server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Media {
    /// Its bytes and what they are called; none before they are uploaded.
    pub file: Option<MediaFile>,
    /// Who uploads it, if it is ours.
    pub uploader: Option<UserNum>,
    /// When it was made here.
    pub created_ts: i64,
    /// When somebody last looked at it, roughly.
    pub accessed_ts: i64,
    /// Of what is not uploaded: until when it can be.
    pub expires_ts: Option<i64>,
    /// Nobody may see it.
    pub is_quarantined: bool,
    /// It is shown to those only who have an access token.
    pub is_frozen: bool,
}

/// The bytes of media, and what they are called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaFile {
    /// The bytes.
    pub blob: Blob,
    /// What they are said to be.
    pub content_type: String,
    /// Their name.
    pub file_name: Option<String>,
}

/// Where media is: server and media id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MediaPlace {
    /// The server.
    pub origin: String,
    /// The media id.
    pub media_id: String,
}

/// New bytes of media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMedia {
    /// Where.
    pub place: MediaPlace,
    /// The bytes.
    pub blob: BlobNum,
    /// Their size.
    pub size: i64,
    /// What they are said to be.
    pub content_type: String,
    /// Their name.
    pub file_name: Option<String>,
    /// Who uploads it, if it is ours.
    pub uploader: Option<UserNum>,
    /// Now.
    pub created_ts: i64,
    /// It is shown to those only who have an access token.
    pub is_frozen: bool,
}

/// How much a user has uploaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Files.
    pub files: i64,
    /// Bytes of all of them.
    pub bytes: i64,
}

/// A line of a list of media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaPage {
    /// Where.
    pub place: MediaPlace,
    /// Its size.
    pub size: i64,
    /// When it was made here.
    pub created_ts: i64,
    /// When somebody last looked at it, roughly.
    pub accessed_ts: i64,
    /// Nobody may see it.
    pub is_quarantined: bool,
}

/// When hidden media was last looked at: it is not old, and nobody deletes it unasked.
const NEVER_OLD: i64 = i64::MAX;

/// Media, seen from a transaction.
pub struct MediaTable<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Media.
    pub fn media(&mut self) -> MediaTable<'_, 'c> {
        MediaTable { tx: self }
    }
}

impl MediaTable<'_, '_> {
    /// The media at a place.
    pub fn get(&mut self, place: &MediaPlace) -> Result<Option<Media>, StoreError> {
        let Some(origin) = self.tx.string_num(&place.origin)? else { return Ok(None) };
        self.tx.one(
            "SELECT m.uploader, m.created_ts, m.accessed_ts, m.expires_ts, \
                 m.quarantined_ts IS NOT NULL OR EXISTS (SELECT 1 FROM hidden_files h WHERE h.sha256 = b.sha256), \
                 m.frozen, m.content_type, m.file_name, b.num, b.sha256, b.size, b.state \
             FROM media m LEFT JOIN blobs b ON b.num = m.blob WHERE m.origin = $1 AND m.media_id = $2",
            &[origin.into(), place.media_id.as_bytes().into()],
            |row| {
                let file = match row.opt_int(8)? {
                    Some(num) => Some(MediaFile {
                        blob: blob(num, row.bytes(9)?, row.int(10)?, row.int(11)?)?,
                        content_type: row.utf8(6)?.to_owned(),
                        file_name: text(row.opt_bytes(7)?),
                    }),
                    None => None,
                };
                Ok(Media {
                    file,
                    uploader: row.opt_int(0)?.map(StringNum),
                    created_ts: row.int(1)?,
                    accessed_ts: row.int(2)?,
                    expires_ts: row.opt_int(3)?,
                    is_quarantined: row.bool(4)?,
                    is_frozen: row.bool(5)?,
                })
            },
        )
    }

    /// Makes room for media that is uploaded later.
    pub fn reserve(
        &mut self,
        place: &MediaPlace,
        uploader: UserNum,
        now: i64,
        expires_ts: i64,
    ) -> Result<(), StoreError> {
        let origin = self.tx.intern(&place.origin)?;
        self.tx.exec(
            "INSERT INTO media (origin, media_id, size, content_type, uploader, created_ts, accessed_ts, expires_ts, \
                 frozen) VALUES ($1, $2, 0, $3, $4, $5, $5, $6, 1)",
            &[
                origin.into(),
                place.media_id.as_bytes().into(),
                b"".as_slice().into(),
                uploader.into(),
                now.into(),
                expires_ts.into(),
            ],
        )
    }

    /// How much a user may still upload: media that was reserved and has not expired.
    pub fn reserved(&mut self, uploader: UserNum, now: i64) -> Result<i64, StoreError> {
        let sql = "SELECT count(*) FROM media WHERE uploader = $1 AND expires_ts > $2 AND expires_ts IS NOT NULL";
        Ok(self.tx.one(sql, &[uploader.into(), now.into()], |row| row.int(0))?.unwrap_or(0))
    }

    /// Keeps the bytes of media, new ones or those of a reserved place. The caller holds the locks of the blob and of the
    /// uploader, or of the place if nobody of ours uploads it, and has made sure that no bytes are there.
    pub fn keep(&mut self, media: &NewMedia) -> Result<(), StoreError> {
        let origin = self.tx.intern(&media.place.origin)?;
        self.tx.exec(
            "INSERT INTO media (origin, media_id, blob, size, content_type, file_name, uploader, created_ts, \
                 accessed_ts, frozen) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $8, $9) \
             ON CONFLICT (origin, media_id) DO UPDATE SET blob = excluded.blob, size = excluded.size, \
                 content_type = excluded.content_type, file_name = excluded.file_name, expires_ts = NULL, \
                 created_ts = excluded.created_ts, accessed_ts = excluded.accessed_ts, frozen = excluded.frozen",
            &[
                origin.into(),
                media.place.media_id.as_bytes().into(),
                media.blob.into(),
                media.size.into(),
                media.content_type.as_bytes().into(),
                media.file_name.as_ref().map(|name| name.as_bytes()).into(),
                media.uploader.into(),
                media.created_ts.into(),
                media.is_frozen.into(),
            ],
        )?;
        match media.uploader {
            Some(uploader) => self.count(uploader, 1, media.size),
            None => Ok(()),
        }
    }

    /// How much a user has uploaded.
    pub fn usage(&mut self, user: UserNum) -> Result<Usage, StoreError> {
        let sql = "SELECT files, bytes FROM media_usage WHERE usr = $1";
        let usage = self.tx.one(sql, &[user.into()], |row| Ok(Usage { files: row.int(0)?, bytes: row.int(1)? }))?;
        Ok(usage.unwrap_or_default())
    }

    /// Somebody has looked at media.
    pub fn accessed(&mut self, place: &MediaPlace, now: i64) -> Result<(), StoreError> {
        let Some(origin) = self.tx.string_num(&place.origin)? else { return Ok(()) };
        self.tx.exec(
            "UPDATE media SET accessed_ts = $3 WHERE origin = $1 AND media_id = $2 AND quarantined_ts IS NULL",
            &[origin.into(), place.media_id.as_bytes().into(), now.into()],
        )
    }

    /// Hides media from everybody, and its bytes wherever else they are or come from. False if there is none.
    pub fn hide(&mut self, place: &MediaPlace, now: i64) -> Result<bool, StoreError> {
        let (Some(media), Some(origin)) = (self.get(place)?, self.tx.string_num(&place.origin)?) else {
            return Ok(false);
        };
        self.tx.exec(
            "UPDATE media SET quarantined_ts = $3, accessed_ts = $4 WHERE origin = $1 AND media_id = $2",
            &[origin.into(), place.media_id.as_bytes().into(), now.into(), NEVER_OLD.into()],
        )?;
        if let Some(file) = media.file {
            self.tx.exec(
                "INSERT INTO hidden_files (sha256, hidden_ts) VALUES ($1, $2) ON CONFLICT (sha256) DO NOTHING",
                &[file.blob.sha256.as_slice().into(), now.into()],
            )?;
        }
        Ok(true)
    }

    /// Hides media of another server that is not here, so that nobody fetches it.
    pub fn hide_before(&mut self, place: &MediaPlace, now: i64) -> Result<(), StoreError> {
        let origin = self.tx.intern(&place.origin)?;
        self.tx.exec(
            "INSERT INTO media (origin, media_id, size, content_type, created_ts, accessed_ts, quarantined_ts, frozen) \
             VALUES ($1, $2, 0, $3, $4, $5, $4, 1) ON CONFLICT (origin, media_id) DO NOTHING",
            &[origin.into(), place.media_id.as_bytes().into(), b"".as_slice().into(), now.into(), NEVER_OLD.into()],
        )
    }

    /// Shows media again, and its bytes. False if there is none.
    pub fn show(&mut self, place: &MediaPlace, now: i64) -> Result<bool, StoreError> {
        let (Some(media), Some(origin)) = (self.get(place)?, self.tx.string_num(&place.origin)?) else {
            return Ok(false);
        };
        let at: [crate::Value<'_>; 2] = [origin.into(), place.media_id.as_bytes().into()];
        match media.file {
            Some(file) => {
                let hash = file.blob.sha256;
                self.tx.exec("DELETE FROM hidden_files WHERE sha256 = $1", &[hash.as_slice().into()])?;
            }
            // It was hidden before it came: now it may come.
            None if media.expires_ts.is_none() => {
                self.tx.exec("DELETE FROM media WHERE origin = $1 AND media_id = $2", &at)?;
                return Ok(true);
            }
            None => {}
        }
        let [origin, media_id] = at;
        self.tx.exec(
            "UPDATE media SET quarantined_ts = NULL, accessed_ts = $3 \
             WHERE origin = $1 AND media_id = $2 AND quarantined_ts IS NOT NULL",
            &[origin, media_id, now.into()],
        )?;
        Ok(true)
    }

    /// The thumbnails of media that another server made.
    pub fn thumbnails_of(&mut self, place: &MediaPlace) -> Result<Vec<MediaPlace>, StoreError> {
        let Some(origin) = self.tx.string_num(&place.origin)? else { return Ok(Vec::new()) };
        let (from, to) = (format!("{}#", place.media_id), format!("{}$", place.media_id));
        self.tx.query(
            "SELECT media_id FROM media WHERE origin = $1 AND media_id > $2 AND media_id < $3",
            &[origin.into(), from.as_bytes().into(), to.as_bytes().into()],
            |row| Ok(MediaPlace { origin: place.origin.clone(), media_id: row.utf8(0)?.to_owned() }),
        )
    }

    /// Forgets media; its bytes are collected if nothing else uses them. Its size, if there was any. The caller holds the
    /// lock of the uploader, if there is one.
    pub fn delete(&mut self, place: &MediaPlace, now: i64) -> Result<Option<i64>, StoreError> {
        let (Some(media), Some(origin)) = (self.get(place)?, self.tx.string_num(&place.origin)?) else {
            return Ok(None);
        };
        self.tx.exec(
            "DELETE FROM media WHERE origin = $1 AND media_id = $2",
            &[origin.into(), place.media_id.as_bytes().into()],
        )?;
        let Some(file) = media.file else { return Ok(Some(0)) };
        self.tx.blobs().loosen(file.blob.num, now)?;
        if let Some(uploader) = media.uploader {
            self.count(uploader, -1, -file.blob.size)?;
        }
        Ok(Some(file.blob.size))
    }

    /// Reserved places whose time is over.
    pub fn overdue(&mut self, now: i64, limit: i64) -> Result<Vec<MediaPlace>, StoreError> {
        self.tx.query(
            "SELECT s.text, m.media_id FROM media m CROSS JOIN strings s \
             WHERE m.expires_ts <= $1 AND m.expires_ts IS NOT NULL AND s.num = m.origin ORDER BY m.expires_ts LIMIT $2",
            &[now.into(), limit.into()],
            |row| Ok(MediaPlace { origin: row.utf8(0)?.to_owned(), media_id: row.utf8(1)?.to_owned() }),
        )
    }

    /// What a user has uploaded behind a time and a media id, oldest first.
    pub fn of_uploader(
        &mut self,
        user: UserNum,
        after_ts: i64,
        after: &str,
        limit: i64,
    ) -> Result<Vec<MediaPage>, StoreError> {
        self.tx.query(
            "SELECT s.text, m.media_id, m.size, m.created_ts, m.accessed_ts, m.quarantined_ts \
             FROM media m CROSS JOIN strings s \
             WHERE m.uploader = $1 AND m.uploader IS NOT NULL AND (m.created_ts, m.media_id) > ($2, $3) \
                 AND s.num = m.origin ORDER BY m.created_ts, m.media_id LIMIT $4",
            &[user.into(), after_ts.into(), after.as_bytes().into(), limit.into()],
            page,
        )
    }

    /// Media of a server behind a media id, by media id.
    pub fn of_server(&mut self, origin: &str, after: &str, limit: i64) -> Result<Vec<MediaPage>, StoreError> {
        let Some(num) = self.tx.string_num(origin)? else { return Ok(Vec::new()) };
        self.tx.query(
            "SELECT s.text, m.media_id, m.size, m.created_ts, m.accessed_ts, m.quarantined_ts \
             FROM media m CROSS JOIN strings s WHERE m.origin = $1 AND m.media_id > $2 AND s.num = m.origin \
             ORDER BY m.media_id LIMIT $3",
            &[num.into(), after.as_bytes().into(), limit.into()],
            page,
        )
    }

    /// Media of other servers that nobody looked at since before a time, the longest first.
    pub fn of_others(&mut self, before: i64, limit: i64) -> Result<Vec<MediaPage>, StoreError> {
        self.tx.query(
            "SELECT s.text, m.media_id, m.size, m.created_ts, m.accessed_ts, m.quarantined_ts \
             FROM media m CROSS JOIN strings s \
             WHERE m.uploader IS NULL AND m.accessed_ts < $1 AND s.num = m.origin ORDER BY m.accessed_ts LIMIT $2",
            &[before.into(), limit.into()],
            page,
        )
    }

    /// The same of ours.
    pub fn of_ours(&mut self, before: i64, limit: i64) -> Result<Vec<MediaPage>, StoreError> {
        self.tx.query(
            "SELECT s.text, m.media_id, m.size, m.created_ts, m.accessed_ts, m.quarantined_ts \
             FROM media m CROSS JOIN strings s \
             WHERE m.uploader IS NOT NULL AND m.accessed_ts < $1 AND s.num = m.origin ORDER BY m.accessed_ts LIMIT $2",
            &[before.into(), limit.into()],
            page,
        )
    }

    /// Size of all media of other servers, without what is hidden.
    pub fn size_of_others(&mut self) -> Result<i64, StoreError> {
        let sql = "SELECT CAST(COALESCE(sum(size), 0) AS BIGINT) FROM media \
                   WHERE uploader IS NULL AND accessed_ts > -1 AND accessed_ts < $1";
        Ok(self.tx.one(sql, &[NEVER_OLD.into()], |row| row.int(0))?.unwrap_or(0))
    }

    /// Media with the same bytes behind a place, by place.
    pub fn of_blob(
        &mut self,
        sha256: &[u8; 32],
        after: (&str, &str),
        limit: i64,
    ) -> Result<Vec<MediaPage>, StoreError> {
        let origin = self.tx.string_num(after.0)?.map_or(i64::MIN, |origin| origin.0);
        self.tx.query(
            "SELECT s.text, m.media_id, m.size, m.created_ts, m.accessed_ts, m.quarantined_ts \
             FROM blobs b CROSS JOIN media m CROSS JOIN strings s \
             WHERE b.sha256 = $1 AND m.blob = b.num AND (m.origin, m.media_id) > ($2, $3) AND s.num = m.origin \
             ORDER BY m.origin, m.media_id LIMIT $4",
            &[sha256.as_slice().into(), origin.into(), after.1.as_bytes().into(), limit.into()],
            page,
        )
    }

    fn count(&mut self, user: UserNum, files: i64, bytes: i64) -> Result<(), StoreError> {
        self.tx.exec(
            "INSERT INTO media_usage (usr, files, bytes) VALUES ($1, $2, $3) ON CONFLICT (usr) DO UPDATE SET \
                 files = media_usage.files + excluded.files, bytes = media_usage.bytes + excluded.bytes",
            &[user.into(), files.into(), bytes.into()],
        )
    }
}

fn page(row: &dyn crate::Row) -> Result<MediaPage, StoreError> {
    Ok(MediaPage {
        place: MediaPlace { origin: row.utf8(0)?.to_owned(), media_id: row.utf8(1)?.to_owned() },
        size: row.int(2)?,
        created_ts: row.int(3)?,
        accessed_ts: row.int(4)?,
        is_quarantined: row.opt_int(5)?.is_some(),
    })
}

fn text(bytes: Option<&[u8]>) -> Option<String> {
    bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}
