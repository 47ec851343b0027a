//! What remote events lack: events before them, the state at a gap, events that allow them.
//!
//! Outside the turn, and bounded: so many rounds, events and questions, whatever the other server says.
//! Spec: server-server API, "Retrieving missing events", "Retrieving event authorization information", "Room state at a PDU".

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, OwnedServerName, RoomId, ServerName};
use hearth_store::{Noun, RoomRecord, StagedNum, StoreError};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::task::JoinSet;

use super::budget::Budget;
use super::sorting::{By, reached, sorted};
use super::worker::TOGETHER;
use super::{Arrival, MissingEvents, Neighbours, Told, Unanswered, Verdict, policy, signatures};
use crate::append::Appender;
use crate::turn::Judgement;
use crate::{RoomError, Rooms};

/// Questions for missing events, one after the other.
const ROUNDS: usize = 10;
/// Events asked for at once.
const LIMIT: u32 = 20;
/// Events asked for one by one.
const SINGLE: usize = 200;
/// Events right before others that are asked for by themselves.
const EDGES: usize = 20;
/// Auth events asked for by themselves before all that allows an event is asked for.
const FEW: usize = 3;
/// Events fetched side by side.
const BESIDE: usize = 16;
/// Times that state is asked for, as what it makes known lets others be judged.
const STATES: usize = 3;
/// States asked for that stand in for the events missing before one.
const STATES_AFTER: usize = 20;
/// Servers that are asked for the place of an event, for all that allows it, and for what it follows.
const SEEKERS: u32 = 3;
/// Events of a state, or of all that allows it.
const MOST: usize = 200_000;
/// Events of all that allows one event.
const CHAIN: usize = 20_000;
/// Outliers written in one commit.
const OUTLIERS: usize = 100;

/// An event that can't be judged yet.
pub(super) struct Lacking {
    pub(super) arrival: Arrival,
    pub(super) prev_events: Vec<OwnedEventId>,
    pub(super) auth_events: Vec<OwnedEventId>,
}

/// What became of staged events for which something was fetched.
#[derive(Default)]
pub(super) struct Gathered {
    pub(super) judged: Vec<StagedNum>,
    pub(super) open: Vec<StagedNum>,
    /// All that was judged, what was fetched included.
    pub(super) arrived: FxHashSet<OwnedEventId>,
}

/// What was judged on the way.
#[derive(Default)]
struct Judged {
    staged: FxHashSet<StagedNum>,
    all: FxHashSet<OwnedEventId>,
    /// Those that the policy server could not be asked about, and what follows them.
    held: FxHashSet<OwnedEventId>,
    /// What it can't be asked about now is not recommended.
    gives_up: bool,
}

/// One server asked for one room.
pub(super) struct Gathering<'a> {
    pub(super) rooms: &'a Rooms,
    pub(super) neighbours: &'a Arc<dyn Neighbours>,
    pub(super) room: &'a Arc<RoomRecord>,
    pub(super) server: &'a ServerName,
    budget: Budget,
}

impl Arrival {
    pub(crate) fn of(pdu: Arc<Pdu>) -> Self {
        Self {
            pdu,
            staged: None,
            told_state: None,
            hopeless: false,
            history: None,
            sought: false,
            outbound: false,
            not_recommended: None,
        }
    }
}

impl Rooms {
    /// Judges remote events in the room's turn.
    pub(super) async fn judge(&self, room_id: &RoomId, arrivals: Vec<Arrival>) -> Result<Vec<Verdict>, RoomError> {
        Ok(self.judged(room_id, arrivals).await?.verdicts)
    }

    /// The same, and how the room is afterwards.
    pub(super) async fn judged(&self, room_id: &RoomId, arrivals: Vec<Arrival>) -> Result<Judgement, RoomError> {
        let judgement = self.inner.turns.judge(room_id, self.inner.time.now_ms(), arrivals).await?;
        if judgement.has_staged {
            self.wake_worker(room_id.to_owned());
        }
        for verdict in &judgement.verdicts {
            let outcome = match verdict {
                Verdict::Accepted => "accepted",
                Verdict::SoftFailed(_) => "soft_failed",
                Verdict::Rejected(_) => "rejected",
                Verdict::Known | Verdict::Missing { .. } | Verdict::Unplaced | Verdict::Unsigned(_) => continue,
            };
            metrics::counter!("hearth_federation_judged_pdus_total", "outcome" => outcome).increment(1);
        }
        Ok(judgement)
    }

    /// Fetches what events lack and judges them. The first try asks the server that sent them, later ones ask others, too.
    pub(super) async fn gather(
        &self,
        room: Arc<RoomRecord>,
        origin: OwnedServerName,
        tries: u32,
        events: Vec<Lacking>,
    ) -> Gathered {
        let staged: Vec<StagedNum> = events.iter().filter_map(|event| event.arrival.staged).collect();
        let all_open = || Gathered { open: staged.clone(), ..Gathered::default() };
        let Some(neighbours) = self.inner.inbound.neighbours.get() else { return all_open() };
        let server = match self.whom_to_ask(&**neighbours, &room, &origin, tries).await {
            Ok(server) => server,
            Err(error) => {
                tracing::error!(room = %room.room_id, %error, "no server to ask was found");
                return all_open();
            }
        };
        let gathering = Gathering::new(self, neighbours, &room, &server);
        let mut judged = Judged { gives_up: tries >= policy::TRIES, ..Judged::default() };
        if let Err(error) = gathering.run(events, tries, &mut judged).await {
            tracing::debug!(room = %room.room_id, %server, %error, "events that are missing could not be fetched");
        }
        Gathered {
            open: staged.iter().filter(|num| !judged.staged.contains(num)).copied().collect(),
            judged: judged.staged.into_iter().collect(),
            arrived: judged.all,
        }
    }

    /// The origin, or on later tries one of the room's other servers: one that lives, if any does.
    async fn whom_to_ask(
        &self,
        neighbours: &dyn Neighbours,
        room: &Arc<RoomRecord>,
        origin: &OwnedServerName,
        tries: u32,
    ) -> Result<OwnedServerName, StoreError> {
        if tries.is_multiple_of(2) && origin != &self.inner.config.server_name {
            return Ok(origin.clone());
        }
        let mut others = self.servers_to_ask(neighbours, room, i64::MAX).await?;
        others.retain(|server| server != origin);
        let resting = neighbours.resting(&others).await;
        if resting.len() < others.len() {
            others.retain(|server| !resting.contains(server));
        }
        let pick = (tries / 2) as usize % others.len().max(1);
        Ok(others.get(pick).unwrap_or(origin).clone())
    }
}

/// What was sent of missing events.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Came {
    /// Nothing new.
    Nothing,
    /// Less than was asked for: there is no more.
    AllThereIs,
    /// There may be more.
    AsManyAsAsked,
}

/// Why gathering ended early.
#[derive(Debug, thiserror::Error)]
pub(super) enum GatherError {
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    #[error(transparent)]
    Room(#[from] RoomError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("more was to be asked for, or was answered, than is good")]
    TooMuch,
}

impl<'a> Gathering<'a> {
    pub(super) fn new(
        rooms: &'a Rooms,
        neighbours: &'a Arc<dyn Neighbours>,
        room: &'a Arc<RoomRecord>,
        server: &'a ServerName,
    ) -> Self {
        Self { rooms, neighbours, room, server, budget: Budget::default() }
    }

    async fn run(&self, events: Vec<Lacking>, tries: u32, judged: &mut Judged) -> Result<(), GatherError> {
        let mut lacking: Vec<Lacking> = events;
        // What was fetched stays here until it is judged.
        let mut fetched: FxHashSet<OwnedEventId> = FxHashSet::default();
        let mut there_is_more = true;
        for _ in 0..ROUNDS {
            self.seek(&mut lacking, tries).await?;
            let came = match there_is_more {
                true => self.fetch_missing(&mut lacking, &mut fetched).await?,
                false => Came::Nothing,
            };
            there_is_more &= came == Came::AsManyAsAsked;
            // What allows events often comes with those before them.
            self.fetch_auth(&mut lacking, tries, false).await?;
            let added = came != Came::Nothing;
            lacking = self.judge(lacking, judged).await?;
            if lacking.is_empty() {
                return Ok(());
            }
            let is_settled = |event: &Lacking| event.auth_events.is_empty() || event.arrival.hopeless;
            if !added && lacking.iter().all(|event| event.arrival.sought && is_settled(event)) {
                break;
            }
        }
        // The gap stays: the state at its near edge is what the other server says it is.
        for _ in 0..STATES {
            self.fetch_states(&mut lacking, tries).await?;
            // The edges that came have a place of their own.
            self.seek(&mut lacking, tries).await?;
            lacking = self.judge(lacking, judged).await?;
            self.fetch_auth(&mut lacking, tries, true).await?;
        }
        self.judge(lacking, judged).await?;
        Ok(())
    }

    /// Looks for the places of events. Where a server does not answer, others are asked first, before that is given up.
    async fn seek(&self, lacking: &mut [Lacking], tries: u32) -> Result<(), GatherError> {
        match self.seek_places(lacking).await {
            Err(GatherError::Unanswered(Unanswered::Unreachable(error))) if tries < SEEKERS => {
                Err(Unanswered::Unreachable(error).into())
            }
            // Whoever passes on what another server made can't have it taken for history by saying nothing of it.
            Err(GatherError::Unanswered(refusal)) if tries < SEEKERS && !self.is_of_server(lacking) => {
                Err(refusal.into())
            }
            Err(GatherError::Unanswered(_)) => {
                lacking.iter_mut().for_each(|event| event.arrival.sought = true);
                Ok(())
            }
            outcome => outcome,
        }
    }

    /// Whether the server that is asked made all these events itself.
    fn is_of_server(&self, lacking: &[Lacking]) -> bool {
        lacking.iter().all(|event| event.arrival.pdu.sender.server_name() == self.server)
    }

    /// Judges all, parents first; what still lacks something is returned.
    async fn judge(&self, lacking: Vec<Lacking>, judged: &mut Judged) -> Result<Vec<Lacking>, GatherError> {
        let order = sorted(lacking.iter().map(|event| event.arrival.pdu.clone()).collect(), By::All);
        let mut by_id: FxHashMap<OwnedEventId, Lacking> =
            lacking.into_iter().map(|event| (event.arrival.pdu.event_id.clone(), event)).collect();
        let mut rest = Vec::new();
        for part in order.chunks(TOGETHER) {
            let events: Vec<Lacking> = part.iter().filter_map(|pdu| by_id.remove(&pdu.event_id)).collect();
            let mut arrivals: Vec<Arrival> = events.iter().map(|event| event.arrival.clone()).collect();
            let verdicts = self.judge_recommended(&mut arrivals, judged.gives_up).await?;
            for ((mut event, arrival), verdict) in events.into_iter().zip(arrivals).zip(verdicts) {
                event.arrival = arrival;
                match verdict {
                    Verdict::Missing { prev_events, auth_events } => {
                        (event.prev_events, event.auth_events) = (prev_events, auth_events);
                        rest.push(event);
                    }
                    Verdict::Unplaced => {
                        (event.prev_events, event.auth_events) = (Vec::new(), Vec::new());
                        rest.push(event);
                    }
                    Verdict::Unsigned(_) => drop(judged.held.insert(event.arrival.pdu.event_id.clone())),
                    _ => {
                        judged.staged.extend(event.arrival.staged);
                        judged.all.insert(event.arrival.pdu.event_id.clone());
                    }
                }
            }
        }
        Ok(policy::without_held(rest, &mut judged.held))
    }

    /// Asks for the events between what we have and what we were sent.
    async fn fetch_missing(
        &self,
        lacking: &mut Vec<Lacking>,
        fetched: &mut FxHashSet<OwnedEventId>,
    ) -> Result<Came, GatherError> {
        let at_hand: FxHashSet<OwnedEventId> = lacking.iter().map(|event| event.arrival.pdu.event_id.clone()).collect();
        let latest: Vec<OwnedEventId> = lacking
            .iter()
            .filter(|event| event.arrival.told_state.is_none())
            .filter(|event| event.prev_events.iter().any(|id| !at_hand.contains(id)))
            .map(|event| event.arrival.pdu.event_id.clone())
            .take(LIMIT as usize)
            .collect();
        if latest.is_empty() {
            return Ok(Came::Nothing);
        }
        let num = self.room.num;
        let earliest = self.rooms.inner.store.read(move |tx| {
            let tip = tx.rooms().tip(num)?.map(|tip| tip.extremities).unwrap_or_default();
            tip.into_iter().take(LIMIT as usize).map(|num| tx.events().id(num)).collect()
        });
        let question = MissingEvents { earliest: earliest.await?, latest, limit: LIMIT, min_depth: 0 };
        let events = match self.neighbours.missing_events(self.server, &self.room.room_id, question).await {
            Ok(events) => events,
            Err(Unanswered::Refused(_)) => return Ok(Came::Nothing),
            Err(error) => return Err(error.into()),
        };
        let is_full = events.len() >= LIMIT as usize;
        let events = self.checked(events).await?;
        let mut added = false;
        for pdu in events.into_iter().take(LIMIT as usize * 2) {
            if fetched.insert(pdu.event_id.clone()) && !at_hand.contains(&pdu.event_id) {
                added = true;
                let prev_events = pdu.prev_events.clone();
                lacking.push(Lacking { arrival: Arrival::of(pdu), prev_events, auth_events: Vec::new() });
            }
        }
        Ok(match (added, is_full) {
            (false, _) => Came::Nothing,
            (true, false) => Came::AllThereIs,
            (true, true) => Came::AsManyAsAsked,
        })
    }

    /// Events that read well, are of this room, and are signed.
    pub(super) async fn checked(&self, events: Vec<String>) -> Result<Vec<Arc<Pdu>>, GatherError> {
        let pdus = self.readable(&events)?;
        Ok(self.signed(pdus).await)
    }

    /// Events that read well and are of this room.
    fn readable(&self, events: &[String]) -> Result<Vec<Arc<Pdu>>, GatherError> {
        self.budget.events(events.len())?;
        let read = events.iter().filter_map(|json| Pdu::from_remote(json, self.room.rules).ok());
        Ok(read.filter(|pdu| pdu.room_id == self.room.room_id).map(Arc::new).collect())
    }

    /// Those of these events whose signatures are good.
    async fn signed(&self, pdus: Vec<Arc<Pdu>>) -> Vec<Arc<Pdu>> {
        let outcomes = signatures::check(&**self.neighbours, &pdus, self.room.rules).await;
        pdus.into_iter().zip(outcomes).filter(|(_, outcome)| outcome.is_ok()).map(|(pdu, _)| pdu).collect()
    }

    /// Of events that were sent along, those that are named, or allow such, and are not here.
    async fn wanted(
        &self,
        events: &[String],
        named: impl IntoIterator<Item = OwnedEventId>,
    ) -> Result<Vec<Arc<Pdu>>, GatherError> {
        let mut pdus = reached(self.readable(events)?, named);
        let unknown = self.unknown(pdus.iter().map(|pdu| pdu.event_id.clone()).collect()).await?;
        pdus.retain(|pdu| unknown.binary_search(&pdu.event_id).is_ok());
        Ok(self.signed(pdus).await)
    }

    /// Fetches the auth events that are missing, with all that allows them: also of events whose past is missing, or not yet.
    async fn fetch_auth(&self, lacking: &mut [Lacking], tries: u32, all: bool) -> Result<(), GatherError> {
        let at_hand: FxHashSet<OwnedEventId> = lacking.iter().map(|event| event.arrival.pdu.event_id.clone()).collect();
        for event in lacking.iter_mut() {
            let missing: Vec<OwnedEventId> =
                event.auth_events.iter().filter(|id| !at_hand.contains(*id)).cloned().collect();
            let has_past = event.prev_events.is_empty();
            if missing.is_empty() || event.arrival.hopeless || !has_past && !all {
                continue;
            }
            // Mostly somebody's membership is missing, and what allows that is here: his whole chain is not needed.
            if missing.len() <= FEW {
                let singles = self.fetch_single(&missing).await?;
                self.keep_outliers(singles).await?;
                if self.unknown(missing.clone()).await?.is_empty() {
                    continue;
                }
            }
            let chain = self.neighbours.event_auth(self.server, &self.room.room_id, &event.arrival.pdu.event_id).await;
            let chain = match chain {
                Ok(chain) if chain.len() <= CHAIN => self.wanted(&chain, missing.iter().cloned()).await?,
                Ok(_) | Err(Unanswered::Refused(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let found: FxHashSet<&OwnedEventId> = chain.iter().map(|pdu| &pdu.event_id).collect();
            let rest: Vec<OwnedEventId> =
                missing.iter().filter(|id| !found.contains(id)).take(SINGLE).cloned().collect();
            let singles = self.fetch_single(&rest).await?;
            let is_short = singles.len() < rest.len();
            self.keep_outliers(chain.into_iter().chain(singles).collect()).await?;
            // What was sent may itself lack what allows it: others may have that, but not for ever.
            event.arrival.hopeless = is_short || tries >= SEEKERS && !self.unknown(missing).await?.is_empty();
        }
        Ok(())
    }

    /// Fetches events one by one, some side by side. Those that the server does not have are left out, and what else it sends.
    pub(super) async fn fetch_single(&self, ids: &[OwnedEventId]) -> Result<Vec<Arc<Pdu>>, GatherError> {
        let mut pdus = Vec::with_capacity(ids.len());
        for part in ids.chunks(BESIDE) {
            let mut asked = JoinSet::new();
            for id in part {
                let (neighbours, server, id) = (self.neighbours.clone(), self.server.to_owned(), id.clone());
                asked.spawn(async move { (neighbours.event(&server, &id).await, id) });
            }
            while let Some(answer) = asked.join_next().await {
                let (event, id) = answer.map_err(|error| Unanswered::Unreachable(error.to_string()))?;
                match event {
                    Ok(event) => pdus.extend(self.readable(&[event])?.into_iter().filter(|pdu| pdu.event_id == id)),
                    Err(Unanswered::Refused(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(self.signed(pdus).await)
    }

    /// Asks for the states after events that nobody tells. Who sends an event must tell what it follows: only what was fetched
    /// may follow a gap, unless others were asked, too.
    async fn fetch_states(&self, lacking: &mut Vec<Lacking>, tries: u32) -> Result<(), GatherError> {
        // Those that were sent, whose sender must tell what they follow.
        let is_sent = |event: &Lacking| event.arrival.staged.is_some() && tries < SEEKERS;
        self.fetch_edges(lacking, is_sent).await?;
        let at_hand: FxHashSet<OwnedEventId> = lacking.iter().map(|event| event.arrival.pdu.event_id.clone()).collect();
        for event in lacking.iter_mut() {
            if is_sent(event) || event.prev_events.is_empty() || event.prev_events.iter().any(|id| at_hand.contains(id))
            {
                continue;
            }
            event.arrival.told_state = self.told_after(&event.prev_events).await?;
        }
        Ok(())
    }

    /// The states after missing events, one by one: what is known of others right before the same event counts beside them.
    async fn told_after(&self, missing: &[OwnedEventId]) -> Result<Option<Told>, GatherError> {
        let mut told = Vec::with_capacity(missing.len());
        for id in missing.iter().take(STATES_AFTER) {
            let Some(before) = self.fetch_state(id).await? else { return Ok(None) };
            // What allows it has come with the state.
            let unknown = self.unknown(vec![id.clone()]).await?;
            let events = self.fetch_single(&unknown).await?;
            self.keep_outliers(events).await?;
            // Only state takes a place; what is refused takes none.
            told.push((id.clone(), before.iter().chain([id]).cloned().collect()));
        }
        Ok(Some(Told::After(told.into())))
    }

    /// Fetches the events that are missing right before others, by themselves. One that follows what is known is no edge.
    async fn fetch_edges(
        &self,
        lacking: &mut Vec<Lacking>,
        is_sent: impl Fn(&Lacking) -> bool,
    ) -> Result<(), GatherError> {
        let at_hand: FxHashSet<OwnedEventId> = lacking.iter().map(|event| event.arrival.pdu.event_id.clone()).collect();
        let missing = lacking.iter().filter(|event| event.arrival.told_state.is_none() && !is_sent(event));
        let missing = missing.flat_map(|event| &event.prev_events).filter(|id| !at_hand.contains(*id));
        let mut edges = self.unknown(missing.cloned().collect()).await?;
        edges.truncate(EDGES);
        let mut outliers = Vec::new();
        for pdu in self.fetch_single(&edges).await? {
            if self.without_state(pdu.prev_events.clone()).await?.is_empty() {
                let arrival = Arrival::of(pdu);
                lacking.push(Lacking { arrival, prev_events: Vec::new(), auth_events: Vec::new() });
            } else {
                outliers.push(pdu);
            }
        }
        self.keep_outliers(outliers).await
    }

    /// Those of these events the state after which is not known.
    pub(super) async fn without_state(&self, ids: Vec<OwnedEventId>) -> Result<Vec<OwnedEventId>, GatherError> {
        let room = self.room.clone();
        let read = self.rooms.inner.store.read(move |tx| {
            let mut without = Vec::new();
            for id in &ids {
                if tx.events().by_id(&room, id)?.and_then(|row| row.state_after()).is_none() {
                    without.push(id.clone());
                }
            }
            Ok(without)
        });
        Ok(read.await?)
    }

    /// The state before an event as the other server tells it; all of it is here afterwards.
    pub(super) async fn fetch_state(
        &self,
        event_id: &OwnedEventId,
    ) -> Result<Option<Arc<[OwnedEventId]>>, GatherError> {
        self.budget.state()?;
        let told = match self.neighbours.state_ids(self.server, &self.room.room_id, event_id).await {
            Ok(told) => told,
            Err(Unanswered::Refused(_)) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // A state that is cut off is no state.
        if told.state.len() > MOST || told.auth_chain.len() > MOST {
            return Ok(None);
        }
        self.budget.events(told.state.len() + told.auth_chain.len())?;
        let missing = self.unknown(told.state.iter().chain(&told.auth_chain).cloned().collect()).await?;
        let events = if missing.len() > SINGLE {
            match self.neighbours.state(self.server, &self.room.room_id, event_id).await {
                Ok(state) if state.state.len() <= MOST && state.auth_chain.len() <= MOST => {
                    let all: Vec<String> = state.state.into_iter().chain(state.auth_chain).collect();
                    self.wanted(&all, told.state.iter().cloned()).await?
                }
                Ok(_) | Err(Unanswered::Refused(_)) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        } else {
            self.fetch_single(&missing).await?
        };
        self.keep_outliers(events).await?;
        Ok(Some(told.state.into()))
    }

    /// Those of these events that are not here.
    pub(super) async fn unknown(&self, ids: Vec<OwnedEventId>) -> Result<Vec<OwnedEventId>, GatherError> {
        let room = self.room.clone();
        let read = self.rooms.inner.store.read(move |tx| {
            let mut unknown = Vec::new();
            for id in &ids {
                if tx.events().by_id(&room, id)?.is_none() {
                    unknown.push(id.clone());
                }
            }
            unknown.sort_unstable();
            unknown.dedup();
            Ok(unknown)
        });
        Ok(read.await?)
    }

    /// Keeps events whose past we don't know, what allows them first.
    pub(super) async fn keep_outliers(&self, pdus: Vec<Arc<Pdu>>) -> Result<(), GatherError> {
        self.rooms.keep_outliers(self.room, sorted(pdus, By::Auth)).await.map_err(Into::into)
    }
}

impl Rooms {
    /// Writes outliers, in this order, behind everybody else.
    pub(crate) async fn keep_outliers(&self, room: &Arc<RoomRecord>, pdus: Vec<Arc<Pdu>>) -> Result<(), StoreError> {
        let id = &room.room_id;
        for part in pdus.chunks(OUTLIERS) {
            let (part, room, config) = (part.to_vec(), room.clone(), self.inner.config.clone());
            let write = self.inner.store.write_quiet(vec![Noun::Room(room.num)], move |tx| {
                let mut appender = Appender::at_tip(tx, room.clone(), &config)?;
                for pdu in &part {
                    appender.receive_outlier(pdu)?;
                }
                let has_staged = appender.has_staged;
                appender.write().map(|_| has_staged)
            });
            if write.await? {
                self.wake_worker(id.clone());
            }
        }
        Ok(())
    }
}
