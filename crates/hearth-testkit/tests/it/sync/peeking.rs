//! `/events` and `initialSync`: the older way to listen, also for those who are not in the room.

use hearth_testkit::{json, on_each_backend};

use super::{create_room, encoded, join, leave, public_room, room_path, send};

// endpoint: GET /_matrix/client/v3/events
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/initialSync
#[tokio::test]
async fn a_room_that_all_may_read_can_be_peeked_into() {
    on_each_backend(async |server| {
        let (alice, eve) = (server.user("alice").await, server.user("eve").await);
        let open =
            json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "world_readable" } });
        let room = create_room(&alice, json!({ "preset": "public_chat", "initial_state": [open] })).await;
        send(&alice, &room, "t1", "one").await;
        let (status, first) = eve.get(&room_path(&room, "initialSync")).await;
        assert_eq!(status, 200, "{first}");
        assert_eq!(first["messages"]["chunk"].as_array().unwrap().last().unwrap()["content"]["body"], "one");
        assert!(first["state"].as_array().unwrap().iter().any(|event| event["type"] == "m.room.create"));
        assert!(first.get("membership").is_none());

        let path = format!(
            "/_matrix/client/v3/events?room_id={}&from={}&timeout=240000",
            encoded(&room),
            first["messages"]["end"].as_str().unwrap()
        );
        let waiting = {
            let (eve, path) = (eve.clone(), path.clone());
            tokio::spawn(async move { eve.get(&path).await })
        };
        send(&alice, &room, "t2", "two").await;
        let (status, answer) = waiting.await.unwrap();
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["chunk"][0]["content"]["body"], "two");
        assert_eq!(answer["chunk"][0]["room_id"], json!(room));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/events
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/initialSync
#[tokio::test]
async fn who_may_not_read_a_room_may_not_listen_to_it() {
    on_each_backend(async |server| {
        let (alice, eve) = (server.user("alice").await, server.user("eve").await);
        let room = public_room(&alice).await;
        assert_eq!(eve.get(&room_path(&room, "initialSync")).await.0, 403);
        let path = format!("/_matrix/client/v3/events?room_id={}", encoded(&room));
        assert_eq!(eve.get(&path).await.0, 403);
        assert_eq!(eve.get("/_matrix/client/v3/events?from=nonsense").await.0, 400);
        assert_eq!(server.get("/_matrix/client/v3/events").await.0, 401);
        assert_eq!(server.get(&room_path(&room, "initialSync")).await.0, 401);

        // Who left hears nothing more.
        join(&eve, &room).await;
        leave(&eve, &room).await;
        send(&alice, &room, "t1", "after").await;
        let (status, view) = eve.get(&room_path(&room, "initialSync")).await;
        assert_eq!((status, view["membership"].as_str()), (200, Some("leave")));
        let last = view["messages"]["chunk"].as_array().unwrap().last().unwrap();
        assert_eq!(last["content"]["membership"], "leave");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/events
#[tokio::test]
async fn events_come_from_all_rooms_one_is_in() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let (one, two) = (public_room(&alice).await, public_room(&alice).await);
        let (_, now) = alice.get("/_matrix/client/v3/events").await;
        assert_eq!(now["chunk"], json!([]));
        send(&alice, &one, "t1", "first").await;
        send(&alice, &two, "t1", "second").await;
        let path = format!("/_matrix/client/v3/events?from={}", now["end"].as_str().unwrap());
        let (_, answer) = alice.get(&path).await;
        let chunk = answer["chunk"].as_array().unwrap();
        let bodies: Vec<_> = chunk.iter().map(|event| event["content"]["body"].as_str().unwrap()).collect();
        assert_eq!(bodies, ["first", "second"]);
    })
    .await;
}
