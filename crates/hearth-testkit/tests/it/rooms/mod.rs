//! Rooms through the client's door: create, membership, sending, aliases, the directory.

mod acquaintance;
mod create;
mod directory;
mod membership;
mod send;

use hearth_testkit::{User, Value, json};

/// Creates a room and returns its id.
async fn create_room(user: &User, request: Value) -> String {
    let (status, answer) = user.post("/_matrix/client/v3/createRoom", &request).await;
    assert_eq!(status, 200, "{answer}");
    answer["room_id"].as_str().expect("a room id").to_owned()
}

/// Does something to a membership: `join`, `leave`, `invite`, …
async fn act(user: &User, room: &str, action: &str, body: Value) -> (u16, String) {
    let (status, answer) = user.post(&format!("/_matrix/client/v3/rooms/{room}/{action}"), &body).await;
    (status, answer["errcode"].as_str().unwrap_or_default().to_owned())
}

/// Sends a text and returns status and answer.
async fn send(user: &User, room: &str, txn: &str, text: &str) -> (u16, Value) {
    let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/{txn}");
    user.put(&path, &json!({ "msgtype": "m.text", "body": text })).await
}

/// A piece of state, as content.
async fn state(user: &User, room: &str, kind: &str, key: &str) -> (u16, Value) {
    user.get(&format!("/_matrix/client/v3/rooms/{room}/state/{kind}/{key}")).await
}

fn fine() -> (u16, String) {
    (200, String::new())
}

fn forbidden() -> (u16, String) {
    (403, "M_FORBIDDEN".to_owned())
}
