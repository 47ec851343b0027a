//! The one way in: drafts become events of a room.
//!
//! An [`Appender`] stands at a room's tip inside a write closure. [`Appender::admit`] decides and seals one draft after the
//! other, each on the state that those before it left, and writes nothing; [`Appender::write`] then writes all of them.
//! Spec: server-server API, "PDUs"; each room version, "Authorization rules".

use std::sync::Arc;

use hearth_matrix::policy_server::POLICY_EVENT;
use hearth_matrix::ruma::{OwnedEventId, OwnedUserId, UserId};
use hearth_matrix::{Draft, Pdu, Place, PowerLevels, RoomVersionRules, V1Place, auth, canonical, hash, seal};
use hearth_store::{
    DecidedMember, DeviceNum, EventNum, EventPush, KeptEvent, MemberChange, Membership, NewEvent, RoomRecord,
    SnapshotNum, Standing, StateKey, StoreError, Tip, Tx, Visibility,
};
use rustc_hash::FxHashMap;

use crate::unread::{Thread, ThreadCounts};
use crate::{RoomError, RoomsConfig, stripped};

/// `prev_events` of one event at most; a dummy event would merge the rest.
pub(crate) const PREV_EVENTS: usize = 10;

/// An answer that the store could give; refusals are values.
pub(crate) type Decision<T> = Result<Result<T, RoomError>, StoreError>;

/// A draft with what is needed to make an event of it.
#[derive(Clone, Debug)]
pub(crate) struct Submission {
    pub(crate) sender: OwnedUserId,
    pub(crate) draft: Draft,
    pub(crate) txn: Option<(DeviceNum, Arc<str>)>,
    /// Now, milliseconds since the epoch.
    pub(crate) ts: i64,
    /// The event id's own part in room versions 1 and 2.
    pub(crate) opaque: String,
    /// An event is made also where the same state stands already.
    pub(crate) again: bool,
}

/// Events on their way into one room.
pub(crate) struct Appender<'t, 'c> {
    pub(crate) tx: &'t mut Tx<'c>,
    pub(crate) room: Arc<RoomRecord>,
    pub(crate) config: &'t RoomsConfig,
    pub(crate) tip: Tip,
    pub(crate) pending: Vec<Pending>,
    /// State that pending events have set.
    overlay: Overlay,
    /// Ids of the forward extremities, in the order of the tip.
    pub(crate) extremity_ids: Vec<OwnedEventId>,
    threads: ThreadCounts,
    /// The state of which the tip's policy event is.
    pub(crate) policy_at: Option<SnapshotNum>,
    /// The rest of the state has come: what was judged without it is judged anew.
    pub(crate) completing: bool,
    /// Events were staged that are to be judged anew: the room's worker is to be woken.
    pub(crate) has_staged: bool,
}

/// An admitted event. What needs writing to be known (snapshots) is found when the appender settles.
pub(crate) struct Pending {
    pub(crate) num: EventNum,
    pub(crate) pdu: Arc<Pdu>,
    pub(crate) standing: Standing,
    pub(crate) prev_events: Vec<EventNum>,
    pub(crate) auth_events: Vec<EventNum>,
    pub(crate) snapshots: Option<Snapshots>,
    pub(crate) visibility: Visibility,
    pub(crate) room_order: i64,
    pub(crate) counted: Counted,
    pub(crate) txn: Option<(DeviceNum, Arc<str>)>,
    pub(crate) redacts: Option<EventNum>,
    pub(crate) redacted_by: Option<EventNum>,
    pub(crate) replaces: Option<EventNum>,
    pub(crate) member: Option<MemberStep>,
    pub(crate) decided: Vec<DecidedMember>,
    pub(crate) aside: bool,
    /// It comes from before what we know: it takes no position.
    pub(crate) history: bool,
    /// It is for us to send it to the other servers in the room.
    pub(crate) outbound: bool,
    /// It was judged on a part of the state.
    pub(crate) partial: bool,
}

/// What an event means to those who have not read it.
#[derive(Default)]
pub(crate) struct Counted {
    push: EventPush,
    /// Running count of the main timeline.
    unread: i64,
    thread: Option<Thread>,
    /// Its sender is ours and has read so far.
    reads: bool,
}

/// The states around a pending event.
#[derive(Clone, Copy)]
pub(crate) struct Snapshots {
    /// Before it; none for the create event.
    pub(crate) before: Option<SnapshotNum>,
    /// Of state events that stand: after it on its own branch.
    pub(crate) after: Option<SnapshotNum>,
    /// The room's current state after it, if it moved.
    pub(crate) current: Option<SnapshotNum>,
}

pub(crate) struct MemberStep {
    pub(crate) local: bool,
    pub(crate) before: Option<Membership>,
    pub(crate) after: Membership,
    pub(crate) stripped: Option<String>,
    /// Members who are joined or invited with it.
    pub(crate) counts: (i64, i64),
}

/// State events by type and state key.
type Overlay = FxHashMap<(Box<str>, Box<str>), (EventNum, Arc<Pdu>)>;

impl<'t, 'c> Appender<'t, 'c> {
    /// At the tip of a room.
    pub(crate) fn at_tip(
        tx: &'t mut Tx<'c>,
        room: Arc<RoomRecord>,
        config: &'t RoomsConfig,
    ) -> Result<Self, StoreError> {
        let tip = tx.rooms().tip(room.num)?.unwrap_or_else(Tip::empty);
        let mut extremity_ids = Vec::with_capacity(tip.extremities.len());
        for num in &tip.extremities {
            extremity_ids.push(tx.events().id(*num)?);
        }
        let (overlay, threads) = (FxHashMap::default(), ThreadCounts::default());
        let (pending, completing, policy_at) = (Vec::new(), false, tip.snapshot);
        let has_staged = false;
        Ok(Self { tx, room, config, tip, pending, overlay, extremity_ids, threads, policy_at, completing, has_staged })
    }

    /// In a room to be, right after its create event.
    pub(crate) fn new_room(
        tx: &'t mut Tx<'c>,
        room: Arc<RoomRecord>,
        create: Arc<Pdu>,
        config: &'t RoomsConfig,
    ) -> Decision<Self> {
        if let Err(refusal) = auth::check(room.rules, &create, |_, _| None) {
            return Ok(Err(refusal.into()));
        }
        let mut new = Self {
            tx,
            room,
            config,
            tip: Tip::empty(),
            pending: Vec::new(),
            overlay: FxHashMap::default(),
            extremity_ids: Vec::new(),
            threads: ThreadCounts::default(),
            policy_at: None,
            completing: false,
            has_staged: false,
        };
        new.stand(create, None, Vec::new(), None, None)?;
        Ok(Ok(new))
    }

    /// The room's present state at one place, pending events included.
    pub(crate) fn state(&mut self, kind: &str, state_key: &str) -> Result<Option<(EventNum, Arc<Pdu>)>, StoreError> {
        if !self.overlay.is_empty()
            && let Some(found) = self.overlay.get(&(Box::from(kind), Box::from(state_key)))
        {
            return Ok(Some(found.clone()));
        }
        let Some(snapshot) = self.tip.snapshot else { return Ok(None) };
        let (Some(kind), Some(state_key)) = (self.tx.string_num(kind)?, self.tx.string_num(state_key)?) else {
            return Ok(None);
        };
        match self.tx.state().get(self.room.num, snapshot, StateKey { kind, state_key })? {
            Some(num) => Ok(Some((num, self.tx.events().pdu(&self.room, num)?))),
            None => Ok(None),
        }
    }

    /// None of ours is in the room, but others are: what we know of it is old or hearsay, and the way in leads through them.
    pub(crate) fn is_away(&self) -> bool {
        self.tip.joined_local == 0 && (self.tip.joined > 0 || self.tip.snapshot.is_none())
    }

    /// A user's present membership.
    pub(crate) fn membership(&mut self, user: &UserId) -> Result<Option<Membership>, StoreError> {
        let member = self.state("m.room.member", user.as_str())?;
        Ok(member.and_then(|(_, pdu)| pdu.membership().and_then(Membership::from_spec)))
    }

    /// The rules of the room's version.
    pub(crate) fn room_rules(&self) -> &'static RoomVersionRules {
        self.room.rules
    }

    /// The present power levels.
    pub(crate) fn power_levels(&mut self) -> Result<PowerLevels, StoreError> {
        let create = self.state("m.room.create", "")?.map(|(_, pdu)| pdu);
        let power_levels = self.state("m.room.power_levels", "")?.map(|(_, pdu)| pdu);
        Ok(PowerLevels::new(create, power_levels, self.room.rules))
    }

    /// The `m.room.policy` event among pending events that are not part of the tip's state yet.
    pub(crate) fn pending_policy(&self) -> Option<EventNum> {
        if self.overlay.is_empty() {
            return None;
        }
        self.overlay.get(&(Box::from(POLICY_EVENT), Box::from(""))).map(|(num, _)| *num)
    }

    /// An event that was judged and is not yet written is what came of a client's transaction.
    pub(crate) fn note_txn(&mut self, event_id: &OwnedEventId, txn: Option<(DeviceNum, Arc<str>)>) {
        if let Some(pending) = self.pending.iter_mut().rfind(|pending| pending.pdu.event_id == *event_id) {
            pending.txn = txn;
        }
    }

    /// Events that were admitted and not yet written.
    pub(crate) fn pending_pdus(&self) -> impl Iterator<Item = &Pdu> {
        self.pending.iter().map(|pending| &*pending.pdu)
    }

    /// Joined members, those of pending events included.
    pub(crate) fn joined_members(&self) -> u64 {
        u64::try_from(self.tip.joined).unwrap_or(0)
    }

    pub(crate) fn is_ours(&self, user: &UserId) -> bool {
        user.server_name() == &*self.config.server_name
    }

    /// Users of ours who come in with pending events.
    pub(crate) fn pending_joins(&self) -> Vec<Box<str>> {
        let joins = self.pending.iter().filter(|pending| {
            pending.member.as_ref().is_some_and(|member| {
                member.local && member.after == Membership::Join && member.before != Some(Membership::Join)
            })
        });
        joins.filter_map(|pending| pending.pdu.state_key.as_deref().map(Box::from)).collect()
    }

    /// The thread of a pending event; none if there is no such event.
    pub(crate) fn pending_thread(&self, event_id: &OwnedEventId) -> Option<Option<OwnedEventId>> {
        let pending = self.pending.iter().find(|pending| pending.pdu.event_id == *event_id)?;
        Some(pending.counted.thread.as_ref().map(|thread| thread.root.clone()))
    }

    /// The running count of a thread, pending events included.
    fn count_of_thread(&mut self, root: &OwnedEventId) -> Result<i64, StoreError> {
        match self.threads.get(root) {
            Some(count) => Ok(*count),
            None => self.stored_count_of_thread(root),
        }
    }

    /// The event that this device made before by the same request: with this transaction id, on the same path.
    pub(crate) fn of_txn(
        &mut self,
        device: DeviceNum,
        txn_id: &str,
        draft: &Draft,
    ) -> Result<Option<OwnedEventId>, StoreError> {
        let is_same = |pdu: &Pdu| {
            let same_target = draft.redacts.is_none() || pdu.redacts.is_none() || draft.redacts == pdu.redacts;
            *pdu.kind == *draft.kind && same_target
        };
        let is_pending = |pending: &&Pending| {
            pending.txn.as_ref().is_some_and(|txn| txn.0 == device && &*txn.1 == txn_id) && is_same(&pending.pdu)
        };
        if let Some(pending) = self.pending.iter().find(is_pending) {
            return Ok(Some(pending.pdu.event_id.clone()));
        }
        for num in self.tx.events().of_txn(self.room.num, device, txn_id)? {
            let pdu = self.tx.events().pdu(&self.room, num)?;
            if is_same(&pdu) {
                return Ok(Some(pdu.event_id.clone()));
            }
        }
        Ok(None)
    }

    /// Decides on one draft; if it may be, it is sealed and stands at the tip. Returns its event id: that of an older event
    /// if this is a transaction sent again, or state that stands already.
    pub(crate) fn admit(&mut self, submission: Submission) -> Decision<OwnedEventId> {
        if self.extremity_ids.len() > PREV_EVENTS {
            return self.admit_on_newest(submission);
        }
        let Submission { sender, draft, txn, ts, opaque, again } = submission;
        if let Some((device, txn_id)) = &txn
            && let Some(event_id) = self.of_txn(*device, txn_id, &draft)?
        {
            return Ok(Ok(event_id));
        }
        let rules = self.room.rules;
        if let Err(refusal) = draft.check(rules) {
            return Ok(Err(refusal.into()));
        }
        let replaced = match &draft.state_key {
            Some(key) => self.state(&draft.kind, key)?,
            None => None,
        };
        if let Some((_, old)) = &replaced
            && !again
            && old.sender == sender
            && *old.content.get() == *canonical_content(&draft)
        {
            return Ok(Ok(old.event_id.clone()));
        }

        let types = match auth::auth_types(&draft.kind, &sender, draft.state_key.as_deref(), &draft.content, rules) {
            Ok(types) => types,
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let mut auth_state: Vec<(EventNum, Arc<Pdu>)> = Vec::with_capacity(types.len() + 1);
        for (kind, key) in &types {
            auth_state.extend(self.state(&kind.to_string(), key)?);
        }
        let auth_ids: Vec<OwnedEventId> = auth_state.iter().map(|(_, pdu)| pdu.event_id.clone()).collect();
        let auth_nums: Vec<EventNum> = auth_state.iter().map(|(num, _)| *num).collect();
        if draft.kind != "m.room.create" && !auth_state.iter().any(|(_, pdu)| &*pdu.kind == "m.room.create") {
            auth_state.extend(self.state("m.room.create", "")?);
        }

        let redacts = match self.redaction_target(&sender, &draft)? {
            Ok(target) => target,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let sealed = self.seal(&sender, draft, ts, &opaque, &auth_ids)?;
        let pdu = match sealed {
            Ok(pdu) => Arc::new(pdu),
            Err(refusal) => return Ok(Err(refusal.into())),
        };
        let fetch = |kind: &str, key: &str| {
            auth_state.iter().find(|(_, pdu)| pdu.is_state(kind, key)).map(|(_, pdu)| pdu.clone())
        };
        if let Err(refusal) = auth::check(rules, &pdu, fetch) {
            return Ok(Err(refusal.into()));
        }
        self.stand(pdu.clone(), replaced, auth_nums, redacts, txn)?;
        Ok(Ok(pdu.event_id.clone()))
    }

    fn seal(
        &mut self,
        sender: &UserId,
        draft: Draft,
        ts: i64,
        opaque: &str,
        auth_events: &[OwnedEventId],
    ) -> Result<Result<Pdu, hearth_matrix::SealError>, StoreError> {
        use hearth_matrix::ruma::RoomVersionId::{V1, V2};
        let is_create = draft.kind == "m.room.create";
        let names_room = !(is_create && self.room.rules.authorization.room_create_event_id_as_room_id);
        let with_hashes = matches!(self.room.version, V1 | V2);
        let mut referenced = FxHashMap::default();
        if with_hashes {
            for id in self.extremity_ids.clone().iter().chain(auth_events) {
                if let Some(hash) = self.reference_hash(id)? {
                    referenced.insert(id.clone(), hash);
                }
            }
        }
        let reference_hash = |id: &hearth_matrix::ruma::EventId| referenced.get(id).cloned();
        let prev_events = &self.extremity_ids[..];
        let place = Place {
            room_id: names_room.then_some(&*self.room.room_id),
            sender,
            prev_events,
            auth_events,
            depth: u64::try_from(self.tip.depth).unwrap_or(0).saturating_add(1).min(canonical::MAX_INT as u64),
            origin_server_ts: ts,
            server_name: &self.config.server_name,
            v1: with_hashes.then_some(V1Place { opaque, reference_hash: &reference_hash }),
        };
        Ok(seal(draft, &place, &self.config.signing_key.get(), self.room.rules))
    }

    fn reference_hash(&mut self, id: &OwnedEventId) -> Result<Option<String>, StoreError> {
        use base64::Engine as _;
        let pending = self.pending.iter().find(|p| p.pdu.event_id == *id).map(|p| p.pdu.clone());
        let pdu = match pending {
            Some(pdu) => pdu,
            None => match self.tx.events().num(&self.room, id)? {
                Some(num) => self.tx.events().pdu(&self.room, num)?,
                None => return Ok(None),
            },
        };
        let event =
            canonical::Object::parse(&pdu.json).map_err(|error| StoreError::Damaged(format!("event {id}: {error}")))?;
        Ok(Some(hash::BASE64.encode(hash::reference_hash(&event, self.room.rules))))
    }

    /// The event that a redaction takes away; refused if the sender may not. From room version 3 on the auth rules leave this
    /// to whoever applies the redaction.
    fn redaction_target(&mut self, sender: &UserId, draft: &Draft) -> Decision<Option<EventNum>> {
        let Some(target) = draft.redacts.as_ref().filter(|_| draft.kind == "m.room.redaction") else {
            return Ok(Ok(None));
        };
        let pending = self.pending.iter().find(|p| p.pdu.event_id == *target);
        let found = match pending {
            Some(pending) => Some((pending.num, pending.pdu.sender.clone())),
            None => match self.tx.events().by_id(&self.room, target)? {
                Some(row) => {
                    let sender = self.tx.string(row.sender)?;
                    let sender = OwnedUserId::try_from(&*sender)
                        .map_err(|_| StoreError::Damaged(format!("sender {sender} of {target}")))?;
                    Some((row.num, sender))
                }
                None => None,
            },
        };
        let Some((num, redacted_sender)) = found else {
            // Another server may have it, and it may come here yet; whether it is redacted then is judged when it comes.
            let room = self.room.clone();
            return Ok(Ok(Some(self.tx.events().intern(&room, target)?)));
        };
        // Other servers accept any redaction from the event's own server: what our users may, we decide here.
        let levels = self.power_levels()?;
        if redacted_sender != *sender && levels.user(sender) < levels.redact() {
            return Ok(Err(RoomError::Forbidden("You don't have permission to redact this event".into())));
        }
        Ok(Ok(Some(num)))
    }

    /// Puts a sealed and allowed event at the tip.
    fn stand(
        &mut self,
        pdu: Arc<Pdu>,
        replaced: Option<(EventNum, Arc<Pdu>)>,
        auth_events: Vec<EventNum>,
        mut redacts: Option<EventNum>,
        txn: Option<(DeviceNum, Arc<str>)>,
    ) -> Result<(), StoreError> {
        let num = self.tx.events().next_num_above(&auth_events)?;
        if let Some(target) = redacts
            && !self.pending.iter().any(|pending| pending.num == target)
            && self.tx.events().row(target)?.is_none()
        {
            self.tx.events().await_target(target, num)?;
            redacts = None;
        }
        let setting = self.state("m.room.history_visibility", "")?;
        let visibility = visibility_at(&pdu, setting.as_ref().map(|(_, event)| &**event));
        let member = match pdu.state_pair() {
            Some(("m.room.member", target)) => {
                let target = target.to_owned();
                self.member_step(&pdu, &target, replaced.as_ref())?
            }
            _ => None,
        };
        self.tip.room_order += 1;
        self.tip.depth = i64::try_from(pdu.depth).unwrap_or(i64::MAX);
        let partial = self.tip.partial && self.stands_on_part(&self.tip.extremities.clone())?;
        let prev_events = std::mem::replace(&mut self.tip.extremities, vec![num]);
        self.extremity_ids = vec![pdu.event_id.clone()];
        if let Some((kind, key)) = pdu.state_pair() {
            self.overlay.insert((kind.into(), key.into()), (num, pdu.clone()));
        }
        let counted = self.count(&pdu, member.as_ref())?;
        // Where all are ours there is nobody to send it to; who comes in later gets the state.
        let about_another = member.as_ref().is_some_and(|member| !member.local);
        let others = self.tip.partial || self.tip.joined > self.tip.joined_local;
        let outbound = self.room.federate && (about_another || others);
        self.pending.push(Pending {
            num,
            standing: Standing::Live,
            snapshots: None,
            redacted_by: None,
            decided: Vec::new(),
            aside: false,
            history: false,
            outbound,
            partial,
            prev_events,
            auth_events: if pdu.state_key.is_some() { auth_events } else { Vec::new() },
            visibility,
            room_order: self.tip.room_order,
            counted,
            txn,
            redacts,
            replaces: replaced.map(|(num, _)| num),
            member,
            pdu,
        });
        Ok(())
    }

    /// Counts an event for those who have not read it.
    pub(crate) fn count(&mut self, pdu: &Pdu, member: Option<&MemberStep>) -> Result<Counted, StoreError> {
        let push = self.push(pdu)?;
        let counts = i64::from(push.outcome > 0);
        let thread = match self.thread_of(pdu)? {
            Some(root) => {
                let unread = self.count_of_thread(&root)? + counts;
                self.threads.insert(root.clone(), unread);
                Some(Thread { root, unread })
            }
            None => {
                self.tip.unread += counts;
                None
            }
        };
        // A change of one's profile, which reaches all rooms, says nothing of what one has read.
        let is_profile = member.is_some_and(|member| member.before == Some(member.after));
        let reads = !is_profile && self.is_ours(&pdu.sender);
        Ok(Counted { push, unread: self.tip.unread, thread, reads })
    }

    fn member_step(
        &mut self,
        pdu: &Pdu,
        target: &str,
        replaced: Option<&(EventNum, Arc<Pdu>)>,
    ) -> Result<Option<MemberStep>, StoreError> {
        let Some(after) = pdu.membership().and_then(Membership::from_spec) else { return Ok(None) };
        let before = replaced.and_then(|(_, old)| old.membership()).and_then(Membership::from_spec);
        let Ok(user_id) = <&UserId>::try_from(target) else { return Ok(None) };
        let local = self.count_member(user_id, before, after);
        let stripped = match after {
            Membership::Invite | Membership::Knock if local => Some(stripped::stripped_state(self, pdu)?),
            _ => None,
        };
        let counts = (self.tip.joined, self.tip.invited);
        Ok(Some(MemberStep { local, before, after, stripped, counts }))
    }

    /// Counts a member whose membership changes; whether he is ours.
    pub(crate) fn count_member(&mut self, user_id: &UserId, before: Option<Membership>, after: Membership) -> bool {
        let local = user_id.server_name() == &*self.config.server_name;
        for (membership, by) in before.map(|m| (m, -1)).into_iter().chain([(after, 1)]) {
            match membership {
                Membership::Join => {
                    self.tip.joined += by;
                    self.tip.joined_local += if local { by } else { 0 };
                }
                Membership::Invite => self.tip.invited += by,
                Membership::Knock => self.tip.knocked += by,
                Membership::Leave | Membership::Ban => {}
            }
        }
        local
    }

    /// Writes a new room and all that was admitted; hands the transaction back.
    pub(crate) fn write_new(self) -> Result<&'t mut Tx<'c>, StoreError> {
        let room = self.room.clone();
        self.tx.rooms().insert(&room)?;
        self.write()
    }

    /// Finds the states around what is pending. Afterwards the tip has the room's current state, nothing stands in front of it.
    pub(crate) fn settle(&mut self) -> Result<(), StoreError> {
        for pending in self.pending.iter_mut().filter(|pending| pending.snapshots.is_none()) {
            self.tx.events().foresee(pending.num, &pending.pdu);
            let before = self.tip.snapshot;
            let mut after = None;
            if let Some((kind, key)) = pending.pdu.state_pair() {
                let place = StateKey { kind: self.tx.intern(kind)?, state_key: self.tx.intern(key)? };
                after = Some(self.tx.state().apply(self.room.num, before, &[(place, Some(pending.num))])?);
                self.tip.snapshot = after;
            }
            pending.snapshots = Some(Snapshots { before, after, current: after });
        }
        self.overlay.clear();
        Ok(())
    }

    /// Writes all that was admitted, and moves the tip; hands the transaction back.
    pub(crate) fn write(mut self) -> Result<&'t mut Tx<'c>, StoreError> {
        self.settle()?;
        self.find_policy()?;
        let Self { tx, room, tip, pending, .. } = self;
        let mut events: Vec<NewEvent> = Vec::with_capacity(pending.len());
        for Pending {
            num,
            pdu,
            standing,
            prev_events,
            auth_events,
            snapshots,
            visibility,
            room_order,
            counted: Counted { push, unread, thread, reads },
            txn,
            redacts,
            redacted_by,
            replaces,
            member,
            decided,
            aside,
            history,
            outbound,
            partial,
        } in pending
        {
            if partial {
                tx.partials().add(room.num, num)?;
            }
            let Some(Snapshots { before: snapshot_before, after: state_after, current: snapshot_after }) = snapshots
            else {
                continue; // All are settled.
            };
            let relates_to = match relation(&pdu) {
                Some((parent, rel)) => {
                    let in_batch = events.iter().find(|event| event.pdu.event_id == parent).map(|event| event.num);
                    let parent = match in_batch {
                        Some(num) => num,
                        None => tx.events().intern(&room, &parent)?,
                    };
                    Some((parent, rel))
                }
                None => None,
            };
            if standing != Standing::Live || history {
                let threaded =
                    relates_to.as_ref().filter(|(_, rel)| history && rel == "m.thread").map(|(root, _)| *root);
                let kept = KeptEvent {
                    num,
                    pdu,
                    standing,
                    prev_events,
                    auth_events,
                    snapshot_before,
                    snapshot_after: state_after,
                    visibility,
                    room_order,
                    redacted_by,
                    relates_to: if history { relates_to } else { None },
                    thread: threaded,
                };
                tx.events().keep(&room, &kept)?;
                if let Some(target) = redacts.filter(|_| standing == Standing::Live) {
                    match events.iter_mut().find(|event: &&mut NewEvent| event.num == target) {
                        Some(event) => drop(event.redacted_by.get_or_insert(num)),
                        None => tx.events().redact_quietly(room.num, target, num)?,
                    }
                }
                continue;
            }
            let member = match (member, pdu.state_key.as_deref()) {
                (Some(step), Some(target)) => member_change(tx, target, step)?,
                _ => None,
            };
            let unread_thread = thread.as_ref().map_or(0, |thread| thread.unread);
            let thread = match thread {
                Some(Thread { root, .. }) => {
                    let in_batch = events.iter().find(|event| event.pdu.event_id == root).map(|event| event.num);
                    let num = match in_batch {
                        Some(num) => num,
                        None => tx.events().intern(&room, &root)?,
                    };
                    Some((num, root.as_str().into()))
                }
                None => None,
            };
            let comes_in = |member: &&MemberChange| {
                member.local && member.after == Membership::Join && member.before != Some(Membership::Join)
            };
            let joins = member.as_ref().filter(comes_in).map(|member| member.user);
            events.push(NewEvent {
                num,
                pdu,
                prev_events,
                auth_events,
                snapshot_before,
                snapshot_after,
                state_after,
                aside,
                visibility,
                room_order,
                push,
                unread,
                unread_thread,
                reads,
                joins,
                txn,
                redacts,
                redacted_by,
                relates_to,
                thread,
                replaces,
                member,
                decided,
                outbound,
            });
        }
        tx.events().append(&room, &events, &tip)?;
        Ok(tx)
    }
}

/// What a member event does, as the store wants to know it.
pub(crate) fn member_change(
    tx: &mut Tx<'_>,
    target: &str,
    step: MemberStep,
) -> Result<Option<MemberChange>, StoreError> {
    let Ok(user_id) = <&UserId>::try_from(target) else { return Ok(None) };
    let MemberStep { local, before, after, stripped, counts } = step;
    let server = tx.intern(user_id.server_name().as_str())?;
    Ok(Some(MemberChange { user: tx.intern(target)?, server, local, before, after, stripped, counts }))
}

fn canonical_content(draft: &Draft) -> String {
    serde_json::to_string(&draft.content).unwrap_or_default()
}

/// The history visibility at an event, by the setting before it. Who may see the room before it is changed, or after, may see
/// that it changes.
pub(crate) fn visibility_at(pdu: &Pdu, setting: Option<&Pdu>) -> Visibility {
    let before = setting.map_or(Visibility::Shared, history_visibility);
    match pdu.is_state("m.room.history_visibility", "") {
        true => before.or(history_visibility(pdu)),
        false => before,
    }
}

fn history_visibility(event: &Pdu) -> Visibility {
    #[derive(serde::Deserialize)]
    struct Content {
        history_visibility: Option<String>,
    }
    let content = serde_json::from_str::<Content>(event.content.get()).ok();
    Visibility::from_spec(content.and_then(|c| c.history_visibility).as_deref())
}

/// What an event relates to, and how.
pub(crate) fn relation(pdu: &Pdu) -> Option<(OwnedEventId, String)> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(rename = "m.relates_to")]
        relates_to: Relation,
    }
    #[derive(serde::Deserialize)]
    struct Relation {
        rel_type: String,
        event_id: OwnedEventId,
    }
    if pdu.state_key.is_some() || !pdu.content.get().contains("m.relates_to") {
        return None;
    }
    let content: Content = serde_json::from_str(pdu.content.get()).ok()?;
    Some((content.relates_to.event_id, content.relates_to.rel_type))
}
