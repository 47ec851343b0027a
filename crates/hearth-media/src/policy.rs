//! What whoever runs the server may do to media: delete it, hide it, keep files out.
//!
//! Deleted media of other servers is fetched again when somebody asks for it; hidden media is not. What is hidden is hidden
//! under whatever name its bytes have, and with its thumbnails. A file that is kept out can be neither uploaded nor fetched.

use hearth_matrix::ruma::OwnedUserId;
use hearth_store::{MediaPage, MediaPlace, Noun, StoreError};

use crate::housekeeping::LOOSE_FOR_MS;
use crate::keep::blob_noun;
use crate::{Media, is_media_id};

const BATCH: i64 = 200;

/// Which media.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// These.
    Places(Vec<MediaPlace>),
    /// What a user has uploaded.
    OfUser(OwnedUserId),
    /// All of a server.
    OfServer(String),
    /// All with the same bytes.
    OfFile([u8; 32]),
}

/// How much was touched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Files.
    pub files: u64,
    /// Bytes that they have, the same ones counted for each.
    pub bytes: u64,
}

/// What is done to media.
#[derive(Clone, Copy)]
enum Act {
    Delete,
    Hide,
    Show,
}

/// Where a list goes on.
enum Cursor {
    Start,
    After(MediaPage),
}

impl Media {
    /// Deletes media, and at once the bytes that nothing else uses.
    pub async fn delete(&self, selection: Selection) -> Result<Touched, StoreError> {
        let touched = self.each(selection, Act::Delete).await?;
        self.collect().await?;
        Ok(touched)
    }

    /// Hides media from everybody, or shows it again.
    pub async fn quarantine(&self, selection: Selection, is_hidden: bool) -> Result<Touched, StoreError> {
        self.each(selection, if is_hidden { Act::Hide } else { Act::Show }).await
    }

    /// Keeps a file out from now on, and deletes all media that has its bytes.
    pub async fn block(&self, sha256: [u8; 32]) -> Result<Touched, StoreError> {
        let now = self.now();
        self.store().write([blob_noun(&sha256)], move |tx| tx.blobs().block(&sha256, now)).await?;
        self.delete(Selection::OfFile(sha256)).await
    }

    /// Lets a file in again.
    pub async fn unblock(&self, sha256: [u8; 32]) -> Result<(), StoreError> {
        self.store().write([blob_noun(&sha256)], move |tx| tx.blobs().unblock(&sha256)).await
    }

    /// Deletes media; whether there was any. Its bytes are collected when they have been loose for a while, counted from
    /// `later_ms` from now.
    pub(crate) async fn delete_one(&self, place: &MediaPlace, later_ms: i64) -> Result<bool, StoreError> {
        let (since, asked) = (self.now() + later_ms, place.clone());
        let found = self.store().read(move |tx| tx.media().get(&asked)).await?;
        let Some(found) = found else { return Ok(false) };
        let noun = found.uploader.map_or_else(|| media_noun(place), Noun::User);
        let place = place.clone();
        let deleted = self.store().write_quiet([noun], move |tx| tx.media().delete(&place, since)).await;
        self.known().has_changed();
        let deleted = deleted?;
        Ok(deleted.is_some())
    }

    /// Does something to each, and counts those to which it was done.
    async fn each(&self, selection: Selection, act: Act) -> Result<Touched, StoreError> {
        let mut touched = Touched::default();
        let mut cursor = Cursor::Start;
        loop {
            let mut pages = self.page(&selection, &cursor).await?;
            for page in &pages {
                if self.act(act, &page.place).await? {
                    touched.files += 1;
                    touched.bytes += u64::try_from(page.size).unwrap_or(0);
                }
            }
            let is_last = (pages.len() as i64) < BATCH || matches!(selection, Selection::Places(_));
            match pages.pop() {
                Some(last) if !is_last => cursor = Cursor::After(last),
                _ => return Ok(touched),
            }
        }
    }

    /// Does something to one; whether there is one.
    async fn act(&self, act: Act, place: &MediaPlace) -> Result<bool, StoreError> {
        let (now, place, noun) = (self.now(), place.clone(), media_noun(place));
        // What is not here yet may come.
        let may_come = !self.is_ours(&place.origin) && is_media_id(&place.media_id);
        let done = match act {
            Act::Delete => return self.delete_one(&place, -LOOSE_FOR_MS - 1).await,
            Act::Show => self.store().write([noun], move |tx| tx.media().show(&place, now)).await,
            Act::Hide => {
                let hide = self.store().write([noun], move |tx| {
                    let is_hidden = tx.media().hide(&place, now)?;
                    if !is_hidden && may_come {
                        tx.media().hide_before(&place, now)?;
                    }
                    Ok(is_hidden || may_come)
                });
                hide.await
            }
        };
        self.known().has_changed();
        done
    }

    async fn page(&self, selection: &Selection, cursor: &Cursor) -> Result<Vec<MediaPage>, StoreError> {
        let (created_ts, media_id, origin) = match cursor {
            Cursor::Start => (i64::MIN, String::new(), String::new()),
            Cursor::After(last) => (last.created_ts, last.place.media_id.clone(), last.place.origin.clone()),
        };
        let selection = selection.clone();
        let read = self.store().read(move |tx| match &selection {
            Selection::Places(places) => {
                let mut pages = Vec::new();
                for place in places {
                    for place in [vec![place.clone()], tx.media().thumbnails_of(place)?].concat() {
                        let media = tx.media().get(&place)?;
                        pages.push(MediaPage {
                            place,
                            size: media.as_ref().and_then(|media| media.file.as_ref()).map_or(0, |file| file.blob.size),
                            created_ts: media.as_ref().map_or(0, |media| media.created_ts),
                            accessed_ts: media.as_ref().map_or(0, |media| media.accessed_ts),
                            is_quarantined: media.is_some_and(|media| media.is_quarantined),
                        });
                    }
                }
                Ok(pages)
            }
            Selection::OfUser(user_id) => match tx.string_num(user_id.as_str())? {
                Some(user) => tx.media().of_uploader(user, created_ts, &media_id, BATCH),
                None => Ok(Vec::new()),
            },
            Selection::OfServer(server) => tx.media().of_server(server, &media_id, BATCH),
            Selection::OfFile(sha256) => tx.media().of_blob(sha256, (&origin, &media_id), BATCH),
        });
        read.await
    }
}

/// The lock of media that nobody of ours has uploaded.
pub(crate) fn media_noun(place: &MediaPlace) -> Noun {
    Noun::Name(format!("media:{}/{}", place.origin, place.media_id))
}
