//! The signal that the server wants to stop: what waits by choice (a long-poll) answers at once.

use tokio::sync::watch;

/// Tells whether the server wants to stop. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shutdown(watch::Receiver<bool>);

/// Gives the signal. Dropping it gives it, too.
#[derive(Debug)]
pub struct ShutdownTrigger(watch::Sender<bool>);

impl Shutdown {
    /// A signal that has not been given.
    pub fn new() -> (ShutdownTrigger, Self) {
        let (sender, receiver) = watch::channel(false);
        (ShutdownTrigger(sender), Self(receiver))
    }

    /// Whether the signal has been given.
    pub fn is_requested(&self) -> bool {
        *self.0.borrow() || self.0.has_changed().is_err()
    }

    /// Waits for the signal.
    pub async fn requested(&self) {
        let mut receiver = self.0.clone();
        // An error means that the trigger is gone: nobody can give the signal any more.
        let _ = receiver.wait_for(|requested| *requested).await;
    }
}

impl ShutdownTrigger {
    /// Gives the signal.
    pub fn request(&self) {
        self.0.send_replace(true);
    }
}
