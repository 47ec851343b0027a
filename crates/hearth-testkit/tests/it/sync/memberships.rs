//! Rooms that one comes into and goes out of.

use hearth_testkit::{json, on_each_backend};

use super::{
    Ask, act, bodies, caught_up, create_room, events, invite, join, keys, leave, part, public_room, send, set_state,
    sync, token,
};

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn who_joins_gets_the_whole_state() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        for n in 0..12 {
            send(&alice, &room, &format!("t{n}"), &format!("{n}")).await;
        }
        let since = caught_up(&bob).await;
        join(&bob, &room).await;
        let answer = sync(&bob, Ask::since(&since)).await;
        let joined = part(&answer, "join", &room);
        assert_eq!(joined["timeline"]["limited"], true);
        assert!(keys(&joined["state"]).contains(&("m.room.create", "")));
        assert_eq!(keys(&joined["timeline"]).last(), Some(&("m.room.member", bob.user_id.as_str())));

        let again = sync(&bob, Ask::since(token(&answer))).await;
        assert!(part(&again, "join", &room).is_null());
        leave(&bob, &room).await;
        join(&bob, &room).await;
        let back = sync(&bob, Ask::since(token(&again))).await;
        assert!(keys(&part(&back, "join", &room)["state"]).contains(&("m.room.create", "")));
        assert!(part(&back, "leave", &room).is_null());
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn an_invite_comes_with_stripped_state_and_goes_with_the_answer() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = create_room(&alice, json!({ "name": "a name" })).await;
        let since = caught_up(&bob).await;
        invite(&alice, &room, &bob).await;
        let invited = sync(&bob, Ask::since(&since)).await;
        let stripped = keys(&part(&invited, "invite", &room)["invite_state"]);
        assert!(stripped.contains(&("m.room.name", "")), "{stripped:?}");
        assert!(stripped.contains(&("m.room.member", bob.user_id.as_str())), "{stripped:?}");
        // The invite itself is whole, so clients can say when it came.
        let own = events(&part(&invited, "invite", &room)["invite_state"])
            .iter()
            .find(|event| event["state_key"] == bob.user_id.as_str())
            .unwrap();
        assert!(own["origin_server_ts"].as_u64().is_some_and(|ts| ts > 0), "{own}");
        assert!(own["event_id"].is_string(), "{own}");
        let fresh = sync(&bob, Ask::default()).await;
        assert_eq!(part(&fresh, "invite", &room), part(&invited, "invite", &room));
        let again = sync(&bob, Ask::since(token(&invited))).await;
        assert!(part(&again, "invite", &room).is_null());

        leave(&bob, &room).await;
        let rejected = sync(&bob, Ask::since(token(&invited))).await;
        let left = part(&rejected, "leave", &room);
        assert_eq!(keys(&left["timeline"]), [("m.room.member", bob.user_id.as_str())]);
        assert_eq!(events(&left["state"]).len(), 0);
        let fresh = sync(&bob, Ask::default()).await;
        assert!(part(&fresh, "leave", &room).is_null());
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn an_invite_of_an_ignored_user_is_not_told() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let shared = public_room(&alice).await;
        join(&bob, &shared).await;
        let path = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", bob.user_id);
        let (status, _) = bob.put(&path, &json!({ "ignored_users": { alice.user_id.clone(): {} } })).await;
        assert_eq!(status, 200);
        let since = caught_up(&bob).await;
        let room = create_room(&alice, json!({ "invite": [bob.user_id] })).await;
        send(&alice, &shared, "t1", "ignored").await;
        set_state(&alice, &shared, "m.room.topic", "", json!({ "topic": "not ignored" })).await;
        for ask in [Ask::default(), Ask::since(&since)] {
            let answer = sync(&bob, ask).await;
            assert!(part(&answer, "invite", &room).is_null());
            assert_eq!(bodies(part(&answer, "join", &shared)), [""; 0]);
            let kinds = keys(&part(&answer, "join", &shared)["timeline"]);
            assert_eq!(kinds.last(), Some(&("m.room.topic", "")));
        }
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn who_leaves_sees_what_came_before() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let since = caught_up(&bob).await;
        send(&alice, &room, "t1", "before").await;
        set_state(&alice, &room, "m.room.topic", "", json!({ "topic": "before" })).await;
        leave(&bob, &room).await;
        send(&alice, &room, "t2", "after").await;
        set_state(&alice, &room, "m.room.topic", "", json!({ "topic": "after" })).await;
        let archive = json!({ "room": { "include_leave": true } });
        let plain = sync(&bob, Ask::since(&since)).await;
        let fresh = sync(&bob, Ask::default().filter(archive.clone())).await;
        for answer in [&plain, &fresh] {
            let left = part(answer, "leave", &room);
            assert_eq!(bodies(left), ["before"]);
            assert_eq!(keys(&left["timeline"]).last(), Some(&("m.room.member", bob.user_id.as_str())));
        }
        assert_eq!(events(&part(&plain, "leave", &room)["state"]).len(), 0);
        assert!(part(&sync(&bob, Ask::default()).await, "leave", &room).is_null());
        assert!(part(&sync(&bob, Ask::since(token(&plain))).await, "leave", &room).is_null());

        let none = json!({ "room": { "include_leave": true, "timeline": { "limit": 0 } } });
        let state_only = sync(&bob, Ask::default().filter(none)).await;
        let state = events(&part(&state_only, "leave", &room)["state"]);
        let own = state.iter().find(|event| event["state_key"] == json!(bob.user_id)).unwrap();
        assert_eq!(own["content"]["membership"], "leave");
        let topic = state.iter().find(|event| event["type"] == "m.room.topic").unwrap();
        assert_eq!(topic["content"]["topic"], "before");

        act(&bob, &room, "forget", json!({})).await;
        assert!(part(&sync(&bob, Ask::default().filter(archive)).await, "leave", &room).is_null());
        assert_eq!(bodies(part(&sync(&bob, Ask::since(&since)).await, "leave", &room)), ["before"]);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn who_is_banned_sees_it() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let since = caught_up(&bob).await;
        act(&alice, &room, "ban", json!({ "user_id": bob.user_id, "reason": "test" })).await;
        send(&alice, &room, "t1", "after").await;
        let answer = sync(&bob, Ask::since(&since)).await;
        let left = part(&answer, "leave", &room);
        assert_eq!(bodies(left), [""; 0]);
        assert_eq!(left["timeline"]["events"][0]["content"]["membership"], "ban");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn who_knocks_sees_his_knock() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let room = create_room(&alice, json!({ "initial_state": [rules] })).await;
        let since = caught_up(&bob).await;
        let (status, answer) = bob.post(&format!("/_matrix/client/v3/knock/{room}"), &json!({})).await;
        assert_eq!(status, 200, "{answer}");
        let answer = sync(&bob, Ask::since(&since)).await;
        let stripped = keys(&part(&answer, "knock", &room)["knock_state"]);
        assert!(stripped.contains(&("m.room.join_rules", "")), "{stripped:?}");
    })
    .await;
}
