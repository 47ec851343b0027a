//! Many closures, one commit: what happens when one of them fails.
//!
//! Everything is rolled back, and the rest starts again without it; it then runs alone, so that its error is its own.
//! A savepoint around each closure would cost more in the good case, which is nearly every case.

use crate::StoreError;
use crate::job::{Job, Shared};

/// Most members of a group.
pub(crate) const GROUP: usize = 128;
/// After so many failures in a group, all its members run alone.
const FAILURES: usize = 4;

/// Why a group was rolled back: by which member, if it was one of them.
pub(crate) struct Failure {
    pub(crate) member: Option<usize>,
    pub(crate) error: StoreError,
}

/// Commits the jobs with `attempt`, which runs one transaction, and answers each.
pub(crate) fn commit(shared: &Shared, mut jobs: Vec<Job>, mut attempt: impl FnMut(&mut [Job]) -> Result<(), Failure>) {
    let mut alone = Vec::new();
    while !jobs.is_empty() {
        match attempt(&mut jobs) {
            Ok(()) => {
                shared.meters.group_size.record(jobs.len() as f64);
                jobs.drain(..).for_each(Job::succeed);
            }
            Err(Failure { member: Some(member), .. }) if jobs.len() > 1 => {
                shared.meters.replays.increment(jobs.len() as u64);
                alone.push(jobs.remove(member));
                if alone.len() >= FAILURES {
                    alone.append(&mut jobs);
                }
            }
            Err(Failure { member, error }) => {
                if member.is_none() {
                    tracing::error!(%error, writes = jobs.len(), "a transaction failed");
                }
                jobs.drain(..).for_each(|job| job.fail(error.clone()));
            }
        }
    }
    for mut job in alone {
        match attempt(std::slice::from_mut(&mut job)) {
            Ok(()) => job.succeed(),
            Err(failure) => job.fail(failure.error),
        }
    }
}
