//! Passwords: Argon2id, few at once, off the threads that serve requests.

use std::sync::{Arc, OnceLock};

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use tokio::sync::Semaphore;

use crate::Secret;

/// Longest password: whatever is longer is not typed, and costs us to hash.
const LONGEST_BYTES: usize = 512;
/// Shortest password, in characters.
const SHORTEST_CHARS: usize = 6;
/// So many may wait for their hash; the next is turned away.
const MOST_WAITING: usize = 1024;

/// What a hash costs whoever guesses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Default for PasswordCost {
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2 }
    }
}

/// Why a password is not taken.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PasswordError {
    /// Too short.
    #[error("the password is too short: it needs at least {SHORTEST_CHARS} characters")]
    TooShort,
    /// Too long.
    #[error("the password is longer than {LONGEST_BYTES} bytes")]
    TooLong,
    /// Too many hashes are asked for at this moment.
    #[error("too many logins at once")]
    Busy,
    /// Hashing failed, which it should not.
    #[error("hashing failed: {0}")]
    Broken(String),
}

/// Hashes and checks passwords.
pub(crate) struct Passwords {
    hasher: Argon2<'static>,
    turns: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    decoy: Arc<OnceLock<String>>,
}

impl Passwords {
    pub(crate) fn new(cost: PasswordCost) -> Self {
        let params = Params::new(cost.memory_kib, cost.passes, 1, None).unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            hasher: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            turns: Arc::new(Semaphore::new(cores)),
            waiting: Arc::new(Semaphore::new(MOST_WAITING + cores)),
            decoy: Arc::default(),
        }
    }

    /// Whether a new password will do.
    pub(crate) fn check_new(password: &Secret) -> Result<(), PasswordError> {
        match password.reveal() {
            long if long.len() > LONGEST_BYTES => Err(PasswordError::TooLong),
            short if short.chars().count() < SHORTEST_CHARS => Err(PasswordError::TooShort),
            _ => Ok(()),
        }
    }

    /// The PHC string of a new password.
    pub(crate) async fn hash(&self, password: &Secret) -> Result<String, PasswordError> {
        let (hasher, password) = (self.hasher.clone(), password.clone());
        self.in_turn(move || phc(&hasher, password.reveal())).await?
    }

    /// Whether a password is the one of a PHC string. Without one the answer takes as long and is no.
    pub(crate) async fn verify(&self, password: &Secret, hash: Option<String>) -> Result<bool, PasswordError> {
        if password.reveal().len() > LONGEST_BYTES {
            return Ok(false);
        }
        let (hasher, password, decoy) = (self.hasher.clone(), password.clone(), self.decoy.clone());
        self.in_turn(move || {
            let is_real = hash.is_some();
            let hash = hash.unwrap_or_else(|| decoy.get_or_init(|| phc(&hasher, "").unwrap_or_default()).clone());
            let hash = PasswordHash::new(&hash).map_err(|error| PasswordError::Broken(error.to_string()))?;
            Ok(hasher.verify_password(password.reveal().as_bytes(), &hash).is_ok() && is_real)
        })
        .await?
    }

    async fn in_turn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, PasswordError> {
        let broken = |error: &dyn std::fmt::Display| PasswordError::Broken(error.to_string());
        let place = self.waiting.clone().try_acquire_owned().map_err(|_| PasswordError::Busy)?;
        let turn = self.turns.clone().acquire_owned().await.map_err(|error| broken(&error))?;
        let work = tokio::task::spawn_blocking(move || {
            let done = work();
            drop((turn, place));
            done
        });
        work.await.map_err(|error| broken(&error))
    }
}

fn phc(hasher: &Argon2<'_>, password: &str) -> Result<String, PasswordError> {
    let hash: PasswordHash =
        hasher.hash_password(password.as_bytes()).map_err(|error| PasswordError::Broken(error.to_string()))?;
    Ok(hash.to_string())
}

#[cfg(test)]
mod tests {
    use super::{PasswordCost, PasswordError, Passwords};
    use crate::Secret;

    #[tokio::test]
    async fn a_password_is_known_again() {
        let passwords = Passwords::new(PasswordCost { memory_kib: 64, passes: 1 });
        let hash = passwords.hash(&Secret::new("übers3kr1t")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        assert!(passwords.verify(&Secret::new("übers3kr1t"), Some(hash.clone())).await.unwrap());
        assert!(!passwords.verify(&Secret::new("wrong"), Some(hash)).await.unwrap());
        assert!(!passwords.verify(&Secret::new(""), None).await.unwrap());
    }

    #[test]
    fn weak_and_endless_passwords_are_refused() {
        assert_eq!(Passwords::check_new(&Secret::new("12345")), Err(PasswordError::TooShort));
        assert_eq!(Passwords::check_new(&Secret::new("x".repeat(513))), Err(PasswordError::TooLong));
        assert_eq!(Passwords::check_new(&Secret::new("s3kr1t")), Ok(()));
    }
}
