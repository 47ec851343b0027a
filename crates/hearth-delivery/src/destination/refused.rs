//! What a server refuses: whether that is to blame, or the server.
//!
//! An answer that complains of a transaction's content halves it, until one event is refused by itself. Whether it is that event
//! is not known by this: behind a proxy or a bug that answers so to everything each event looks alike, and whoever let go of them
//! would lose all that is said until somebody mends it. So what is refused by itself is passed over at first, and what comes after
//! it is sent, also by itself:
//!
//! - An event after it is taken: the server takes events, but perhaps only since a moment ago. What was passed over is sent once
//!   more. If it is refused again, before and after something else was taken, it is to blame: the server goes without.
//! - Nothing after it is taken, or there is nothing: nobody can tell. Nothing is let go, and the server is left alone like one that
//!   does not answer, each time for longer. When its time has come, or when it shows life, all that begins anew; what was said
//!   meanwhile is an event after it.
//! - That went on for a day: one event that a server never takes must not keep it from being asked anything for ever, if nothing
//!   is said that it would take. So it is given a transaction with nothing in it. If it takes that, it is well as far as anybody
//!   can tell, and goes without what was passed over.
//!
//! How far a server got is written down only up to the first event that is passed over: after a crash that one comes first again,
//! and what was taken after it comes a second time, which servers are used to.
//! Spec: server-server API, "Transactions".

use hearth_remote::RemoteError;

use super::{Courier, Stop, Taken, Transaction, send};

/// Events that are passed over in a first try: a server that takes nothing is not asked about all that it lacks.
const FEW: usize = 8;
/// Once it has failed so often, they are twice as many each time, up to a bound: behind some that it never takes there may be one
/// that it does.
const OFTEN: i64 = 8;
const DOUBLED: i64 = 5;
/// For how long an event may be all that there is for a server.
const ALONE_MS: i64 = 24 * 3_600_000;

/// Events that are passed over in one try, of a server that failed so often in a row.
pub(super) fn most_refused(failures: i64) -> usize {
    FEW << (failures - OFTEN).clamp(0, DOUBLED)
}

impl Courier<'_> {
    /// Something got through. What was refused before is asked about once more, and then let go.
    pub(super) async fn settle(&mut self) -> Result<(), Stop> {
        for (transaction, _) in std::mem::take(&mut self.refused) {
            if let Taken::Not(error) = send(self.inner, self.server, &transaction).await? {
                self.let_go(&transaction, &error);
            }
        }
        Ok(())
    }

    /// Nothing got through beside what was refused.
    pub(super) async fn doubt(&mut self) -> Result<(), Stop> {
        let now = self.inner.time.now_ms();
        let is_old = self.refused.first().is_some_and(|(transaction, _)| transaction.begun_ts + ALONE_MS <= now);
        if is_old && matches!(send(self.inner, self.server, &Transaction::empty(self.inner)).await?, Taken::Whole) {
            for (transaction, error) in std::mem::take(&mut self.refused) {
                self.let_go(&transaction, &error);
            }
            return Ok(());
        }
        match self.refused.last() {
            Some((_, error)) => {
                let until_ms = self.inner.remote.leave_alone(self.server, error).await?;
                Err(Stop::Later { until_ms })
            }
            None => Ok(()),
        }
    }

    fn let_go(&self, transaction: &Transaction, error: &RemoteError) {
        let body = String::from_utf8_lossy(&transaction.body);
        tracing::error!(server = %self.server, %error, %body, "a server never takes this; it goes without");
    }
}
