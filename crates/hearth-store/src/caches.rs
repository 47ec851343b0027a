//! Facts kept in memory. Facts never change, so nothing is ever invalidated; but a fact is learned only after COMMIT, since
//! a number given in a rolled-back transaction may belong to another string in the replay.

use std::sync::Arc;

use quick_cache::sync::Cache;
use rustc_hash::FxHashMap;

use crate::StringNum;

/// What all transactions share.
pub(crate) struct Caches {
    texts: Cache<StringNum, Arc<str>>,
    strings: Cache<Arc<str>, StringNum>,
}

impl Caches {
    pub(crate) fn new() -> Self {
        Self { texts: Cache::new(100_000), strings: Cache::new(100_000) }
    }

    pub(crate) fn string_num(&self, text: &str) -> Option<StringNum> {
        self.strings.get(text)
    }

    pub(crate) fn text(&self, num: StringNum) -> Option<Arc<str>> {
        self.texts.get(&num)
    }

    /// Takes over what a committed transaction learned.
    pub(crate) fn learn(&self, learned: Learned) {
        for (num, text) in learned.texts {
            self.strings.insert(text.clone(), num);
            self.texts.insert(num, text);
        }
    }
}

/// What one transaction (or one group of them) learned.
#[derive(Default)]
pub(crate) struct Learned {
    texts: FxHashMap<StringNum, Arc<str>>,
    strings: FxHashMap<Arc<str>, StringNum>,
}

impl Learned {
    pub(crate) fn string(&mut self, num: StringNum, text: &str) {
        let text: Arc<str> = text.into();
        self.strings.insert(text.clone(), num);
        self.texts.insert(num, text);
    }

    pub(crate) fn string_num(&self, text: &str) -> Option<StringNum> {
        self.strings.get(text).copied()
    }

    pub(crate) fn text(&self, num: StringNum) -> Option<Arc<str>> {
        self.texts.get(&num).cloned()
    }
}
