//! Unread counts: what counts for whom, in which timeline, and what takes it back.
//!
//! Each count is asked for four ways, and all must agree: from the start and since the last answer, threads apart and
//! together; the latter two mostly come from the window of recent changes.

use hearth_testkit::{User, Value, json, on_each_backend};

use super::*;

/// A client that watches a room's counts.
struct Watch<'a> {
    user: &'a User,
    room: &'a str,
    since: String,
    since_by_thread: String,
}

fn by_thread() -> Value {
    json!({ "room": { "timeline": { "unread_thread_notifications": true } } })
}

fn counts(part: &Value) -> (i64, i64) {
    let counts = &part["unread_notifications"];
    (counts["notification_count"].as_i64().unwrap_or(-1), counts["highlight_count"].as_i64().unwrap_or(-1))
}

impl<'a> Watch<'a> {
    async fn new(user: &'a User, room: &'a str) -> Self {
        let since = caught_up(user).await;
        Self { user, room, since_by_thread: since.clone(), since }
    }

    /// Notifications and highlights: in all; in the main timeline; in each thread.
    async fn expect(&mut self, all: (i64, i64), main: (i64, i64), threads: &[(&str, i64, i64)]) {
        let threads: Vec<(String, Value)> = threads
            .iter()
            .map(|(root, notify, highlight)| {
                ((*root).to_owned(), json!({ "notification_count": notify, "highlight_count": highlight }))
            })
            .collect();
        let threads = if threads.is_empty() { Value::Null } else { Value::Object(threads.into_iter().collect()) };
        let fresh = sync(self.user, Ask::default()).await;
        let fresh = part(&fresh, "join", self.room).clone();
        assert_eq!(counts(&fresh), all, "from the start");
        assert_eq!(fresh["unread_thread_notifications"], Value::Null);
        let fresh = sync(self.user, Ask::default().filter(by_thread())).await;
        let fresh = part(&fresh, "join", self.room).clone();
        assert_eq!(counts(&fresh), main, "from the start, threads apart");
        assert_eq!(fresh["unread_thread_notifications"], threads, "from the start");
        for turn in ["once", "again"] {
            let answer = sync(self.user, Ask::since(&self.since)).await;
            let news = part(&answer, "join", self.room);
            assert_eq!(counts(news), all, "since the last, {turn}: {answer}");
            let answer = sync(self.user, Ask::since(&self.since_by_thread).filter(by_thread())).await;
            let news = part(&answer, "join", self.room);
            assert_eq!(counts(news), main, "since the last, threads apart, {turn}");
            assert_eq!(news["unread_thread_notifications"], threads, "since the last, {turn}");
        }
        self.since = caught_up(self.user).await;
        self.since_by_thread = self.since.clone();
    }

    async fn expect_main(&mut self, notify: i64, highlight: i64) {
        self.expect((notify, highlight), (notify, highlight), &[]).await;
    }
}

pub(super) async fn send_content(user: &User, room: &str, kind: &str, txn_id: &str, content: Value) -> String {
    let (status, answer) = user.put(&room_path(room, &format!("send/{kind}/{txn_id}")), &content).await;
    assert_eq!(status, 200, "{answer}");
    answer["event_id"].as_str().expect("event_id").to_owned()
}

fn text(body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body })
}

fn related(rel: &str, to: &str, body: &str) -> Value {
    json!({ "msgtype": "m.text", "body": body, "m.relates_to": { "rel_type": rel, "event_id": to } })
}

pub(super) fn mentioning(body: &str, mentions: Value) -> Value {
    json!({ "msgtype": "m.text", "body": body, "m.mentions": mentions })
}

pub(super) async fn receipt(user: &User, room: &str, kind: &str, event_id: &str, body: Value) {
    act(user, room, &format!("receipt/{kind}/{}", encoded(event_id)), body).await;
}

pub(super) async fn set_rule(user: &User, rule: &str, body: Value) {
    let (status, answer) = user.put(&format!("/_matrix/client/v3/pushrules/global/{rule}"), &body).await;
    assert_eq!(status, 200, "{answer}");
}

pub(super) async fn ignore(user: &User, whom: &[&User]) {
    let list: std::collections::BTreeMap<&str, Value> =
        whom.iter().map(|user| (user.user_id.as_str(), json!({}))).collect();
    let path = format!("/_matrix/client/v3/user/{}/account_data/m.ignored_user_list", encoded(&user.user_id));
    assert_eq!(user.put(&path, &json!({ "ignored_users": list })).await.0, 200);
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn the_default_rules_say_what_counts() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        join(&carol, &room).await;
        let mut watch = Watch::new(&bob, &room).await;
        let event_id = send(&alice, &room, "1", "hello").await;
        watch.expect_main(1, 0).await;
        send_content(&alice, &room, "m.room.encrypted", "2", json!({ "algorithm": "x" })).await;
        watch.expect_main(2, 0).await;
        for (n, (kind, content)) in [
            ("m.room.message", json!({ "msgtype": "m.notice", "body": "beep" })),
            ("m.room.message", related("m.replace", &event_id, "edited")),
            ("m.reaction", json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": event_id, "key": "+" } })),
            ("org.example.other", json!({})),
        ]
        .into_iter()
        .enumerate()
        {
            send_content(&alice, &room, kind, &format!("quiet{n}"), content).await;
            watch.expect_main(2, 0).await;
        }
        set_state(&alice, &room, "m.room.topic", "", json!({ "topic": "t" })).await;
        watch.expect_main(2, 0).await;
        send_content(&alice, &room, "m.call.invite", "3", json!({ "call_id": "c" })).await;
        watch.expect_main(3, 0).await;
        set_state(&alice, &room, "m.room.tombstone", "", json!({ "body": "gone", "replacement_room": "!x:y" })).await;
        watch.expect_main(4, 1).await;
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn mentions_stand_out() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        join(&carol, &room).await;
        let (mut of_bob, mut of_carol) = (Watch::new(&bob, &room).await, Watch::new(&carol, &room).await);
        let of_whom = mentioning("you", json!({ "user_ids": [bob.user_id, "@nobody:hearth.test"] }));
        send_content(&alice, &room, "m.room.message", "1", of_whom).await;
        of_bob.expect_main(1, 1).await;
        of_carol.expect_main(1, 0).await;
        send_content(&alice, &room, "m.room.message", "2", mentioning("all", json!({ "room": true }))).await;
        of_bob.expect_main(2, 2).await;
        of_carol.expect_main(2, 1).await;
        // Who may not notify the room only writes to it.
        send_content(&carol, &room, "m.room.message", "3", mentioning("all", json!({ "room": true }))).await;
        of_bob.expect_main(3, 2).await;
        of_carol.expect_main(0, 0).await;
        // A notice that mentions is a notice.
        let notice = json!({ "msgtype": "m.notice", "body": "x", "m.mentions": { "user_ids": [bob.user_id] } });
        send_content(&alice, &room, "m.room.message", "4", notice).await;
        of_bob.expect_main(3, 2).await;
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
#[tokio::test]
async fn threads_count_apart_and_are_read_apart() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let mut watch = Watch::new(&bob, &room).await;
        let root = send(&alice, &room, "a", "root").await;
        let first = send_content(&alice, &room, "m.room.message", "b", related("m.thread", &root, "first")).await;
        let mut mention = related("m.thread", &root, "second");
        mention["m.mentions"] = json!({ "user_ids": [bob.user_id] });
        send_content(&alice, &room, "m.room.message", "c", mention).await;
        let main = mentioning("main", json!({ "user_ids": [bob.user_id] }));
        let main = send_content(&alice, &room, "m.room.message", "d", main).await;
        let last = send_content(&alice, &room, "m.room.message", "e", related("m.thread", &root, "end")).await;
        let reference = send_content(&alice, &room, "m.room.message", "f", related("m.reference", &root, "ref")).await;
        let reaction = json!({ "m.relates_to": { "rel_type": "m.annotation", "event_id": reference, "key": "t" } });
        let reaction = send_content(&alice, &room, "m.reaction", "g", reaction).await;
        watch.expect((6, 2), (3, 1), &[(&root, 3, 1)]).await;

        receipt(&bob, &room, "m.read", &root, json!({ "thread_id": "main" })).await;
        watch.expect((5, 2), (2, 1), &[(&root, 3, 1)]).await;
        receipt(&bob, &room, "m.read", &first, json!({ "thread_id": root })).await;
        watch.expect((4, 2), (2, 1), &[(&root, 2, 1)]).await;
        // Without a thread it is for all of them, and a private one does the same.
        receipt(&bob, &room, "m.read.private", &main, json!({})).await;
        watch.expect((2, 0), (1, 0), &[(&root, 1, 0)]).await;
        receipt(&bob, &room, "m.read", &reaction, json!({ "thread_id": root })).await;
        watch.expect((1, 0), (1, 0), &[]).await;

        // What relates to a reply is in its thread, too.
        send_content(&alice, &room, "m.room.message", "h", related("m.reference", &last, "on it")).await;
        watch.expect((2, 0), (1, 0), &[(&root, 1, 0)]).await;
        // Bob's own message reads its own timeline only.
        send(&bob, &room, "i", "mine").await;
        watch.expect((1, 0), (0, 0), &[(&root, 1, 0)]).await;
        send_content(&alice, &room, "m.room.message", "j", text("more")).await;
        send_content(&bob, &room, "m.room.message", "k", related("m.thread", &root, "mine")).await;
        watch.expect((1, 0), (1, 0), &[]).await;
        // A second thread, before and after a receipt for everything.
        let other = send(&alice, &room, "l", "other").await;
        send_content(&alice, &room, "m.room.message", "m", related("m.thread", &other, "1")).await;
        let upto = send_content(&alice, &room, "m.room.message", "n", related("m.thread", &other, "2")).await;
        send_content(&alice, &room, "m.room.message", "o", related("m.thread", &other, "3")).await;
        watch.expect((5, 0), (2, 0), &[(&other, 3, 0)]).await;
        receipt(&bob, &room, "m.read", &upto, json!({})).await;
        watch.expect((1, 0), (0, 0), &[(&other, 1, 0)]).await;
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}
#[tokio::test]
async fn the_receipt_that_is_further_ahead_counts() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let mut events = Vec::new();
        for n in 0..4 {
            events.push(send(&alice, &room, &n.to_string(), "hi").await);
        }
        let mut watch = Watch::new(&bob, &room).await;
        receipt(&bob, &room, "m.read", &events[2], json!({})).await;
        watch.expect_main(1, 0).await;
        receipt(&bob, &room, "m.read.private", &events[0], json!({})).await;
        watch.expect_main(1, 0).await;
        receipt(&bob, &room, "m.read.private", &events[3], json!({})).await;
        watch.expect_main(0, 0).await;
        send(&alice, &room, "x", "more").await;
        watch.expect_main(1, 0).await;
        // A change of one's profile is no sign of having read.
        let path = format!("/_matrix/client/v3/profile/{}/displayname", encoded(&bob.user_id));
        assert_eq!(bob.put(&path, &json!({ "displayname": "Bobby" })).await.0, 200);
        send(&alice, &room, "y", "more").await;
        watch.expect_main(2, 0).await;
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}
#[tokio::test]
async fn what_is_redacted_counts_no_more() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let mut watch = Watch::new(&bob, &room).await;
        let read = send(&alice, &room, "1", "read").await;
        receipt(&bob, &room, "m.read", &read, json!({})).await;
        let plain = send(&alice, &room, "2", "plain").await;
        let mention = mentioning("you", json!({ "user_ids": [bob.user_id] }));
        let mention = send_content(&alice, &room, "m.room.message", "3", mention).await;
        let all = mentioning("all", json!({ "room": true }));
        let all = send_content(&alice, &room, "m.room.message", "4", all).await;
        let reply = send_content(&alice, &room, "m.room.message", "5", related("m.thread", &plain, "reply")).await;
        watch.expect((4, 2), (3, 2), &[(&plain, 1, 0)]).await;
        redact(&alice, &room, &read, "r0").await;
        watch.expect((4, 2), (3, 2), &[(&plain, 1, 0)]).await;
        redact(&alice, &room, &mention, "r1").await;
        watch.expect((3, 1), (2, 1), &[(&plain, 1, 0)]).await;
        redact(&alice, &room, &all, "r2").await;
        watch.expect((2, 0), (1, 0), &[(&plain, 1, 0)]).await;
        redact(&alice, &room, &reply, "r3").await;
        watch.expect((1, 0), (1, 0), &[]).await;
        redact(&alice, &room, &plain, "r4").await;
        redact(&alice, &room, &plain, "r5").await;
        watch.expect_main(0, 0).await;
        send(&alice, &room, "6", "more").await;
        watch.expect_main(1, 0).await;
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
#[tokio::test]
async fn a_muted_room_is_quiet_at_once() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let mut watch = Watch::new(&bob, &room).await;
        send(&alice, &room, "1", "hello").await;
        watch.expect_main(1, 0).await;
        // Mentions only.
        let rule = format!("room/{}", encoded(&room));
        set_rule(&bob, &rule, json!({ "actions": [] })).await;
        watch.expect_main(0, 0).await;
        send(&alice, &room, "2", "hello").await;
        watch.expect_main(0, 0).await;
        let mention = mentioning("you", json!({ "user_ids": [bob.user_id] }));
        send_content(&alice, &room, "m.room.message", "3", mention.clone()).await;
        send_content(&alice, &room, "m.room.message", "4", mentioning("all", json!({ "room": true }))).await;
        watch.expect_main(2, 2).await;
        send(&alice, &room, "5", "hello").await;
        watch.expect_main(2, 2).await;
        // Nothing at all.
        let condition = json!({ "kind": "event_match", "key": "room_id", "pattern": room });
        set_rule(&bob, "override/quiet", json!({ "actions": [], "conditions": [condition] })).await;
        let seen = send_content(&alice, &room, "m.room.message", "6", mention).await;
        receipt(&bob, &room, "m.read", &seen, json!({})).await;
        watch.expect_main(0, 0).await;
        send(&alice, &room, "7", "hello").await;
        watch.expect_main(0, 0).await;
        // And all again.
        assert_eq!(bob.delete("/_matrix/client/v3/pushrules/global/override/quiet").await.0, 200);
        assert_eq!(bob.delete(&format!("/_matrix/client/v3/pushrules/global/{rule}")).await.0, 200);
        watch.expect_main(1, 0).await;
        send(&alice, &room, "8", "hello").await;
        watch.expect_main(2, 0).await;
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/pushrules/global/{kind}/{ruleId}
#[tokio::test]
async fn rules_of_ones_own_count_as_they_say() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        join(&carol, &room).await;
        let highlight = json!(["notify", { "set_tweak": "highlight" }]);
        set_rule(&bob, "content/cake", json!({ "actions": highlight, "pattern": "cake" })).await;
        set_rule(&bob, &format!("sender/{}", encoded(&carol.user_id)), json!({ "actions": [] })).await;
        let topic = json!([{ "kind": "event_match", "key": "type", "pattern": "m.room.topic" }]);
        set_rule(&bob, "override/topic", json!({ "actions": ["notify"], "conditions": topic })).await;
        let name = json!([{ "kind": "contains_display_name" }]);
        set_rule(&bob, "underride/name", json!({ "actions": highlight, "conditions": name })).await;
        let mut watch = Watch::new(&bob, &room).await;
        send(&alice, &room, "1", "Cake, anyone?").await;
        watch.expect_main(1, 1).await;
        send(&alice, &room, "2", "cakes").await;
        watch.expect_main(2, 1).await;
        send(&carol, &room, "3", "not heard").await;
        watch.expect_main(2, 1).await;
        send(&carol, &room, "4", "but cake").await;
        watch.expect_main(3, 2).await;
        set_state(&alice, &room, "m.room.topic", "", json!({ "topic": "t" })).await;
        watch.expect_main(4, 2).await;
        send(&alice, &room, "5", "hey bob").await;
        watch.expect_main(5, 3).await;
        // Only what is said after a rule is there is held against it.
        set_rule(&bob, "override/.m.rule.master/enabled", json!({ "enabled": true })).await;
        watch.since = caught_up(&bob).await;
        send(&alice, &room, "6", "cake").await;
        watch.since_by_thread.clone_from(&watch.since);
        assert_eq!(counts(part(&sync(&bob, Ask::since(&watch.since)).await, "join", &room)).0, 4);
    })
    .await;
}

// endpoint: PUT /_matrix/client/v3/user/{userId}/account_data/{type}
#[tokio::test]
async fn whom_one_ignores_does_not_count() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        join(&carol, &room).await;
        ignore(&bob, &[&carol]).await;
        let mut watch = Watch::new(&bob, &room).await;
        let mention = mentioning("you", json!({ "user_ids": [bob.user_id] }));
        send_content(&carol, &room, "m.room.message", "1", mention.clone()).await;
        send(&alice, &room, "2", "hello").await;
        watch.expect_main(1, 0).await;
        ignore(&bob, &[]).await;
        send_content(&carol, &room, "m.room.message", "3", mention).await;
        watch.expect_main(2, 1).await;
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn who_comes_in_has_read_everything() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        let root = send(&alice, &room, "1", "before").await;
        send_content(&alice, &room, "m.room.message", "2", related("m.thread", &root, "before")).await;
        join(&bob, &room).await;
        let mut watch = Watch::new(&bob, &room).await;
        let mention = mentioning("you", json!({ "user_ids": [bob.user_id] }));
        send_content(&alice, &room, "m.room.message", "3", mention.clone()).await;
        send_content(&alice, &room, "m.room.message", "4", related("m.thread", &root, "hi")).await;
        watch.expect((2, 1), (1, 1), &[(&root, 1, 0)]).await;
        leave(&bob, &room).await;
        send_content(&alice, &room, "m.room.message", "5", mention).await;
        join(&bob, &room).await;
        watch.expect_main(0, 0).await;
        send(&alice, &room, "6", "hi").await;
        watch.expect_main(1, 0).await;
    })
    .await;
}
