//! Sessions: whom an access token belongs to, and how sessions begin and end.
//!
//! A process that alone owns its database remembers sessions between requests. A memory is good as long as nothing was
//! announced of its user since the position at which it was read; so a revoked token is gone with the commit that revokes it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use hearth_matrix::ruma::{OwnedDeviceId, OwnedUserId, UserId};
use hearth_store::{
    Change, DeviceNum, IssuedTokens, LockState, Noun, Position, Session, Store, StoreError, TokenHash, UserKind,
    UserNum,
};
use quick_cache::sync::Cache;

use crate::housekeeping::LastSeen;
use crate::secrets::{self, Secret, token_hash};
use crate::{Accounts, usernames};

/// Longest access token that we look at; ours are shorter.
const TOKEN_BYTES: usize = 512;
/// Sessions remembered at most.
const REMEMBERED: usize = 50_000;
/// Users whose last change is remembered one by one; beyond that, all sessions are looked at anew.
const CHANGED_USERS: usize = 50_000;

/// Whom an access token belongs to.
#[derive(Clone, Debug)]
pub struct Authenticated {
    /// The user's id.
    pub user_id: OwnedUserId,
    /// The user's number.
    pub user: UserNum,
    /// The session's device; an application service has none.
    pub device_id: Option<OwnedDeviceId>,
    /// The device's number.
    pub device: Option<DeviceNum>,
    /// A guest account.
    pub is_guest: bool,
    /// A server administrator.
    pub is_admin: bool,
    /// An administrator lets the user only look.
    pub is_suspended: bool,
}

/// Why an access token opens nothing.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticateError {
    /// Nobody's token.
    #[error("unknown access token")]
    Unknown {
        /// The session lives on: the client should refresh its token, not forget its keys.
        soft_logout: bool,
    },
    /// An administrator has locked the account.
    #[error("the account is locked")]
    Locked,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What a client gets when it has signed in.
#[derive(Clone, Debug)]
pub struct SignedIn {
    /// The user.
    pub user_id: OwnedUserId,
    /// The device.
    pub device_id: OwnedDeviceId,
    /// Opens everything.
    pub access_token: Secret,
    /// Gets another access token.
    pub refresh_token: Option<Secret>,
    /// For how long the access token is good.
    pub expires_in_ms: Option<i64>,
}

impl Accounts {
    /// Finds whom an access token belongs to.
    pub async fn authenticate(&self, token: &str) -> Result<Authenticated, AuthenticateError> {
        let known = self.session(token).await?;
        if known.state.locked {
            return Err(AuthenticateError::Locked);
        }
        Ok(known.authenticated.clone())
    }

    /// The same for endpoints that a locked account may still use: those that end its sessions.
    pub async fn authenticate_even_locked(&self, token: &str) -> Result<Authenticated, AuthenticateError> {
        Ok(self.session(token).await?.authenticated.clone())
    }

    async fn session(&self, token: &str) -> Result<Arc<Known>, AuthenticateError> {
        let unknown = AuthenticateError::Unknown { soft_logout: false };
        if token.len() > TOKEN_BYTES {
            return Err(unknown);
        }
        let hash = token_hash(token);
        let known = match self.inner.sessions.remembered(&hash) {
            Some(known) => known,
            None => self.read_session(hash).await?.ok_or(unknown)?,
        };
        if known.expires_ts.is_some_and(|at| at <= self.now_ms()) {
            return Err(AuthenticateError::Unknown { soft_logout: true });
        }
        Ok(known)
    }

    async fn read_session(&self, hash: TokenHash) -> Result<Option<Arc<Known>>, StoreError> {
        let read = self.store().read(move |tx| Ok(tx.tokens().session(&hash)?.zip(Some(tx.position()?)))).await?;
        let Some((session, position)) = read.filter(|(session, _)| !session.state.deactivated) else {
            return Ok(None);
        };
        if session.fresh {
            self.confirm_refresh(hash, &session).await?;
        }
        let known = Arc::new(Known::new(session, position)?);
        self.inner.sessions.remember(hash, known.clone());
        Ok(Some(known))
    }

    /// The first use of an access token that a refresh made: what it replaced is spent.
    async fn confirm_refresh(&self, hash: TokenHash, session: &Session) -> Result<(), StoreError> {
        let Some(device) = session.device else { return Ok(()) };
        let user = session.user;
        let confirm = self.store().write(vec![Noun::User(user)], move |tx| match tx.tokens().refresh_of(&hash)? {
            Some(refresh) => tx.tokens().confirm_refresh(user, device, &refresh),
            None => Ok(()),
        });
        confirm.await
    }

    /// Ends a session: its device goes.
    pub async fn logout(&self, user: UserNum, device: DeviceNum) -> Result<(), StoreError> {
        self.store().write(vec![Noun::User(user)], move |tx| tx.devices().delete(user, device)).await
    }

    /// Ends all sessions of a user.
    pub async fn logout_all(&self, user: UserNum) -> Result<(), StoreError> {
        self.store().write(vec![Noun::User(user)], move |tx| tx.devices().delete_all_but(user, None)).await
    }

    /// The local user that a login names, if there is one.
    pub(crate) async fn find(&self, user: &str) -> Result<Option<(OwnedUserId, hearth_store::Account)>, StoreError> {
        let meant = usernames::meant_user_ids(user, &self.config().server_name);
        let read = self.store().read(move |tx| {
            for user_id in &meant {
                if let Some(account) = tx.accounts().by_id(user_id)? {
                    return Ok(Some((user_id.clone(), account)));
                }
            }
            Ok(None)
        });
        let Some((user_id, account)) = read.await? else { return Ok(None) };
        Ok(Some((parse_user_id(&user_id)?, account)))
    }

    /// New tokens, not written down yet.
    pub(crate) fn mint(&self, with_refresh: bool) -> Minted {
        let now_ms = self.now_ms();
        let lifetime_ms = self.config().access_token_lifetime_ms;
        let access = secrets::token("ha_");
        let refresh = with_refresh.then(|| secrets::token("hr_"));
        let tokens = IssuedTokens {
            access: access.token_hash(),
            refresh: refresh.as_ref().map(Secret::token_hash),
            expires_ts: with_refresh.then_some(now_ms + lifetime_ms),
            created_ts: now_ms,
        };
        Minted { access, refresh, tokens, expires_in_ms: with_refresh.then_some(lifetime_ms) }
    }
}

/// Tokens as their client gets them, and as the store does.
pub(crate) struct Minted {
    pub(crate) access: Secret,
    pub(crate) refresh: Option<Secret>,
    pub(crate) tokens: IssuedTokens,
    pub(crate) expires_in_ms: Option<i64>,
}

impl Minted {
    pub(crate) fn signed_in(self, user_id: OwnedUserId, device_id: &str) -> SignedIn {
        SignedIn {
            user_id,
            device_id: device_id.into(),
            access_token: self.access,
            refresh_token: self.refresh,
            expires_in_ms: self.expires_in_ms,
        }
    }
}

pub(crate) fn parse_user_id(user_id: &str) -> Result<OwnedUserId, StoreError> {
    UserId::parse(user_id).map_err(|error| StoreError::Damaged(format!("user id {user_id:?}: {error}")))
}

/// What is remembered of a session.
struct Known {
    authenticated: Authenticated,
    state: LockState,
    expires_ts: Option<i64>,
    read_at: Position,
}

impl Known {
    fn new(session: Session, read_at: Position) -> Result<Self, StoreError> {
        let authenticated = Authenticated {
            user_id: parse_user_id(&session.user_id)?,
            user: session.user,
            device_id: session.device_id.map(Into::into),
            device: session.device,
            is_guest: session.kind == UserKind::Guest,
            is_admin: session.admin,
            is_suspended: session.state.suspended,
        };
        Ok(Self { authenticated, state: session.state, expires_ts: session.expires_ts, read_at })
    }
}

/// Sessions remembered between requests.
pub(crate) struct Sessions {
    memory: Option<Arc<Memory>>,
    pub(crate) last_seen: Mutex<LastSeen>,
}

struct Memory {
    known: Cache<TokenHash, Arc<Known>>,
    changed: Mutex<Changed>,
}

struct Changed {
    users: HashMap<UserNum, Position>,
    /// Whatever was read before is not trusted.
    floor: Position,
}

impl Sessions {
    pub(crate) fn new(store: &Store, sole_owner: bool) -> Self {
        if !sole_owner {
            return Self { memory: None, last_seen: Mutex::default() };
        }
        let changed = Changed { users: HashMap::new(), floor: Position(0) };
        let memory = Arc::new(Memory { known: Cache::new(REMEMBERED), changed: Mutex::new(changed) });
        let listener = memory.clone();
        store.on_commit(move |announced| {
            for announced in announced {
                if let Change::Sessions { user } = announced.change {
                    listener.forget(user, announced.position);
                }
            }
        });
        Self { memory: Some(memory), last_seen: Mutex::default() }
    }

    fn remembered(&self, hash: &TokenHash) -> Option<Arc<Known>> {
        let memory = self.memory.as_ref()?;
        memory.known.get(hash).filter(|known| memory.is_current(known))
    }

    fn remember(&self, hash: TokenHash, known: Arc<Known>) {
        if let Some(memory) = &self.memory {
            memory.known.insert(hash, known);
        }
    }
}

impl Memory {
    fn forget(&self, user: UserNum, position: Position) {
        let mut changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        if changed.users.len() >= CHANGED_USERS {
            changed.users.clear();
            changed.floor = position;
        }
        changed.users.insert(user, position);
    }

    fn is_current(&self, known: &Known) -> bool {
        let changed = self.changed.lock().unwrap_or_else(PoisonError::into_inner);
        let last = changed.users.get(&known.authenticated.user).copied();
        known.read_at >= changed.floor && last.is_none_or(|last| known.read_at >= last)
    }
}
