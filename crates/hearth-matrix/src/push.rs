//! Push rules: what an event means to whom.
//!
//! An event is flattened once ([`PushEvent`]) and judged for any number of users. The default rules
//! judge alike for all members but the few whom the event names, so they are asked once for all.
//! Unread counts and pushers are elsewhere.
//! Spec: client-server API, "Push Notifications".

use std::{
    pin::pin,
    sync::LazyLock,
    task::{Context, Poll, Waker},
};

pub use ruma::push::Ruleset;
use ruma::{
    Int, OwnedUserId, UInt, UserId,
    push::{Action, AnyPushRuleRef, FlattenedJson, PushConditionPowerLevelsCtx, PushConditionRoomCtx, SoundTweakValue},
    room_version_rules::{AuthorizationRules, RoomPowerLevelsRules},
    serde::Raw,
};
use serde_json::value::RawValue;

use crate::{
    Level, Pdu, PowerLevels, RoomVersionRules,
    canonical::{Json, Object},
    client_format::{ClientFormat, write_event},
};

mod profile;

pub use profile::{PushProfile, stored_rules};

/// Users that one event mentions, at most.
const NAMED: usize = 1000;

/// What an event means to a user.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Whether to notify at all: it counts as unread, and pushers hear of it.
    pub notify: bool,
    /// Whether it stands out.
    pub highlight: bool,
    /// The sound to play.
    pub sound: Option<String>,
    /// The actions of the rule that notifies, a JSON array; empty if none does.
    pub actions: String,
}

/// What the default rules make of an event, as numbers that can be stored. 0 is for not notifying.
const DEFAULT_ACTIONS: [&str; 4] = [
    r#"["notify"]"#,
    r#"["notify",{"set_tweak":"sound","value":"default"}]"#,
    r#"["notify",{"set_tweak":"sound","value":"ring"}]"#,
    r#"["notify",{"set_tweak":"highlight"}]"#,
];

impl Outcome {
    /// An outcome of the default rules as a number; 0 if they don't notify.
    pub fn code(&self) -> i64 {
        match (self.notify, self.highlight, self.sound.as_deref()) {
            (false, ..) => 0,
            (true, true, _) => 4,
            (true, false, None) => 1,
            (true, false, Some("ring")) => 3,
            (true, false, Some(_)) => 2,
        }
    }

    /// The actions behind a number: a JSON array.
    pub fn actions_of(code: i64) -> &'static str {
        let index = usize::try_from(code - 1).ok();
        index.and_then(|index| DEFAULT_ACTIONS.get(index)).copied().unwrap_or("[]")
    }

    /// Whether the outcome behind a number stands out.
    pub fn is_highlight(code: i64) -> bool {
        code == 4
    }

    fn of(actions: &[Action]) -> Self {
        let sound = actions.iter().find_map(Action::sound).map(|sound| match sound {
            SoundTweakValue::Default => "default".to_owned(),
            other => other.as_str().to_owned(),
        });
        let notify = actions.iter().any(Action::should_notify);
        let json = if notify { serde_json::to_string(actions).unwrap_or_default() } else { String::new() };
        let highlight = notify && actions.iter().any(Action::is_highlight);
        Self { notify, highlight, sound: sound.filter(|_| notify), actions: json }
    }
}

/// An event prepared for push rules.
#[derive(Debug)]
pub struct PushEvent {
    flat: FlattenedJson,
    sender: OwnedUserId,
    /// Whom the default rules treat apart: mentioned users, and the target of an invite.
    named: Vec<OwnedUserId>,
    context: PushConditionRoomCtx,
    /// What the default rules say for everybody else, and whether an overriding rule says it.
    plain: Outcome,
    plain_is_override: bool,
}

/// Nobody's id: who is judged by the default rules when no member is meant.
static ANYBODY: LazyLock<OwnedUserId> = LazyLock::new(|| ruma::user_id!("@anybody:hearth.invalid").to_owned());
static DEFAULT_RULES: LazyLock<Ruleset> = LazyLock::new(|| Ruleset::server_default(&ANYBODY));

impl PushEvent {
    /// Prepares an event of a room with so many joined members and these power levels.
    pub fn new(pdu: &Pdu, rules: &RoomVersionRules, joined_members: u64, levels: &PowerLevels) -> Self {
        let mut json = String::new();
        write_event(&mut json, pdu, rules, ClientFormat::default());
        let json = RawValue::from_string(json).unwrap_or_else(|_| RawValue::NULL.to_owned());
        let flat = FlattenedJson::from_raw(&Raw::<serde_json::Value>::from_json(json));
        let context = PushConditionRoomCtx::new(
            pdu.room_id.clone(),
            UInt::try_from(joined_members).unwrap_or(UInt::MAX),
            ANYBODY.clone(),
            String::new(),
        )
        .with_power_levels(sender_levels(&pdu.sender, levels));
        let matching = DEFAULT_RULES.iter().find(|rule| rule.enabled() && now(rule.applies(&flat, &context)));
        let plain = matching.map(|rule| Outcome::of(rule.actions())).unwrap_or_default();
        let plain_is_override = matches!(matching, Some(AnyPushRuleRef::Override(_)));
        let (sender, named) = (pdu.sender.clone(), named_users(pdu));
        Self { flat, sender, named, context, plain, plain_is_override }
    }

    /// What the default rules say for every member but the sender and [`Self::named_users`].
    pub fn for_anybody(&self) -> Outcome {
        self.plain.clone()
    }

    fn names(&self, user: &UserId) -> bool {
        self.named.iter().any(|named| named == user)
    }

    /// The users for whom the default rules may say something else: ask [`Self::for_user`].
    pub fn named_users(&self) -> &[OwnedUserId] {
        &self.named
    }

    /// What a user's rules say. One's own events mean nothing to oneself.
    pub fn for_user(&self, rules: &Ruleset, user: &UserId, display_name: &str) -> Outcome {
        if self.sender == user {
            return Outcome::default();
        }
        let mut context = self.context.clone();
        user.clone_into(&mut context.user_id);
        display_name.clone_into(&mut context.user_display_name);
        judge(rules, &self.flat, &context)
    }
}

/// The server's rules for a user who has changed none.
pub fn default_rules(user: &UserId) -> Ruleset {
    Ruleset::server_default(user)
}

fn judge(rules: &Ruleset, event: &FlattenedJson, context: &PushConditionRoomCtx) -> Outcome {
    let matching = rules.iter().find(|rule| rule.enabled() && now(rule.applies(event, context)));
    matching.map(|rule| Outcome::of(rule.actions())).unwrap_or_default()
}

/// The rules' functions are async for one condition of a feature that is off: they never wait.
fn now(applies: impl Future<Output = bool>) -> bool {
    match pin!(applies).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(applies) => applies,
        Poll::Pending => false,
    }
}

/// Only the sender's level is ever asked for, so it stands in for everybody's.
fn sender_levels(sender: &UserId, levels: &PowerLevels) -> PushConditionPowerLevelsCtx {
    let (level, creators) = match levels.user(sender) {
        Level::Finite(level) => (level, None),
        Level::Infinite => (0, Some(sender.to_owned())),
    };
    let rules = RoomPowerLevelsRules::new(&AuthorizationRules::V12, creators);
    let mut notifications = ruma::power_levels::NotificationPowerLevels::new();
    if let Level::Finite(room) = levels.notification("room") {
        notifications.room = clamped(room);
    }
    PushConditionPowerLevelsCtx::new(Default::default(), clamped(level), notifications, rules)
}

fn clamped(level: i64) -> Int {
    Int::try_from(level).unwrap_or(if level < 0 { Int::MIN } else { Int::MAX })
}

fn named_users(pdu: &Pdu) -> Vec<OwnedUserId> {
    let mut named = Vec::new();
    if let Some(("m.room.member", target)) = pdu.state_pair() {
        named.extend(OwnedUserId::try_from(target));
    }
    if pdu.content.get().contains("m.mentions") {
        let content = Object::parse(pdu.content.get()).unwrap_or_default();
        let users = content.get("m.mentions").and_then(Json::as_object).and_then(|mentions| mentions.get("user_ids"));
        let users = users.and_then(Json::as_array).unwrap_or_default();
        named.extend(users.iter().take(NAMED).filter_map(|user| OwnedUserId::try_from(user.as_str()?).ok()));
    }
    named.sort_unstable();
    named.dedup();
    named
}

#[cfg(test)]
mod tests;
