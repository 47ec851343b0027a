//! What was found lately, so that what many look at is not looked up for each of them.
//!
//! What is at a place can be hidden or deleted: then all that was found before is forgotten. Other nodes would not tell, so
//! where there are some nothing is remembered of places. The thumbnails of a picture stay what they are as long as it is here.

use std::sync::atomic::{AtomicU64, Ordering};

use hearth_store::{Blob, BlobNum, MediaFile, MediaPlace, ThumbnailKind};
use quick_cache::sync::Cache;

const MOST: usize = 10_000;

/// A file, and what else is known of its place.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) file: MediaFile,
    pub(crate) is_frozen: bool,
    pub(crate) accessed_ts: i64,
}

/// What was found lately.
pub(crate) struct Known {
    places: Option<Cache<MediaPlace, (Since, Placed)>>,
    thumbnails: Cache<(BlobNum, ThumbnailKind), (Blob, String)>,
    changes: AtomicU64,
}

/// How often something had changed before somebody began to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Since(u64);

impl Known {
    pub(crate) fn new(has_siblings: bool) -> Self {
        let places = (!has_siblings).then(|| Cache::new(MOST));
        Self { places, thumbnails: Cache::new(MOST), changes: AtomicU64::new(0) }
    }

    /// To be taken before looking into the store.
    pub(crate) fn now(&self) -> Since {
        Since(self.changes.load(Ordering::SeqCst))
    }

    /// Something was hidden, shown or deleted.
    pub(crate) fn has_changed(&self) {
        self.changes.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn at(&self, place: &MediaPlace) -> Option<Placed> {
        let (since, placed) = self.places.as_ref()?.get(place)?;
        (since == self.now()).then_some(placed)
    }

    /// This was found by somebody who began to look then.
    pub(crate) fn found(&self, place: &MediaPlace, since: Since, placed: Placed) {
        if let Some(places) = &self.places {
            places.insert(place.clone(), (since, placed));
        }
    }

    pub(crate) fn thumbnail(&self, picture: BlobNum, kind: ThumbnailKind) -> Option<(Blob, String)> {
        self.thumbnails.get(&(picture, kind))
    }

    pub(crate) fn found_thumbnail(&self, picture: BlobNum, kind: ThumbnailKind, blob: Blob, content_type: &str) {
        self.thumbnails.insert((picture, kind), (blob, content_type.to_owned()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed() -> Placed {
        let blob = Blob { num: BlobNum(1), sha256: [1; 32], size: 1, is_here: true };
        let file = MediaFile { blob, content_type: "a/b".to_owned(), file_name: None };
        Placed { file, is_frozen: true, accessed_ts: 0 }
    }

    #[test]
    fn what_was_found_before_a_change_is_forgotten() {
        let place = MediaPlace { origin: "a.org".to_owned(), media_id: "x".to_owned() };
        let known = Known::new(false);
        known.found(&place, known.now(), placed());
        assert!(known.at(&place).is_some());
        let before = known.now();
        known.has_changed();
        assert!(known.at(&place).is_none());
        // Also if it is told only now.
        known.found(&place, before, placed());
        assert!(known.at(&place).is_none());
        let siblings = Known::new(true);
        siblings.found(&place, siblings.now(), placed());
        assert!(siblings.at(&place).is_none());
    }
}
