//! `/sync`: what clients see change.

mod crowds;
mod ephemeral;
mod filters;
mod joined;
mod memberships;
mod notifications;
mod peeking;
mod presence;
mod traffic;
mod unread;
mod waiting;

use hearth_testkit::{User, Value, json};

/// What a sync asks for.
#[derive(Default)]
struct Ask<'a> {
    since: Option<&'a str>,
    filter: Option<Value>,
    timeout_ms: u64,
    extra: &'a str,
}

impl<'a> Ask<'a> {
    fn since(since: &'a str) -> Self {
        Self { since: Some(since), ..Self::default() }
    }

    fn filter(self, filter: Value) -> Self {
        Self { filter: Some(filter), ..self }
    }

    fn timeout_ms(self, timeout_ms: u64) -> Self {
        Self { timeout_ms, ..self }
    }

    fn extra(self, extra: &'a str) -> Self {
        Self { extra, ..self }
    }

    fn path(&self) -> String {
        let mut path = format!("/_matrix/client/v3/sync?timeout={}{}", self.timeout_ms, self.extra);
        if let Some(since) = self.since {
            path.push_str(&format!("&since={since}"));
        }
        if let Some(filter) = &self.filter {
            path.push_str(&format!("&filter={}", encoded(&filter.to_string())));
        }
        path
    }
}

/// A `/sync` that must succeed.
async fn sync(user: &User, ask: Ask<'_>) -> Value {
    let (status, answer) = user.get(&ask.path()).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// The token of an answer.
fn token(answer: &Value) -> &str {
    answer["next_batch"].as_str().expect("next_batch")
}

/// Everything up to now: a token.
async fn caught_up(user: &User) -> String {
    token(&sync(user, Ask::default()).await).to_owned()
}

fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn room_path(room: &str, rest: &str) -> String {
    format!("/_matrix/client/v3/rooms/{}/{rest}", encoded(room))
}

async fn create_room(user: &User, body: Value) -> String {
    let (status, answer) = user.post("/_matrix/client/v3/createRoom", &body).await;
    assert_eq!(status, 200, "{answer}");
    answer["room_id"].as_str().expect("room_id").to_owned()
}

/// A room that everybody may join.
async fn public_room(user: &User) -> String {
    create_room(user, json!({ "preset": "public_chat" })).await
}

async fn act(user: &User, room: &str, action: &str, body: Value) {
    let (status, answer) = user.post(&room_path(room, action), &body).await;
    assert_eq!(status, 200, "{action}: {answer}");
}

async fn join(user: &User, room: &str) {
    act(user, room, "join", json!({})).await;
}

async fn leave(user: &User, room: &str) {
    act(user, room, "leave", json!({})).await;
}

async fn invite(user: &User, room: &str, whom: &User) {
    act(user, room, "invite", json!({ "user_id": whom.user_id })).await;
}

async fn send(user: &User, room: &str, txn_id: &str, text: &str) -> String {
    let path = room_path(room, &format!("send/m.room.message/{txn_id}"));
    let (status, answer) = user.put(&path, &json!({ "msgtype": "m.text", "body": text })).await;
    assert_eq!(status, 200, "{answer}");
    answer["event_id"].as_str().expect("event_id").to_owned()
}

async fn set_state(user: &User, room: &str, kind: &str, key: &str, content: Value) -> String {
    let (status, answer) = user.put(&room_path(room, &format!("state/{kind}/{}", encoded(key))), &content).await;
    assert_eq!(status, 200, "{answer}");
    answer["event_id"].as_str().expect("event_id").to_owned()
}

async fn redact(user: &User, room: &str, event_id: &str, txn_id: &str) -> String {
    let path = room_path(room, &format!("redact/{}/{txn_id}", encoded(event_id)));
    let (status, answer) = user.put(&path, &json!({ "reason": "test" })).await;
    assert_eq!(status, 200, "{answer}");
    answer["event_id"].as_str().expect("event_id").to_owned()
}

/// The part of an answer that is about a room; null if there is none.
fn part<'a>(answer: &'a Value, section: &str, room: &str) -> &'a Value {
    &answer["rooms"][section][room]
}

fn events(part: &Value) -> &[Value] {
    part["events"].as_array().map_or(&[], Vec::as_slice)
}

/// The bodies of messages in a timeline.
fn bodies(part: &Value) -> Vec<&str> {
    events(&part["timeline"]).iter().filter_map(|event| event["content"]["body"].as_str()).collect()
}

/// Type and state key of events.
fn keys(part: &Value) -> Vec<(&str, &str)> {
    events(part)
        .iter()
        .map(|event| (event["type"].as_str().unwrap_or_default(), event["state_key"].as_str().unwrap_or("-")))
        .collect()
}
