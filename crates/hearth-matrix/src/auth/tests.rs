//! The auth rules as tables: in which room versions is an event allowed, given a state?
//!
//! Random events are compared with ruma's rules while rooms grow in `resolution/tests.rs`.

use std::ops::RangeInclusive;

use ruma::{OwnedEventId, RoomVersionId};
use serde_json::{Value, json};

use super::*;
use crate::{
    SUPPORTED_VERSIONS, SigningKey,
    testing::{event, state_of},
};

type Given<'a> = (&'a str, &'a str, Option<&'a str>, Value);

const ALL: RangeInclusive<usize> = 1..=12;
#[allow(clippy::reversed_empty_ranges)]
const NONE: RangeInclusive<usize> = 1..=0;

fn member<'a>(sender: &'a str, target: &'a str, membership: &str) -> Given<'a> {
    (sender, "m.room.member", Some(target), json!({"membership": membership}))
}

fn join_rule(rule: &str) -> Given<'static> {
    ("@a:a", "m.room.join_rules", Some(""), json!({"join_rule": rule}))
}

fn power_levels(content: Value) -> Given<'static> {
    ("@a:a", "m.room.power_levels", Some(""), content)
}

fn message(sender: &str) -> Given<'_> {
    (sender, "m.room.message", None, json!({"body": "x"}))
}

/// A room of @a (creator), @b (level 50) and @c (level 0), and what else is given.
fn check_in(version: &RoomVersionId, given: &[Given<'_>], (sender, kind, key, content): &Given<'_>) -> bool {
    let rules = crate::rules(version).unwrap();
    let mut state = vec![
        ("@a:a", "m.room.create", Some(""), json!({"creator": "@a:a", "room_version": version.as_str()})),
        member("@a:a", "@a:a", "join"),
        member("@b:a", "@b:a", "join"),
        member("@c:c", "@c:c", "join"),
        power_levels(json!({"users": {"@a:a": 100, "@b:a": 50}})),
        join_rule("public"),
    ];
    state.extend_from_slice(given);
    let state = state.into_iter().map(|(sender, kind, key, content)| event(sender, kind, key, content).make(rules));
    let state = state_of(state.collect());
    let mut asked = event(sender, kind, *key, content.clone());
    asked.id = "$asked:a".to_owned();
    check(rules, &asked.make(rules), state).is_ok()
}

#[track_caller]
fn allowed(versions: RangeInclusive<usize>, given: &[Given<'_>], asked: Given<'_>) {
    let found: Vec<_> = SUPPORTED_VERSIONS
        .iter()
        .zip(1..)
        .filter(|(version, _)| check_in(version, given, &asked))
        .map(|(_, n)| n)
        .collect();
    assert_eq!(found, versions.collect::<Vec<_>>(), "{asked:?} given {given:?}");
}

#[test]
fn joins() {
    let knock_restricted = join_rule("knock_restricted");
    let vouched = (
        "@d:d",
        "m.room.member",
        Some("@d:d"),
        json!({"membership": "join", "join_authorised_via_users_server": "@b:a"}),
    );
    let vouched_by_d = (
        "@d:d",
        "m.room.member",
        Some("@d:d"),
        json!({"membership": "join", "join_authorised_via_users_server": "@d:d"}),
    );
    let high_invite = power_levels(json!({"users": {"@a:a": 100, "@b:a": 50}, "invite": 51}));
    allowed(ALL, &[], member("@d:d", "@d:d", "join"));
    allowed(NONE, &[], member("@a:a", "@d:d", "join"));
    allowed(NONE, &[member("@a:a", "@d:d", "ban")], member("@d:d", "@d:d", "join"));
    allowed(NONE, &[join_rule("invite")], member("@d:d", "@d:d", "join"));
    allowed(ALL, &[join_rule("invite"), member("@a:a", "@d:d", "invite")], member("@d:d", "@d:d", "join"));
    allowed(ALL, &[join_rule("invite")], member("@c:c", "@c:c", "join"));
    allowed(7..=12, &[join_rule("knock"), member("@a:a", "@d:d", "invite")], member("@d:d", "@d:d", "join"));
    allowed(NONE, &[join_rule("knock")], member("@d:d", "@d:d", "join"));
    allowed(8..=12, &[join_rule("restricted"), member("@a:a", "@d:d", "invite")], member("@d:d", "@d:d", "join"));
    allowed(NONE, &[join_rule("restricted")], member("@d:d", "@d:d", "join"));
    allowed(8..=12, &[join_rule("restricted")], vouched.clone());
    allowed(NONE, &[join_rule("restricted"), high_invite], vouched.clone());
    allowed(NONE, &[join_rule("restricted"), member("@b:a", "@b:a", "leave")], vouched.clone());
    allowed(NONE, &[join_rule("restricted")], vouched_by_d);
    allowed(10..=12, std::slice::from_ref(&knock_restricted), vouched);
    allowed(NONE, &[knock_restricted], member("@d:d", "@d:d", "join"));
    allowed(NONE, &[join_rule("private")], member("@d:d", "@d:d", "join"));
    allowed(NONE, &[], ("@d:d", "m.room.member", Some("@d:d"), json!({})));
    allowed(NONE, &[], ("@d:d", "m.room.member", None, json!({"membership": "join"})));
    allowed(NONE, &[], member("@d:d", "d", "join"));
    allowed(NONE, &[], member("@d:d", "@d:d", "smile"));
}

#[test]
fn without_join_rules_a_room_is_invite_only() {
    let rules = crate::rules(&RoomVersionId::V11).unwrap();
    let create = event("@a:a", "m.room.create", Some(""), json!({})).make(rules);
    let invite = event("@a:a", "m.room.member", Some("@d:d"), json!({"membership": "invite"})).make(rules);
    let join = event("@d:d", "m.room.member", Some("@d:d"), json!({"membership": "join"})).make(rules);
    assert!(check(rules, &join, state_of(vec![create.clone(), invite])).is_ok());
    assert!(check(rules, &join, state_of(vec![create])).is_err());
}

/// The first join: right after the create event, by the creator and nobody else.
#[test]
fn the_creator_joins_first() {
    for (version, number) in SUPPORTED_VERSIONS.iter().zip(1..) {
        let rules = crate::rules(version).unwrap();
        // From version 11 on the creator is who sent the event, whatever the content says.
        let create = event("@a:a", "m.room.create", Some(""), json!({"creator": "@b:a"})).make(rules);
        let joins = |user: &str, prev: &str| {
            let mut join = event(user, "m.room.member", Some(user), json!({"membership": "join"}));
            join.id = "$join:a".to_owned();
            join.prev_events = vec![OwnedEventId::try_from(prev).unwrap()];
            check(rules, &join.make(rules), state_of(vec![create.clone()])).is_ok()
        };
        assert_eq!(joins("@a:a", "$event:a"), number >= 11, "{version}");
        assert_eq!(joins("@b:a", "$event:a"), number < 11, "{version}");
        assert!(!joins("@a:a", "$other:a"), "{version}");
    }
}

#[test]
fn invites_and_knocks() {
    let invited = |membership| [member("@d:d", "@d:d", membership)];
    allowed(ALL, &[], member("@c:c", "@d:d", "invite"));
    allowed(NONE, &[], member("@d:d", "@e:e", "invite"));
    allowed(NONE, &[], member("@a:a", "@c:c", "invite"));
    allowed(NONE, &[member("@a:a", "@d:d", "ban")], member("@a:a", "@d:d", "invite"));
    allowed(ALL, &[member("@a:a", "@d:d", "invite")], member("@a:a", "@d:d", "invite"));
    allowed(NONE, &[power_levels(json!({"users": {"@b:a": 50}, "invite": 1}))], member("@c:c", "@d:d", "invite"));
    allowed(ALL, &[power_levels(json!({"users": {"@b:a": 50}, "invite": 1}))], member("@b:a", "@d:d", "invite"));

    allowed(NONE, &[], member("@d:d", "@d:d", "knock"));
    allowed(7..=12, &[join_rule("knock")], member("@d:d", "@d:d", "knock"));
    allowed(10..=12, &[join_rule("knock_restricted")], member("@d:d", "@d:d", "knock"));
    allowed(NONE, &[join_rule("knock")], member("@a:a", "@d:d", "knock"));
    for (membership, versions) in
        [("ban", NONE), ("invite", NONE), ("join", NONE), ("knock", 7..=12), ("leave", 7..=12)]
    {
        let mut given = invited(membership).to_vec();
        given.push(join_rule("knock"));
        allowed(versions, &given, member("@d:d", "@d:d", "knock"));
    }
}

#[test]
fn leaving_kicking_and_banning() {
    allowed(ALL, &[], member("@c:c", "@c:c", "leave"));
    allowed(ALL, &[member("@a:a", "@d:d", "invite")], member("@d:d", "@d:d", "leave"));
    allowed(7..=12, &[member("@d:d", "@d:d", "knock")], member("@d:d", "@d:d", "leave"));
    allowed(NONE, &[], member("@d:d", "@d:d", "leave"));
    allowed(NONE, &[member("@a:a", "@c:c", "ban")], member("@c:c", "@c:c", "leave"));

    allowed(ALL, &[], member("@b:a", "@c:c", "leave"));
    allowed(NONE, &[], member("@c:c", "@b:a", "leave"));
    allowed(NONE, &[], member("@d:d", "@c:c", "leave"));
    allowed(NONE, &[], member("@b:a", "@a:a", "leave"));
    let equal = || power_levels(json!({"users": {"@b:a": 50, "@c:c": 50}}));
    allowed(NONE, &[equal()], member("@b:a", "@c:c", "leave"));
    allowed(NONE, &[equal()], member("@b:a", "@c:c", "ban"));

    // To unban takes both the ban and the kick level.
    let banned = || member("@a:a", "@d:d", "ban");
    let levels = |kick: i32, ban: i32| power_levels(json!({"users": {"@b:a": 50}, "kick": kick, "ban": ban}));
    allowed(ALL, &[banned(), levels(50, 50)], member("@b:a", "@d:d", "leave"));
    allowed(NONE, &[banned(), levels(50, 51)], member("@b:a", "@d:d", "leave"));
    allowed(NONE, &[banned(), levels(51, 50)], member("@b:a", "@d:d", "leave"));

    allowed(ALL, &[], member("@b:a", "@c:c", "ban"));
    allowed(ALL, &[], member("@b:a", "@d:d", "ban"));
    allowed(NONE, &[], member("@c:c", "@d:d", "ban"));
    allowed(NONE, &[member("@b:a", "@b:a", "leave")], member("@b:a", "@c:c", "ban"));
    allowed(NONE, &[levels(50, 51)], member("@b:a", "@c:c", "ban"));
}

#[test]
fn messages_and_state() {
    let topic = |sender| (sender, "m.room.topic", Some(""), json!({"topic": "x"}));
    allowed(ALL, &[], message("@c:c"));
    allowed(NONE, &[], message("@d:d"));
    allowed(NONE, &[member("@a:a", "@d:d", "invite")], message("@d:d"));
    allowed(NONE, &[], topic("@c:c"));
    allowed(ALL, &[], topic("@b:a"));
    let levels = power_levels(json!({"users": {"@b:a": 50}, "events": {"m.room.topic": 0}, "events_default": 1}));
    allowed(ALL, std::slice::from_ref(&levels), topic("@c:c"));
    allowed(NONE, &[levels], message("@c:c"));
    allowed(ALL, &[], ("@b:a", "x", Some("@b:a"), json!({})));
    allowed(NONE, &[], ("@b:a", "x", Some("@c:c"), json!({})));
    // The creator of a version 12 room stands above all levels; before, 100 is not enough for 101.
    let high = power_levels(json!({"users": {"@b:a": 50}, "events_default": 101}));
    allowed(12..=12, &[high], message("@a:a"));
    // Aliases were free for everybody on the server whose name is the state key.
    allowed(1..=5, &[], ("@d:d", "m.room.aliases", Some("d"), json!({"aliases": []})));
    allowed(6..=12, &[], ("@b:a", "m.room.aliases", Some("c"), json!({"aliases": []})));
}

#[test]
fn unfederated_rooms() {
    let create = ("@a:a", "m.room.create", Some(""), json!({"creator": "@a:a", "m.federate": false}));
    allowed(NONE, std::slice::from_ref(&create), message("@c:c"));
    allowed(ALL, &[create], message("@b:a"));
}

#[test]
fn third_party_invite_events_take_the_invite_level() {
    let invite = |sender| (sender, "m.room.third_party_invite", Some("token"), json!({}));
    allowed(ALL, &[], invite("@c:c"));
    allowed(NONE, &[power_levels(json!({"users": {"@b:a": 50}, "invite": 1}))], invite("@c:c"));
    allowed(NONE, &[], invite("@d:d"));
}

#[test]
fn invites_through_a_third_party_are_signed_by_it() {
    let key = SigningKey::from_seed([7; 32], "1").unwrap();
    let signed = key.sign_json(r#"{"mxid":"@d:d","token":"abc"}"#, "id.server").unwrap();
    let signed: Value = serde_json::from_str(&signed).unwrap();
    let invite = |sender, signed: &Value| {
        let content = json!({"membership": "invite", "third_party_invite": {"display_name": "d", "signed": signed}});
        (sender, "m.room.member", Some("@d:d"), content)
    };
    let offered = |sender, content: Value| (sender, "m.room.third_party_invite", Some("abc"), content);
    let public_key = json!({"public_key": key.public_key_base64()});
    let public_keys = json!({"public_key": "AAAA", "public_keys": [{"public_key": key.public_key_base64()}]});
    allowed(ALL, &[offered("@c:c", public_key.clone())], invite("@c:c", &signed));
    allowed(ALL, &[offered("@c:c", public_keys)], invite("@c:c", &signed));
    allowed(NONE, &[], invite("@c:c", &signed));
    allowed(NONE, &[offered("@b:a", public_key.clone())], invite("@c:c", &signed));
    allowed(NONE, &[offered("@c:c", json!({"public_key": BOGUS_KEY}))], invite("@c:c", &signed));
    allowed(NONE, &[offered("@c:c", public_key.clone()), member("@a:a", "@d:d", "ban")], invite("@c:c", &signed));
    let mut other = signed.clone();
    other["mxid"] = json!("@e:e");
    allowed(NONE, &[offered("@c:c", public_key.clone())], invite("@c:c", &other));
    let mut unsigned = signed.clone();
    unsigned["signatures"] = json!({});
    allowed(NONE, &[offered("@c:c", public_key.clone())], invite("@c:c", &unsigned));
    for missing in ["mxid", "token"] {
        let mut lacking = signed.clone();
        lacking.as_object_mut().unwrap().remove(missing);
        allowed(NONE, &[offered("@c:c", public_key.clone())], invite("@c:c", &lacking));
    }
    let without_signed = json!({"membership": "invite", "third_party_invite": {}});
    allowed(NONE, &[offered("@c:c", public_key)], ("@c:c", "m.room.member", Some("@d:d"), without_signed));
}

const BOGUS_KEY: &str = "MCowBQYDK2VwAyEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

#[test]
fn power_levels_within_ones_reach() {
    // @b has 50 and may send power levels.
    let current = || {
        power_levels(json!({"users": {"@b:a": 50, "@c:c": 50, "@d:d": 60}, "events": {"x": 50, "y": 60}, "kick": 40}))
    };
    let base = || json!({"users": {"@b:a": 50, "@c:c": 50, "@d:d": 60}, "events": {"x": 50, "y": 60}, "kick": 40});
    let with = |change: &dyn Fn(&mut Value)| {
        let mut content = base();
        change(&mut content);
        ("@b:a", "m.room.power_levels", Some(""), content)
    };
    allowed(ALL, &[current()], with(&|_| {}));
    allowed(ALL, &[current()], with(&|c| c["kick"] = json!(50)));
    allowed(NONE, &[current()], with(&|c| c["kick"] = json!(51)));
    allowed(ALL, &[current()], with(&|c| c["ban"] = json!(0)));
    allowed(ALL, &[current()], with(&|c| c["events"]["x"] = json!(0)));
    allowed(NONE, &[current()], with(&|c| c["events"]["y"] = json!(0)));
    allowed(
        NONE,
        &[current()],
        with(&|c| {
            c["events"].as_object_mut().unwrap().remove("y");
        }),
    );
    allowed(NONE, &[current()], with(&|c| c["events"]["z"] = json!(51)));
    allowed(ALL, &[current()], with(&|c| c["users"]["@e:e"] = json!(50)));
    allowed(NONE, &[current()], with(&|c| c["users"]["@e:e"] = json!(51)));
    // One's own level may go down, an equal's may not be touched.
    allowed(ALL, &[current()], with(&|c| c["users"]["@b:a"] = json!(0)));
    allowed(NONE, &[current()], with(&|c| c["users"]["@c:c"] = json!(0)));
    allowed(NONE, &[current()], with(&|c| c["users"]["@d:d"] = json!(0)));
    // `notifications` is guarded from version 6 on.
    allowed(1..=5, &[current()], with(&|c| c["notifications"] = json!({"room": 51})));
    allowed(ALL, &[current()], with(&|c| c["notifications"] = json!({"room": 50})));
}

/// Also not its default, which may be above the sender.
#[test]
fn an_absent_named_level_is_no_value() {
    // @c has 25 and may send power levels.
    let content = |change: Value| {
        let mut content = json!({"users": {"@c:c": 25}, "events": {"m.room.power_levels": 25}, "state_default": 25});
        content.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        content
    };
    let asked = |change| ("@c:c", "m.room.power_levels", Some(""), content(change));
    for name in ["ban", "kick", "redact", "invite", "users_default", "events_default"] {
        let given = |level: i32| [power_levels(content(json!({ name: level })))];
        let nothing = [power_levels(content(json!({})))];
        allowed(ALL, &nothing, asked(json!({ name: 25 })));
        allowed(NONE, &nothing, asked(json!({ name: 26 })));
        allowed(ALL, &given(25), asked(json!({})));
        allowed(NONE, &given(26), asked(json!({})));
        allowed(ALL, &given(26), asked(json!({ name: 26 })));
    }
}

#[test]
fn power_levels_are_well_formed() {
    let asked = |content| ("@a:a", "m.room.power_levels", Some(""), content);
    let with = |key: &str, value: Value| {
        let mut content = json!({"users": {"@b:a": 50}});
        content[key] = value;
        asked(content)
    };
    let current = || power_levels(json!({"users": {"@b:a": 50}, "users_default": 100}));
    let allowed = |versions, asked| allowed(versions, &[current()], asked);
    allowed(ALL, with("ban", json!(50)));
    for lax in [json!("50"), json!(" +050 "), json!(50.57)] {
        allowed(1..=9, with("ban", lax.clone()));
        allowed(1..=9, with("events", json!({"x": lax})));
        allowed(1..=9, with("users", json!({"@e:e": lax})));
    }
    for bad in [json!("x"), json!("5 0"), json!("++5"), json!(""), json!(null), json!([]), json!(true)] {
        allowed(NONE, with("ban", bad.clone()));
        allowed(NONE, with("events", json!({"x": bad})));
        allowed(NONE, with("users", json!({"@e:e": bad})));
        allowed(1..=5, with("notifications", json!({"room": bad})));
    }
    allowed(NONE, with("users", json!([])));
    allowed(NONE, with("users", json!({"e": 1})));
    allowed(1..=5, with("notifications", json!([])));
    allowed(1..=11, with("users", json!({"@a:a": 100})));
}

#[test]
fn creators_named_in_a_version_12_room_are_above_numbers() {
    let create = ("@a:a", "m.room.create", Some(""), json!({"creator": "@a:a", "additional_creators": ["@c:c"]}));
    let high = power_levels(json!({"users": {"@b:a": 1000}, "events_default": 2000}));
    allowed(12..=12, &[create.clone(), high.clone()], message("@c:c"));
    allowed(12..=12, &[create.clone(), high.clone()], member("@c:c", "@b:a", "ban"));
    allowed(NONE, &[create.clone(), high], member("@c:c", "@a:a", "ban"));
    let naming = ("@a:a", "m.room.power_levels", Some(""), json!({"users": {"@c:c": 5}}));
    allowed(1..=11, &[create, power_levels(json!({"users": {"@a:a": 100}}))], naming);
}

#[test]
fn redactions_are_guarded_in_versions_1_and_2() {
    for (sender, target, versions) in [("@b:a", "$x:c", ALL), ("@c:c", "$x:a", ALL), ("@c:c", "$x:c", 3..=12)] {
        let found: Vec<usize> = SUPPORTED_VERSIONS
            .iter()
            .zip(1..)
            .filter(|(version, _)| {
                let rules = crate::rules(version).unwrap();
                let mut redaction = event(sender, "m.room.redaction", None, json!({"redacts": target}));
                redaction.redacts = Some(target.to_owned());
                let state = [
                    ("@a:a", "m.room.create", Some(""), json!({"creator": "@a:a"})),
                    member(sender, sender, "join"),
                    power_levels(json!({"users": {"@b:a": 50}})),
                ];
                let state = state.map(|(sender, kind, key, content)| event(sender, kind, key, content).make(rules));
                check(rules, &redaction.make(rules), state_of(state.to_vec())).is_ok()
            })
            .map(|(_, number)| number)
            .collect();
        assert_eq!(found, versions.collect::<Vec<_>>(), "{sender} {target}");
    }
}

#[test]
fn create_events() {
    let creates = |content: Value, change: &dyn Fn(&mut crate::testing::Event)| -> Vec<usize> {
        let passes = |(version, number): (&RoomVersionId, usize)| {
            let rules = crate::rules(version).unwrap();
            let mut create = event("@a:a", "m.room.create", Some(""), content.clone());
            if number == 12 {
                (create.id, create.room_id) = ("$hash".to_owned(), "!hash".to_owned());
            }
            change(&mut create);
            check_own_auth_events(rules, &create.make(rules), |_| None).is_ok().then_some(number)
        };
        SUPPORTED_VERSIONS.iter().zip(1..).filter_map(passes).collect()
    };
    let nothing = |_: &mut crate::testing::Event| {};
    let (all, none) = (ALL.collect::<Vec<_>>(), Vec::<usize>::new());
    assert_eq!(creates(json!({"creator": "@a:a"}), &nothing), all);
    assert_eq!(creates(json!({}), &nothing), [11, 12]);
    assert_eq!(creates(json!({"creator": "@a:a", "room_version": "1"}), &nothing), all);
    assert_eq!(creates(json!({"creator": "@a:a", "room_version": "13"}), &nothing), none);
    assert_eq!(creates(json!({"creator": "@a:a", "room_version": 1}), &nothing), none);
    let prev = OwnedEventId::try_from("$p:a").unwrap();
    assert_eq!(creates(json!({"creator": "@a:a"}), &|create| create.prev_events = vec![prev.clone()]), none);
    assert_eq!(creates(json!({"creator": "@a:a"}), &|create| create.room_id = "!r:b".to_owned()), none);
    let additional = |value: Value| json!({"creator": "@a:a", "additional_creators": value});
    assert_eq!(creates(additional(json!(["@b:a"])), &nothing), all);
    for bad in [json!("@b:a"), json!([1]), json!(["b"]), json!(null)] {
        assert_eq!(creates(additional(bad), &nothing), (1..=11).collect::<Vec<_>>());
    }
}

/// Which events an event names as what allows it.
#[test]
fn own_auth_events() {
    for (version, number) in SUPPORTED_VERSIONS.iter().zip(1..) {
        let rules = crate::rules(version).unwrap();
        let room = if number == 12 { "!create" } else { "!room:a" };
        let given: Vec<(&str, Given<'_>)> = vec![
            ("$create", ("@a:a", "m.room.create", Some(""), json!({}))),
            ("$join", member("@a:a", "@a:a", "join")),
            ("$rejoin", member("@a:a", "@a:a", "join")),
            ("$levels", power_levels(json!({}))),
            ("$rules", join_rule("public")),
            ("$message", message("@a:a")),
            ("$rejected", power_levels(json!({}))),
            ("$elsewhere", power_levels(json!({}))),
        ];
        let id = |id: &str| if number < 3 { format!("{id}:a") } else { id.to_owned() };
        let fetch = |wanted: &EventId| {
            let (name, (sender, kind, key, content)) = given.iter().find(|(name, _)| id(name) == wanted.as_str())?;
            let mut made = event(sender, kind, *key, content.clone());
            made.id = id(name);
            made.room_id = if *name == "$elsewhere" { "!other:a" } else { room }.to_owned();
            Some(AuthEvent { pdu: made.make(rules), rejected: *name == "$rejected" })
        };
        let passes = |names: &[&str]| {
            let mut asked = event("@a:a", "m.room.message", None, json!({}));
            asked.room_id = room.to_owned();
            asked.auth_events = names.iter().map(|name| OwnedEventId::try_from(id(name)).unwrap()).collect();
            check_own_auth_events(rules, &asked.make(rules), fetch).is_ok()
        };
        let with_create = number < 12;
        assert_eq!(passes(&["$create", "$join", "$levels"]), with_create, "{version}");
        assert_eq!(passes(&["$join", "$levels"]), !with_create, "{version}");
        let base: &[&str] = if with_create { &["$create"] } else { &[] };
        assert!(passes(base));
        for bad in [
            &["$join", "$join"][..],
            &["$join", "$rejoin"],
            &["$rules"],
            &["$message"],
            &["$rejected"],
            &["$elsewhere"],
            &["$unknown"],
        ] {
            assert!(!passes(&[base, bad].concat()), "{version} {bad:?}");
        }
    }
}

#[test]
fn selection() {
    let select = |version: RoomVersionId, target: &str, content: Value| {
        let rules = crate::rules(&version).unwrap();
        let sender = ruma::user_id!("@a:a");
        let content = serde_json::from_value(content).unwrap();
        let types = auth_types("m.room.member", sender, Some(target), &content, rules).unwrap();
        types
            .into_iter()
            .map(|(kind, key)| format!("{kind} {key}").replace("m.room.", ""))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let all =
        ["create ", "power_levels ", "member @a:a", "member @b:a", "join_rules ", "third_party_invite t"].join(", ");
    let third_party = json!({"membership": "invite", "third_party_invite": {"signed": {"token": "t"}}});
    assert_eq!(select(RoomVersionId::V1, "@b:a", third_party.clone()), all);
    assert_eq!(select(RoomVersionId::V12, "@b:a", third_party), all.replace("create , ", ""));
    let vouched = json!({"membership": "join", "join_authorised_via_users_server": "@c:a"});
    assert_eq!(select(RoomVersionId::V7, "@a:a", vouched.clone()), "create , power_levels , member @a:a, join_rules ");
    assert_eq!(
        select(RoomVersionId::V8, "@a:a", vouched),
        "create , power_levels , member @a:a, join_rules , member @c:a"
    );
    assert_eq!(
        select(RoomVersionId::V8, "@b:a", json!({"membership": "ban"})),
        "create , power_levels , member @a:a, member @b:a"
    );
}
