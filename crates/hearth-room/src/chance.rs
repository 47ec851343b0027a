//! Chance, handed in: simulations draw the same letters again.

use std::sync::{Mutex, PoisonError};

use rand::SeedableRng;
use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::StdRng;

/// Where random letters come from.
pub(crate) struct Chance(Option<Mutex<StdRng>>);

impl Chance {
    /// From the system: nobody can guess them.
    pub(crate) fn system() -> Self {
        Self(None)
    }

    /// The same for the same seed.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Some(Mutex::new(StdRng::seed_from_u64(seed))))
    }

    /// Letters and digits.
    pub(crate) fn letters(&self, length: usize) -> String {
        match &self.0 {
            None => Alphanumeric.sample_string(&mut rand::rng(), length),
            Some(seeded) => {
                Alphanumeric.sample_string(&mut *seeded.lock().unwrap_or_else(PoisonError::into_inner), length)
            }
        }
    }
}
