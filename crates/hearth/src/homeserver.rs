//! Wiring: from settings to a server at work. The one place where all parts meet.

use std::sync::Arc;
use std::time::Duration;

use hearth_account::{Accounts, AccountsConfig, RegistrationOptions, Secret};
use hearth_api::serve::{self, Bind, BindError, Bound, GROUP_MODE, ListenerOptions, OWNER_MODE, Serving, TlsFiles};
use hearth_api::{Bodies, DoorOptions, Doors, LimitOptions, Limits, Origins, Shutdown, ShutdownTrigger, Transactions};
use hearth_delivery::Delivery;
use hearth_matrix::CurrentKey;
use hearth_media::{Kept, Media, MediaConfig, OpenError, Quota, S3Config, Scanner, StorageConfig};
use hearth_remote::{
    AddressFilter, HttpClient, Notary, Patience, Remote, RemoteConfig, ServerRules, SystemNames, TlsRoots,
};
use hearth_room::{Rooms, RoomsConfig};
use hearth_store::{DatabaseUrl, Noun, Store, StoreError, StoreOptions, WallTime};
use hearth_sync::{Syncs, Views};
use hearth_user::Users;
use hearth_user::presence::Presence;

use crate::data_dir::{DataDir, DataDirError, admin_socket, new_signing_key};
use crate::neighbours::OverHttp;
use crate::residence::InRooms;
use crate::settings::{ClamAv, MediaStorage, Settings};
use crate::telemetry::Metrics;
use crate::watch;

/// A server that is whole but doesn't listen: what the command line uses when no server runs.
pub struct Homeserver {
    doors: Doors,
    trigger: ShutdownTrigger,
    neighbours: OverHttp,
    data_dir: DataDir,
    first_start: bool,
}

/// A server at work. Dropping it without [`stop`](Self::stop) is like a crash: nothing acknowledged is lost.
pub struct Running {
    doors: Doors,
    serving: Serving,
    binds: Vec<Bind>,
    data_dir: DataDir,
    first_start: bool,
    upkeep: tokio::task::JoinSet<()>,
}

/// Why a server can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The data directory.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A listener.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database.
    #[error("the database {database}: {cause}")]
    Store {
        /// Which.
        database: String,
        /// What is wrong.
        cause: StoreError,
    },
    /// What is needed to talk with others.
    #[error("talking with other servers: {0}")]
    Remote(String),
    /// Where files are kept.
    #[error(transparent)]
    Media(#[from] OpenError),
    /// The database is another server's.
    #[error("the database {database} is that of {owner}; `server_name` can't become {server_name}")]
    OtherServer {
        /// Which.
        database: String,
        /// Whose it is.
        owner: String,
        /// Who we are.
        server_name: String,
    },
}

impl Homeserver {
    /// Opens everything and listens.
    pub async fn start(settings: &Settings, time: WallTime) -> Result<Running, StartError> {
        // The lock before the sockets: whoever starts a second server learns that, not that a port is taken.
        let data_dir = DataDir::take(&settings.data_dir)?;
        let bound = bind(settings).await?;
        Self::open_in(data_dir, settings, time).await?.listen(bound).await
    }

    /// Opens everything, without listening.
    pub async fn open(settings: &Settings, time: WallTime) -> Result<Self, StartError> {
        Self::open_in(DataDir::take(&settings.data_dir)?, settings, time).await
    }

    async fn open_in(data_dir: DataDir, settings: &Settings, time: WallTime) -> Result<Self, StartError> {
        let (signing_key, first_start) = data_dir.signing_key()?;
        let signing_key = CurrentKey::from(signing_key);
        let metrics = Metrics::of_process();
        let store = open_store(settings).await?;
        let remote = open_remote(settings, signing_key.clone(), &store, &time).await?;
        let rooms = Rooms::new(
            RoomsConfig {
                server_name: settings.server_name.clone(),
                signing_key,
                default_version: settings.rooms.default_version.clone(),
            },
            store.clone(),
            time.clone(),
        );
        let media = Media::open(media_config(settings)?, store.clone(), time.clone(), Some(remote.clone())).await?;
        let residence = Arc::new(InRooms(rooms.clone()));
        let presence = Presence::new(settings.presence.enabled, store.clone(), time.clone());
        let syncs = Syncs::new(
            settings.server_name.clone(),
            store.clone(),
            time.clone(),
            rooms.typing().clone(),
            presence.clone(),
        );
        let delivery =
            Delivery::new(store.clone(), remote.clone(), rooms.typing().clone(), presence.clone(), time.clone());
        let accounts = Accounts::new(accounts_config(settings), store.clone(), time.clone(), residence);
        let (trigger, shutdown) = Shutdown::new();
        let bodies = Bodies::new(time.clone());
        let watched = (store.clone(), delivery.clone(), rooms.clone(), bodies.clone());
        let doors = Doors {
            accounts,
            users: Users::new(store.clone()),
            presence,
            rooms,
            media,
            syncs,
            remote,
            delivery,
            time: time.clone(),
            views: Views::new(store.clone(), time.clone()),
            store,
            options: Arc::new(door_options(settings)),
            limits: limits(settings, time),
            transactions: Transactions::default(),
            origins: Origins::default(),
            bodies,
            shutdown,
            new_signing_key: {
                let path = data_dir.path().to_owned();
                Arc::new(move || new_signing_key(&path).map_err(|error| error.to_string()))
            },
            metrics: Arc::new(move || {
                let ((store, delivery, rooms, bodies), metrics) = (watched.clone(), metrics.clone());
                Box::pin(async move {
                    store.record_caches();
                    delivery.measure();
                    metrics::gauge!("hearth_federation_body_bytes").set(bodies.bytes() as f64);
                    metrics.page(&watch::worst(&delivery, &rooms).await)
                })
            }),
        };
        let patience = Duration::from_secs(settings.federation.policy_server_timeout_seconds.into());
        let neighbours = OverHttp::new(doors.remote.clone(), patience);
        Ok(Self { doors, trigger, neighbours, data_dir, first_start })
    }

    /// What the handlers reach.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Closes the store.
    pub async fn close(self) {
        self.doors.store.close().await;
    }

    async fn listen(self, bound: Vec<(Bound, Vec<hearth_api::Resource>)>) -> Result<Running, StartError> {
        let Self { doors, trigger, neighbours, data_dir, first_start } = self;
        let binds = bound.iter().map(|(bound, _)| bound.bind()).collect();
        let mut listeners: Vec<_> = bound
            .into_iter()
            .map(|(bound, resources)| (bound, hearth_api::router(doors.clone(), &resources)))
            .collect();
        let socket = ListenerOptions {
            bind: Bind::Unix(admin_socket(data_dir.path())),
            tls: None,
            unix_mode: OWNER_MODE,
            trusted_proxies: Vec::new(),
        };
        match Bound::new(socket).await {
            Ok(socket) => listeners.push((socket, hearth_api::local_router(doors.clone()))),
            // Paths of sockets are short on most systems; the server works without.
            Err(error) => {
                tracing::warn!(%error, "no admin socket: `hearth admin` works only while the server is stopped")
            }
        }
        let serving = serve::serve(listeners, &doors.shutdown, trigger);
        let mut upkeep = tokio::task::JoinSet::new();
        upkeep.spawn(Metrics::of_process().keep_up());
        upkeep.spawn(doors.accounts.clone().keep_house());
        upkeep.spawn(doors.delivery.clone().run());
        if let Err(error) = doors.rooms.connect(Arc::new(neighbours)).await {
            tracing::error!(%error, "events of other servers that came in an earlier run are not worked at");
        }
        upkeep.spawn(doors.media.clone().keep_house());
        upkeep.spawn(doors.remote.clone().keep_house());
        let rooms = doors.rooms.clone();
        upkeep.spawn(async move {
            if let Err(error) = rooms.show_profiles().await {
                tracing::warn!(%error, "changed profiles of an earlier run could not be shown in all rooms");
            }
        });
        Ok(Running { doors, serving, binds, data_dir, first_start, upkeep })
    }
}

impl Running {
    /// Where the server listens, in the order of the settings.
    pub fn binds(&self) -> &[Bind] {
        &self.binds
    }

    /// What the handlers reach.
    pub fn doors(&self) -> &Doors {
        &self.doors
    }

    /// Whether this data directory was new.
    pub fn is_first_start(&self) -> bool {
        self.first_start
    }

    /// Lets requests under way end, then closes the store.
    pub async fn stop(mut self) {
        self.serving.drain().await;
        self.upkeep.shutdown().await;
        if let Err(error) = self.doors.accounts.write_last_seen().await {
            tracing::warn!(%error, "where devices were last seen is not written down");
        }
        if let Err(error) = self.doors.media.write_accesses().await {
            tracing::warn!(%error, "when media was last looked at is not written down");
        }
        self.doors.store.close().await;
        // Last: the next server may start now.
        drop(self.data_dir);
    }
}

async fn bind(settings: &Settings) -> Result<Vec<(Bound, Vec<hearth_api::Resource>)>, StartError> {
    let mut all = Vec::new();
    for listener in settings.listeners() {
        let options = ListenerOptions {
            bind: listener.bind,
            tls: listener.tls.map(|tls| TlsFiles { certificate: tls.certificate, key: tls.key }),
            unix_mode: GROUP_MODE,
            trusted_proxies: listener.trusted_proxies,
        };
        all.push((Bound::new(options).await?, listener.resources));
    }
    Ok(all)
}

async fn open_store(settings: &Settings) -> Result<Store, StartError> {
    let database = settings.database();
    let default_threads = match database.url() {
        DatabaseUrl::Sqlite(_) | DatabaseUrl::Inline => 4,
        DatabaseUrl::Postgres(_) => 16,
    };
    let threads = settings.database.threads.map_or(default_threads, usize::from);
    let failed = |cause| StartError::Store { database: database.to_string(), cause };
    let store = Store::open(StoreOptions { url: database.url().clone(), threads }).await.map_err(failed)?;
    let server_name = settings.server_name.to_string();
    let owner = owner(&store, server_name.clone()).await.map_err(failed)?;
    if owner != server_name {
        store.close().await;
        return Err(StartError::OtherServer { database: database.to_string(), owner, server_name });
    }
    Ok(store)
}

async fn open_remote(
    settings: &Settings,
    signing_key: CurrentKey,
    store: &Store,
    time: &WallTime,
) -> Result<Remote, StartError> {
    let outbound = &settings.outbound;
    let failed = |cause: &dyn std::fmt::Display| StartError::Remote(cause.to_string());
    let mut roots = TlsRoots::system();
    for path in &outbound.trusted_ca {
        roots.add_file(path).map_err(|cause| failed(&cause))?;
    }
    let filter = AddressFilter::new(outbound.ip_range_allow.clone(), outbound.ip_range_deny.clone());
    let names = Arc::new(SystemNames::new().map_err(|cause| failed(&cause))?);
    let client = HttpClient::new(names, filter, roots).map_err(|cause| failed(&cause))?;
    let federation = &settings.federation;
    let config = RemoteConfig {
        server_name: settings.server_name.clone(),
        signing_key,
        servers: ServerRules {
            enabled: federation.enabled,
            allowed: federation.allowed_servers.clone(),
            denied: federation.denied_servers.clone(),
        },
        notaries: settings
            .trusted_key_servers
            .iter()
            .map(|(server, keys)| {
                let keys = keys.iter().filter_map(|(id, key)| Some((id.clone(), Notary::key(id, key)?)));
                Notary { server: server.clone(), keys: keys.collect() }
            })
            .collect(),
        patience: Patience::default(),
    };
    let opened = Remote::open(config, client, store.clone(), time.clone()).await;
    opened.map_err(|cause| StartError::Store { database: settings.database().to_string(), cause })
}

/// Whose database it is; a new one becomes ours.
async fn owner(store: &Store, server_name: String) -> Result<String, StoreError> {
    if let Some(owner) = store.read(|tx| tx.identity().server_name()).await? {
        return Ok(owner);
    }
    let noun = Noun::Name("identity".to_owned());
    let taken = store.write(vec![noun], move |tx| match tx.identity().server_name()? {
        Some(owner) => Ok(owner),
        None => tx.identity().set_server_name(&server_name).map(|()| server_name.clone()),
    });
    taken.await
}

fn door_options(settings: &Settings) -> DoorOptions {
    DoorOptions {
        server_name: settings.server_name.clone(),
        public_url: settings.public_url.as_ref().map(|url| url.as_str().to_owned()),
        default_room_version: settings.rooms.default_version.clone(),
        directory_open: settings.directory.open,
        directory_open_to_federation: settings.directory.open_to_federation,
        federation_address: settings.federation.address.clone(),
    }
}

/// Where files are kept. An object store may be next door: its client connects to any address.
fn media_storage(settings: &Settings) -> Result<StorageConfig, StartError> {
    let media = &settings.media;
    let (name, prefix) = match &media.storage {
        None => return Ok(StorageConfig::Disk(settings.data_dir.join("media"))),
        Some(MediaStorage::Directory(path)) => return Ok(StorageConfig::Disk(path.clone())),
        Some(MediaStorage::Bucket { name, prefix }) => (name, prefix),
    };
    let failed = |cause: &dyn std::fmt::Display| StartError::Remote(cause.to_string());
    let mut roots = TlsRoots::system();
    for path in &settings.outbound.trusted_ca {
        roots.add_file(path).map_err(|cause| failed(&cause))?;
    }
    let names = Arc::new(SystemNames::new().map_err(|cause| failed(&cause))?);
    let client = HttpClient::new(names, AddressFilter::default(), roots).map_err(|cause| failed(&cause))?;
    let secret = |key: &Option<crate::settings::Secret>| key.as_ref().map(|key| key.reveal().to_owned());
    let config = S3Config {
        endpoint: media.s3.endpoint.as_ref().map(|url| url.as_str().to_owned()),
        bucket: name.clone(),
        prefix: prefix.clone(),
        region: media.s3.region.clone(),
        access_key: secret(&media.s3.access_key).unwrap_or_default(),
        secret_key: secret(&media.s3.secret_key).unwrap_or_default(),
        incoming: settings.data_dir.join("media"),
    };
    Ok(StorageConfig::S3(Box::new(config), Box::new(client)))
}

fn media_config(settings: &Settings) -> Result<MediaConfig, StartError> {
    let media = &settings.media;
    let storage = media_storage(settings)?;
    Ok(MediaConfig {
        max_upload_bytes: media.max_upload_size.bytes(),
        max_remote_bytes: media.max_remote_size.bytes(),
        servers: ServerRules { denied: media.denied_servers.clone(), ..ServerRules::open() },
        max_picture_pixels: media.max_picture_pixels.into(),
        blurhashes: media.blurhash,
        quota: Quota { files: media.user_quota_files.map(u64::from), bytes: media.user_quota.map(|size| size.bytes()) },
        kept_for: Kept {
            ours: media.keep_local.map(|period| period.duration()),
            of_others: media.keep_remote.map(|period| period.duration()),
        },
        most_remote_bytes: media.max_remote_cache.map(|size| size.bytes()),
        scanner: media.clamav.as_ref().map(|clamav| match clamav {
            ClamAv::Unix(path) => Scanner::Unix(path.clone()),
            ClamAv::Tcp(address) => Scanner::Tcp(address.clone()),
        }),
        previews: settings.url_previews.enabled,
        previews_denied: settings.url_previews.denied_domains.clone(),
        is_frozen: !media.unauthenticated_legacy,
        has_siblings: matches!(settings.database().url(), DatabaseUrl::Postgres(_)),
        ..MediaConfig::new(settings.server_name.clone(), storage)
    })
}

fn limits(settings: &Settings, time: WallTime) -> Limits {
    let limits = &settings.rate_limits;
    if !limits.enabled {
        return Limits::off();
    }
    let options = LimitOptions {
        address: limits.address,
        anonymous: limits.anonymous,
        login: limits.login,
        login_failures: limits.login_failures,
        registration: limits.registration,
        sends: limits.sends,
        joins: limits.joins,
        invites: limits.invites,
        server_invites: limits.server_invites,
        server_invites_to_user: limits.server_invites_to_user,
        key_lookups: limits.key_lookups,
        uploads: limits.uploads,
        downloads: limits.downloads,
        federation_downloads: limits.federation_downloads,
        requests: limits.requests,
    };
    Limits::new(options, time)
}

fn accounts_config(settings: &Settings) -> AccountsConfig {
    let registration = &settings.registration;
    AccountsConfig {
        registration: RegistrationOptions {
            enabled: registration.enabled,
            token_required: registration.token_required,
            guests: registration.guests,
            shared_secret: registration.shared_secret.as_ref().map(|secret| Secret::new(secret.reveal())),
            terms: registration.terms.policies().cloned(),
        },
        sole_owner: !matches!(settings.database().url(), DatabaseUrl::Postgres(_)),
        ..AccountsConfig::new(settings.server_name.clone())
    }
}
