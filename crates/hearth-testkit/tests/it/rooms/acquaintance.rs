//! Who may invite whom, and which rooms two users share.

use hearth_testkit::{User, Value, json, on_each_backend};

use super::create_room;

const INVITES: &str = "m.invite_permission_config";

async fn set_account_data(user: &User, kind: &str, content: Value) {
    let path = format!("/_matrix/client/v3/user/{}/account_data/{kind}", user.user_id);
    assert_eq!(user.put(&path, &content).await.0, 200);
}

async fn invites(user: &User) -> Vec<String> {
    let (_, answer) = user.get("/_matrix/client/v3/sync").await;
    answer["rooms"]["invite"].as_object().into_iter().flatten().map(|(room, _)| room.clone()).collect()
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/invite
// endpoint: POST /_matrix/client/v3/createRoom
// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
#[tokio::test]
async fn who_blocks_invites_is_not_invited() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let before = create_room(&alice, json!({ "invite": [bob.user_id] })).await;
        assert_eq!(invites(&bob).await, std::slice::from_ref(&before));
        set_account_data(&bob, INVITES, json!({ "default_action": "block" })).await;
        assert!(invites(&bob).await.is_empty(), "nor is he told of older invites");

        let blocked = |(status, answer): (u16, Value)| {
            assert_eq!((status, answer["errcode"].as_str()), (403, Some("M_INVITE_BLOCKED")), "{answer}");
        };
        let room = create_room(&alice, json!({})).await;
        let path = |rest: &str| format!("/_matrix/client/v3/rooms/{room}/{rest}");
        blocked(alice.post(&path("invite"), &json!({ "user_id": bob.user_id })).await);
        blocked(alice.post("/_matrix/client/v3/createRoom", &json!({ "invite": [bob.user_id] })).await);
        let state = path(&format!("state/m.room.member/{}", bob.user_id));
        blocked(alice.put(&state, &json!({ "membership": "invite" })).await);

        set_account_data(&bob, INVITES, json!({})).await;
        let (status, answer) = alice.post(&path("invite"), &json!({ "user_id": bob.user_id })).await;
        assert_eq!(status, 200, "{answer}");
        let mut all = [before, room];
        all.sort();
        let mut told = invites(&bob).await;
        told.sort();
        assert_eq!(told, all);
    })
    .await;
}

// endpoint: GET /_matrix/client/v1/mutual_rooms
#[tokio::test]
async fn two_users_learn_which_rooms_they_share() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let path = |user_id: &str| format!("/_matrix/client/v1/mutual_rooms?user_id={user_id}");
        let mut shared = Vec::new();
        for n in 0..102 {
            let room = create_room(&alice, json!({ "preset": "public_chat" })).await;
            if n != 1 {
                let (status, answer) = bob.post(&format!("/_matrix/client/v3/join/{room}"), &json!({})).await;
                assert_eq!(status, 200, "{answer}");
                shared.push(room);
            }
        }
        let (_, first) = bob.get(&path(&alice.user_id)).await;
        assert_eq!(first["count"], 101, "{first}");
        let from = first["next_batch"].as_str().unwrap();
        let (_, second) = bob.get(&format!("{}&from={from}", path(&alice.user_id))).await;
        assert!(second.get("next_batch").is_none(), "{second}");
        let mut told: Vec<String> = Vec::new();
        for page in [&first, &second] {
            told.extend(page["joined"].as_array().unwrap().iter().map(|room| room.as_str().unwrap().to_owned()));
        }
        assert_eq!(told, shared, "each once");

        let (_, nobody) = bob.get(&path("@nobody:hearth.test")).await;
        assert_eq!(nobody, json!({ "joined": [], "count": 0 }));
        let wrong = [path(&bob.user_id), path("alice"), "/_matrix/client/v1/mutual_rooms".to_owned()];
        for path in wrong.iter().chain([&format!("{}&from=x", path(&alice.user_id))]) {
            let (status, answer) = bob.get(path).await;
            assert_eq!((status, answer["errcode"].as_str()), (400, Some("M_INVALID_PARAM")), "{path}");
        }
    })
    .await;
}
