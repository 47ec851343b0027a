//! `/sync` version 3: one answer over all streams, now or as soon as there is something to tell.
//!
//! Who is close behind is served from the window of recent changes ([`from_window`]), all others from the store
//! ([`from_store`]). A client that waits costs a place in the hub.
//! Spec: client-server API, "Syncing".

mod from_store;
mod from_window;
pub(crate) mod write;

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::ruma::OwnedUserId;
use hearth_store::{DeviceNum, Position, StoreError, UserNum};
use hearth_user::presence::SetPresence;
use tokio::time::Instant;

use crate::client_event::Reader;
use crate::filter::Filter;
use crate::hub::{News, Standing};
use crate::{SyncToken, Syncs};

/// The longest that a client waits.
const LONGEST: Duration = Duration::from_secs(300);

/// Who syncs, from where, and what he wants to hear of.
#[derive(Clone, Debug)]
pub struct SyncRequest {
    /// The user's number.
    pub user: UserNum,
    /// The user's id.
    pub user_id: OwnedUserId,
    /// The session's device.
    pub device: Option<DeviceNum>,
    /// Where the client stands; none if it knows nothing.
    pub since: Option<SyncToken>,
    /// What passes.
    pub filter: Arc<Filter>,
    /// All state, also what the client knows.
    pub full_state: bool,
    /// State at the end of the timelines, under this name.
    pub state_after: Option<&'static str>,
    /// How long to wait for something to tell.
    pub timeout: Duration,
    /// What it says of the user that he syncs.
    pub set_presence: SetPresence,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An answer, and where the client stands with it.
struct Answer {
    json: String,
    upto: Position,
    counters: Counters,
    empty: bool,
}

/// What has no position and is in an answer up to here.
#[derive(Clone, Copy)]
struct Counters {
    typing: i64,
    presence: i64,
}

impl Syncs {
    /// Answers a client: a JSON object. Returns early if `stop` does.
    pub async fn sync(&self, request: SyncRequest, stop: impl Future<Output = ()>) -> Result<String, SyncError> {
        // On the heap: what waits shall be small.
        let request = Box::new(request);
        let SyncRequest { user, user_id, device, set_presence, .. } = &*request;
        let _syncing = Box::pin(self.inner.presence.begin_sync(*user, user_id, *device, *set_presence)).await?;
        let at_once = request.since.is_none() || request.full_state || request.timeout.is_zero();
        let deadline = Instant::now() + request.timeout.min(LONGEST);
        let mut stop = std::pin::pin!(stop);
        let mut checked = request.since.map_or(Position(0), |since| since.position);
        let mut spins = 0;
        loop {
            let answer = Box::pin(self.answer(&request, checked)).await?;
            if !answer.empty || at_once {
                return Ok(answer.json);
            }
            let Answer { json, upto, counters, .. } = answer;
            let presence = request.filter.wants_presence().then_some(counters.presence);
            let Some(waiting) = self.inner.hub.wait(request.user, upto, presence) else {
                // Something happened this moment, or too much for the window: look again.
                drop(json);
                spins += 1;
                if spins > 3 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                if Instant::now() >= deadline {
                    return Ok(write::nothing(self.token(upto, counters)));
                }
                continue;
            };
            drop(json);
            spins = 0;
            if self.inner.typing.changed_since(Some(counters.typing)).0 == counters.typing {
                let over = tokio::select! {
                    () = waiting.notified() => false,
                    () = tokio::time::sleep_until(deadline) => true,
                    () = &mut stop => true,
                };
                if over {
                    let upto = waiting.end().max(upto);
                    return Ok(write::nothing(self.token(upto, counters)));
                }
            }
            checked = waiting.end().max(upto);
        }
    }

    /// What there is to tell now. Nothing concerned the user in `since < position <= checked`.
    async fn answer(&self, request: &SyncRequest, checked: Position) -> Result<Answer, SyncError> {
        let (typing, changed) = self.typing_since(request.since);
        let presence = request.filter.wants_presence().then(|| self.presence_since(request.since));
        if let Some(since) = request.since
            && !request.full_state
        {
            match self.inner.hub.news(request.user, checked, &changed, presence) {
                News::Nothing(upto, presence) => {
                    let counters = Counters { typing, presence };
                    let json = write::nothing(self.token(upto, counters));
                    return Ok(Answer { json, upto, counters, empty: true });
                }
                News::AskStore => {}
                News::Rooms(news) => {
                    let upto = news.upto;
                    let counters = Counters { typing, presence: news.presence.upto };
                    let token = self.token(upto, counters);
                    let reader = self.reader(request);
                    let window =
                        from_window::Window { request, reader, since: since.position, token, typing: &changed };
                    if let Some((json, empty)) = window.answer(&self.inner.lazy, &news) {
                        return Ok(Answer { json, upto, counters, empty });
                    }
                }
            }
        }
        self.ask_store(request, typing, changed).await
    }

    async fn ask_store(
        &self,
        request: &SyncRequest,
        typing: i64,
        changed: Vec<hearth_room::TypingInRoom>,
    ) -> Result<Answer, SyncError> {
        let (syncs, wanted, reader) = (self.clone(), request.clone(), self.reader(request));
        let read = self.inner.store.read(move |tx| {
            let question = from_store::Question { request: &wanted, reader: &reader, typing: &changed, syncs: &syncs };
            question.answer(tx, typing)
        });
        let found = read.await?;
        self.inner.lazy.note(request.device, found.upto, &found.rooms_anew, &found.members);
        let standing = Standing { at: found.upto, rooms: found.stays, ignored: found.ignored };
        self.inner.hub.follow(request.user, standing);
        let counters = Counters { typing, presence: found.presence };
        Ok(Answer { json: found.json, upto: found.upto, counters, empty: found.empty })
    }

    /// Rooms with typing notices that the client has not seen.
    fn typing_since(&self, since: Option<SyncToken>) -> (i64, Vec<hearth_room::TypingInRoom>) {
        let typing = &self.inner.typing;
        match since {
            Some(since) if since.start == typing.start() => typing.changed_since(Some(since.typing)),
            // Of another node or start: what is, and what lately ended.
            Some(_) => typing.changed_since(None),
            None => {
                let (counter, mut rooms) = typing.changed_since(None);
                rooms.retain(|room| !room.users.is_empty());
                (counter, rooms)
            }
        }
    }

    /// Up to which counter a client was told of presence. One of another node or start gets all that is remembered.
    fn presence_since(&self, since: Option<SyncToken>) -> i64 {
        since.filter(|since| since.start == self.inner.typing.start()).map_or(0, |since| since.presence)
    }

    fn token(&self, position: Position, counters: Counters) -> SyncToken {
        let Counters { typing, presence } = counters;
        SyncToken { position, start: self.inner.typing.start(), typing, presence }
    }

    /// A token for who hears neither of typing nor of presence.
    pub(crate) fn plain_token(&self, position: Position) -> SyncToken {
        self.token(position, Counters { typing: 0, presence: 0 })
    }

    fn reader(&self, request: &SyncRequest) -> Reader {
        Reader {
            user: request.user,
            user_id: request.user_id.clone(),
            device: request.device,
            now_ms: self.inner.time.now_ms(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use hearth_matrix::ruma::{owned_server_name, user_id};
    use hearth_room::Typing;
    use hearth_store::{DatabaseUrl, Store, StoreOptions, StringNum, WallTime};

    use hearth_user::presence::{Presence, SetPresence};

    use super::SyncRequest;
    use crate::{Filter, Syncs};

    /// Thousands of clients wait at any moment: what each of them holds has a limit.
    #[tokio::test]
    async fn what_waits_is_small() {
        let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.unwrap();
        let presence = Presence::new(true, store.clone(), WallTime::manual(0));
        let syncs = Syncs::new(owned_server_name!("x"), store, WallTime::manual(0), Typing::default(), presence);
        let request = SyncRequest {
            user: StringNum(1),
            user_id: user_id!("@a:x").to_owned(),
            device: None,
            since: None,
            filter: Arc::new(Filter::none()),
            full_state: false,
            state_after: None,
            timeout: Duration::ZERO,
            set_presence: SetPresence::default(),
        };
        let waiting = syncs.sync(request, std::future::pending());
        assert!(size_of_val(&waiting) < 1024, "{}", size_of_val(&waiting));
        assert!(waiting.await.unwrap().contains("next_batch"));
    }
}
