//! The rest of a room's state, after a join whose answer left members out.
//!
//! Meanwhile the room is *partial*: events are judged by what is known and by the members that they claim themselves, and noted.
//! A task beside the room's turn asks for the state at the edge of what is here, from one server after the other until one
//! tells; members are then written in bulk, where nobody sees them yet. Last, what was judged on a part of the state is judged
//! anew, and one commit makes the state whole. A restart takes this up again from the start; all of it can be done twice.
//! Spec: server-server API, `PUT /send_join`, `omit_members`.

use std::collections::BTreeMap;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedServerName, RoomId, UserId};
use hearth_store::{
    DecidedMember, EventNum, Membership, Noun, RoomNum, RoomRecord, SnapshotNum, Standing, StateKey, StoreError,
    StringNum,
};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::gather::{GatherError, Gathering};
use super::judge::{FAILED, Outcome};
use super::sorting::{By, sorted};
use super::worker::is_notified;
use super::{Arrival, Inbound, Told, Verdict};
use crate::append::{Appender, MemberStep, member_change, visibility_at};
use crate::{RoomError, Rooms, resolution, stripped};

/// Edges of what is known of a room, at most, behind which the state is asked for.
const EDGES: usize = 50;
/// Events judged anew in one commit.
const TOGETHER: i64 = 100;
/// Ids looked up in one read.
const LOOKED_UP: usize = 2_000;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(600);
/// Who asks for what is not here waits so long for it.
const WAIT: Duration = Duration::from_secs(60);
/// How often it is looked whether another node has it.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// A state as places and the events there.
type Entries = Vec<(StateKey, Option<EventNum>)>;
/// States after events that are not here.
type Behind = FxHashMap<OwnedEventId, Entries>;

/// How an attempt ended.
enum Attempt {
    /// The state is whole, or nobody of ours is in the room.
    Over,
    /// Something came in between: once more.
    Again,
}

impl Inbound {
    pub(super) fn completing(&self) -> MutexGuard<'_, FxHashMap<OwnedRoomId, Arc<Notify>>> {
        self.completing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody fetches the rest of a room's state. However that ends, the next one who asks for it finds nobody at work.
struct Completing {
    rooms: Rooms,
    room_id: OwnedRoomId,
    notify: Arc<Notify>,
}

impl Drop for Completing {
    fn drop(&mut self) {
        let inbound = &self.rooms.inner.inbound;
        let mut completing = inbound.completing();
        // Somebody else may be at work by now.
        if completing.get(&self.room_id).is_some_and(|notify| Arc::ptr_eq(notify, &self.notify)) {
            completing.remove(&self.room_id);
        }
        drop(completing);
        inbound.completed.notify_waiters();
    }
}

impl Rooms {
    /// Takes up what was not finished before the last stop.
    pub(super) async fn complete_all(&self) -> Result<(), RoomError> {
        let mut room = RoomNum(0);
        loop {
            let next = self.inner.store.read(move |tx| {
                let Some(num) = tx.partials().room_after(room)? else { return Ok(None) };
                Ok(Some(tx.rooms().by_num(num)?))
            });
            let Some(record) = next.await? else { return Ok(()) };
            room = record.num;
            self.complete_state(record.room_id.clone());
        }
    }

    /// Has the rest of a room's state fetched. If that is being done, what waits for a better time does not wait longer.
    pub(super) fn complete_state(&self, room_id: OwnedRoomId) {
        let notify = {
            let mut completing = self.inner.inbound.completing();
            if let Some(notify) = completing.get(&room_id) {
                notify.notify_one();
                return;
            }
            let notify = Arc::new(Notify::new());
            completing.insert(room_id.clone(), notify.clone());
            notify
        };
        let completing = Completing { rooms: self.clone(), room_id, notify };
        tokio::spawn(async move {
            let Completing { rooms, room_id, notify } = &completing;
            let mut pause = FIRST_PAUSE;
            loop {
                match rooms.try_servers(room_id).await {
                    Ok(Attempt::Over) => {
                        let mut completing = rooms.inner.inbound.completing();
                        // Somebody may have come in anew since it was looked.
                        if !is_notified(notify) {
                            completing.remove(room_id);
                            break;
                        }
                        continue;
                    }
                    Ok(Attempt::Again) => pause = FIRST_PAUSE,
                    Err(RoomError::Store(error)) if error == StoreError::Closed.to_string() => break,
                    Err(error) => tracing::warn!(%room_id, %error, "the rest of a room's state could not be fetched"),
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(LONGEST_PAUSE),
                    () = notify.notified() => pause = FIRST_PAUSE,
                }
            }
        });
    }

    /// Waits until all of a room's state is here.
    pub async fn whole(&self, room_id: &RoomId) -> Result<(), RoomError> {
        let deadline = Instant::now() + WAIT;
        loop {
            let completed = self.inner.inbound.completed.notified();
            if !self.is_partial(room_id).await? {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(RoomError::Unreachable("the room's members are not all known here yet".into()));
            }
            let next = deadline.min(Instant::now() + LOOK_AGAIN);
            let _ = tokio::time::timeout_at(next, completed).await;
        }
    }

    /// Whether a part of a room's state is not here yet.
    pub async fn is_partial(&self, room_id: &RoomId) -> Result<bool, RoomError> {
        let room_id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| match tx.rooms().by_id(&room_id)? {
            Some(room) => Ok(tx.rooms().tip(room.num)?.is_some_and(|tip| tip.partial)),
            None => Ok(false),
        });
        Ok(read.await?)
    }

    /// Asks one server after the other.
    async fn try_servers(&self, room_id: &OwnedRoomId) -> Result<Attempt, RoomError> {
        let id = room_id.clone();
        let read = self.inner.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&id)? else { return Ok(None) };
            let is_in = tx.rooms().tip(room.num)?.is_some_and(|tip| tip.partial && tip.joined_local > 0);
            let Some(partial) = tx.partials().of_room(room.num)?.filter(|_| is_in) else { return Ok(None) };
            let mut edges = Vec::new();
            for num in tx.partials().gaps(room.num)? {
                if tx.events().row(num)?.is_none_or(|row| row.state_after().is_none()) {
                    edges.push(tx.events().id(num)?);
                }
            }
            Ok(Some((room, partial.servers, edges)))
        });
        let Some((room, servers, edges)) = read.await? else { return Ok(Attempt::Over) };
        let Some(neighbours) = self.inner.inbound.neighbours.get() else { return Ok(Attempt::Over) };
        let mut refusal = RoomError::Unreachable("no server is known that could tell".into());
        // An event of the state that one server can't show another may have. If none has it, the state is what they can show.
        for at in 0..servers.len() * 2 {
            let (server, all) = (&servers[at % servers.len()], at < servers.len());
            let gathering = Gathering::new(self, neighbours, &room, server);
            match gathering.states_behind(&edges, all).await {
                Ok((behind, told)) => return self.complete_with(&room, behind, told).await,
                Err(GatherError::Store(error)) => return Err(error.into()),
                Err(GatherError::Room(error)) => refusal = error,
                Err(GatherError::Unanswered(error)) => refusal = RoomError::by(server, error),
                Err(error @ GatherError::TooMuch) => refusal = RoomError::BadEvent(error.to_string()),
            }
            tracing::debug!(%room_id, %server, error = %refusal, "a server did not tell the state of a room");
        }
        Err(refusal)
    }

    async fn complete_with(
        &self,
        room: &Arc<RoomRecord>,
        behind: Behind,
        told: Vec<OwnedEventId>,
    ) -> Result<Attempt, RoomError> {
        self.write_members(room, &told).await?;
        let behind = Arc::new(behind);
        loop {
            let (record, config, behind) = (room.clone(), self.inner.config.clone(), behind.clone());
            let write = self.inner.store.write(vec![Noun::Room(room.num)], move |tx| {
                Appender::at_tip(tx, record.clone(), &config)?.complete(&behind)
            });
            match write.await? {
                Progress::Done => {
                    // What waited for an event that came with it is staged.
                    self.wake_worker(room.room_id.clone());
                    return Ok(Attempt::Over);
                }
                Progress::More => {}
                Progress::Lacking => return Ok(Attempt::Again),
            }
        }
    }
}

impl Gathering<'_> {
    /// The states after events that are not here, and the events in them: all, or those that can be had.
    async fn states_behind(
        &self,
        edges: &[OwnedEventId],
        all: bool,
    ) -> Result<(Behind, Vec<OwnedEventId>), GatherError> {
        let mut behind = Behind::default();
        let mut members = Vec::new();
        for edge in edges.iter().take(EDGES) {
            // Each state may be as large as any, though most of it is the same.
            let of_edge = Gathering::new(self.rooms, self.neighbours, self.room, self.server);
            let told = of_edge.fetch_state(edge).await?;
            let told = told.ok_or(RoomError::NotFound("the server does not know the state there"))?;
            if !self.unknown(vec![edge.clone()]).await?.is_empty() {
                let event = of_edge.fetch_single(std::slice::from_ref(edge)).await?;
                self.keep_outliers(event).await?;
            }
            // Told is the state before it; if it is state itself, it comes last.
            let mut told = told.to_vec();
            told.push(edge.clone());
            if all && !self.unknown(told.clone()).await?.is_empty() {
                return Err(RoomError::NotFound("the server does not have all events of the state there").into());
            }
            let entries = self.entries(&told).await?;
            behind.insert(edge.clone(), entries);
            members.extend(told);
        }
        members.sort_unstable();
        members.dedup();
        Ok((behind, members))
    }

    /// What stands at which place; of two events for one place the later one.
    async fn entries(&self, told: &[OwnedEventId]) -> Result<Entries, GatherError> {
        let mut entries = BTreeMap::new();
        for part in told.chunks(LOOKED_UP) {
            let (part, room) = (part.to_vec(), self.room.clone());
            let read = self.rooms.inner.store.read(move |tx| {
                let mut found = Vec::with_capacity(part.len());
                for id in &part {
                    let row = tx.events().by_id(&room, id)?.filter(|row| row.standing != Standing::Rejected);
                    if let Some(row) = row
                        && let Some(state_key) = row.state_key
                    {
                        found.push((StateKey { kind: row.kind, state_key }, Some(row.num)));
                    }
                }
                Ok(found)
            });
            entries.extend(read.await?);
        }
        let create = self.rooms.inner.store.read(|tx| tx.string_num("m.room.create")).await?;
        if !entries.keys().any(|place| Some(place.kind) == create) {
            return Err(RoomError::BadEvent("the server told a state without m.room.create".into()).into());
        }
        Ok(entries.into_iter().collect())
    }
}

/// How far a commit has come.
enum Progress {
    /// The state is whole.
    Done,
    /// More is to be judged anew.
    More,
    /// A state is lacking that was not asked for.
    Lacking,
}

impl Appender<'_, '_> {
    /// Judges anew what was judged on a part of the state, some of it; after the last of it the state is whole.
    fn complete(mut self, behind: &Behind) -> Result<Progress, StoreError> {
        if !self.tip.partial {
            return Ok(Progress::Done);
        }
        self.completing = true;
        let nums = self.tx.partials().events(self.room.num, TOGETHER)?;
        let numbers: FxHashMap<OwnedEventId, EventNum> =
            nums.iter().map(|num| Ok((self.tx.events().id(*num)?, *num))).collect::<Result<_, StoreError>>()?;
        let room = self.room.clone();
        let pdus = self.tx.events().pdus(&room, &nums)?;
        let mut states = FxHashMap::default();
        for pdu in sorted(pdus, By::All) {
            let Some(num) = numbers.get(&pdu.event_id) else { continue };
            if !self.judge_anew(*num, &pdu, behind, &mut states)? {
                self.keep_tip()?;
                return Ok(Progress::Lacking);
            }
        }
        if nums.len() as i64 == TOGETHER {
            self.keep_tip()?;
            return Ok(Progress::More);
        }
        self.make_whole()?;
        Ok(Progress::Done)
    }

    /// Writes what there is so far: the tip may have moved without an event.
    fn keep_tip(mut self) -> Result<(), StoreError> {
        self.find_policy()?;
        let (room, tip) = (self.room.clone(), self.tip.clone());
        self.write()?.partials().keep_tip(&room, &tip);
        Ok(())
    }

    /// False if the state before it is not known, also now.
    fn judge_anew(
        &mut self,
        num: EventNum,
        pdu: &Arc<Pdu>,
        behind: &Behind,
        known: &mut FxHashMap<OwnedEventId, SnapshotNum>,
    ) -> Result<bool, StoreError> {
        let Some(row) = self.tx.events().row(num)? else { return Ok(true) };
        let (prev_events, missing) = self.prev_events(pdu)?;
        let mut states: Vec<SnapshotNum> = prev_events.iter().filter_map(|(_, known)| known.after).collect();
        for id in &missing {
            let state = match (known.get(id), behind.get(id)) {
                (Some(state), _) => *state,
                (None, Some(entries)) => self.tx.state().apply(self.room.num, None, entries)?,
                (None, None) => return Ok(false),
            };
            known.insert(id.clone(), state);
            states.push(state);
        }
        let before = resolution::resolve(self.tx, &self.room, &states)?;
        let own = self.own_auth(pdu)?;
        let outcome = self.checks(pdu, &own, Some(before), None)?;
        self.tx.partials().remove(self.room.num, num)?;
        let setting = self.state_in(Some(before), "m.room.history_visibility", "")?;
        let visibility = visibility_at(pdu, setting.as_ref().map(|(_, event)| &**event));
        match (row.standing, outcome) {
            (Standing::Rejected, Outcome::Allowed | Outcome::SoftFailed(_)) => {
                // It stands after all, and clients hear of it now.
                let told = missing.iter().filter_map(|id| Some((id.clone(), *known.get(id)?)));
                let told_state = Some(Told::Known(told.collect()));
                let arrival = Arrival { told_state, sought: true, ..Arrival::of(pdu.clone()) };
                if let Verdict::Unsigned(_) = self.judge_arrival(&arrival)? {
                    // The worker asks the policy server.
                    self.stage_anew(pdu)?;
                }
            }
            (_, Outcome::Rejected(reason)) => {
                self.tx.partials().revise(num, Standing::Rejected, Some(before), None, visibility)?;
                if row.standing != Standing::Rejected {
                    tracing::info!(event = %pdu.event_id, %reason, "an event does not stand before the whole state");
                    self.take_off(num, pdu)?;
                }
            }
            (standing, _) => {
                let after = match pdu.state_pair().filter(|_| standing != Standing::Rejected) {
                    Some((kind, key)) => {
                        let place = StateKey { kind: self.tx.intern(kind)?, state_key: self.tx.intern(key)? };
                        Some(self.tx.state().apply(self.room.num, Some(before), &[(place, Some(num))])?)
                    }
                    None => None,
                };
                self.tx.partials().revise(num, standing, Some(before), after, visibility)?;
            }
        }
        Ok(true)
    }

    /// Takes an event that does not stand off the tip, and what it redacted is there again.
    fn take_off(&mut self, num: EventNum, pdu: &Pdu) -> Result<(), StoreError> {
        if let Some(target) = &pdu.redacts
            && let Some(target) = self.tx.events().num(&self.room, target)?
        {
            self.tx.partials().restore(target, num)?;
        }
        let Some(at) = self.tip.extremities.iter().position(|extremity| *extremity == num) else { return Ok(()) };
        self.tip.extremities.remove(at);
        self.extremity_ids.remove(at);
        let mut todo = pdu.prev_events.clone();
        let mut seen: FxHashSet<OwnedEventId> = todo.iter().cloned().collect();
        let mut failed = 0;
        while let Some(id) = todo.pop() {
            let Some(prev) = self.tx.events().num(&self.room, &id)? else { continue };
            let Some(known) = self.known(prev)? else { continue };
            match known.standing {
                Standing::Live => {
                    if !self.tip.extremities.contains(&prev) && self.tx.events().lowest_child(prev)?.is_none() {
                        self.tip.extremities.push(prev);
                        self.extremity_ids.push(id);
                    }
                }
                Standing::Rejected | Standing::SoftFailed if failed < FAILED => {
                    failed += 1;
                    let before = self.tx.events().pdu(&self.room, prev)?;
                    todo.extend(before.prev_events.iter().filter(|id| seen.insert((*id).clone())).cloned());
                }
                Standing::Rejected | Standing::SoftFailed | Standing::Outlier | Standing::Partial => {}
            }
        }
        Ok(())
    }

    /// The state is whole: the room's present state follows, and with it memberships and servers.
    fn make_whole(mut self) -> Result<(), StoreError> {
        self.settle()?;
        let mut states = Vec::with_capacity(self.tip.extremities.len());
        for extremity in self.tip.extremities.clone() {
            states.extend(self.known(extremity)?.and_then(|known| known.after));
        }
        let new = resolution::resolve(self.tx, &self.room, &states)?;
        let old = self.tip.snapshot.replace(new);
        self.tip.partial = false;
        let room = self.room.clone();
        let mut members: FxHashMap<StringNum, (Membership, EventNum, bool)> = FxHashMap::default();
        for (user, membership, event, local) in self.tx.partials().members(room.num)? {
            members.insert(user, (membership, event, local));
        }
        let mut decided = Vec::new();
        let kind = self.tx.intern("m.room.member")?;
        let differences = match old {
            Some(old) => self.tx.state().difference(room.num, old, new)?,
            None => Vec::new(),
        };
        for difference in differences.iter().filter(|difference| difference.key.kind == kind) {
            let user = difference.key.state_key;
            let before = members.get(&user).copied();
            if difference.after.is_some() && before.map(|(_, event, _)| event) == difference.after {
                continue;
            }
            let Some(event) = difference.after.or(difference.before) else { continue };
            let pdu = self.tx.events().pdu(&room, event)?;
            let target = self.tx.string(user)?;
            let Ok(user_id) = <&UserId>::try_from(&*target) else { continue };
            let stands = difference.after.is_some();
            let after = pdu.membership().filter(|_| stands).and_then(Membership::from_spec);
            let after = after.unwrap_or(Membership::Leave);
            let local = self.is_ours(user_id);
            let stripped = match after {
                Membership::Invite | Membership::Knock if local => Some(stripped::stripped_state(&mut self, &pdu)?),
                _ => None,
            };
            let before = before.map(|(membership, _, _)| membership);
            let step = MemberStep { local, before, after, stripped, counts: (self.tip.joined, self.tip.invited) };
            let sender = self.tx.intern(pdu.sender.as_str())?;
            if let Some(change) = member_change(self.tx, &target, step)? {
                decided.push(DecidedMember { event, sender, change });
            }
            members.insert(user, (after, event, local));
        }
        // Who stands in what was told of one branch alone is not in the room if the branches together say so.
        let entries = self.tx.state().load(room.num, new)?;
        let places = entries.iter().filter(|entry| entry.key.kind == kind).map(|entry| entry.key.state_key);
        let stand: FxHashSet<StringNum> = places.collect();
        let mut gone: Vec<_> =
            members.iter().filter(|(user, _)| !stand.contains(user)).map(|(user, row)| (*user, *row)).collect();
        gone.sort_unstable_by_key(|(user, _)| *user);
        for (user, (membership, event, local)) in gone {
            if membership == Membership::Leave || event == EventNum(0) {
                continue;
            }
            let target = self.tx.string(user)?;
            let pdu = self.tx.events().pdu(&room, event)?;
            let counts = (self.tip.joined, self.tip.invited);
            let (before, after) = (Some(membership), Membership::Leave);
            let step = MemberStep { local, before, after, stripped: None, counts };
            let sender = self.tx.intern(pdu.sender.as_str())?;
            if let Some(change) = member_change(self.tx, &target, step)? {
                decided.push(DecidedMember { event, sender, change });
            }
            members.insert(user, (after, event, local));
        }
        // What others told of users of ours gives way to the state, also where it does not know of them.
        for row in self.tx.members().told_elsewhere(room.num)? {
            if decided.iter().any(|decided: &DecidedMember| decided.change.user == row.user) {
                continue;
            }
            let target = self.tx.string(row.user)?;
            let (before, after) = (Some(row.membership), Membership::Leave);
            let step = MemberStep { local: true, before, after, stripped: None, counts: (0, 0) };
            if let Some(change) = member_change(self.tx, &target, step)? {
                decided.push(DecidedMember { event: row.event, sender: row.sender, change });
            }
            members.insert(row.user, (after, row.event, true));
        }
        let servers = self.count_members(&members)?;
        self.find_policy()?;
        let tip = self.tip.clone();
        self.write()?.partials().complete(&room, &tip, &decided, &servers)
    }

    /// Counts the members of a state that is whole; the joined ones by server.
    fn count_members(
        &mut self,
        members: &FxHashMap<StringNum, (Membership, EventNum, bool)>,
    ) -> Result<Vec<(StringNum, i64)>, StoreError> {
        let mut servers: BTreeMap<OwnedServerName, i64> = BTreeMap::new();
        let tip = &mut self.tip;
        (tip.joined, tip.invited, tip.knocked, tip.joined_local) = (0, 0, 0, 0);
        for (user, (membership, _, local)) in members {
            match membership {
                Membership::Join => {
                    tip.joined += 1;
                    tip.joined_local += i64::from(*local);
                    if let Ok(user) = <&UserId>::try_from(&*self.tx.string(*user)?) {
                        *servers.entry(user.server_name().to_owned()).or_default() += 1;
                    }
                }
                Membership::Invite => tip.invited += 1,
                Membership::Knock => tip.knocked += 1,
                Membership::Leave | Membership::Ban => {}
            }
        }
        servers.into_iter().map(|(name, joined)| Ok((self.tx.intern(name.as_str())?, joined))).collect()
    }
}
