//! The data directory: its lock and the signing key.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use hearth_matrix::SigningKey;

const KEY_FILE: &str = "signing.key";

/// A data directory that this process holds: no other server starts in it until this is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

/// Why a data directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process has it.
    #[error("another hearth runs on the data directory {0}; stop it first")]
    InUse(PathBuf),
    /// The system says no.
    #[error("{path}: {cause}")]
    Io {
        /// What was touched.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The signing key is no signing key.
    #[error("the signing key {path}: {cause}")]
    SigningKey {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        cause: String,
    },
}

/// Where the admin socket of a data directory is.
pub fn admin_socket(data_dir: &Path) -> PathBuf {
    data_dir.join("admin.sock")
}

impl DataDir {
    /// Makes the directory if need be, and takes it for this process.
    pub fn take(path: &Path) -> Result<Self, DataDirError> {
        let failed = |path: &Path, cause| DataDirError::Io { path: path.to_path_buf(), cause };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|cause| failed(path, cause))?;
        let lock_path = path.join("hearth.lock");
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&lock_path)
            .map_err(|cause| failed(&lock_path, cause))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_path_buf(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(path.to_path_buf())),
            Err(TryLockError::Error(cause)) => Err(failed(&lock_path, cause)),
        }
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The server's signing key, made at the first start; whether it was made now.
    pub fn signing_key(&self) -> Result<(SigningKey, bool), DataDirError> {
        let path = self.path.join(KEY_FILE);
        let broken = |cause: String| DataDirError::SigningKey { path: path.clone(), cause };
        match std::fs::read_to_string(&path) {
            Ok(text) => {
                SigningKey::from_file_format(&text).map(|key| (key, false)).map_err(|error| broken(error.to_string()))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => new_signing_key(&self.path).map(|key| (key, true)),
            Err(error) => Err(broken(error.to_string())),
        }
    }
}

/// Makes a signing key, in the place of one that may be there. Whoever calls has the data directory.
pub(crate) fn new_signing_key(data_dir: &Path) -> Result<SigningKey, DataDirError> {
    let broken = |cause: String| DataDirError::SigningKey { path: data_dir.join(KEY_FILE), cause };
    let key = SigningKey::generate().map_err(|error| broken(error.to_string()))?;
    write_secret(data_dir, KEY_FILE, &key.to_file_format()).map_err(|error| broken(error.to_string()))?;
    Ok(key)
}

/// Whole or not at all, also when the power fails: a server that has lost its key is another server.
fn write_secret(data_dir: &Path, name: &str, text: &str) -> io::Result<()> {
    let unfinished = data_dir.join(format!("{name}.new"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&unfinished, data_dir.join(name))?;
    File::open(data_dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_signing_key_is_made_once_and_only_its_owner_may_read_it() {
        let temporary = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(&temporary.path().join("a/b")).unwrap();
        let (key, made) = data_dir.signing_key().unwrap();
        assert!(made);
        let (again, made) = data_dir.signing_key().unwrap();
        assert!(!made);
        assert_eq!(key.public_key_base64(), again.public_key_base64());
        let mode = std::fs::metadata(data_dir.path().join("signing.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_damaged_signing_key_is_not_replaced() {
        let temporary = tempfile::tempdir().unwrap();
        let data_dir = DataDir::take(temporary.path()).unwrap();
        std::fs::write(temporary.path().join("signing.key"), "rubbish").unwrap();
        assert!(matches!(data_dir.signing_key(), Err(DataDirError::SigningKey { .. })));
        assert_eq!(std::fs::read_to_string(temporary.path().join("signing.key")).unwrap(), "rubbish");
    }

    #[test]
    fn a_data_directory_has_one_owner() {
        let temporary = tempfile::tempdir().unwrap();
        let first = DataDir::take(temporary.path()).unwrap();
        assert!(matches!(DataDir::take(temporary.path()), Err(DataDirError::InUse(_))));
        drop(first);
        assert!(DataDir::take(temporary.path()).is_ok());
    }
}
