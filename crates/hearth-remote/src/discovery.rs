//! Where a server is: whom its name delegates to. The connector does the rest, from that name alone.
//!
//! Spec: server-server API, "Resolving server names".

use std::sync::Arc;

use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_store::WallTime;

use crate::HttpClient;
use crate::host::Host;
use crate::well_known::{Answer, WellKnowns};

/// Finds servers. Cheap to clone; clones share what they remember.
#[derive(Clone)]
pub struct Discovery {
    well_knowns: Arc<WellKnowns>,
}

impl Discovery {
    /// Asks with this client.
    pub fn new(client: HttpClient, time: WallTime) -> Self {
        Self { well_knowns: Arc::new(WellKnowns::new(client, time)) }
    }

    /// The name whose host answers for a server, and whose certificate it shows: what `Host` says in requests to it.
    pub async fn answering_for(&self, server: &ServerName) -> OwnedServerName {
        if server.port().is_some() || matches!(Host::parse(server.host()), Host::Address(_)) {
            return server.to_owned();
        }
        self.well_knowns.delegated(server.host()).await.unwrap_or_else(|| server.to_owned())
    }

    /// A server could not be reached where it was thought to be.
    pub(crate) fn doubt(&self, server: &ServerName) {
        if server.port().is_none() {
            self.well_knowns.doubt(server.host());
        }
    }

    /// Asks the host of a server's name anew to whom it delegates; nothing for a name that can't delegate.
    pub(crate) async fn examine(&self, server: &ServerName) -> Option<(Answer, String)> {
        if server.port().is_some() || matches!(Host::parse(server.host()), Host::Address(_)) {
            return None;
        }
        Some(self.well_knowns.examine(server.host()).await)
    }
}
