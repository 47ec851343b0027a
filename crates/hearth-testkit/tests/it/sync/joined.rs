//! Joined rooms: timelines, state, summaries, counts.

use hearth_testkit::{json, on_each_backend};

use super::{
    Ask, act, bodies, caught_up, create_room, encoded, events, invite, join, keys, part, public_room, redact,
    room_path, send, set_state, sync, token,
};

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_client_sees_what_happens_after_it_looked() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let first = sync(&bob, Ask::default()).await;
        let joined = part(&first, "join", &room);
        assert!(joined["timeline"]["events"].is_array());
        assert_eq!(joined["summary"]["m.joined_member_count"], 2);
        assert_eq!(joined["summary"]["m.heroes"], json!([alice.user_id]));
        assert_eq!(joined["unread_notifications"]["notification_count"], 0);

        let event_id = send(&alice, &room, "t1", "hello").await;
        server.time.advance(1500);
        let second = sync(&bob, Ask::since(token(&first))).await;
        let joined = part(&second, "join", &room);
        assert_eq!(bodies(joined), ["hello"]);
        let event = &joined["timeline"]["events"][0];
        assert_eq!(event["event_id"], json!(event_id));
        assert_eq!(event["sender"], json!(alice.user_id));
        assert_eq!(event["type"], "m.room.message");
        assert_eq!(event["unsigned"]["age"], 1500);
        assert_eq!(event["unsigned"]["membership"], "join");
        assert!(event.get("room_id").is_none());
        assert_eq!(joined["timeline"]["limited"], false);
        assert_eq!(joined["unread_notifications"]["notification_count"], 1);
        assert_eq!(events(&joined["state"]).len(), 0);

        let third = sync(&bob, Ask::since(token(&second))).await;
        assert!(third.get("rooms").is_none(), "{third}");
        assert!(third.get("account_data").is_none(), "{third}");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn push_rules_come_first() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let first = sync(&alice, Ask::default()).await;
        let rules = events(&first["account_data"]).iter().find(|event| event["type"] == "m.push_rules").unwrap();
        assert!(rules["content"]["global"]["override"].is_array());
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_gap_is_told_with_the_state_that_changed_in_it() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let since = caught_up(&bob).await;
        set_state(&alice, &room, "m.room.topic", "", json!({ "topic": "in the gap" })).await;
        for n in 0..5 {
            send(&alice, &room, &format!("t{n}"), &format!("{n}")).await;
        }
        set_state(&alice, &room, "m.room.name", "", json!({ "name": "in the timeline" })).await;
        let filter = json!({ "room": { "timeline": { "limit": 3 } } });
        let answer = sync(&bob, Ask::since(&since).filter(filter.clone())).await;
        let joined = part(&answer, "join", &room);
        assert_eq!(bodies(joined), ["3", "4"]);
        assert_eq!(joined["timeline"]["limited"], true);
        assert_eq!(keys(&joined["state"]), [("m.room.topic", "")]);

        let after = sync(&bob, Ask::since(&since).filter(filter).extra("&use_state_after=true")).await;
        let joined = part(&after, "join", &room);
        assert_eq!(keys(&joined["state_after"]), [("m.room.topic", ""), ("m.room.name", "")]);
        assert!(joined.get("state").is_none());

        let all = sync(&bob, Ask::since(&since)).await;
        assert_eq!(part(&all, "join", &room)["timeline"]["limited"], false);
        assert_eq!(events(&part(&all, "join", &room)["timeline"]).len(), 7);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn full_state_repeats_what_is_known() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = create_room(&alice, json!({ "name": "a name" })).await;
        let since = caught_up(&alice).await;
        let answer = sync(&alice, Ask::since(&since).extra("&full_state=true")).await;
        let joined = part(&answer, "join", &room);
        assert_eq!(events(&joined["timeline"]).len(), 0);
        let state = keys(&joined["state"]);
        for key in [("m.room.create", ""), ("m.room.name", ""), ("m.room.member", alice.user_id.as_str())] {
            assert!(state.contains(&key), "{state:?}");
        }
        assert_eq!(joined["summary"]["m.joined_member_count"], 1);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn state_before_the_timeline_and_the_timeline_make_the_whole() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = create_room(&alice, json!({ "name": "a name" })).await;
        for limit in [0, 1, 3, 50] {
            let filter = json!({ "room": { "timeline": { "limit": limit } } });
            let answer = sync(&alice, Ask::default().filter(filter)).await;
            let joined = part(&answer, "join", &room);
            let mut all = keys(&joined["state"]);
            all.extend(keys(&joined["timeline"]));
            all.sort_unstable();
            all.dedup();
            assert!(all.contains(&("m.room.create", "")) && all.contains(&("m.room.name", "")), "{limit}: {all:?}");
            assert_eq!(all.len(), events(&joined["state"]).len() + events(&joined["timeline"]).len(), "{limit}");
        }
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn only_the_sending_device_sees_its_transaction() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let phone = server.login(&alice).await;
        let room = public_room(&alice).await;
        let (since, phone_since) = (caught_up(&alice).await, caught_up(&phone).await);
        send(&alice, &room, "my-txn", "hello").await;
        for (user, since, expected) in [(&alice, &since, json!("my-txn")), (&phone, &phone_since, json!(null))] {
            for ask in [Ask::since(since), Ask::default()] {
                let answer = sync(user, ask).await;
                let timeline = events(&part(&answer, "join", &room)["timeline"]);
                assert_eq!(timeline.last().unwrap()["unsigned"]["transaction_id"], expected);
            }
        }
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn what_is_redacted_is_gone_in_every_answer() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let since = caught_up(&bob).await;
        let secret = send(&alice, &room, "t1", "secret").await;
        set_state(&alice, &room, "m.room.topic", "", json!({ "topic": "secret" })).await;
        let topic = set_state(&alice, &room, "m.room.topic", "", json!({ "topic": "secret too" })).await;
        set_state(&alice, &room, "m.room.topic", "", json!({ "topic": "public" })).await;
        let because = redact(&alice, &room, &secret, "r1").await;
        redact(&alice, &room, &topic, "r2").await;
        for ask in [Ask::since(&since), Ask::since(&since).filter(json!({ "event_fields": [] })), Ask::default()] {
            let answer = sync(&bob, ask).await;
            let timeline = events(&part(&answer, "join", &room)["timeline"]);
            let find = |id: &str| timeline.iter().find(|event| event["event_id"] == id).unwrap();
            assert_eq!(find(&secret)["content"], json!({}));
            assert_eq!(find(&secret)["unsigned"]["redacted_because"]["event_id"], json!(because));
            assert_eq!(find(&topic)["content"], json!({}));
            let last = timeline.iter().rfind(|event| event["type"] == "m.room.topic").unwrap();
            assert_eq!(last["content"], json!({ "topic": "public" }));
            assert_eq!(last["unsigned"]["prev_content"], json!({}));
            assert_eq!(last["unsigned"]["replaces_state"], json!(topic));
        }
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn counts_follow_receipts_and_own_messages() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let mut since = caught_up(&bob).await;
        let mut expect = async |count: i64| {
            let answer = sync(&bob, Ask::since(&since)).await;
            let counts = &part(&answer, "join", &room)["unread_notifications"];
            assert_eq!(counts["notification_count"], count);
            assert_eq!(counts["highlight_count"], 0);
            let fresh = sync(&bob, Ask::default()).await;
            assert_eq!(part(&fresh, "join", &room)["unread_notifications"]["notification_count"], count);
            since = token(&answer).to_owned();
        };
        send(&alice, &room, "1", "one").await;
        let two = send(&alice, &room, "2", "two").await;
        expect(2).await;
        send(&alice, &room, "3", "three").await;
        expect(3).await;
        act(&bob, &room, &format!("receipt/m.read/{}", encoded(&two)), json!({})).await;
        expect(1).await;
        send(&bob, &room, "b", "mine").await;
        expect(0).await;
        send(&alice, &room, "4", "four").await;
        expect(1).await;
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn history_follows_the_visibility_of_its_time() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let hidden = json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
        let closed = create_room(&alice, json!({ "preset": "public_chat", "initial_state": [hidden] })).await;
        let open = public_room(&alice).await;
        for room in [&closed, &open] {
            send(&alice, room, "t1", "before").await;
            join(&bob, room).await;
            send(&alice, room, "t2", "after").await;
        }
        let answer = sync(&bob, Ask::default()).await;
        assert_eq!(bodies(part(&answer, "join", &closed)), ["after"]);
        let open = part(&answer, "join", &open);
        assert_eq!(bodies(open), ["before", "after"]);
        let memberships: Vec<_> =
            events(&open["timeline"]).iter().rev().take(3).map(|event| &event["unsigned"]["membership"]).collect();
        assert_eq!(memberships, [&json!("join"), &json!("join"), &json!("leave")]);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_summary_names_those_who_are_invited() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = create_room(&alice, json!({})).await;
        let since = caught_up(&alice).await;
        invite(&alice, &room, &bob).await;
        let answer = sync(&alice, Ask::since(&since)).await;
        let summary = &part(&answer, "join", &room)["summary"];
        assert_eq!(summary["m.invited_member_count"], 1);
        assert_eq!(summary["m.heroes"], json!([bob.user_id]));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn nothing_is_lost_or_doubled_over_a_restart() {
    on_each_backend(async |mut server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let since = caught_up(&bob).await;
        send(&alice, &room, "t1", "one").await;
        server.restart().await;
        let (alice, bob) = (alice.at(server.target().clone()), bob.at(server.target().clone()));
        send(&alice, &room, "t2", "two").await;
        let answer = sync(&bob, Ask::since(&since)).await;
        assert_eq!(bodies(part(&answer, "join", &room)), ["one", "two"]);
        send(&alice, &room, "t3", "three").await;
        let answer = sync(&bob, Ask::since(token(&answer))).await;
        assert_eq!(bodies(part(&answer, "join", &room)), ["three"]);
        let answer = sync(&bob, Ask::since(&since)).await;
        assert_eq!(bodies(part(&answer, "join", &room)), ["one", "two", "three"]);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn strangers_and_nonsense_are_refused() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        assert_eq!(server.get("/_matrix/client/v3/sync").await.0, 401);
        for query in ["since=nonsense", "timeout=soon", "filter=%7B", "filter=99", "full_state=maybe"] {
            let answer = alice.request("GET", &format!("/_matrix/client/v3/sync?{query}")).send().await;
            assert_eq!(answer.refusal(), (400, "M_INVALID_PARAM".to_owned()), "{query}");
        }
        let (status, _) = alice.post(&room_path("!none:hearth.test", "receipt/m.read/$none"), &json!({})).await;
        assert!(matches!(status, 403 | 404));
    })
    .await;
}
