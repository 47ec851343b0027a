//! What the media repository is told by the settings.

use std::path::PathBuf;
use std::time::Duration;

use hearth_matrix::ruma::OwnedServerName;
use hearth_remote::{HttpClient, ServerRules};

use crate::Scanner;
use crate::receive::Pace;
use crate::storage::S3Config;

/// What the media repository is told.
#[derive(Clone, Debug)]
pub struct MediaConfig {
    /// Our name: the server of what our users upload.
    pub server_name: OwnedServerName,
    /// Where blobs are kept that are too large for the database.
    pub storage: StorageConfig,
    /// Largest file that can be uploaded.
    pub max_upload_bytes: u64,
    /// How much a user may upload in all.
    pub quota: Quota,
    /// Largest file that is fetched from another server.
    pub max_remote_bytes: u64,
    /// Of which servers media is fetched and shown.
    pub servers: ServerRules,
    /// Pictures with more pixels get no thumbnails.
    pub max_picture_pixels: u64,
    /// Whoever uploads a picture may ask for its blurhash, and previews have one.
    pub blurhashes: bool,
    /// Pages that users link to are fetched to preview them.
    pub previews: bool,
    /// Domains of which none are.
    pub previews_denied: Vec<String>,
    /// Who looks at files before they come in.
    pub scanner: Option<Scanner>,
    /// How long media of ours and of others is kept that nobody looks at.
    pub kept_for: Kept,
    /// Media of others that was not looked at for longest goes when there is more than this.
    pub most_remote_bytes: Option<u64>,
    /// New media is shown only to those who have an access token.
    pub is_frozen: bool,
    /// So long a place that was reserved for an upload is good.
    pub reserved_for: Duration,
    /// So many places a user may have reserved at once.
    pub most_reserved: i64,
    /// Other nodes work on the same database.
    pub has_siblings: bool,
    /// How long others may take.
    pub times: Times,
}

/// How long others may take: nobody holds us up for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// What our users upload.
    pub uploads: Pace,
    /// What comes from other servers.
    pub fetches: Pace,
    /// A server, before it begins to answer.
    pub answer: Duration,
    /// A page, or a picture of one; a preview takes no more than three times as long.
    pub page: Duration,
    /// Whoever waits for his turn, because others are being fetched for.
    pub turn: Duration,
}

impl Default for Times {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            uploads: Pace::steady(seconds(60), seconds(300), 1024),
            fetches: Pace::steady(seconds(20), seconds(60), 32 * 1024),
            answer: seconds(20),
            page: seconds(20),
            turn: seconds(30),
        }
    }
}

/// Where blobs are kept.
#[derive(Clone)]
pub enum StorageConfig {
    /// In a directory.
    Disk(PathBuf),
    /// In a bucket, reached through a client.
    S3(Box<S3Config>, Box<HttpClient>),
}

impl std::fmt::Debug for StorageConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Disk(directory) => f.debug_tuple("Disk").field(directory).finish(),
            Self::S3(config, _) => f.debug_tuple("S3").field(config).finish(),
        }
    }
}

/// How much a user may upload in all; nothing means that there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Files.
    pub files: Option<u64>,
    /// Bytes of all of them.
    pub bytes: Option<u64>,
}

/// How long media is kept that nobody looks at; nothing means for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// What our users upload.
    pub ours: Option<Duration>,
    /// What comes from other servers and pages.
    pub of_others: Option<Duration>,
}

impl MediaConfig {
    /// With the defaults.
    pub fn new(server_name: OwnedServerName, storage: StorageConfig) -> Self {
        Self {
            server_name,
            storage,
            max_upload_bytes: 100 * 1024 * 1024,
            quota: Quota::default(),
            max_remote_bytes: 100 * 1024 * 1024,
            servers: ServerRules::open(),
            max_picture_pixels: 48_000_000,
            blurhashes: false,
            previews: false,
            previews_denied: Vec::new(),
            scanner: None,
            kept_for: Kept::default(),
            most_remote_bytes: None,
            is_frozen: true,
            reserved_for: Duration::from_secs(24 * 60 * 60),
            most_reserved: 100,
            has_siblings: false,
            times: Times::default(),
        }
    }
}
