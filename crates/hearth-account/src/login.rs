//! Login with a password or a one-time token, and the making of such tokens.
//!
//! Spec: client-server API, "Login".

use hearth_matrix::ruma::OwnedUserId;
use hearth_store::{Account, Noun, StoreError, Tx, UserNum};

use crate::passwords::PasswordError;
use crate::secrets::{self, Secret};
use crate::sessions::parse_user_id;
use crate::{Accounts, Attempt, Authenticated, InteractiveError, SignedIn, devices};

/// How long a login token is good.
const LOGIN_TOKEN_LIFETIME_MS: i64 = 2 * 60 * 1000;

/// What a client shows to get in.
#[derive(Clone, Debug)]
pub enum Credentials {
    /// A password.
    Password {
        /// User id or localpart.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A one-time token.
    Token(Secret),
}

/// A login.
#[derive(Clone, Debug)]
pub struct Login {
    /// What opens the door.
    pub credentials: Credentials,
    /// The wished device: one that the user has loses its tokens.
    pub device_id: Option<String>,
    /// A name for a new device.
    pub initial_device_display_name: Option<String>,
    /// The client can refresh access tokens.
    pub refresh_token: bool,
}

/// Why a login failed.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No such user, or not that password or token.
    #[error("invalid username, password or token")]
    Forbidden,
    /// The account is gone.
    #[error("the account has been deactivated")]
    Deactivated,
    /// The account is locked.
    #[error("the account is locked")]
    Locked,
    /// A device id or name too long.
    #[error("the device id or display name is too long")]
    DeviceTooLong,
    /// The user has too many devices already.
    #[error("this account has as many devices as it may")]
    TooManyDevices,
    /// Password hashing refused.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A token that lets another device in.
#[derive(Clone, Debug)]
pub struct LoginToken {
    /// The token.
    pub token: Secret,
    /// How long it is good.
    pub expires_in_ms: i64,
}

/// What was proven: checked again in the closure that opens the session.
#[derive(Clone)]
enum Proof {
    PasswordHash(Option<String>),
    Token(hearth_store::TokenHash),
}

impl Accounts {
    /// Opens a session.
    pub async fn login(&self, login: Login) -> Result<SignedIn, LoginError> {
        devices::check_names(login.device_id.as_deref(), login.initial_device_display_name.as_deref())
            .map_err(|_| LoginError::DeviceTooLong)?;
        let (user_id, account, proof) = match login.credentials {
            Credentials::Password { user, password } => self.prove_by_password(&user, &password).await?,
            Credentials::Token(token) => self.prove_by_token(&token).await?,
        };
        if account.state.locked {
            return Err(LoginError::Locked);
        }

        let device_id = login.device_id.unwrap_or_else(secrets::device_id);
        let minted = self.mint(login.refresh_token);
        let (user, tokens, now_ms) = (account.user, minted.tokens, self.now_ms());
        let most_devices = self.config().most_devices;
        let (device, display_name) = (device_id.clone(), login.initial_device_display_name);
        let opened = self.store().write(vec![Noun::User(user)], move |tx| {
            let is_new = tx.devices().get(user, &device)?.is_none();
            if is_new && tx.devices().count(user)? >= most_devices {
                return Ok(Err(LoginError::TooManyDevices));
            }
            if !still_proven(tx, user, &proof)? {
                return Ok(Err(LoginError::Forbidden));
            }
            let device = tx.devices().sign_in(user, &device, display_name.as_deref(), now_ms)?;
            tx.tokens().issue(user, device, &tokens)?;
            Ok(Ok(()))
        });
        opened.await??;
        Ok(minted.signed_in(user_id, &device_id))
    }

    /// Makes a login token for the user himself, once he has shown his password again.
    pub async fn create_login_token(
        &self,
        attempt: &Attempt,
        owner: &Authenticated,
    ) -> Result<LoginToken, InteractiveError> {
        self.ask_password(attempt, owner).await?;
        let token = secrets::token("hl_");
        let (hash, user) = (token.token_hash(), owner.user);
        let expires_ts = self.now_ms() + LOGIN_TOKEN_LIFETIME_MS;
        self.store().write(Vec::new(), move |tx| tx.tokens().issue_login_token(&hash, user, expires_ts)).await?;
        Ok(LoginToken { token, expires_in_ms: LOGIN_TOKEN_LIFETIME_MS })
    }

    async fn prove_by_password(
        &self,
        user: &str,
        password: &Secret,
    ) -> Result<(OwnedUserId, Account, Proof), LoginError> {
        let found = self.find(user).await?;
        if found.as_ref().is_some_and(|(_, account)| account.state.deactivated) {
            return Err(LoginError::Deactivated);
        }
        let hash = found.as_ref().and_then(|(_, account)| account.password_hash.clone());
        let is_right = self.inner.passwords.verify(password, hash.clone()).await?;
        let (user_id, account) = found.filter(|_| is_right).ok_or(LoginError::Forbidden)?;
        Ok((user_id, account, Proof::PasswordHash(hash)))
    }

    async fn prove_by_token(&self, token: &Secret) -> Result<(OwnedUserId, Account, Proof), LoginError> {
        let (hash, now_ms) = (token.token_hash(), self.now_ms());
        let found = self.store().read(move |tx| {
            let Some(user) = tx.tokens().login_token(&hash, now_ms)? else { return Ok(None) };
            let Some(account) = tx.accounts().by_num(user)? else { return Ok(None) };
            Ok(Some((tx.string(user)?, account)))
        });
        let (user_id, account) = found.await?.ok_or(LoginError::Forbidden)?;
        if account.state.deactivated {
            return Err(LoginError::Deactivated);
        }
        Ok((parse_user_id(&user_id)?, account, Proof::Token(hash)))
    }
}

/// Meanwhile the password may have changed, the account may be gone, or the token used.
fn still_proven(tx: &mut Tx<'_>, user: UserNum, proof: &Proof) -> Result<bool, StoreError> {
    let account = tx.accounts().by_num(user)?.filter(|account| !account.state.deactivated);
    match (account, proof) {
        (None, _) => Ok(false),
        (Some(account), Proof::PasswordHash(hash)) => Ok(account.password_hash == *hash),
        (Some(_), Proof::Token(hash)) => tx.tokens().take_login_token(hash),
    }
}
