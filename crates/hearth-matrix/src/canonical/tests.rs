//! The specification's examples of canonical JSON, and what strict versions refuse.

use proptest::prelude::*;

use super::*;

#[test]
fn the_examples_of_the_specification() {
    for (given, canonical) in [
        ("{}", "{}"),
        (r#"{ "one": 1, "two": "Two" }"#, r#"{"one":1,"two":"Two"}"#),
        (r#"{ "b": "2", "a": "1" }"#, r#"{"a":"1","b":"2"}"#),
        (r#"{"b":"2","a":"1"}"#, r#"{"a":"1","b":"2"}"#),
        (
            r#"{"auth": {"success": true,"mxid": "@john.doe:example.com","profile": {"display_name": "John Doe",
                "three_pids": [{"medium": "email","address": "john.doe@example.org"},
                {"medium": "msisdn","address": "123456789"}]}}}"#,
            concat!(
                r#"{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe","three_pids":"#,
                r#"[{"address":"john.doe@example.org","medium":"email"},{"address":"123456789","medium":"msisdn"}]},"success":true}}"#
            ),
        ),
        (r#"{ "a": "日本語" }"#, r#"{"a":"日本語"}"#),
        (r#"{ "本": 2, "日": 1 }"#, r#"{"日":1,"本":2}"#),
        (r#"{ "a": "\u65E5" }"#, r#"{"a":"日"}"#),
        (r#"{ "a": null }"#, r#"{"a":null}"#),
    ] {
        let parsed = Object::parse(given).unwrap();
        assert_eq!(parsed.to_canonical(), canonical);
        assert!(parsed.is_canonical());
    }
}

#[test]
fn escapes_are_the_shortest() {
    let object =
        Object::parse(r#"{"a":"\u0008\u0009\u000a\u000c\u000d\u0022\u005c\u002f\u0001\u001F\u007f"}"#).unwrap();
    assert_eq!(object.to_canonical(), "{\"a\":\"\\b\\t\\n\\f\\r\\\"\\\\/\\u0001\\u001f\u{7f}\"}");
}

#[test]
fn of_a_repeated_key_the_last_value_counts() {
    let object = Object::parse(r#"{"b":1,"a":1,"b":2,"a":3}"#).unwrap();
    assert_eq!(object.to_canonical(), r#"{"a":3,"b":2}"#);
}

#[test]
fn strict_versions_take_integers_up_to_2_53_only() {
    for (json, canonical) in [
        ("9007199254740991", true),
        ("-9007199254740991", true),
        ("9007199254740992", false),
        ("-9007199254740992", false),
        ("18446744073709551615", false),
        ("1.0", false),
        ("1e3", false),
        ("-0", false),
        ("[[{\"a\":1.5}]]", false),
        ("0", true),
    ] {
        assert_eq!(Json::parse(json).unwrap().is_canonical(), canonical, "{json}");
    }
}

#[test]
fn lax_numbers_keep_their_meaning() {
    let mut out = String::new();
    Json::parse("[1.0,1.5,1e3,18446744073709551615,-7]").unwrap().write(&mut out);
    assert_eq!(out, "[1.0,1.5,1000.0,18446744073709551615,-7]");
}

#[test]
fn members_can_be_left_out() {
    let object = Object::parse(r#"{"a":1,"b":2,"c":3}"#).unwrap();
    for (drop, left) in [("a", r#"{"b":2,"c":3}"#), ("b", r#"{"a":1,"c":3}"#), ("c", r#"{"a":1,"b":2}"#)] {
        let mut out = String::new();
        object.write_where(&mut out, |key| key != drop);
        assert_eq!(out, left);
    }
}

fn any_json() -> impl Strategy<Value = serde_json::Value> {
    let string = "[a-c\"\\\\\u{0}-\u{1f}/é\u{7f}日😀]{0,6}";
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        (-MAX_INT..=MAX_INT).prop_map(Into::into),
        string.prop_map(Into::into),
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
            prop::collection::vec((string, inner), 0..6)
                .prop_map(|members| members.into_iter().collect::<serde_json::Map<_, _>>().into()),
        ]
    })
}

proptest! {
    /// Any formatting of a value has one canonical form, which is ruma's, and reads back as itself.
    #[test]
    fn one_form_for_all(value in any_json()) {
        let theirs: ruma::CanonicalJsonValue = value.clone().try_into().unwrap();
        let theirs = serde_json::to_string(&theirs).unwrap();
        for text in [value.to_string(), serde_json::to_string_pretty(&value).unwrap(), theirs.clone()] {
            let parsed = Json::parse(&text).unwrap();
            let mut ours = String::new();
            parsed.write(&mut ours);
            prop_assert_eq!(&ours, &theirs);
            prop_assert!(parsed.is_canonical());
        }
    }

    /// Nothing that a stranger writes makes the reader panic.
    #[test]
    fn any_text_is_survived(text in "\\PC{0,64}", json in any_json()) {
        let _ = Json::parse(&text);
        for version in crate::SUPPORTED_VERSIONS {
            let rules = crate::rules(&version).unwrap();
            let _ = crate::Pdu::from_remote(&text, rules);
            let _ = crate::Pdu::from_remote(&json.to_string(), rules);
        }
    }
}
