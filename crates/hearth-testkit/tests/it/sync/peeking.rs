//! `/events` and `initialSync`: the older way to listen, also for those who are not in the room.

use hearth_testkit::{Value, json, on_each_backend};

use super::{create_room, encoded, invite, join, leave, public_room, room_path, send};

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

// endpoint: GET /_matrix/client/v3/initialSync
#[tokio::test]
async fn the_older_way_to_begin_shows_all_rooms() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let (joined, left, invited) = (public_room(&alice).await, public_room(&alice).await, public_room(&alice).await);
        for room in [&joined, &left] {
            join(&bob, room).await;
        }
        send(&alice, &joined, "t1", "one").await;
        leave(&bob, &left).await;
        invite(&alice, &invited, &bob).await;
        let (status, now) = bob.get("/_matrix/client/v3/initialSync?limit=1").await;
        assert_eq!(status, 200, "{now}");
        let room = |answer: &Value, id: &str| {
            answer["rooms"].as_array().unwrap().iter().find(|room| room["room_id"] == id).cloned()
        };
        let shown = room(&now, &joined).unwrap();
        assert_eq!((&shown["membership"], &shown["visibility"]), (&json!("join"), &json!("private")));
        assert_eq!(shown["messages"]["chunk"].as_array().unwrap().len(), 1);
        assert_eq!(shown["messages"]["chunk"][0]["content"]["body"], "one");
        assert!(shown["state"].as_array().unwrap().iter().any(|event| event["type"] == "m.room.create"));
        let shown = room(&now, &invited).unwrap();
        assert_eq!(shown["membership"], "invite");
        assert_eq!(
            (&shown["invite"]["sender"], &shown["invite"]["content"]["membership"]),
            (&json!(alice.user_id), &json!("invite"))
        );
        assert!(room(&now, &left).is_none());
        let rules = |event: &Value| event["type"] == "m.push_rules";
        assert!(now["account_data"].as_array().unwrap().iter().any(rules));
        assert!(now["presence"].is_array());
        let (_, all) = bob.get("/_matrix/client/v3/initialSync?archived=true").await;
        assert_eq!(room(&all, &left).unwrap()["membership"], "leave");

        send(&alice, &joined, "t2", "two").await;
        let (_, then) = bob.get(&format!("/_matrix/client/v3/events?from={}", now["end"].as_str().unwrap())).await;
        assert_eq!(then["chunk"][0]["content"]["body"], "two");
        assert_eq!(server.get("/_matrix/client/v3/initialSync").await.0, 401);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/events/{eventId}
#[tokio::test]
async fn an_event_is_found_by_its_id_alone() {
    on_each_backend(async |server| {
        let (alice, eve) = (server.user("alice").await, server.user("eve").await);
        for version in ["2", "11"] {
            let room = create_room(&alice, json!({ "room_version": version })).await;
            let event = send(&alice, &room, "t1", "here").await;
            let path = format!("/_matrix/client/v3/events/{}", encoded(&event));
            let (status, found) = alice.get(&path).await;
            assert_eq!((status, &found["content"]["body"]), (200, &json!("here")));
            assert_eq!((&found["event_id"], &found["room_id"]), (&json!(event), &json!(room)));
            assert_eq!(eve.get(&path).await.0, 404);
            assert_eq!(server.get(&path).await.0, 401);
        }
    })
    .await;
}
