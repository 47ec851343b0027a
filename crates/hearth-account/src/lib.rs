//! Who may in: registration, sessions, tokens, passwords, interactive authentication.
//!
//! Accounts stand above rooms and users: deactivation makes a user leave his rooms, which is asked for through
//! [`Residence`].

mod admin;
mod change_password;
mod deactivate;
mod devices;
mod housekeeping;
pub mod interactive;
mod login;
mod passwords;
mod refresh;
mod register;
mod residence;
mod secrets;
mod session_end;
mod sessions;
mod shared_secret;
mod usernames;

use std::sync::Arc;

use hearth_matrix::ruma::OwnedServerName;
use hearth_store::{Store, WallTime};
use serde_json::{Map, Value};

pub use admin::{AdminError, ListedAccount};
pub use change_password::ChangePasswordError;
pub use deactivate::DeactivateError;
pub use devices::DeviceError;
pub use interactive::{Attempt, Challenge, InteractiveError, Stage};
pub use login::{Credentials, Login, LoginError, LoginToken};
pub use passwords::{PasswordCost, PasswordError};
pub use refresh::{RefreshError, Refreshed};
pub use register::{RegisterError, Registered, Registration};
pub use residence::{Residence, Work};
pub use secrets::Secret;
pub use session_end::Heard;
pub use sessions::{AuthenticateError, Authenticated, SignedIn};
pub use shared_secret::{SharedSecretError, SharedSecretRegistration};
pub use usernames::UsernameError;

/// What accounts are told by the settings.
#[derive(Clone, Debug)]
pub struct AccountsConfig {
    /// Our name in the federation.
    pub server_name: OwnedServerName,
    /// Who may register.
    pub registration: RegistrationOptions,
    /// What a password hash costs.
    pub password_cost: PasswordCost,
    /// How long an access token lives whose client can refresh it.
    pub access_token_lifetime_ms: i64,
    /// Devices that one user may have.
    pub most_devices: i64,
    /// Nobody else writes to this database, so sessions may be remembered between requests.
    pub sole_owner: bool,
}

impl AccountsConfig {
    /// The defaults of a server: registration closed.
    pub fn new(server_name: OwnedServerName) -> Self {
        Self {
            server_name,
            registration: RegistrationOptions::default(),
            password_cost: PasswordCost::default(),
            access_token_lifetime_ms: 5 * 60 * 1000,
            most_devices: 5000,
            sole_owner: false,
        }
    }
}

/// Who may register.
#[derive(Clone, Debug, Default)]
pub struct RegistrationOptions {
    /// Anybody.
    pub enabled: bool,
    /// Only with a registration token.
    pub token_required: bool,
    /// Guests may come without a password.
    pub guests: bool,
    /// Whoever knows it may make accounts through the shared-secret door.
    pub shared_secret: Option<Secret>,
    /// Documents to be accepted, as the `policies` of `m.login.terms`.
    pub terms: Option<Map<String, Value>>,
}

/// Who may in. Cheap to clone.
#[derive(Clone)]
pub struct Accounts {
    inner: Arc<Inner>,
}

struct Inner {
    config: AccountsConfig,
    store: Store,
    time: WallTime,
    residence: Arc<dyn Residence>,
    passwords: passwords::Passwords,
    sessions: sessions::Sessions,
    ends: session_end::Ends,
}

impl Accounts {
    /// Over a store; `residence` is where users live: their rooms.
    pub fn new(config: AccountsConfig, store: Store, time: WallTime, residence: Arc<dyn Residence>) -> Self {
        let passwords = passwords::Passwords::new(config.password_cost);
        let sessions = sessions::Sessions::new(&store, config.sole_owner);
        let ends = session_end::Ends::new(&store);
        Self { inner: Arc::new(Inner { config, store, time, residence, passwords, sessions, ends }) }
    }

    /// What we are told.
    pub fn config(&self) -> &AccountsConfig {
        &self.inner.config
    }

    fn store(&self) -> &Store {
        &self.inner.store
    }

    fn now_ms(&self) -> i64 {
        self.inner.time.now_ms()
    }
}
