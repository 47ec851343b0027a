//! How much of the bodies of other servers' requests is held at once, in all and for one address.
//!
//! Who sends a body is proved by the whole of it: until then it may be anybody, with a name made up, who never ends. What is held
//! counts from its first byte until its request is answered. What finds no room is refused, so that our memory does not grow.
//! Addresses from which nobody has proved lately who he is share a part of it only, however many they are: they keep nobody out who
//! has.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_store::WallTime;
use quick_cache::sync::Cache;

use crate::ApiError;
use crate::limits::Of;

/// How much is held.
#[derive(Clone, Copy)]
struct Most {
    in_all: usize,
    /// Some of the largest transactions, or one.
    of_address: usize,
}

const MIB: usize = 1024 * 1024;
/// For all,
const MOST: Most = Most { in_all: 128 * MIB, of_address: 32 * MIB };
/// and for those of whom nothing is proved.
const OF_UNPROVED: Most = Most { in_all: 64 * MIB, of_address: 16 * MIB };
/// A proof counts for so long.
const PROVED_FOR_MS: i64 = 60 * 60 * 1000;
/// Addresses that have proved something.
const MOST_PROVED: usize = 50_000;
/// When one that found no room may come again.
const RETRY_AFTER_MS: u64 = 5_000;

/// What is held of bodies. Cheap to clone.
#[derive(Clone)]
pub struct Bodies(Arc<Inner>);

struct Inner {
    sizes: Mutex<Sizes>,
    /// Addresses from which a request came that was proved, with when.
    proved: Cache<Of, i64>,
    time: WallTime,
}

#[derive(Default)]
struct Sizes {
    in_all: usize,
    of_unproved: usize,
    by_address: HashMap<Of, usize>,
}

/// What is held of one body, until this is dropped.
pub(crate) struct Held {
    bodies: Bodies,
    of: Of,
    is_proved: bool,
    bytes: usize,
}

impl Bodies {
    /// By a clock.
    pub fn new(time: WallTime) -> Self {
        Self(Arc::new(Inner { sizes: Mutex::default(), proved: Cache::new(MOST_PROVED), time }))
    }

    /// Bytes that are held now.
    pub fn bytes(&self) -> usize {
        self.sizes().in_all
    }

    /// For a body that comes from an address.
    pub(crate) fn from(&self, address: IpAddr) -> Held {
        let proved_at = self.0.proved.get(&Of::address(address));
        let is_proved = proved_at.is_some_and(|at| self.0.time.now_ms() < at.saturating_add(PROVED_FOR_MS));
        let of = if is_proved { Of::address(address) } else { Of::site(address) };
        Held { bodies: self.clone(), of, is_proved, bytes: 0 }
    }

    /// A server has proved that it sent a request from an address.
    pub(crate) fn proved(&self, address: IpAddr) {
        self.0.proved.insert(Of::address(address), self.0.time.now_ms());
    }

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.0.sizes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Makes room for so many bytes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let mut sizes = self.bodies.sizes();
        let of_address = sizes.by_address.get(&self.of).copied().unwrap_or(0) + bytes;
        let has_room = if self.is_proved {
            of_address <= MOST.of_address
        } else {
            of_address <= OF_UNPROVED.of_address && sizes.of_unproved + bytes <= OF_UNPROVED.in_all
        };
        if !has_room || sizes.in_all + bytes > MOST.in_all {
            metrics::counter!("hearth_rate_limited_total", "limit" => "federation_bodies").increment(1);
            return Err(ApiError::limit_exceeded(RETRY_AFTER_MS));
        }
        sizes.in_all += bytes;
        if !self.is_proved {
            sizes.of_unproved += bytes;
        }
        sizes.by_address.insert(self.of, of_address);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut sizes = self.bodies.sizes();
        sizes.in_all -= self.bytes;
        if !self.is_proved {
            sizes.of_unproved -= self.bytes;
        }
        if let Some(of_address) = sizes.by_address.get_mut(&self.of) {
            *of_address -= self.bytes;
            if *of_address == 0 {
                sizes.by_address.remove(&self.of);
            }
        }
    }
}
