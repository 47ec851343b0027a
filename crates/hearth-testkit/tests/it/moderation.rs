//! What administrators do to accounts: lock, suspend. And what becomes of requests that wait when their session ends.

use hearth_matrix::ruma::UserId;
use hearth_testkit::{Settings, TestServer, User, Value, json, on_each_backend};
use tokio::task::JoinHandle;

fn refused(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

async fn admin(server: &TestServer) -> User {
    let admin = server.user("admin").await;
    make_admin(server, &admin).await;
    admin
}

async fn make_admin(server: &TestServer, user: &User) {
    let user_id = UserId::parse(&*user.user_id).unwrap();
    server.running().doors().accounts.set_admin(&user_id, true).await.unwrap();
}

fn lock(user_id: &str) -> String {
    format!("/_matrix/client/v1/admin/lock/{user_id}")
}

fn suspend(user_id: &str) -> String {
    format!("/_matrix/client/v1/admin/suspend/{user_id}")
}

async fn create_room(user: &User, body: Value) -> String {
    let (status, created) = user.post("/_matrix/client/v3/createRoom", &body).await;
    assert_eq!(status, 200, "{created}");
    created["room_id"].as_str().expect("a room id").to_owned()
}

// endpoint: GET /_matrix/client/v1/admin/lock/{userId}
// endpoint: PUT /_matrix/client/v1/admin/lock/{userId}
// endpoint: GET /_matrix/client/v1/admin/suspend/{userId}
// endpoint: PUT /_matrix/client/v1/admin/suspend/{userId}
#[tokio::test]
async fn only_administrators_moderate_and_only_whom_they_may() {
    on_each_backend(async |server| {
        let (admin, bob) = (admin(&server).await, server.user("bob").await);
        let other_admin = server.user("other").await;
        make_admin(&server, &other_admin).await;
        for (path, flag) in [(lock as fn(&str) -> String, "locked"), (suspend, "suspended")] {
            let yes = json!({ flag: true });
            // Who may not ask learns nothing of who exists, whatever he writes.
            for target in ["@admin:hearth.test", "@nobody:hearth.test", "@bob:elsewhere.test", "nonsense"] {
                assert_eq!(refused(&bob.get(&path(target)).await), (403, "M_FORBIDDEN"));
                assert_eq!(refused(&bob.put(&path(target), &json!({})).await), (403, "M_FORBIDDEN"));
                assert_eq!(refused(&server.get(&path(target)).await), (401, "M_MISSING_TOKEN"));
            }
            for (target, refusal) in [
                ("@nobody:hearth.test", (404, "M_NOT_FOUND")),
                ("@bob:elsewhere.test", (400, "M_INVALID_PARAM")),
                ("nonsense", (400, "M_INVALID_PARAM")),
                ("@other:hearth.test", (403, "M_FORBIDDEN")),
            ] {
                assert_eq!(refused(&admin.get(&path(target)).await), refusal, "{target}");
                assert_eq!(refused(&admin.put(&path(target), &yes).await), refusal, "{target}");
            }
            assert_eq!(admin.get(&path(&admin.user_id)).await, (200, json!({ flag: false })));
            assert_eq!(refused(&admin.put(&path(&admin.user_id), &yes).await), (403, "M_FORBIDDEN"));
            assert_eq!(refused(&admin.put(&path(&bob.user_id), &json!({})).await), (400, "M_BAD_JSON"));
            assert_eq!(refused(&admin.put(&path(&bob.user_id), &json!({ flag: "yes" })).await), (400, "M_BAD_JSON"));

            assert_eq!(admin.get(&path(&bob.user_id)).await, (200, json!({ flag: false })));
            assert_eq!(admin.put(&path(&bob.user_id), &yes).await, (200, yes.clone()));
            assert_eq!(admin.get(&path(&bob.user_id)).await, (200, yes));
            assert_eq!(admin.put(&path(&bob.user_id), &json!({ flag: false })).await, (200, json!({ flag: false })));
        }
    })
    .await;
}

#[tokio::test]
async fn administrators_are_told_that_they_may_moderate() {
    let server = TestServer::start().await;
    let (admin, bob) = (admin(&server).await, server.user("bob").await);
    let path = "/_matrix/client/v3/capabilities";
    let moderation = json!({ "lock": true, "suspend": true });
    assert_eq!(admin.get(path).await.1["capabilities"]["m.account_moderation"], moderation);
    assert!(bob.get(path).await.1["capabilities"].get("m.account_moderation").is_none());
}

#[tokio::test]
async fn a_locked_account_can_only_log_out() {
    on_each_backend(async |server| {
        let (admin, bob) = (admin(&server).await, server.user("bob").await);
        let phone = server.login(&bob).await;
        let body = json!({ "type": "m.login.password", "refresh_token": true, "password": "correct horse battery staple",
                           "identifier": { "type": "m.id.user", "user": "bob" } });
        let (_, refreshing) = server.post("/_matrix/client/v3/login", &body).await;
        let refresh = json!({ "refresh_token": refreshing["refresh_token"] });
        assert_eq!(admin.put(&lock(&bob.user_id), &json!({ "locked": true })).await.0, 200);

        for path in ["v3/sync", "v3/account/whoami", "v3/joined_rooms", "v3/capabilities", "v3/devices"] {
            let answer = bob.get(&format!("/_matrix/client/{path}")).await;
            assert_eq!(refused(&answer), (401, "M_USER_LOCKED"), "{path}");
            assert_eq!(answer.1["soft_logout"], true);
        }
        // Also where a token is not needed.
        let profile = format!("/_matrix/client/v3/profile/{}", bob.user_id);
        assert_eq!(refused(&bob.get(&profile).await), (401, "M_USER_LOCKED"));
        assert_eq!(refused(&server.post("/_matrix/client/v3/refresh", &refresh).await), (401, "M_USER_LOCKED"));
        assert_eq!(refused(&server.post("/_matrix/client/v3/login", &body).await), (401, "M_USER_LOCKED"));
        // A wrong password tells nothing.
        let mut wrong = body.clone();
        wrong["password"] = "wrong".into();
        assert_eq!(refused(&server.post("/_matrix/client/v3/login", &wrong).await), (403, "M_FORBIDDEN"));
        assert_eq!(phone.post("/_matrix/client/v3/logout", &json!({})).await.0, 200);

        // The session outlives the lock.
        assert_eq!(admin.put(&lock(&bob.user_id), &json!({ "locked": false })).await.0, 200);
        assert_eq!(bob.get("/_matrix/client/v3/account/whoami").await.0, 200);
        assert_eq!(refused(&phone.get("/_matrix/client/v3/account/whoami").await), (401, "M_UNKNOWN_TOKEN"));
        assert_eq!(server.post("/_matrix/client/v3/refresh", &refresh).await.0, 200);
        assert_eq!(admin.put(&lock(&bob.user_id), &json!({ "locked": true })).await.0, 200);
        assert_eq!(bob.post("/_matrix/client/v3/logout/all", &json!({})).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn a_suspended_user_may_look_and_leave() {
    on_each_backend(async |server| {
        let (admin, bob) = (admin(&server).await, server.user("bob").await);
        let public = json!({ "preset": "public_chat" });
        let (room, elsewhere) = (create_room(&admin, public.clone()).await, create_room(&admin, public).await);
        let knockable = json!({ "initial_state": [
            { "type": "m.room.join_rules", "state_key": "", "content": { "join_rule": "knock" } },
        ] });
        let knockable = create_room(&admin, knockable).await;
        let of = |room: &str, rest: &str| format!("/_matrix/client/v3/rooms/{room}/{rest}");
        assert_eq!(bob.post(&of(&room, "join"), &json!({})).await.0, 200);
        let message = json!({ "msgtype": "m.text", "body": "hello" });
        let (_, mine) = bob.put(&of(&room, "send/m.room.message/1"), &message).await;
        let (_, second) = bob.put(&of(&room, "send/m.room.message/2"), &message).await;
        let (_, theirs) = admin.put(&of(&room, "send/m.room.message/1"), &message).await;
        let id = |sent: &Value| sent["event_id"].as_str().expect("an event id").to_owned();
        // Bob may redact others' events, were he not suspended.
        let levels = json!({ "users": { &admin.user_id: 100, &bob.user_id: 50 }, "redact": 50 });
        let created = admin.get(&of(&room, "state/m.room.power_levels")).await.1;
        let mut levels_now = created.clone();
        levels_now["users"][&bob.user_id] = levels["users"][&bob.user_id].clone();
        assert_eq!(admin.put(&of(&room, "state/m.room.power_levels"), &levels_now).await.0, 200);
        assert_eq!(admin.post(&of(&elsewhere, "invite"), &json!({ "user_id": bob.user_id })).await.0, 200);
        assert_eq!(admin.put(&suspend(&bob.user_id), &json!({ "suspended": true })).await.0, 200);

        let name = format!("/_matrix/client/v3/profile/{}/displayname", bob.user_id);
        let redact = |event: &Value, txn: u8| of(&room, &format!("redact/{}/{txn}", id(event)));
        for (method, path, body) in [
            ("POST", of(&elsewhere, "join"), json!({})),
            ("POST", format!("/_matrix/client/v3/join/{elsewhere}"), json!({})),
            ("POST", format!("/_matrix/client/v3/knock/{knockable}"), json!({})),
            ("POST", of(&room, "invite"), json!({ "user_id": "@carol:hearth.test" })),
            ("PUT", of(&room, "send/m.room.message/3"), message.clone()),
            ("PUT", of(&room, "state/m.room.topic"), json!({ "topic": "x" })),
            ("PUT", name.clone(), json!({ "displayname": "Bobby" })),
            ("DELETE", name, json!({})),
            ("PUT", redact(&theirs, 1), json!({})),
            ("PUT", of(&room, "send/m.room.redaction/2"), json!({ "redacts": id(&theirs) })),
            ("POST", "/_matrix/client/v3/createRoom".to_owned(), json!({})),
            ("POST", of(&room, "kick"), json!({ "user_id": admin.user_id })),
            ("POST", of(&room, "ban"), json!({ "user_id": admin.user_id })),
            ("PUT", "/_matrix/client/v3/directory/room/%23x:hearth.test".to_owned(), json!({ "room_id": room })),
        ] {
            let answer = bob.request(method, &path).json(&body).send().await;
            assert_eq!(answer.refusal(), (403, "M_USER_SUSPENDED".to_owned()), "{method} {path}");
        }

        assert_eq!(bob.get("/_matrix/client/v3/sync").await.0, 200);
        assert_eq!(bob.get(&of(&room, "messages?dir=b")).await.0, 200);
        assert_eq!(bob.put(&redact(&mine, 3), &json!({})).await.0, 200);
        let by_send = bob.put(&of(&room, "send/m.room.redaction/4"), &json!({ "redacts": id(&second) })).await;
        assert_eq!(by_send.0, 200, "{}", by_send.1);
        let filter = format!("/_matrix/client/v3/user/{}/filter", bob.user_id);
        assert_eq!(bob.post(&filter, &json!({})).await.0, 200);
        let laptop = server.login(&bob).await;
        assert_eq!(laptop.post(&of(&elsewhere, "leave"), &json!({})).await.0, 200);
        assert_eq!(laptop.post(&of(&room, "leave"), &json!({})).await.0, 200);
        assert_eq!(refused(&laptop.post(&of(&room, "join"), &json!({})).await), (403, "M_USER_SUSPENDED"));
        assert_eq!(laptop.post("/_matrix/client/v3/logout", &json!({})).await.0, 200);

        assert_eq!(admin.put(&suspend(&bob.user_id), &json!({ "suspended": false })).await.0, 200);
        assert_eq!(bob.post(&of(&room, "join"), &json!({})).await.0, 200);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/admin/whois/{userId}
#[tokio::test]
async fn who_a_user_is_is_known_to_him_and_to_administrators() {
    let server = TestServer::start().await;
    let (admin, bob) = (admin(&server).await, server.user("bob").await);
    let whois = |user_id: &str| format!("/_matrix/client/v3/admin/whois/{user_id}");
    for asker in [&admin, &bob] {
        let (status, answer) = asker.get(&whois(&bob.user_id)).await;
        assert_eq!((status, &answer["user_id"]), (200, &json!(bob.user_id)));
        assert!(answer["devices"][&bob.device_id]["sessions"][0]["connections"].is_array(), "{answer}");
    }
    assert_eq!(refused(&bob.get(&whois(&admin.user_id)).await), (403, "M_FORBIDDEN"));
    assert_eq!(refused(&bob.get(&whois("@nobody:hearth.test")).await), (403, "M_FORBIDDEN"));
    assert_eq!(refused(&admin.get(&whois("@nobody:hearth.test")).await), (404, "M_NOT_FOUND"));
    assert_eq!(refused(&admin.get(&whois("nonsense")).await), (400, "M_INVALID_PARAM"));
}

/// A request that waits. Returns once it does, as far as can be seen from outside.
async fn waiting(server: &TestServer, user: &User, path: String) -> JoinHandle<(u16, Value)> {
    let before = server.running().doors().accounts.waiting();
    let user = user.clone();
    let waiting = tokio::spawn(async move { user.get(&path).await });
    while server.running().doors().accounts.waiting() == before {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    waiting
}

async fn parked(server: &TestServer, user: &User) -> Vec<JoinHandle<(u16, Value)>> {
    let (_, synced) = user.get("/_matrix/client/v3/sync").await;
    let since = synced["next_batch"].as_str().expect("a token");
    vec![
        waiting(server, user, format!("/_matrix/client/v3/sync?timeout=300000&since={since}")).await,
        waiting(server, user, "/_matrix/client/v3/events?timeout=300000".to_owned()).await,
    ]
}

async fn all_end_with(waiting: Vec<JoinHandle<(u16, Value)>>, errcode: &str) {
    for request in waiting {
        let answer = tokio::time::timeout(std::time::Duration::from_secs(20), request).await;
        assert_eq!(refused(&answer.expect("an answer at once").unwrap()), (401, errcode));
    }
}

#[tokio::test]
async fn requests_that_wait_end_with_their_session() {
    on_each_backend(async |server| {
        let admin = admin(&server).await;
        let bob = server.user("bob").await;
        let auth = json!({ "type": "m.login.password", "password": "correct horse battery staple",
                           "identifier": { "type": "m.id.user", "user": "bob" } });

        let phone = server.login(&bob).await;
        let (of_phone, of_bob) = (parked(&server, &phone).await, parked(&server, &bob).await);
        assert_eq!(phone.post("/_matrix/client/v3/logout", &json!({})).await.0, 200);
        all_end_with(of_phone, "M_UNKNOWN_TOKEN").await;

        let phone = server.login(&bob).await;
        let of_phone = parked(&server, &phone).await;
        let device = format!("/_matrix/client/v3/devices/{}", phone.device_id);
        let deleted = bob.request("DELETE", &device).json(&json!({ "auth": auth })).send().await;
        assert_eq!(deleted.status, 200);
        all_end_with(of_phone, "M_UNKNOWN_TOKEN").await;

        let phone = server.login(&bob).await;
        let of_phone = parked(&server, &phone).await;
        let change = json!({ "new_password": "correct horse battery staple", "auth": auth });
        assert_eq!(bob.post("/_matrix/client/v3/account/password", &change).await.0, 200);
        all_end_with(of_phone, "M_UNKNOWN_TOKEN").await;

        // The session that goes on has been waiting all the time.
        assert!(of_bob.iter().all(|request| !request.is_finished()));
        assert_eq!(admin.put(&lock(&bob.user_id), &json!({ "locked": true })).await.0, 200);
        all_end_with(of_bob, "M_USER_LOCKED").await;
        assert_eq!(admin.put(&lock(&bob.user_id), &json!({ "locked": false })).await.0, 200);

        let of_bob = parked(&server, &bob).await;
        assert_eq!(bob.post("/_matrix/client/v3/account/deactivate", &json!({ "auth": auth })).await.0, 200);
        all_end_with(of_bob, "M_UNKNOWN_TOKEN").await;
    })
    .await;
}

#[tokio::test]
async fn a_refreshed_token_does_not_end_a_request_that_waits() {
    let server = TestServer::start_with(|_: &mut Settings| {}).await;
    let bob = server.user("bob").await;
    let body = json!({ "type": "m.login.password", "refresh_token": true, "password": "correct horse battery staple",
                       "identifier": { "type": "m.id.user", "user": "bob" } });
    let (_, session) = server.post("/_matrix/client/v3/login", &body).await;
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let phone = bob.with_session(&text(&session["access_token"]), &text(&session["device_id"]));
    let (_, synced) = phone.get("/_matrix/client/v3/sync").await;
    let since = text(&synced["next_batch"]);
    let parked = waiting(&server, &phone, format!("/_matrix/client/v3/sync?timeout=300000&since={since}")).await;
    let refresh = json!({ "refresh_token": session["refresh_token"] });
    let (_, refreshed) = server.post("/_matrix/client/v3/refresh", &refresh).await;
    let phone = phone.with_session(&text(&refreshed["access_token"]), &phone.device_id);
    assert_eq!(phone.get("/_matrix/client/v3/account/whoami").await.0, 200);
    assert!(!parked.is_finished());
    let data = format!("/_matrix/client/v3/user/{}/account_data/org.example", bob.user_id);
    assert_eq!(bob.put(&data, &json!({ "a": 1 })).await.0, 200);
    assert_eq!(parked.await.unwrap().0, 200);
}
