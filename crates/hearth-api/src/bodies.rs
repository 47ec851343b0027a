//! How much of the bodies of other servers' requests is held at once, in all and for one address.
//!
//! Who sends a body is proved by the whole of it: until then it may be anybody, with a name made up, who never ends. What is held
//! counts from its first byte until its request is answered. What finds no room is refused, so that our memory does not grow.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ApiError;
use crate::limits::Of;

/// Bytes that are held in all,
const IN_ALL: usize = 128 * 1024 * 1024;
/// and for one address: some of the largest transactions.
const OF_ADDRESS: usize = 32 * 1024 * 1024;
/// When one that found no room may come again.
const RETRY_AFTER_MS: u64 = 5_000;

/// What is held of bodies. Cheap to clone.
#[derive(Clone, Default)]
pub struct Bodies(Arc<Mutex<Sizes>>);

#[derive(Default)]
struct Sizes {
    in_all: usize,
    by_address: HashMap<Of, usize>,
}

/// What is held of one body, until this is dropped.
pub(crate) struct Held {
    bodies: Bodies,
    of: Of,
    bytes: usize,
}

impl Bodies {
    /// Bytes that are held now.
    pub fn bytes(&self) -> usize {
        self.sizes().in_all
    }

    /// For a body that comes from an address.
    pub(crate) fn from(&self, address: IpAddr) -> Held {
        Held { bodies: self.clone(), of: Of::address(address), bytes: 0 }
    }

    fn sizes(&self) -> MutexGuard<'_, Sizes> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Held {
    /// Makes room for so many bytes more.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), ApiError> {
        let mut sizes = self.bodies.sizes();
        let of_address = sizes.by_address.get(&self.of).copied().unwrap_or(0) + bytes;
        if sizes.in_all + bytes > IN_ALL || of_address > OF_ADDRESS {
            metrics::counter!("hearth_rate_limited_total", "limit" => "federation_bodies").increment(1);
            return Err(ApiError::limit_exceeded(RETRY_AFTER_MS));
        }
        sizes.in_all += bytes;
        sizes.by_address.insert(self.of, of_address);
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut sizes = self.bodies.sizes();
        sizes.in_all -= self.bytes;
        if let Some(of_address) = sizes.by_address.get_mut(&self.of) {
            *of_address -= self.bytes;
            if *of_address == 0 {
                sizes.by_address.remove(&self.of);
            }
        }
    }
}
