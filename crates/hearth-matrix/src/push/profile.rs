//! A user's push rules and whom he ignores, as account data tells them, ready to be held against many events.
//!
//! Spec: client-server API, "Push Rules", "Ignoring users".

use std::sync::{Mutex, PoisonError};

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    push::{AnyPushRuleRef, FlattenedJson, PushCondition, PushConditionRoomCtx, Ruleset},
    serde::Raw,
};
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value, json};

use super::{ANYBODY, Outcome, PushEvent, default_rules, judge};

/// What a user made of push rules.
#[derive(Debug)]
pub struct PushProfile {
    user: OwnedUserId,
    rules: Ruleset,
    ignored: FxHashSet<String>,
    scope: Scope,
    asks_for_name: bool,
    size_bytes: usize,
    /// What was asked of [`Self::hears_messages`] lately.
    hears: Mutex<FxHashMap<(Option<OwnedRoomId>, u64), bool>>,
}

/// Answers of [`PushProfile::hears_messages`] kept in mind.
const HEARS: usize = 64;

/// For which events a user's rules may say something else than the default ones.
#[derive(Debug, Default)]
struct Scope {
    everywhere: bool,
    rooms: FxHashSet<OwnedRoomId>,
    senders: FxHashSet<OwnedUserId>,
    /// Default rules were changed, or there are rules with conditions beside those for whole rooms: all rules must be asked.
    intricate: bool,
    /// Rooms of which everything means this, whatever else applies.
    whole_rooms: FxHashMap<OwnedRoomId, Outcome>,
}

/// The rules in the content of an `m.push_rules` event, and those that the server knows beside them.
pub fn stored_rules(user: &UserId, content: &str) -> Result<Ruleset, serde_json::Error> {
    let mut content: Map<String, Value> = serde_json::from_str(content)?;
    let global = content.remove("global").unwrap_or_else(|| Value::Object(Map::new()));
    let mut rules: Ruleset = serde_json::from_value(global)?;
    rules.update_with_server_default(default_rules(user));
    Ok(rules)
}

impl PushProfile {
    /// From the contents of `m.push_rules` and `m.ignored_user_list`. What can't be read counts as not there.
    pub fn new(user: &UserId, rules: Option<&str>, ignored: Option<&str>) -> Self {
        let size_bytes = 8192 + 4 * rules.map_or(0, str::len) + 2 * ignored.map_or(0, str::len);
        let rules = rules.and_then(|content| stored_rules(user, content).ok()).unwrap_or_else(|| default_rules(user));
        let ignored = ignored.map(ignored_users).unwrap_or_default().into_iter().filter(|id| id != user.as_str());
        let asks_for_name = rules.iter().any(|rule| rule.enabled() && asks_for_name(rule));
        let scope = Scope::of(&rules, user);
        let (user, ignored) = (user.to_owned(), ignored.collect());
        Self { user, ignored, scope, asks_for_name, rules, size_bytes, hears: Mutex::default() }
    }

    /// Whose they are.
    pub fn user(&self) -> &UserId {
        &self.user
    }

    /// The rules.
    pub fn rules(&self) -> &Ruleset {
        &self.rules
    }

    /// Whether the user ignores another.
    pub fn ignores(&self, sender: &UserId) -> bool {
        self.ignored.contains(sender.as_str())
    }

    /// Whether an event may mean something else to this user than to everybody.
    pub fn concerns(&self, room: &RoomId, sender: &UserId) -> bool {
        self.scope.everywhere
            || self.scope.rooms.contains(room)
            || self.scope.senders.contains(sender)
            || self.ignores(sender)
    }

    /// Whether a rule asks for the user's display name.
    pub fn asks_for_name(&self) -> bool {
        self.asks_for_name
    }

    /// About as many bytes as it takes in memory.
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// What an event means to the user.
    pub fn judge(&self, event: &PushEvent, display_name: &str) -> Outcome {
        if self.ignores(&event.sender) {
            return Outcome::default();
        }
        if self.scope.intricate || event.names(&self.user) {
            return event.for_user(&self.rules, &self.user, display_name);
        }
        self.judge_simply(event)
    }

    /// The same without asking each rule: the default ones are as they were, and say what they say to all.
    fn judge_simply(&self, event: &PushEvent) -> Outcome {
        let room = &event.context.room_id;
        if event.sender == self.user {
            return Outcome::default();
        }
        if let Some(outcome) = self.scope.whole_rooms.get(room) {
            return outcome.clone();
        }
        if event.plain_is_override {
            return event.plain.clone();
        }
        if !self.rules.content.is_empty() {
            let mut context = event.context.clone();
            context.user_id.clone_from(&self.user);
            let content = self.rules.content.iter().filter(|rule| rule.enabled);
            if let Some(rule) = content.into_iter().find(|rule| rule.applies_to("content.body", &event.flat, &context))
            {
                return Outcome::of(&rule.actions);
            }
        }
        let of_room = self.rules.room.get(room.as_str()).filter(|rule| rule.enabled).map(|rule| &rule.actions);
        let of_sender = || self.rules.sender.get(event.sender.as_str()).filter(|rule| rule.enabled);
        match of_room.or_else(|| of_sender().map(|rule| &rule.actions)) {
            Some(actions) => Outcome::of(actions),
            None => event.plain.clone(),
        }
    }

    /// Whether the user hears of ordinary messages of nobody in particular in a room with so many members. Where he does
    /// not, a room is muted for him, or tells him of mentions only.
    pub fn hears_messages(&self, room: &RoomId, joined_members: u64) -> bool {
        if !self.scope.everywhere && !self.scope.rooms.contains(room) {
            return true;
        }
        let key = (self.scope.rooms.get(room).cloned(), joined_members);
        let mut known = self.hears.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(hears) = known.get(&key) {
            return *hears;
        }
        let hears = self.ask_for_messages(room, joined_members);
        if known.len() >= HEARS {
            known.clear();
        }
        known.insert(key, hears);
        hears
    }

    fn ask_for_messages(&self, room: &RoomId, joined_members: u64) -> bool {
        let context = PushConditionRoomCtx::new(
            room.to_owned(),
            joined_members.try_into().unwrap_or_default(),
            self.user.clone(),
            String::new(),
        );
        ["m.room.message", "m.room.encrypted"].into_iter().any(|kind| {
            let event = json!({ "type": kind, "room_id": room, "sender": *ANYBODY, "content": { "body": "" } });
            let raw = Raw::new(&event).map(|raw| FlattenedJson::from_raw(&raw));
            raw.map_or(true, |flat| judge(&self.rules, &flat, &context).notify)
        })
    }
}

impl Scope {
    fn of(rules: &Ruleset, user: &UserId) -> Self {
        let defaults = default_rules(user);
        let mut scope = Self::default();
        for rule in rules.iter() {
            if rule.is_server_default() {
                let default = defaults.iter().find(|default| default.rule_id() == rule.rule_id());
                let changed = default.is_none_or(|default| {
                    default.enabled() != rule.enabled() || differ(default.actions(), rule.actions())
                });
                scope.everywhere |= changed;
                scope.intricate |= changed;
                continue;
            }
            if !rule.enabled() {
                continue;
            }
            let any = rule;
            match rule {
                AnyPushRuleRef::Room(rule) => _ = scope.rooms.insert(rule.rule_id.clone()),
                AnyPushRuleRef::Sender(rule) => _ = scope.senders.insert(rule.rule_id.clone()),
                AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => {
                    let overrides = matches!(any, AnyPushRuleRef::Override(_));
                    let whole_room = match rule.conditions.as_slice() {
                        [condition] if overrides && precedes_defaults(rules, &rule.rule_id) => room_of(condition),
                        _ => None,
                    };
                    match whole_room {
                        Some(room) => _ = scope.whole_rooms.entry(room).or_insert_with(|| Outcome::of(&rule.actions)),
                        None => scope.intricate = true,
                    }
                    match rule.conditions.iter().find_map(room_of) {
                        Some(room) => _ = scope.rooms.insert(room),
                        None => scope.everywhere = true,
                    }
                }
                _ => scope.everywhere = true,
            }
        }
        scope
    }
}

/// Whether an overriding rule comes before all of the default rules but the one that switches all off.
fn precedes_defaults(rules: &Ruleset, rule_id: &str) -> bool {
    let before = rules.override_.iter().take_while(|rule| rule.rule_id != rule_id);
    before.filter(|rule| rule.default).all(|rule| !rule.enabled)
}

fn differ(one: &[ruma::push::Action], other: &[ruma::push::Action]) -> bool {
    serde_json::to_value(one).ok() != serde_json::to_value(other).ok()
}

/// The one room for which a condition holds.
fn room_of(condition: &PushCondition) -> Option<OwnedRoomId> {
    let PushCondition::EventMatch(condition) = condition else { return None };
    // Patterns match whatever the case.
    let literal = condition.key == "room_id" && !condition.pattern.contains(['*', '?']);
    literal.then(|| OwnedRoomId::try_from(condition.pattern.as_str()).ok()).flatten()
}

#[allow(deprecated, reason = "rules of users may still have it")]
fn asks_for_name(rule: AnyPushRuleRef<'_>) -> bool {
    let (AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule)) = rule else { return false };
    rule.conditions.iter().any(|condition| matches!(condition, PushCondition::ContainsDisplayName))
}

fn ignored_users(content: &str) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(default)]
        ignored_users: Map<String, Value>,
    }
    let content = serde_json::from_str::<Content>(content);
    content.map(|content| content.ignored_users.into_iter().map(|(user, _)| user).collect()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use ruma::{room_id, user_id};

    use super::PushProfile;

    fn profile(global: serde_json::Value) -> PushProfile {
        let content = serde_json::json!({ "global": global }).to_string();
        let ignored = r#"{"ignored_users":{"@spam:a":{},"@me:a":{}}}"#;
        PushProfile::new(user_id!("@me:a"), Some(&content), Some(ignored))
    }

    #[test]
    fn rules_of_a_room_concern_that_room() {
        let mute = profile(serde_json::json!({ "room": [
            { "rule_id": "!quiet:a", "default": false, "enabled": true, "actions": [] },
        ] }));
        let (quiet, other) = (room_id!("!quiet:a"), room_id!("!other:a"));
        assert!(mute.concerns(quiet, user_id!("@you:a")) && !mute.concerns(other, user_id!("@you:a")));
        assert!(mute.concerns(other, user_id!("@spam:a")) && !mute.ignores(user_id!("@me:a")));
        assert!(!mute.hears_messages(quiet, 5) && mute.hears_messages(other, 5));
        let shut = profile(serde_json::json!({ "override": [
            { "rule_id": "x", "default": false, "enabled": true, "actions": [],
              "conditions": [{ "kind": "event_match", "key": "room_id", "pattern": "!quiet:a" }] },
        ] }));
        assert!(!shut.hears_messages(quiet, 5) && !shut.concerns(other, user_id!("@you:a")));
    }

    /// What is found without asking each rule is what asking them finds.
    #[test]
    fn simple_rules_are_judged_as_all_rules_are() {
        use std::sync::Arc;

        use crate::{Pdu, PowerLevels, push::PushEvent, testing};

        let rules = crate::rules(&ruma::RoomVersionId::V11).unwrap();
        let state: Vec<Arc<Pdu>> =
            vec![testing::event("@a:a", "m.room.create", Some(""), serde_json::json!({})).make(rules)];
        let levels = PowerLevels::of(testing::state_of(state), rules);
        let contents = [
            ("m.room.message", serde_json::json!({ "body": "cake", "msgtype": "m.text" })),
            ("m.room.message", serde_json::json!({ "body": "cake", "msgtype": "m.notice" })),
            ("m.room.message", serde_json::json!({ "body": "bread", "m.mentions": { "user_ids": ["@me:a"] } })),
            ("m.room.message", serde_json::json!({ "body": "bread", "m.mentions": { "room": true } })),
            ("m.room.encrypted", serde_json::json!({})),
            ("m.reaction", serde_json::json!({})),
        ];
        let rule = |id: &str, more: serde_json::Value| {
            let mut rule =
                serde_json::json!({ "rule_id": id, "default": false, "enabled": true, "actions": ["notify"] });
            rule.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            rule
        };
        let none = serde_json::json!({ "actions": [] });
        let sample = testing::event("@b:a", "m.reaction", None, serde_json::json!({})).make(rules);
        let room = sample.room_id.to_string();
        let here = |actions: serde_json::Value| {
            let condition = serde_json::json!({ "kind": "event_match", "key": "room_id", "pattern": room });
            rule("here", serde_json::json!({ "conditions": [condition], "actions": actions }))
        };
        let cake =
            rule("c", serde_json::json!({ "pattern": "cake", "actions": ["notify", { "set_tweak": "highlight" }] }));
        for global in [
            serde_json::json!({ "room": [rule(&room, none.clone())] }),
            serde_json::json!({ "room": [rule(&room, none.clone())], "content": [cake] }),
            serde_json::json!({ "sender": [rule("@b:a", none.clone())], "content": [cake] }),
            serde_json::json!({ "override": [here(serde_json::json!([]))], "content": [cake] }),
            serde_json::json!({ "underride": [here(serde_json::json!([]))] }),
            serde_json::json!({ "room": [rule(&room, serde_json::json!({ "enabled": false, "actions": [] }))] }),
        ] {
            let profile = profile(global.clone());
            for (kind, content) in &contents {
                let pdu = testing::event("@b:a", kind, None, content.clone()).make(rules);
                let event = PushEvent::new(&pdu, rules, 9, &levels);
                let asked = event.for_user(profile.rules(), user_id!("@me:a"), "");
                assert_eq!(profile.judge(&event, ""), asked, "{global} {content}");
            }
        }
    }

    #[test]
    fn changed_defaults_and_keywords_concern_everything() {
        let (room, you) = (room_id!("!r:a"), user_id!("@you:a"));
        let quiet = |id: &str| {
            let condition = serde_json::json!({ "kind": "event_match", "key": "type", "pattern": "m.room.message" });
            serde_json::json!({ "rule_id": id, "default": true, "enabled": true, "actions": [], "conditions": [condition] })
        };
        for (global, hears) in [
            (serde_json::json!({}), true),
            (
                serde_json::json!({ "content": [
                    { "rule_id": "cake", "default": false, "enabled": true, "pattern": "cake", "actions": ["notify"] },
                ] }),
                true,
            ),
            (serde_json::json!({ "underride": [quiet(".m.rule.message"), quiet(".m.rule.encrypted")] }), false),
        ] {
            let profile = profile(global.clone());
            assert_eq!(profile.concerns(room, you), global != serde_json::json!({}), "{global}");
            assert_eq!(profile.hears_messages(room, 5), hears, "{global}");
        }
    }
}
