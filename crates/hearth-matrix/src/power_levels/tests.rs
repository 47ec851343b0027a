//! Levels and their defaults.

use ruma::{RoomVersionId, user_id};
use serde_json::{Value, json};

use super::*;
use crate::{
    rules,
    testing::{event, state_of},
};

fn levels(version: RoomVersionId, create: Value, power_levels: Option<Value>) -> PowerLevels {
    let rules = rules(&version).unwrap();
    let mut state = vec![event("@a:a", "m.room.create", Some(""), create).make(rules)];
    state.extend(power_levels.map(|content| event("@a:a", "m.room.power_levels", Some(""), content).make(rules)));
    PowerLevels::of(state_of(state), rules)
}

#[test]
fn defaults() {
    for power_levels in [None, Some(json!({}))] {
        let is_set = power_levels.is_some();
        let levels = levels(RoomVersionId::V11, json!({}), power_levels);
        let finite = Level::Finite;
        assert_eq!([levels.ban(), levels.kick(), levels.redact(), levels.state("x")], [finite(50); 4]);
        assert_eq!([levels.invite(), levels.message("x"), levels.users_default()], [finite(0); 3]);
        assert_eq!(levels.notification("room"), finite(50));
        assert_eq!(levels.user(user_id!("@b:a")), finite(0));
        assert_eq!(levels.user(user_id!("@a:a")), finite(if is_set { 0 } else { 100 }));
    }
}

#[test]
fn what_is_set_counts() {
    let content = json!({"users": {"@b:a": 7}, "users_default": 1, "events": {"x": 2}, "events_default": 3,
        "state_default": 4, "ban": 5, "kick": "6", "redact": 8, "invite": 9, "notifications": {"room": 10}});
    let levels = levels(RoomVersionId::V9, json!({"creator": "@a:a"}), Some(content));
    let all = [
        levels.user(user_id!("@b:a")),
        levels.user(user_id!("@a:a")),
        levels.state("x"),
        levels.message("x"),
        levels.message("y"),
        levels.state("y"),
        levels.ban(),
        levels.kick(),
        levels.redact(),
        levels.invite(),
        levels.notification("room"),
        levels.notification("other"),
    ];
    assert_eq!(all, [7, 1, 2, 2, 3, 4, 5, 6, 8, 9, 10, 50].map(Level::Finite));
}

#[test]
fn creators() {
    let create = json!({"creator": "@b:a", "additional_creators": ["@c:a"]});
    for (version, a, b, c) in [
        (RoomVersionId::V10, Level::Finite(0), Level::Finite(100), Level::Finite(0)),
        (RoomVersionId::V11, Level::Finite(100), Level::Finite(0), Level::Finite(0)),
        (RoomVersionId::V12, Level::Infinite, Level::Finite(0), Level::Infinite),
    ] {
        let levels = levels(version.clone(), create.clone(), None);
        let found = [user_id!("@a:a"), user_id!("@b:a"), user_id!("@c:a")].map(|user| levels.user(user));
        assert_eq!(found, [a, b, c], "{version}");
    }
    assert!(Level::Infinite > Level::Finite(i64::MAX));
}

#[test]
fn redacting() {
    let levels = levels(RoomVersionId::V11, json!({}), Some(json!({"users": {"@mod:b": 50}})));
    assert!(levels.may_redact(user_id!("@mod:b"), user_id!("@x:a")));
    assert!(levels.may_redact(user_id!("@x:a"), user_id!("@y:a")));
    assert!(!levels.may_redact(user_id!("@x:b"), user_id!("@y:a")));
}
