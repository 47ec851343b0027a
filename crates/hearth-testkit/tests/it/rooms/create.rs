//! `POST /createRoom`.

use hearth_testkit::{json, on_each_backend};

use super::{create_room, state};

// endpoint: POST /_matrix/client/v3/createRoom
#[tokio::test]
async fn a_room_starts_as_it_was_asked_for() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let request = json!({
            "preset": "trusted_private_chat", "name": "Hall", "topic": "Warmth", "room_version": "10",
            "invite": [bob.user_id], "is_direct": true, "room_alias_name": "hall",
            "creation_content": { "m.federate": false, "org.example": 1 },
            "initial_state": [
                { "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } },
                { "type": "org.example.note", "state_key": "x", "content": { "n": 1 } },
            ],
            "power_level_content_override": { "events_default": 10 },
        });
        let room = create_room(&alice, request).await;
        let content = async |kind: &str, key: &str| state(&alice, &room, kind, key).await.1;

        let create = content("m.room.create", "").await;
        assert_eq!(create["room_version"], "10");
        assert_eq!((&create["m.federate"], &create["org.example"]), (&json!(false), &json!(1)));
        assert_eq!(create["creator"], json!(alice.user_id));
        assert_eq!(content("m.room.name", "").await["name"], "Hall");
        let topic = content("m.room.topic", "").await;
        assert_eq!(topic["topic"], "Warmth");
        assert_eq!(topic["m.topic"]["m.text"][0]["body"], "Warmth");
        assert_eq!(content("m.room.join_rules", "").await["join_rule"], "invite");
        assert_eq!(content("m.room.guest_access", "").await["guest_access"], "can_join");
        assert_eq!(content("m.room.history_visibility", "").await["history_visibility"], "joined");
        assert_eq!(content("org.example.note", "x").await["n"], 1);
        assert_eq!(content("m.room.canonical_alias", "").await["alias"], format!("#hall:{}", server.name()));
        let levels = content("m.room.power_levels", "").await;
        assert_eq!(levels["events_default"], 10);
        assert_eq!(levels["users"][&bob.user_id], 100);
        let invite = content("m.room.member", &bob.user_id).await;
        assert_eq!((&invite["membership"], &invite["is_direct"]), (&json!("invite"), &json!(true)));
    })
    .await;
}

#[tokio::test]
async fn in_version_12_creators_stand_above_all_levels() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let request = json!({ "preset": "trusted_private_chat", "invite": [bob.user_id], "room_version": "12" });
        let room = create_room(&alice, request).await;
        assert!(!room.contains(':'), "{room}");
        let create = state(&alice, &room, "m.room.create", "").await.1;
        assert_eq!(create["additional_creators"], json!([bob.user_id]));
        assert_eq!(create.get("creator"), None);
        let levels = state(&alice, &room, "m.room.power_levels", "").await.1;
        assert_eq!(levels["users"], json!({}));
        assert_eq!(levels["events"]["m.room.tombstone"], 150);
    })
    .await;
}

#[tokio::test]
async fn what_cannot_be_a_room_is_refused_and_leaves_nothing() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let cases = [
            (json!({ "room_version": "unheard-of" }), 400, "M_UNSUPPORTED_ROOM_VERSION"),
            (json!({ "preset": "palace" }), 400, "M_INVALID_PARAM"),
            (json!({ "room_alias_name": "a:b" }), 400, "M_INVALID_PARAM"),
            (json!({ "room_alias_name": "taken" }), 400, "M_ROOM_IN_USE"),
            (json!({ "invite": ["nobody"] }), 400, "M_BAD_JSON"),
            (json!({ "initial_state": [{ "state_key": "" }] }), 400, "M_BAD_JSON"),
            (json!({ "name": 5 }), 400, "M_BAD_JSON"),
            (json!({ "power_level_content_override": { "users": { "nobody": 1 } } }), 400, "M_INVALID_ROOM_STATE"),
        ];
        create_room(&alice, json!({ "room_alias_name": "taken" })).await;
        for (request, status, errcode) in cases {
            let (got, answer) = alice.post("/_matrix/client/v3/createRoom", &request).await;
            assert_eq!((got, answer["errcode"].as_str()), (status, Some(errcode)), "{request}: {answer}");
        }
        let (_, joined) = alice.get("/_matrix/client/v3/joined_rooms").await;
        assert_eq!(joined["joined_rooms"].as_array().map(Vec::len), Some(1));
    })
    .await;
}

#[tokio::test]
async fn a_preset_decides_who_comes_in_in_every_version() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        for version in 1..=12 {
            for (preset, join_rule, guests) in
                [("private_chat", "invite", json!("can_join")), ("public_chat", "public", json!(null))]
            {
                let request = json!({ "preset": preset, "room_version": version.to_string(), "invite": [bob.user_id] });
                let room = create_room(&alice, request).await;
                let content = async |kind: &str| state(&alice, &room, kind, "").await.1;
                assert_eq!(content("m.room.create").await["room_version"], json!(version.to_string()));
                assert_eq!(content("m.room.join_rules").await["join_rule"], join_rule, "version {version}");
                assert_eq!(content("m.room.guest_access").await["guest_access"], guests, "version {version}");
                assert_eq!(content("m.room.history_visibility").await["history_visibility"], "shared");
                assert_eq!(state(&alice, &room, "m.room.member", &bob.user_id).await.1["membership"], "invite");
            }
        }
        let open = create_room(&alice, json!({ "visibility": "public" })).await;
        assert_eq!(state(&alice, &open, "m.room.join_rules", "").await.1["join_rule"], "public");
    })
    .await;
}

#[tokio::test]
async fn creators_of_version_12_are_users_and_have_no_level() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let refused = async |request| {
            let (status, answer) = alice.post("/_matrix/client/v3/createRoom", &request).await;
            assert_eq!(status, 400, "{request}: {answer}");
        };
        for creators in [json!("nobody"), json!(["nobody"]), json!([1]), json!({})] {
            refused(json!({ "room_version": "12", "creation_content": { "additional_creators": creators } })).await;
        }
        for (creators, user) in [(json!([]), &alice), (json!([bob.user_id]), &bob)] {
            refused(json!({
                "room_version": "12", "creation_content": { "additional_creators": creators },
                "power_level_content_override": { "users": { &user.user_id: 100 } },
            }))
            .await;
        }
        let carol = format!("@carol:{}", server.name());
        let content = json!({ "additional_creators": [carol, bob.user_id], "predecessor": { "room_id": "!old:x.test" } });
        let room = create_room(
            &alice,
            json!({
                "room_version": "12", "preset": "trusted_private_chat", "invite": [bob.user_id], "creation_content": content,
            }),
        )
        .await;
        let create = state(&alice, &room, "m.room.create", "").await.1;
        assert_eq!(create["additional_creators"], json!([carol, bob.user_id]), "each once");
        assert_eq!(create["predecessor"]["room_id"], "!old:x.test");
    })
    .await;
}
