//! Thousands of requests that are nearly right. Whatever is asked, the answer is one of ours: never a failure of the server,
//! always a code, always the headers that browsers need.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hearth_testkit::{Answer, Request, json};

use super::House;
use super::dice::{Dice, odd_body, odd_path, odd_query};
use super::table::{Row, rows};

/// Requests of one run at most, and its time: slow machines knock less often.
const REQUESTS: usize = 5_000;
const TIME: Duration = Duration::from_secs(15);

/// `HEARTH_TEST_SEED` and `HEARTH_TEST_SECONDS` make another run, or a longer one.
fn told(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

const METHODS: [&str; 8] = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "FROB"];
const CONTENT_TYPES: [&str; 5] =
    ["text/plain", "application/xml", "application/json; charset=utf-16", "nonsense", "a/b;;="];

/// Why an answer is none of ours.
fn complaint(method: &str, path: &str, answer: &Answer) -> Option<String> {
    let wrong = |what: &str| Some(format!("{what}: {} {}", answer.status, answer.text()));
    // Media of a server that is not there.
    let is_theirs = answer.status == 502 && path.contains("/media/");
    if answer.status >= 500 && !is_theirs {
        return wrong("a failure of the server");
    }
    if answer.header("access-control-allow-origin") != Some("*") {
        return wrong("no headers for browsers");
    }
    if method == "HEAD" || method == "OPTIONS" {
        return if answer.body.is_empty() { None } else { wrong("a body where none belongs") };
    }
    let is_page = path.contains("/fallback/web") || path.contains("/media/");
    if is_page && answer.status < 300 {
        return None;
    }
    if answer.header("content-type").is_none_or(|kind| !kind.starts_with("application/json")) {
        return wrong("no JSON");
    }
    let body = answer.json();
    if !body.is_object() && !body.is_array() {
        return wrong("no JSON");
    }
    if answer.status >= 400 && !body["errcode"].is_string() && !(answer.status == 401 && body["flows"].is_array()) {
        return wrong("no code");
    }
    None
}

/// A request made of this row, and what it is called in a complaint.
fn odd_request(house: &House, dice: &mut Dice, row: &Row) -> Option<(String, String, String, Request)> {
    // Nobody else's session or membership shall end.
    let ends = ["/logout", "/leave", "/forget"].iter().any(|end| row.path.contains(end));
    let user = if ends { &house.banned } else { &house.alice };
    let mut method = row.method;
    let mut path = house.filled(row.path, user);
    let mut query = row.query.to_owned();
    let mut body = row.body.map(|body| house.filled(body, user).into_bytes());
    let mut content_type = "application/json";
    for _ in 0..=dice.below(2) {
        match dice.below(10) {
            0..=4 if row.body.is_some() => body = Some(odd_body(dice, &house.filled(row.body.unwrap_or("{}"), user))),
            0..=2 => query = odd_query(dice, row.query),
            3..=6 => path = odd_path(dice, &path),
            7 => query = odd_query(dice, row.query),
            8 => content_type = dice.one_of(&CONTENT_TYPES),
            _ => method = dice.one_of(&METHODS),
        }
    }
    let uri = if query.is_empty() { path.clone() } else { format!("{path}?{query}") };
    uri.parse::<http::Uri>().ok()?;
    let sent = body.clone().unwrap_or_default();
    let shown = String::from_utf8_lossy(&sent[..sent.len().min(200)]).into_owned();
    let name = format!("{method} {} with {shown}", &uri[..uri.len().min(300)]);
    let request = house.server.request(method, &uri).header("content-type", content_type).body(sent);
    let request = if dice.below(50) == 0 { request } else { request.token(&user.access_token) };
    Some((name, method.to_owned(), path, request))
}

#[tokio::test]
async fn no_request_breaks_the_server() {
    let house = House::new().await;
    let seed = told("HEARTH_TEST_SEED").unwrap_or(1);
    let (most, time) = match told("HEARTH_TEST_SECONDS") {
        Some(seconds) => (usize::MAX, Duration::from_secs(seconds)),
        None => (REQUESTS, TIME),
    };
    let mut dice = Dice::new(seed);
    let (rows, began) = (rows(), Instant::now());
    let mut complaints = Vec::new();
    let mut asked = 0;
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    while asked < most && began.elapsed() < time {
        let row = &rows[dice.below(rows.len())];
        let Some((name, method, path, request)) = odd_request(&house, &mut dice, row) else { continue };
        asked += 1;
        match tokio::time::timeout(Duration::from_secs(20), request.try_send()).await {
            Ok(Ok(answer)) => {
                *statuses.entry(answer.status).or_default() += 1;
                complaints.extend(complaint(&method, &path, &answer).map(|why| format!("{name}: {why}")));
            }
            Ok(Err(error)) => complaints.push(format!("{name}: no answer: {error}")),
            Err(_) => complaints.push(format!("{name}: no answer in time")),
        }
    }
    eprintln!("{asked} requests in {:?}: {statuses:?}", began.elapsed());
    assert!(complaints.is_empty(), "seed {seed}, {} of {asked}:\n{}", complaints.len(), complaints.join("\n"));

    // All is as it was.
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/last", house.room);
    let (status, sent) = house.alice.put(&path, &json!({ "msgtype": "m.text", "body": "still here" })).await;
    assert_eq!(status, 200, "{sent}");
    assert_eq!(house.alice.get("/_matrix/client/v3/sync").await.0, 200);
    let event = sent["event_id"].as_str().expect("an event id");
    let path = format!("/_matrix/client/v3/rooms/{}/event/{event}", house.room);
    assert_eq!(house.alice.get(&path).await.1["content"]["body"], "still here");
}

#[tokio::test]
async fn a_door_knows_its_methods() {
    let house = House::new().await;
    let rows = rows();
    for row in &rows {
        let served: Vec<&str> = rows.iter().filter(|other| other.path == row.path).map(|row| row.method).collect();
        let path = house.filled(row.path, &house.alice);
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
            if !served.contains(&method) {
                let answer = house.server.request(method, &path).token(&house.alice.access_token).send().await;
                assert_eq!(answer.refusal(), (405, "M_UNRECOGNIZED".into()), "{method} {path}");
                let allowed = answer.header("allow").unwrap_or_default().to_owned();
                assert!(served.iter().all(|served| allowed.contains(served)), "{path}: {allowed}");
            }
        }
        let preflight = house.server.request("OPTIONS", &path).header("origin", "https://client.test").send().await;
        assert_eq!((preflight.status, preflight.body.len()), (204, 0), "{path}");
        let allowed = preflight.header("access-control-allow-methods").unwrap_or_default();
        assert!(allowed.contains(row.method), "{path}: {allowed}");
        if served == ["GET"] {
            let uri = if row.query.is_empty() { path.clone() } else { format!("{path}?{}", row.query) };
            let ask = async |method| house.server.request(method, &uri).token(&house.alice.access_token).send().await;
            let (whole, head) = (ask("GET").await, ask("HEAD").await);
            assert_eq!((head.status, head.body.len()), (whole.status, 0), "HEAD {uri}");
        }
        let beyond = format!("{}/no/such/door", path.trim_end_matches('/'));
        let answer = house.server.request(row.method, &beyond).token(&house.alice.access_token).send().await;
        assert_eq!(answer.refusal(), (404, "M_UNRECOGNIZED".into()), "{} {beyond}", row.method);
    }
}

/// Contents that mean something to the server, whole.
const CONTENTS: [(&str, &str); 20] = [
    ("m.room.name", r#"{"name": "n"}"#),
    ("m.room.topic", r#"{"topic": "t"}"#),
    ("m.room.avatar", r#"{"url": "mxc://a/b"}"#),
    ("m.room.canonical_alias", r#"{"alias": "", "alt_aliases": []}"#),
    (
        "m.room.join_rules",
        r#"{"join_rule": "restricted", "allow": [{"type": "m.room_membership", "room_id": "!a:b"}]}"#,
    ),
    ("m.room.history_visibility", r#"{"history_visibility": "world_readable"}"#),
    ("m.room.guest_access", r#"{"guest_access": "can_join"}"#),
    (
        "m.room.power_levels",
        r#"{"users_default": 50, "events": {"a": 1}, "users": {"{userId}": 100}, "notifications": {"room": 1}}"#,
    ),
    ("m.room.member", r#"{"membership": "join", "displayname": "x", "avatar_url": "mxc://a/b", "is_direct": true}"#),
    ("m.room.third_party_invite", r#"{"display_name": "x", "key_validity_url": "x", "public_key": "x"}"#),
    ("m.room.tombstone", r#"{"body": "x", "replacement_room": "!a:b"}"#),
    ("m.room.server_acl", r#"{"allow": ["*"], "deny": [], "allow_ip_literals": true}"#),
    ("m.room.encryption", r#"{"algorithm": "m.megolm.v1.aes-sha2", "rotation_period_ms": 1}"#),
    ("m.room.pinned_events", r#"{"pinned": ["$a"]}"#),
    ("m.space.child", r#"{"via": ["a"], "order": "a", "suggested": true}"#),
    ("m.room.message", r#"{"msgtype": "m.text", "body": "x", "m.mentions": {"user_ids": ["{userId}"], "room": true}}"#),
    (
        "m.room.message",
        r#"{"body": "* x", "m.new_content": {"body": "x"}, "m.relates_to": {"rel_type": "m.replace", "event_id": "{eventId}"}}"#,
    ),
    (
        "m.room.message",
        r#"{"body": "x", "m.relates_to": {"rel_type": "m.thread", "event_id": "{eventId}", "is_falling_back": true}}"#,
    ),
    ("m.reaction", r#"{"m.relates_to": {"rel_type": "m.annotation", "event_id": "{eventId}", "key": "x"}}"#),
    ("m.room.redaction", r#"{"redacts": "{eventId}", "reason": "x"}"#),
];

/// What is read of a room after each event. All of it must still be there.
const VIEWS: [&str; 9] = [
    "sync",
    "sync?full_state=true&filter=%7B%22room%22%3A%7B%22state%22%3A%7B%22lazy_load_members%22%3Atrue%7D%7D%7D",
    "rooms/{roomId}/messages?dir=b&limit=100",
    "rooms/{roomId}/state",
    "rooms/{roomId}/members",
    "rooms/{roomId}/joined_members",
    "rooms/{roomId}/initialSync",
    "publicRooms",
    "joined_rooms",
];

#[tokio::test]
async fn no_event_breaks_its_room() {
    let mut house = House::new().await;
    let seed = told("HEARTH_TEST_SEED").unwrap_or(1);
    let time = told("HEARTH_TEST_SECONDS").map_or(Duration::from_secs(8), Duration::from_secs);
    let (mut dice, began) = (Dice::new(seed), Instant::now());
    let mut sent = 0;
    for version in (1..=12).cycle().take(60) {
        if began.elapsed() > time {
            break;
        }
        let body =
            json!({ "visibility": "public", "room_version": version.to_string(), "invite": [house.outsider.user_id] });
        let (status, created) = house.alice.post("/_matrix/client/v3/createRoom", &body).await;
        assert_eq!(status, 200, "{created}");
        house.room = created["room_id"].as_str().expect("a room id").to_owned();
        let text = json!({ "msgtype": "m.text", "body": "x" });
        let path = house.filled("/_matrix/client/v3/rooms/{roomId}/send/m.room.message/txn", &house.alice);
        house.event = house.alice.put(&path, &text).await.1["event_id"].as_str().expect("an event id").to_owned();
        for n in 0..15 {
            let (kind, content) = CONTENTS[dice.below(CONTENTS.len())];
            let content = house.filled(content, &house.alice);
            let body = odd_body(&mut dice, &content);
            let key = dice.one_of(&["", "{userId}", "@other:hearth.test", "key", "%00", "@"]);
            let path = match (kind, dice.below(4)) {
                ("m.room.message" | "m.reaction" | "m.room.redaction", _) | (_, 0) => format!("send/{kind}/{n}"),
                ("m.room.member", _) => format!("state/{kind}/{key}"),
                (_, 1) => format!("state/{kind}/{key}"),
                _ => format!("state/{kind}"),
            };
            let path = house.filled(&format!("/_matrix/client/v3/rooms/{{roomId}}/{path}"), &house.alice);
            let shown = String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned();
            let answer = house.alice.request("PUT", &path).body(body).send().await;
            assert!(answer.status < 500, "seed {seed}: {path} with {shown}: {} {}", answer.status, answer.text());
            if answer.status != 200 {
                continue;
            }
            sent += 1;
            for view in VIEWS {
                let view = house.filled(&format!("/_matrix/client/v3/{view}"), &house.alice);
                let (status, body) = house.alice.get(&view).await;
                // She may have put herself out.
                let fine = status == 200 || (status == 403 && view.contains("joined_members"));
                assert!(fine, "seed {seed}: {view} after {path} with {shown}: {status} {body}");
            }
            assert_eq!(house.outsider.get("/_matrix/client/v3/sync").await.0, 200, "seed {seed}: {path} with {shown}");
        }
    }
    eprintln!("{sent} events in {:?}", began.elapsed());
}
