//! Events of ours in rooms with a policy server.
//!
//! The room's turn tells that there is one and does nothing. The event is then sealed at the tip, nothing of it written; the
//! policy server is asked beside the turn; with its signature the event is judged in the turn like one that came. Some messages
//! of a room are asked about at once, state alone: what comes between makes branches.
//! Spec: server-server API, "Asking for a Policy Server signature on an event".

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use hearth_matrix::policy_server::PolicyServer;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, RoomId};
use hearth_matrix::{Draft, Pdu, RoomVersionRules};
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Semaphore;

use super::Asker;
use crate::append::{Appender, Submission};
use crate::inbound::{Arrival, Verdict};
use crate::turn::{Done, Judgement, Step, Work};
use crate::{RoomError, Rooms};

/// Events of a room that are asked about at once: fewer than an event may name, so that the next one merges them all.
const AT_ONCE: u32 = 8;
/// Tries, where the room changes its policy server meanwhile.
const TRIES: usize = 3;

/// An event of ours that needs a policy server's signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsigned {
    pub(crate) is_state: bool,
}

/// Places for the events of each room that are asked about.
#[derive(Default)]
pub(super) struct Gates {
    rooms: Mutex<FxHashMap<OwnedRoomId, Weak<Semaphore>>>,
    /// Rooms in which something is done that nobody waits for.
    beside: Mutex<FxHashSet<OwnedRoomId>>,
}

impl Gates {
    fn of(&self, room_id: &RoomId) -> Arc<Semaphore> {
        let mut gates = self.rooms.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(gate) = gates.get(room_id).and_then(Weak::upgrade) {
            return gate;
        }
        gates.retain(|_, gate| gate.strong_count() > 0);
        let gate = Arc::new(Semaphore::new(AT_ONCE as usize));
        gates.insert(room_id.to_owned(), Arc::downgrade(&gate));
        gate
    }

    fn beside(&self) -> MutexGuard<'_, FxHashSet<OwnedRoomId>> {
        self.beside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a plan comes to at the tip.
enum Sealed {
    /// This event, if the policy server signs it.
    Event(Box<ToSign>),
    /// The room uses no policy server any more, or none for this.
    Plain,
    /// This event stands already.
    Stands(OwnedEventId),
    Nothing,
}

struct ToSign {
    pdu: Arc<Pdu>,
    draft: Draft,
    policy: PolicyServer,
    rules: &'static RoomVersionRules,
}

impl Rooms {
    /// Does one work in a room; the event that came of it. Durable when it returns. Where the room uses a policy server, that is
    /// asked first.
    pub(crate) async fn submit_work(&self, room_id: &RoomId, work: Work) -> Result<Option<OwnedEventId>, RoomError> {
        let again = work.clone();
        match self.inner.turns.done(room_id, work).await? {
            Done::Event(event_id) => Ok(Some(event_id)),
            Done::Nothing | Done::Judged(_) => Ok(None),
            Done::Unsigned(unsigned) => self.submit_signed(room_id, again, unsigned).await,
        }
    }

    /// The same for work that nobody waits for, one at a time in each room.
    pub(crate) fn submit_beside(&self, room_id: OwnedRoomId, work: Work) {
        if !self.inner.policies.gates.beside().insert(room_id.clone()) {
            return;
        }
        let rooms = self.clone();
        tokio::spawn(async move {
            if let Err(error) = rooms.submit_work(&room_id, work).await {
                tracing::debug!(%room_id, %error, "an event of ours did not come into a room");
            }
            rooms.inner.policies.gates.beside().remove(&room_id);
        });
    }

    async fn submit_signed(
        &self,
        room_id: &RoomId,
        work: Work,
        Unsigned { is_state }: Unsigned,
    ) -> Result<Option<OwnedEventId>, RoomError> {
        let gate = self.inner.policies.gates.of(room_id);
        // The semaphore is never closed.
        let _places = gate.acquire_many(if is_state { AT_ONCE } else { 1 }).await;
        for _ in 0..TRIES {
            let to_sign = match self.sealed_work(room_id, work.clone()).await? {
                Sealed::Event(to_sign) => to_sign,
                Sealed::Stands(event_id) => return Ok(Some(event_id)),
                Sealed::Nothing => return Ok(None),
                Sealed::Plain => match self.inner.turns.done(room_id, work.clone()).await? {
                    Done::Event(event_id) => return Ok(Some(event_id)),
                    Done::Nothing | Done::Judged(_) => return Ok(None),
                    Done::Unsigned(_) => continue,
                },
            };
            let ToSign { pdu, draft, policy, rules } = *to_sign;
            let signed = self.ask_policy_server(&policy, &pdu, rules, Asker::Person).await;
            let signed = signed.map_err(|error| error.into_error(policy.via))?;
            let event_id = signed.event_id.clone();
            match self.inner.turns.done(room_id, judging(work.clone(), signed, draft)).await? {
                Done::Event(event_id) => return Ok(Some(event_id)),
                Done::Nothing => return Ok(None),
                Done::Unsigned(_) => continue,
                Done::Judged(judgement) => match judgement.verdicts.into_iter().next() {
                    Some(Verdict::Accepted | Verdict::Known) => {
                        if judgement.has_staged {
                            self.wake_worker(room_id.to_owned());
                        }
                        return Ok(Some(event_id));
                    }
                    Some(Verdict::Unsigned(_)) => continue,
                    Some(Verdict::Rejected(reason) | Verdict::SoftFailed(reason)) => {
                        return Err(RoomError::Forbidden(reason));
                    }
                    Some(Verdict::Missing { .. } | Verdict::Unplaced) | None => {
                        return Err(RoomError::Store("an event of ours could not be judged".into()));
                    }
                },
            }
        }
        Err(RoomError::Unreachable("the room changes its policy server again and again".into()))
    }

    /// Seals what a work comes to, and writes nothing.
    async fn sealed_work(&self, room_id: &RoomId, work: Work) -> Result<Sealed, RoomError> {
        let (room_id, config) = (room_id.to_owned(), self.inner.config.clone());
        let opaque = self.inner.chance.letters(18);
        // Numbers are taken, which only a write may.
        let write = self.inner.store.write(Vec::new(), move |tx| {
            let Some(room) = tx.rooms().by_id(&room_id)? else { return Ok(Err(RoomError::UnknownRoom)) };
            let rules = room.rules;
            let mut appender = Appender::at_tip(tx, room, &config)?;
            let (sender, draft) = match (work.plan)(&mut appender)? {
                Ok(Step::Send(sender, draft)) => (sender, draft),
                Ok(Step::Stands(event_id)) => return Ok(Ok(Sealed::Stands(event_id))),
                Ok(Step::Nothing | Step::Judged(_)) => return Ok(Ok(Sealed::Nothing)),
                Err(refusal) => return Ok(Err(refusal)),
            };
            let Some(policy) = appender.policy_for(&draft)? else { return Ok(Ok(Sealed::Plain)) };
            let (txn, ts, opaque) = (work.txn.clone(), work.ts, opaque.clone());
            let submission = Submission { sender, draft: draft.clone(), txn, ts, opaque, again: false };
            Ok(appender.sealed(submission)?.map(|sealed| match sealed {
                Ok(pdu) => Sealed::Event(Box::new(ToSign { pdu, draft, policy, rules })),
                Err(event_id) => Sealed::Stands(event_id),
            }))
        });
        write.await?
    }
}

/// Judges a signed event, if what it was made for still holds.
fn judging(work: Work, pdu: Arc<Pdu>, draft: Draft) -> Work {
    let (plan, txn, ts) = (work.plan, work.txn, work.ts);
    let arrival = Arrival { outbound: true, ..Arrival::of(pdu) };
    let judge = move |appender: &mut Appender<'_, '_>| {
        if let Some((device, txn_id)) = &txn
            && let Some(event_id) = appender.of_txn(*device, txn_id, &draft)?
        {
            return Ok(Ok(Step::Stands(event_id)));
        }
        match plan(appender)? {
            Ok(Step::Send(..)) => {}
            other => return Ok(other),
        }
        let verdict = appender.receive(&arrival)?;
        if verdict == Verdict::Accepted {
            appender.note_txn(&arrival.pdu.event_id, txn.clone());
        }
        let has_staged = appender.has_staged;
        Ok(Ok(Step::Judged(Judgement { verdicts: vec![verdict], is_crowded: false, has_staged })))
    };
    Work::new(ts, None, Box::new(judge))
}

impl Appender<'_, '_> {
    /// The policy server that must sign what a draft becomes.
    pub(crate) fn policy_for(&mut self, draft: &Draft) -> Result<Option<PolicyServer>, hearth_store::StoreError> {
        match hearth_matrix::policy_server::is_exempt(&draft.kind, draft.state_key.as_deref()) {
            true => Ok(None),
            false => self.policy_server(),
        }
    }
}
