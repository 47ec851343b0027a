//! What every handler can reach: the domain's handles and what the doors themselves are told.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use hearth_account::Accounts;
use hearth_delivery::Delivery;
use hearth_matrix::SigningKey;
use hearth_matrix::ruma::{OwnedServerName, RoomVersionId};
use hearth_media::Media;
use hearth_remote::Remote;
use hearth_room::Rooms;
use hearth_store::{Store, WallTime};
use hearth_sync::{Syncs, Views};
use hearth_user::Users;
use hearth_user::presence::Presence;

use crate::{Bodies, Limits, Origins, Shutdown, Transactions};

/// The state of all handlers. Cheap to clone.
#[derive(Clone)]
pub struct Doors {
    /// Who may in.
    pub accounts: Accounts,
    /// What belongs to a user.
    pub users: Users,
    /// Who is online.
    pub presence: Presence,
    /// Everything about rooms.
    pub rooms: Rooms,
    /// Files.
    pub media: Media,
    /// What clients see change.
    pub syncs: Syncs,
    /// Other servers.
    pub remote: Remote,
    /// What other servers lack.
    pub delivery: Delivery,
    /// The clock.
    pub time: WallTime,
    /// Rooms as readers see them.
    pub views: Views,
    /// What we remember; handlers leave it to the others, only `/ready` asks it.
    pub store: Store,
    /// What the doors are told.
    pub options: Arc<DoorOptions>,
    /// How much may be asked.
    pub limits: Limits,
    /// Answers to what other servers sent lately.
    pub transactions: Transactions,
    /// What other servers ask just now.
    pub origins: Origins,
    /// What is held of that as it comes in.
    pub bodies: Bodies,
    /// The server wants to stop.
    pub shutdown: Shutdown,
    /// Makes a signing key and puts it where the next start finds it.
    pub new_signing_key: NewSigningKey,
    /// Writes the page of metrics.
    pub metrics: MetricsPage,
}

/// Makes a signing key and puts it where the next start finds it; or says why it can't. It waits for the disk.
pub type NewSigningKey = Arc<dyn Fn() -> Result<SigningKey, String> + Send + Sync>;

/// Writes the page of metrics in Prometheus' text format.
pub type MetricsPage = Arc<dyn Fn() -> BoxFuture<'static, String> + Send + Sync>;

/// What the doors are told by the settings.
#[derive(Clone, Debug)]
pub struct DoorOptions {
    /// Our name in the federation.
    pub server_name: OwnedServerName,
    /// Where clients find us; advertised by `/.well-known/matrix/client`.
    pub public_url: Option<String>,
    /// Version of rooms that name none.
    pub default_room_version: RoomVersionId,
    /// The public directory can be read without an account.
    pub directory_open: bool,
    /// Other servers may read the public directory.
    pub directory_open_to_federation: bool,
    /// Where other servers find us; advertised by `/.well-known/matrix/server`.
    pub federation_address: Option<OwnedServerName>,
}
