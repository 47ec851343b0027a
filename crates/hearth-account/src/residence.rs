//! Where a user lives: his rooms, as far as accounts must move something there.

use std::future::Future;
use std::pin::Pin;

use hearth_matrix::ruma::OwnedUserId;

/// Work that somebody else does.
pub type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The rooms of users. `()` is a residence without rooms.
pub trait Residence: Send + Sync + 'static {
    /// Makes a deactivated user leave all rooms, and decline what he was invited to. It is asked again until it succeeds;
    /// the error goes to the log.
    fn leave_all(&self, user_id: OwnedUserId) -> Work<Result<(), String>>;

    /// Shows a user's changed profile in his rooms. It returns when the work is taken over, not when it is done.
    fn profile_changed(&self, user_id: OwnedUserId) -> Work<()>;
}

impl Residence for () {
    fn leave_all(&self, _: OwnedUserId) -> Work<Result<(), String>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn profile_changed(&self, _: OwnedUserId) -> Work<()> {
        Box::pin(std::future::ready(()))
    }
}

impl crate::Accounts {
    /// Shows a user's changed profile in his rooms.
    pub async fn profile_changed(&self, user_id: OwnedUserId) {
        self.inner.residence.profile_changed(user_id).await;
    }
}
