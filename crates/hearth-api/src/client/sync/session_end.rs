//! A request that waits ends with its session: it is answered as the next one would be.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::OnceLock;

use axum::extract::FromRequestParts;
use hearth_account::Heard;
use http::request::Parts;

use crate::{ApiError, Doors, Sender, Shutdown};

/// Returns when the session of a request has ended. In a box of its own: most requests never look into it.
pub(super) type SessionEnd = Pin<Box<dyn Future<Output = ApiError> + Send>>;

/// The end of a sender's session, who was authenticated after a moment.
pub(super) fn session_end(doors: &Doors, sender: &Sender, authenticated_after: Heard) -> SessionEnd {
    let (accounts, user, device) = (doors.accounts.clone(), sender.user, sender.device);
    Box::pin(async move { accounts.session_end(user, device, authenticated_after).await.into() })
}

/// As an argument before the sender: the moment after which he was authenticated.
pub(super) struct AuthenticatedAfter(pub(super) Heard);

impl FromRequestParts<Doors> for AuthenticatedAfter {
    type Rejection = Infallible;

    async fn from_request_parts(_: &mut Parts, doors: &Doors) -> Result<Self, Infallible> {
        Ok(Self(doors.accounts.heard()))
    }
}

/// Whether a session ended while its request waited.
#[derive(Default)]
pub(super) struct Ended(OnceLock<ApiError>);

impl Ended {
    /// Returns when the session has ended, or the server wants to stop.
    pub(super) async fn or_stopped(&self, session_end: SessionEnd, shutdown: Shutdown) {
        tokio::select! {
            () = shutdown.requested() => {}
            refusal = session_end => {
                let _ = self.0.set(refusal);
            }
        }
    }

    /// The answer, unless the session has ended.
    pub(super) fn instead_of<T>(self, answer: T) -> Result<T, ApiError> {
        self.0.into_inner().map_or(Ok(answer), Err)
    }
}
