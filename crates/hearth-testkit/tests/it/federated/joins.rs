//! Coming into rooms of other servers.

use hearth_testkit::{Federation, json, on_each_backend_together};

use super::*;

const MAKE_JOIN: &str = "/_matrix/federation/v1/make_join";

// endpoint: GET /_matrix/federation/v1/make_join/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}
// endpoint: POST /_matrix/client/v3/join/{roomIdOrAlias}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/join
#[tokio::test]
async fn a_room_of_another_server_is_joined() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[1].user("carol").await;
        for version in ["1", "3", "6", "9", "10", "11", "12"] {
            let room = create_room(
                &alice,
                json!({ "preset": "public_chat", "room_version": version, "name": "Shared", "topic": version }),
            )
            .await;
            let said = send(&alice, &room, "before").await;
            must_join_via(&bob, &room, &federation.name(0)).await;
            assert_eq!(membership(&alice, &room, &bob.user_id).await, "join");
            assert_eq!(state(&alice, &room).await, state(&bob, &room).await);
            let (_, members) = bob.get(&room_path(&room, "joined_members")).await;
            assert_eq!(members["joined"].as_object().unwrap().len(), 2);
            assert_eq!(bob.get(&room_path(&room, "state/m.room.name/")).await.1["name"], "Shared");
            // History from before is fetched when it is read.
            let (_, page) = bob.get(&room_path(&room, "messages?dir=b&limit=50")).await;
            assert!(page["chunk"].as_array().unwrap().iter().any(|event| event["event_id"] == said.as_str()), "{page}");
            // The next one finds the room here.
            let (status, answer) = carol.post(&room_path(&room, "join"), &json!({})).await;
            assert_eq!(status, 200, "{answer}");
        }
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/join/{roomIdOrAlias}
#[tokio::test]
async fn another_server_is_tried_when_one_does_not_answer() {
    let federation = Federation::start(3).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let carol = federation.servers[2].user("carol").await;
    let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": "12" })).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    // The third server knows the first one's key.
    let path = format!("/_matrix/federation/v1/query/profile?user_id={}", encoded(&carol.user_id));
    assert_eq!(ask(&federation, 0, 2, "GET", &path, None).await.0, 200);
    federation.links[0].cut();
    let (status, answer) = join_via(&carol, &room, &[federation.name(0)]).await;
    assert_eq!((status, &answer["errcode"]), (502, &json!("M_UNKNOWN")), "{answer}");
    let (status, answer) = join_via(&carol, &room, &[federation.name(0), federation.name(1)]).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(membership(&bob, &room, &carol.user_id).await, "join");
    // Who left and names a server is not led past it.
    let (status, _) = carol.post(&room_path(&room, "leave"), &json!({})).await;
    assert_eq!(status, 200);
    let (status, answer) = join_via(&carol, &room, &[federation.name(0)]).await;
    assert_eq!(status, 502, "{answer}");
    // Without a server there is no way in.
    let (status, answer) = join_via(&carol, "!nowhere", &[]).await;
    assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");
    let (status, answer) = carol.post("/_matrix/client/v3/join/!a:b?via=no%20name", &json!({})).await;
    assert_eq!((status, &answer["errcode"]), (400, &json!("M_INVALID_PARAM")), "{answer}");
}

// endpoint: POST /_matrix/client/v3/join/{roomIdOrAlias}
#[tokio::test]
async fn a_server_that_failed_lately_is_asked_for_a_person() {
    let federation = Federation::start(3).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let there = &federation.servers[2];
    let (carol, dave) = (there.user("carol").await, there.user("dave").await);
    let (room, other) = (public_room(&alice).await, public_room(&alice).await);
    must_join_via(&bob, &room, &federation.name(0)).await;
    // All of the room is there, so that he can let others in; and the third server knows the first one's key.
    assert_eq!(bob.get(&room_path(&room, "members")).await.0, 200);
    let path = format!("/_matrix/federation/v1/query/profile?user_id={}", encoded(&carol.user_id));
    assert_eq!(ask(&federation, 0, 2, "GET", &path, None).await.0, 200);
    federation.links[0].cut();
    assert_eq!(join_via(&carol, &other, &[federation.name(0)]).await.0, 502);
    // Whoever can be reached lets her in.
    let (status, answer) = join_via(&carol, &room, &[federation.name(0), federation.name(1)]).await;
    assert_eq!(status, 200, "{answer}");
    // The clock stands still, so the wait is not over; but he who wants to come in should not bear that.
    federation.links[0].heal();
    must_join_via(&dave, &other, &federation.name(0)).await;
    assert_eq!(membership(&alice, &other, &dave.user_id).await, "join");
}

// endpoint: POST /_matrix/client/v3/join/{roomIdOrAlias}
// endpoint: GET /_matrix/client/v3/directory/room/{roomAlias}
// endpoint: GET /_matrix/federation/v1/query/directory
#[tokio::test]
async fn an_alias_leads_to_another_servers_room() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = create_room(&alice, json!({ "preset": "public_chat", "room_alias_name": "here" })).await;
        let alias = format!("#here:{}", federation.name(0));
        let path = format!("/_matrix/client/v3/directory/room/{}", encoded(&alias));
        let (status, answer) = bob.get(&path).await;
        assert_eq!((status, &answer["room_id"]), (200, &json!(room)), "{answer}");
        assert_eq!(answer["servers"], json!([federation.name(0)]));
        let (status, answer) = bob.post(&format!("/_matrix/client/v3/join/{}", encoded(&alias)), &json!({})).await;
        assert_eq!((status, &answer["room_id"]), (200, &json!(room)), "{answer}");
        let nowhere = format!("#nowhere:{}", federation.name(0));
        let (status, answer) = bob.get(&format!("/_matrix/client/v3/directory/room/{}", encoded(&nowhere))).await;
        assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")));
        let path = format!("/_matrix/federation/v1/query/directory?room_alias={}", encoded("#a:other.test"));
        assert_eq!(ask(&federation, 1, 0, "GET", &path, None).await.0, 400);
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/join/{roomIdOrAlias}
#[tokio::test]
async fn refusals_of_the_other_server_are_told() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = create_room(&alice, json!({ "preset": "private_chat" })).await;
        let (status, answer) = join_via(&bob, &room, &[federation.name(0)]).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        let (status, answer) = join_via(&bob, "!unknown", &[federation.name(0)]).await;
        assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");
        // Who was thrown out is out.
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let (status, _) = alice.post(&room_path(&room, "ban"), &json!({ "user_id": bob.user_id })).await;
        assert_eq!(status, 200);
        let path = format!("{MAKE_JOIN}/{}/{}", encoded(&room), encoded(&bob.user_id));
        let (status, answer) = ask(&federation, 1, 0, "GET", &format!("{path}?ver=12"), None).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/make_join/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}
#[tokio::test]
async fn the_resident_lets_members_of_a_room_into_another() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let gate = public_room(&alice).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": gate }]);
        let rules = json!({ "join_rule": "restricted", "allow": allow });
        let rules = json!({ "type": "m.room.join_rules", "content": rules });
        for version in ["8", "10", "12"] {
            let room = create_room(
                &alice,
                json!({ "preset": "private_chat", "room_version": version, "initial_state": [rules] }),
            )
            .await;
            let (status, answer) = join_via(&bob, &room, &[federation.name(0)]).await;
            if membership(&bob, &gate, &bob.user_id).await != "join" {
                assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
                must_join_via(&bob, &gate, &federation.name(0)).await;
                must_join_via(&bob, &room, &federation.name(0)).await;
            } else {
                assert_eq!(status, 200, "{answer}");
            }
            let member = format!("state/m.room.member/{}", encoded(&bob.user_id));
            let (_, content) = alice.get(&room_path(&room, &member)).await;
            assert_eq!(content["join_authorised_via_users_server"], alice.user_id);
            assert_eq!(state(&alice, &room).await, state(&bob, &room).await);
        }
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/make_join/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v1/send_join/{roomId}/{eventId}
// endpoint: PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}
#[tokio::test]
async fn a_join_must_be_what_it_says() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        let make = |user: &str, ver: &str| format!("{MAKE_JOIN}/{}/{}?ver={ver}", encoded(&room), encoded(user));
        let (status, made) = ask(&federation, 1, 0, "GET", &make(&bob.user_id, "12"), None).await;
        assert_eq!((status, &made["room_version"]), (200, &json!("12")), "{made}");
        assert_eq!(made["event"]["state_key"], json!(bob.user_id));
        assert!(made["event"].get("signatures").is_none());
        let (status, answer) = ask(&federation, 1, 0, "GET", &make(&bob.user_id, "9"), None).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!("M_INCOMPATIBLE_ROOM_VERSION")));
        assert_eq!(answer["room_version"], "12");
        let (status, answer) = ask(&federation, 1, 0, "GET", &make("@bob:other.test", "12"), None).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
        // Unsigned, for another room, of another sender, with another id: nothing of it comes in.
        for version in ["v1", "v2"] {
            let path = format!("/_matrix/federation/{version}/send_join/{}/$some", encoded(&room));
            let (status, answer) = ask(&federation, 1, 0, "PUT", &path, Some(made["event"].clone())).await;
            assert_eq!((status, &answer["errcode"]), (400, &json!("M_BAD_JSON")), "{answer}");
        }
        assert_eq!(membership(&alice, &room, &bob.user_id).await, Value::Null);
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/join/{roomIdOrAlias}
#[tokio::test]
async fn who_left_the_room_that_let_him_in_does_not_come_in_again() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let gate = public_room(&alice).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": gate }]);
        let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "restricted", "allow": allow } });
        let room = create_room(&alice, json!({ "preset": "private_chat", "initial_state": [rules] })).await;
        for room in [&gate, &room] {
            must_join_via(&bob, room, &federation.name(0)).await;
        }
        for room in [&room, &gate] {
            assert_eq!(bob.post(&room_path(room, "leave"), &json!({})).await.0, 200);
        }
        for room in [&room, &gate] {
            until("he has left", async || membership(&alice, room, &bob.user_id).await == "leave").await;
        }
        let (status, answer) = join_via(&bob, &room, &[federation.name(0)]).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        assert_eq!(membership(&alice, &room, &bob.user_id).await, "leave");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/rooms/{roomId}/messages
#[tokio::test]
async fn a_long_page_of_history_is_fetched_whole() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    for n in 0..250 {
        send(&alice, &room, &format!("message {n}")).await;
    }
    must_join_via(&bob, &room, &federation.name(0)).await;
    let (status, page) = bob.get(&room_path(&room, "messages?dir=b&limit=300")).await;
    assert_eq!(status, 200, "{page}");
    let bodies = page["chunk"].as_array().unwrap().iter().filter_map(|event| event["content"]["body"].as_str());
    let expected: Vec<String> = (0..250).rev().map(|n| format!("message {n}")).collect();
    assert_eq!(bodies.collect::<Vec<_>>(), expected);
}

// endpoint: GET /_matrix/client/v3/rooms/{roomId}/messages
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}
#[tokio::test]
async fn history_that_is_fetched_shows_who_may_see_it() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        for (visibility, seen) in [("invited", vec!["invited", "joined"]), ("joined", vec!["joined"])] {
            let content = json!({ "history_visibility": visibility });
            let state = json!([{ "type": "m.room.history_visibility", "content": content }]);
            let room = create_room(&alice, json!({ "preset": "private_chat", "initial_state": state })).await;
            let mut said = vec![("before", send(&alice, &room, "before").await)];
            let invite = json!({ "user_id": bob.user_id });
            assert_eq!(alice.post(&room_path(&room, "invite"), &invite).await.0, 200);
            said.push(("invited", send(&alice, &room, "invited").await));
            must_join_via(&bob, &room, &federation.name(0)).await;
            said.push(("joined", send(&alice, &room, "joined").await));
            arrives(&bob, &room, &said[2].1).await;
            let (_, page) = bob.get(&room_path(&room, "messages?dir=b&limit=50")).await;
            let bodies = page["chunk"].as_array().unwrap().iter().rev().filter_map(|it| it["content"]["body"].as_str());
            assert_eq!(bodies.collect::<Vec<_>>(), seen, "{visibility}: {page}");
            for (name, event_id) in said {
                assert_eq!(event(&bob, &room, &event_id).await.is_some(), seen.contains(&name), "{visibility}: {name}");
            }
        }
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/joined_members
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/members
#[tokio::test]
async fn a_room_that_came_without_its_members_gets_them_over_a_restart() {
    on_each_backend_together(3, async |mut federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[2].user("carol").await;
        let room = create_room(&alice, json!({ "preset": "public_chat", "name": "Shared" })).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        until("alice sees bob", async || membership(&alice, &room, &bob.user_id).await == "join").await;
        must_join_via(&carol, &room, &federation.name(0)).await;
        // Whether the members were told by now or not: nobody tells them from here on.
        federation.links[0].cut();
        federation.links[1].cut();
        let said = send(&carol, &room, "at once").await;
        federation.restart(2).await;
        let (carol, missing) = (federation.servers[2].login(&carol).await, "@nobody:elsewhere.test");
        assert!(event(&carol, &room, &said).await.is_some());
        federation.links[0].heal();
        federation.links[1].heal();
        // Servers that did not answer are left alone for a while.
        federation.time.advance(3_600_000);
        until("the room is there", async || sync(&carol, None).await["rooms"]["join"][&room].is_object()).await;
        let (_, members) = carol.get(&room_path(&room, "joined_members")).await;
        assert_eq!(members["joined"].as_object().unwrap().len(), 3, "{members}");
        let (_, members) = carol.get(&room_path(&room, "members")).await;
        assert_eq!(members["chunk"].as_array().unwrap().len(), 3, "{members}");
        let path = room_path(&room, &format!("state/m.room.member/{}", encoded(missing)));
        assert_eq!(carol.get(&path).await.0, 404);
        arrives(&alice, &room, &said).await;
        arrives(&bob, &room, &said).await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}
#[tokio::test]
async fn who_asks_for_it_is_told_of_a_room_without_its_members() {
    let federation = Federation::start(2).await;
    let (alice, ada) = (federation.servers[0].user("alice").await, federation.servers[0].user("ada").await);
    let named = create_room(&alice, json!({ "preset": "public_chat", "name": "Shared" })).await;
    let nameless = public_room(&alice).await;
    for (room, is_named) in [(&named, true), (&nameless, false)] {
        assert_eq!(ada.post(&room_path(room, "join"), &json!({})).await.0, 200);
        for omit in [false, true] {
            let bob = federation.servers[1].user(&format!("bob-{is_named}-{omit}")).await;
            let (event_id, join) = joining(&federation, 1, 0, room, &bob.user_id).await;
            let path = format!(
                "/_matrix/federation/v2/send_join/{}/{}?omit_members={omit}",
                encoded(room),
                encoded(&event_id)
            );
            let (status, answer) = ask(&federation, 1, 0, "PUT", &path, Some(join)).await;
            assert_eq!((status, &answer["members_omitted"]), (200, &json!(omit)), "{answer}");
            assert!(answer["servers_in_room"].as_array().unwrap().contains(&json!(federation.name(0))), "{answer}");
            let list = |field: &str| answer[field].as_array().expect("a list").clone();
            let (state, chain) = (list("state"), list("auth_chain"));
            let is_member = |event: &&Value| event["type"] == "m.room.member";
            let members = state.iter().filter(is_member).count();
            // A room without a name is called by some of them.
            assert_eq!(members > 0, !omit || !is_named, "{answer}");
            assert!(state.iter().any(|event| event["type"] == "m.room.create"), "{answer}");
            if omit {
                assert!(!chain.iter().any(|event| state.contains(event)), "{answer}");
                let creator = |event: &Value| event["state_key"] == alice.user_id.as_str();
                assert!(chain.iter().chain(&state).any(creator), "what allows the state comes along: {answer}");
            }
        }
    }
}

/// A join of a user of one server as another drafts it, completed and signed: its id and itself.
async fn joining(federation: &Federation, from: usize, to: usize, room: &str, user: &str) -> (String, Value) {
    let path = format!("{MAKE_JOIN}/{}/{}?ver=12", encoded(room), encoded(user));
    let (status, made) = ask(federation, from, to, "GET", &path, None).await;
    assert_eq!(status, 200, "{made}");
    let server = &federation.servers[from];
    let key = std::fs::read_to_string(server.settings().data_dir.join("signing.key")).expect("the key");
    let with = hearth_matrix::Completion {
        content: &Default::default(),
        origin_server_ts: federation.time.now_ms(),
        server_name: &server.settings().server_name,
        key: &hearth_matrix::SigningKey::from_file_format(&key).expect("a key"),
        opaque: "",
    };
    let rules = hearth_matrix::rules(&hearth_matrix::ruma::RoomVersionId::V12).expect("known");
    let join = hearth_matrix::complete(&made["event"].to_string(), &with, rules).expect("a join");
    (join.event_id.to_string(), serde_json::from_str(&join.json).expect("JSON"))
}
