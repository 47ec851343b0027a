//! Token buckets: many, keyed, in bounded memory.
//!
//! A bucket is one number: the moment at which it will be full again ("generic cell rate algorithm"). A bucket that is full
//! says nothing that no bucket would not say, too, so it can be forgotten at any time.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Kind, Rate};

/// Parts with a lock each, so that requests seldom wait for one another.
const SHARDS: usize = 64;
/// Buckets in a part at most. With all of them full of different strangers, memory stays below some 30 MiB.
const MOST: usize = 8 * 1024;
/// Fewer buckets than these are not worth a look.
const FEW: usize = 64;

/// What a bucket counts, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) kind: Kind,
    pub(super) of: Of,
}

/// For whom a bucket counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    User(i64),
    /// A fingerprint of an account's name, whether there is such an account or not.
    Account(u64),
    V4(u32),
    /// The network, of 64 bits: whoever has one address there has them all.
    V6(u64),
}

impl Of {
    pub(crate) fn address(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Self::V4(address.to_bits()),
            IpAddr::V6(address) => Self::V6((address.to_bits() >> 64) as u64),
        }
    }

    /// The same with all networks that one customer may have: 48 bits.
    pub(crate) fn site(address: IpAddr) -> Self {
        match Self::address(address) {
            Self::V6(network) => Self::V6(network & !0xffff),
            of => of,
        }
    }
}

pub(super) struct Buckets {
    shards: Box<[Mutex<Shard>]>,
    /// Keyed by chance: nobody can choose names that collide.
    hasher: RandomState,
}

struct Shard {
    full_at_us: HashMap<Key, i64>,
    /// At so many buckets the full ones are forgotten.
    sweep_at: usize,
}

impl Buckets {
    pub(super) fn new() -> Self {
        let shard = |_| Mutex::new(Shard { full_at_us: HashMap::new(), sweep_at: FEW });
        Self { shards: (0..SHARDS).map(shard).collect(), hasher: RandomState::new() }
    }

    pub(super) fn fingerprint(&self, text: &str) -> u64 {
        self.hasher.hash_one(text)
    }

    /// Takes from a bucket, or says in how many microseconds there will be enough. More than a bucket holds is taken from a
    /// full one.
    pub(super) fn take(&self, key: Key, rate: Rate, count: u32, now_us: i64) -> Result<(), i64> {
        let (interval_us, window_us) = times(rate);
        let cost_us = interval_us.saturating_mul(i64::from(count)).min(window_us);
        let mut shard = self.shard(&key);
        let known = shard.full_at_us.get(&key).copied();
        // No bucket takes longer to fill than its window: a moment beyond that was told by a clock that was set back since.
        let full_at_us = known.filter(|at| (now_us..=now_us.saturating_add(window_us)).contains(at)).unwrap_or(now_us);
        let full_then_us = full_at_us.saturating_add(cost_us);
        let wait_us = full_then_us - now_us.saturating_add(window_us);
        if wait_us > 0 {
            return Err(wait_us);
        }
        if known.is_none() && shard.full_at_us.len() >= shard.sweep_at {
            shard.sweep(now_us);
        }
        shard.full_at_us.insert(key, full_then_us);
        Ok(())
    }

    /// Puts one back that was taken in vain.
    pub(super) fn give_back(&self, key: Key, rate: Rate) {
        let (interval_us, _) = times(rate);
        if let Some(full_at_us) = self.shard(&key).full_at_us.get_mut(&key) {
            *full_at_us -= interval_us;
        }
    }

    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let at = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or_default();
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap().full_at_us.len()).sum()
    }
}

impl Shard {
    /// Forgets full buckets, and if too many are left, those that are nearest to it. Each sweep is paid for by as many
    /// insertions as it leaves buckets.
    fn sweep(&mut self, now_us: i64) {
        self.full_at_us.retain(|_, at| *at > now_us);
        if self.full_at_us.len() >= MOST {
            let mut moments: Vec<i64> = self.full_at_us.values().copied().collect();
            let (_, median, _) = moments.select_nth_unstable(MOST / 2);
            let median = *median;
            let mut surplus = self.full_at_us.len() - MOST / 2;
            self.full_at_us.retain(|_, at| {
                let goes = surplus > 0 && *at <= median;
                surplus -= usize::from(goes);
                !goes
            });
        }
        self.full_at_us.shrink_to(2 * self.full_at_us.len());
        self.sweep_at = (2 * self.full_at_us.len()).clamp(FEW, MOST);
    }
}

/// Microseconds for one, and for a whole bucket.
fn times(rate: Rate) -> (i64, i64) {
    let interval_us = 60_000_000 / i64::from(rate.per_minute.max(1));
    (interval_us, interval_us.saturating_mul(i64::from(rate.burst.max(1))))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { burst: 2, per_minute: 60 };

    fn user(number: i64) -> Key {
        Key { kind: Kind::Sends, of: Of::User(number) }
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let buckets = Buckets::new();
        let later_us = 3_600_000_000;
        for now_us in [later_us, later_us, 0, 0] {
            assert_eq!(buckets.take(user(1), RATE, 1, now_us), Ok(()));
        }
        assert_eq!(buckets.take(user(1), RATE, 1, 0), Err(1_000_000));
    }

    #[test]
    fn more_than_a_bucket_holds_empties_a_full_one() {
        let buckets = Buckets::new();
        assert_eq!(buckets.take(user(1), RATE, 50, 0), Ok(()));
        assert_eq!(buckets.take(user(1), RATE, 1, 0), Err(1_000_000));
        assert_eq!(buckets.take(user(1), RATE, 50, 1_000_000), Err(1_000_000));
    }

    #[test]
    fn buckets_that_are_full_again_are_forgotten() {
        let buckets = Buckets::new();
        for number in 0..100_000 {
            let now_us = number * 10_000;
            assert_eq!(buckets.take(user(number), RATE, 1, now_us), Ok(()));
        }
        assert!(buckets.len() <= SHARDS * FEW, "{}", buckets.len());
    }

    #[test]
    fn memory_is_bounded_whoever_comes() {
        let buckets = Buckets::new();
        for number in 0..(2 * SHARDS * MOST) as i64 {
            assert_eq!(buckets.take(user(number), RATE, 1, 0), Ok(()));
        }
        assert!(buckets.len() <= SHARDS * MOST, "{}", buckets.len());
        // Who came often is the last to be forgotten.
        let buckets = Buckets::new();
        assert_eq!(buckets.take(user(-1), RATE, 2, 0), Ok(()));
        for number in 0..(2 * SHARDS * MOST) as i64 {
            assert_eq!(buckets.take(user(number), RATE, 1, 0), Ok(()));
        }
        assert!(buckets.take(user(-1), RATE, 1, 0).is_err());
    }
}
