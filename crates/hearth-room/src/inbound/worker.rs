//! A room's worker: takes staged events, checks signatures that are still unchecked, hands what it has to the room's turn, and
//! has what is missing fetched beside, and the room's policy server asked (`worker/held.rs`). It ends when nothing is staged any
//! more.
//!
//! Servers that don't answer delay only events that need them: those are tried again later, with other servers.

mod held;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId};
use hearth_matrix::signatures::VerifyError;
use hearth_store::{Noun, RoomRecord, StagedEvent, StagedNum, StoreError};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use self::held::{Asked, Held};
use super::gather::{Gathered, Lacking};
use super::sorting::{By, sorted};
use super::{Verdict, signatures};
use crate::{RoomError, Rooms};

/// Staged events looked at together.
const LOOK_AT: i64 = 500;
/// Events judged in one commit.
pub(super) const TOGETHER: usize = 20;
/// Tries before an event is given up; its successors will ask for it again.
const TRIES: u32 = 24;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// What waits for events that come in a row is tried when they have come, not after each of them.
const SETTLE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);
/// Before a worker whose store failed tries once more.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_secs(10);

/// How a room's worker is woken.
#[derive(Default)]
pub(super) struct Bell {
    notify: Notify,
    /// Events that were judged without it; some of what it has may wait for them.
    judged: Mutex<Vec<OwnedEventId>>,
}

/// An event that could not be judged yet.
#[derive(Default)]
struct Waiting {
    tries: u32,
    /// When it is tried again; none while something is done for it.
    at: Option<Instant>,
    /// What it lacked when it was tried last.
    lacks: Vec<OwnedEventId>,
    /// Some of that has come meanwhile.
    has_come: bool,
}

/// What a task beside the worker has done.
enum Beside {
    Gathered(Gathered),
    Proven(Proven),
    Asked(Asked),
}

/// Signatures that were checked with keys that were not at hand.
#[derive(Default)]
struct Proven {
    good: Vec<StagedNum>,
    wrong: Vec<StagedNum>,
    unknown: Vec<StagedNum>,
}

struct Worker {
    rooms: Rooms,
    room: Arc<RoomRecord>,
    waiting: FxHashMap<StagedNum, Waiting>,
    beside: JoinSet<Beside>,
    held: Held,
}

/// A staged event, read.
struct Ready {
    staged: StagedNum,
    origin: OwnedServerName,
    pdu: Arc<Pdu>,
}

impl Rooms {
    /// Has a room's staged events worked at.
    pub(crate) fn wake_worker(&self, room_id: OwnedRoomId) {
        let bell = {
            let mut workers = self.inner.inbound.workers();
            if let Some(bell) = workers.get(&room_id) {
                bell.notify.notify_one();
                return;
            }
            let bell = Arc::<Bell>::default();
            workers.insert(room_id.clone(), bell.clone());
            bell
        };
        let rooms = self.clone();
        tokio::spawn(async move {
            while let Err(error) = work(&rooms, &room_id, &bell).await {
                if is_closed(&error) {
                    rooms.inner.inbound.workers().remove(&room_id);
                    return;
                }
                tracing::error!(room = %room_id, %error, "remote events of a room could not be worked at");
                tokio::time::sleep(PAUSE_AFTER_FAILURE).await;
            }
        });
    }
}

impl Rooms {
    /// Tells a room's worker, if it has one, of events that were judged without it.
    pub(super) fn tell_worker(&self, room_id: &RoomId, judged: Vec<OwnedEventId>) {
        let Some(bell) = self.inner.inbound.workers().get(room_id).cloned() else { return };
        bell.judged.lock().unwrap_or_else(PoisonError::into_inner).extend(judged);
        bell.notify.notify_one();
    }
}

async fn work(rooms: &Rooms, room_id: &OwnedRoomId, bell: &Bell) -> Result<(), RoomError> {
    let id = room_id.clone();
    let record = rooms.inner.store.read(move |tx| tx.rooms().by_id(&id)).await?;
    let room = record.ok_or(RoomError::UnknownRoom)?;
    let (waiting, beside, held) = Default::default();
    let mut worker = Worker { rooms: rooms.clone(), room, waiting, beside, held };
    loop {
        while worker.pass().await? {}
        let judged = std::mem::take(&mut *bell.judged.lock().unwrap_or_else(PoisonError::into_inner));
        if !judged.is_empty() {
            let judged: FxHashSet<OwnedEventId> = judged.into_iter().collect();
            worker.held.release(&judged);
            worker.try_what_waits_for(&judged, SETTLE);
        }
        if worker.waiting.is_empty() && worker.beside.is_empty() {
            let mut workers = rooms.inner.inbound.workers();
            // What was staged since is announced by a permit of the notifier; a new worker would find it, too.
            if !is_notified(&bell.notify) {
                workers.remove(room_id);
                return Ok(());
            }
            continue;
        }
        let next = worker.waiting.values().filter_map(|waiting| waiting.at).min();
        let pause = async {
            match next {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            Some(done) = worker.beside.join_next() => match done {
                Ok(Beside::Gathered(gathered)) => worker.gathered(gathered).await?,
                Ok(Beside::Proven(proven)) => worker.proven(proven).await?,
                Ok(Beside::Asked(asked)) => worker.asked(asked),
                Err(error) => return Err(RoomError::Store(format!("a task beside the worker: {error}"))),
            },
            () = bell.notify.notified() => {}
            () = pause => {}
        }
    }
}

pub(super) fn is_closed(error: &RoomError) -> bool {
    matches!(error, RoomError::Store(cause) if *cause == StoreError::Closed.to_string())
}

/// Whether the notifier holds a permit; takes it.
pub(super) fn is_notified(notify: &Notify) -> bool {
    use std::task::{Context, Poll, Waker};
    let notified = std::pin::pin!(notify.notified());
    matches!(notified.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
}

impl Worker {
    /// Works through what is staged and not waiting. True if it changed something that others waited for, or more is staged.
    async fn pass(&mut self) -> Result<bool, RoomError> {
        let now = Instant::now();
        let (mut ready, mut unproven) = (Vec::new(), Vec::new());
        let is_idle = |waiting: &Waiting| waiting.at.is_none_or(|at| at > now);
        let idle: Vec<i64> =
            self.waiting.iter().filter(|(_, waiting)| is_idle(waiting)).map(|(num, _)| num.0).collect();
        let num = self.room.num;
        let staged = self.rooms.inner.store.read(move |tx| {
            let staged = tx.staged().of_room(num, StagedNum(0), &idle, LOOK_AT)?;
            let names = staged.iter().map(|event| tx.string(event.origin)).collect::<Result<Vec<_>, _>>()?;
            Ok(staged.into_iter().zip(names).collect::<Vec<_>>())
        });
        let staged: Vec<(StagedEvent, Arc<str>)> = staged.await?;
        let is_all = staged.len() < usize::try_from(LOOK_AT).unwrap_or(usize::MAX);
        if is_all {
            // What was to be tried and is not there was judged elsewhere.
            let read: FxHashSet<StagedNum> = staged.iter().map(|(event, _)| event.num).collect();
            self.waiting.retain(|num, waiting| is_idle(waiting) || read.contains(num));
            self.held.keep(|num| read.contains(num) || self.waiting.contains_key(num));
        }
        let mut unreadable = Vec::new();
        for (event, origin) in staged {
            let pdu = Pdu::from_remote(&event.json, self.room.rules);
            let (Ok(pdu), Ok(origin)) = (pdu, OwnedServerName::try_from(&*origin)) else {
                unreadable.push(event.num);
                continue;
            };
            let read = Ready { staged: event.num, origin, pdu: Arc::new(pdu) };
            if event.verified { ready.push(read) } else { unproven.push(read) }
        }
        self.drop_staged(unreadable).await?;
        self.prove(unproven);
        if ready.is_empty() {
            return Ok(!is_all);
        }
        let (lacking, is_crowded) = self.judge(&ready).await?;
        let changed = lacking.len() < ready.len() || !is_all;
        if is_crowded {
            self.rooms.merge_branches(&self.room).await?;
        }
        self.gather(ready, lacking);
        Ok(changed)
    }

    /// Has signatures checked whose keys were not at hand; each sender's server on its own, as it may not answer.
    fn prove(&mut self, unproven: Vec<Ready>) {
        let mut by_server: BTreeMap<OwnedServerName, Vec<Ready>> = BTreeMap::new();
        for event in unproven {
            self.wait_for(event.staged, Vec::new());
            by_server.entry(event.pdu.sender.server_name().to_owned()).or_default().push(event);
        }
        for (_, events) in by_server {
            let (rooms, rules) = (self.rooms.clone(), self.room.rules);
            self.beside.spawn(async move {
                let mut proven = Proven::default();
                let Some(neighbours) = rooms.inner.inbound.neighbours.get() else {
                    proven.unknown.extend(events.iter().map(|event| event.staged));
                    return Beside::Proven(proven);
                };
                let pdus: Vec<Arc<Pdu>> = events.iter().map(|event| event.pdu.clone()).collect();
                for (event, outcome) in events.iter().zip(signatures::check(&**neighbours, &pdus, rules).await) {
                    match outcome {
                        Ok(()) => proven.good.push(event.staged),
                        Err(VerifyError::UnknownKey(_)) => proven.unknown.push(event.staged),
                        Err(error) => {
                            tracing::debug!(event = %event.pdu.event_id, %error, "a remote event was dropped");
                            proven.wrong.push(event.staged);
                        }
                    }
                }
                Beside::Proven(proven)
            });
        }
    }

    async fn proven(&mut self, proven: Proven) -> Result<(), RoomError> {
        for num in &proven.good {
            self.waiting.remove(num);
        }
        let mut dropped = proven.wrong;
        dropped.extend(proven.unknown.into_iter().filter_map(|num| self.wait_again(num)));
        let good = proven.good;
        let write = self.rooms.inner.store.write(vec![Noun::Room(self.room.num)], move |tx| {
            good.iter().try_for_each(|num| tx.staged().verified(*num))
        });
        write.await?;
        self.drop_staged(dropped).await
    }

    async fn drop_staged(&mut self, dropped: Vec<StagedNum>) -> Result<(), RoomError> {
        if dropped.is_empty() {
            return Ok(());
        }
        for num in &dropped {
            self.waiting.remove(num);
        }
        let write = self.rooms.inner.store.write(vec![Noun::Room(self.room.num)], move |tx| {
            dropped.iter().try_for_each(|num| tx.staged().unstage(*num))
        });
        Ok(write.await?)
    }

    /// The event waits for what is being done for it.
    fn wait_for(&mut self, staged: StagedNum, lacks: Vec<OwnedEventId>) -> u32 {
        let waiting = self.waiting.entry(staged).or_default();
        (waiting.at, waiting.lacks, waiting.has_come) = (None, lacks, false);
        waiting.tries
    }

    /// The event waits for another try; returned if it had its tries.
    fn wait_again(&mut self, staged: StagedNum) -> Option<StagedNum> {
        let waiting = self.waiting.entry(staged).or_default();
        if std::mem::take(&mut waiting.has_come) {
            waiting.at = Some(Instant::now());
            return None;
        }
        waiting.tries += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << waiting.tries.min(8)).min(LONGEST_PAUSE);
        waiting.at = Some(Instant::now() + pause);
        (waiting.tries > TRIES).then_some(staged)
    }

    /// Hands events to the turn, parents first; returns what each lacks that could not be judged, and whether the room has more
    /// branches than it should.
    async fn judge(&mut self, ready: &[Ready]) -> Result<(FxHashMap<StagedNum, Verdict>, bool), RoomError> {
        let numbers: FxHashMap<_, _> = ready.iter().map(|event| (event.pdu.event_id.clone(), event.staged)).collect();
        let order = sorted(ready.iter().map(|event| event.pdu.clone()).collect(), By::All);
        let mut lacking = FxHashMap::default();
        let mut judged: FxHashSet<OwnedEventId> = FxHashSet::default();
        let mut is_crowded = false;
        for part in order.chunks(TOGETHER) {
            for (pdu, verdict) in part.iter().zip(self.judge_part(part, &numbers, &mut is_crowded).await?) {
                let Some(staged) = numbers.get(&pdu.event_id) else { continue };
                match verdict {
                    Some(verdict @ (Verdict::Missing { .. } | Verdict::Unplaced)) => {
                        drop(lacking.insert(*staged, verdict))
                    }
                    Some(Verdict::Unsigned(policy)) => self.hold(*staged, pdu, policy),
                    Some(_) => {
                        judged.insert(pdu.event_id.clone());
                        self.waiting.remove(staged);
                    }
                    None => {
                        let given_up = self.wait_again(*staged);
                        self.drop_staged(given_up.into_iter().collect()).await?;
                    }
                }
            }
        }
        self.held.release(&judged);
        self.try_what_waits_for(&judged, Duration::ZERO);
        Ok((lacking, is_crowded))
    }

    /// Judges a few events in one commit. If that fails, one after the other: what fails alone must not hold up the others.
    async fn judge_part(
        &self,
        part: &[Arc<Pdu>],
        numbers: &FxHashMap<OwnedEventId, StagedNum>,
        is_crowded: &mut bool,
    ) -> Result<Vec<Option<Verdict>>, RoomError> {
        let arrival = |pdu: &Arc<Pdu>| self.held.arrival(numbers.get(&pdu.event_id).copied(), pdu);
        if let Ok(judgement) = self.rooms.judged(&self.room.room_id, part.iter().map(arrival).collect()).await {
            *is_crowded = judgement.is_crowded;
            return Ok(judgement.verdicts.into_iter().map(Some).collect());
        }
        // Whether it is crowded is found out at the end.
        *is_crowded = true;
        let mut verdicts = Vec::with_capacity(part.len());
        for pdu in part {
            verdicts.push(match self.rooms.judge(&self.room.room_id, vec![arrival(pdu)]).await {
                Ok(verdict) => verdict.into_iter().next(),
                Err(error) if is_closed(&error) => return Err(error),
                Err(error) => {
                    tracing::error!(event = %pdu.event_id, %error, "a remote event could not be judged");
                    None
                }
            });
        }
        Ok(verdicts)
    }

    /// What waited for one of these events is tried after a pause, if it does not come up earlier.
    fn try_what_waits_for(&mut self, judged: &FxHashSet<OwnedEventId>, pause: Duration) {
        let soon = Instant::now() + pause;
        for waiting in self.waiting.values_mut() {
            if waiting.lacks.iter().any(|id| judged.contains(id)) {
                waiting.has_come = true;
                waiting.at = waiting.at.map(|at| at.min(soon));
            }
        }
    }

    /// Has what events lack fetched, by one task for each server that sent some.
    fn gather(&mut self, ready: Vec<Ready>, mut lacking: FxHashMap<StagedNum, Verdict>) {
        let mut by_origin: BTreeMap<(OwnedServerName, u32), Vec<Lacking>> = BTreeMap::new();
        for event in ready {
            let (prev_events, auth_events) = match lacking.remove(&event.staged) {
                Some(Verdict::Missing { prev_events, auth_events }) => (prev_events, auth_events),
                Some(Verdict::Unplaced) => (Vec::new(), Vec::new()),
                _ => continue,
            };
            let lacks: Vec<OwnedEventId> = prev_events.iter().chain(&auth_events).cloned().collect();
            if self.waits_for_held(&event, &lacks) {
                continue;
            }
            let tries = self.wait_for(event.staged, lacks);
            let arrival = self.held.arrival(Some(event.staged), &event.pdu);
            by_origin.entry((event.origin, tries)).or_default().push(Lacking { arrival, prev_events, auth_events });
        }
        for ((origin, tries), events) in by_origin {
            let (rooms, room) = (self.rooms.clone(), self.room.clone());
            self.beside.spawn(async move { Beside::Gathered(rooms.gather(room, origin, tries, events).await) });
        }
    }

    async fn gathered(&mut self, gathered: Gathered) -> Result<(), RoomError> {
        for num in &gathered.judged {
            self.waiting.remove(num);
        }
        let given_up: Vec<StagedNum> = gathered.open.into_iter().filter_map(|num| self.wait_again(num)).collect();
        self.held.release(&gathered.arrived);
        self.try_what_waits_for(&gathered.arrived, Duration::ZERO);
        if !given_up.is_empty() {
            tracing::warn!(room = %self.room.room_id, events = given_up.len(), "remote events were given up");
        }
        self.drop_staged(given_up).await
    }
}
