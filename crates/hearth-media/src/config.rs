//! What the media repository is told by the settings.

use std::path::PathBuf;
use std::time::Duration;

use hearth_matrix::ruma::OwnedServerName;
use hearth_remote::ServerRules;

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
    /// Pages that users link to are fetched to preview them.
    pub previews: bool,
    /// Domains of which none are.
    pub previews_denied: Vec<String>,
    /// New media is shown only to those who have an access token.
    pub is_frozen: bool,
    /// So long a place that was reserved for an upload is good.
    pub reserved_for: Duration,
    /// So many places a user may have reserved at once.
    pub most_reserved: i64,
    /// Other nodes work on the same database.
    pub has_siblings: bool,
}

/// Where blobs are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StorageConfig {
    /// In a directory.
    Disk(PathBuf),
}

/// How much a user may upload in all; nothing means that there is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// Files.
    pub files: Option<u64>,
    /// Bytes of all of them.
    pub bytes: Option<u64>,
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
            previews: false,
            previews_denied: Vec::new(),
            is_frozen: true,
            reserved_for: Duration::from_secs(24 * 60 * 60),
            most_reserved: 100,
            has_siblings: false,
        }
    }
}
