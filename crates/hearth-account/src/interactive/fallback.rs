//! Stages passed on a web page, by users whose client does not know them.
//!
//! Spec: client-server API, "Fallback". The client then repeats its request with the session alone.

use serde_json::{Map, Value};

use super::{Attempt, InteractiveError, Progress, Retry, Stage};
use crate::Accounts;

/// What came of a page.
#[derive(Debug, PartialEq, Eq)]
pub enum FallbackOutcome {
    /// The stage is passed, now or before.
    Passed,
    /// It is not, but may be tried again.
    Failed(String),
    /// No such session, or not this stage's turn.
    NotOffered,
}

impl Accounts {
    /// Whether a session waits for a stage, or has passed it.
    pub async fn fallback_state(&self, session: &str, stage: Stage) -> Result<FallbackOutcome, InteractiveError> {
        let Some(stored) = self.known_session(session).await? else { return Ok(FallbackOutcome::NotOffered) };
        let progress = Progress::parse(&stored)?;
        Ok(if progress.stages().contains(&stage) {
            FallbackOutcome::Passed
        } else if progress.is_next(stage) {
            FallbackOutcome::Failed(String::new())
        } else {
            FallbackOutcome::NotOffered
        })
    }

    /// Tries a stage with what a page's form holds.
    pub async fn fallback_try(
        &self,
        session: &str,
        stage: Stage,
        form: Map<String, Value>,
    ) -> Result<FallbackOutcome, InteractiveError> {
        let Some(stored) = self.known_session(session).await? else { return Ok(FallbackOutcome::NotOffered) };
        let mut progress = Progress::parse(&stored)?;
        if !progress.stages().contains(&stage) && !progress.is_next(stage) {
            return Ok(FallbackOutcome::NotOffered);
        }
        let request = stored.request.try_into().unwrap_or_default();
        let attempt = Attempt { request, auth: Some(form) };
        match self.try_stage(stage.name(), &attempt, &progress, None).await? {
            Ok(done) => {
                progress.completed.extend(done);
                self.keep(session, &attempt, &progress).await?;
                Ok(FallbackOutcome::Passed)
            }
            Err(Retry(_, words)) => Ok(FallbackOutcome::Failed(words)),
        }
    }
}
