//! A room's worker: takes staged events, checks signatures that are still unchecked, hands what it has to the room's turn, and
//! has what is missing fetched beside. It ends when nothing is staged any more.
//!
//! Servers that don't answer delay only events that need them: those are tried again later, with other servers.

use std::sync::Arc;
use std::time::Duration;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedRoomId, OwnedServerName};
use hearth_matrix::signatures::VerifyError;
use hearth_store::{Noun, RoomRecord, StagedEvent, StagedNum};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::gather::{Gathered, Lacking};
use super::sorting::{By, sorted};
use super::{Arrival, Verdict, signatures};
use crate::{RoomError, Rooms};

/// Staged events looked at together.
const LOOK_AT: i64 = 500;
/// Events judged in one commit.
pub(super) const TOGETHER: usize = 20;
/// Tries before an event is given up; its successors will ask for it again.
const TRIES: u32 = 24;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// An event that could not be judged yet.
#[derive(Clone, Copy)]
struct Waiting {
    tries: u32,
    /// When it is tried again; none while it is being gathered for.
    at: Option<Instant>,
}

struct Worker {
    rooms: Rooms,
    room: Arc<RoomRecord>,
    waiting: FxHashMap<StagedNum, Waiting>,
    gathering: JoinSet<Gathered>,
}

/// A staged event, read.
struct Ready {
    staged: StagedNum,
    origin: OwnedServerName,
    pdu: Arc<Pdu>,
}

impl Rooms {
    /// Has a room's staged events worked at.
    pub(super) fn wake_worker(&self, room_id: OwnedRoomId) {
        let notify = {
            let mut workers = self.inner.inbound.workers();
            if let Some(notify) = workers.get(&room_id) {
                notify.notify_one();
                return;
            }
            let notify = Arc::new(Notify::new());
            workers.insert(room_id.clone(), notify.clone());
            notify
        };
        let rooms = self.clone();
        tokio::spawn(async move {
            if let Err(error) = work(&rooms, &room_id, &notify).await {
                tracing::error!(room = %room_id, %error, "remote events of a room could not be worked at");
                rooms.inner.inbound.workers().remove(&room_id);
            }
        });
    }
}

async fn work(rooms: &Rooms, room_id: &OwnedRoomId, notify: &Notify) -> Result<(), RoomError> {
    let id = room_id.clone();
    let record = rooms.inner.store.read(move |tx| tx.rooms().by_id(&id)).await?;
    let room = record.ok_or(RoomError::UnknownRoom)?;
    let mut worker = Worker { rooms: rooms.clone(), room, waiting: FxHashMap::default(), gathering: JoinSet::new() };
    loop {
        while worker.pass().await? {}
        if worker.waiting.is_empty() && worker.gathering.is_empty() {
            let mut workers = rooms.inner.inbound.workers();
            // What was staged since is announced by a permit of the notifier; a new worker would find it, too.
            if !is_notified(notify) {
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
            Some(gathered) = worker.gathering.join_next() => match gathered {
                Ok(gathered) => worker.gathered(gathered).await?,
                Err(error) => return Err(RoomError::Store(format!("gathering: {error}"))),
            },
            () = notify.notified() => {}
            () = pause => {}
        }
    }
}

/// Whether the notifier holds a permit; takes it.
fn is_notified(notify: &Notify) -> bool {
    use std::task::{Context, Poll, Waker};
    let notified = std::pin::pin!(notify.notified());
    matches!(notified.poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(()))
}

impl Worker {
    /// Works through what is staged and not waiting. True if it changed something that others may have waited for.
    async fn pass(&mut self) -> Result<bool, RoomError> {
        let now = Instant::now();
        let mut ready = Vec::new();
        let mut after = StagedNum(0);
        loop {
            let num = self.room.num;
            let staged = self.rooms.inner.store.read(move |tx| tx.staged().of_room(num, after, LOOK_AT)).await?;
            let Some(last) = staged.last() else { break };
            after = last.num;
            let more = staged.len() == LOOK_AT as usize;
            let due = |event: &StagedEvent| {
                self.waiting.get(&event.num).is_none_or(|waiting| waiting.at.is_some_and(|at| at <= now))
            };
            let due: Vec<StagedEvent> = staged.into_iter().filter(due).collect();
            self.read(due, &mut ready).await?;
            if !more || ready.len() >= LOOK_AT as usize {
                break;
            }
        }
        if ready.is_empty() {
            return Ok(false);
        }
        let lacking = self.judge(&ready).await?;
        if lacking.len() < ready.len() {
            self.rooms.merge_branches(&self.room).await?;
        }
        let changed = lacking.len() < ready.len();
        self.gather(ready, lacking);
        Ok(changed)
    }

    /// Reads staged events, and checks the signatures that were not checked.
    async fn read(&mut self, staged: Vec<StagedEvent>, ready: &mut Vec<Ready>) -> Result<(), RoomError> {
        let origins: Vec<_> = staged.iter().map(|event| event.origin).collect();
        let names = self.rooms.inner.store.read(move |tx| origins.iter().map(|origin| tx.string(*origin)).collect());
        let names: Vec<Arc<str>> = names.await?;
        let (mut unverified, mut dropped) = (Vec::new(), Vec::new());
        for (event, name) in staged.into_iter().zip(names) {
            let pdu = Pdu::from_remote(&event.json, self.room.rules).ok();
            let (Some(pdu), Ok(origin)) = (pdu, OwnedServerName::try_from(&*name)) else {
                dropped.push(event.num);
                continue;
            };
            let read = Ready { staged: event.num, origin, pdu: Arc::new(pdu) };
            if event.verified { ready.push(read) } else { unverified.push(read) }
        }
        let pdus: Vec<Arc<Pdu>> = unverified.iter().map(|event| event.pdu.clone()).collect();
        let outcomes = match self.rooms.inner.inbound.neighbours.get() {
            Some(neighbours) => signatures::check(&**neighbours, &pdus, self.room.rules).await,
            None => pdus.iter().map(|pdu| Err(VerifyError::UnknownKey(pdu.sender.server_name().to_owned()))).collect(),
        };
        for (event, outcome) in unverified.into_iter().zip(outcomes) {
            match outcome {
                Ok(()) => ready.push(event),
                Err(VerifyError::UnknownKey(_)) => dropped.extend(self.wait_again(event.staged)),
                Err(error) => {
                    tracing::debug!(event = %event.pdu.event_id, %error, "a remote event was dropped");
                    dropped.push(event.staged);
                }
            }
        }
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

    /// The event waits for another try; returned if it had its tries.
    fn wait_again(&mut self, staged: StagedNum) -> Option<StagedNum> {
        let waiting = self.waiting.entry(staged).or_insert(Waiting { tries: 0, at: None });
        waiting.tries += 1;
        let pause = FIRST_PAUSE.saturating_mul(1 << waiting.tries.min(8)).min(LONGEST_PAUSE);
        waiting.at = Some(Instant::now() + pause);
        (waiting.tries > TRIES).then_some(staged)
    }

    /// Hands events to the turn, parents first; returns what each lacks that could not be judged.
    async fn judge(&mut self, ready: &[Ready]) -> Result<FxHashMap<StagedNum, Verdict>, RoomError> {
        let numbers: FxHashMap<_, _> = ready.iter().map(|event| (event.pdu.event_id.clone(), event.staged)).collect();
        let order = sorted(ready.iter().map(|event| event.pdu.clone()).collect(), By::All);
        let mut lacking = FxHashMap::default();
        for part in order.chunks(TOGETHER) {
            let arrivals = part
                .iter()
                .map(|pdu| Arrival { staged: numbers.get(&pdu.event_id).copied(), ..Arrival::of(pdu.clone()) });
            let verdicts = self.rooms.judge(&self.room.room_id, arrivals.collect()).await?;
            for (pdu, verdict) in part.iter().zip(verdicts) {
                let Some(staged) = numbers.get(&pdu.event_id) else { continue };
                match verdict {
                    Verdict::Missing { .. } => drop(lacking.insert(*staged, verdict)),
                    _ => drop(self.waiting.remove(staged)),
                }
            }
        }
        Ok(lacking)
    }

    /// Has what events lack fetched, by one task for each server that sent some.
    fn gather(&mut self, ready: Vec<Ready>, mut lacking: FxHashMap<StagedNum, Verdict>) {
        let mut by_origin: std::collections::BTreeMap<(OwnedServerName, u32), Vec<Lacking>> = Default::default();
        for event in ready {
            let Some(Verdict::Missing { prev_events, auth_events }) = lacking.remove(&event.staged) else { continue };
            let waiting = self.waiting.entry(event.staged).or_insert(Waiting { tries: 0, at: None });
            waiting.at = None;
            let arrival = Arrival { staged: Some(event.staged), ..Arrival::of(event.pdu) };
            by_origin.entry((event.origin, waiting.tries)).or_default().push(Lacking {
                arrival,
                prev_events,
                auth_events,
            });
        }
        for ((origin, tries), events) in by_origin {
            let (rooms, room) = (self.rooms.clone(), self.room.clone());
            self.gathering.spawn(async move { rooms.gather(room, origin, tries, events).await });
        }
    }

    async fn gathered(&mut self, gathered: Gathered) -> Result<(), RoomError> {
        for num in gathered.judged {
            self.waiting.remove(&num);
        }
        let given_up: Vec<StagedNum> = gathered.open.into_iter().filter_map(|num| self.wait_again(num)).collect();
        if !given_up.is_empty() {
            tracing::warn!(room = %self.room.room_id, events = given_up.len(), "remote events were given up");
        }
        self.drop_staged(given_up).await
    }
}
