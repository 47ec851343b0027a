//! Types and state keys as small numbers, for as long as one resolution takes.

use rustc_hash::FxHashMap;

/// Numbers pairs of type and state key in the order they are first seen.
#[derive(Default)]
pub(super) struct Keys {
    kinds: FxHashMap<Box<str>, FxHashMap<Box<str>, u32>>,
    len: u32,
}

impl Keys {
    /// The number of a pair, if it has one.
    pub(super) fn get(&self, kind: &str, key: &str) -> Option<u32> {
        self.kinds.get(kind)?.get(key).copied()
    }

    /// The number of a pair, a new one if it has none.
    pub(super) fn number(&mut self, kind: &str, key: &str) -> u32 {
        if let Some(number) = self.get(kind, key) {
            return number;
        }
        let number = self.len;
        self.len += 1;
        self.kinds.entry(kind.into()).or_default().insert(key.into(), number);
        number
    }
}
