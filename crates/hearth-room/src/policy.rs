//! Policy servers: whether a room uses one, and asking it.
//!
//! A room's tip tells by itself that there is none. Who asks does so outside the room's turn: `own.rs` for events of ours,
//! `inbound/policy.rs` for those that come. An event that the policy server does not sign is not sent, or soft-failed; so is one
//! that it can't be asked about, until it can.
//! Spec: server-server API, "Policy Servers".

mod own;
mod servers;

use std::sync::Arc;

use hearth_matrix::policy_server::{POLICY_EVENT, PolicyServer, is_exempt};
use hearth_matrix::ruma::{OwnedServerName, RoomId};
use hearth_matrix::{Pdu, RoomVersionRules};
use hearth_store::{EventNum, RoomRecord, StateKey, StoreError, Tx};

use crate::append::Appender;
use crate::{Refusal, RoomError, Rooms, Unanswered};

pub(crate) use own::Unsigned;
use servers::Servers;

/// What is remembered of policy servers, and of events of ours that wait for them.
#[derive(Default)]
pub(crate) struct Policies {
    servers: Servers,
    gates: own::Gates,
}

/// Who waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asker {
    /// A person, or another server for one.
    Person,
    /// Nobody: the event has come, or is history.
    Worker,
}

/// Why an event is not signed.
#[derive(Clone, Debug)]
pub(crate) enum NotSigned {
    /// The policy server does not recommend it.
    Refused(Refusal),
    /// It could not be asked now.
    Later(Later),
}

/// Why a policy server could not be asked.
#[derive(Clone, Debug)]
pub(crate) enum Later {
    /// It asks not to be asked so much.
    Busy(Refusal),
    /// It can't be reached, or does not say what the specification wants.
    Unreachable(String),
}

impl NotSigned {
    /// What who sends the event is told.
    pub(crate) fn into_error(self, server: OwnedServerName) -> RoomError {
        match self {
            Self::Refused(refusal) | Self::Later(Later::Busy(refusal)) => RoomError::NotSigned { server, refusal },
            Self::Later(Later::Unreachable(why)) => RoomError::Unreachable(format!(
                "{server}, which this room uses as its policy server, can't be asked: {why}"
            )),
        }
    }
}

impl std::fmt::Display for NotSigned {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Refused(refusal) | Self::Later(Later::Busy(refusal)) => refusal.fmt(f),
            Self::Later(Later::Unreachable(why)) => f.write_str(why),
        }
    }
}

impl Rooms {
    /// Asks a policy server to sign an event: the event with its signature, which is good.
    ///
    /// Bounded in time by whoever answers for other servers, and in number for each policy server. One that could not be asked
    /// lately is not asked.
    pub(crate) async fn ask_policy_server(
        &self,
        policy: &PolicyServer,
        pdu: &Arc<Pdu>,
        rules: &'static RoomVersionRules,
        asker: Asker,
    ) -> Result<Arc<Pdu>, NotSigned> {
        let unreachable = |why: &str| NotSigned::Later(Later::Unreachable(why.to_owned()));
        let Some(neighbours) = self.inner.inbound.neighbours() else {
            return Err(unreachable("this server does not talk with others"));
        };
        let server = self.inner.policies.servers.get(&policy.via);
        let turn = server.turn(asker).await.map_err(|why| unreachable(&why))?;
        let answer = neighbours.policy_signature(&policy.via, pdu.json.to_string()).await;
        let outcome = read(policy, pdu, rules, answer);
        let name = match &outcome {
            Ok(_) => "signed",
            Err(NotSigned::Refused(_)) => "refused",
            Err(NotSigned::Later(Later::Busy(_))) => "busy",
            Err(NotSigned::Later(Later::Unreachable(_))) => "unreachable",
        };
        metrics::counter!("hearth_policy_server_answers_total", "outcome" => name).increment(1);
        match &outcome {
            Err(NotSigned::Later(why)) => turn.failed(why),
            _ => turn.answered(),
        }
        if let Err(error) = &outcome {
            tracing::debug!(event = %pdu.event_id, room = %pdu.room_id, server = %policy.via, %error, "not signed");
        }
        outcome
    }
}

/// What an answer makes of an event.
fn read(
    policy: &PolicyServer,
    pdu: &Pdu,
    rules: &RoomVersionRules,
    answer: Result<String, Unanswered>,
) -> Result<Arc<Pdu>, NotSigned> {
    let answer = match answer {
        Ok(answer) => answer,
        Err(Unanswered::Unreachable(why)) => return Err(NotSigned::Later(Later::Unreachable(why))),
        Err(Unanswered::Refused(refusal)) if refusal.status == 429 => {
            return Err(NotSigned::Later(Later::Busy(refusal)));
        }
        // Something in front of it has spoken, or it does not know our keys yet.
        Err(Unanswered::Refused(refusal)) if refusal.errcode.is_empty() || refusal.status == 401 => {
            return Err(NotSigned::Later(Later::Unreachable(format!("it answers {} {refusal}", refusal.status))));
        }
        Err(Unanswered::Refused(refusal)) => return Err(NotSigned::Refused(refusal)),
    };
    let refused = |why: &str| Err(NotSigned::Refused(Refusal::because(format!("{}: {why}", policy.via))));
    let Some(json) = policy.add_signature(&pdu.json, &answer) else {
        return refused("the room's policy server has not signed the event");
    };
    match Pdu::from_remote(&json, rules) {
        Ok(signed) if signed.event_id == pdu.event_id && policy.has_signed(&signed, rules) => Ok(Arc::new(signed)),
        Ok(_) => refused("the policy server's signature is not by the key in the room's m.room.policy event"),
        Err(error) => refused(&format!("with the policy server's signature it is no event: {error}")),
    }
}

/// The policy server that a room uses, read beside its turn.
pub(crate) fn policy_server_of(tx: &mut Tx<'_>, room: &RoomRecord) -> Result<Option<PolicyServer>, StoreError> {
    match tx.rooms().tip(room.num)?.and_then(|tip| tip.policy) {
        Some(event) => in_use(tx, room, event),
        None => Ok(None),
    }
}

/// The policy server that an `m.room.policy` event names, if it is one: it has a member in the room.
fn in_use(tx: &mut Tx<'_>, room: &RoomRecord, event: EventNum) -> Result<Option<PolicyServer>, StoreError> {
    let pdu = tx.events().pdu(room, event)?;
    let Some(policy) = PolicyServer::from_content(pdu.content.get()) else { return Ok(None) };
    let there = match tx.string_num(policy.via.as_str())? {
        Some(server) => tx.rooms().has_server(room.num, server)?,
        None => false,
    };
    Ok(there.then_some(policy))
}

impl Appender<'_, '_> {
    /// The policy server that the room uses now.
    pub(crate) fn policy_server(&mut self) -> Result<Option<PolicyServer>, StoreError> {
        self.find_policy()?;
        match self.pending_policy().or(self.tip.policy) {
            Some(event) => in_use(self.tx, &self.room.clone(), event),
            None => Ok(None),
        }
    }

    /// Whose signature an event lacks to be recommended.
    pub(crate) fn lacks_policy_of(&mut self, pdu: &Pdu) -> Result<Option<PolicyServer>, StoreError> {
        if is_exempt(&pdu.kind, pdu.state_key.as_deref()) {
            return Ok(None);
        }
        let rules = self.room_rules();
        Ok(self.policy_server()?.filter(|policy| !policy.has_signed(pdu, rules)))
    }

    /// Lets the tip know the `m.room.policy` event of its state, if that has moved.
    pub(crate) fn find_policy(&mut self) -> Result<(), StoreError> {
        if self.policy_at == self.tip.snapshot {
            return Ok(());
        }
        self.tip.policy = match self.tip.snapshot {
            Some(snapshot) => {
                let place = StateKey { kind: self.tx.intern(POLICY_EVENT)?, state_key: self.tx.intern("")? };
                self.tx.state().get(self.room.num, snapshot, place)?
            }
            None => None,
        };
        self.policy_at = self.tip.snapshot;
        Ok(())
    }
}

impl Rooms {
    /// The policy server that a room uses.
    pub async fn policy_server(&self, room_id: &RoomId) -> Result<Option<OwnedServerName>, RoomError> {
        let room_id = room_id.to_owned();
        let read = self.inner.store.read(move |tx| match tx.rooms().by_id(&room_id)? {
            Some(room) => Ok(policy_server_of(tx, &room)?.map(|policy| policy.via)),
            None => Ok(None),
        });
        Ok(read.await?)
    }
}
