//! The accept loop: listeners, connections, TLS, draining.
//!
//! Our own rather than axum's, so that an idle long-poll costs a few KiB, and a drain ends in time.

mod connection;
mod listener;
mod proxies;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

pub use listener::{Bind, BindError, Bound, ListenerOptions};
pub use proxies::TrustedProxies;
pub use tls::{TlsError, TlsFiles};

use crate::{Doors, ShutdownTrigger, router};

/// How long a drain may take. What is still under way then is cut off.
pub const DRAIN_TIME: Duration = Duration::from_secs(4);

/// A server at work.
#[derive(Debug)]
pub struct Serving {
    trigger: ShutdownTrigger,
    connections: mpsc::Receiver<std::convert::Infallible>,
}

/// Serves on all listeners until [`Serving::drain`]. `trigger` is that of `doors.shutdown`.
pub fn serve(doors: &Doors, trigger: ShutdownTrigger, listeners: Vec<Bound>) -> Serving {
    // Nothing is ever sent: the channel closes when the last connection has dropped its end.
    let (alive, connections) = mpsc::channel(1);
    for bound in listeners {
        let door = Arc::new(connection::Door {
            router: router(doors.clone(), &bound.options.resources),
            trusted_proxies: TrustedProxies::new(bound.options.trusted_proxies.clone()),
            shutdown: doors.shutdown.clone(),
        });
        tokio::spawn(listener::accept(bound, door, alive.clone()));
    }
    Serving { trigger, connections }
}

impl Serving {
    /// Stops accepting, tells what waits by choice to answer, lets requests under way end, all within [`DRAIN_TIME`].
    pub async fn drain(mut self) {
        let began = Instant::now();
        self.trigger.request();
        // Connections end themselves in time; the margin is for them to be scheduled.
        let margin = Duration::from_millis(500);
        if tokio::time::timeout_at(began + DRAIN_TIME + margin, self.connections.recv()).await.is_err() {
            tracing::warn!("some connections did not end in time");
        }
    }
}
