//! Join, leave, invite, kick, ban, unban, knock, forget.

use hearth_testkit::{json, on_each_backend};

use super::{act, create_room, fine, forbidden, send, state};

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/join
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/invite
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/leave
#[tokio::test]
async fn only_who_is_invited_may_join_a_private_room() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let room = create_room(&alice, json!({})).await;
        assert_eq!(act(&bob, &room, "join", json!({})).await, forbidden());
        assert_eq!(act(&bob, &room, "invite", json!({ "user_id": carol.user_id })).await, forbidden());
        assert_eq!(act(&alice, &room, "invite", json!({ "user_id": bob.user_id, "reason": "tea" })).await, fine());
        assert_eq!(state(&alice, &room, "m.room.member", &bob.user_id).await.1["reason"], "tea");
        assert_eq!(act(&bob, &room, "join", json!({})).await, fine());
        assert_eq!(act(&bob, &room, "join", json!({})).await, fine(), "joined already");
        assert_eq!(act(&alice, &room, "invite", json!({ "user_id": bob.user_id })).await, forbidden());
        assert_eq!(act(&bob, &room, "leave", json!({ "reason": "late" })).await, fine());
        assert_eq!(act(&bob, &room, "leave", json!({})).await, fine(), "left already");
        assert_eq!(act(&bob, &room, "join", json!({})).await, forbidden());
        assert_eq!(act(&carol, &room, "leave", json!({})).await, forbidden(), "never there");
        assert_eq!(act(&alice, &room, "invite", json!({})).await, (400, "M_MISSING_PARAM".into()));
        assert_eq!(act(&alice, "!none:hearth.test", "join", json!({})).await, (404, "M_NOT_FOUND".into()));
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/kick
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/ban
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/unban
#[tokio::test]
async fn power_decides_who_shows_whom_out() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let room = create_room(&alice, json!({ "preset": "public_chat" })).await;
        let whom = |user: &hearth_testkit::User| json!({ "user_id": user.user_id });
        for user in [&bob, &carol] {
            assert_eq!(act(user, &room, "join", json!({})).await, fine());
        }
        assert_eq!(act(&bob, &room, "kick", whom(&carol)).await, forbidden());
        assert_eq!(act(&bob, &room, "ban", whom(&alice)).await, forbidden());
        assert_eq!(act(&alice, &room, "kick", whom(&carol)).await, fine());
        assert_eq!(act(&alice, &room, "kick", whom(&carol)).await, forbidden(), "gone already");
        assert_eq!(act(&carol, &room, "join", json!({})).await, fine());
        assert_eq!(act(&alice, &room, "ban", whom(&carol)).await, fine());
        assert_eq!(act(&carol, &room, "join", json!({})).await, forbidden());
        assert_eq!(send(&carol, &room, "1", "hi").await.0, 403);
        assert_eq!(act(&bob, &room, "unban", whom(&carol)).await, forbidden());
        assert_eq!(act(&alice, &room, "unban", whom(&carol)).await, fine());
        assert_eq!(act(&alice, &room, "unban", whom(&carol)).await, forbidden(), "not banned");
        assert_eq!(act(&carol, &room, "join", json!({})).await, fine());
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/knock/{roomIdOrAlias}
#[tokio::test]
async fn who_knocks_is_let_in_or_not() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let closed = create_room(&alice, json!({})).await;
        let (status, _) = bob.post(&format!("/_matrix/client/v3/knock/{closed}"), &json!({})).await;
        assert_eq!(status, 403);
        let rule = json!([{ "type": "m.room.join_rules", "content": { "join_rule": "knock" } }]);
        let room = create_room(&alice, json!({ "initial_state": rule, "room_version": "7" })).await;
        let (status, answer) = bob.post(&format!("/_matrix/client/v3/knock/{room}"), &json!({ "reason": "hi" })).await;
        assert_eq!((status, answer["room_id"].as_str()), (200, Some(&*room)));
        assert_eq!(state(&alice, &room, "m.room.member", &bob.user_id).await.1["membership"], "knock");
        assert_eq!(act(&bob, &room, "join", json!({})).await, forbidden());
        assert_eq!(act(&alice, &room, "invite", json!({ "user_id": bob.user_id })).await, fine());
        assert_eq!(act(&bob, &room, "join", json!({})).await, fine());
    })
    .await;
}

#[tokio::test]
async fn a_restricted_room_lets_in_members_of_another() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let club = create_room(&alice, json!({ "preset": "public_chat" })).await;
        for version in ["8", "10", "12"] {
            let rule =
                json!({ "join_rule": "restricted", "allow": [{ "type": "m.room_membership", "room_id": club }] });
            let rule = json!([{ "type": "m.room.join_rules", "content": rule }]);
            let room = create_room(&alice, json!({ "initial_state": rule, "room_version": version })).await;
            assert_eq!(act(&carol, &room, "join", json!({})).await, forbidden(), "version {version}");
            assert_eq!(act(&bob, &club, "join", json!({})).await, fine());
            assert_eq!(act(&bob, &room, "join", json!({})).await, fine(), "version {version}");
            let member = state(&alice, &room, "m.room.member", &bob.user_id).await.1;
            assert_eq!(member["join_authorised_via_users_server"], json!(alice.user_id), "version {version}");
            // Once those who could let others in are gone, nobody can.
            assert_eq!(act(&alice, &room, "leave", json!({})).await, fine());
            assert_eq!(act(&carol, &club, "join", json!({})).await, fine());
            let refused = act(&carol, &room, "join", json!({})).await;
            assert!(refused == fine() || refused == (400, "M_UNABLE_TO_GRANT_JOIN".into()), "{refused:?}");
            assert_eq!(act(&carol, &club, "leave", json!({})).await, fine());
        }
    })
    .await;
}

#[tokio::test]
async fn a_knock_restricted_room_lets_in_members_and_hears_the_others() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let club = create_room(&alice, json!({ "preset": "public_chat" })).await;
        let allow = json!([{ "type": "m.room_membership", "room_id": club }]);
        let knock = async |user: &hearth_testkit::User, room: &str| {
            let (status, answer) = user.post(&format!("/_matrix/client/v3/knock/{room}"), &json!({})).await;
            (status, answer["errcode"].as_str().unwrap_or_default().to_owned())
        };
        assert_eq!(act(&bob, &club, "join", json!({})).await, fine());
        for version in ["10", "11", "12"] {
            let rule = json!({ "join_rule": "knock_restricted", "allow": allow });
            let rule = json!([{ "type": "m.room.join_rules", "content": rule }]);
            let room = create_room(&alice, json!({ "initial_state": rule, "room_version": version })).await;
            assert_eq!(act(&carol, &room, "join", json!({})).await, forbidden(), "version {version}");
            assert_eq!(act(&bob, &room, "join", json!({})).await, fine(), "version {version}");
            assert_eq!(knock(&bob, &room).await, forbidden(), "in the room already");
            assert_eq!(knock(&carol, &room).await, fine(), "version {version}");
            assert_eq!(knock(&carol, &room).await, fine(), "knocked already");
            assert_eq!(act(&alice, &room, "kick", json!({ "user_id": carol.user_id })).await, fine(), "not today");
            assert_eq!(knock(&carol, &room).await, fine(), "and again");
            assert_eq!(act(&carol, &room, "leave", json!({})).await, fine(), "taken back");
            assert_eq!(act(&alice, &room, "ban", json!({ "user_id": carol.user_id })).await, fine());
            assert_eq!(knock(&carol, &room).await, forbidden(), "banned");
        }
    })
    .await;
}

#[tokio::test]
async fn a_room_that_is_hidden_is_like_one_that_is_not_there() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let hidden = create_room(&alice, json!({})).await;
        for room in [&*hidden, "!none:hearth.test"] {
            for action in ["leave", "invite", "kick", "ban", "unban"] {
                let refused = act(&bob, room, action, json!({ "user_id": alice.user_id })).await;
                assert_eq!(refused, forbidden(), "{action} {room}");
            }
            for path in ["send/m.room.message/1", "state/m.room.topic", "redact/%24a/2", "typing/@bob:hearth.test"] {
                let (status, answer) =
                    bob.put(&format!("/_matrix/client/v3/rooms/{room}/{path}"), &json!({ "typing": true })).await;
                assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_FORBIDDEN")), "{path} {room}");
            }
        }
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/join/{roomIdOrAlias}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/forget
// endpoint: GET /_matrix/client/v3/joined_rooms
#[tokio::test]
async fn rooms_are_found_by_alias_left_and_forgotten() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = create_room(&alice, json!({ "preset": "public_chat", "room_alias_name": "hall" })).await;
        let alias = format!("%23hall:{}", server.name());
        let (status, answer) = bob.post(&format!("/_matrix/client/v3/join/{alias}"), &json!({})).await;
        assert_eq!((status, answer["room_id"].as_str()), (200, Some(&*room)));
        assert_eq!(bob.get("/_matrix/client/v3/joined_rooms").await.1["joined_rooms"], json!([room]));
        assert_eq!(act(&bob, &room, "forget", json!({})).await, (400, "M_UNKNOWN".into()));
        assert_eq!(act(&bob, &room, "leave", json!({})).await, fine());
        assert_eq!(act(&bob, &room, "forget", json!({})).await, fine());
        assert_eq!(bob.get("/_matrix/client/v3/joined_rooms").await.1["joined_rooms"], json!([]));
        let answer = bob.request("POST", &format!("/_matrix/client/v3/join/{room}")).send().await;
        assert_eq!(answer.status, 200, "a body in which nothing is required may be missing");
        assert_eq!(act(&bob, &room, "leave", json!({})).await, fine());
        assert_eq!(act(&bob, &room, "join", json!({ "org.example": "more" })).await, fine());
        assert_eq!(state(&bob, &room, "m.room.member", &bob.user_id).await.1["org.example"], "more");
        let (status, _) = bob.post("/_matrix/client/v3/join/%23none:hearth.test", &json!({})).await;
        assert_eq!(status, 404);
        let (status, answer) = bob.post("/_matrix/client/v3/join/nonsense", &json!({})).await;
        assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_INVALID_PARAM")));
    })
    .await;
}
