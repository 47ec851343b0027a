//! Media: files that users upload, what others have uploaded elsewhere, thumbnails of pictures,
//! previews of linked pages.
//!
//! What an `mxc://` URI stands for is a row of the store; its bytes are a blob, found by their hash, so that the same bytes
//! are kept once. Small blobs are in the database, the others in the media storage (`storage`). Everything streams: a
//! transfer holds a few hundred KiB in memory, however large the file.
//!
//! Rooms, users and HTTP are not known here. Time is handed in.
//! Spec: client-server API, "Content repository"; server-server API, "Content Repository".

mod accesses;
mod awaited;
mod check;
mod config;
mod content;
mod download;
mod flights;
#[cfg(test)]
mod fuzz;
mod hash;
mod housekeeping;
mod keep;
mod known;
mod media;
mod media_id;
mod policy;
mod preview;
mod receive;
mod remote;
mod scan;
mod storage;
mod thumbnail;
mod turns;
mod upload;

pub use check::{CheckError, Findings};
pub use config::{Kept, MediaConfig, Quota, StorageConfig, Times};
pub use content::{Content, ContentError};
pub use download::{File, GetError, Wanted};
pub use hash::FileHash;
pub use media::{Media, OpenError};
pub use media_id::{is_media_id, new_boundary};
pub use policy::{Selection, Touched};
pub use preview::PreviewError;
pub use receive::Pace;
pub use remote::FetchError;
pub use scan::Scanner;
pub use storage::S3Config;
pub use thumbnail::{Method, PictureError, Shrunk, ThumbnailError, WantedThumbnail, measure, shrink};
pub use upload::{CreateError, Created, Description, UploadError, Uploader};
