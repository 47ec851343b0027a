//! A whole server in this process, through the program's own wiring.

use hearth::settings::{Database, Listener, Settings};
use hearth::{Homeserver, Running};
use hearth_api::Resource;
use hearth_api::serve::Bind;
use hearth_matrix::ruma::ServerName;
use hearth_store::WallTime;
use serde_json::{Value, json};

use crate::client::status_and_json;
use crate::{Backend, Request, Target, User};

/// The time at which the servers of tests start, in milliseconds.
pub(crate) const START_MS: i64 = 1_750_000_000_000;

/// The password of users of tests.
const PASSWORD: &str = "correct horse battery staple";

/// A server at work, on loopback, with registration open and a clock that the test turns.
pub struct TestServer {
    running: Option<Running>,
    settings: Settings,
    target: Target,
    /// The server's clock.
    pub time: WallTime,
    _data_dir: tempfile::TempDir,
}

impl TestServer {
    /// A fresh server on SQLite.
    pub async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// The same with settings of the test's own.
    pub async fn start_with(adjust: impl Fn(&mut Settings)) -> Self {
        Self::start_on(Backend::Sqlite, adjust).await
    }

    /// A fresh server on a database.
    pub async fn start_on(backend: Backend, adjust: impl Fn(&mut Settings)) -> Self {
        Self::start_at(backend, WallTime::manual(START_MS), adjust).await
    }

    /// The same with a clock of the test's own.
    pub async fn start_at(backend: Backend, time: WallTime, adjust: impl Fn(&mut Settings)) -> Self {
        let data_dir = tempfile::tempdir().expect("a temporary directory");
        let mut settings = Settings {
            server_name: ServerName::parse("hearth.test").expect("a server name"),
            data_dir: data_dir.path().to_path_buf(),
            listeners: vec![Listener {
                bind: Bind::Tcp(([127, 0, 0, 1], 0).into()),
                resources: Resource::ALL.to_vec(),
                ..Listener::default()
            }],
            ..Settings::default()
        };
        if let Backend::Postgres(schema) = &backend {
            settings.database.url = Some(Database::postgres(schema.url()));
        }
        settings.database.threads = Some(2);
        settings.registration.enabled = true;
        settings.rate_limits.enabled = false;
        adjust(&mut settings);

        let running = Homeserver::start(&settings, time.clone()).await.expect("the server starts");
        let target = target(&running);
        Self { running: Some(running), settings, target, time, _data_dir: data_dir }
    }

    /// Where the first listener listens.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The server's name in the federation.
    pub fn name(&self) -> &str {
        self.settings.server_name.as_str()
    }

    /// The running server.
    pub fn running(&self) -> &Running {
        self.running.as_ref().expect("the server runs")
    }

    /// What the server was told.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Stops the server as SIGTERM does.
    pub async fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop().await;
        }
    }

    /// Stops the server and starts it again on the same data, at the same address.
    pub async fn restart(&mut self) {
        self.stop().await;
        if let (Target::Tcp(address), Some(listener)) = (&self.target, self.settings.listeners.first_mut()) {
            listener.bind = Bind::Tcp(*address);
        }
        let running = Homeserver::start(&self.settings, self.time.clone()).await.expect("the server starts again");
        self.target = target(&running);
        self.running = Some(running);
    }

    /// The same with other settings.
    pub async fn restart_with(&mut self, adjust: impl Fn(&mut Settings)) {
        adjust(&mut self.settings);
        self.restart().await;
    }

    /// A request of nobody.
    pub fn request(&self, method: &str, path: &str) -> Request {
        Request::new(&self.target, method, path)
    }

    /// `GET` without a token: status and body.
    pub async fn get(&self, path: &str) -> (u16, Value) {
        status_and_json(self.request("GET", path)).await
    }

    /// `POST` without a token: status and body.
    pub async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        status_and_json(self.request("POST", path).json(body)).await
    }

    /// Registers a user.
    pub async fn user(&self, localpart: &str) -> User {
        let path = "/_matrix/client/v3/register";
        let mut body = json!({ "username": localpart, "password": PASSWORD });
        let (status, challenge) = self.post(path, &body).await;
        assert_eq!(status, 401, "{challenge}");
        body["auth"] = json!({ "type": "m.login.dummy", "session": challenge["session"] });
        let (status, registered) = self.post(path, &body).await;
        assert_eq!(status, 200, "{registered}");
        self.session(&registered)
    }

    /// Another session of a user.
    pub async fn login(&self, user: &User) -> User {
        let identifier = json!({ "type": "m.id.user", "user": user.user_id });
        let body = json!({ "type": "m.login.password", "identifier": identifier, "password": PASSWORD });
        let (status, session) = self.post("/_matrix/client/v3/login", &body).await;
        assert_eq!(status, 200, "{session}");
        self.session(&session)
    }

    fn session(&self, answer: &Value) -> User {
        let text = |field: &str| answer[field].as_str().unwrap_or_else(|| panic!("{field} in {answer}")).to_owned();
        User {
            target: self.target.clone(),
            user_id: text("user_id"),
            access_token: text("access_token"),
            device_id: text("device_id"),
        }
    }
}

fn target(running: &Running) -> Target {
    match running.binds().first().expect("a listener") {
        Bind::Tcp(address) => Target::Tcp(*address),
        Bind::Unix(path) => Target::Unix(path.clone()),
    }
}
