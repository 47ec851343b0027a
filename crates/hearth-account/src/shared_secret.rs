//! Registration by whoever knows the shared secret: scripts and administrators.
//!
//! Not in the specification; the protocol is the one that Synapse documents: a nonce from us, then an HMAC-SHA1 over nonce,
//! user name, password and rights. It works where registration is closed, too.

use hearth_store::{StoreError, UserKind};
use hmac::{Hmac, KeyInit, Mac};
use sha1::Sha1;

use crate::register::Newcomer;
use crate::{Accounts, RegisterError, Secret, SignedIn, secrets};

/// How long a nonce is good.
const NONCE_LIFETIME_MS: i64 = 60 * 1000;
/// Longest nonce that we look for; ours are shorter.
const NONCE_BYTES: usize = 128;

/// What a script sends.
#[derive(Clone, Debug)]
pub struct SharedSecretRegistration {
    /// Ours, unused.
    pub nonce: String,
    /// Localpart.
    pub username: String,
    /// Display name, if not the localpart.
    pub displayname: Option<String>,
    /// Password.
    pub password: Secret,
    /// An administrator's account.
    pub admin: bool,
    /// Signed along, without a meaning here.
    pub user_type: Option<String>,
    /// HMAC, in hexadecimal digits.
    pub mac: String,
}

/// Why a script made no account.
#[derive(Debug, thiserror::Error)]
pub enum SharedSecretError {
    /// There is no secret.
    #[error("shared-secret registration is not enabled")]
    Disabled,
    /// Not our nonce, or too old, or used.
    #[error("unrecognised nonce")]
    Nonce,
    /// Made with another secret, or for another account.
    #[error("HMAC incorrect")]
    Mac,
    /// The account can't be.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

impl From<StoreError> for SharedSecretError {
    fn from(error: StoreError) -> Self {
        Self::Register(error.into())
    }
}

impl Accounts {
    /// A nonce for one registration.
    pub async fn shared_secret_nonce(&self) -> Result<String, SharedSecretError> {
        self.config().registration.shared_secret.as_ref().ok_or(SharedSecretError::Disabled)?;
        let nonce = secrets::session_id();
        let (written, expires_ts) = (nonce.clone(), self.now_ms() + NONCE_LIFETIME_MS);
        self.store().write(Vec::new(), move |tx| tx.registrations().put_nonce(&written, expires_ts)).await?;
        Ok(nonce)
    }

    /// Makes an account and its first session.
    pub async fn register_with_shared_secret(
        &self,
        wish: SharedSecretRegistration,
    ) -> Result<SignedIn, SharedSecretError> {
        let secret = self.config().registration.shared_secret.as_ref().ok_or(SharedSecretError::Disabled)?;
        let (nonce, now_ms) = (wish.nonce.clone(), self.now_ms());
        if nonce.len() > NONCE_BYTES
            || !self.store().write(Vec::new(), move |tx| tx.registrations().take_nonce(&nonce, now_ms)).await?
        {
            return Err(SharedSecretError::Nonce);
        }
        if !is_signed(secret, &wish) {
            return Err(SharedSecretError::Mac);
        }
        let user_id = self.free_user_id(Some(&wish.username)).await?;
        crate::passwords::Passwords::check_new(&wish.password).map_err(RegisterError::from)?;
        let password_hash = self.inner.passwords.hash(&wish.password).await.map_err(RegisterError::from)?;
        let displayname = wish.displayname.unwrap_or_else(|| user_id.localpart().to_owned());
        let registered = self
            .admit(Newcomer {
                user_id,
                password_hash: Some(password_hash),
                kind: UserKind::User,
                admin: wish.admin,
                displayname: Some(displayname),
                registration_token: None,
                session: Some((secrets::device_id(), None, self.mint(false))),
            })
            .await?;
        registered.session.ok_or(SharedSecretError::Register(RegisterError::Store(StoreError::Conflict)))
    }
}

/// Compares in constant time.
fn is_signed(secret: &Secret, wish: &SharedSecretRegistration) -> bool {
    let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(secret.reveal().as_bytes()) else { return false };
    let rights = if wish.admin { "admin" } else { "notadmin" };
    let parts = [&wish.nonce, &wish.username, wish.password.reveal(), rights];
    for (i, part) in parts.into_iter().chain(wish.user_type.as_deref()).enumerate() {
        if i > 0 {
            mac.update(b"\0");
        }
        mac.update(part.as_bytes());
    }
    from_hex(&wish.mac).is_some_and(|given| mac.verify_slice(&given).is_ok())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let bytes = text.as_bytes();
    if !bytes.len().is_multiple_of(2) || bytes.len() > 64 {
        return None;
    }
    bytes.chunks_exact(2).map(|pair| Some(digit(pair[0])? << 4 | digit(pair[1])?)).collect()
}

#[cfg(test)]
mod tests {
    use super::{SharedSecretRegistration, is_signed};
    use crate::Secret;

    #[test]
    fn the_signature_covers_everything() {
        // printf 'n\0u\0password\0admin' | openssl dgst -sha1 -hmac secret
        let wish = SharedSecretRegistration {
            nonce: "n".to_owned(),
            username: "u".to_owned(),
            displayname: None,
            password: Secret::new("password"),
            admin: true,
            user_type: None,
            mac: "c40080cb0c4ade342cd11bd0f74b1d2e3c0753a4".to_owned(),
        };
        let secret = Secret::new("secret");
        assert!(is_signed(&secret, &wish));
        assert!(!is_signed(&Secret::new("other"), &wish));
        assert!(!is_signed(&secret, &SharedSecretRegistration { admin: false, ..wish.clone() }));
        assert!(!is_signed(&secret, &SharedSecretRegistration { mac: "zz".to_owned(), ..wish.clone() }));
        assert!(!is_signed(&secret, &SharedSecretRegistration { user_type: Some("bot".to_owned()), ..wish }));
    }
}
