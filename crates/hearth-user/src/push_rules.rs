//! Push rules: the specification's, and what a user made of them.
//!
//! Spec: client-server API, "Push Rules". They are stored as account data `m.push_rules` once a user changes them; until
//! then, and for rules that a newer server adds, the defaults apply. Evaluation is `hearth-matrix`'s.

use hearth_matrix::push::{default_rules, stored_rules};
use hearth_matrix::ruma::UserId;
use hearth_matrix::ruma::push::{Action, InsertPushRuleError, NewPushRule, RemovePushRuleError, RuleKind, Ruleset};
use hearth_store::{Noun, StoreError, Tx, UserNum};
use serde_json::{Map, Value};

use crate::Users;

/// The type of account data that holds them.
pub const ACCOUNT_DATA_TYPE: &str = "m.push_rules";

/// A user has at most so many rules: every message is held against all of them.
const MOST: usize = 2000;
/// And at most so many that look into events: those for a room or a sender are found by their ids.
const MOST_WITH_CONDITIONS: usize = 400;
/// Largest rules of a user as JSON.
const SIZE_BYTES: usize = 512 * 1024;
/// The kinds, in the order of their weight. Clients expect all of them, also where they are empty.
const KINDS: [&str; 5] = ["override", "content", "room", "sender", "underride"];

/// Why push rules can't be read or changed that way.
#[derive(Debug, thiserror::Error)]
pub enum PushRuleError {
    /// No such rule.
    #[error("no such push rule")]
    NotFound,
    /// The rule, or its place, is not allowed.
    #[error("{0}")]
    Invalid(String),
    /// The rule beside which it is to stand is not there.
    #[error("before/after rule not found")]
    UnknownPlace,
    /// Too many rules, or too large ones.
    #[error("too many push rules")]
    TooMany,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Users {
    /// All rules of a user.
    pub async fn push_rules(&self, user: UserNum, user_id: &UserId) -> Result<Ruleset, PushRuleError> {
        let user_id = user_id.to_owned();
        Ok(self.store.read(move |tx| ruleset_of(tx, user, &user_id)).await?)
    }

    /// Adds or replaces a rule, before or after another.
    pub async fn set_push_rule(
        &self,
        user: UserNum,
        user_id: &UserId,
        rule: NewPushRule,
        after: Option<String>,
        before: Option<String>,
    ) -> Result<(), PushRuleError> {
        self.change_push_rules(user, user_id, move |rules| {
            rules.insert(rule.clone(), after.as_deref(), before.as_deref()).map_err(|error| match error {
                InsertPushRuleError::UnknownRuleId => PushRuleError::UnknownPlace,
                error => PushRuleError::Invalid(error.to_string()),
            })
        })
        .await
    }

    /// Removes a rule that the user made.
    pub async fn remove_push_rule(
        &self,
        user: UserNum,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
    ) -> Result<(), PushRuleError> {
        self.change_push_rules(user, user_id, move |rules| {
            rules.remove(kind.clone(), &rule_id).map_err(|error| match error {
                RemovePushRuleError::NotFound => PushRuleError::NotFound,
                error => PushRuleError::Invalid(error.to_string()),
            })
        })
        .await
    }

    /// Switches a rule on or off.
    pub async fn set_push_rule_enabled(
        &self,
        user: UserNum,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
        enabled: bool,
    ) -> Result<(), PushRuleError> {
        self.change_push_rules(user, user_id, move |rules| {
            rules.set_enabled(kind.clone(), &rule_id, enabled).map_err(|_| PushRuleError::NotFound)
        })
        .await
    }

    /// Gives a rule other actions.
    pub async fn set_push_rule_actions(
        &self,
        user: UserNum,
        user_id: &UserId,
        kind: RuleKind,
        rule_id: String,
        actions: Vec<Action>,
    ) -> Result<(), PushRuleError> {
        self.change_push_rules(user, user_id, move |rules| {
            rules.set_actions(kind.clone(), &rule_id, actions.clone()).map_err(|_| PushRuleError::NotFound)
        })
        .await
    }

    async fn change_push_rules(
        &self,
        user: UserNum,
        user_id: &UserId,
        change: impl Fn(&mut Ruleset) -> Result<(), PushRuleError> + Send + 'static,
    ) -> Result<(), PushRuleError> {
        let user_id = user_id.to_owned();
        self.store
            .write(vec![Noun::User(user)], move |tx| {
                let mut rules = ruleset_of(tx, user, &user_id)?;
                if let Err(refusal) = change(&mut rules) {
                    return Ok(Err(refusal));
                }
                let content = content(&rules);
                let with_conditions = rules.content.len() + rules.override_.len() + rules.underride.len();
                if rules.iter().count() > MOST || with_conditions > MOST_WITH_CONDITIONS || content.len() > SIZE_BYTES {
                    return Ok(Err(PushRuleError::TooMany));
                }
                tx.account_data().set(user, None, ACCOUNT_DATA_TYPE, &content)?;
                Ok(Ok(()))
            })
            .await?
    }
}

/// The rules of a user, inside a transaction.
pub fn ruleset_of(tx: &mut Tx<'_>, user: UserNum, user_id: &UserId) -> Result<Ruleset, StoreError> {
    match tx.account_data().get(user, None, ACCOUNT_DATA_TYPE)? {
        Some(stored) => {
            stored_rules(user_id, &stored).map_err(|error| StoreError::Damaged(format!("push rules: {error}")))
        }
        None => Ok(default_rules(user_id)),
    }
}

/// The content of a user's `m.push_rules` event, inside a transaction: there is always one.
pub fn content_of(tx: &mut Tx<'_>, user: UserNum, user_id: &UserId) -> Result<String, StoreError> {
    Ok(content(&ruleset_of(tx, user, user_id)?))
}

/// The content of an `m.push_rules` event.
pub fn content(rules: &Ruleset) -> String {
    Value::Object(Map::from_iter([("global".to_owned(), Value::Object(to_json(rules)))])).to_string()
}

/// Rules as clients see them: every kind is there, empty or not.
pub fn to_json(rules: &Ruleset) -> Map<String, Value> {
    let mut json = match serde_json::to_value(rules) {
        Ok(Value::Object(json)) => json,
        _ => Map::new(),
    };
    for kind in KINDS {
        json.entry(kind).or_insert_with(|| Value::Array(Vec::new()));
    }
    json
}

#[cfg(test)]
mod tests {
    use hearth_matrix::ruma::push::Ruleset;
    use hearth_matrix::ruma::user_id;

    use super::{content, stored_rules, to_json};

    #[test]
    fn rules_survive_storing() {
        let rules = Ruleset::server_default(user_id!("@alice:example.org"));
        let again = stored_rules(user_id!("@alice:example.org"), &content(&rules)).unwrap();
        assert_eq!(to_json(&again), to_json(&rules));
    }

    #[test]
    fn every_kind_is_shown_and_the_defaults_are_those_of_the_specification() {
        let json = to_json(&Ruleset::server_default(user_id!("@alice:example.org")));
        let ids = |kind: &str| -> Vec<String> {
            json[kind].as_array().unwrap().iter().map(|rule| rule["rule_id"].as_str().unwrap().to_owned()).collect()
        };
        assert_eq!(
            ids("override"),
            [
                ".m.rule.master",
                ".m.rule.suppress_notices",
                ".m.rule.invite_for_me",
                ".m.rule.member_event",
                ".m.rule.is_user_mention",
                ".m.rule.is_room_mention",
                ".m.rule.tombstone",
                ".m.rule.reaction",
                ".m.rule.room.server_acl",
                ".m.rule.suppress_edits",
            ]
        );
        assert_eq!(
            ids("underride"),
            [
                ".m.rule.call",
                ".m.rule.encrypted_room_one_to_one",
                ".m.rule.room_one_to_one",
                ".m.rule.message",
                ".m.rule.encrypted",
            ]
        );
        for empty in ["content", "room", "sender"] {
            assert!(ids(empty).is_empty());
        }
    }
}
