//! Filters and lazy-loaded members.

use hearth_testkit::{json, on_each_backend};

use super::{Ask, bodies, caught_up, create_room, events, join, keys, part, public_room, send, set_state, sync, token};

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn only_what_passes_is_told() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        let other = public_room(&alice).await;
        join(&bob, &room).await;
        let since = caught_up(&bob).await;
        send(&alice, &room, "t1", "one").await;
        send(&bob, &room, "t1", "mine").await;
        set_state(&alice, &room, "org.example.state", "", json!({ "n": 1 })).await;
        send(&alice, &other, "t1", "elsewhere").await;
        for n in 0..12 {
            send(&alice, &room, &format!("fill{n}"), "filler").await;
        }
        let timeline = async |filter| {
            let filter = json!({ "room": { "timeline": filter } });
            sync(&bob, Ask::since(&since).filter(filter)).await
        };
        let answer = timeline(json!({ "types": ["org.*"] })).await;
        assert_eq!(keys(&part(&answer, "join", &room)["timeline"]), [("org.example.state", "")]);
        assert_eq!(part(&answer, "join", &room)["timeline"]["limited"], false);
        let answer = timeline(json!({ "senders": [bob.user_id] })).await;
        assert_eq!(bodies(part(&answer, "join", &room)), ["mine"]);
        let answer = timeline(json!({ "not_senders": [alice.user_id] })).await;
        assert_eq!(bodies(part(&answer, "join", &room)), ["mine"]);
        let answer = timeline(json!({ "contains_url": true })).await;
        assert_eq!(bodies(part(&answer, "join", &room)), [""; 0]);
        let answer = timeline(json!({ "not_rooms": [room] })).await;
        assert_eq!(bodies(part(&answer, "join", &room)), [""; 0]);
        // What the filter hides of the timeline is told as state.
        let answer = timeline(json!({ "types": ["m.room.message"], "limit": 50 })).await;
        assert_eq!(keys(&part(&answer, "join", &room)["state"]), [("org.example.state", "")]);
        let none = json!({ "room": { "rooms": [] } });
        let answer = sync(&bob, Ask::since(&since).filter(none)).await;
        assert!(answer.get("rooms").is_none(), "{answer}");
        let quiet = json!({ "account_data": { "types": [] }, "room": { "rooms": [] } });
        let answer = sync(&bob, Ask::default().filter(quiet)).await;
        assert!(answer.get("rooms").is_none() && answer.get("account_data").is_none(), "{answer}");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_stored_filter_is_named_by_its_id() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = public_room(&alice).await;
        send(&alice, &room, "t1", "one").await;
        send(&alice, &room, "t2", "two").await;
        let path = format!("/_matrix/client/v3/user/{}/filter", alice.user_id);
        let (status, filter) = alice.post(&path, &json!({ "room": { "timeline": { "limit": 1 } } })).await;
        assert_eq!(status, 200, "{filter}");
        let extra = format!("&filter={}", filter["filter_id"].as_str().unwrap());
        let answer = sync(&alice, Ask::default().extra(&extra)).await;
        assert_eq!(bodies(part(&answer, "join", &room)), ["two"]);
        assert_eq!(part(&answer, "join", &room)["timeline"]["limited"], true);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn events_have_the_fields_and_the_format_asked_for() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = public_room(&alice).await;
        send(&alice, &room, "t1", "one").await;
        let fields = json!({ "event_fields": ["type", "content.body"] });
        let answer = sync(&alice, Ask::default().filter(fields)).await;
        let last = events(&part(&answer, "join", &room)["timeline"]).last().unwrap();
        assert_eq!(last, &json!({ "type": "m.room.message", "content": { "body": "one" } }));
        let answer = sync(&alice, Ask::default().filter(json!({ "event_format": "federation" }))).await;
        let last = events(&part(&answer, "join", &room)["timeline"]).last().unwrap();
        assert!(last["prev_events"].is_array() && last["signatures"].is_object(), "{last}");
        assert_eq!(last["unsigned"]["transaction_id"], "t1");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn members_are_loaded_where_they_are_needed_and_once() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = create_room(&alice, json!({ "preset": "public_chat", "name": "a name" })).await;
        let mut others = Vec::new();
        for name in ["bob", "carol", "dave"] {
            let user = server.user(name).await;
            join(&user, &room).await;
            others.push(user);
        }
        for n in 0..12 {
            send(&others[0], &room, &format!("t{n}"), "filler").await;
        }
        let lazy = |redundant: bool| {
            json!({ "room": { "state": { "lazy_load_members": true, "include_redundant_members": redundant } } })
        };
        let members = |answer: &serde_json::Value| -> Vec<String> {
            let state = keys(&part(answer, "join", &room)["state"]);
            state.iter().filter(|(kind, _)| *kind == "m.room.member").map(|(_, user)| (*user).to_owned()).collect()
        };
        let first = sync(&alice, Ask::default().filter(lazy(false))).await;
        assert_eq!(members(&first), [alice.user_id.clone(), others[0].user_id.clone()]);

        send(&others[0], &room, "b", "known").await;
        send(&others[1], &room, "c", "new").await;
        let second = sync(&alice, Ask::since(token(&first)).filter(lazy(false))).await;
        assert_eq!(members(&second), [others[1].user_id.clone()]);
        // The answer may have been lost: the same again.
        let retried = sync(&alice, Ask::since(token(&first)).filter(lazy(false))).await;
        assert_eq!(members(&retried), [others[1].user_id.clone()]);
        send(&others[1], &room, "c2", "known now").await;
        let third = sync(&alice, Ask::since(token(&retried)).filter(lazy(false))).await;
        assert_eq!(members(&third), [""; 0]);
        assert_eq!(bodies(part(&third, "join", &room)), ["known now"]);
        let redundant = sync(&alice, Ask::since(token(&retried)).filter(lazy(true))).await;
        assert_eq!(members(&redundant), [others[1].user_id.clone()]);
        // A client that begins anew has nothing.
        let fresh = sync(&alice, Ask::default().filter(lazy(false))).await;
        assert_eq!(members(&fresh).len(), 3);
        send(&others[2], &room, "d", "new").await;
        let fourth = sync(&alice, Ask::since(token(&fresh)).filter(lazy(false))).await;
        assert_eq!(members(&fourth), [others[2].user_id.clone()]);
    })
    .await;
}
