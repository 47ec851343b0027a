//! Presence: who sees whom, how devices combine, and what ends by itself.

use hearth_testkit::{TestServer, User, Value, json, on_each_backend, until};
use tokio::task::JoinHandle;

use super::{Ask, act, caught_up, encoded, join, leave, public_room, send, sync, token};

/// Longer than any test may take.
const LONG_MS: u64 = 240_000;
const MINUTE_MS: i64 = 60_000;

fn path(user: &User) -> String {
    format!("/_matrix/client/v3/presence/{}/status", encoded(&user.user_id))
}

async fn set(user: &User, body: Value) {
    let (status, answer) = user.put(&path(user), &body).await;
    assert_eq!(status, 200, "{answer}");
}

async fn status(viewer: &User, user: &User) -> Value {
    let (status, answer) = viewer.get(&path(user)).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

async fn state(user: &User) -> String {
    status(user, user).await["presence"].as_str().unwrap().to_owned()
}

/// The presence of a user in an answer.
fn seen<'a>(answer: &'a Value, user: &User) -> Option<&'a Value> {
    let events = answer["presence"]["events"].as_array().expect("presence");
    let mut of_user = events.iter().filter(|event| event["sender"] == user.user_id.as_str());
    let event = of_user.next()?;
    assert!(of_user.next().is_none(), "told twice: {answer}");
    assert_eq!(event["type"], "m.presence");
    Some(&event["content"])
}

/// Waits without being seen, until there is something of a user.
fn until_seen(watcher: &User, since: &str, user: &User) -> JoinHandle<Value> {
    let (watcher, mut since, user) = (watcher.clone(), since.to_owned(), user.clone());
    tokio::spawn(async move {
        loop {
            let answer = sync(&watcher, Ask::since(&since).timeout_ms(LONG_MS).extra("&set_presence=offline")).await;
            if let Some(content) = seen(&answer, &user) {
                return content.clone();
            }
            since = token(&answer).to_owned();
        }
    })
}

async fn until_waiting(server: &TestServer, count: usize) {
    until("clients wait", async || server.running().doors().syncs.waiting() == count).await;
}

async fn unseen(user: &User) -> String {
    token(&sync(user, Ask::default().extra("&set_presence=offline")).await).to_owned()
}

// endpoint: PUT /_matrix/client/v3/presence/{userId}/status
// endpoint: GET /_matrix/client/v3/presence/{userId}/status
#[tokio::test]
async fn who_shares_a_room_sees_what_is_set() {
    on_each_backend(async |server| {
        let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        assert_eq!(status(&bob, &alice).await, json!({ "presence": "offline", "currently_active": false }));
        set(&alice, json!({ "presence": "online", "status_msg": "here" })).await;
        server.time.advance(1_500);
        let expected =
            json!({ "presence": "online", "currently_active": true, "status_msg": "here", "last_active_ago": 1_500 });
        assert_eq!(status(&bob, &alice).await, expected);
        assert_eq!(status(&alice, &alice).await, expected);

        let refusal = async |user: &User, of: &str| {
            let path = format!("/_matrix/client/v3/presence/{}/status", encoded(of));
            user.request("GET", &path).send().await.refusal()
        };
        assert_eq!(refusal(&eve, &alice.user_id).await, (403, "M_FORBIDDEN".into()));
        assert_eq!(refusal(&eve, "@nobody:hearth.test").await, (403, "M_FORBIDDEN".into()));
        assert_eq!(eve.request("PUT", &path(&alice)).json(&json!({ "presence": "offline" })).send().await.status, 403);
        leave(&bob, &room).await;
        assert_eq!(refusal(&bob, &alice.user_id).await, (403, "M_FORBIDDEN".into()));
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/presence/{userId}/status
#[tokio::test]
async fn nonsense_is_refused() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for (body, code) in [
        (json!({ "presence": "asleep" }), "M_INVALID_PARAM"),
        (json!({ "presence": "online", "status_msg": "x".repeat(2_000) }), "M_INVALID_PARAM"),
        (json!({ "presence": 5 }), "M_BAD_JSON"),
        (json!({}), "M_BAD_JSON"),
    ] {
        let (status, errcode) = alice.request("PUT", &path(&alice)).json(&body).send().await.refusal();
        assert_eq!((status, errcode.as_str()), (400, code), "{body}");
    }
    assert_eq!(state(&alice).await, "offline");
    assert_eq!(server.get(&path(&alice)).await.0, 401);
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn changes_wake_those_who_share_a_room() {
    on_each_backend(async |server| {
        let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let (bobs, eves) = (unseen(&bob).await, unseen(&eve).await);
        let (told, untold) = (until_seen(&bob, &bobs, &alice), until_seen(&eve, &eves, &alice));
        until_waiting(&server, 2).await;
        // A client that syncs is online, of itself or as it says.
        caught_up(&alice).await;
        assert_eq!(told.await.unwrap()["presence"], "online");
        let told = until_seen(&bob, &unseen(&bob).await, &alice);
        until_waiting(&server, 2).await;
        sync(&alice, Ask::default().extra("&set_presence=unavailable")).await;
        assert_eq!(told.await.unwrap()["presence"], "unavailable");
        let told = until_seen(&bob, &unseen(&bob).await, &alice);
        until_waiting(&server, 2).await;
        set(&alice, json!({ "presence": "online", "status_msg": "back" })).await;
        let content = told.await.unwrap();
        assert_eq!((&content["presence"], &content["status_msg"]), (&json!("online"), &json!("back")));
        assert!(!untold.is_finished());
        // Who syncs unseen is.
        assert_eq!(state(&bob).await, "offline");
        assert!(seen(&sync(&alice, Ask::default()).await, &bob).is_none());
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn each_change_is_told_once() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let start = caught_up(&bob).await;
        // Alice never synced: where she is, the server must look up, and only then is she news.
        set(&alice, json!({ "presence": "online" })).await;
        until_seen(&bob, &start, &alice).await.unwrap();
        let told = until_seen(&bob, &unseen(&bob).await, &alice);
        until_waiting(&server, 1).await;
        set(&alice, json!({ "presence": "unavailable" })).await;
        told.await.unwrap();
        let first = sync(&bob, Ask::default()).await;
        assert_eq!(seen(&first, &alice).unwrap()["presence"], "unavailable");
        assert_eq!(seen(&first, &bob).unwrap()["presence"], "online");
        let second = sync(&bob, Ask::since(token(&first))).await;
        assert_eq!(second["presence"]["events"], json!([]));
        // Also beside news of rooms, and after them.
        set(&alice, json!({ "presence": "online" })).await;
        send(&alice, &room, "1", "hello").await;
        let third = sync(&bob, Ask::since(token(&second))).await;
        assert_eq!(seen(&third, &alice).unwrap()["presence"], "online");
        assert!(third["rooms"]["join"][&room].is_object());
        let fourth = sync(&bob, Ask::since(token(&third))).await;
        assert_eq!(fourth["presence"]["events"], json!([]));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn newcomers_and_members_are_told_of_each_other() {
    on_each_backend(async |server| {
        let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
        let room = public_room(&alice).await;
        join(&eve, &room).await;
        let (alices, bobs) = (caught_up(&alice).await, caught_up(&bob).await);
        let alices = token(&sync(&alice, Ask::since(&alices)).await).to_owned();
        join(&bob, &room).await;
        let answer = sync(&bob, Ask::since(&bobs)).await;
        assert_eq!(seen(&answer, &alice).unwrap()["presence"], "online");
        assert!(seen(&answer, &eve).is_none(), "offline: {answer}");
        let again = sync(&bob, Ask::since(token(&answer))).await;
        assert!(seen(&again, &alice).is_none());
        let answer = sync(&alice, Ask::since(&alices)).await;
        assert_eq!(seen(&answer, &bob).unwrap()["presence"], "online");
        let again = sync(&alice, Ask::since(token(&answer))).await;
        assert!(seen(&again, &bob).is_none());
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/presence/{userId}/status
#[tokio::test]
async fn members_see_a_newcomer_who_never_synced() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        set(&bob, json!({ "presence": "online" })).await;
        let since = caught_up(&alice).await;
        join(&bob, &room).await;
        assert_eq!(until_seen(&alice, &since, &bob).await.unwrap()["presence"], "online");
        assert_eq!(seen(&sync(&alice, Ask::default()).await, &bob).unwrap()["presence"], "online");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn who_does_nothing_is_idle_and_who_goes_is_offline() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let since = caught_up(&alice).await;
        let waiting = {
            let (alice, since) = (alice.clone(), since.clone());
            let ask = async move { sync(&alice, Ask::since(&since).timeout_ms(LONG_MS)).await };
            tokio::spawn(ask)
        };
        until_waiting(&server, 1).await;
        server.time.advance(4 * MINUTE_MS);
        assert_eq!(state(&alice).await, "online");
        let told = until_seen(&bob, &unseen(&bob).await, &alice);
        until_waiting(&server, 2).await;
        server.time.advance(MINUTE_MS);
        assert_eq!(state(&alice).await, "unavailable");
        let content = told.await.unwrap();
        assert_eq!(content["presence"], "unavailable");
        assert_eq!((&content["currently_active"], &content["last_active_ago"]), (&json!(false), &json!(5 * MINUTE_MS)));
        // Her own change ended her wait; she does something, then goes.
        assert_eq!(seen(&waiting.await.unwrap(), &alice).unwrap()["presence"], "unavailable");
        send(&alice, &room, "1", "hello").await;
        assert_eq!(state(&alice).await, "online");
        server.time.advance(29_000);
        assert_eq!(state(&alice).await, "online");
        let told = until_seen(&bob, &unseen(&bob).await, &alice);
        until_waiting(&server, 1).await;
        server.time.advance(2_000);
        assert_eq!(state(&alice).await, "offline");
        assert_eq!(told.await.unwrap()["presence"], "offline");
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/presence/{userId}/status
#[tokio::test]
async fn the_best_of_several_devices_counts() {
    let server = TestServer::start().await;
    let phone = server.user("alice").await;
    let desk = server.login(&phone).await;
    set(&phone, json!({ "presence": "online" })).await;
    set(&desk, json!({ "presence": "unavailable" })).await;
    assert_eq!(state(&phone).await, "online");
    set(&phone, json!({ "presence": "offline" })).await;
    assert_eq!(state(&phone).await, "unavailable");
    set(&desk, json!({ "presence": "org.matrix.msc3026.busy" })).await;
    caught_up(&desk).await;
    caught_up(&phone).await;
    assert_eq!(state(&phone).await, "org.matrix.msc3026.busy");
    set(&desk, json!({ "presence": "offline" })).await;
    assert_eq!(state(&phone).await, "online");
    // Who hides is not shown by what he does.
    set(&phone, json!({ "presence": "offline" })).await;
    let room = public_room(&phone).await;
    send(&phone, &room, "1", "hello").await;
    act(&phone, &room, "read_markers", json!({})).await;
    assert_eq!(state(&phone).await, "offline");
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn filters_select_presence() {
    let server = TestServer::start().await;
    let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
    let room = public_room(&alice).await;
    join(&bob, &room).await;
    join(&carol, &room).await;
    caught_up(&bob).await;
    caught_up(&carol).await;
    let shown = async |filter: Value| {
        let answer = sync(&alice, Ask::default().filter(json!({ "presence": filter }))).await;
        [&alice, &bob, &carol].map(|user| seen(&answer, user).is_some())
    };
    assert_eq!(shown(json!({})).await, [true; 3]);
    assert_eq!(shown(json!({ "types": [] })).await, [false; 3]);
    assert_eq!(shown(json!({ "types": ["m.*"] })).await, [true; 3]);
    assert_eq!(shown(json!({ "not_types": ["m.presence"] })).await, [false; 3]);
    assert_eq!(shown(json!({ "senders": [bob.user_id] })).await, [false, true, false]);
    assert_eq!(shown(json!({ "not_senders": [bob.user_id] })).await, [true, false, true]);
    assert_eq!(shown(json!({ "limit": 1 })).await, [true, false, false]);
    assert_eq!(shown(json!({ "limit": 0 })).await, [false; 3]);
    // Those who are ignored are not seen.
    let account_data = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", alice.user_id);
    let ignored = json!({ "ignored_users": { carol.user_id.clone(): {} } });
    assert_eq!(alice.put(&account_data, &ignored).await.0, 200);
    assert_eq!(shown(json!({})).await, [true, true, false]);
}

// endpoint: GET /_matrix/client/v3/presence/{userId}/status
#[tokio::test]
async fn a_status_message_survives_a_restart() {
    on_each_backend(async |mut server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        set(&alice, json!({ "presence": "online", "status_msg": "gone fishing" })).await;
        let since = caught_up(&bob).await;
        server.restart().await;
        let (alice, bob) = (alice.at(server.target().clone()), bob.at(server.target().clone()));
        let expected = json!({ "presence": "offline", "currently_active": false, "status_msg": "gone fishing" });
        assert_eq!(status(&bob, &alice).await, expected);
        caught_up(&alice).await;
        // A token of before the restart gets what is.
        let answer = sync(&bob, Ask::since(&since)).await;
        let content = seen(&answer, &alice).unwrap();
        assert_eq!((&content["presence"], &content["status_msg"]), (&json!("online"), &json!("gone fishing")));
        set(&alice, json!({ "presence": "online" })).await;
        assert!(status(&bob, &alice).await.get("status_msg").is_none());
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/presence/{userId}/status
#[tokio::test]
async fn a_server_may_do_without() {
    let server = TestServer::start_with(|settings| settings.presence.enabled = false).await;
    let (alice, bob) = (server.user("alice").await, server.user("bob").await);
    let room = public_room(&alice).await;
    join(&bob, &room).await;
    set(&alice, json!({ "presence": "online", "status_msg": "here" })).await;
    caught_up(&alice).await;
    assert_eq!(status(&bob, &alice).await, json!({ "presence": "offline", "currently_active": false }));
    assert_eq!(sync(&bob, Ask::default()).await["presence"]["events"], json!([]));
    assert_eq!(server.running().doors().presence.known(), 0);
}
