//! Staged events that the room's policy server is asked about, and those that wait for such.
//!
//! Nothing is written of its answers: an event is judged as soon as its answer is here, and a restart asks again.
//! Spec: server-server API, "Validating Policy Server signatures".

use std::collections::VecDeque;
use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::policy_server::{PolicyServer, is_exempt};
use hearth_matrix::ruma::OwnedEventId;
use hearth_store::StagedNum;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::time::Instant;

use super::super::Arrival;
use super::super::policy::{NotRecommended, TRIES};
use super::{Beside, LONGEST_PAUSE, Ready, Worker};
use crate::policy::{Asker, NotSigned};

/// Events of one room that are asked about, or wait to be, beside the turn.
const ASKED: usize = 64;

/// What is known of the events that are held.
#[derive(Default)]
pub(super) struct Held {
    events: FxHashMap<OwnedEventId, StagedNum>,
    asked: FxHashSet<StagedNum>,
    /// They are asked about when others have been.
    later: VecDeque<StagedNum>,
    answers: FxHashMap<StagedNum, Answer>,
    /// The last answer was none; why.
    in_vain: FxHashMap<StagedNum, NotRecommended>,
    /// Events that change the room's policy server, which wait for others.
    changes: FxHashSet<StagedNum>,
    policy: Option<PolicyServer>,
}

enum Answer {
    Signed(Arc<Pdu>),
    Not(NotRecommended),
}

/// The policy server was asked.
pub(super) struct Asked {
    staged: StagedNum,
    policy: PolicyServer,
    outcome: Result<Arc<Pdu>, NotSigned>,
}

impl Held {
    /// Forgets what is staged no more.
    pub(super) fn keep(&mut self, is_staged: impl Fn(&StagedNum) -> bool) {
        self.events.retain(|_, num| is_staged(num));
        self.answers.retain(|num, _| is_staged(num));
        self.in_vain.retain(|num, _| is_staged(num));
        self.changes.retain(|num| is_staged(num));
    }

    /// A staged event, with what the policy server said of it.
    pub(super) fn arrival(&self, staged: Option<StagedNum>, pdu: &Arc<Pdu>) -> Arrival {
        let mut arrival = Arrival { staged, ..Arrival::of(pdu.clone()) };
        match staged.and_then(|num| self.answers.get(&num)) {
            Some(Answer::Signed(signed)) => arrival.pdu = signed.clone(),
            Some(Answer::Not(not)) => arrival.not_recommended = Some(not.clone()),
            None => {}
        }
        arrival
    }

    /// What was judged holds up nothing any more.
    pub(super) fn release(&mut self, judged: &FxHashSet<OwnedEventId>) {
        if !self.events.is_empty() {
            self.events.retain(|id, _| !judged.contains(id));
        }
    }
}

impl Worker {
    /// The policy server is to be asked about an event before it is judged.
    pub(super) fn hold(&mut self, staged: StagedNum, pdu: &Arc<Pdu>, policy: PolicyServer) {
        self.wait_for(staged, Vec::new());
        self.held.events.insert(pdu.event_id.clone(), staged);
        self.held.policy = Some(policy.clone());
        self.held.answers.remove(&staged);
        if self.held.asked.contains(&staged) {
            return;
        }
        match self.held.asked.len() < ASKED {
            true => self.ask(staged, pdu.clone(), policy),
            false => self.held.later.push_back(staged),
        }
    }

    fn ask(&mut self, staged: StagedNum, pdu: Arc<Pdu>, policy: PolicyServer) {
        self.held.asked.insert(staged);
        let (rooms, rules) = (self.rooms.clone(), self.room.rules);
        self.beside.spawn(async move {
            let outcome = rooms.ask_policy_server(&policy, &pdu, rules, Asker::Worker).await;
            Beside::Asked(Asked { staged, policy, outcome })
        });
    }

    /// Whether an event lacks one that is held: then nothing is fetched for it. It is asked about meanwhile, if it has to be.
    pub(super) fn waits_for_held(&mut self, event: &Ready, lacks: &[OwnedEventId]) -> bool {
        if !lacks.iter().any(|id| self.held.events.contains_key(id)) {
            return false;
        }
        let Ready { staged, pdu, .. } = event;
        self.wait_for(*staged, lacks.to_vec());
        if let Some(waiting) = self.waiting.get_mut(staged) {
            // Those that it waits for wake it.
            waiting.at = Some(Instant::now() + LONGEST_PAUSE);
        }
        self.held.events.insert(pdu.event_id.clone(), *staged);
        if is_exempt(&pdu.kind, pdu.state_key.as_deref()) {
            self.held.changes.insert(*staged);
            self.wait_no_more();
        } else if let Some(policy) = self.held.policy.clone()
            && self.held.asked.len() < ASKED
            && !self.held.asked.contains(staged)
            && !self.held.answers.contains_key(staged)
            && !policy.has_signed(pdu, self.room.rules)
        {
            self.ask(*staged, pdu.clone(), policy);
        }
        true
    }

    /// The policy server was asked about an event.
    pub(super) fn asked(&mut self, Asked { staged, policy, outcome }: Asked) {
        self.held.asked.remove(&staged);
        if let Some(next) = self.held.later.pop_front() {
            self.waiting.remove(&next);
        }
        let answer = match outcome {
            Ok(signed) => Answer::Signed(signed),
            Err(error) => {
                let not = NotRecommended::because(policy, &error);
                if matches!(error, NotSigned::Later(_)) && self.may_wait(staged) {
                    self.held.in_vain.insert(staged, not);
                    return;
                }
                Answer::Not(not)
            }
        };
        self.answered(staged, answer);
    }

    /// Whether an event waits for the policy server to be there again. One that waits for others anyway is asked about again
    /// when they are judged.
    fn may_wait(&mut self, staged: StagedNum) -> bool {
        if self.waits_for_others(staged) {
            return true;
        }
        let tries = self.waiting.get(&staged).map_or(0, |waiting| waiting.tries);
        if tries >= TRIES || !self.held.changes.is_empty() {
            return false;
        }
        self.wait_again(staged);
        true
    }

    fn waits_for_others(&self, staged: StagedNum) -> bool {
        self.waiting.get(&staged).is_some_and(|waiting| !waiting.lacks.is_empty())
    }

    fn answered(&mut self, staged: StagedNum, answer: Answer) {
        self.held.in_vain.remove(&staged);
        self.held.answers.insert(staged, answer);
        if !self.waits_for_others(staged) {
            self.waiting.remove(&staged);
        }
    }

    /// The room is about to change its policy server: what could not be asked about does not hold that up.
    fn wait_no_more(&mut self) {
        for (staged, not) in std::mem::take(&mut self.held.in_vain) {
            if !self.waits_for_others(staged) {
                self.answered(staged, Answer::Not(not));
            }
        }
    }
}
