//! Long-polling: a client that waits is told at once, and only of what concerns it.

use hearth_testkit::{TestServer, User, Value, json, on_each_backend, until};
use tokio::task::JoinHandle;

use super::{Ask, bodies, caught_up, encoded, invite, join, part, public_room, room_path, send, sync, token};

/// Longer than any test may take: a client that is told in time is told by the change, not by the clock.
const LONG_MS: u64 = 240_000;

fn wait(user: &User, since: &str, filter: Option<Value>) -> JoinHandle<Value> {
    let (user, since) = (user.clone(), since.to_owned());
    tokio::spawn(async move {
        let ask = Ask { filter, ..Ask::since(&since).timeout_ms(LONG_MS) };
        sync(&user, ask).await
    })
}

/// Until so many clients wait.
async fn until_waiting(server: &TestServer, count: u64) {
    until("clients wait", async || server.running().doors().syncs.waiting() as u64 == count).await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn an_event_wakes_those_in_the_room() {
    on_each_backend(async |server| {
        let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let (bobs, eves) = (caught_up(&bob).await, caught_up(&eve).await);
        let (waiting, elsewhere) = (wait(&bob, &bobs, None), wait(&eve, &eves, None));
        until_waiting(&server, 2).await;
        send(&alice, &room, "t1", "hello").await;
        let answer = waiting.await.unwrap();
        assert_eq!(bodies(part(&answer, "join", &room)), ["hello"]);
        assert!(!elsewhere.is_finished());

        // Somebody who waited through it hears of what comes next.
        invite(&alice, &public_room(&alice).await, &eve).await;
        assert!(elsewhere.await.unwrap()["rooms"]["invite"].is_object());
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn what_a_filter_hides_does_not_end_the_wait() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let since = caught_up(&bob).await;
        let filter = json!({ "room": { "timeline": { "types": ["org.example.wanted"] } } });
        let waiting = wait(&bob, &since, Some(filter));
        until_waiting(&server, 1).await;
        send(&alice, &room, "t1", "unwanted").await;
        let path = room_path(&room, "send/org.example.wanted/t2");
        assert_eq!(alice.put(&path, &json!({ "body": "wanted" })).await.0, 200);
        assert_eq!(bodies(part(&waiting.await.unwrap(), "join", &room)), ["wanted"]);
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn typing_receipts_and_account_data_wake() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let one = send(&bob, &room, "1", "one").await;
        let mut since = caught_up(&bob).await;

        let waiting = wait(&bob, &since, None);
        until_waiting(&server, 1).await;
        let path = room_path(&room, &format!("typing/{}", encoded(&alice.user_id)));
        assert_eq!(alice.put(&path, &json!({ "typing": true, "timeout": 60_000 })).await.0, 200);
        let answer = waiting.await.unwrap();
        assert_eq!(part(&answer, "join", &room)["ephemeral"]["events"][0]["type"], "m.typing");
        since = token(&answer).to_owned();

        let waiting = wait(&bob, &since, None);
        until_waiting(&server, 1).await;
        super::act(&alice, &room, &format!("receipt/m.read/{}", encoded(&one)), json!({})).await;
        let answer = waiting.await.unwrap();
        assert_eq!(part(&answer, "join", &room)["ephemeral"]["events"][0]["type"], "m.receipt");
        since = token(&answer).to_owned();

        let waiting = wait(&bob, &since, None);
        until_waiting(&server, 1).await;
        let path = format!("/_matrix/client/v3/user/{}/account_data/org.example", bob.user_id);
        assert_eq!(bob.put(&path, &json!({ "n": 1 })).await.0, 200);
        let answer = waiting.await.unwrap();
        assert_eq!(answer["account_data"]["events"], json!([{ "type": "org.example", "content": { "n": 1 } }]));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_server_that_stops_lets_go() {
    let mut server = TestServer::start().await;
    let alice = server.user("alice").await;
    let since = caught_up(&alice).await;
    let waiting = wait(&alice, &since, None);
    until_waiting(&server, 1).await;
    server.stop().await;
    assert!(waiting.await.unwrap().get("rooms").is_none());
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_client_that_goes_is_forgotten() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let since = caught_up(&alice).await;
    let waiting = wait(&alice, &since, None);
    until_waiting(&server, 1).await;
    waiting.abort();
    until_waiting(&server, 0).await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_wait_ends_with_an_empty_answer() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let since = caught_up(&alice).await;
    let answer = sync(&alice, Ask::since(&since).timeout_ms(1)).await;
    assert!(answer.get("rooms").is_none());
    assert!(answer["next_batch"].is_string());
}
