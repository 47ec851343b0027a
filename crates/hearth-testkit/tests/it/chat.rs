//! Two people chat, and the server stops in the middle of it.

use hearth_testkit::{User, Value, json, on_each_backend};

async fn create_room(owner: &User, guest: &User) -> String {
    let body = json!({ "preset": "private_chat", "invite": [guest.user_id] });
    let (status, created) = owner.post("/_matrix/client/v3/createRoom", &body).await;
    assert_eq!(status, 200, "{created}");
    created["room_id"].as_str().expect("a room id").to_owned()
}

async fn join(user: &User, room_id: &str) {
    let (status, answer) = user.post(&format!("/_matrix/client/v3/rooms/{room_id}/join"), &json!({})).await;
    assert_eq!(status, 200, "{answer}");
}

async fn say(user: &User, room_id: &str, text: &str) {
    let path = format!("/_matrix/client/v3/rooms/{room_id}/send/m.room.message/{text}");
    let (status, sent) = user.put(&path, &json!({ "msgtype": "m.text", "body": text })).await;
    assert_eq!(status, 200, "{sent}");
}

/// One sync: the next token, and what was said in the room meanwhile.
async fn sync(user: &User, room_id: &str, since: Option<&str>, timeout_ms: u32) -> (String, Vec<String>) {
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let (status, answer) = user.get(&format!("/_matrix/client/v3/sync?timeout={timeout_ms}{since}")).await;
    assert_eq!(status, 200, "{answer}");
    let said = answer["rooms"]["join"][room_id]["timeline"]["events"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|event| event["type"] == "m.room.message")
        .filter_map(|event| event["content"]["body"].as_str().map(str::to_owned))
        .collect();
    (answer["next_batch"].as_str().expect("a token").to_owned(), said)
}

/// endpoint: GET /_matrix/client/v3/sync
/// endpoint: POST /_matrix/client/v3/createRoom
/// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}
#[tokio::test]
async fn nothing_is_missing_doubled_or_out_of_order_after_a_restart() {
    on_each_backend(async |mut server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room_id = create_room(&alice, &bob).await;
        join(&bob, &room_id).await;
        let (since, _) = sync(&bob, &room_id, None, 0).await;
        say(&alice, &room_id, "one").await;
        say(&bob, &room_id, "two").await;
        server.restart().await;
        say(&alice, &room_id, "three").await;
        let (since, said) = sync(&bob, &room_id, Some(&since), 0).await;
        assert_eq!(said, ["one", "two", "three"]);
        // A client that did not hear the answer sends again.
        say(&alice, &room_id, "three").await;
        let (_, said) = sync(&bob, &room_id, Some(&since), 0).await;
        assert_eq!(said, Vec::<String>::new());
        let (_, said) = sync(&alice, &room_id, None, 0).await;
        assert_eq!(said, ["one", "two", "three"]);
    })
    .await;
}

#[tokio::test]
async fn a_waiting_client_is_woken_by_a_message_and_by_the_end_of_the_server() {
    on_each_backend(async |mut server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room_id = create_room(&alice, &bob).await;
        join(&bob, &room_id).await;
        let (since, _) = sync(&bob, &room_id, None, 0).await;

        let ((since, said), ()) =
            tokio::join!(sync(&bob, &room_id, Some(&since), 60_000), say(&alice, &room_id, "wake"));
        assert_eq!(said, ["wake"]);

        // The stop waits for the answer, and the answer does not wait for its minute.
        let began = std::time::Instant::now();
        let path = format!("/_matrix/client/v3/sync?timeout=60000&since={since}");
        let waiting = tokio::spawn(bob.request("GET", &path).try_send());
        alice.get("/_matrix/client/v3/account/whoami").await;
        server.stop().await;
        // Nobody can say whether the request arrived before the end; if it did, it was answered.
        if let Ok(answer) = waiting.await.expect("no panic") {
            assert_eq!((answer.status, &answer.json()["rooms"]["join"]), (200, &Value::Null));
        }
        assert!(began.elapsed().as_secs() < 10);
    })
    .await;
}
