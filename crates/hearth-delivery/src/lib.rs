//! What is sent until it arrives: federation transactions to other servers.
//!
//! Each server has a position on the clock up to which it has everything (`deliveries`); what it lacks is found from there, so that
//! an event costs nothing per server when it is sent. A server has a task only while it lacks something and answers; those that
//! don't answer wait in one list for their time, or for a sign of life.
//! Spec: server-server API, "Transactions", "EDUs".

mod board;
mod destination;
mod edus;
mod presence;
mod status;
mod transaction;

use std::sync::Arc;

use hearth_matrix::ruma::{OwnedServerName, ServerName, UserId};
use hearth_remote::Remote;
use hearth_room::Typing;
use hearth_store::{Announced, Change, Membership, Store, WallTime};
use hearth_user::presence::Presence;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use crate::board::Task;
use crate::board::{Board, Newcomer};
pub use crate::status::{Behind, Lag, Status};

/// Servers that something is sent to at once.
const SENDING: usize = 256;
/// Servers that did not answer before and are tried again at once.
const TRYING: usize = 64;

/// Delivery to other servers. Cheap to clone.
#[derive(Clone)]
pub struct Delivery {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    remote: Remote,
    typing: Typing,
    presence: Presence,
    time: WallTime,
    own: OwnedServerName,
    board: Board,
    sending: Semaphore,
    trying: Semaphore,
}

impl Delivery {
    /// Over a store of which nobody has made use yet: from now on every change is heard of.
    pub fn new(store: Store, remote: Remote, typing: Typing, presence: Presence, time: WallTime) -> Self {
        let own = remote.server_name().to_owned();
        let board = Board::default();
        let (sending, trying) = (Semaphore::new(SENDING), Semaphore::new(TRYING));
        let inner = Arc::new(Inner { store, remote, typing, presence, time, own, board, sending, trying });
        inner.listen();
        Self { inner }
    }

    /// Delivers until it is dropped. What is under way then is sent again at the next start.
    pub async fn run(self) {
        let mut tasks = JoinSet::new();
        self.take_up().await;
        loop {
            for server in self.inner.board.take_starting() {
                let inner = Arc::clone(&self.inner);
                tasks.spawn(async move { destination::run(&inner, server).await });
            }
            let presence = self.inner.board.take_presence();
            if !presence.is_empty() {
                // Beside the events, which must not wait for it.
                let inner = Arc::clone(&self.inner);
                tasks.spawn(async move {
                    if let Err(error) = inner.tell_presence(presence).await {
                        tracing::warn!(%error, "whom to tell of presence can't be found");
                    }
                });
            }
            let newcomers = self.inner.board.take_newcomers(self.inner.time.now_ms());
            if !newcomers.is_empty() {
                let inner = Arc::clone(&self.inner);
                tasks.spawn(async move {
                    if let Err(error) = inner.greet(newcomers).await {
                        tracing::warn!(%error, "who has come into rooms can't be told of presence");
                    }
                });
            }
            tokio::select! {
                () = self.inner.board.wait(&self.inner.time) => {}
                Some(_) = tasks.join_next(), if !tasks.is_empty() => continue,
            }
            if let Err(error) = self.inner.distribute().await {
                // Who had news is not known any more: everybody is looked at.
                tracing::error!(%error, "news for other servers can't be handed out");
                tokio::time::sleep(board::PAUSE_AFTER_FAILURE).await;
                self.take_up().await;
            }
        }
    }

    async fn take_up(&self) {
        while let Err(error) = self.inner.take_up().await {
            tracing::error!(%error, "what other servers lack can't be found");
            tokio::time::sleep(board::PAUSE_AFTER_FAILURE).await;
        }
    }
}

impl Inner {
    fn listen(self: &Arc<Self>) {
        let listening = Arc::downgrade(self);
        self.store.on_commit(move |announced| {
            if let Some(inner) = listening.upgrade() {
                inner.hear(announced);
            }
        });
        let listening = Arc::downgrade(self);
        self.typing.on_change(move |room| {
            if let Some(inner) = listening.upgrade() {
                inner.board.typing(room);
            }
        });
        let listening = Arc::downgrade(self);
        self.presence.on_change(move |user| {
            if let Some(inner) = listening.upgrade() {
                inner.board.presence(user);
            }
        });
        let listening = Arc::downgrade(self);
        self.remote.on_life(move |server| {
            if let Some(inner) = listening.upgrade() {
                inner.board.lives(server, inner.time.now_ms());
            }
        });
    }

    /// Runs on the committing thread.
    fn hear(&self, announced: &[Announced]) {
        for Announced { change, position } in announced {
            match change {
                Change::Event(event) => {
                    if let Some((user, before, Membership::Join)) = event.membership
                        && before != Some(Membership::Join)
                    {
                        let newcomer = Newcomer { room: event.room, user, position: *position };
                        self.board.newcomer(newcomer, self.time.now_ms());
                    }
                    if event.outbound {
                        let target = event.membership.and(event.pdu.state_key.as_deref());
                        let target =
                            target.and_then(|target| <&UserId>::try_from(target).ok()).map(UserId::server_name);
                        self.board.event(event.room, target.filter(|server| !self.is_own(server)));
                    }
                }
                Change::MemberDecided(decision) if decision.after == Membership::Join => {
                    let newcomer = Newcomer { room: decision.room, user: decision.user, position: *position };
                    self.board.newcomer(newcomer, self.time.now_ms());
                }
                Change::Receipt { room, private: false, receipt, .. } => {
                    let user = <&UserId>::try_from(&*receipt.user_id);
                    if user.is_ok_and(|user| self.is_own(user.server_name())) {
                        self.board.event(*room, None);
                    }
                }
                _ => {}
            }
        }
    }

    fn is_own(&self, server: &ServerName) -> bool {
        *server == self.own
    }

    /// Whether a server is one that we send to.
    fn is_served(&self, server: &ServerName) -> bool {
        !self.is_own(server) && self.remote.may_talk_with(server)
    }
}
