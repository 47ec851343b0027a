//! Accounts on a store in memory, with a clock that is turned by hand.

mod deactivation;
mod devices;
mod interactive;
mod login;
mod refresh;
mod registration;

use std::sync::Arc;

use hearth_account::{
    Accounts, AccountsConfig, Attempt, Authenticated, Credentials, Login, LoginError, PasswordCost, Registered,
    Registration, RegistrationOptions, Residence, Secret, SignedIn,
};
use hearth_matrix::ruma::server_name;
use hearth_store::{DatabaseUrl, Store, StoreOptions, WallTime};
use serde_json::{Map, Value, json};

pub(crate) struct House {
    pub(crate) accounts: Accounts,
    pub(crate) time: WallTime,
    pub(crate) store: Store,
}

impl House {
    pub(crate) async fn open() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(options: impl FnOnce(&mut RegistrationOptions)) -> Self {
        Self::with_residence(options, Arc::new(())).await
    }

    pub(crate) async fn with_residence(
        options: impl FnOnce(&mut RegistrationOptions),
        residence: Arc<dyn Residence>,
    ) -> Self {
        let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.unwrap();
        let time = WallTime::manual(1_700_000_000_000);
        let mut config = AccountsConfig::new(server_name!("hs1").to_owned());
        config.registration = RegistrationOptions { enabled: true, ..Default::default() };
        options(&mut config.registration);
        config.password_cost = PasswordCost { memory_kib: 32, passes: 1 };
        config.sole_owner = true;
        config.most_devices = 20;
        let accounts = Accounts::new(config, store.clone(), time.clone(), residence);
        Self { accounts, time, store }
    }

    /// Registers a user whose password is `sUp3rs3kr1t`.
    pub(crate) async fn user(&self, username: &str) -> SignedIn {
        let wish = Registration { username: Some(username.to_owned()), ..wish() };
        self.accounts.register(&dummy(), wish).await.unwrap().session.unwrap()
    }

    pub(crate) async fn login(&self, login: Login) -> Result<SignedIn, LoginError> {
        self.accounts.login(login).await
    }

    pub(crate) async fn whoami(&self, session: &SignedIn) -> Option<Authenticated> {
        self.accounts.authenticate(session.access_token.reveal()).await.ok()
    }

    pub(crate) async fn must_be(&self, session: &SignedIn) -> Authenticated {
        self.whoami(session).await.expect("the session is alive")
    }
}

pub(crate) const PASSWORD: &str = "sUp3rs3kr1t";

pub(crate) fn wish() -> Registration {
    Registration { password: Some(Secret::new(PASSWORD)), ..Default::default() }
}

pub(crate) fn by_password(user: &str, password: &str) -> Login {
    Login {
        credentials: Credentials::Password { user: user.to_owned(), password: Secret::new(password) },
        device_id: None,
        initial_device_display_name: None,
        refresh_token: false,
    }
}

pub(crate) fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(map) => map,
        other => panic!("no object: {other}"),
    }
}

/// A try of the request that the tests mean if they don't say which.
pub(crate) fn attempt(auth: Value) -> Attempt {
    let auth = (!auth.is_null()).then(|| object(auth));
    Attempt::new("POST", "/register", None, &Map::new(), auth)
}

pub(crate) fn dummy() -> Attempt {
    attempt(json!({ "type": "m.login.dummy" }))
}

pub(crate) fn shown_password(user: &str, password: &str) -> Attempt {
    attempt(json!({
        "type": "m.login.password",
        "identifier": { "type": "m.id.user", "user": user },
        "password": password,
    }))
}

pub(crate) fn user_id(registered: &Registered) -> &str {
    registered.user_id.as_str()
}
