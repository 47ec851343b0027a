//! What readers see of rooms: events, state, history, context, members.

use hearth_testkit::{TestServer, User, on_each_backend};
use serde_json::{Value, json};

const V3: &str = "/_matrix/client/v3";

/// A room of alice's.
struct Room {
    server: TestServer,
    alice: User,
    bob: User,
    id: String,
}

impl Room {
    /// A public room with this history visibility.
    async fn new(server: TestServer, visibility: &str) -> Self {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let state = json!({
            "type": "m.room.history_visibility", "state_key": "", "content": { "history_visibility": visibility },
        });
        let body = json!({ "preset": "public_chat", "initial_state": [state] });
        let (status, created) = alice.post(&format!("{V3}/createRoom"), &body).await;
        assert_eq!(status, 200, "{created}");
        let id = created["room_id"].as_str().expect("a room id").to_owned();
        Self { server, alice, bob, id }
    }

    fn path(&self, rest: &str) -> String {
        format!("{V3}/rooms/{}/{rest}", self.id)
    }

    async fn get(&self, user: &User, rest: &str) -> (u16, Value) {
        user.get(&self.path(rest)).await
    }

    /// `GET` that must succeed.
    async fn see(&self, user: &User, rest: &str) -> Value {
        let (status, body) = self.get(user, rest).await;
        assert_eq!(status, 200, "{rest}: {body}");
        body
    }

    async fn refusal(&self, user: &User, rest: &str) -> (u16, String) {
        let (status, body) = self.get(user, rest).await;
        (status, body["errcode"].as_str().unwrap_or_default().to_owned())
    }

    async fn post(&self, user: &User, rest: &str, body: Value) {
        let (status, answer) = user.post(&self.path(rest), &body).await;
        assert_eq!(status, 200, "{rest}: {answer}");
    }

    /// Sends a message; its id.
    async fn say(&self, user: &User, text: &str) -> String {
        let path = self.path(&format!("send/m.room.message/{}", text.replace(' ', "-")));
        self.put(user, &path, json!({ "msgtype": "m.text", "body": text })).await
    }

    async fn set(&self, user: &User, state: &str, content: Value) -> String {
        self.put(user, &self.path(&format!("state/{state}")), content).await
    }

    async fn put(&self, user: &User, path: &str, content: Value) -> String {
        let (status, sent) = user.put(path, &content).await;
        assert_eq!(status, 200, "{path}: {sent}");
        sent["event_id"].as_str().expect("an event id").to_owned()
    }

    /// What a client has that synced just now.
    fn sync_token(&self) -> String {
        format!("s1_{}_0_0_0", self.server.running().doors().store.position().0)
    }
}

/// Runs a test in a fresh room of this history visibility, over each database.
async fn in_a_room(visibility: &str, test: impl AsyncFn(Room)) {
    on_each_backend(async |server| test(Room::new(server, visibility).await).await).await;
}

/// What a list of events says, shortly: the body of messages, the name of state.
fn gist(events: &Value) -> Vec<String> {
    let events = events.as_array().expect("a list of events");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let kind = |event: &Value| text(&event["type"]).expect("a type");
    events.iter().map(|event| text(&event["content"]["body"]).unwrap_or_else(|| kind(event))).collect()
}

/// Who is what.
fn memberships(events: &Value) -> Vec<String> {
    let events = events.as_array().expect("a list of events");
    let one = |event: &Value| format!("{} {}", event["state_key"], event["content"]["membership"]).replace('"', "");
    let mut all: Vec<_> = events.iter().map(one).collect();
    all.sort();
    all
}

// endpoint: GET /_matrix/client/v3/rooms/{roomId}/event/{eventId}
#[tokio::test]
async fn an_event_is_seen_by_those_who_may() {
    in_a_room("joined", async |room| {
        let before = room.say(&room.alice, "before").await;
        let not_found = (404, "M_NOT_FOUND".to_owned());
        assert_eq!(room.refusal(&room.bob, &format!("event/{before}")).await, not_found);
        room.post(&room.bob, "join", json!({})).await;
        let after = room.say(&room.alice, "after").await;
        assert_eq!(room.refusal(&room.bob, &format!("event/{before}")).await, not_found);

        let seen = room.see(&room.bob, &format!("event/{after}")).await;
        assert_eq!(seen["event_id"], json!(after));
        assert_eq!(seen["room_id"], json!(room.id));
        assert_eq!(seen["content"], json!({ "msgtype": "m.text", "body": "after" }));
        assert_eq!(seen["unsigned"]["membership"], "join");
        assert_eq!(seen["unsigned"].get("transaction_id"), None);
        let own = room.see(&room.alice, &format!("event/{after}")).await;
        assert_eq!(own["unsigned"]["transaction_id"], "after");

        let other = room.server.user("other").await;
        assert_eq!(room.refusal(&other, "event/$nothing").await, not_found);
        let (status, _) = other.get(&format!("{V3}/rooms/!nowhere:hearth.test/event/{after}")).await;
        assert_eq!(status, 404);
    })
    .await;
}

#[tokio::test]
async fn a_redacted_event_has_lost_its_content() {
    in_a_room("shared", async |room| {
        let event = room.say(&room.alice, "secret").await;
        let path = room.path(&format!("redact/{event}/r1"));
        let redaction = room.put(&room.alice, &path, json!({ "reason": "oops" })).await;
        let seen = room.see(&room.alice, &format!("event/{event}")).await;
        assert_eq!(seen["content"], json!({}));
        assert_eq!(seen["unsigned"]["redacted_because"]["event_id"], json!(redaction));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/rooms/{roomId}/state
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/state/{eventType}/
#[tokio::test]
async fn state_is_that_of_now_or_of_the_leave() {
    in_a_room("shared", async |room| {
        let forbidden = (403, "M_FORBIDDEN".to_owned());
        assert_eq!(room.refusal(&room.bob, "state").await, forbidden);
        assert_eq!(room.refusal(&room.bob, "state/m.room.name").await, forbidden);
        let (status, body) = room.bob.get(&format!("{V3}/rooms/!nowhere:hearth.test/state")).await;
        assert_eq!((status, body["errcode"].as_str()), (403, Some("M_FORBIDDEN")));

        room.post(&room.bob, "join", json!({})).await;
        room.set(&room.alice, "m.room.name", json!({ "name": "then" })).await;
        room.set(&room.alice, "org.test/a%20key", json!({ "x": 1 })).await;
        room.post(&room.bob, "leave", json!({})).await;
        let now = room.set(&room.alice, "m.room.name/", json!({ "name": "now" })).await;

        for path in ["state/m.room.name", "state/m.room.name/"] {
            assert_eq!(room.see(&room.alice, path).await, json!({ "name": "now" }));
            assert_eq!(room.see(&room.bob, path).await, json!({ "name": "then" }));
        }
        assert_eq!(room.see(&room.bob, "state/org.test/a%20key").await, json!({ "x": 1 }));
        let event = room.see(&room.alice, "state/m.room.name/?format=event").await;
        assert_eq!(event["event_id"], json!(now));
        assert_eq!(event["unsigned"]["prev_content"], json!({ "name": "then" }));
        let not_found = (404, "M_NOT_FOUND".to_owned());
        assert_eq!(room.refusal(&room.alice, "state/m.room.name/key").await, not_found);
        assert_eq!(room.refusal(&room.alice, "state/m.never.seen").await, not_found);
        assert_eq!(room.refusal(&room.alice, "state/m.room.name?format=x").await, (400, "M_INVALID_PARAM".to_owned()));

        let names = |state: Value| {
            let state = state.as_array().expect("a list").clone();
            state
                .into_iter()
                .filter(|event| event["type"] == "m.room.name")
                .map(|event| event["content"].clone())
                .collect()
        };
        let (of_alice, of_bob): (Vec<_>, Vec<_>) =
            (names(room.see(&room.alice, "state").await), names(room.see(&room.bob, "state").await));
        assert_eq!((of_alice, of_bob), (vec![json!({ "name": "now" })], vec![json!({ "name": "then" })]));

        // Once everybody may read the room, those who left may, too.
        room.set(&room.alice, "m.room.history_visibility", json!({ "history_visibility": "world_readable" })).await;
        assert_eq!(room.see(&room.bob, "state/m.room.name").await, json!({ "name": "now" }));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/rooms/{roomId}/messages
#[tokio::test]
async fn history_is_read_page_by_page() {
    in_a_room("shared", async |room| {
        for i in 0..12 {
            room.say(&room.alice, &format!("m{i}")).await;
        }
        for direction in ["b", "f"] {
            let mut read = Vec::new();
            let mut from = String::new();
            loop {
                let page = room.see(&room.alice, &format!("messages?dir={direction}&limit=5&from={from}")).await;
                let chunk = gist(&page["chunk"]);
                assert!(!chunk.is_empty(), "no page is empty where nothing is hidden");
                read.extend(chunk);
                match page["end"].as_str() {
                    Some(end) => from = end.to_owned(),
                    None => break,
                }
            }
            if direction == "b" {
                read.reverse();
            }
            assert_eq!(read[0], "m.room.create");
            let messages: Vec<_> = (0..12).map(|i| format!("m{i}")).collect();
            assert_eq!(read[read.len() - 12..], messages, "{direction}");
        }
        let first = room.see(&room.alice, "messages?dir=b").await;
        assert_eq!(gist(&first["chunk"]).len(), 10);
        // What `start` names is where the page began.
        let start = first["start"].as_str().expect("a token");
        assert_eq!(room.see(&room.alice, &format!("messages?dir=b&from={start}")).await["chunk"], first["chunk"]);
        let (from, to) = (start, first["end"].as_str().expect("a token"));
        let between = room.see(&room.alice, &format!("messages?dir=f&limit=100&from={to}&to={from}")).await;
        assert_eq!(gist(&between["chunk"]).len(), 10);
        assert_eq!(between.get("end"), None);

        let invalid = (400, "M_INVALID_PARAM".to_owned());
        assert_eq!(room.refusal(&room.alice, "messages?dir=b&from=nonsense").await, invalid);
        assert_eq!(room.refusal(&room.alice, "messages?dir=b&to=t9_1_1").await, invalid);
        assert_eq!(room.refusal(&room.alice, "messages?dir=b&filter=nonsense").await, invalid);
        assert_eq!(room.refusal(&room.alice, "messages?dir=x").await, invalid);
        assert_eq!(room.refusal(&room.alice, "messages").await, (400, "M_MISSING_PARAM".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn history_begins_and_ends_where_a_client_synced() {
    in_a_room("shared", async |room| {
        room.say(&room.alice, "before").await;
        let from = room.sync_token();
        room.say(&room.alice, "between").await;
        let to = room.sync_token();
        room.say(&room.alice, "after").await;
        let page = room.see(&room.alice, &format!("messages?dir=f&from={from}&to={to}")).await;
        assert_eq!(gist(&page["chunk"]), ["between"]);
        assert_eq!(page["start"], json!(from));
        let page = room.see(&room.alice, &format!("messages?dir=b&limit=1&from={from}")).await;
        assert_eq!(gist(&page["chunk"]), ["before"]);
    })
    .await;
}

#[tokio::test]
async fn who_left_sees_nothing_later() {
    in_a_room("joined", async |room| {
        room.say(&room.alice, "too early").await;
        room.post(&room.bob, "join", json!({})).await;
        room.say(&room.alice, "one").await;
        room.say(&room.alice, "two").await;
        room.post(&room.bob, "leave", json!({})).await;
        let left = room.sync_token();
        room.say(&room.alice, "too late").await;

        // What came before the visibility was set is shared.
        let shared = ["m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules"];
        let own = ["m.room.history_visibility", "m.room.member", "one", "two", "m.room.member"];
        let expected: Vec<_> = shared.into_iter().chain(own).collect();
        let backwards: Vec<_> = expected.iter().copied().rev().collect();
        for from in [String::new(), left.clone()] {
            let page = room.see(&room.bob, &format!("messages?dir=b&from={from}")).await;
            assert_eq!(gist(&page["chunk"]), backwards);
            assert_eq!(page.get("end"), None, "what is hidden is not more");
        }
        let page = room.see(&room.bob, "messages?dir=f").await;
        assert_eq!((gist(&page["chunk"]), page.get("end")), (expected.iter().map(|it| it.to_string()).collect(), None));
        let page = room.see(&room.bob, &format!("messages?dir=f&limit=100&from={left}")).await;
        assert_eq!((page["chunk"].clone(), page.get("end")), (json!([]), None));

        room.post(&room.bob, "forget", json!({})).await;
        let forbidden = (403, "M_FORBIDDEN".to_owned());
        assert_eq!(room.refusal(&room.bob, "messages").await, forbidden);
        assert_eq!(room.refusal(&room.bob, "messages?dir=b").await, forbidden);
        assert_eq!(room.refusal(&room.bob, "members").await, forbidden);
    })
    .await;
}

#[tokio::test]
async fn strangers_read_what_everybody_may() {
    in_a_room("world_readable", async |room| {
        room.say(&room.alice, "hello").await;
        let page = room.see(&room.bob, "messages?dir=b&limit=1").await;
        assert_eq!(gist(&page["chunk"]), ["hello"]);
        assert_eq!(page["chunk"][0]["unsigned"]["membership"], "leave");
        assert_eq!(memberships(&room.see(&room.bob, "members").await["chunk"]), ["@alice:hearth.test join"]);
        room.set(&room.alice, "m.room.history_visibility", json!({ "history_visibility": "shared" })).await;
        assert_eq!(room.refusal(&room.bob, "messages?dir=b").await, (403, "M_FORBIDDEN".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn filters_choose_events() {
    in_a_room("shared", async |room| {
        room.post(&room.bob, "join", json!({})).await;
        room.say(&room.bob, "of bob").await;
        room.say(&room.alice, "of alice").await;
        let image = json!({ "msgtype": "m.image", "body": "image", "url": "mxc://hearth.test/a" });
        room.put(&room.alice, &room.path("send/m.room.message/image"), image).await;

        let see = async |filter: Value| {
            let filter = filter.to_string().replace('"', "%22").replace(' ', "");
            room.see(&room.alice, &format!("messages?dir=b&limit=3&filter={filter}")).await
        };
        assert_eq!(gist(&see(json!({ "types": ["m.room.mess*"] })).await["chunk"]), ["image", "of alice", "of bob"]);
        let page = see(json!({ "types": ["m.room.message"], "not_senders": ["@bob:hearth.test"] })).await;
        assert_eq!(gist(&page["chunk"]), ["image", "of alice"]);
        // Not the end of the room: it may be looked through for other events from there. For these there is nothing more.
        let end = page["end"].as_str().expect("a token");
        let filter = "{%22types%22:[%22m.room.message%22],%22not_senders%22:[%22@bob:hearth.test%22]}";
        let page = room.see(&room.alice, &format!("messages?dir=b&from={end}&filter={filter}")).await;
        assert_eq!((gist(&page["chunk"]).len(), page.get("end")), (0, None));
        let page = see(json!({ "senders": ["@bob:hearth.test", "@never:seen"], "not_types": ["m.room.member"] })).await;
        assert_eq!(gist(&page["chunk"]), ["of bob"]);
        assert_eq!(gist(&see(json!({ "contains_url": true })).await["chunk"]), ["image"]);
        let page = see(json!({ "contains_url": false, "types": ["m.room.message"] })).await;
        assert_eq!(gist(&page["chunk"]), ["of alice", "of bob"]);
        assert_eq!(see(json!({ "not_rooms": [room.id] })).await["chunk"], json!([]));

        let page = see(json!({ "lazy_load_members": true, "limit": 1 })).await;
        assert_eq!(gist(&page["chunk"]), ["image"]);
        assert_eq!(memberships(&page["state"]), ["@alice:hearth.test join"]);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}
#[tokio::test]
async fn an_event_has_surroundings() {
    in_a_room("shared", async |room| {
        let mut ids = Vec::new();
        for i in 0..9 {
            ids.push(room.say(&room.alice, &format!("m{i}")).await);
        }
        room.set(&room.alice, "m.room.topic", json!({ "topic": "later" })).await;
        let context = room.see(&room.alice, &format!("context/{}?limit=4", ids[4])).await;
        assert_eq!(context["event"]["event_id"], json!(ids[4]));
        assert_eq!(gist(&context["events_before"]), ["m3", "m2"]);
        assert_eq!(gist(&context["events_after"]), ["m5", "m6"]);
        let state = gist(&context["state"]);
        assert!(state.contains(&"m.room.create".to_owned()));
        assert!(!state.contains(&"m.room.topic".to_owned()), "the state is that of the last event");

        let (start, end) = (context["start"].as_str().expect("a token"), context["end"].as_str().expect("a token"));
        let page = room.see(&room.alice, &format!("messages?dir=b&limit=2&from={start}")).await;
        assert_eq!(gist(&page["chunk"]), ["m1", "m0"]);
        let page = room.see(&room.alice, &format!("messages?dir=f&limit=2&from={end}")).await;
        assert_eq!(gist(&page["chunk"]), ["m7", "m8"]);

        let alone = room.see(&room.alice, &format!("context/{}?limit=0", ids[4])).await;
        assert_eq!((&alone["events_before"], &alone["events_after"]), (&json!([]), &json!([])));
        room.post(&room.bob, "join", json!({})).await;
        let lazy = "%7B%22lazy_load_members%22:true%7D";
        let context = room.see(&room.alice, &format!("context/{}?limit=2&filter={lazy}", ids[8])).await;
        let is_member = |event: &&Value| event["type"] == "m.room.member";
        let members: Vec<_> = context["state"].as_array().expect("a list").iter().filter(is_member).cloned().collect();
        assert_eq!(memberships(&json!(members)), ["@alice:hearth.test join"]);
        let other = room.server.user("other").await;
        assert_eq!(room.refusal(&other, &format!("context/{}", ids[0])).await, (404, "M_NOT_FOUND".to_owned()));
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/rooms/{roomId}/members
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/joined_members
#[tokio::test]
async fn members_are_those_of_now_of_the_leave_or_at_a_token() {
    in_a_room("joined", async |room| {
        let carol = room.server.user("carol").await;
        let (alice, bob) = ("@alice:hearth.test join", "@bob:hearth.test join");
        let alone = room.sync_token();
        room.post(&room.bob, "join", json!({})).await;
        let both = room.sync_token();
        room.post(&room.bob, "leave", json!({})).await;
        room.post(&carol, "join", json!({})).await;

        let see =
            async |user: &User, query: &str| memberships(&room.see(user, &format!("members{query}")).await["chunk"]);
        let left = "@bob:hearth.test leave";
        assert_eq!(see(&room.alice, "").await, [alice, left, "@carol:hearth.test join"]);
        assert_eq!(see(&room.alice, "?not_membership=leave").await, [alice, "@carol:hearth.test join"]);
        assert_eq!(see(&room.alice, "?membership=leave").await, [left]);
        assert_eq!(see(&room.alice, &format!("?at={alone}")).await, [alice]);
        assert_eq!(see(&room.alice, &format!("?at={both}")).await, [alice, bob]);
        // The place before the first event: the first state with the reader in it.
        let page = room.see(&room.alice, "messages?dir=f&limit=1").await;
        let start = page["start"].as_str().expect("a token");
        assert_eq!(see(&room.alice, &format!("?at={start}")).await, [alice]);
        // Who left sees those whom he left, whatever he asks for.
        assert_eq!(see(&room.bob, "").await, [alice, left]);
        assert_eq!(see(&room.bob, &format!("?at={}", room.sync_token())).await, [alice, left]);
        assert_eq!(see(&carol, &format!("?at={both}")).await, [alice, left, "@carol:hearth.test join"]);
        assert_eq!(room.refusal(&room.alice, "members?at=x").await, (400, "M_INVALID_PARAM".to_owned()));

        let joined = room.see(&room.alice, "joined_members").await;
        let of_alice = &joined["joined"]["@alice:hearth.test"];
        assert!(of_alice.get("display_name").is_some() && of_alice.get("avatar_url").is_some(), "{joined}");
        assert_eq!(joined["joined"].as_object().map(serde_json::Map::len), Some(2));
        assert_eq!(room.refusal(&room.bob, "joined_members").await, (403, "M_FORBIDDEN".to_owned()));
    })
    .await;
}

// endpoint: GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}
// endpoint: GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}
// endpoint: GET /_matrix/client/v1/rooms/{roomId}/relations/{eventId}/{relType}/{eventType}
#[tokio::test]
async fn relations_are_found_by_way_type_and_page() {
    in_a_room("shared", async |room| {
        let root = room.say(&room.alice, "root").await;
        let relate = async |parent: &str, kind: &str, rel: &str, body: &str| {
            let relates_to = json!({ "event_id": parent, "rel_type": rel });
            let content = json!({ "msgtype": "m.text", "body": body, "m.relates_to": relates_to });
            room.put(&room.alice, &room.path(&format!("send/{kind}/{body}")), content).await
        };
        let first = relate(&root, "m.room.message", "m.thread", "t1").await;
        relate(&root, "m.dummy", "m.thread", "t2").await;
        relate(&root, "m.room.message", "m.replace", "edit").await;
        relate(&first, "m.room.message", "m.replace", "edit-of-t1").await;
        let gone = relate(&root, "m.room.message", "m.thread", "gone").await;
        room.put(&room.alice, &room.path(&format!("redact/{gone}/r1")), json!({})).await;

        let path = |rest: &str| format!("/_matrix/client/v1/rooms/{}/relations/{root}{rest}", room.id);
        let see = async |rest: &str| {
            let (status, body) = room.alice.get(&path(rest)).await;
            assert_eq!(status, 200, "{rest}: {body}");
            body
        };
        assert_eq!(gist(&see("").await["chunk"]), ["edit", "t2", "t1"]);
        assert_eq!(gist(&see("?dir=f").await["chunk"]), ["t1", "t2", "edit"]);
        assert_eq!(gist(&see("/m.thread").await["chunk"]), ["t2", "t1"]);
        assert_eq!(gist(&see("/m.thread/m.room.message").await["chunk"]), ["t1"]);
        assert_eq!(see("/org.test.never_seen").await["chunk"], json!([]));
        assert_eq!(gist(&see("/m.replace?recurse=true").await["chunk"]), ["edit-of-t1", "edit"]);
        assert_eq!(gist(&see("?recurse=true&limit=1").await["chunk"]), ["edit-of-t1"]);

        for (direction, expected) in [("b", ["edit", "t2", "t1"]), ("f", ["t1", "t2", "edit"])] {
            let page = see(&format!("?dir={direction}&limit=2")).await;
            assert_eq!(gist(&page["chunk"]), expected[..2]);
            let next = page["next_batch"].as_str().expect("a token");
            let page = see(&format!("?dir={direction}&limit=2&from={next}")).await;
            assert_eq!((gist(&page["chunk"]), page.get("next_batch")), (vec![expected[2].to_owned()], None));
        }
        let (status, body) = room.bob.get(&path("")).await;
        assert_eq!((status, body["errcode"].as_str()), (404, Some("M_NOT_FOUND")));
    })
    .await;
}

// endpoint: GET /_matrix/client/v1/rooms/{roomId}/timestamp_to_event
#[tokio::test]
async fn a_time_leads_to_an_event() {
    in_a_room("shared", async |room| {
        let now = room.server.time.now_ms();
        room.server.time.advance(1_000);
        let one = room.say(&room.alice, "one").await;
        let two = room.say(&room.alice, "two").await;
        room.server.time.advance(1_000);
        let three = room.say(&room.alice, "three").await;

        let path = |ts: i64, direction: &str| {
            format!("/_matrix/client/v1/rooms/{}/timestamp_to_event?ts={ts}&dir={direction}", room.id)
        };
        let cases = [
            (now + 1, "f", Some((&one, 1_000))),
            (now + 1_000, "f", Some((&one, 1_000))),
            (now + 1_000, "b", Some((&two, 1_000))),
            (now + 1_999, "b", Some((&two, 1_000))),
            (now + 5_000, "b", Some((&three, 2_000))),
            (now + 5_000, "f", None),
            (now - 1, "b", None),
        ];
        for (ts, direction, expected) in cases {
            let (status, body) = room.alice.get(&path(ts, direction)).await;
            match expected {
                Some((event_id, after)) => {
                    assert_eq!(
                        body,
                        json!({ "event_id": event_id, "origin_server_ts": now + after }),
                        "{ts} {direction}"
                    );
                }
                None => assert_eq!((status, body["errcode"].as_str()), (404, Some("M_NOT_FOUND"))),
            }
        }
        let (status, body) = room.bob.get(&path(now, "f")).await;
        assert_eq!((status, body["errcode"].as_str()), (403, Some("M_FORBIDDEN")));
    })
    .await;
}

#[tokio::test]
async fn a_change_of_visibility_is_seen_by_those_who_see_what_was_before_or_what_comes_after() {
    in_a_room("shared", async |room| {
        room.post(&room.bob, "join", json!({})).await;
        let set = async |visibility: &str| {
            room.set(&room.alice, "m.room.history_visibility", json!({ "history_visibility": visibility })).await
        };
        room.post(&room.bob, "leave", json!({})).await;
        let closed = set("joined").await;
        let hidden = room.say(&room.alice, "hidden").await;
        let opened = set("world_readable").await;
        let closed_again = set("joined").await;
        let outsider = room.server.user("outsider").await;
        let not_found = (404, "M_NOT_FOUND".to_owned());
        for event in [&closed, &hidden] {
            assert_eq!(room.refusal(&outsider, &format!("event/{event}")).await, not_found);
        }
        for event in [&opened, &closed_again] {
            assert_eq!(room.see(&outsider, &format!("event/{event}")).await["type"], "m.room.history_visibility");
        }
    })
    .await;
}
