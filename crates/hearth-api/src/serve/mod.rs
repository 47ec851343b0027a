//! The accept loop: listeners, connections, TLS, draining.
//!
//! Our own rather than axum's, so that an idle long-poll costs a few KiB, and a drain ends in time.

mod connection;
mod listener;
mod progress;
mod proxies;
mod tls;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub use listener::{Bind, BindError, Bound, GROUP_MODE, ListenerOptions, OWNER_MODE};
pub use proxies::TrustedProxies;
pub use tls::{TlsError, TlsFiles};

use crate::{Shutdown, ShutdownTrigger};

/// How long a drain may take. What is still under way then is cut off.
pub const DRAIN_TIME: Duration = Duration::from_secs(4);

/// A server at work.
#[derive(Debug)]
pub struct Serving {
    trigger: ShutdownTrigger,
    connections: mpsc::Receiver<std::convert::Infallible>,
}

/// Serves on all listeners, each with its router, until [`Serving::drain`], which gives `shutdown` by `trigger`.
pub fn serve(listeners: Vec<(Bound, Router)>, shutdown: &Shutdown, trigger: ShutdownTrigger) -> Serving {
    // Nothing is ever sent: the channel closes when the last connection has dropped its end.
    let (alive, connections) = mpsc::channel(1);
    for (bound, router) in listeners {
        let door = Arc::new(connection::Door {
            router,
            trusted_proxies: TrustedProxies::new(bound.trusted_proxies().to_vec()),
            shutdown: shutdown.clone(),
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
