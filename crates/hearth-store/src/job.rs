//! Closures on their way to a database thread and back.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, Location, catch_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use metrics::Gauge;
use tokio::sync::oneshot;

use crate::caches::{Caches, Learned};
use crate::engine::Engine;
use crate::feed::Feed;
use crate::meters::Meters;
use crate::{Noun, Publication, StoreError, Tx};

/// What all threads of a store share.
pub(crate) struct Shared {
    pub(crate) caches: Caches,
    pub(crate) feed: Feed,
    pub(crate) meters: Meters,
}

/// What kind of transaction a closure asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One snapshot, no writes.
    Read,
    /// May publish.
    Write,
    /// Bulk work: must not publish, others go first.
    Quiet,
}

/// A closure with its waiting caller.
pub(crate) struct Job {
    work: Box<dyn Work>,
    pub(crate) kind: Kind,
    pub(crate) nouns: Vec<Noun>,
    place: &'static Location<'static>,
}

/// A closure whose result type is forgotten. It keeps its last result until it is told whether that was committed.
trait Work: Send {
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError>;
    fn answer(self: Box<Self>, outcome: Result<(), StoreError>);
}

struct Closure<T, F> {
    closure: F,
    result: Option<T>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

impl<T, F> Work for Closure<T, F>
where
    T: Send,
    F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> Result<(), StoreError> {
        self.result = None;
        let result = catch_unwind(AssertUnwindSafe(|| (self.closure)(tx)));
        self.result = Some(result.map_err(|panic| StoreError::Panicked(panic_message(panic.as_ref())))??);
        Ok(())
    }

    fn answer(self: Box<Self>, outcome: Result<(), StoreError>) {
        let Self { result, caller, .. } = *self;
        // A closure that is told of success has run.
        let result = outcome.and_then(|()| result.ok_or(StoreError::Closed));
        // The caller may have stopped waiting.
        let _ = caller.send(result);
    }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let message =
        panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
    message.unwrap_or_else(|| "(no message)".to_owned())
}

/// Where the outcome of a job arrives.
pub(crate) type Outcome<T> = oneshot::Receiver<Result<T, StoreError>>;

impl Job {
    pub(crate) fn new<T, F>(
        kind: Kind,
        nouns: Vec<Noun>,
        place: &'static Location<'static>,
        closure: F,
    ) -> (Self, Outcome<T>)
    where
        T: Send + 'static,
        F: Fn(&mut Tx<'_>) -> Result<T, StoreError> + Send + 'static,
    {
        let (caller, outcome) = oneshot::channel();
        (Self { work: Box::new(Closure { closure, result: None, caller }), kind, nouns, place }, outcome)
    }

    /// Runs the closure (once more). What it learned and published counts only if it succeeded.
    pub(crate) fn run(
        &mut self,
        engine: &mut dyn Engine,
        shared: &Shared,
        learned: &mut Learned,
        published: &mut Vec<Publication>,
    ) -> Result<(), StoreError> {
        let before = published.len();
        let start = Instant::now();
        let mut tx = Tx { engine, caches: &shared.caches, learned, published };
        let result = self.work.run(&mut tx);
        shared.meters.closure(self.place, start.elapsed());
        result?;
        if self.kind != Kind::Write && published.len() > before {
            return Err(StoreError::Misuse("only an ordinary write may publish"));
        }
        Ok(())
    }

    pub(crate) fn succeed(self) {
        self.work.answer(Ok(()));
    }

    pub(crate) fn fail(self, error: StoreError) {
        self.work.answer(Err(error));
    }
}

/// More closures than this are not kept waiting.
const LIMIT: usize = 20_000;

/// Jobs that wait for database threads: two lanes, the quick one first.
pub(crate) struct Queue {
    lanes: Mutex<Lanes>,
    arrived: Condvar,
    waiting: Gauge,
}

#[derive(Default)]
pub(crate) struct Lanes {
    pub(crate) quick: VecDeque<Job>,
    pub(crate) bulk: VecDeque<Job>,
    closed: bool,
}

impl Queue {
    pub(crate) fn new(waiting: Gauge) -> Self {
        Self { lanes: Mutex::default(), arrived: Condvar::new(), waiting }
    }

    fn lock(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn push(&self, job: Job) {
        let mut lanes = self.lock();
        if lanes.closed {
            return job.fail(StoreError::Closed);
        }
        let lane = if job.kind == Kind::Quiet { &mut lanes.bulk } else { &mut lanes.quick };
        if lane.len() >= LIMIT {
            return job.fail(StoreError::Overloaded);
        }
        lane.push_back(job);
        drop(lanes);
        self.waiting.increment(1.0);
        self.arrived.notify_one();
    }

    /// Waits until `take` takes something; `None` once the queue is closed and empty.
    pub(crate) fn take<T>(&self, mut take: impl FnMut(&mut Lanes) -> Option<T>) -> Option<T> {
        let mut lanes = self.lock();
        loop {
            let before = lanes.len();
            if let Some(taken) = take(&mut lanes) {
                self.waiting.decrement((before - lanes.len()) as f64);
                return Some(taken);
            }
            if lanes.closed {
                return None;
            }
            lanes = self.arrived.wait(lanes).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits for one job, whichever lane.
    pub(crate) fn take_one(&self) -> Option<Job> {
        self.take(|lanes| lanes.quick.pop_front().or_else(|| lanes.bulk.pop_front()))
    }

    /// What is queued is still worked off, nothing new comes in.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.arrived.notify_all();
    }
}

impl Lanes {
    fn len(&self) -> usize {
        self.quick.len() + self.bulk.len()
    }
}
