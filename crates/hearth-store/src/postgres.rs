//! (being written)

use std::sync::Arc;
use std::thread::JoinHandle;

use crate::StoreError;
use crate::job::{Job, Shared};

pub(crate) struct Threads {}

impl Threads {
    pub(crate) fn open(_url: &str, _threads: usize, _shared: &Arc<Shared>) -> Result<Self, StoreError> {
        Err(StoreError::Database("PostgreSQL is not built yet".into()))
    }

    pub(crate) fn submit(&self, job: Job) {
        job.fail(StoreError::Closed);
    }

    pub(crate) fn close(&self) -> Vec<JoinHandle<()>> {
        Vec::new()
    }
}
