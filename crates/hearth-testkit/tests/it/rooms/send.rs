//! Messages, state, redactions.

use hearth_testkit::{Request, json, on_each_backend};

use super::{act, create_room, fine, send};

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}
#[tokio::test]
async fn a_retried_transaction_returns_the_same_event() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = create_room(&alice, json!({})).await;
        let first = send(&alice, &room, "t1", "hello").await;
        let again = send(&alice, &room, "t1", "hello").await;
        assert_eq!((first.0, &first.1), (200, &again.1));
        assert_ne!(first.1, send(&alice, &room, "t2", "hello").await.1);
        let other = create_room(&alice, json!({})).await;
        assert_ne!(first.1, send(&alice, &other, "t1", "hello").await.1, "another room is another endpoint");
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}
// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}
#[tokio::test]
async fn a_transaction_id_belongs_to_its_path() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = create_room(&alice, json!({})).await;
        let put = async |rest: &str| {
            let path = format!("/_matrix/client/v3/rooms/{room}/{rest}");
            let (status, answer) = alice.put(&path, &json!({ "body": "x", "msgtype": "m.text" })).await;
            assert_eq!(status, 200, "{answer}");
            answer["event_id"].as_str().unwrap().to_owned()
        };
        let message = put("send/m.room.message/t").await;
        let other = put("send/org.example.other/t").await;
        let redaction = put(&format!("redact/{message}/t")).await;
        let second = put(&format!("redact/{other}/t")).await;
        let made = [&message, &other, &redaction, &second];
        assert!(made.iter().enumerate().all(|(i, id)| !made[..i].contains(id)), "{made:?}");

        // Sent again, each is what it was, though the first two are redacted by now.
        assert_eq!(put("send/m.room.message/t").await, message);
        assert_eq!(put("send/org.example.other/t").await, other);
        assert_eq!(put(&format!("redact/{message}/t")).await, redaction);
        assert_eq!(put(&format!("redact/{other}/t")).await, second);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_an_event_is_refused() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = create_room(&alice, json!({})).await;
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message");
        let put = async |txn: &str, body: &str| {
            alice.request("PUT", &format!("{path}/{txn}")).body(body.to_owned()).send().await.refusal()
        };
        assert_eq!(put("1", "{").await, (400, "M_NOT_JSON".into()));
        assert_eq!(put("2", "[]").await, (400, "M_BAD_JSON".into()));
        assert_eq!(put("3", r#"{"n": 1.5}"#).await, (400, "M_BAD_JSON".into()));
        assert_eq!(put("4", r#"{"n": 9007199254740993}"#).await, (400, "M_BAD_JSON".into()));
        let huge = format!(r#"{{"body": "{}"}}"#, "x".repeat(65_536));
        assert_eq!(put("5", &huge).await, (413, "M_TOO_LARGE".into()));
        let long = format!("/_matrix/client/v3/rooms/{room}/send/{}/6", "t".repeat(256));
        assert_eq!(alice.put(&long, &json!({})).await.0, 400);
        assert_eq!(send(&bob, &room, "7", "hi").await.1["errcode"], "M_FORBIDDEN");
        let stranger = Request::new(server.target(), "PUT", &format!("{path}/8")).body("{}").send().await;
        assert_eq!(stranger.refusal(), (401, "M_MISSING_TOKEN".into()));
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}
// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/
#[tokio::test]
async fn state_is_set_with_and_without_a_slash_at_the_end() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = create_room(&alice, json!({ "preset": "public_chat" })).await;
        assert_eq!(act(&bob, &room, "join", json!({})).await, fine());
        let base = format!("/_matrix/client/v3/rooms/{room}/state");
        for (path, topic) in [("m.room.topic", "one"), ("m.room.topic/", "two")] {
            let (status, _) = alice.put(&format!("{base}/{path}"), &json!({ "topic": topic })).await;
            assert_eq!(status, 200);
            assert_eq!(alice.get(&format!("{base}/m.room.topic")).await.1["topic"], topic);
            assert_eq!(alice.get(&format!("{base}/m.room.topic/")).await.1["topic"], topic);
        }
        let one = alice.put(&format!("{base}/org.example/key"), &json!({ "a": 1 })).await;
        let two = alice.put(&format!("{base}/org.example/key"), &json!({ "a": 1 })).await;
        assert_eq!(one, two, "nothing changed");
        assert_eq!(bob.put(&format!("{base}/m.room.topic"), &json!({})).await.1["errcode"], "M_FORBIDDEN");
        let alias = json!({ "alias": format!("#none:{}", server.name()) });
        let refused = alice.put(&format!("{base}/m.room.canonical_alias"), &alias).await.1;
        assert_eq!(refused["errcode"], "M_BAD_ALIAS");
        let refused = alice.put(&format!("{base}/m.room.member/@x:y.z"), &json!({ "membership": "hover" })).await.1;
        assert_eq!(refused["errcode"], "M_BAD_JSON");
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
// endpoint: POST /_matrix/client/v3/createRoom
#[tokio::test]
async fn power_levels_must_be_levels_in_every_room_version() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        for version in ["1", "5", "9", "10", "12"] {
            let room = create_room(&alice, json!({ "room_version": version })).await;
            let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.power_levels/");
            let (_, good) = alice.get(&path).await;
            for (name, wrong) in [
                ("notifications", json!("none")),
                ("notifications", json!({ "room": [] })),
                ("events", json!([])),
                ("users", json!({ "nobody": 5 })),
                ("ban", json!(null)),
                ("kick", json!("much")),
            ] {
                let mut content = good.clone();
                content[name] = wrong;
                let (status, answer) = alice.put(&path, &content).await;
                assert_eq!((status, &answer["errcode"]), (400, &json!("M_BAD_JSON")), "version {version}: {content}");
                let request =
                    json!({ "room_version": version, "power_level_content_override": { name: content[name] } });
                let (status, answer) = alice.post("/_matrix/client/v3/createRoom", &request).await;
                assert_eq!(
                    (status, &answer["errcode"]),
                    (400, &json!("M_INVALID_ROOM_STATE")),
                    "version {version}: {request}"
                );
            }
            let mut content = good.clone();
            content["kick"] = json!("51");
            let expected = if matches!(version, "10" | "12") { 400 } else { 200 };
            assert_eq!(alice.put(&path, &content).await.0, expected, "version {version}");
        }
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}
#[tokio::test]
async fn redaction_takes_the_author_or_power() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        for version in ["1", "10", "12"] {
            let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": version })).await;
            assert_eq!(act(&bob, &room, "join", json!({})).await, fine());
            let id = async |user, txn| send(user, &room, txn, "oops").await.1["event_id"].as_str().unwrap().to_owned();
            let of_alice = id(&alice, "a").await;
            let of_bob = id(&bob, "b").await;
            let redact = async |user: &hearth_testkit::User, event: &str| {
                let event = event.replace('$', "%24").replace('/', "%2F");
                let path = format!("/_matrix/client/v3/rooms/{room}/redact/{event}/r{}", event.len());
                user.put(&path, &json!({ "reason": "typo" })).await
            };
            assert_eq!(redact(&bob, &of_alice).await.0, 403, "version {version}");
            assert_eq!(redact(&bob, &of_bob).await.0, 200, "version {version}");
            assert_eq!(redact(&alice, &of_alice).await.0, 200, "version {version}");
            // It may be an event that has not come yet.
            assert_eq!(redact(&alice, "$nothing:hearth.test").await.0, 200, "version {version}");
        }
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}
#[tokio::test]
async fn a_redaction_reaches_no_other_room() {
    on_each_backend(async |server| {
        let (alice, mallory) = (server.user("alice").await, server.user("mallory").await);
        for version in ["3", "12"] {
            let room = create_room(&alice, json!({ "preset": "private_chat", "room_version": version })).await;
            let own = create_room(&mallory, json!({ "preset": "private_chat", "room_version": version })).await;
            let said = send(&alice, &room, "t", "stays").await.1["event_id"].as_str().unwrap().to_owned();
            let event = said.replace('$', "%24").replace('/', "%2F");
            let path = format!("/_matrix/client/v3/rooms/{own}/redact/{event}/t");
            assert_eq!(mallory.put(&path, &json!({})).await.0, 200, "version {version}");
            let (_, event) = alice.get(&format!("/_matrix/client/v3/rooms/{room}/event/{event}")).await;
            assert_eq!(event["content"]["body"], "stays", "version {version}: {event}");
        }
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/
#[tokio::test]
async fn creators_are_given_no_level_from_version_12_on() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        for (version, expected) in [("11", 200), ("12", 400)] {
            let room = create_room(&alice, json!({ "room_version": version })).await;
            let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.power_levels/");
            let (status, answer) = alice.put(&path, &json!({ "users": { &alice.user_id: 100 } })).await;
            assert_eq!(status, expected, "version {version}: {answer}");
        }
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/
#[tokio::test]
async fn a_named_level_that_is_absent_may_be_given_by_whoever_gives_no_more_than_his_own() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        for version in ["1", "9", "12"] {
            let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": version })).await;
            assert_eq!(act(&bob, &room, "join", json!({})).await, fine());
            let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.power_levels/");
            let mut levels = json!({ "users": { &bob.user_id: 25 }, "events": { "m.room.power_levels": 25 } });
            if version != "12" {
                levels["users"][&alice.user_id] = json!(100);
            }
            assert_eq!(alice.put(&path, &levels).await.0, 200, "version {version}");
            let with_ban = |level: i32| {
                let mut levels = levels.clone();
                levels["ban"] = json!(level);
                levels
            };
            assert_eq!(bob.put(&path, &with_ban(26)).await.0, 403, "version {version}: above his own");
            let (status, answer) = bob.put(&path, &with_ban(25)).await;
            assert_eq!(status, 200, "version {version}: {answer}");
            let (status, answer) = bob.put(&path, &levels).await;
            assert_eq!(status, 200, "version {version}: taken away again: {answer}");
        }
    })
    .await;
}

#[tokio::test]
async fn nobody_reacts_twice_in_the_same_way() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        for version in ["1", "12"] {
            let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": version })).await;
            assert_eq!(act(&bob, &room, "join", json!({})).await, fine());
            let message = send(&alice, &room, "m", "hello").await.1["event_id"].clone();
            let react = async |user: &hearth_testkit::User, txn: &str, kind: &str, key: &str| {
                let relation = json!({ "rel_type": "m.annotation", "event_id": message, "key": key });
                let path = format!("/_matrix/client/v3/rooms/{room}/send/{kind}/{txn}");
                user.put(&path, &json!({ "m.relates_to": relation })).await
            };
            let first = react(&alice, "1", "m.reaction", "+").await;
            assert_eq!(first.0, 200, "{first:?}");
            assert_eq!(react(&alice, "1", "m.reaction", "+").await, first, "a retry");
            let twice = react(&alice, "2", "m.reaction", "+").await;
            assert_eq!((twice.0, twice.1["errcode"].as_str()), (400, Some("M_DUPLICATE_ANNOTATION")));
            assert_eq!(react(&alice, "3", "m.reaction", "-").await.0, 200, "another key");
            assert_eq!(react(&alice, "4", "org.example.vote", "+").await.0, 200, "another type");
            assert_eq!(react(&bob, "5", "m.reaction", "+").await.0, 200, "another user");
            let event_id = first.1["event_id"].as_str().unwrap().replace('$', "%24").replace('/', "%2F");
            let redact = format!("/_matrix/client/v3/rooms/{room}/redact/{event_id}/r");
            assert_eq!(alice.put(&redact, &json!({})).await.0, 200);
            assert_eq!(react(&alice, "6", "m.reaction", "+").await.0, 200, "the first was taken back");
        }
    })
    .await;
}
