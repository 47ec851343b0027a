//! Rooms that several servers share, through their doors: TLS, signatures, and links that can be cut.

mod delivery;
mod directory;
mod doors;
mod fuzz;
mod hostile;
mod invites;
mod joins;
mod keys;
mod knocks;
mod policy;
mod sending;
mod status;
mod transactions;

use hearth_testkit::{Federation, User, Value, json, until};
use http::Request;

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

async fn public_room(user: &User) -> String {
    create_room(user, json!({ "preset": "public_chat" })).await
}

async fn send(user: &User, room: &str, text: &str) -> String {
    let path = room_path(room, &format!("send/m.room.message/{}", encoded(text)));
    let (status, answer) = user.put(&path, &json!({ "msgtype": "m.text", "body": text })).await;
    assert_eq!(status, 200, "{answer}");
    answer["event_id"].as_str().expect("event_id").to_owned()
}

async fn set_state(user: &User, room: &str, kind: &str, content: Value) -> String {
    let (status, answer) = user.put(&room_path(room, &format!("state/{kind}/")), &content).await;
    assert_eq!(status, 200, "{answer}");
    answer["event_id"].as_str().expect("event_id").to_owned()
}

/// Comes in through servers.
async fn join_via(user: &User, room: &str, via: &[String]) -> (u16, Value) {
    let via: Vec<String> = via.iter().map(|server| format!("via={}", encoded(server))).collect();
    user.post(&format!("/_matrix/client/v3/join/{}?{}", encoded(room), via.join("&")), &json!({})).await
}

async fn must_join_via(user: &User, room: &str, via: &str) {
    let (status, answer) = join_via(user, room, &[via.to_owned()]).await;
    assert_eq!((status, &answer["room_id"]), (200, &json!(room)), "{answer}");
}

async fn until_away(federation: &Federation, from: usize, to: usize) {
    let name = hearth_matrix::ruma::ServerName::parse(federation.name(to)).expect("a server name");
    until("the server is known to be away", async || {
        let remote = &federation.servers[from].running().doors().remote;
        remote.destination(&name).await.expect("the store answers").is_some_and(|there| there.failures > 0)
    })
    .await;
}

/// What a user's server says of somebody's membership.
async fn membership(user: &User, room: &str, of: &str) -> Value {
    let (_, content) = user.get(&room_path(room, &format!("state/m.room.member/{}", encoded(of)))).await;
    content["membership"].clone()
}

/// An event as a user sees it; none if he doesn't.
async fn event(user: &User, room: &str, event_id: &str) -> Option<Value> {
    let (status, event) = user.get(&room_path(room, &format!("event/{}", encoded(event_id)))).await;
    (status == 200).then_some(event)
}

async fn arrives(user: &User, room: &str, event_id: &str) -> Value {
    hearth_testkit::until_some("the event arrives", async || event(user, room, event_id).await).await
}

/// Type, key, sender and id of all state, sorted.
async fn state(user: &User, room: &str) -> Vec<String> {
    let (status, state) = user.get(&room_path(room, "state")).await;
    assert_eq!(status, 200, "{state}");
    let line =
        |event: &Value| format!("{} {} {} {}", event["type"], event["state_key"], event["sender"], event["event_id"]);
    let mut lines: Vec<String> = state.as_array().expect("a list").iter().map(line).collect();
    lines.sort_unstable();
    lines
}

/// A request of one server to another, signed: status and body.
async fn ask(
    federation: &Federation,
    from: usize,
    to: usize,
    method: &str,
    path: &str,
    body: Option<Value>,
) -> (u16, Value) {
    let name = hearth_matrix::ruma::ServerName::parse(federation.name(to)).expect("a server name");
    let request = Request::builder().method(method).uri(format!("https://matrix.invalid{path}"));
    let request = match body {
        Some(body) => request.header("content-type", "application/json").body(body.to_string().into()),
        None => request.body(Default::default()),
    };
    let remote = &federation.servers[from].running().doors().remote;
    match remote.send_raw(&name, request.expect("a request"), true, Default::default()).await {
        Ok(answer) => (answer.status().as_u16(), serde_json::from_slice(answer.body()).expect("JSON")),
        Err(hearth_remote::RemoteError::Refused { status, body, .. }) => {
            (status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
        }
        Err(error) => panic!("no answer: {error}"),
    }
}

/// An event as its server keeps it.
async fn pdu(federation: &Federation, server: usize, room: &str, event_id: &str) -> Value {
    let rooms = &federation.servers[server].running().doors().rooms;
    let (room, event_id) = (room.try_into().expect("a room id"), event_id.try_into().expect("an event id"));
    let (pdu, _) = rooms.event(room, event_id).await.expect("the store answers").expect("the event is there");
    serde_json::from_str(&pdu.json).expect("JSON")
}

/// One answer of `/sync`, at once.
async fn sync(user: &User, since: Option<&str>) -> Value {
    let since = since.map(|since| format!("&since={since}")).unwrap_or_default();
    let (status, answer) = user.get(&format!("/_matrix/client/v3/sync?timeout=0{since}")).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// The first answer of `/sync` that tells of a room, waited for.
async fn sync_waiting(user: &User, since: &str) -> Value {
    let mut since = since.to_owned();
    loop {
        let (status, answer) = user.get(&format!("/_matrix/client/v3/sync?timeout=30000&since={since}")).await;
        assert_eq!(status, 200, "{answer}");
        if answer["rooms"].is_object() {
            return answer;
        }
        since = token(&answer);
    }
}

fn token(answer: &Value) -> String {
    answer["next_batch"].as_str().expect("next_batch").to_owned()
}

/// Hands a transaction to a server.
async fn transaction(
    federation: &Federation,
    from: usize,
    to: usize,
    txn: &str,
    pdus: Value,
    edus: Value,
) -> (u16, Value) {
    let body = json!({
        "origin": federation.name(from),
        "origin_server_ts": 1,
        "pdus": pdus,
        "edus": edus,
    });
    ask(federation, from, to, "PUT", &format!("/_matrix/federation/v1/send/{txn}"), Some(body)).await
}
