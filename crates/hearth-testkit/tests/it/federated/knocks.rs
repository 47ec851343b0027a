//! Knocks at rooms of other servers.

use hearth_testkit::{json, on_each_backend_together};

use super::*;

const VERSIONS: [&str; 4] = ["7", "10", "11", "12"];

/// A room where one knocks.
async fn knockable(user: &User, version: &str) -> String {
    let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
    let body = json!({ "preset": "private_chat", "room_version": version, "name": "Hall", "initial_state": [rules] });
    create_room(user, body).await
}

async fn knock(user: &User, room: &str, via: &str) -> (u16, Value) {
    let path = format!("/_matrix/client/v3/knock/{}?{via}", encoded(room));
    user.post(&path, &json!({ "reason": "let me in" })).await
}

async fn must_knock(user: &User, room: &str, server: &str) {
    let (status, answer) = knock(user, room, &format!("via={}", encoded(server))).await;
    assert_eq!((status, &answer["room_id"]), (200, &json!(room)), "{answer}");
}

// endpoint: GET /_matrix/federation/v1/make_knock/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}
// endpoint: POST /_matrix/client/v3/knock/{roomIdOrAlias}
#[tokio::test]
async fn a_knock_is_heard_answered_and_leads_in() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[2].user("carol").await;
        for version in VERSIONS {
            let room = knockable(&alice, version).await;
            assert_eq!(alice.post(&room_path(&room, "invite"), &json!({ "user_id": carol.user_id })).await.0, 200);
            must_join_via(&carol, &room, &federation.name(0)).await;
            let since = token(&sync(&bob, None).await);
            must_knock(&bob, &room, &federation.name(0)).await;
            let told = sync_waiting(&bob, &since).await;
            let events = told["rooms"]["knock"][&room]["knock_state"]["events"].to_string();
            for part in ["Hall", "m.room.create", "m.room.join_rules", "let me in"] {
                assert!(events.contains(part), "version {version}: {part} in {told}");
            }
            assert_eq!(membership(&alice, &room, &bob.user_id).await, "knock");
            until("carol hears it", async || membership(&carol, &room, &bob.user_id).await == "knock").await;
            let old_name = format!("server_name={}", encoded(&federation.name(0)));
            assert_eq!(knock(&bob, &room, &old_name).await.0, 200, "once more");

            // Somebody else of the room lets him in.
            let levels = room_path(&room, "state/m.room.power_levels/");
            let (_, mut content) = alice.get(&levels).await;
            content["users"][&carol.user_id] = json!(50);
            assert_eq!(alice.put(&levels, &content).await.0, 200);
            // What happens at once on two servers may undo each other.
            until("the same state", async || state(&alice, &room).await == state(&carol, &room).await).await;
            let invite = json!({ "user_id": bob.user_id });
            assert_eq!(carol.post(&room_path(&room, "invite"), &invite).await.0, 200);
            let told = sync_waiting(&bob, &token(&told)).await;
            assert!(told["rooms"]["invite"][&room].is_object(), "version {version}: {told}");
            assert!(sync(&bob, None).await["rooms"]["knock"][&room].is_null());
            let (status, answer) = knock(&bob, &room, &old_name).await;
            assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "he is invited: {answer}");
            let (status, answer) = bob.post(&room_path(&room, "join"), &json!({})).await;
            assert_eq!(status, 200, "version {version}: {answer}");
            until("the same state", async || state(&alice, &room).await == state(&bob, &room).await).await;
            assert_eq!(knock(&bob, &room, &old_name).await.0, 403, "he is in");
        }
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/make_leave/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}
#[tokio::test]
async fn a_knock_is_taken_back() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        for version in VERSIONS {
            let room = knockable(&alice, version).await;
            must_knock(&bob, &room, &federation.name(0)).await;
            let since = token(&sync(&bob, None).await);
            let (status, answer) = bob.post(&room_path(&room, "leave"), &json!({})).await;
            assert_eq!(status, 200, "version {version}: {answer}");
            assert_eq!(membership(&alice, &room, &bob.user_id).await, "leave");
            let left = hearth_testkit::until_some("his leave is shown", async || {
                let told = sync(&bob, Some(&since)).await;
                told["rooms"]["leave"][&room]["timeline"]["events"].get(0).cloned()
            })
            .await;
            assert_eq!((&left["content"]["membership"], &left["sender"]), (&json!("leave"), &json!(bob.user_id)));
            must_knock(&bob, &room, &federation.name(0)).await;
            assert!(sync(&bob, None).await["rooms"]["knock"][&room].is_object());
        }
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/kick
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/ban
#[tokio::test]
async fn a_knock_is_refused_by_kick_and_by_ban() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        for version in VERSIONS {
            let room = knockable(&alice, version).await;
            for action in ["kick", "ban"] {
                must_knock(&bob, &room, &federation.name(0)).await;
                let since = token(&sync(&bob, None).await);
                let refusal = json!({ "user_id": bob.user_id, "reason": "no" });
                assert_eq!(alice.post(&room_path(&room, action), &refusal).await.0, 200);
                let told = sync_waiting(&bob, &since).await;
                let left = &told["rooms"]["leave"][&room]["timeline"]["events"][0];
                assert_eq!(left["content"]["reason"], "no", "version {version}, {action}: {told}");
            }
            let (status, answer) = knock(&bob, &room, &format!("via={}", encoded(&federation.name(0)))).await;
            assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "he is banned: {answer}");
        }
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/knock/{roomIdOrAlias}
// endpoint: GET /_matrix/federation/v1/make_knock/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}
#[tokio::test]
async fn rooms_that_hear_no_knock_say_so() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let via = format!("via={}", encoded(&federation.name(0)));
        let shut = create_room(&alice, json!({ "preset": "private_chat" })).await;
        let old = create_room(&alice, json!({ "preset": "private_chat", "room_version": "1" })).await;
        for room in [&shut, &old] {
            let (status, answer) = knock(&bob, room, &via).await;
            assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        }
        let (status, answer) = knock(&bob, "!nowhere", &via).await;
        assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");
        let (status, answer) = knock(&bob, "!nowhere", "").await;
        assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");

        let rules = json!({ "type": "m.room.join_rules", "content": { "join_rule": "knock" } });
        let body = json!({ "preset": "private_chat", "room_alias_name": "door", "initial_state": [rules] });
        let room = create_room(&alice, body).await;
        let alias = format!("#door:{}", federation.name(0));
        let (status, answer) = knock(&bob, &alias, "").await;
        assert_eq!((status, &answer["room_id"]), (200, &json!(room)), "an alias leads there: {answer}");

        let make = |user: &str, ver: &str| {
            format!("/_matrix/federation/v1/make_knock/{}/{}?ver={ver}", encoded(&room), encoded(user))
        };
        let (status, answer) = ask(&federation, 1, 0, "GET", &make(&bob.user_id, "7"), None).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!("M_INCOMPATIBLE_ROOM_VERSION")), "{answer}");
        assert_eq!(answer["room_version"], "12");
        let (status, answer) = ask(&federation, 1, 0, "GET", &make(&alice.user_id, "12"), None).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        let (status, made) = ask(&federation, 1, 0, "GET", &make(&bob.user_id, "12"), None).await;
        assert_eq!((status, &made["event"]["content"]["membership"]), (200, &json!("knock")), "{made}");
        let send = format!("/_matrix/federation/v1/send_knock/{}/$some", encoded(&room));
        let (status, answer) = ask(&federation, 1, 0, "PUT", &send, Some(made["event"].clone())).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!("M_BAD_JSON")), "unsigned: {answer}");
        let join = bob.get(&room_path(&room, "joined_members")).await;
        assert_eq!(join.0, 403);
        federation.links[0].cut();
        let carol = federation.servers[1].user("carol").await;
        let (status, answer) = knock(&carol, &room, &via).await;
        assert_eq!((status, &answer["errcode"]), (502, &json!("M_UNKNOWN")), "{answer}");
    })
    .await;
}
