//! Blobs in a directory: `blobs/ab/cd/abcd…`, named by their SHA-256 in hexadecimal digits.
//!
//! A blob is written to `incoming` first, and gets its name when it is whole and on the disk. So whatever happens, under a
//! blob's name are all its bytes or nothing. What a crash leaves in `incoming` is deleted at a start, when it is old.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use crate::content::{Content, ContentError};
use crate::media_id::new_media_id;

/// So much is read at once.
const PIECE: u64 = 128 * 1024;
/// What was kept a moment ago may not be in the database yet.
const LATELY: Duration = Duration::from_secs(60 * 60);
/// What nobody has written to for so long is left over.
const LEFT_OVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory of blobs.
pub(crate) struct Disk {
    root: Arc<Path>,
}

/// A file that is being written. Deleted if it is not kept.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: Option<File>,
    path: PathBuf,
}

impl Disk {
    pub(crate) async fn open(root: &Path) -> io::Result<Self> {
        let root: Arc<Path> = root.into();
        let directory = root.clone();
        aside(move || {
            for below in ["blobs", "incoming"] {
                make_directory(&directory.join(below))?;
            }
            sync_directory(&directory)?;
            for entry in fs::read_dir(directory.join("incoming"))? {
                let entry = entry?;
                let is_old = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age > LEFT_OVER);
                if entry.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_old) {
                    // Somebody else may have been faster.
                    let _ = fs::remove_file(entry.path());
                }
            }
            Ok(())
        })
        .await?;
        Ok(Self { root })
    }

    pub(crate) async fn receive(&self) -> io::Result<Incoming> {
        let path = self.root.join("incoming").join(new_media_id());
        aside(move || {
            let file = OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(&path)?;
            Ok(Incoming { file: Some(file), path })
        })
        .await
    }

    pub(crate) async fn keep(&self, mut incoming: Incoming, sha256: &[u8; 32]) -> io::Result<()> {
        let root = self.root.clone();
        let (outer, name) = (self.directory_of(sha256), hexadecimal(sha256));
        aside(move || {
            let path = outer.join(name);
            if path.exists() {
                return Ok(());
            }
            if let Some(file) = incoming.file.take() {
                file.sync_all()?;
            }
            if make_directory(&outer)? {
                let middle = outer.parent().unwrap_or(&root);
                sync_directory(middle)?;
                sync_directory(&root.join("blobs"))?;
            }
            fs::rename(&incoming.path, &path)?;
            sync_directory(&outer)
        })
        .await
    }

    pub(crate) async fn read(&self, sha256: &[u8; 32], range: Range<u64>) -> io::Result<Content> {
        let path = self.directory_of(sha256).join(hexadecimal(sha256));
        let Range { start, end } = range;
        let (file, first) = aside(move || {
            let file = Arc::new(File::open(path)?);
            let first = piece(&file, start, end)?;
            Ok((file, first))
        })
        .await?;
        let at = start + first.len() as u64;
        let rest = stream::try_unfold((file, at), move |(file, at)| async move {
            if at >= end {
                return Ok(None);
            }
            let reading = file.clone();
            let read =
                aside(move || piece(&reading, at, end)).await.map_err(|error| ContentError(error.to_string()))?;
            let next = at + read.len() as u64;
            Ok(Some((read, (file, next))))
        });
        Ok(stream::iter((!first.is_empty()).then_some(Ok(first))).chain(rest).boxed())
    }

    pub(crate) async fn delete(&self, sha256: &[u8; 32]) -> io::Result<()> {
        let path = self.directory_of(sha256).join(hexadecimal(sha256));
        aside(move || match fs::remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        })
        .await
    }

    /// The size of a blob, if it is there.
    pub(crate) async fn size(&self, sha256: &[u8; 32]) -> io::Result<Option<u64>> {
        let path = self.directory_of(sha256).join(hexadecimal(sha256));
        aside(move || match fs::metadata(path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        })
        .await
    }

    /// The blobs whose hash begins with a byte; those lately kept may be missing from the list.
    pub(crate) async fn list(&self, shard: u8) -> io::Result<Vec<[u8; 32]>> {
        let outer = self.root.join("blobs").join(format!("{shard:02x}"));
        aside(move || {
            let mut found = Vec::new();
            for inner in entries(&outer)? {
                for path in entries(&inner)? {
                    let is_new = |modified: SystemTime| modified.elapsed().is_ok_and(|age| age < LATELY);
                    if fs::metadata(&path).and_then(|metadata| metadata.modified()).is_ok_and(is_new) {
                        continue;
                    }
                    found.extend(path.file_name().and_then(|name| parse_hexadecimal(name.to_str()?)));
                }
            }
            Ok(found)
        })
        .await
    }

    fn directory_of(&self, sha256: &[u8; 32]) -> PathBuf {
        let name = hexadecimal(sha256);
        // Hexadecimal digits: every byte is a character.
        self.root.join("blobs").join(&name[..2]).join(&name[2..4])
    }
}

impl Incoming {
    /// Writes what comes next.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => file.write_all(bytes),
            None => Ok(()),
        }
    }
}

impl Incoming {
    /// To read what was written.
    pub(crate) async fn open(&self) -> io::Result<tokio::fs::File> {
        tokio::fs::File::open(&self.path).await
    }

    /// All that was written.
    pub(crate) async fn all(&self) -> io::Result<Vec<u8>> {
        let path = self.path.clone();
        aside(move || fs::read(path)).await
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // It has its name by now, or is not wanted.
        let _ = fs::remove_file(&self.path);
    }
}

/// Bytes from a place on: at least one, if the range has any left.
fn piece(file: &File, at: u64, end: u64) -> io::Result<Bytes> {
    let wanted = end.saturating_sub(at).min(PIECE);
    let mut bytes = vec![0; usize::try_from(wanted).unwrap_or(0)];
    if bytes.is_empty() {
        return Ok(Bytes::new());
    }
    file.read_exact_at(&mut bytes, at)?;
    Ok(bytes.into())
}

/// What is in a directory; nothing if it is not there.
fn entries(path: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(path) {
        Ok(entries) => entries.map(|entry| Ok(entry?.path())).collect(),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Makes a directory and those above it; whether it was not there.
fn make_directory(path: &Path) -> io::Result<bool> {
    if path.is_dir() {
        return Ok(false);
    }
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    Ok(true)
}

fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// A hash as it is written.
pub(crate) fn hexadecimal(sha256: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = sha256.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

/// A hash as it was written.
pub(crate) fn parse_hexadecimal(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.is_ascii() {
        return None;
    }
    let mut sha256 = [0; 32];
    for (at, byte) in sha256.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).ok()?;
    }
    Some(sha256)
}

/// Runs what waits for the disk on a thread that may wait.
pub(crate) async fn aside<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome,
        Err(_) => Err(io::Error::other("the work was given up")),
    }
}
