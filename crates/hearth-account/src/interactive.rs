//! User-interactive authentication: a request is carried out once the client has passed all stages of one flow.
//!
//! Spec: client-server API, "User-Interactive Authentication API". Sessions live in the store, bound to the request that
//! began them; a client that knows what to say passes without a session. A session is used up by the request it lets through.

mod fallback;

pub use fallback::FallbackOutcome;

use std::collections::BTreeMap;

use hearth_matrix::ruma::UserId;
use hearth_store::{Interactive, StoreError};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use crate::passwords::PasswordError;
use crate::{Accounts, Authenticated, Secret, secrets};

/// How long a client may take to its next step.
const SESSION_LIFETIME_MS: i64 = 60 * 60 * 1000;
/// Longest session id that we look for; ours are shorter.
const SESSION_ID_BYTES: usize = 128;

/// A stage of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Stage {
    /// The user's password.
    #[serde(rename = "m.login.password")]
    Password,
    /// Nothing but the wish.
    #[serde(rename = "m.login.dummy")]
    Dummy,
    /// A registration token.
    #[serde(rename = "m.login.registration_token")]
    RegistrationToken,
    /// Acceptance of documents.
    #[serde(rename = "m.login.terms")]
    Terms,
}

impl Stage {
    /// Its name in the specification.
    pub fn name(self) -> &'static str {
        match self {
            Self::Password => "m.login.password",
            Self::Dummy => "m.login.dummy",
            Self::RegistrationToken => "m.login.registration_token",
            Self::Terms => "m.login.terms",
        }
    }

    /// The stage of that name, if we have it.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Password, Self::Dummy, Self::RegistrationToken, Self::Terms]
            .into_iter()
            .find(|stage| stage.name() == name)
    }
}

/// One try to carry out a request: the request, and what the client says for itself.
pub struct Attempt {
    request: [u8; 32],
    auth: Option<Map<String, Value>>,
}

impl Attempt {
    /// Of a request by method, path, user and body without its `auth`: nothing of these may change within a session. Whoever
    /// leaves the body out lets the client change it.
    pub fn new(
        method: &str,
        path: &str,
        user_id: Option<&UserId>,
        body: &Map<String, Value>,
        auth: Option<Map<String, Value>>,
    ) -> Self {
        let user_id = user_id.map_or("", UserId::as_str);
        let body = serde_json::to_string(body).unwrap_or_default();
        let mut hash = Sha256::new();
        for part in [method, path, user_id, &body] {
            hash.update(part.len().to_be_bytes());
            hash.update(part);
        }
        Self { request: hash.finalize().into(), auth }
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.auth.as_ref()?.get(key)?.as_str()
    }
}

/// What the client has to do next: the body of a 401.
#[derive(Clone, Debug, PartialEq)]
pub struct Challenge {
    /// To be given with the next try.
    pub session: String,
    /// Stages in order, one list a flow.
    pub flows: Vec<Vec<Stage>>,
    /// Stages that are passed.
    pub completed: Vec<Stage>,
    /// What stages need to be shown to the user.
    pub params: Map<String, Value>,
    /// What was wrong with this try: Matrix code and words.
    pub error: Option<(&'static str, String)>,
}

/// Why a request is not carried out yet, or not at all.
#[derive(Debug, thiserror::Error)]
pub enum InteractiveError {
    /// Stages are missing.
    #[error("interactive authentication required")]
    Required(Box<Challenge>),
    /// The session belongs to another request.
    #[error("the requested operation has changed during the authentication session")]
    OtherRequest,
    /// The stage was passed by another user.
    #[error("another user authenticated")]
    OtherUser,
    /// What the client says lacks something.
    #[error("missing {0} in auth")]
    Missing(&'static str),
    /// Password hashing refused.
    #[error(transparent)]
    Password(#[from] PasswordError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Stages passed, with what came of them.
pub(crate) type Passed = BTreeMap<Stage, String>;

/// What a session remembers.
#[derive(Clone, Default, Serialize, Deserialize)]
struct Progress {
    flows: Vec<Vec<Stage>>,
    completed: Vec<(Stage, String)>,
}

impl Progress {
    fn stages(&self) -> Vec<Stage> {
        self.completed.iter().map(|(stage, _)| *stage).collect()
    }

    /// Whether the stage is the next of a flow.
    fn is_next(&self, stage: Stage) -> bool {
        let done = self.stages();
        self.flows.iter().any(|flow| flow.starts_with(&done) && flow.get(done.len()) == Some(&stage))
    }

    fn is_complete(&self) -> bool {
        let done = self.stages();
        self.flows.contains(&done)
    }

    fn parse(stored: &Interactive) -> Result<Self, StoreError> {
        serde_json::from_str(&stored.completed)
            .map_err(|error| StoreError::Damaged(format!("interactive session: {error}")))
    }
}

/// A stage failed, in a way that the client may try again.
struct Retry(&'static str, String);

impl Accounts {
    /// Lets a request of a signed-in user through once he has shown his password.
    pub(crate) async fn ask_password(&self, attempt: &Attempt, owner: &Authenticated) -> Result<(), InteractiveError> {
        self.pass(attempt, vec![vec![Stage::Password]], Map::new(), Some(owner.user_id.as_str())).await?;
        Ok(())
    }

    /// Lets a request through once the user has shown his password; or at once, if it replaces nothing that was there: the
    /// first cross-signing keys of an account need no password.
    pub async fn confirm_replacing(
        &self,
        attempt: &Attempt,
        owner: &Authenticated,
        replaces: bool,
    ) -> Result<(), InteractiveError> {
        if replaces { self.ask_password(attempt, owner).await } else { Ok(()) }
    }

    /// Lets a request through, or says what is missing. `owner` is the user who must be the one that shows a password.
    pub(crate) async fn pass(
        &self,
        attempt: &Attempt,
        flows: Vec<Vec<Stage>>,
        params: Map<String, Value>,
        owner: Option<&str>,
    ) -> Result<Passed, InteractiveError> {
        let (stage, session) = (attempt.text("type"), attempt.text("session"));
        let mut progress = Progress { flows, completed: Vec::new() };
        let mut error = None;
        let mut known_session = None;
        if let Some(id) = session {
            match self.known_session(id).await? {
                Some(stored) if stored.request != attempt.request => return Err(InteractiveError::OtherRequest),
                Some(stored) => {
                    progress.completed = Progress::parse(&stored)?.completed;
                    known_session = Some(id.to_owned());
                }
                None => error = Some(unknown_session()),
            }
        }

        if let (Some(name), None) = (stage, &error) {
            error = match self.try_stage(name, attempt, &progress, owner).await? {
                Ok(Some(done)) => {
                    progress.completed.push(done);
                    None
                }
                Ok(None) => None,
                Err(Retry(code, words)) => Some((code, words)),
            };
        }
        if error.is_none() && progress.is_complete() {
            if self.use_up(known_session.as_deref()).await? {
                return passed(progress, owner);
            }
            // It let another request through meanwhile; what was passed is spent.
            progress.completed.clear();
            known_session = None;
            error = Some(unknown_session());
        }
        let session = known_session.unwrap_or_else(secrets::session_id);
        self.keep(&session, attempt, &progress).await?;
        let (completed, flows) = (progress.stages(), progress.flows);
        Err(InteractiveError::Required(Box::new(Challenge { session, flows, completed, params, error })))
    }

    /// Tries one stage. `None` if it was passed before: stages are not repeated.
    async fn try_stage(
        &self,
        name: &str,
        attempt: &Attempt,
        progress: &Progress,
        owner: Option<&str>,
    ) -> Result<Result<Option<(Stage, String)>, Retry>, InteractiveError> {
        let stage = Stage::from_name(name);
        if stage.is_some_and(|stage| progress.stages().contains(&stage)) {
            return Ok(Ok(None));
        }
        let Some(stage) = stage.filter(|stage| progress.is_next(*stage)) else {
            return Ok(Err(Retry("M_FORBIDDEN", "This stage is not offered now".to_owned())));
        };
        let outcome = match stage {
            Stage::Dummy | Stage::Terms => Ok(String::new()),
            Stage::RegistrationToken => {
                let token = attempt.text("token").ok_or(InteractiveError::Missing("token"))?;
                self.try_registration_token(token).await?
            }
            Stage::Password => {
                let user = password_user(attempt).ok_or(InteractiveError::Missing("identifier"))?;
                let password = attempt.text("password").ok_or(InteractiveError::Missing("password"))?;
                self.try_password(user, password, owner).await?
            }
        };
        Ok(outcome.map(|outcome| Some((stage, outcome))))
    }

    async fn try_registration_token(&self, token: &str) -> Result<Result<String, Retry>, InteractiveError> {
        if self.is_registration_token_valid(token).await? {
            return Ok(Ok(token.to_owned()));
        }
        Ok(Err(Retry("M_FORBIDDEN", "The registration token is not valid".to_owned())))
    }

    async fn try_password(
        &self,
        user: &str,
        password: &str,
        owner: Option<&str>,
    ) -> Result<Result<String, Retry>, InteractiveError> {
        let found = self.find(user).await?;
        let user_id = found.as_ref().map(|(user_id, _)| user_id.to_string());
        if owner.is_some_and(|owner| user_id.as_deref() != Some(owner)) {
            return Err(InteractiveError::OtherUser);
        }
        let hash = found.and_then(|(_, account)| account.password_hash);
        if self.inner.passwords.verify(&Secret::new(password), hash).await? {
            return Ok(Ok(user_id.unwrap_or_default()));
        }
        Ok(Err(Retry("M_FORBIDDEN", "Invalid password".to_owned())))
    }

    async fn known_session(&self, id: &str) -> Result<Option<Interactive>, StoreError> {
        if id.len() > SESSION_ID_BYTES {
            return Ok(None);
        }
        let (id, now_ms) = (id.to_owned(), self.now_ms());
        self.store().read(move |tx| tx.interactive().get(&id, now_ms)).await
    }

    /// A session lets one request through; `false` if another was faster.
    async fn use_up(&self, session: Option<&str>) -> Result<bool, StoreError> {
        let Some(session) = session.map(str::to_owned) else { return Ok(true) };
        self.store().write(Vec::new(), move |tx| tx.interactive().take(&session)).await
    }

    async fn keep(&self, session: &str, attempt: &Attempt, progress: &Progress) -> Result<(), StoreError> {
        let stored = Interactive {
            request: attempt.request.to_vec(),
            completed: serde_json::to_string(progress).unwrap_or_default(),
            expires_ts: self.now_ms() + SESSION_LIFETIME_MS,
        };
        let session = session.to_owned();
        self.store().write(Vec::new(), move |tx| tx.interactive().put(&session, &stored)).await
    }
}

fn unknown_session() -> (&'static str, String) {
    ("M_UNKNOWN", "The session is unknown or has expired".to_owned())
}

/// A password that was shown elsewhere (on a fallback page) must be its owner's, too.
fn passed(progress: Progress, owner: Option<&str>) -> Result<Passed, InteractiveError> {
    let passed: Passed = progress.completed.into_iter().collect();
    match (owner, passed.get(&Stage::Password)) {
        (Some(owner), Some(user_id)) if owner != user_id => Err(InteractiveError::OtherUser),
        _ => Ok(passed),
    }
}

/// The user that a password stage names: `identifier`, or the deprecated `user`.
fn password_user(attempt: &Attempt) -> Option<&str> {
    let auth = attempt.auth.as_ref()?;
    match auth.get("identifier") {
        Some(identifier) => identifier.get("user")?.as_str(),
        None => auth.get("user")?.as_str(),
    }
}
