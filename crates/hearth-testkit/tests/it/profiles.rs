//! A changed profile in the user's rooms: many at once, others unharmed, and over a restart.

use hearth_store::{Noun, StringNum};
use hearth_testkit::{TestServer, User, Value, json, on_each_backend, until};

const ROOMS: usize = 40;

async fn room(user: &User) -> String {
    let (status, answer) = user.post("/_matrix/client/v3/createRoom", &json!({ "preset": "public_chat" })).await;
    assert_eq!(status, 200, "{answer}");
    answer["room_id"].as_str().unwrap().to_owned()
}

async fn name_in(user: &User, room: &str) -> Value {
    let path = format!("/_matrix/client/v3/rooms/{room}/state/m.room.member/{}", user.user_id);
    user.get(&path).await.1["displayname"].clone()
}

/// Until all rooms show a name.
async fn until_shown(user: &User, rooms: &[String], name: &str) {
    for room in rooms {
        until("the name shows", async || name_in(user, room).await == name).await;
    }
}

async fn set_name(user: &User, name: &str) {
    let path = format!("/_matrix/client/v3/profile/{}/displayname", user.user_id);
    assert_eq!(user.put(&path, &json!({ "displayname": name })).await.0, 200);
}

async fn unshown(server: &TestServer) -> usize {
    server.running().doors().store.read(|tx| tx.profiles().unshown(StringNum(0), 10)).await.unwrap().len()
}

// endpoint: PUT /_matrix/client/v3/profile/{userId}/{keyName}
#[tokio::test]
async fn a_name_shows_in_all_rooms_but_those_that_refuse() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let mut rooms = Vec::new();
        for _ in 0..ROOMS {
            rooms.push(room(&alice).await);
        }
        // Here he was, but is no more.
        let left = room(&bob).await;
        for action in ["join", "leave"] {
            let path = format!("/_matrix/client/v3/rooms/{left}/{action}");
            assert_eq!(alice.post(&path, &json!({})).await.0, 200);
        }
        set_name(&alice, "Alice").await;
        set_name(&alice, "Alice A.").await;
        until_shown(&alice, &rooms, "Alice A.").await;
        let (status, member) =
            bob.get(&format!("/_matrix/client/v3/rooms/{left}/state/m.room.member/{}", alice.user_id)).await;
        assert_eq!((status, &member["membership"]), (200, &json!("leave")));
        assert!(member.get("displayname").is_none_or(|name| name != "Alice A."));
        until("all is shown", async || unshown(&server).await == 0).await;
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/profile/{userId}/{keyName}
#[tokio::test]
async fn what_a_restart_interrupts_is_gone_on_with() {
    on_each_backend(async |mut server| {
        let alice = server.user("alice").await;
        let rooms = [room(&alice).await, room(&alice).await];
        // As if the server had gone right after the change was written down.
        let user_id = alice.user_id.clone();
        let interrupted = server.running().doors().store.write(vec![Noun::Name(user_id.clone())], move |tx| {
            let user = tx.intern(&user_id)?;
            tx.profiles().set(user, "displayname", "\"Alice\"")?;
            tx.profiles().set_unshown(user)
        });
        interrupted.await.unwrap();
        assert_ne!(name_in(&alice, &rooms[0]).await, "Alice");
        server.restart().await;
        let alice = alice.at(server.target().clone());
        until_shown(&alice, &rooms, "Alice").await;
        until("all is shown", async || unshown(&server).await == 0).await;
    })
    .await;
}
