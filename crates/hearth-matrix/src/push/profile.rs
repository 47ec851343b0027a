//! A user's push rules and whom he ignores, as account data tells them, ready to be held against many events.
//!
//! Spec: client-server API, "Push Rules", "Ignoring users".

use ruma::{
    OwnedRoomId, OwnedUserId, RoomId, UserId,
    push::{AnyPushRuleRef, FlattenedJson, PushCondition, PushConditionRoomCtx, Ruleset},
    serde::Raw,
};
use rustc_hash::FxHashSet;
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
}

/// For which events a user's rules may say something else than the default ones.
#[derive(Debug, Default)]
struct Scope {
    everywhere: bool,
    rooms: FxHashSet<OwnedRoomId>,
    senders: FxHashSet<OwnedUserId>,
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
        Self { user: user.to_owned(), ignored: ignored.collect(), scope, asks_for_name, rules, size_bytes }
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
        event.for_user(&self.rules, &self.user, display_name)
    }

    /// Whether the user hears of ordinary messages of nobody in particular in a room with so many members. Where he does
    /// not, a room is muted for him, or tells him of mentions only.
    pub fn hears_messages(&self, room: &RoomId, joined_members: u64) -> bool {
        if !self.scope.everywhere && !self.scope.rooms.contains(room) {
            return true;
        }
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
                scope.everywhere |= default.is_none_or(|default| {
                    default.enabled() != rule.enabled() || differ(default.actions(), rule.actions())
                });
                continue;
            }
            if !rule.enabled() {
                continue;
            }
            match rule {
                AnyPushRuleRef::Room(rule) => _ = scope.rooms.insert(rule.rule_id.clone()),
                AnyPushRuleRef::Sender(rule) => _ = scope.senders.insert(rule.rule_id.clone()),
                AnyPushRuleRef::Override(rule) | AnyPushRuleRef::Underride(rule) => {
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
