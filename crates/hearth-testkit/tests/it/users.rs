//! Profile, account data, tags, filters, capabilities.

use hearth_testkit::{TestServer, User, Value, json, on_each_backend};

fn refused(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

fn profile(user: &User, field: &str) -> String {
    format!("/_matrix/client/v3/profile/{}/{field}", user.user_id)
}

fn own(user: &User, rest: &str) -> String {
    format!("/_matrix/client/v3/user/{}/{rest}", user.user_id)
}

// endpoint: GET /_matrix/client/v3/profile/{userId}
// endpoint: GET /_matrix/client/v3/profile/{userId}/{keyName}
// endpoint: PUT /_matrix/client/v3/profile/{userId}/{keyName}
// endpoint: DELETE /_matrix/client/v3/profile/{userId}/{keyName}
#[tokio::test]
async fn everybody_sees_a_profile_and_its_user_changes_it() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let fields = [
            ("displayname", json!("my_display_name")),
            ("avatar_url", json!("mxc://example.com/SEsfnsuifSDFSSEF")),
            ("m.tz", json!("Europe/London")),
            ("org.example.field", json!({ "any": ["thing", null] })),
        ];
        let mut whole = json!({});
        for (field, value) in &fields {
            let body = json!({ *field: value });
            assert_eq!(alice.put(&profile(&alice, field), &body).await, (200, json!({})), "{field}");
            assert_eq!(server.get(&profile(&alice, field)).await, (200, body), "{field}");
            whole[*field] = value.clone();
        }
        let path = format!("/_matrix/client/v3/profile/{}", alice.user_id);
        assert_eq!(server.get(&path).await, (200, whole.clone()));

        assert_eq!(alice.delete(&profile(&alice, "org.example.field")).await, (200, json!({})));
        assert_eq!(alice.delete(&profile(&alice, "org.example.field")).await, (200, json!({})));
        assert_eq!(refused(&server.get(&profile(&alice, "org.example.field")).await), (404, "M_NOT_FOUND"));
        // An empty name is no name.
        assert_eq!(alice.put(&profile(&alice, "displayname"), &json!({ "displayname": "" })).await.0, 200);
        assert_eq!(server.get(&profile(&alice, "displayname")).await.0, 404);
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/profile/{userId}/{keyName}
// endpoint: GET /_matrix/client/v3/profile/{userId}
// endpoint: DELETE /_matrix/client/v3/profile/{userId}/{keyName}
#[tokio::test]
async fn what_is_no_profile_is_refused() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let put = async |field: &str, body: Value| alice.put(&profile(&alice, field), &body).await;
    assert_eq!(refused(&put("displayname", json!({})).await), (400, "M_MISSING_PARAM"));
    assert_eq!(refused(&put("displayname", json!({ "displayname": 5 })).await), (400, "M_INVALID_PARAM"));
    assert_eq!(refused(&put("displayname", json!([])).await), (400, "M_BAD_JSON"));
    assert_eq!(refused(&put("avatar_url", json!({ "avatar_url": {} })).await), (400, "M_INVALID_PARAM"));
    assert_eq!(refused(&put("Upper", json!({ "Upper": 1 })).await), (400, "M_INVALID_PARAM"));
    let long = "a".repeat(256);
    assert_eq!(refused(&put(&long, json!({ long.as_str(): 1 })).await), (400, "M_KEY_TOO_LARGE"));
    let large = json!({ "org.example.a": "x".repeat(40_000) });
    assert_eq!(put("org.example.a", large).await.0, 200);
    let large = json!({ "org.example.b": "x".repeat(40_000) });
    assert_eq!(refused(&put("org.example.b", large).await), (400, "M_PROFILE_TOO_LARGE"));

    let body = json!({ "displayname": "mallory" });
    assert_eq!(refused(&bob.put(&profile(&alice, "displayname"), &body).await), (403, "M_FORBIDDEN"));
    assert_eq!(refused(&bob.delete(&profile(&alice, "displayname")).await), (403, "M_FORBIDDEN"));
    assert_eq!(refused(&server.get("/_matrix/client/v3/profile/@eve:hearth.test").await), (404, "M_NOT_FOUND"));
    assert_eq!(refused(&server.get("/_matrix/client/v3/profile/nobody").await), (400, "M_INVALID_PARAM"));

    let accounts = &server.running().doors().accounts;
    accounts.set_suspended(hearth_matrix::ruma::user_id!("@alice:hearth.test"), true).await.unwrap();
    assert_eq!(refused(&put("displayname", json!({ "displayname": "x" })).await), (403, "M_USER_SUSPENDED"));
}

// endpoint: GET /_matrix/client/v3/user/{userId}/account_data/{type}
// endpoint: PUT /_matrix/client/v3/user/{userId}/account_data/{type}
#[tokio::test]
async fn account_data_are_kept_for_their_user() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let path = own(&alice, "account_data/test.key");
        assert_eq!(refused(&alice.get(&path).await), (404, "M_NOT_FOUND"));
        for content in [json!({ "value": "first" }), json!({ "value": "second" }), json!({})] {
            assert_eq!(alice.put(&path, &content).await, (200, json!({})));
            assert_eq!(alice.get(&path).await, (200, content));
        }
        assert_eq!(refused(&bob.get(&path).await), (403, "M_FORBIDDEN"));
        assert_eq!(refused(&bob.put(&path, &json!({})).await), (403, "M_FORBIDDEN"));
        assert_eq!(refused(&alice.put(&path, &json!([])).await), (400, "M_BAD_JSON"));
        let garbled = alice.request("PUT", &path).body("{").send().await;
        assert_eq!(garbled.refusal(), (400, "M_NOT_JSON".to_owned()));
        for kind in ["m.push_rules", "m.fully_read"] {
            let path = own(&alice, &format!("account_data/{kind}"));
            assert_eq!(refused(&alice.put(&path, &json!({})).await), (405, "M_BAD_JSON"), "{kind}");
        }
        let (status, rules) = alice.get(&own(&alice, "account_data/m.push_rules")).await;
        assert!(status == 200 && rules["global"]["override"].is_array(), "{rules}");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}
// endpoint: PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}
// endpoint: GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags
// endpoint: PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}
// endpoint: DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}
#[tokio::test]
async fn there_is_nothing_to_keep_of_unknown_rooms() {
    let server = TestServer::start().await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let data = own(&alice, "rooms/!unknown:hearth.test/account_data/test.key");
    let tags = own(&alice, "rooms/!unknown:hearth.test/tags");
    let tag = format!("{tags}/m.favourite");
    for (method, path) in [("GET", &data), ("PUT", &data), ("GET", &tags), ("PUT", &tag), ("DELETE", &tag)] {
        let ask = async |user: &User| user.request(method, path).json(&json!({})).send().await.refusal();
        assert_eq!(ask(&alice).await, (404, "M_NOT_FOUND".to_owned()), "{method} {path}");
        assert_eq!(ask(&bob).await, (403, "M_FORBIDDEN".to_owned()), "{method} {path}");
    }
    for rest in ["rooms/@notaroom:hearth.test/account_data/a", "rooms/@notaroom:hearth.test/tags"] {
        assert_eq!(refused(&alice.get(&own(&alice, rest)).await), (400, "M_INVALID_PARAM"));
    }
    assert_eq!(refused(&alice.put(&tag, &json!({ "order": "first" })).await), (400, "M_BAD_JSON"));
}

async fn create_room(user: &User) -> String {
    let (status, made) = user.post("/_matrix/client/v3/createRoom", &json!({})).await;
    assert_eq!(status, 200, "{made}");
    made["room_id"].as_str().expect("a room id").to_owned()
}

// endpoint: GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}
// endpoint: PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/account_data/{type}
#[tokio::test]
async fn a_room_has_account_data_of_its_own() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = create_room(&alice).await;
        let path = own(&alice, &format!("rooms/{room}/account_data/test.key"));
        assert_eq!(refused(&alice.get(&path).await), (404, "M_NOT_FOUND"));
        for content in [json!({ "value": "room first" }), json!({ "value": "room second" })] {
            assert_eq!(alice.put(&path, &content).await, (200, json!({})));
            assert_eq!(alice.get(&path).await, (200, content));
        }
        assert_eq!(alice.get(&own(&alice, "account_data/test.key")).await.0, 404);
        let fully_read = own(&alice, &format!("rooms/{room}/account_data/m.fully_read"));
        assert_eq!(refused(&alice.put(&fully_read, &json!({})).await), (405, "M_BAD_JSON"));
        // To a stranger the room is not there.
        let strange = own(&bob, &format!("rooms/{room}/account_data/test.key"));
        assert_eq!(refused(&bob.put(&strange, &json!({})).await), (404, "M_NOT_FOUND"));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags
// endpoint: PUT /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}
// endpoint: DELETE /_matrix/client/v3/user/{userId}/rooms/{roomId}/tags/{tag}
#[tokio::test]
async fn rooms_are_tagged() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = create_room(&alice).await;
        let tags = own(&alice, &format!("rooms/{room}/tags"));
        assert_eq!(alice.get(&tags).await, (200, json!({ "tags": {} })));
        assert_eq!(alice.put(&format!("{tags}/m.favourite"), &json!({ "order": 0.25 })).await, (200, json!({})));
        assert_eq!(alice.put(&format!("{tags}/u.work"), &json!({})).await.0, 200);
        let all = json!({ "m.favourite": { "order": 0.25 }, "u.work": {} });
        assert_eq!(alice.get(&tags).await, (200, json!({ "tags": all })));
        let data = own(&alice, &format!("rooms/{room}/account_data/m.tag"));
        assert_eq!(alice.get(&data).await, (200, json!({ "tags": all })));
        assert_eq!(alice.delete(&format!("{tags}/m.favourite")).await, (200, json!({})));
        assert_eq!(alice.delete(&format!("{tags}/m.favourite")).await.0, 200);
        assert_eq!(alice.get(&tags).await, (200, json!({ "tags": { "u.work": {} } })));
        let long = format!("{tags}/{}", "x".repeat(256));
        assert_eq!(refused(&alice.put(&long, &json!({})).await), (400, "M_INVALID_PARAM"));
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/user/{userId}/filter
// endpoint: GET /_matrix/client/v3/user/{userId}/filter/{filterId}
#[tokio::test]
async fn filters_are_kept_as_they_were_written() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let path = own(&alice, "filter");
        let filter = json!({ "room": { "timeline": { "limit": 10, "org.example.unknown": true } } });
        let (status, made) = alice.post(&path, &filter).await;
        assert_eq!(status, 200);
        let id = made["filter_id"].as_str().expect("an id");
        assert_eq!(alice.get(&format!("{path}/{id}")).await, (200, filter.clone()));
        // The same filter has the same id; another has another.
        assert_eq!(alice.post(&path, &filter).await.1["filter_id"], id);
        assert_ne!(alice.post(&path, &json!({})).await.1["filter_id"], id);

        for unknown in ["12345", "nonsense"] {
            assert_eq!(refused(&alice.get(&format!("{path}/{unknown}")).await), (404, "M_NOT_FOUND"));
        }
        assert_eq!(refused(&bob.post(&path, &filter).await), (403, "M_FORBIDDEN"));
        assert_eq!(refused(&bob.get(&format!("{path}/{id}")).await), (403, "M_FORBIDDEN"));
        let wrong = json!({ "room": { "timeline": { "limit": "many" } } });
        assert_eq!(refused(&alice.post(&path, &wrong).await), (400, "M_BAD_JSON"));
        let large = json!({ "event_fields": vec!["x".repeat(1000); 100] });
        assert_eq!(refused(&alice.post(&path, &large).await), (413, "M_TOO_LARGE"));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/capabilities
#[tokio::test]
async fn capabilities_say_what_works() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let (status, answer) = alice.get("/_matrix/client/v3/capabilities").await;
    assert_eq!(status, 200);
    let capabilities = &answer["capabilities"];
    assert_eq!(capabilities["m.room_versions"]["default"], "12");
    assert_eq!(capabilities["m.room_versions"]["available"].as_object().map(|versions| versions.len()), Some(12));
    assert_eq!(capabilities["m.change_password"]["enabled"], true);
    assert_eq!(capabilities["m.3pid_changes"]["enabled"], false);
}

// endpoint: GET /_matrix/client/v3/thirdparty/protocols
#[tokio::test]
async fn there_are_no_bridges() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    assert_eq!(alice.get("/_matrix/client/v3/thirdparty/protocols").await, (200, json!({})));
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/report
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}
// endpoint: POST /_matrix/client/v3/users/{userId}/report
#[tokio::test]
async fn what_is_reported_reaches_whoever_runs_the_server() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let (_, created) = alice.post("/_matrix/client/v3/createRoom", &json!({})).await;
        let room = created["room_id"].as_str().expect("a room id");
        let base = format!("/_matrix/client/v3/rooms/{room}");
        let (_, sent) = alice.put(&format!("{base}/send/m.room.message/1"), &json!({ "body": "x" })).await;
        let event = sent["event_id"].as_str().expect("an event id");
        let why = json!({ "reason": "this makes\nme sad" });
        assert_eq!(bob.post(&format!("{base}/report"), &why).await, (200, json!({})), "not in the room");
        assert_eq!(bob.post(&format!("{base}/report/{event}"), &why).await.0, 404, "only those in the room");
        assert_eq!(alice.post(&format!("{base}/report/{event}"), &json!({})).await, (200, json!({})));
        let path = format!("/_matrix/client/v3/users/{}/report", alice.user_id);
        assert_eq!(bob.post(&path, &why).await, (200, json!({})));

        let doors = server.running().doors();
        let reports = doors.users.reports(10).await.expect("the store works");
        let mut seen: Vec<_> =
            reports.iter().map(|(by, report)| (&**by, &*report.subject, report.event_id.as_deref())).collect();
        seen.sort_unstable();
        let expected =
            [(&*alice.user_id, room, Some(event)), (&*bob.user_id, room, None), (&*bob.user_id, &*alice.user_id, None)];
        assert_eq!(seen, expected);
    })
    .await;
}
