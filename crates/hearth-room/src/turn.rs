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

use crate::append::{Appender, Decision, Submission};
use crate::chance::Chance;
use crate::inbound::{Arrival, Verdict};
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
    /// Remote events were judged.
    Judged(Vec<Verdict>),
}

/// Decides on the room's present state what is to be done. May run more than once.
pub(crate) type Plan = Box<dyn Fn(&mut Appender<'_, '_>) -> Decision<Step> + Send + Sync>;

/// Something to be done in a room.
pub(crate) struct Work {
    pub(crate) plan: Plan,
    pub(crate) txn: Option<(DeviceNum, Arc<str>)>,
    /// Now, milliseconds since the epoch.
    pub(crate) ts: i64,
    /// The event id's own part in room versions 1 and 2; given when the work is submitted.
    opaque: String,
}

impl Work {
    pub(crate) fn new(ts: i64, txn: Option<(DeviceNum, Arc<str>)>, plan: Plan) -> Self {
        Self { plan, txn, ts, opaque: String::new() }
    }
}

/// What came of a work.
pub(crate) enum Done {
    /// This event, or the one that stood already.
    Event(OwnedEventId),
    /// There was nothing to do.
    Nothing,
    /// What became of remote events, in their order.
    Judged(Vec<Verdict>),
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

    /// Does one work in a room, in one commit with all that waits beside it. Durable when it returns. The event that came of
    /// it; none if there was nothing to do.
    pub(crate) async fn submit(&self, room_id: &RoomId, work: Work) -> Result<Option<OwnedEventId>, RoomError> {
        Ok(match self.done(room_id, work).await? {
            Done::Event(event_id) => Some(event_id),
            Done::Nothing | Done::Judged(_) => None,
        })
    }

    /// Judges remote events, in this order, in one commit with all that waits beside them.
    pub(crate) async fn judge(
        &self,
        room_id: &RoomId,
        ts: i64,
        arrivals: Vec<Arrival>,
    ) -> Result<Vec<Verdict>, RoomError> {
        let plan = move |appender: &mut Appender<'_, '_>| {
            let verdicts =
                arrivals.iter().map(|arrival| appender.receive(arrival)).collect::<Result<_, StoreError>>()?;
            Ok(Ok(Step::Judged(verdicts)))
        };
        Ok(match self.done(room_id, Work::new(ts, None, Box::new(plan))).await? {
            Done::Judged(verdicts) => verdicts,
            Done::Event(_) | Done::Nothing => Vec::new(),
        })
    }

    async fn done(&self, room_id: &RoomId, mut work: Work) -> Outcome {
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

    async fn work(&self, works: Vec<Work>) -> Result<Vec<Outcome>, StoreError> {
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
fn batch(tx: &mut Tx<'_>, room_id: &RoomId, config: &RoomsConfig, works: &[Work]) -> Result<Vec<Outcome>, StoreError> {
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
        Ok(Step::Send(sender, draft)) => {
            let txn = work.txn.clone();
            let submission = Submission { sender, draft, txn, ts: work.ts, opaque: work.opaque.clone(), again: false };
            Ok(appender.admit(submission)?.map(Done::Event))
        }
        Ok(Step::Nothing) => Ok(Ok(Done::Nothing)),
        Ok(Step::Judged(verdicts)) => Ok(Ok(Done::Judged(verdicts))),
        Err(refusal) => Ok(Err(refusal)),
    }
}
