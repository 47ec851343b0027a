//! Secrets: where they come from, and that they do not show in logs.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hearth_store::TokenHash;
use rand::TryRng as _;
use rand::rngs::SysRng;
use sha2::{Digest, Sha256};

/// A password or token.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Hides a string.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The string, for those who must have it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// The string, taken out.
    pub fn into_inner(self) -> String {
        self.0
    }

    pub(crate) fn token_hash(&self) -> TokenHash {
        token_hash(&self.0)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

/// What the store knows of a token.
pub(crate) fn token_hash(token: &str) -> TokenHash {
    Sha256::digest(token.as_bytes()).into()
}

/// A token of 256 bits. The prefix tells those who find one what they have found.
pub(crate) fn token(prefix: &str) -> Secret {
    Secret(format!("{prefix}{}", URL_SAFE_NO_PAD.encode(random::<32>())))
}

/// A device id: ten uppercase letters.
pub(crate) fn device_id() -> String {
    letters(10, b'A')
}

/// The localpart of a user who did not name himself.
pub(crate) fn localpart() -> String {
    letters(12, b'a')
}

/// An id that nobody guesses.
pub(crate) fn session_id() -> String {
    letters(28, b'a')
}

fn letters(count: usize, first: u8) -> String {
    let mut letters = String::with_capacity(count);
    while letters.len() < count {
        // 234 is the largest multiple of 26 in a byte: all letters stay equally likely.
        letters.extend(random::<32>().into_iter().filter(|b| *b < 234).map(|b| char::from(first + b % 26)));
    }
    letters.truncate(count);
    letters
}

fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    SysRng.try_fill_bytes(&mut bytes).expect("the operating system gives random bytes");
    bytes
}

#[cfg(test)]
mod tests {
    use super::{Secret, device_id, token};

    #[test]
    fn secrets_do_not_show() {
        assert_eq!(format!("{:?}", Secret::new("sUp3rs3kr1t")), "Secret");
    }

    #[test]
    fn tokens_and_device_ids_have_their_form() {
        assert!(token("ha_").reveal().starts_with("ha_") && token("ha_").reveal().len() == 3 + 43);
        let id = device_id();
        assert!(id.len() == 10 && id.bytes().all(|b| b.is_ascii_uppercase()), "{id}");
    }
}
