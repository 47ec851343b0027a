//! Push rules.

use hearth_testkit::{TestServer, User, Value, json, on_each_backend};

const RULES: &str = "/_matrix/client/v3/pushrules";

fn refused(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

fn rule(path: &str) -> String {
    format!("{RULES}/global/{path}")
}

async fn ids(user: &User, kind: &str) -> Vec<String> {
    let (status, rules) = user.get(&format!("{RULES}/")).await;
    assert_eq!(status, 200);
    let rules = rules["global"][kind].as_array().expect("rules of every kind").clone();
    rules.iter().map(|rule| rule["rule_id"].as_str().expect("an id").to_owned()).collect()
}

// endpoint: GET /_matrix/client/v3/pushrules/
// endpoint: GET /_matrix/client/v3/pushrules/global/
// endpoint: GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
#[tokio::test]
async fn every_user_has_the_default_rules() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    assert_eq!(ids(&alice, "override").await.first().map(String::as_str), Some(".m.rule.master"));
    assert!(ids(&alice, "sender").await.is_empty());
    let (_, all) = alice.get(RULES).await;
    assert_eq!(alice.get(&format!("{RULES}/global/")).await, (200, all["global"].clone()));
    let (status, mention) = alice.get(&rule("override/.m.rule.is_user_mention")).await;
    assert_eq!((status, &mention["default"], &mention["enabled"]), (200, &json!(true), &json!(true)));
    assert_eq!(mention["conditions"][0]["value"], "@alice:hearth.test");
    for unknown in ["override/none", "nonsense/.m.rule.master"] {
        assert_eq!(refused(&alice.get(&rule(unknown)).await), (404, "M_NOT_FOUND"));
    }
}

// endpoint: PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
// endpoint: DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
#[tokio::test]
async fn a_user_makes_and_removes_rules() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let sender = rule(&format!("sender/{}", bob.user_id));
        assert_eq!(alice.put(&sender, &json!({ "actions": ["dont_notify"] })).await, (200, json!({})));
        let (_, all) = alice.get(&format!("{RULES}/")).await;
        assert_eq!(all["global"]["sender"][0]["actions"][0], "dont_notify");
        assert_eq!(all["global"]["sender"][0]["default"], false);
        assert_eq!(alice.put(&rule("room/!foo:example.com"), &json!({ "actions": ["notify"] })).await.0, 200);

        let body = json!({ "actions": ["notify", { "set_tweak": "highlight" }], "pattern": "cake" });
        for (id, place) in [("one", ""), ("two", ""), ("three", "?after=two"), ("four", "?before=one")] {
            assert_eq!(alice.put(&rule(&format!("content/{id}{place}")), &body).await.0, 200, "{id}");
        }
        assert_eq!(ids(&alice, "content").await, ["two", "three", "four", "one"]);
        assert_eq!(alice.delete(&rule("content/three")).await, (200, json!({})));
        assert_eq!(ids(&alice, "content").await, ["two", "four", "one"]);
        assert_eq!(refused(&alice.delete(&rule("content/three")).await), (404, "M_NOT_FOUND"));
        assert!(ids(&bob, "content").await.is_empty());

        // The user's own come after the master rule and before the others.
        let body = json!({ "actions": [], "conditions": [] });
        assert_eq!(alice.put(&rule("override/mine"), &body).await.0, 200);
        assert_eq!(ids(&alice, "override").await[..2], [".m.rule.master", "mine"]);
        let (_, stored) =
            alice.get(&format!("/_matrix/client/v3/user/{}/account_data/m.push_rules", alice.user_id)).await;
        assert_eq!(stored["global"]["override"][1]["rule_id"], "mine");
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
// endpoint: DELETE /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
#[tokio::test]
async fn what_is_no_rule_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let body = json!({ "actions": ["notify"], "pattern": "cake" });
    let put = async |path: &str, body: &Value| alice.put(&rule(path), body).await;
    assert_eq!(refused(&put("content/.mine", &body).await), (400, "M_INVALID_PARAM"));
    assert_eq!(refused(&put("content/a%5Cb", &body).await), (400, "M_INVALID_PARAM"));
    assert_eq!(refused(&put("content/a?before=unknown", &body).await), (400, "M_UNKNOWN"));
    assert_eq!(refused(&put("content/a?before=.m.rule.master", &body).await), (400, "M_INVALID_PARAM"));
    assert_eq!(refused(&put("content/a", &json!({})).await), (400, "M_BAD_JSON"));
    assert_eq!(refused(&put("room/no_room", &body).await), (400, "M_INVALID_PARAM"));
    assert_eq!(put("nonsense/a", &body).await.0, 400);
    assert_eq!(refused(&alice.delete(&rule("override/.m.rule.master")).await), (400, "M_INVALID_PARAM"));
}

// endpoint: GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled
// endpoint: PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/enabled
// endpoint: GET /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions
// endpoint: PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}/actions
#[tokio::test]
async fn rules_are_switched_and_act_differently() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let master = rule("override/.m.rule.master");
        let enabled = format!("{master}/enabled");
        assert_eq!(alice.get(&enabled).await, (200, json!({ "enabled": false })));
        assert_eq!(alice.put(&enabled, &json!({ "enabled": true })).await, (200, json!({})));
        assert_eq!(alice.get(&enabled).await, (200, json!({ "enabled": true })));

        let actions = rule("underride/.m.rule.message/actions");
        assert_eq!(alice.put(&actions, &json!({ "actions": [] })).await.0, 200);
        assert_eq!(alice.get(&actions).await, (200, json!({ "actions": [] })));
        assert_eq!(alice.get(&rule("underride/.m.rule.message")).await.1["actions"], json!([]));

        for part in ["enabled", "actions"] {
            let path = rule(&format!("underride/none/{part}"));
            assert_eq!(refused(&alice.get(&path).await), (404, "M_NOT_FOUND"));
            let body = json!({ "enabled": true, "actions": [] });
            assert_eq!(refused(&alice.put(&path, &body).await), (404, "M_NOT_FOUND"));
        }
        assert_eq!(refused(&alice.put(&enabled, &json!({ "enabled": "yes" })).await), (400, "M_BAD_JSON"));
        assert_eq!(refused(&alice.put(&actions, &json!({})).await), (400, "M_BAD_JSON"));
    })
    .await;
}
