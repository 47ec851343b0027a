//! Blobs in a directory: `blobs/ab/cd/abcd…`, named by their SHA-256 in hexadecimal digits.
//!
//! A blob is written to `incoming` first, and gets its name when it is whole and on the disk. So whatever happens, under a
//! blob's name are all its bytes or nothing. What a crash leaves in `incoming` is deleted at a start, when it is old.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};

use crate::content::{Content, ContentError};
use crate::media_id::new_media_id;

/// So much is read at once.
const PIECE: u64 = 256 * 1024;
/// What was kept a moment ago may not be in the database yet.
const LATELY: Duration = Duration::from_secs(60 * 60);
/// What nobody has written to for so long is left over.
const LEFT_OVER: Duration = Duration::from_secs(24 * 60 * 60);

/// A directory of blobs.
pub(crate) struct Disk {
    root: Arc<Path>,
    lasting: Arc<Lasting>,
}

/// Which of the directories `ab/cd` are known to survive a crash, with those above them: a bit for each.
struct Lasting(Vec<AtomicU64>);

/// A file that is being written. Deleted if it is not kept.
#[derive(Debug)]
pub(crate) struct Incoming {
    file: Option<File>,
    path: PathBuf,
    size: u64,
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
        Ok(Self { root, lasting: Arc::default() })
    }

    pub(crate) async fn receive(&self) -> io::Result<Incoming> {
        let path = self.root.join("incoming").join(new_media_id());
        aside(move || {
            let file = OpenOptions::new().write(true).read(true).create_new(true).mode(0o600).open(&path)?;
            Ok(Incoming { file: Some(file), path, size: 0 })
        })
        .await
    }

    pub(crate) async fn keep(&self, mut incoming: Incoming, sha256: &[u8; 32]) -> io::Result<()> {
        let (root, lasting) = (self.root.clone(), self.lasting.clone());
        let (outer, name, shard) = (self.directory_of(sha256), hexadecimal(sha256), [sha256[0], sha256[1]]);
        aside(move || {
            let path = outer.join(name);
            let is_whole = fs::metadata(&path).is_ok_and(|metadata| metadata.len() == incoming.size);
            if !is_whole {
                if let Some(file) = incoming.file.take() {
                    file.sync_all()?;
                }
                make_directory(&outer)?;
                fs::rename(&incoming.path, &path)?;
            }
            // Also when it was there: whoever put it there may not have come so far yet.
            sync_directory(&outer)?;
            if !lasting.has(shard) {
                sync_directory(outer.parent().unwrap_or(&root))?;
                sync_directory(&root.join("blobs"))?;
                lasting.add(shard);
            }
            Ok(())
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
            let read = match piece_at_hand(&file, at, end) {
                Some(read) => read,
                None => {
                    let read = aside(move || piece(&reading, at, end)).await;
                    read.map_err(|error| ContentError(error.to_string()))?
                }
            };
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

impl Default for Lasting {
    fn default() -> Self {
        Self((0..1024).map(|_| AtomicU64::new(0)).collect())
    }
}

impl Lasting {
    fn at(&self, shard: [u8; 2]) -> Option<(&AtomicU64, u64)> {
        let number = usize::from(u16::from_be_bytes(shard));
        Some((self.0.get(number / 64)?, 1 << (number % 64)))
    }

    fn has(&self, shard: [u8; 2]) -> bool {
        self.at(shard).is_some_and(|(bits, bit)| bits.load(Ordering::Relaxed) & bit != 0)
    }

    fn add(&self, shard: [u8; 2]) {
        if let Some((bits, bit)) = self.at(shard) {
            bits.fetch_or(bit, Ordering::Relaxed);
        }
    }
}

impl Incoming {
    /// Writes what comes next.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.file {
            Some(file) => {
                file.write_all(bytes)?;
                self.size += bytes.len() as u64;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// How much was written.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

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

/// The same, if they are in memory anyhow: then it takes less time than to have them read by another thread.
#[cfg(target_os = "linux")]
fn piece_at_hand(file: &File, at: u64, end: u64) -> Option<Bytes> {
    let mut bytes = vec![0; usize::try_from(end.saturating_sub(at).min(PIECE)).ok()?];
    let mut slices = [io::IoSliceMut::new(&mut bytes)];
    let length = rustix::io::preadv2(file, &mut slices, at, rustix::io::ReadWriteFlags::NOWAIT).ok()?;
    bytes.truncate(length);
    (length > 0).then(|| bytes.into())
}

#[cfg(not(target_os = "linux"))]
fn piece_at_hand(_: &File, _: u64, _: u64) -> Option<Bytes> {
    None
}

/// Bytes from a place on: at least one, if the range has any left.
fn piece(file: &File, at: u64, end: u64) -> io::Result<Bytes> {
    let wanted = usize::try_from(end.saturating_sub(at).min(PIECE)).unwrap_or(0);
    let mut bytes = Vec::with_capacity(wanted);
    while bytes.len() < wanted {
        let next = at + bytes.len() as u64;
        // Into memory that nobody has filled with zeros before.
        match rustix::io::pread(file, rustix::buffer::spare_capacity(&mut bytes), next) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(wanted);
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

/// Makes a directory and those above it, if they are not there.
fn make_directory(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
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
