//! Remote events in the room's turn: the checks of the specification in their order, and what follows from the outcome.
//!
//! Spec: server-server API, "Checks performed on receipt of a PDU", 4 to 7; "Rejection", "Soft failure".

use std::collections::BTreeMap;
use std::sync::Arc;

use hearth_matrix::auth::{self, AuthEvent};
use hearth_matrix::policy_server::PolicyServer;
use hearth_matrix::ruma::{EventId, OwnedEventId, OwnedServerName, UserId};
use hearth_matrix::{Pdu, PowerLevels};
use hearth_store::{
    DecidedMember, EventNum, Membership, PartialRoom, SnapshotNum, StagedNum, Standing, StateDifference, StateKey,
    StoreError, Visibility,
};
use rustc_hash::FxHashSet;

use super::install::Counts;
use super::place::Whereabouts;
use super::policy::{NotRecommended, Recommendation};
use crate::append::{
    Appender, Counted, Decision, MemberStep, PREV_EVENTS, Pending, Snapshots, Submission, member_change, visibility_at,
};
use crate::{RoomError, resolution, stripped};

/// How far room order may run ahead of the newest event: the stated depth is a stranger's word.
const AHEAD: i64 = 10_000;
/// Branches of a room that are kept in any case, the newest; of the others those with a state of their own.
const BRANCHES: usize = 50;
/// Branches of a room at most.
const MOST_BRANCHES: usize = 500;
/// Failed events walked through to find what an event takes the place of.
pub(super) const FAILED: usize = 100;

/// A remote event whose signatures were checked, ready to be judged.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    pub(crate) pdu: Arc<Pdu>,
    /// Its row among the staged.
    pub(crate) staged: Option<StagedNum>,
    /// State as another server told it, where what comes before cannot be had.
    pub(crate) told_state: Option<Told>,
    /// Nobody has the auth events that it names and we lack.
    pub(crate) hopeless: bool,
    /// It comes from before what we know: its place in the room is at most this, and the present does not judge it.
    pub(crate) history: Option<i64>,
    /// Its place behind the gaps of the room was looked for, as far as that goes.
    pub(crate) sought: bool,
    /// We let it in for another server: it is for us to send it on.
    pub(crate) outbound: bool,
    /// The room's policy server was asked, and does not recommend it.
    pub(crate) not_recommended: Option<NotRecommended>,
}

/// State that another server told.
#[derive(Clone, Debug)]
pub(crate) enum Told {
    /// Before the event.
    Before(Arc<[OwnedEventId]>),
    /// After those of the events right before it that are missing.
    After(Arc<[(OwnedEventId, Vec<OwnedEventId>)]>),
    /// The same as snapshots.
    Known(Arc<[(OwnedEventId, SnapshotNum)]>),
}

/// What became of a remote event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the room.
    Accepted,
    /// It was here already.
    Known,
    /// The room's current state does not allow it: kept, not shown.
    SoftFailed(String),
    /// Its auth events or the state before it do not allow it: kept, not shown.
    Rejected(String),
    /// Not judged: these events before it, or that allow it, are not here.
    Missing {
        /// Of its `prev_events`.
        prev_events: Vec<OwnedEventId>,
        /// Of its `auth_events`.
        auth_events: Vec<OwnedEventId>,
    },
    /// Not judged: it may come before what we know, behind a gap.
    Unplaced,
    /// Not judged: this policy server is to be asked first.
    Unsigned(PolicyServer),
}

impl Verdict {
    /// Whether the event was judged; else it waits for something.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Accepted | Self::Known | Self::SoftFailed(_) | Self::Rejected(_) => true,
            Self::Missing { .. } | Self::Unplaced | Self::Unsigned(_) => false,
        }
    }
}

/// What is known of an event that something hangs on.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) standing: Standing,
    /// The state after it on its own branch; none if it is not known.
    pub(super) after: Option<SnapshotNum>,
    room_order: i64,
    /// The event that redacted it.
    redacted_by: Option<EventNum>,
}

/// Events that something hangs on.
pub(super) type KnownEvents = Vec<(EventNum, Known)>;

/// An event that was judged.
struct Judged {
    num: EventNum,
    pdu: Arc<Pdu>,
    standing: Standing,
    prev_events: KnownEvents,
    /// Of the events right before it, those that are not here.
    missing: Vec<EventNum>,
    auth_events: Vec<EventNum>,
    before: Option<SnapshotNum>,
    gap: bool,
    history: Option<i64>,
    outbound: bool,
    partial: bool,
    /// The event that redacted it while it did not stand yet.
    redacted_by: Option<EventNum>,
}

/// An event's own auth events, as far as they are here.
pub(super) struct OwnAuth {
    events: Vec<(EventNum, AuthEvent)>,
    missing: Vec<OwnedEventId>,
}

impl OwnAuth {
    /// Without the create event that only the id of a version 12 room names.
    fn named_by(&self, pdu: &Pdu) -> Vec<EventNum> {
        let named = self.events.iter().filter(|(_, event)| pdu.auth_events.contains(&event.pdu.event_id));
        named.map(|(num, _)| *num).collect()
    }
}

impl Appender<'_, '_> {
    /// Judges one remote event on the state that those before it left.
    pub(crate) fn receive(&mut self, arrival: &Arrival) -> Result<Verdict, StoreError> {
        self.settle()?;
        let verdict = self.judge_arrival(arrival)?;
        if let Some(staged) = arrival.staged
            && verdict.is_final()
        {
            self.tx.staged().unstage(staged)?;
        }
        Ok(verdict)
    }

    pub(super) fn judge_arrival(&mut self, arrival: &Arrival) -> Result<Verdict, StoreError> {
        let pdu = &arrival.pdu;
        let known = self.tx.events().num(&self.room, &pdu.event_id)?;
        let before_now = match known {
            Some(num) => self.known(num)?,
            None => None,
        };
        if before_now
            .is_some_and(|known| matches!(known.standing, Standing::Live | Standing::Partial | Standing::SoftFailed))
        {
            return Ok(Verdict::Known);
        }
        let redacted_by = before_now.and_then(|known| known.redacted_by);
        let (prev_events, missing_prev) = self.prev_events(pdu)?;
        let own = self.own_auth(pdu)?;
        let lacks_prev = !missing_prev.is_empty() && !arrival.is_told(&missing_prev);
        if lacks_prev || !own.missing.is_empty() && !arrival.hopeless {
            let prev_events = if lacks_prev { missing_prev } else { Vec::new() };
            return Ok(Verdict::Missing { prev_events, auth_events: own.missing });
        }
        let place = self.place_of(arrival, known, &prev_events)?;
        if matches!(place, Whereabouts::Unknown(_)) && !arrival.sought {
            return Ok(Verdict::Unplaced);
        }

        let num = self.number(pdu, &own)?;
        let mut before = self.state_before(arrival, &prev_events, &missing_prev)?;
        let nums: Vec<EventNum> = prev_events.iter().map(|(num, _)| *num).collect();
        let is_told = !missing_prev.is_empty() && matches!(arrival.told_state, Some(Told::Before(_)));
        let partial = !is_told && self.stands_on_part(&nums)?;
        let mut judged_on = before;
        if let Some(known) = before.filter(|_| partial) {
            let (filled, resolved) = self.with_claimed(known, &own)?;
            (before, judged_on) = (Some(filled), Some(resolved));
        }
        // The present does not judge history, nor while a part of it is not known.
        let is_history = matches!(place, Whereabouts::Behind(_));
        let present = (!is_history && !self.tip.partial).then_some(self.tip.snapshot);
        let outcome = self.checks(pdu, &own, judged_on, present)?;
        let (standing, verdict) = match outcome {
            Outcome::Allowed => match self.recommendation(arrival)? {
                Recommendation::Recommended => (Standing::Live, Verdict::Accepted),
                Recommendation::Not(reason) => (Standing::SoftFailed, Verdict::SoftFailed(reason)),
                Recommendation::Unasked(policy) => return Ok(Verdict::Unsigned(policy)),
            },
            Outcome::SoftFailed(reason) => (Standing::SoftFailed, Verdict::SoftFailed(reason)),
            Outcome::Rejected(reason) => (Standing::Rejected, Verdict::Rejected(reason)),
        };
        let gap = !missing_prev.is_empty();
        let missing = self.note_gap(num, &missing_prev)?;
        match standing {
            Standing::Rejected => self.await_auth(num, &own)?,
            _ => self.judge_anew_what_waits_for(num)?,
        }
        let auth_events = own.named_by(pdu);
        let (history, outbound) = (place.ceiling(), arrival.outbound);
        let pdu = pdu.clone();
        let judged = Judged {
            num,
            pdu,
            standing,
            prev_events,
            missing,
            auth_events,
            before,
            gap,
            history,
            outbound,
            partial,
            redacted_by,
        };
        self.stand_remote(judged)?;
        Ok(verdict)
    }

    /// An event whose state we don't know (an auth event, or state at a gap), judged by its own auth events alone.
    pub(crate) fn receive_outlier(&mut self, pdu: &Arc<Pdu>) -> Result<Verdict, StoreError> {
        self.settle()?;
        if let Some(num) = self.tx.events().num(&self.room, &pdu.event_id)?
            && self.known(num)?.is_some()
        {
            return Ok(Verdict::Known);
        }
        let own = self.own_auth(pdu)?;
        if !own.missing.is_empty() {
            return Ok(Verdict::Missing { prev_events: Vec::new(), auth_events: own.missing });
        }
        let num = self.number(pdu, &own)?;
        let refusal = self.check_own(pdu, &own);
        let (standing, verdict) = match refusal {
            Some(reason) => (Standing::Rejected, Verdict::Rejected(reason)),
            None => (Standing::Outlier, Verdict::Accepted),
        };
        match standing {
            Standing::Rejected => self.await_auth(num, &own)?,
            _ => self.judge_anew_what_waits_for(num)?,
        }
        let auth_events = own.named_by(pdu);
        let judged = Judged {
            num,
            pdu: pdu.clone(),
            standing,
            prev_events: Vec::new(),
            missing: Vec::new(),
            auth_events,
            before: None,
            gap: false,
            history: None,
            outbound: false,
            partial: false,
            redacted_by: None,
        };
        self.pend(judged, Snapshots { before: None, after: None, current: None }, Visibility::Shared)?;
        Ok(verdict)
    }

    /// Why an event can't be by its own auth events, if so.
    pub(super) fn refused_by_own(&mut self, pdu: &Pdu) -> Result<Option<RoomError>, StoreError> {
        let own = self.own_auth(pdu)?;
        if !own.missing.is_empty() {
            return Ok(Some(RoomError::BadEvent("what allows the join was not sent along".into())));
        }
        Ok(self.check_own(pdu, &own).map(RoomError::Forbidden))
    }

    /// A room taken over, or taken up again: our join, and the state before it as another server told it.
    ///
    /// With `servers`, which may tell the rest, it is a part of that state.
    pub(super) fn take_over(
        &mut self,
        join: &Arc<Pdu>,
        told: &[OwnedEventId],
        counts: Option<Counts>,
        servers: Option<&[OwnedServerName]>,
    ) -> Decision<()> {
        let pdu = join;
        let own = self.own_auth(pdu)?;
        let base = self.tip.snapshot.filter(|_| servers.is_some());
        let told = self.snapshot_on(base, told)?;
        let (before, judged_on) = match servers {
            Some(_) => self.with_claimed(told, &own)?,
            None => (told, told),
        };
        let (before, judged_on) = (Some(before), Some(judged_on));
        if !own.missing.is_empty() {
            return Ok(Err(RoomError::BadEvent("what allows the join was not sent along".into())));
        }
        if let Some(reason) = self.check_own(pdu, &own) {
            return Ok(Err(RoomError::Forbidden(reason)));
        }
        if let Some(refusal) = self.refused_by(pdu, judged_on)? {
            return Ok(Err(RoomError::Forbidden(refusal)));
        }
        if let Some(num) = self.tx.events().num(&self.room, &pdu.event_id)?
            && self.known(num)?.is_some_and(|known| known.standing == Standing::Live)
        {
            return Ok(Ok(()));
        }
        let num = self.number(pdu, &own)?;
        if let Some(counts) = counts.filter(|_| self.tip.snapshot.is_none()) {
            self.tip.joined = counts.joined;
            self.tip.invited = counts.invited;
            self.tip.knocked = counts.knocked;
            self.tip.joined_local = counts.joined_local;
            self.tip.snapshot = before;
        }
        // Branches that we knew lie behind the gap.
        self.tip.extremities.clear();
        self.extremity_ids.clear();
        let (prev_events, missing) = self.prev_events(pdu)?;
        let missing = self.note_gap(num, &missing)?;
        let auth_events = own.named_by(pdu);
        let standing = Standing::Live;
        self.tip.partial = servers.is_some();
        match servers {
            Some(servers) => {
                let partial = PartialRoom { servers: servers.to_vec() };
                self.tx.partials().begin(self.room.num, &partial)?;
            }
            None => self.tx.partials().end(self.room.num)?,
        }
        let judged = Judged {
            num,
            pdu: pdu.clone(),
            standing,
            prev_events,
            missing,
            auth_events,
            before,
            gap: true,
            history: None,
            outbound: false,
            partial: servers.is_some(),
            redacted_by: None,
        };
        self.stand_remote(judged)?;
        // Also where the state is as it was, the room begins anew here.
        if let Some(snapshots) = self.pending.last_mut().and_then(|pending| pending.snapshots.as_mut()) {
            snapshots.current = self.tip.snapshot;
        }
        Ok(Ok(()))
    }

    pub(super) fn known(&mut self, num: EventNum) -> Result<Option<Known>, StoreError> {
        if let Some(pending) = self.pending.iter().rfind(|pending| pending.num == num) {
            let after = pending.snapshots.and_then(|snapshots| snapshots.after.or(snapshots.before));
            let Pending { standing, room_order, redacted_by, .. } = *pending;
            return Ok(Some(Known { standing, after, room_order, redacted_by }));
        }
        let row = self.tx.events().row(num)?.filter(|row| row.room == self.room.num);
        Ok(row.map(|row| Known {
            standing: row.standing,
            after: row.state_after(),
            room_order: row.room_order,
            redacted_by: row.redacted_by,
        }))
    }

    /// The events right before one, and those of them whose state we don't know.
    pub(super) fn prev_events(&mut self, pdu: &Pdu) -> Result<(KnownEvents, Vec<OwnedEventId>), StoreError> {
        let (mut found, mut missing) = (Vec::with_capacity(pdu.prev_events.len()), Vec::new());
        for id in &pdu.prev_events {
            let known = match self.tx.events().num(&self.room, id)? {
                Some(num) => self.known(num)?.map(|known| (num, known)),
                None => None,
            };
            match known.filter(|(_, known)| known.after.is_some()) {
                Some(known) if !found.iter().any(|(num, _)| *num == known.0) => found.push(known),
                Some(_) => {}
                None => missing.push(id.clone()),
            }
        }
        Ok((found, missing))
    }

    pub(super) fn own_auth(&mut self, pdu: &Pdu) -> Result<OwnAuth, StoreError> {
        let mut own = OwnAuth { events: Vec::with_capacity(pdu.auth_events.len()), missing: Vec::new() };
        let mut ids = pdu.auth_events.clone();
        if self.room.rules.authorization.room_create_event_id_as_room_id && &*pdu.kind != "m.room.create" {
            ids.extend(OwnedEventId::try_from(self.room.room_id.as_str().replacen('!', "$", 1)));
        }
        for id in ids {
            let known = match self.tx.events().num(&self.room, &id)? {
                Some(num) => self.known(num)?.map(|known| (num, known)),
                None => None,
            };
            match known {
                Some((num, known)) => {
                    let pdu = self.tx.events().pdu(&self.room, num)?;
                    own.events.push((num, AuthEvent { pdu, rejected: known.standing == Standing::Rejected }));
                }
                None => own.missing.push(id),
            }
        }
        Ok(own)
    }

    /// The number of an event that is judged now. That of a state event must be greater than those of the events that allow it:
    /// one that was heard of before they came, or judged without them, gets another.
    fn number(&mut self, pdu: &Pdu, own: &OwnAuth) -> Result<EventNum, StoreError> {
        let old = self.tx.events().intern(&self.room, &pdu.event_id)?;
        let auth: Vec<EventNum> = own.events.iter().map(|(num, _)| *num).collect();
        if pdu.state_key.is_none() || auth.iter().all(|num| *num < old) {
            return Ok(old);
        }
        let new = self.tx.events().renumber(&self.room, pdu, old, &auth)?;
        for pending in &mut self.pending {
            let named = pending.prev_events.iter_mut().chain(&mut pending.auth_events);
            for num in named.chain([&mut pending.num]).filter(|num| **num == old) {
                *num = new;
            }
        }
        Ok(new)
    }

    /// Notes what is missing right before an event; their numbers.
    fn note_gap(&mut self, num: EventNum, missing: &[OwnedEventId]) -> Result<Vec<EventNum>, StoreError> {
        let mut nums = Vec::with_capacity(missing.len());
        for id in missing {
            let missing = self.tx.events().intern(&self.room, id)?;
            self.tx.events().add_gap(self.room.num, num, missing)?;
            nums.push(missing);
        }
        Ok(nums)
    }

    fn state_before(
        &mut self,
        arrival: &Arrival,
        prev_events: &[(EventNum, Known)],
        missing: &[OwnedEventId],
    ) -> Result<Option<SnapshotNum>, StoreError> {
        let mut states: Vec<SnapshotNum> = prev_events.iter().filter_map(|(_, known)| known.after).collect();
        match &arrival.told_state {
            _ if missing.is_empty() => {}
            Some(Told::Before(told)) => return self.snapshot_on(None, told).map(Some),
            Some(Told::After(told)) => {
                for (_, told) in told.iter().filter(|(id, _)| missing.contains(id)) {
                    states.push(self.snapshot_on(None, told)?);
                }
            }
            Some(Told::Known(told)) => {
                states.extend(told.iter().filter(|(id, _)| missing.contains(id)).map(|(_, state)| *state));
            }
            None => {}
        }
        match states[..] {
            [] => Ok(None),
            _ => resolution::resolve(self.tx, &self.room, &states).map(Some),
        }
    }

    /// A state that another server told, without what we refused ourselves; a part of it, over what was known before.
    fn snapshot_on(&mut self, base: Option<SnapshotNum>, told: &[OwnedEventId]) -> Result<SnapshotNum, StoreError> {
        let mut entries = BTreeMap::new();
        for id in told {
            let Some(num) = self.tx.events().num(&self.room, id)? else { continue };
            let Some(known) = self.known(num)? else { continue };
            if known.standing == Standing::Rejected {
                continue;
            }
            let pdu = self.tx.events().pdu(&self.room, num)?;
            if let Some((kind, key)) = pdu.state_pair() {
                let place = StateKey { kind: self.tx.intern(kind)?, state_key: self.tx.intern(key)? };
                entries.insert(place, Some(num));
            }
        }
        let entries: Vec<_> = entries.into_iter().collect();
        self.tx.state().apply(self.room.num, base, &entries)
    }

    /// Whether one of these events was judged on a part of the state.
    pub(crate) fn stands_on_part(&mut self, events: &[EventNum]) -> Result<bool, StoreError> {
        if !self.tip.partial {
            return Ok(false);
        }
        if self.pending.iter().any(|pending| pending.partial && events.contains(&pending.num)) {
            return Ok(true);
        }
        let nums: Vec<i64> = events.iter().map(|event| event.0).collect();
        self.tx.partials().any(self.room.num, &nums)
    }

    /// A part of a state with the members that an event claims and it does not know; and what of its claims holds against it.
    ///
    /// Where a state is not known whole, nobody can tell whether somebody is in the room but by the events that allow his: they
    /// are believed until the rest is here, unless what is known speaks against it.
    fn with_claimed(&mut self, known: SnapshotNum, own: &OwnAuth) -> Result<(SnapshotNum, SnapshotNum), StoreError> {
        let (mut missing, mut others) = (BTreeMap::new(), BTreeMap::new());
        for (num, event) in own.events.iter().filter(|(_, event)| !event.rejected) {
            let Some((kind, key)) = event.pdu.state_pair() else { continue };
            let place = StateKey { kind: self.tx.intern(kind)?, state_key: self.tx.intern(key)? };
            match self.tx.state().get(self.room.num, known, place)? {
                Some(there) if there == *num => {}
                None if kind == "m.room.member" => drop(missing.insert(place, Some(*num))),
                _ => drop(others.insert(place, Some(*num))),
            }
        }
        let mut apply = |base, entries: BTreeMap<StateKey, Option<EventNum>>| match entries.is_empty() {
            true => Ok(base),
            false => self.tx.state().apply(self.room.num, Some(base), &entries.into_iter().collect::<Vec<_>>()),
        };
        let filled = apply(known, missing)?;
        let claimed = apply(filled, others)?;
        Ok((filled, resolution::resolve(self.tx, &self.room, &[filled, claimed])?))
    }

    pub(super) fn check_own(&self, pdu: &Pdu, own: &OwnAuth) -> Option<String> {
        let rules = self.room.rules;
        if let Err(refusal) = pdu.check_lengths() {
            return Some(refusal.to_string());
        }
        let fetch = |id: &EventId| {
            own.events.iter().find(|(_, event)| event.pdu.event_id == id).map(|(_, event)| event.clone())
        };
        if let Err(refusal) = auth::check_own_auth_events(rules, pdu, fetch) {
            return Some(format!("auth events: {refusal}"));
        }
        let state = |kind: &str, key: &str| {
            own.events.iter().find(|(_, event)| event.pdu.is_state(kind, key)).map(|(_, event)| event.pdu.clone())
        };
        auth::check(rules, pdu, state).err().map(|refusal| format!("by its auth events: {refusal}"))
    }

    pub(super) fn checks(
        &mut self,
        pdu: &Pdu,
        own: &OwnAuth,
        before: Option<SnapshotNum>,
        present: Option<Option<SnapshotNum>>,
    ) -> Result<Outcome, StoreError> {
        if let Some(reason) = self.check_own(pdu, own) {
            return Ok(Outcome::Rejected(reason));
        }
        if let Some(refusal) = self.refused_by(pdu, before)? {
            return Ok(Outcome::Rejected(format!("by the state before it: {refusal}")));
        }
        if let Some(present) = present.filter(|present| *present != before)
            && let Some(refusal) = self.refused_by(pdu, present)?
        {
            return Ok(Outcome::SoftFailed(refusal));
        }
        Ok(Outcome::Allowed)
    }

    fn refused_by(&mut self, pdu: &Pdu, snapshot: Option<SnapshotNum>) -> Result<Option<String>, StoreError> {
        let rules = self.room.rules;
        let mut places = match auth::auth_types_of(pdu, rules) {
            Ok(places) => places,
            Err(refusal) => return Ok(Some(refusal.to_string())),
        };
        if !places.iter().any(|(kind, _)| *kind == "m.room.create") {
            places.push(("m.room.create", "".into()));
        }
        let mut state = Vec::with_capacity(places.len());
        for (kind, key) in &places {
            state.extend(self.state_in(snapshot, kind, key)?.map(|(_, pdu)| pdu));
        }
        let fetch = |kind: &str, key: &str| state.iter().find(|pdu| pdu.is_state(kind, key)).cloned();
        Ok(auth::check(rules, pdu, fetch).err().map(|refusal| refusal.to_string()))
    }

    pub(super) fn state_in(
        &mut self,
        snapshot: Option<SnapshotNum>,
        kind: &str,
        key: &str,
    ) -> Result<Option<(EventNum, Arc<Pdu>)>, StoreError> {
        let Some(snapshot) = snapshot else { return Ok(None) };
        let (Some(kind), Some(state_key)) = (self.tx.string_num(kind)?, self.tx.string_num(key)?) else {
            return Ok(None);
        };
        match self.tx.state().get(self.room.num, snapshot, StateKey { kind, state_key })? {
            Some(num) => Ok(Some((num, self.tx.events().pdu(&self.room, num)?))),
            None => Ok(None),
        }
    }

    /// A rejected event is judged anew when the auth events come that it lacked, or when they stand after all.
    fn await_auth(&mut self, num: EventNum, own: &OwnAuth) -> Result<(), StoreError> {
        for id in &own.missing {
            let auth = self.tx.events().intern(&self.room, id)?;
            self.tx.events().await_auth(auth, num)?;
        }
        for (auth, _) in own.events.iter().filter(|(_, event)| event.rejected) {
            self.tx.events().await_auth(*auth, num)?;
        }
        Ok(())
    }

    fn judge_anew_what_waits_for(&mut self, auth: EventNum) -> Result<(), StoreError> {
        for num in self.tx.events().take_awaiting(auth)? {
            let pdu = self.tx.events().pdu(&self.room, num)?;
            self.stage_anew(&pdu)?;
        }
        Ok(())
    }

    /// Has the room's worker judge an event once more.
    pub(super) fn stage_anew(&mut self, pdu: &Pdu) -> Result<(), StoreError> {
        let origin = self.tx.intern(pdu.sender.server_name().as_str())?;
        let ts = pdu.origin_server_ts;
        self.tx.staged().stage(&self.room, origin, &pdu.event_id, &pdu.json, ts, true)?;
        self.has_staged = true;
        Ok(())
    }

    /// Puts a judged event where it belongs; an accepted one moves the tip.
    fn stand_remote(&mut self, judged: Judged) -> Result<(), StoreError> {
        let Judged { num, pdu, before, .. } = &judged;
        let (num, before) = (*num, *before);
        let setting = self.state_in(before, "m.room.history_visibility", "")?;
        let visibility = visibility_at(pdu, setting.as_ref().map(|(_, event)| &**event));
        let mut after = None;
        if judged.standing != Standing::Rejected
            && let Some((kind, key)) = pdu.state_pair()
        {
            let place = StateKey { kind: self.tx.intern(kind)?, state_key: self.tx.intern(key)? };
            after = Some(self.tx.state().apply(self.room.num, before, &[(place, Some(num))])?);
        }
        let snapshots = Snapshots { before, after, current: None };
        let live = judged.standing == Standing::Live && judged.history.is_none();
        let event_id = pdu.event_id.clone();
        let prev: Vec<(EventNum, Standing)> =
            judged.prev_events.iter().map(|(num, known)| (*num, known.standing)).collect();
        let depth = i64::try_from(pdu.depth).unwrap_or(i64::MAX);
        let has_child = self.pend(judged, snapshots, visibility)?;
        if live {
            self.supersede(&prev)?;
            if !has_child {
                self.tip.extremities.insert(0, num);
                self.extremity_ids.insert(0, event_id);
            }
            self.tip.depth = self.tip.depth.max(depth);
            self.leave_old_branches()?;
            self.move_current(before)?;
            self.count_last()?;
        }
        Ok(())
    }

    /// Counts the newest pending event, whose state stands by now.
    fn count_last(&mut self) -> Result<(), StoreError> {
        let Some(mut last) = self.pending.pop() else { return Ok(()) };
        last.counted = self.count(&last.pdu, last.member.as_ref())?;
        self.pending.push(last);
        Ok(())
    }

    /// Puts a judged event among the pending. True if live events come right after it.
    fn pend(&mut self, judged: Judged, snapshots: Snapshots, visibility: Visibility) -> Result<bool, StoreError> {
        let Judged { num, pdu, standing, prev_events, missing, auth_events, before, .. } = judged;
        let Judged { gap, history, outbound, partial, redacted_by, .. } = judged;
        self.tx.events().foresee(num, &pdu);
        let child = self.tx.events().lowest_child(num)?;
        let child = child.into_iter().chain(history.map(|ceiling| ceiling + 1)).min();
        // Events that are here without their past keep their place below it, too.
        let mut below: Vec<i64> = prev_events.iter().map(|(_, known)| known.room_order).collect();
        for missing in &missing {
            below.extend(self.known(*missing)?.map(|known| known.room_order));
        }
        let room_order = self.room_order(&pdu, &below, child);
        let live = standing == Standing::Live && history.is_none();
        let replaces = match pdu.state_pair() {
            Some((kind, key)) if live => self.state_in(before, kind, key)?.map(|(num, _)| num),
            _ => None,
        };
        let redacts = if live || history.is_some() { self.remote_redaction(num, &pdu, before)? } else { None };
        let redacted_by = match redacted_by {
            Some(redaction) => Some(redaction),
            None => self.redacted_before(num, &pdu)?,
        };
        if live {
            self.tip.room_order = self.tip.room_order.max(room_order);
        }
        self.pending.push(Pending {
            num,
            standing,
            prev_events: prev_events.into_iter().map(|(num, _)| num).chain(missing).collect(),
            auth_events: if pdu.state_key.is_some() { auth_events } else { Vec::new() },
            snapshots: Some(snapshots),
            visibility,
            room_order,
            counted: Counted::default(),
            txn: None,
            redacts,
            redacted_by,
            replaces,
            member: None,
            decided: Vec::new(),
            aside: gap || redacted_by.is_some(),
            history: history.is_some(),
            outbound,
            partial,
            pdu,
        });
        Ok(child.is_some())
    }

    /// Near the stated depth, behind all that is known to come before, before all that is known to come behind.
    fn room_order(&self, pdu: &Pdu, below: &[i64], child: Option<i64>) -> i64 {
        let floor = below.iter().map(|order| order + 1).max().unwrap_or(i64::MIN);
        let depth = i64::try_from(pdu.depth).unwrap_or(i64::MAX);
        let wanted = depth.min(self.tip.room_order.saturating_add(AHEAD));
        let wanted = child.map_or(wanted, |child| wanted.min(child - 1));
        wanted.max(floor)
    }

    /// Takes the events before a new one off the tip; behind failed ones, those before them.
    fn supersede(&mut self, prev_events: &[(EventNum, Standing)]) -> Result<(), StoreError> {
        let mut todo = prev_events.to_vec();
        let mut seen: FxHashSet<EventNum> = todo.iter().map(|(num, _)| *num).collect();
        let mut failed = 0;
        while let Some((num, standing)) = todo.pop() {
            if let Some(at) = self.tip.extremities.iter().position(|extremity| *extremity == num) {
                self.tip.extremities.remove(at);
                self.extremity_ids.remove(at);
            }
            if matches!(standing, Standing::SoftFailed | Standing::Rejected) && failed < FAILED {
                failed += 1;
                let pdu = self.tx.events().pdu(&self.room, num)?;
                for id in &pdu.prev_events {
                    if let Some(num) = self.tx.events().num(&self.room, id)?
                        && seen.insert(num)
                        && let Some(known) = self.known(num)?
                    {
                        todo.push((num, known.standing));
                    }
                }
            }
        }
        Ok(())
    }

    /// Where nobody of ours may merge branches, a stranger could make them without end. An old one whose state a newer one has
    /// adds nothing to the current state; what follows it finds it all the same.
    fn leave_old_branches(&mut self) -> Result<(), StoreError> {
        if self.tip.extremities.len() <= BRANCHES {
            return Ok(());
        }
        let (mut kept, mut ids, mut states) = (Vec::new(), Vec::new(), FxHashSet::default());
        for (at, extremity) in self.tip.extremities.clone().into_iter().enumerate().take(MOST_BRANCHES) {
            let state = self.known(extremity)?.and_then(|known| known.after);
            if states.insert(state) || at < BRANCHES {
                kept.push(extremity);
                ids.push(self.extremity_ids[at].clone());
            }
        }
        (self.tip.extremities, self.extremity_ids) = (kept, ids);
        Ok(())
    }

    /// The current state anew, resolved over all forward extremities, and what its move does with the newest pending event.
    fn move_current(&mut self, before: Option<SnapshotNum>) -> Result<(), StoreError> {
        let old = self.tip.snapshot;
        if self.completing {
            // All memberships are compared at the end.
            return Ok(());
        }
        let mut states = Vec::with_capacity(self.tip.extremities.len());
        for extremity in self.tip.extremities.clone() {
            states.extend(self.known(extremity)?.and_then(|known| known.after));
        }
        let new = resolution::resolve(self.tx, &self.room, &states)?;
        self.tip.snapshot = Some(new);
        let Some(at) = self.pending.len().checked_sub(1) else { return Ok(()) };
        self.pending[at].aside |= before != old;
        if old == Some(new) {
            return Ok(());
        }
        if let Some(snapshots) = &mut self.pending[at].snapshots {
            snapshots.current = Some(new);
        }
        let differences = match old {
            Some(old) => self.tx.state().difference(self.room.num, old, new)?,
            None => Vec::new(),
        };
        let member = self.tx.intern("m.room.member")?;
        let num = self.pending[at].num;
        for difference in differences {
            let own = difference.after == Some(num);
            self.pending[at].aside |= !own;
            if difference.key.kind == member && !self.is_written(&difference)? {
                self.move_member(at, own, &difference)?;
            }
        }
        Ok(())
    }

    /// While a state comes in whole, its members are written before it stands.
    fn is_written(&mut self, difference: &StateDifference) -> Result<bool, StoreError> {
        if !self.tip.partial || difference.after.is_none() {
            return Ok(false);
        }
        let row = self.tx.members().current(self.room.num, difference.key.state_key)?;
        Ok(row.is_some_and(|row| Some(row.event) == difference.after))
    }

    fn move_member(&mut self, at: usize, own: bool, difference: &StateDifference) -> Result<(), StoreError> {
        let target = self.tx.string(difference.key.state_key)?;
        let Ok(user_id) = <&UserId>::try_from(&*target) else { return Ok(()) };
        let old = difference.before.map(|num| self.tx.events().pdu(&self.room, num)).transpose()?;
        let new = difference.after.map(|num| self.tx.events().pdu(&self.room, num)).transpose()?;
        let membership = |pdu: &Arc<Pdu>| pdu.membership().and_then(Membership::from_spec);
        let before = old.as_ref().and_then(membership);
        let after = new.as_ref().and_then(membership).unwrap_or(Membership::Leave);
        let local = self.count_member(user_id, before, after);
        let stripped = match &new {
            Some(pdu) if local && matches!(after, Membership::Invite | Membership::Knock) => {
                Some(stripped::stripped_state(self, pdu)?)
            }
            _ => None,
        };
        let counts = (self.tip.joined, self.tip.invited);
        let step = MemberStep { local, before, after, stripped, counts };
        if own {
            self.pending[at].member = Some(step);
            return Ok(());
        }
        let (Some(event), Some(pdu)) = (difference.after.or(difference.before), new.or(old)) else { return Ok(()) };
        let sender = self.tx.intern(pdu.sender.as_str())?;
        if let Some(change) = member_change(self.tx, &target, step)? {
            self.pending[at].decided.push(DecidedMember { event, sender, change });
        }
        Ok(())
    }

    /// What a redaction takes away, if it may and the target is here; else it waits for its target.
    fn remote_redaction(
        &mut self,
        num: EventNum,
        pdu: &Pdu,
        before: Option<SnapshotNum>,
    ) -> Result<Option<EventNum>, StoreError> {
        let Some(target) = pdu.redacts.as_ref().filter(|_| &*pdu.kind == "m.room.redaction") else { return Ok(None) };
        let target_num = self.tx.events().intern(&self.room, target)?;
        if self.known(target_num)?.is_none() {
            self.tx.events().await_target(target_num, num)?;
            return Ok(None);
        }
        let target = self.tx.events().pdu(&self.room, target_num)?;
        Ok(self.may_redact(pdu, &target, before)?.then_some(target_num))
    }

    /// The redaction that came before its target, if it may.
    fn redacted_before(&mut self, num: EventNum, pdu: &Pdu) -> Result<Option<EventNum>, StoreError> {
        for redaction in self.tx.events().redactions_of(num)? {
            let Some(row) = self.tx.events().row(redaction)?.filter(|row| row.standing == Standing::Live) else {
                continue;
            };
            let event = self.tx.events().pdu(&self.room, redaction)?;
            if self.may_redact(&event, pdu, row.snapshot_before)? {
                return Ok(Some(redaction));
            }
        }
        Ok(None)
    }

    /// In room versions 1 and 2 the auth rules have decided; later it takes the level, or the target's own server.
    fn may_redact(&mut self, redaction: &Pdu, target: &Pdu, before: Option<SnapshotNum>) -> Result<bool, StoreError> {
        let rules = self.room.rules;
        if rules.authorization.special_case_room_redaction
            || redaction.sender.server_name() == target.sender.server_name()
        {
            return Ok(true);
        }
        let create = self.state_in(before, "m.room.create", "")?.map(|(_, pdu)| pdu);
        let power_levels = self.state_in(before, "m.room.power_levels", "")?.map(|(_, pdu)| pdu);
        let levels = PowerLevels::new(create, power_levels, rules);
        Ok(levels.user(&redaction.sender) >= levels.redact())
    }

    /// Admits a draft where the tip has more branches than an event may name: on the state of the newest of them.
    pub(crate) fn admit_on_newest(&mut self, submission: Submission) -> Decision<OwnedEventId> {
        self.settle()?;
        let current = self.tip.snapshot;
        let others = self.tip.extremities.split_off(PREV_EVENTS);
        let other_ids = self.extremity_ids.split_off(PREV_EVENTS);
        let mut states = Vec::with_capacity(PREV_EVENTS);
        for extremity in self.tip.extremities.clone() {
            states.extend(self.known(extremity)?.and_then(|known| known.after));
        }
        let before = resolution::resolve(self.tx, &self.room, &states)?;
        self.tip.snapshot = Some(before);
        let pending = self.pending.len();
        let outcome = self.admit(submission)?;
        self.settle()?;
        self.tip.extremities.extend(others);
        self.extremity_ids.extend(other_ids);
        self.tip.snapshot = current;
        if self.pending.len() > pending {
            // What it does to memberships was judged beside the current state: it follows from the state's move instead.
            let last = self.pending.len() - 1;
            if let Some(snapshots) = &mut self.pending[last].snapshots {
                snapshots.current = None;
            }
            let target = self.pending[last].pdu.state_key.clone();
            if let (Some(step), Some(target)) = (self.pending[last].member.take(), target)
                && let Ok(user_id) = <&UserId>::try_from(&*target)
            {
                self.count_member(user_id, Some(step.after), step.before.unwrap_or(Membership::Leave));
            }
            self.move_current(Some(before))?;
        }
        Ok(outcome)
    }
}

/// The outcome of the checks.
pub(super) enum Outcome {
    Allowed,
    SoftFailed(String),
    Rejected(String),
}
