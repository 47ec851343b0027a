//! A room's turn: one writer per room at a time, who takes everything that is ready for the room as one batch.
//!
//! Callers submit work and wait for its outcome. The turn waits for nothing but the store; what comes meanwhile is the next
//! batch.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId, RoomId};
use hearth_store::{DeviceNum, Noun, Store, StoreError, Tx};
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;

use crate::append::{Appender, Decision, PREV_EVENTS, Submission};
use crate::chance::Chance;
use crate::inbound::{Arrival, Verdict};
use crate::policy::Unsigned;
use crate::{RoomError, RoomsConfig};

/// Work taken at once, so that a closure stays short. A work of remote events may be 20 of them.
const BATCH: usize = 64;
/// Work that may wait for one room.
const QUEUE: usize = 4096;

/// What a plan wants done, decided on the room's present state.
pub(crate) enum Step {
    /// Make this event, in this sender's name.
    Send(OwnedUserId, hearth_matrix::Draft),
    /// It is as it should be already.
    Nothing,
    /// This event stands already.
    Stands(OwnedEventId),
    /// Remote events were judged.
    Judged(Judgement),
}

/// What became of remote events.
#[derive(Debug, Default)]
pub(crate) struct Judgement {
    /// Of each, in their order.
    pub(crate) verdicts: Vec<Verdict>,
    /// The room has more branches than one event may name.
    pub(crate) is_crowded: bool,
    /// Events were staged that are to be judged anew.
    pub(crate) has_staged: bool,
}

/// Decides on the room's present state what is to be done. May run more than once.
pub(crate) type Plan = Box<dyn Fn(&mut Appender<'_, '_>) -> Decision<Step> + Send + Sync>;

type SharedPlan = Arc<dyn Fn(&mut Appender<'_, '_>) -> Decision<Step> + Send + Sync>;

/// Something to be done in a room.
#[derive(Clone)]
pub(crate) struct Work {
    pub(crate) plan: SharedPlan,
    pub(crate) txn: Option<(DeviceNum, Arc<str>)>,
    /// Now, milliseconds since the epoch.
    pub(crate) ts: i64,
    /// The event id's own part in room versions 1 and 2; given when the work is submitted.
    opaque: String,
}

impl Work {
    pub(crate) fn new(ts: i64, txn: Option<(DeviceNum, Arc<str>)>, plan: Plan) -> Self {
        Self { plan: plan.into(), txn, ts, opaque: String::new() }
    }
}

/// What came of a work.
pub(crate) enum Done {
    /// This event, or the one that stood already.
    Event(OwnedEventId),
    /// There was nothing to do.
    Nothing,
    /// Remote events were judged.
    Judged(Judgement),
    /// Nothing, as the room's policy server is to be asked first.
    Unsigned(Unsigned),
}

pub(crate) type Outcome = Result<Done, RoomError>;

type Waiting = (Work, oneshot::Sender<Outcome>);

/// The turns of all rooms.
pub(crate) struct Turns {
    store: Store,
    config: Arc<RoomsConfig>,
    chance: Arc<Chance>,
    /// A room has an entry while somebody is at work there.
    queues: Arc<Mutex<FxHashMap<OwnedRoomId, VecDeque<Waiting>>>>,
}

impl Turns {
    pub(crate) fn new(store: Store, config: Arc<RoomsConfig>, chance: Arc<Chance>) -> Self {
        Self { store, config, chance, queues: Arc::default() }
    }

    /// Judges remote events, in this order, in one commit with all that waits beside them.
    pub(crate) async fn judge(
        &self,
        room_id: &RoomId,
        ts: i64,
        arrivals: Vec<Arrival>,
    ) -> Result<Judgement, RoomError> {
        let plan = move |appender: &mut Appender<'_, '_>| {
            let verdicts =
                arrivals.iter().map(|arrival| appender.receive(arrival)).collect::<Result<_, StoreError>>()?;
            let is_crowded = appender.tip.extremities.len() > PREV_EVENTS;
            Ok(Ok(Step::Judged(Judgement { verdicts, is_crowded, has_staged: appender.has_staged })))
        };
        Ok(match self.done(room_id, Work::new(ts, None, Box::new(plan))).await? {
            Done::Judged(judgement) => judgement,
            Done::Event(_) | Done::Nothing | Done::Unsigned(_) => Judgement::default(),
        })
    }

    /// Does one work in a room, in one commit with all that waits beside it. Durable when it returns.
    pub(crate) async fn done(&self, room_id: &RoomId, mut work: Work) -> Outcome {
        work.opaque = self.chance.letters(18);
        let (done, outcome) = oneshot::channel();
        let idle = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            match queues.entry(room_id.to_owned()) {
                Entry::Occupied(mut queue) => {
                    if queue.get().len() >= QUEUE {
                        return Err(RoomError::Store("too much work waits for this room".into()));
                    }
                    queue.get_mut().push_back((work, done));
                    false
                }
                Entry::Vacant(queue) => {
                    queue.insert(VecDeque::from([(work, done)]));
                    true
                }
            }
        };
        if idle {
            let turn = Turn {
                store: self.store.clone(),
                config: self.config.clone(),
                queues: self.queues.clone(),
                room_id: room_id.to_owned(),
            };
            tokio::spawn(turn.run());
        }
        outcome.await.unwrap_or_else(|_| Err(RoomError::Store("the room's turn ended early".into())))
    }
}

struct Turn {
    store: Store,
    config: Arc<RoomsConfig>,
    queues: Arc<Mutex<FxHashMap<OwnedRoomId, VecDeque<Waiting>>>>,
    room_id: OwnedRoomId,
}

impl Turn {
    async fn run(self) {
        while let Some((works, callers)) = self.take() {
            let outcomes = self.work(works).await;
            match outcomes {
                Ok(outcomes) => {
                    for (caller, outcome) in callers.into_iter().zip(outcomes) {
                        // A caller who no longer listens has gone away; the event stands.
                        let _ = caller.send(outcome);
                    }
                }
                Err(error) => {
                    tracing::error!(room = %self.room_id, %error, "a room's batch failed");
                    for caller in callers {
                        let _ = caller.send(Err(RoomError::Store(error.to_string())));
                    }
                }
            }
        }
    }

    /// The next batch; none ends the turn.
    fn take(&self) -> Option<(Vec<Work>, Vec<oneshot::Sender<Outcome>>)> {
        let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.get_mut(&self.room_id)?;
        if queue.is_empty() {
            queues.remove(&self.room_id);
            return None;
        }
        let batch = queue.len().min(BATCH);
        Some(queue.drain(..batch).unzip())
    }

    /// Does a batch in one commit. If that fails, one work after the other: what fails alone must not take others along.
    async fn work(&self, works: Vec<Work>) -> Result<Vec<Outcome>, StoreError> {
        let works: Vec<Arc<Work>> = works.into_iter().map(Arc::new).collect();
        let error = match self.together(works.clone()).await {
            Err(error) if works.len() > 1 && !matches!(error, StoreError::Closed) => error,
            outcome => return outcome,
        };
        tracing::warn!(room = %self.room_id, %error, "a room's batch failed; its works are done one by one");
        let mut outcomes = Vec::with_capacity(works.len());
        for work in works {
            outcomes.push(match self.together(vec![work]).await {
                Ok(mut outcome) if outcome.len() == 1 => outcome.remove(0),
                Ok(_) => Err(RoomError::Store("a work had no outcome".into())),
                Err(error) => {
                    tracing::error!(room = %self.room_id, %error, "a work in a room failed");
                    Err(RoomError::Store(error.to_string()))
                }
            });
        }
        Ok(outcomes)
    }

    async fn together(&self, works: Vec<Arc<Work>>) -> Result<Vec<Outcome>, StoreError> {
        let room = match self.store.known_room(&self.room_id) {
            Some(room) => Some(room),
            None => {
                let room_id = self.room_id.clone();
                self.store.read(move |tx| Ok(tx.rooms().by_id(&room_id)?.map(|room| room.num))).await?
            }
        };
        let Some(room) = room else {
            return Ok(works.iter().map(|_| Err(RoomError::UnknownRoom)).collect());
        };
        let (room_id, config) = (self.room_id.clone(), self.config.clone());
        self.store.write(vec![Noun::Room(room)], move |tx| batch(tx, &room_id, &config, &works)).await
    }
}

/// One batch in one transaction. Replayable; decides before it writes.
fn batch(
    tx: &mut Tx<'_>,
    room_id: &RoomId,
    config: &RoomsConfig,
    works: &[Arc<Work>],
) -> Result<Vec<Outcome>, StoreError> {
    let Some(room) = tx.rooms().by_id(room_id)? else {
        return Ok(works.iter().map(|_| Err(RoomError::UnknownRoom)).collect());
    };
    let mut appender = Appender::at_tip(tx, room, config)?;
    let mut outcomes = Vec::with_capacity(works.len());
    for work in works {
        outcomes.push(one(&mut appender, work)?);
    }
    appender.write()?;
    Ok(outcomes)
}

fn one(appender: &mut Appender<'_, '_>, work: &Work) -> Result<Outcome, StoreError> {
    match (work.plan)(appender)? {
        Ok(Step::Send(_, draft)) if appender.policy_for(&draft)?.is_some() => {
            Ok(Ok(Done::Unsigned(Unsigned { is_state: draft.state_key.is_some() })))
        }
        Ok(Step::Send(sender, draft)) => {
            let txn = work.txn.clone();
            let submission = Submission { sender, draft, txn, ts: work.ts, opaque: work.opaque.clone(), again: false };
            Ok(appender.admit(submission)?.map(Done::Event))
        }
        Ok(Step::Nothing) => Ok(Ok(Done::Nothing)),
        Ok(Step::Stands(event_id)) => Ok(Ok(Done::Event(event_id))),
        Ok(Step::Judged(judgement)) => Ok(Ok(Done::Judged(judgement))),
        Err(refusal) => Ok(Err(refusal)),
    }
}

#[cfg(test)]
mod tests {
    use hearth_matrix::ruma::CanonicalJsonObject;
    use hearth_matrix::ruma::RoomVersionId;
    use hearth_matrix::{Draft, SigningKey};
    use hearth_store::{DatabaseUrl, StoreOptions, WallTime};

    use super::*;
    use crate::{CreateRoom, Preset, Rooms};

    #[tokio::test]
    async fn what_fails_takes_nobody_along() {
        let directory = tempfile::tempdir().expect("a directory");
        let url = DatabaseUrl::Sqlite(directory.path().join("turn.db"));
        let store = Store::open(StoreOptions { url, threads: 1 }).await.expect("opens");
        let config = RoomsConfig {
            server_name: "here.test".try_into().expect("a server name"),
            signing_key: SigningKey::from_seed([1; 32], "a").expect("a key").into(),
            default_version: RoomVersionId::V11,
        };
        let rooms = Rooms::new(config, store.clone(), WallTime::system());
        let alice: OwnedUserId = "@alice:here.test".try_into().expect("a user id");
        let name = alice.clone();
        store.write(Vec::new(), move |tx| tx.intern(name.as_str())).await.expect("writes");
        let room = CreateRoom {
            creator: alice.clone(),
            version: None,
            preset: Preset::PublicChat,
            creation_content: CanonicalJsonObject::new(),
            power_levels: None,
            initial_state: Vec::new(),
            name: None,
            topic: None,
            alias_localpart: None,
            invite: Vec::new(),
            is_direct: false,
            published: false,
        };
        let room = rooms.create(room).await.expect("a room");
        let turns = &rooms.inner.turns;
        let say = || {
            let alice = alice.clone();
            let plan: Plan = Box::new(move |_| {
                Ok(Ok(Step::Send(alice.clone(), Draft::message("m.room.message", CanonicalJsonObject::new()))))
            });
            turns.done(&room, Work::new(1, None, plan))
        };
        let fail: Plan = Box::new(|_| Err(StoreError::Damaged("as a test wants it".into())));
        // All are queued before the turn begins, so they are one batch.
        let (one, failed, other) = tokio::join!(say(), turns.done(&room, Work::new(1, None, fail)), say());
        assert!(failed.is_err());
        assert!(matches!((one, other), (Ok(Done::Event(_)), Ok(Done::Event(_)))));
    }
}
