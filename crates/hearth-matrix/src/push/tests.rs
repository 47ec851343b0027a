//! The default rules as a table, the users they treat apart, and rules of one's own.

use std::sync::Arc;

use ruma::{
    RoomVersionId,
    push::{NewConditionalPushRule, NewPatternedPushRule, NewPushRule, NewSimplePushRule, PushCondition, Tweak},
    user_id,
};
use serde_json::{Value, json};

use super::*;
use crate::testing::{event, state_of};

fn prepared(kind: &str, key: Option<&str>, content: Value, members: u64, sender_level: i64) -> PushEvent {
    let rules = crate::rules(&RoomVersionId::V11).unwrap();
    let state: Vec<Arc<Pdu>> = vec![
        event("@a:a", "m.room.create", Some(""), json!({})).make(rules),
        event("@a:a", "m.room.power_levels", Some(""), json!({"users": {"@b:a": sender_level}})).make(rules),
    ];
    let levels = PowerLevels::of(state_of(state), rules);
    PushEvent::new(&event("@b:a", kind, key, content).make(rules), rules, members, &levels)
}

fn text(outcome: &Outcome) -> &'static str {
    match (outcome.notify, outcome.highlight, outcome.sound.as_deref()) {
        (false, false, None) => "nothing",
        (true, false, None) => "notify",
        (true, false, Some("default")) => "sound",
        (true, false, Some("ring")) => "ring",
        (true, true, None) => "highlight",
        (true, true, Some("default")) => "highlight, sound",
        _ => "?",
    }
}

#[test]
fn the_default_rules() {
    let room = |content: Value| ("m.room.message", None, content);
    for ((kind, key, content), members, level, expected) in [
        (room(json!({"body": "x", "msgtype": "m.text"})), 3, 0, "notify"),
        (room(json!({"body": "x", "msgtype": "m.text"})), 2, 0, "sound"),
        (room(json!({"body": "x", "msgtype": "m.notice"})), 3, 0, "nothing"),
        (room(json!({"body": "x", "m.relates_to": {"rel_type": "m.replace"}})), 3, 0, "nothing"),
        (room(json!({"body": "x", "m.mentions": {"room": true}})), 3, 50, "highlight"),
        (room(json!({"body": "x", "m.mentions": {"room": true}})), 3, 49, "notify"),
        (room(json!({"body": "anybody", "m.mentions": {"user_ids": ["@c:a"]}})), 3, 0, "notify"),
        (("m.room.encrypted", None, json!({})), 3, 0, "notify"),
        (("m.room.encrypted", None, json!({})), 2, 0, "sound"),
        (("m.call.invite", None, json!({})), 3, 0, "ring"),
        (("m.reaction", None, json!({})), 3, 0, "nothing"),
        (("m.room.member", Some("@c:a"), json!({"membership": "invite"})), 3, 0, "nothing"),
        (("m.room.tombstone", Some(""), json!({})), 3, 0, "highlight"),
        (("m.room.topic", Some(""), json!({})), 3, 0, "nothing"),
        (("m.room.server_acl", Some(""), json!({})), 3, 0, "nothing"),
    ] {
        let event = prepared(kind, key, content.clone(), members, level);
        assert_eq!(text(&event.for_anybody()), expected, "{kind} {content}");
    }
}

/// What is said once for all is what each member's own default rules say.
#[test]
fn one_judgement_holds_for_all_but_the_named() {
    let contents = [
        ("m.room.message", None, json!({"body": "c", "m.mentions": {"user_ids": ["@c:a", 5, "x"], "room": true}})),
        ("m.room.message", None, json!({"body": "@d:a anybody"})),
        ("m.room.member", Some("@c:a"), json!({"membership": "invite"})),
        ("m.room.member", Some("@c:a"), json!({"membership": "leave"})),
        ("m.room.tombstone", Some(""), json!({})),
    ];
    for (kind, key, content) in contents {
        let event = prepared(kind, key, content, 9, 50);
        for user in [user_id!("@a:a"), user_id!("@c:a"), user_id!("@d:a")] {
            let own = event.for_user(&default_rules(user), user, "anybody");
            if !event.named_users().iter().any(|named| named == user) {
                assert_eq!(own, event.for_anybody(), "{kind} {user}");
            }
        }
    }
}

#[test]
fn named_users_are_judged_apart() {
    let user = user_id!("@c:a");
    let for_user = |event: &PushEvent| text(&event.for_user(&default_rules(user), user, "c"));
    let mention = prepared("m.room.message", None, json!({"body": "x", "m.mentions": {"user_ids": [user]}}), 9, 0);
    assert_eq!((mention.named_users(), for_user(&mention)), (&[user.to_owned()][..], "highlight, sound"));
    let invite = prepared("m.room.member", Some(user.as_str()), json!({"membership": "invite"}), 9, 0);
    assert_eq!((invite.named_users(), for_user(&invite)), (&[user.to_owned()][..], "sound"));
    let sender = user_id!("@b:a");
    assert_eq!(text(&mention.for_user(&default_rules(sender), sender, "b")), "nothing");
}

#[test]
fn a_version_12_creator_may_always_notify_the_room() {
    let rules = crate::rules(&RoomVersionId::V12).unwrap();
    let state = vec![
        event("@b:a", "m.room.create", Some(""), json!({})).make(rules),
        event("@b:a", "m.room.power_levels", Some(""), json!({"notifications": {"room": 5000}})).make(rules),
    ];
    let levels = PowerLevels::of(state_of(state), rules);
    let content = json!({"body": "x", "m.mentions": {"room": true}});
    for (sender, expected) in [("@b:a", "highlight"), ("@c:a", "notify")] {
        let pdu = event(sender, "m.room.message", None, content.clone()).make(rules);
        assert_eq!(text(&PushEvent::new(&pdu, rules, 9, &levels).for_anybody()), expected);
    }
}

#[test]
fn rules_of_ones_own_come_in_their_order() {
    let user = user_id!("@c:a");
    let sound = || vec![Action::Notify, Action::SetTweak(Tweak::Sound(SoundTweakValue::Default))];
    let message = |body: &str| prepared("m.room.message", None, json!({"body": body, "n": 5, "list": ["x"]}), 9, 0);
    let with = |rule: NewPushRule| {
        let mut rules = default_rules(user);
        rules.insert(rule, None, None).unwrap();
        rules
    };
    let judged = |rules: &Ruleset, body: &str| text(&message(body).for_user(rules, user, "Cee"));

    let keyword = with(NewPushRule::Content(NewPatternedPushRule::new("k".into(), "b*r".into(), sound())));
    assert_eq!(judged(&keyword, "a Beer!"), "sound");
    assert_eq!(judged(&keyword, "beers"), "notify");
    let muted = with(NewPushRule::Room(NewSimplePushRule::new(ruma::room_id!("!room:a").to_owned(), vec![])));
    assert_eq!(judged(&muted, "x"), "nothing");
    let sender = with(NewPushRule::Sender(NewSimplePushRule::new(user_id!("@b:a").to_owned(), sound())));
    assert_eq!(judged(&sender, "x"), "sound");

    for (condition, expected) in [
        (json!({"kind": "event_property_is", "key": "content.n", "value": 5}), "sound"),
        (json!({"kind": "event_property_is", "key": "content.n", "value": "5"}), "notify"),
        (json!({"kind": "event_property_contains", "key": "content.list", "value": "x"}), "sound"),
        (json!({"kind": "event_property_contains", "key": "content.list", "value": "y"}), "notify"),
        (json!({"kind": "room_member_count", "is": ">8"}), "sound"),
        (json!({"kind": "room_member_count", "is": "<9"}), "notify"),
        (json!({"kind": "contains_display_name"}), "sound"),
        (json!({"kind": "sender_notification_permission", "key": "room"}), "notify"),
        (json!({"kind": "of_the_future"}), "notify"),
    ] {
        let parsed: PushCondition = serde_json::from_value(condition.clone()).unwrap();
        let rule = NewConditionalPushRule::new("o".into(), vec![parsed], sound());
        assert_eq!(judged(&with(NewPushRule::Override(rule)), "hey cee"), expected, "{condition}");
    }

    let mut off = default_rules(user);
    off.set_enabled(ruma::push::RuleKind::Override, ".m.rule.master", true).unwrap();
    assert_eq!(judged(&off, "x"), "nothing");
}
