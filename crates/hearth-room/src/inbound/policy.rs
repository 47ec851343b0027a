//! The last check of an event: whether the room's policy server recommends it.
//!
//! In the room's turn it is told by the signature alone. One that lacks it is not judged; who handed it in asks the policy server,
//! outside the turn, and hands it in again with the signature or with the refusal.
//! Spec: server-server API, "Checks performed on receipt of a PDU", 7; "Validating Policy Server signatures".

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::policy_server::{PolicyServer, is_exempt};
use hearth_matrix::ruma::{OwnedEventId, RoomId};
use hearth_store::StoreError;
use rustc_hash::FxHashSet;
use tokio::task::JoinSet;

use super::gather::Lacking;
use super::{Arrival, Verdict};
use crate::append::Appender;
use crate::policy::{Asker, NotSigned};
use crate::{RoomError, Rooms};

/// Tries to ask a policy server about an event that came, within about a minute. Then it is not recommended.
pub(super) const TRIES: u32 = 5;
/// The same, where the room changes its policy server meanwhile.
const ROUNDS: usize = 3;

/// A policy server does not recommend an event.
#[derive(Clone, Debug)]
pub(crate) struct NotRecommended {
    pub(super) by: PolicyServer,
    pub(super) reason: Arc<str>,
}

/// What is known of a policy server's view of an event.
pub(super) enum Recommendation {
    /// It has signed it, or need not.
    Recommended,
    /// It won't.
    Not(String),
    /// It is to be asked.
    Unasked(PolicyServer),
}

impl NotRecommended {
    pub(super) fn because(by: PolicyServer, error: &NotSigned) -> Self {
        let reason = format!("not recommended by the policy server {}: {error}", by.via).into();
        Self { by, reason }
    }
}

impl Appender<'_, '_> {
    /// What the policy server that the room uses now has to say of an arrival, as far as it is known.
    pub(super) fn recommendation(&mut self, arrival: &Arrival) -> Result<Recommendation, StoreError> {
        let Some(policy) = self.lacks_policy_of(&arrival.pdu)? else { return Ok(Recommendation::Recommended) };
        Ok(match &arrival.not_recommended {
            Some(not) if not.by == policy => Recommendation::Not(not.reason.to_string()),
            _ => Recommendation::Unasked(policy),
        })
    }
}

impl Rooms {
    /// Judges one event for which somebody waits. Where the policy server does not sign it, nothing of it is kept.
    pub(super) async fn judge_asking(
        &self,
        room_id: &RoomId,
        mut arrival: Arrival,
    ) -> Result<(Arc<Pdu>, Option<Verdict>), RoomError> {
        let mut verdict = None;
        for _ in 0..ROUNDS {
            verdict = self.judge(room_id, vec![arrival.clone()]).await?.into_iter().next();
            let Some(Verdict::Unsigned(policy)) = &verdict else { break };
            let id = room_id.to_owned();
            let room = self.inner.store.read(move |tx| tx.rooms().by_id(&id)).await?;
            let rules = room.ok_or(RoomError::UnknownRoom)?.rules;
            let signed = self.ask_policy_server(policy, &arrival.pdu, rules, Asker::Person).await;
            arrival.pdu = signed.map_err(|error| error.into_error(policy.via.clone()))?;
        }
        Ok((arrival.pdu, verdict))
    }
}

impl super::gather::Gathering<'_> {
    /// Judges events, parents first, as `Rooms::judge` does; their policy server is asked where need be. Those that it could not
    /// be asked about stay unsigned, unless that is given up.
    pub(super) async fn judge_recommended(
        &self,
        arrivals: &mut [Arrival],
        gives_up: bool,
    ) -> Result<Vec<Verdict>, RoomError> {
        let mut verdicts = self.rooms.judge(&self.room.room_id, arrivals.to_vec()).await?;
        for _ in 0..ROUNDS {
            let policy = verdicts.iter().find_map(|verdict| match verdict {
                Verdict::Unsigned(policy) => Some(policy.clone()),
                _ => None,
            });
            let Some(policy) = policy else { break };
            // Also those that wait for others here: one after the other would take its time.
            let open = |verdict: &Verdict| matches!(verdict, Verdict::Unsigned(_) | Verdict::Missing { .. });
            let mut again: Vec<usize> = (0..verdicts.len()).filter(|at| open(&verdicts[*at])).collect();
            self.ask_about(&policy, arrivals, &again, gives_up).await;
            let anew = again.iter().map(|at| arrivals[*at].clone()).collect();
            for (at, verdict) in again.drain(..).zip(self.rooms.judge(&self.room.room_id, anew).await?) {
                verdicts[at] = verdict;
            }
        }
        Ok(verdicts)
    }

    async fn ask_about(&self, policy: &PolicyServer, arrivals: &mut [Arrival], which: &[usize], gives_up: bool) {
        let rules = self.room.rules;
        let mut asked = JoinSet::new();
        for at in which {
            let pdu = arrivals[*at].pdu.clone();
            if is_exempt(&pdu.kind, pdu.state_key.as_deref()) || policy.has_signed(&pdu, rules) {
                continue;
            }
            let (rooms, policy, at) = (self.rooms.clone(), policy.clone(), *at);
            asked.spawn(async move { (at, rooms.ask_policy_server(&policy, &pdu, rules, Asker::Worker).await) });
        }
        while let Some(answer) = asked.join_next().await {
            let Ok((at, answer)) = answer else { continue };
            match answer {
                Ok(signed) => arrivals[at].pdu = signed,
                Err(NotSigned::Later(_)) if !gives_up => {}
                Err(error) => {
                    arrivals[at].not_recommended = Some(NotRecommended::because(policy.clone(), &error));
                }
            }
        }
    }
}

/// Of events that can't be judged yet, those that don't wait for one of `held`; those that do are held, too.
pub(super) fn without_held(lacking: Vec<Lacking>, held: &mut FxHashSet<OwnedEventId>) -> Vec<Lacking> {
    if held.is_empty() {
        return lacking;
    }
    let mut rest = Vec::with_capacity(lacking.len());
    for event in lacking {
        if event.prev_events.iter().chain(&event.auth_events).any(|id| held.contains(id)) {
            held.insert(event.arrival.pdu.event_id.clone());
        } else {
            rest.push(event);
        }
    }
    rest
}
