//! Registration of users and guests.
//!
//! Spec: client-server API, "Account registration".

use hearth_matrix::ruma::OwnedUserId;
use hearth_store::{NewAccount, Noun, RegistrationToken, StoreError, Tx, UserKind, UserNum};
use serde_json::{Map, Value};

use crate::interactive::Passed;
use crate::passwords::{PasswordError, Passwords};
use crate::sessions::Minted;
use crate::usernames::new_user_id;
use crate::{
    Accounts, Attempt, AuthenticateError, Authenticated, InteractiveError, Secret, SignedIn, Stage, UsernameError,
    devices, secrets,
};

/// Who wants in.
#[derive(Clone, Debug, Default)]
pub struct Registration {
    /// The wished localpart.
    pub username: Option<String>,
    /// The password.
    pub password: Option<Secret>,
    /// The wished device id.
    pub device_id: Option<String>,
    /// A name for the device.
    pub initial_device_display_name: Option<String>,
    /// Make the account, but no session.
    pub inhibit_login: bool,
    /// The client can refresh access tokens.
    pub refresh_token: bool,
    /// The access token of a guest who wants to stay, under the name he has.
    pub guest_access_token: Option<Secret>,
}

/// What came of a registration.
#[derive(Clone, Debug)]
pub struct Registered {
    /// The user.
    pub user_id: OwnedUserId,
    /// The session, unless it was not wished.
    pub session: Option<SignedIn>,
}

/// Why nobody was registered.
#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    /// This server takes nobody.
    #[error("registration is disabled")]
    Disabled,
    /// This server takes no guests.
    #[error("guest access is disabled")]
    GuestsDisabled,
    /// The access token is no guest's, or his name is another.
    #[error("the access token is not that of the guest of this name")]
    NotThatGuest,
    /// Not a name for a user.
    #[error(transparent)]
    Username(#[from] UsernameError),
    /// The name is taken.
    #[error("the user name is taken")]
    UserInUse,
    /// Users have passwords.
    #[error("missing password")]
    MissingPassword,
    /// Not a password, or not now.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// A device id or name too long.
    #[error("the device id or display name is too long")]
    DeviceTooLong,
    /// The registration token was used up meanwhile.
    #[error("the registration token is not valid")]
    TokenUsedUp,
    /// Stages are missing.
    #[error(transparent)]
    Interactive(#[from] InteractiveError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An account about to be made.
pub(crate) struct Newcomer {
    pub(crate) user_id: OwnedUserId,
    pub(crate) password_hash: Option<String>,
    pub(crate) kind: UserKind,
    pub(crate) admin: bool,
    pub(crate) displayname: Option<String>,
    pub(crate) registration_token: Option<String>,
    /// Device id, its display name and tokens, if a session begins.
    pub(crate) session: Option<(String, Option<String>, Minted)>,
}

impl Newcomer {
    fn registered(&self) -> Registered {
        let user_id = self.user_id.clone();
        let session = self.session.as_ref().map(|(device_id, _, minted)| SignedIn {
            user_id: user_id.clone(),
            device_id: device_id.as_str().into(),
            access_token: minted.access.clone(),
            refresh_token: minted.refresh.clone(),
            expires_in_ms: minted.expires_in_ms,
        });
        Registered { user_id, session }
    }
}

enum Refusal {
    UserInUse,
    TokenUsedUp,
}

impl From<Refusal> for RegisterError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::UserInUse => Self::UserInUse,
            Refusal::TokenUsedUp => Self::TokenUsedUp,
        }
    }
}

impl Accounts {
    /// Whether a name is free.
    pub async fn is_username_available(&self, username: &str) -> Result<(), RegisterError> {
        if !self.config().registration.enabled {
            return Err(RegisterError::Disabled);
        }
        self.free_user_id(Some(username)).await?;
        Ok(())
    }

    /// Whether a registration token may be used.
    pub async fn is_registration_token_valid(&self, token: &str) -> Result<bool, StoreError> {
        let (token, now_ms) = (token.to_owned(), self.now_ms());
        let known = self.store().read(move |tx| tx.registrations().token(&token)).await?;
        Ok(known.is_some_and(|token| token.is_valid(now_ms)))
    }

    /// Makes a registration token; `false` if there is one of that name.
    pub async fn create_registration_token(&self, token: RegistrationToken) -> Result<bool, StoreError> {
        self.store().write(Vec::new(), move |tx| tx.registrations().create_token(&token)).await
    }

    /// Registers a user, once he has passed the stages.
    pub async fn register(&self, attempt: &Attempt, wish: Registration) -> Result<Registered, RegisterError> {
        if !self.config().registration.enabled {
            return Err(RegisterError::Disabled);
        }
        // What can't succeed should fail before the user is led through stages.
        let guest = self.guest_who_stays(&wish).await?;
        if let Some(username) = wish.username.as_ref().filter(|_| guest.is_none()) {
            self.free_user_id(Some(username)).await?;
        }
        wish.password.as_ref().map_or(Ok(()), Passwords::check_new)?;
        devices::check_names(wish.device_id.as_deref(), wish.initial_device_display_name.as_deref())
            .map_err(|_| RegisterError::DeviceTooLong)?;

        let (flows, params) = self.registration_flows();
        let passed = self.pass(attempt, flows, params, None).await?;
        let password = wish.password.as_ref().ok_or(RegisterError::MissingPassword)?;
        let user_id = match &guest {
            Some(guest) => guest.user_id.clone(),
            None => self.free_user_id(wish.username.as_deref()).await?,
        };
        let password_hash = Some(self.inner.passwords.hash(password).await?);
        let session = (!wish.inhibit_login).then(|| {
            let device_id = wish.device_id.unwrap_or_else(secrets::device_id);
            (device_id, wish.initial_device_display_name, self.mint(wish.refresh_token))
        });
        let newcomer = Newcomer {
            displayname: Some(user_id.localpart().to_owned()),
            user_id,
            password_hash,
            kind: UserKind::User,
            admin: false,
            registration_token: registration_token(passed),
            session,
        };
        match guest {
            Some(guest) => self.keep_guest(guest.user, newcomer).await,
            None => self.admit(newcomer).await,
        }
    }

    /// The guest who wants to become a user, if that is what is wished. He keeps his name.
    async fn guest_who_stays(&self, wish: &Registration) -> Result<Option<Authenticated>, RegisterError> {
        let Some(token) = &wish.guest_access_token else { return Ok(None) };
        let guest = match self.authenticate(token.reveal()).await {
            Ok(session) => session,
            Err(AuthenticateError::Store(cause)) => return Err(cause.into()),
            Err(_) => return Err(RegisterError::NotThatGuest),
        };
        let is_his = wish.username.as_deref().is_some_and(|name| name.eq_ignore_ascii_case(guest.user_id.localpart()));
        if guest.is_guest && is_his { Ok(Some(guest)) } else { Err(RegisterError::NotThatGuest) }
    }

    /// Makes a guest a user. His rooms and devices stay his.
    async fn keep_guest(&self, user: UserNum, newcomer: Newcomer) -> Result<Registered, RegisterError> {
        let now_ms = self.now_ms();
        let newcomer = std::sync::Arc::new(newcomer);
        let written = newcomer.clone();
        let kept = self.store().write(vec![Noun::User(user)], move |tx| {
            let account = tx.accounts().by_num(user)?;
            let is_guest = account.is_some_and(|account| account.kind == UserKind::Guest && !account.state.deactivated);
            let Some(hash) = written.password_hash.as_deref().filter(|_| is_guest) else {
                return Ok(Err(Refusal::UserInUse));
            };
            if let Some(token) = &written.registration_token
                && !tx.registrations().use_token(token, now_ms)?
            {
                return Ok(Err(Refusal::TokenUsedUp));
            }
            tx.accounts().upgrade_guest(user, hash)?;
            if let Some((device_id, display_name, minted)) = &written.session {
                let device = tx.devices().sign_in(user, device_id, display_name.as_deref(), now_ms)?;
                tx.tokens().issue(user, device, &minted.tokens)?;
            }
            Ok(Ok(()))
        });
        kept.await??;
        Ok(newcomer.registered())
    }

    /// Registers a guest: the server chooses everything.
    pub async fn register_guest(
        &self,
        initial_device_display_name: Option<String>,
    ) -> Result<Registered, RegisterError> {
        if !self.config().registration.guests {
            return Err(RegisterError::GuestsDisabled);
        }
        devices::check_names(None, initial_device_display_name.as_deref()).map_err(|_| RegisterError::DeviceTooLong)?;
        let session = (secrets::device_id(), initial_device_display_name, self.mint(false));
        self.admit(Newcomer {
            user_id: self.free_user_id(None).await?,
            password_hash: None,
            kind: UserKind::Guest,
            admin: false,
            displayname: None,
            registration_token: None,
            session: Some(session),
        })
        .await
    }

    /// A user id that nobody has: the wished one, or one of ours.
    pub(crate) async fn free_user_id(&self, username: Option<&str>) -> Result<OwnedUserId, RegisterError> {
        let username = username.map_or_else(secrets::localpart, str::to_owned);
        let user_id = new_user_id(&username, &self.config().server_name)?;
        let asked = user_id.clone();
        let taken = self.store().read(move |tx| tx.accounts().by_id(asked.as_str())).await?.is_some();
        if taken { Err(RegisterError::UserInUse) } else { Ok(user_id) }
    }

    /// Makes an account and perhaps its first session, in one commit.
    pub(crate) async fn admit(&self, newcomer: Newcomer) -> Result<Registered, RegisterError> {
        let now_ms = self.now_ms();
        let newcomer = std::sync::Arc::new(newcomer);
        let nouns = vec![Noun::Name(newcomer.user_id.to_string())];
        let written = newcomer.clone();
        self.store().write(nouns, move |tx| write_down(tx, &written, now_ms)).await??;
        Ok(newcomer.registered())
    }

    fn registration_flows(&self) -> (Vec<Vec<Stage>>, Map<String, Value>) {
        let options = &self.config().registration;
        let mut flow = Vec::new();
        let mut params = Map::new();
        if options.token_required {
            flow.push(Stage::RegistrationToken);
        }
        if let Some(policies) = &options.terms {
            flow.push(Stage::Terms);
            let policies = Map::from_iter([("policies".to_owned(), Value::Object(policies.clone()))]);
            params.insert(Stage::Terms.name().to_owned(), Value::Object(policies));
        }
        if flow.is_empty() {
            flow.push(Stage::Dummy);
        }
        (vec![flow], params)
    }
}

fn registration_token(mut passed: Passed) -> Option<String> {
    passed.remove(&Stage::RegistrationToken)
}

fn write_down(tx: &mut Tx<'_>, newcomer: &Newcomer, now_ms: i64) -> Result<Result<UserNum, Refusal>, StoreError> {
    let user_id = newcomer.user_id.as_str();
    if tx.accounts().by_id(user_id)?.is_some() {
        return Ok(Err(Refusal::UserInUse));
    }
    if let Some(token) = &newcomer.registration_token
        && !tx.registrations().use_token(token, now_ms)?
    {
        return Ok(Err(Refusal::TokenUsedUp));
    }
    let account = NewAccount {
        user_id,
        localpart: newcomer.user_id.localpart(),
        password_hash: newcomer.password_hash.as_deref(),
        kind: newcomer.kind,
        admin: newcomer.admin,
        created_ts: now_ms,
    };
    // The name is locked and was free a moment ago.
    let user = tx.accounts().create(account)?.ok_or(StoreError::Conflict)?;
    if let Some(displayname) = &newcomer.displayname {
        tx.profiles().set(user, "displayname", &Value::String(displayname.clone()).to_string())?;
    }
    if let Some((device_id, display_name, minted)) = &newcomer.session {
        let device = tx.devices().sign_in(user, device_id, display_name.as_deref(), now_ms)?;
        tx.tokens().issue(user, device, &minted.tokens)?;
    }
    Ok(Ok(user))
}
