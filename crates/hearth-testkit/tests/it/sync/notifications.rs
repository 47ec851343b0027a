//! `/notifications`, and what is kept from those who ignore its sender.

use hearth_testkit::{User, Value, json, on_each_backend};

use super::unread::{ignore, mentioning, receipt, send_content, set_rule};
use super::*;

async fn page(user: &User, query: &str) -> Value {
    let (status, answer) = user.get(&format!("/_matrix/client/v3/notifications{query}")).await;
    assert_eq!(status, 200, "{answer}");
    answer
}

/// Bodies, and whether they were read.
fn gist(page: &Value) -> Vec<(&str, bool)> {
    let notifications = page["notifications"].as_array().expect("notifications");
    notifications
        .iter()
        .map(|notification| {
            let body = notification["event"]["content"]["body"].as_str().unwrap_or("?");
            (body, notification["read"].as_bool().expect("read"))
        })
        .collect()
}

// endpoint: GET /_matrix/client/v3/notifications
#[tokio::test]
async fn what_notified_is_listed_newest_first() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let (one, two) = (public_room(&alice).await, public_room(&alice).await);
        send(&alice, &one, "0", "before").await;
        join(&bob, &one).await;
        join(&bob, &two).await;
        let read = send(&alice, &one, "1", "first").await;
        let mention = mentioning("second", json!({ "user_ids": [bob.user_id] }));
        send_content(&alice, &two, "m.room.message", "2", mention).await;
        receipt(&bob, &one, "m.read", &read, json!({})).await;
        send(&bob, &two, "3", "own").await;
        send(&alice, &one, "4", "third").await;
        let notice = json!({ "msgtype": "m.notice", "body": "notice" });
        send_content(&alice, &one, "m.room.message", "5", notice).await;
        let gone = send(&alice, &one, "6", "gone").await;
        redact(&alice, &one, &gone, "7").await;
        send_content(&alice, &two, "m.room.message", "8", mentioning("fourth", json!({ "room": true }))).await;

        let all = page(&bob, "").await;
        assert_eq!(gist(&all), [("fourth", false), ("third", false), ("second", true), ("first", true)]);
        assert_eq!(all["next_token"], Value::Null);
        let third = &all["notifications"][1];
        // Two members: a room of two.
        assert_eq!(third["actions"], json!(["notify", { "set_tweak": "sound", "value": "default" }]));
        assert_eq!(third["room_id"], json!(one));
        assert_eq!(third["event"]["sender"], json!(alice.user_id));
        assert!(third["ts"].is_i64() && third["event"]["event_id"].is_string());
        let actions = json!(["notify", { "set_tweak": "sound", "value": "default" }, { "set_tweak": "highlight" }]);
        assert_eq!(all["notifications"][2]["actions"], actions);
        assert_eq!(gist(&page(&bob, "?only=highlight").await), [("fourth", false), ("second", true)]);

        let (mut bodies, mut from) = (Vec::new(), String::new());
        loop {
            let page = page(&bob, &format!("?limit=1&from={from}")).await;
            bodies.extend(gist(&page).into_iter().map(|(body, _)| body.to_owned()));
            match page["next_token"].as_str() {
                Some(next) => from = next.to_owned(),
                None => break,
            }
        }
        assert_eq!(bodies, ["fourth", "third", "second", "first"]);

        // Of a muted room only what is meant for him.
        set_rule(&bob, &format!("room/{}", encoded(&one)), json!({ "actions": [] })).await;
        assert_eq!(gist(&page(&bob, "").await), [("fourth", false), ("second", true)]);
        assert_eq!(gist(&page(&alice, "").await), [("own", true)]);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/rooms/{roomId}/messages
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/context/{eventId}
#[tokio::test]
async fn whom_one_ignores_one_does_not_read() {
    on_each_backend(async |server| {
        let (alice, bob, carol) = (server.user("alice").await, server.user("bob").await, server.user("carol").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        join(&carol, &room).await;
        send(&carol, &room, "1", "spam").await;
        let ham = send(&alice, &room, "2", "ham").await;
        let spam = send(&carol, &room, "3", "more spam").await;
        let see = async |path: &str| bob.get(&room_path(&room, path)).await;
        let bodies = |events: &Value| -> Vec<String> {
            let events = events.as_array().expect("events").iter();
            events.filter_map(|event| Some(event["content"]["body"].as_str()?.to_owned())).collect()
        };
        assert_eq!(bodies(&see("messages?dir=b&limit=50").await.1["chunk"]), ["more spam", "ham", "spam"]);
        ignore(&bob, &[&carol]).await;
        let (_, messages) = see("messages?dir=b&limit=50").await;
        assert_eq!(bodies(&messages["chunk"]), ["ham"]);
        // State they made is seen.
        let joins = messages["chunk"].as_array().unwrap().iter().filter(|event| event["state_key"] == carol.user_id);
        assert_eq!(joins.count(), 1);
        let (_, context) = see(&format!("context/{}?limit=20", encoded(&ham))).await;
        assert!(bodies(&context["events_before"]).is_empty() && bodies(&context["events_after"]).is_empty());
        assert_eq!(see(&format!("event/{}", encoded(&spam))).await.0, 404);
        ignore(&bob, &[]).await;
        assert_eq!(see(&format!("event/{}", encoded(&spam))).await.0, 200);
    })
    .await;
}
