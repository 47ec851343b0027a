//! Typing and receipts.

use hearth_testkit::{User, Value, json, on_each_backend};

use super::{Ask, act, caught_up, encoded, events, join, part, public_room, room_path, send, sync, token};

async fn typing(user: &User, room: &str, typing: bool) {
    let path = room_path(room, &format!("typing/{}", encoded(&user.user_id)));
    let (status, answer) = user.put(&path, &json!({ "typing": typing, "timeout": 60_000 })).await;
    assert_eq!(status, 200, "{answer}");
}

fn ephemeral<'a>(answer: &'a Value, room: &str, kind: &str) -> Option<&'a Value> {
    let events = events(&part(answer, "join", room)["ephemeral"]);
    events.iter().find(|event| event["type"] == kind).map(|event| &event["content"])
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/typing/{userId}
#[tokio::test]
async fn typing_is_seen_by_those_in_the_room() {
    on_each_backend(async |server| {
        let (alice, bob, eve) = (server.user("alice").await, server.user("bob").await, server.user("eve").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let (since, eves) = (caught_up(&bob).await, caught_up(&eve).await);
        let quiet = sync(&bob, Ask::default()).await;
        assert_eq!(part(&quiet, "join", &room)["ephemeral"], json!({ "events": [] }));
        typing(&alice, &room, true).await;
        // How long need not be said.
        let path = room_path(&room, &format!("typing/{}", encoded(&alice.user_id)));
        assert_eq!(alice.put(&path, &json!({ "typing": true })).await.0, 200);
        let first = sync(&bob, Ask::since(&since)).await;
        assert_eq!(ephemeral(&first, &room, "m.typing"), Some(&json!({ "user_ids": [alice.user_id] })));
        assert!(sync(&eve, Ask::since(&eves)).await.get("rooms").is_none());
        let again = sync(&bob, Ask::since(token(&first))).await;
        assert!(again.get("rooms").is_none(), "{again}");
        typing(&alice, &room, false).await;
        let ended = sync(&bob, Ask::since(token(&first))).await;
        assert_eq!(ephemeral(&ended, &room, "m.typing"), Some(&json!({ "user_ids": [] })));

        let (status, _) =
            eve.put(&room_path(&room, &format!("typing/{}", eve.user_id)), &json!({ "typing": false })).await;
        assert_eq!(status, 403);
        let (status, _) =
            bob.put(&room_path(&room, &format!("typing/{}", alice.user_id)), &json!({ "typing": false })).await;
        assert_eq!(status, 403);
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
#[tokio::test]
async fn receipts_move_forward_only() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let one = send(&alice, &room, "1", "one").await;
        let two = send(&alice, &room, "2", "two").await;
        let since = caught_up(&alice).await;
        act(&bob, &room, &format!("receipt/m.read/{}", encoded(&two)), json!({})).await;
        let first = sync(&alice, Ask::since(&since)).await;
        let expected = json!({ two.clone(): { "m.read": { bob.user_id.clone(): { "ts": server.time.now_ms() } } } });
        assert_eq!(ephemeral(&first, &room, "m.receipt"), Some(&expected));
        act(&bob, &room, &format!("receipt/m.read/{}", encoded(&one)), json!({})).await;
        assert!(sync(&alice, Ask::since(token(&first))).await.get("rooms").is_none());
        let fresh = sync(&alice, Ask::default()).await;
        assert_eq!(ephemeral(&fresh, &room, "m.receipt"), Some(&expected));
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
#[tokio::test]
async fn private_receipts_are_seen_by_their_user_only() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let one = send(&alice, &room, "1", "one").await;
        let (alices, bobs) = (caught_up(&alice).await, caught_up(&bob).await);
        act(&bob, &room, &format!("receipt/m.read.private/{}", encoded(&one)), json!({ "thread_id": "main" })).await;
        assert!(sync(&alice, Ask::since(&alices)).await.get("rooms").is_none());
        let own = sync(&bob, Ask::since(&bobs)).await;
        let receipt = &ephemeral(&own, &room, "m.receipt").unwrap()[&one]["m.read.private"][&bob.user_id];
        assert_eq!(receipt["thread_id"], "main");
        assert_eq!(part(&own, "join", &room)["unread_notifications"]["notification_count"], 0);
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/read_markers
#[tokio::test]
async fn read_markers_are_account_data_and_receipts() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let one = send(&alice, &room, "1", "one").await;
        let two = send(&alice, &room, "2", "two").await;
        let since = caught_up(&bob).await;
        act(&bob, &room, "read_markers", json!({ "m.fully_read": two, "m.read": two, "m.read.private": two })).await;
        let answer = sync(&bob, Ask::since(&since)).await;
        let marker = &events(&part(&answer, "join", &room)["account_data"])[0];
        assert_eq!(marker, &json!({ "type": "m.fully_read", "content": { "event_id": two } }));
        let receipts = &ephemeral(&answer, &room, "m.receipt").unwrap()[&two];
        assert!(receipts["m.read"].is_object() && receipts["m.read.private"].is_object());
        act(&bob, &room, "read_markers", json!({ "m.fully_read": one })).await;
        assert!(sync(&bob, Ask::since(token(&answer))).await.get("rooms").is_none());
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
#[tokio::test]
async fn a_thread_is_read_by_what_relates_to_it() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = public_room(&alice).await;
        let root = send(&alice, &room, "1", "root").await;
        let relate = async |kind: &str, rel_type: &str, parent: &str, txn_id: &str| {
            let content =
                json!({ "body": "x", "m.relates_to": { "rel_type": rel_type, "event_id": parent, "key": "k" } });
            let (status, answer) = alice.put(&room_path(&room, &format!("send/{kind}/{txn_id}")), &content).await;
            assert_eq!(status, 200, "{answer}");
            answer["event_id"].as_str().unwrap().to_owned()
        };
        let reply = relate("m.room.message", "m.thread", &root, "2").await;
        let reference = relate("m.room.message", "m.reference", &root, "3").await;
        let reaction = relate("m.reaction", "m.annotation", &reference, "4").await;
        let since = caught_up(&alice).await;
        for event in [&root, &reply, &reaction] {
            let path = format!("receipt/m.read/{}", encoded(event));
            act(&alice, &room, &path, json!({ "thread_id": root })).await;
        }
        let answer = sync(&alice, Ask::since(&since)).await;
        let receipts = ephemeral(&answer, &room, "m.receipt").unwrap();
        assert_eq!(receipts[&reaction]["m.read"][&alice.user_id]["thread_id"], json!(root));
        assert_eq!(receipts.as_object().unwrap().len(), 1);
        act(&alice, &room, &format!("receipt/m.read/{}", encoded(&reaction)), json!({})).await;
        // Of two at one event the one for everything is told.
        let answer = sync(&alice, Ask::since(&since)).await;
        let receipt = &ephemeral(&answer, &room, "m.receipt").unwrap()[&reaction]["m.read"][&alice.user_id];
        assert!(receipt.get("thread_id").is_none(), "{receipt}");
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/read_markers
#[tokio::test]
async fn receipts_that_make_no_sense_are_refused() {
    on_each_backend(async |server| {
        let (alice, eve) = (server.user("alice").await, server.user("eve").await);
        let room = public_room(&alice).await;
        let one = encoded(&send(&alice, &room, "1", "one").await);
        let refusal = async |user: &User, path: String, body: Value| {
            user.request("POST", &room_path(&room, &path)).json(&body).send().await.refusal()
        };
        assert_eq!(refusal(&eve, format!("receipt/m.read/{one}"), json!({})).await, (403, "M_FORBIDDEN".into()));
        assert_eq!(refusal(&eve, "read_markers".into(), json!({})).await, (403, "M_FORBIDDEN".into()));
        for (path, body) in [
            (format!("receipt/org.example/{one}"), json!({})),
            (format!("receipt/m.fully_read/{one}"), json!({ "thread_id": "main" })),
            (format!("receipt/m.read/{one}"), json!({ "thread_id": "$nowhere" })),
        ] {
            assert_eq!(refusal(&alice, path.clone(), body).await, (400, "M_INVALID_PARAM".into()), "{path}");
        }
    })
    .await;
}
