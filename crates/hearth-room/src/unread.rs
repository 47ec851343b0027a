//! Whom a new event notifies, and which timeline it counts in.
//!
//! The default rules judge once for all. Apart are judged: members with rules of their own whom the event may concern, those
//! who ignore the sender, and those whom it names. Pure rules are in `hearth_matrix::push`, counts are read in `hearth-sync`.
//! Spec: client-server API, "Push Notifications", "Threaded read receipts".

use std::sync::Arc;

use hearth_matrix::Pdu;
use hearth_matrix::push::{Outcome, PushEvent, PushProfile, default_rules};
use hearth_matrix::ruma::{OwnedEventId, OwnedUserId, UserId};
use hearth_store::{EventPush, Membership, StoreError, Told, UserNum};
use rustc_hash::FxHashMap;

use crate::append::{Appender, relation};

/// The thread that an event belongs to.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) root: OwnedEventId,
    /// Running count of what notifies in it.
    pub(crate) unread: i64,
}

/// Running counts of threads in which pending events stand.
pub(crate) type ThreadCounts = FxHashMap<OwnedEventId, i64>;

impl Appender<'_, '_> {
    /// The root of the thread that an event belongs to: it is in it, or relates to an event that belongs to it.
    pub(crate) fn thread_of(&mut self, pdu: &Pdu) -> Result<Option<OwnedEventId>, StoreError> {
        let Some((parent, rel)) = relation(pdu) else { return Ok(None) };
        if rel == "m.thread" {
            return Ok(Some(parent));
        }
        if let Some(thread) = self.pending_thread(&parent) {
            return Ok(thread);
        }
        let room = self.room.clone();
        match self.tx.events().by_id(&room, &parent)?.and_then(|row| row.thread) {
            Some(root) => self.tx.events().id(root).map(Some),
            None => Ok(None),
        }
    }

    /// The running count of a thread as it is stored.
    pub(crate) fn stored_count_of_thread(&mut self, root: &OwnedEventId) -> Result<i64, StoreError> {
        let room = self.room.clone();
        match self.tx.events().num(&room, root)? {
            Some(num) => self.tx.notifications().count_of_thread(room.num, num),
            None => Ok(0),
        }
    }

    /// What an event, whose state stands already, means to the members.
    pub(crate) fn push(&mut self, pdu: &Pdu) -> Result<EventPush, StoreError> {
        let levels = self.power_levels()?;
        let joined = self.joined_members();
        let event = PushEvent::new(pdu, self.room.rules, joined, &levels);
        let plain = event.for_anybody();
        let mut told: FxHashMap<UserNum, Told> = FxHashMap::default();
        let mut judged = Vec::new();
        for (user, profile) in self.listeners()? {
            if profile.concerns(&self.room.room_id, &pdu.sender) {
                judged.push(user);
                self.judge(&mut told, &event, &plain, pdu, user, Some(&profile))?;
            }
        }
        for user_id in event.named_users() {
            if let Some(user) = self.hearer(pdu, user_id)?
                && !judged.contains(&user)
            {
                let profile = self.tx.push_profiles().of(user)?;
                self.judge(&mut told, &event, &plain, pdu, user, profile.as_deref())?;
            }
        }
        let mut told: Vec<Told> = told.into_values().collect();
        told.sort_unstable_by_key(|told| told.user);
        Ok(EventPush { outcome: plain.code(), told: told.into() })
    }

    /// Members with rules of their own, those who come in with pending events included.
    fn listeners(&mut self) -> Result<Vec<(UserNum, Arc<PushProfile>)>, StoreError> {
        let room = self.room.num;
        let mut listeners = self.tx.push_profiles().of_members(room)?;
        for user_id in self.pending_joins() {
            if let Some(user) = self.tx.string_num(&user_id)?
                && !listeners.iter().any(|(listener, _)| *listener == user)
                && let Some(profile) = self.tx.push_profiles().of(user)?
            {
                listeners.push((user, profile));
            }
        }
        Ok(listeners)
    }

    /// A user of ours who is named, if he is to hear of it: as a member, or invited by this very event.
    fn hearer(&mut self, pdu: &Pdu, user_id: &UserId) -> Result<Option<UserNum>, StoreError> {
        if *user_id == *pdu.sender || !self.is_ours(user_id) {
            return Ok(None);
        }
        let hears = match self.membership(user_id)? {
            Some(Membership::Join) => true,
            Some(Membership::Invite) => pdu.is_state("m.room.member", user_id.as_str()),
            _ => false,
        };
        if hears { self.tx.string_num(user_id.as_str()) } else { Ok(None) }
    }

    fn judge(
        &mut self,
        told: &mut FxHashMap<UserNum, Told>,
        event: &PushEvent,
        plain: &Outcome,
        pdu: &Pdu,
        user: UserNum,
        profile: Option<&PushProfile>,
    ) -> Result<(), StoreError> {
        let (outcome, hears) = match profile {
            Some(profile) if *profile.user() == *pdu.sender => return Ok(()),
            Some(profile) => {
                let name = if profile.asks_for_name() { self.display_name(profile.user())? } else { String::new() };
                let hears = profile.hears_messages(&self.room.room_id, self.joined_members());
                (profile.judge(event, &name), hears)
            }
            None => {
                let user_id = OwnedUserId::try_from(&*self.tx.string(user)?)
                    .map_err(|_| StoreError::Damaged(format!("user {} has no valid id", user.0)))?;
                (event.for_user(&default_rules(&user_id), &user_id, ""), true)
            }
        };
        let differs = (outcome.notify, outcome.highlight) != (plain.notify, plain.highlight);
        // Who is told of mentions only has no row for each of the other messages: when his count is read, he has none of
        // what all are told of.
        let written = if hears { differs || outcome.actions != plain.actions } else { outcome.notify };
        if differs || written {
            let Outcome { notify, highlight, actions, .. } = outcome;
            told.insert(user, Told { user, notify, highlight, actions, written });
        }
        Ok(())
    }

    fn display_name(&mut self, user_id: &UserId) -> Result<String, StoreError> {
        #[derive(serde::Deserialize)]
        struct Content {
            displayname: Option<String>,
        }
        let member = self.state("m.room.member", user_id.as_str())?;
        let content = member.and_then(|(_, pdu)| serde_json::from_str::<Content>(pdu.content.get()).ok());
        Ok(content.and_then(|content| content.displayname).unwrap_or_default())
    }
}
