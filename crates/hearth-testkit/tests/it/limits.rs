//! Rate limits: whoever asks too much is told when to come back, and nobody else notices.

use hearth_api::Rate;
use hearth_testkit::{Settings, TestServer, User, Value, json};

const LOGIN: &str = "/_matrix/client/v3/login";

fn limited(adjust: impl Fn(&mut Settings)) -> impl Fn(&mut Settings) {
    move |settings| {
        settings.rate_limits.enabled = true;
        settings.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        adjust(settings);
    }
}

fn by_password(user: &str, password: &str) -> Value {
    json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": user }, "password": password })
}

async fn login_from(server: &TestServer, address: &str, user: &str, password: &str) -> (u16, Value) {
    let request = server.request("POST", LOGIN).header("x-forwarded-for", address);
    let answer = request.json(&by_password(user, password)).send().await;
    (answer.status, answer.json())
}

async fn create_room(user: &User) -> String {
    let (status, created) = user.post("/_matrix/client/v3/createRoom", &json!({})).await;
    assert_eq!(status, 200, "{created}");
    created["room_id"].as_str().expect("a room id").to_owned()
}

#[tokio::test]
async fn whoever_sends_too_fast_is_told_when_to_go_on() {
    let few = limited(|settings| settings.rate_limits.sends = Rate { burst: 2, per_minute: 40 });
    let server = TestServer::start_with(few).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let (room, other_room) = (create_room(&alice).await, create_room(&bob).await);
    let path = |room: &str, txn: u8| format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{txn}");
    let message = json!({ "msgtype": "m.text", "body": "hello" });
    for txn in 0..2 {
        assert_eq!(alice.put(&path(&room, txn), &message).await.0, 200);
    }
    let refused = alice.request("PUT", &path(&room, 2)).json(&message).send().await;
    assert_eq!(refused.refusal(), (429, "M_LIMIT_EXCEEDED".to_owned()));
    assert_eq!((&refused.json()["retry_after_ms"], refused.header("retry-after")), (&json!(1500), Some("2")));
    assert!(refused.header("access-control-allow-origin").is_some());
    // Neither others nor other things are in the way.
    assert_eq!(bob.put(&path(&other_room, 0), &message).await.0, 200);
    assert_eq!(alice.get("/_matrix/client/v3/joined_rooms").await.0, 200);
    let state = format!("/_matrix/client/v3/rooms/{room}/state/m.room.topic");
    assert_eq!(alice.put(&state, &json!({ "topic": "x" })).await.0, 429);

    server.time.advance(1500);
    assert_eq!(alice.put(&path(&room, 2), &message).await.0, 200);
    assert_eq!(alice.put(&path(&room, 3), &message).await.0, 429);
    let metrics = server.request("GET", "/metrics").send().await.text();
    assert!(metrics.contains("hearth_rate_limited_total{limit=\"sends\"}"));
}

#[tokio::test]
async fn logins_are_counted_by_address() {
    let few = limited(|settings| settings.rate_limits.login = Rate { burst: 2, per_minute: 60 });
    let server = TestServer::start_with(few).await;
    for _ in 0..2 {
        assert_eq!(login_from(&server, "192.0.2.1", "nobody", "wrong").await.0, 403);
    }
    assert_eq!(login_from(&server, "192.0.2.1", "nobody", "wrong").await.0, 429);
    assert_eq!(login_from(&server, "192.0.2.2", "nobody", "wrong").await.0, 403);
    // What flows there are costs nothing of it.
    assert_eq!(server.request("GET", LOGIN).header("x-forwarded-for", "192.0.2.1").send().await.status, 200);
    server.time.advance(1000);
    assert_eq!(login_from(&server, "192.0.2.1", "nobody", "wrong").await.0, 403);
}

#[tokio::test]
async fn an_address_that_nobody_trusts_is_that_of_the_connection() {
    let server = TestServer::start_with(|settings| {
        settings.rate_limits.enabled = true;
        settings.rate_limits.login = Rate { burst: 1, per_minute: 60 };
    })
    .await;
    assert_eq!(login_from(&server, "192.0.2.1", "nobody", "wrong").await.0, 403);
    assert_eq!(login_from(&server, "192.0.2.2", "nobody", "wrong").await.0, 429);
}

#[tokio::test]
async fn passwords_of_one_account_are_guessed_slowly() {
    let few = limited(|settings| settings.rate_limits.login_failures = Rate { burst: 3, per_minute: 1 });
    let server = TestServer::start_with(few).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    // Right ones cost nothing.
    for _ in 0..5 {
        server.login(&alice).await;
    }
    for (i, name) in ["alice", "@alice:hearth.test", "Alice"].into_iter().enumerate() {
        assert_eq!(login_from(&server, &format!("192.0.2.{i}"), name, "wrong").await.0, 403);
    }
    let (status, refused) = login_from(&server, "192.0.2.9", "alice", "correct horse battery staple").await;
    assert_eq!((status, &refused["errcode"]), (429, &json!("M_LIMIT_EXCEEDED")));
    // A stolen session is no way around.
    let auth = json!({ "type": "m.login.password", "identifier": { "type": "m.id.user", "user": "alice" },
                       "password": "wrong" });
    let path = format!("/_matrix/client/v3/devices/{}", alice.device_id);
    let answer = alice.request("DELETE", &path).json(&json!({ "auth": auth })).send().await;
    assert_eq!(answer.status, 429);
    server.login(&bob).await;
    server.time.advance(60_000);
    server.login(&alice).await;
    for status in [401, 429] {
        let answer = alice.request("DELETE", &path).json(&json!({ "auth": auth })).send().await;
        assert_eq!(answer.status, status);
    }
    assert_eq!(login_from(&server, "192.0.2.9", "alice", "wrong").await.0, 429);
}

#[tokio::test]
async fn strangers_and_wrong_tokens_are_counted_by_address() {
    let few = limited(|settings| settings.rate_limits.anonymous = Rate { burst: 6, per_minute: 1 });
    let server = TestServer::start_with(few).await;
    let whoami = |token: &'static str, address: &'static str| {
        server
            .request("GET", "/_matrix/client/v3/account/whoami")
            .token(token)
            .header("x-forwarded-for", address)
            .send()
    };
    for _ in 0..3 {
        assert_eq!(whoami("guess", "192.0.2.1").await.status, 401);
        let versions = server.request("GET", "/_matrix/client/versions").header("x-forwarded-for", "192.0.2.1");
        assert_eq!(versions.send().await.status, 200);
    }
    assert_eq!(whoami("guess", "192.0.2.1").await.status, 429);
    assert_eq!(whoami("guess", "192.0.2.2").await.status, 401);
    // Whoever has a good token goes on, from there too.
    let alice = server.user("alice").await;
    let request = alice.request("GET", "/_matrix/client/v3/account/whoami").header("x-forwarded-for", "192.0.2.1");
    assert_eq!(request.send().await.status, 200);
    // Operators' tools are not counted.
    for _ in 0..10 {
        assert_eq!(server.request("GET", "/health").header("x-forwarded-for", "192.0.2.1").send().await.status, 200);
    }
}

#[tokio::test]
async fn registrations_joins_and_invites_have_limits_of_their_own() {
    let few = limited(|settings| {
        settings.rate_limits.registration = Rate { burst: 5, per_minute: 1 };
        settings.rate_limits.joins = Rate { burst: 2, per_minute: 1 };
        settings.rate_limits.invites = Rate { burst: 2, per_minute: 1 };
    });
    let server = TestServer::start_with(few).await;
    let (alice, _) = (server.user("alice").await, server.user("bob").await);
    assert_eq!(server.post("/_matrix/client/v3/register", &json!({})).await.0, 401);
    assert_eq!(server.post("/_matrix/client/v3/register", &json!({})).await.0, 429);

    let invited = json!({ "invite": ["@bob:hearth.test"] });
    let (_, created) = alice.post("/_matrix/client/v3/createRoom", &invited).await;
    let path = format!("/_matrix/client/v3/rooms/{}/invite", created["room_id"].as_str().expect("a room id"));
    assert_eq!(alice.post(&path, &json!({ "user_id": "@carol:hearth.test" })).await.0, 200);
    assert_eq!(alice.post(&path, &json!({ "user_id": "@dave:hearth.test" })).await.0, 429);
    create_room(&alice).await;
    assert_eq!(alice.post("/_matrix/client/v3/join/%21nowhere:hearth.test", &json!({})).await.0, 429);

    // Who administers the server does for many what others do for themselves.
    let accounts = &server.running().doors().accounts;
    accounts.set_admin(alice.user_id.as_str().try_into().unwrap(), true).await.unwrap();
    create_room(&alice).await;
}

#[tokio::test]
async fn no_person_meets_the_limits_that_every_server_has() {
    let server = TestServer::start_with(|settings| settings.rate_limits = Default::default()).await;
    let alice = server.user("alice").await;
    let mut rooms = Vec::new();
    for _ in 0..50 {
        rooms.push(create_room(&alice).await);
    }
    // A client that opens all of its rooms at once.
    for room in &rooms {
        for part in ["state", "messages?dir=b", "members", "joined_members", "aliases", "state/m.room.create/"] {
            assert_eq!(alice.get(&format!("/_matrix/client/v3/rooms/{room}/{part}")).await.0, 200, "{part}");
        }
    }
    for txn in 0..100 {
        let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/{txn}", rooms[0]);
        assert_eq!(alice.put(&path, &json!({ "msgtype": "m.text", "body": "hi" })).await.0, 200);
    }
    for number in 0..15 {
        let user = server.user(&format!("user{number}")).await;
        server.login(&user).await;
    }
}
