//! The end of a session, for requests that wait: they hear of it at once, not at their timeout.
//!
//! A session has ended when its device is gone, or its account is locked or deactivated. That an access token was replaced by
//! a refresh ends nothing: the client goes on with the next one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hearth_store::{Change, DeviceNum, Store, StoreError, UserNum};
use tokio::sync::Notify;

use crate::{Accounts, AuthenticateError};

/// How many ends of sessions were heard of. What is asked after this moment knows of all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard(u64);

/// Who waits for the end of a user's sessions.
#[derive(Clone, Default)]
pub(crate) struct Ends {
    board: Arc<Board>,
}

#[derive(Default)]
struct Board {
    heard: AtomicU64,
    places: AtomicUsize,
    waiting: Mutex<HashMap<UserNum, Arc<Notify>>>,
}

impl Ends {
    pub(crate) fn new(store: &Store) -> Self {
        let ends = Self::default();
        let board = ends.board.clone();
        store.on_commit(move |announced| {
            for announced in announced {
                if let Change::Sessions { user } = announced.change {
                    board.heard.fetch_add(1, Ordering::SeqCst);
                    if let Some(notify) = board.waiting().get(&user) {
                        notify.notify_waiters();
                    }
                }
            }
        });
        ends
    }

    fn heard(&self) -> Heard {
        Heard(self.board.heard.load(Ordering::SeqCst))
    }

    fn wait_for(&self, user: UserNum) -> Place {
        self.board.places.fetch_add(1, Ordering::SeqCst);
        let notify = self.board.waiting().entry(user).or_default().clone();
        Place { board: self.board.clone(), user, notify }
    }
}

impl Board {
    fn waiting(&self) -> MutexGuard<'_, HashMap<UserNum, Arc<Notify>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place among those who wait; the last one who leaves takes the entry along.
struct Place {
    board: Arc<Board>,
    user: UserNum,
    notify: Arc<Notify>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.board.places.fetch_sub(1, Ordering::SeqCst);
        let mut waiting = self.board.waiting();
        // One of ours, one of the map's.
        if Arc::strong_count(&self.notify) <= 2 {
            waiting.remove(&self.user);
        }
    }
}

impl Accounts {
    /// To be asked for before a request is authenticated that will wait for [`Accounts::session_end`].
    pub fn heard(&self) -> Heard {
        self.inner.ends.heard()
    }

    /// How many requests wait for the end of their session.
    pub fn waiting(&self) -> usize {
        self.inner.ends.board.places.load(Ordering::SeqCst)
    }

    /// Returns when a session has ended that was good at a moment, with the reason; never, if it does not end.
    pub async fn session_end(&self, user: UserNum, device: Option<DeviceNum>, good_at: Heard) -> AuthenticateError {
        let place = self.inner.ends.wait_for(user);
        let mut checked = self.inner.ends.heard() == good_at;
        loop {
            let mut notified = std::pin::pin!(place.notify.notified());
            // From here on nothing is missed.
            notified.as_mut().enable();
            if !checked || self.inner.ends.heard() != good_at {
                match Box::pin(self.has_ended(user, device)).await {
                    Ok(None) => {}
                    Ok(Some(reason)) => return reason,
                    Err(error) => return error.into(),
                }
            }
            checked = true;
            notified.await;
        }
    }

    async fn has_ended(
        &self,
        user: UserNum,
        device: Option<DeviceNum>,
    ) -> Result<Option<AuthenticateError>, StoreError> {
        let unknown = AuthenticateError::Unknown { soft_logout: false };
        let read = self.store().read(move |tx| {
            let account = tx.accounts().by_num(user)?;
            let devices = if device.is_some() { tx.devices().list(user)? } else { Vec::new() };
            Ok((account, device.is_none_or(|device| devices.iter().any(|known| known.num == device))))
        });
        Ok(match read.await? {
            (None, _) | (_, false) => Some(unknown),
            (Some(account), true) if account.state.deactivated => Some(unknown),
            (Some(account), true) if account.state.locked => Some(AuthenticateError::Locked),
            (Some(_), true) => None,
        })
    }
}
