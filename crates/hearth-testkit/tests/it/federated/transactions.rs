//! What servers send of their own accord.

use hearth_testkit::{Federation, json, on_each_backend_together};

use super::*;

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn events_of_another_server_come_in_if_they_are_genuine() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let said = send(&bob, &room, "hello").await;
        let good = pdu(&federation, 1, &room, &said).await;
        let mut forged = good.clone();
        forged["origin_server_ts"] = json!(7);
        let mut elsewhere = good.clone();
        elsewhere["room_id"] = json!("!elsewhere:other.test");
        let pdus = json!([forged, elsewhere, good, { "type": 5 }, {}]);
        let (status, answer) = transaction(&federation, 1, 0, "t1", pdus.clone(), json!([])).await;
        assert_eq!((status, &answer["pdus"][&said]), (200, &json!({})), "{answer}");
        // The forged one has another id: it is refused under that.
        let refused = answer["pdus"].as_object().unwrap().values().filter(|outcome| outcome["error"].is_string());
        assert_eq!(refused.count(), 1, "{answer}");
        assert_eq!(arrives(&alice, &room, &said).await["content"]["body"], "hello");
        assert_eq!(transaction(&federation, 1, 0, "t1", json!([]), json!([])).await, (200, answer));

        // A stranger's server may pass on what a member's server signed, but not sign for it.
        let passed_on = send(&bob, &room, "passed on").await;
        let event = pdu(&federation, 1, &room, &passed_on).await;
        assert_eq!(transaction(&federation, 2, 0, "t1", json!([event]), json!([])).await.0, 200);
        arrives(&alice, &room, &passed_on).await;

        let many = |count: usize| Value::Array(vec![json!({}); count]);
        for (pdus, edus) in [(many(51), many(0)), (many(0), many(101))] {
            let (status, answer) = transaction(&federation, 1, 0, "many", pdus, edus).await;
            assert_eq!((status, &answer["errcode"]), (400, &json!("M_INVALID_PARAM")), "{answer}");
        }
        let (status, answer) = transaction(&federation, 1, 0, "endless", many(5_000), many(0)).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!("M_BAD_JSON")), "{answer}");
        let other = json!({ "origin": federation.name(2), "origin_server_ts": 1, "pdus": [] });
        let path = "/_matrix/federation/v1/send/other";
        assert_eq!(ask(&federation, 1, 0, "PUT", path, Some(other)).await.0, 403);
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn typing_receipts_and_presence_come_in_of_the_servers_own_users_only() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let eve = federation.servers[1].user("eve").await;
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let said = send(&alice, &room, "read me").await;
        let (_, begin) = alice.get("/_matrix/client/v3/sync").await;
        let typing = |user: &str| {
            json!({ "edu_type": "m.typing", "content": { "room_id": room, "user_id": user, "typing": true } })
        };
        let receipt = |user: &str| json!({ user: { "event_ids": [said], "data": { "ts": 1234 } } });
        let receipts = |user: &str| {
            json!({ "edu_type": "m.receipt", "content": { &room: { "m.read": receipt(user) } } })
        };
        let presence = |user: &str| {
            let one = json!({ "user_id": user, "presence": "unavailable", "status_msg": "at tea", "last_active_ago": 5 });
            json!({ "edu_type": "m.presence", "content": { "push": [one] } })
        };
        let mut edus = vec![json!({ "edu_type": "org.example.unknown", "content": {} }), json!({ "edu_type": "m.typing" })];
        for user in [&alice.user_id, &eve.user_id, &bob.user_id] {
            edus.extend([typing(user), receipts(user), presence(user)]);
        }
        let (status, answer) = transaction(&federation, 1, 0, "t1", json!([]), json!(edus)).await;
        assert_eq!((status, answer), (200, json!({ "pdus": {} })));

        let found = hearth_testkit::until_some("all three show", async || {
            let path = format!("/_matrix/client/v3/sync?since={}", begin["next_batch"].as_str().unwrap());
            let (_, answer) = alice.get(&path).await;
            let ephemeral = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?.clone();
            let of = |kind: &str| ephemeral.iter().find(|event| event["type"] == kind).map(|event| event["content"].clone());
            let present = answer["presence"]["events"].as_array()?.iter();
            let mut shown = present.filter(|event| event["sender"] == bob.user_id.as_str()).map(|event| event["content"].clone());
            Some((of("m.typing")?, of("m.receipt")?, shown.next_back()?))
        })
        .await;
        assert_eq!(found.0, json!({ "user_ids": [bob.user_id] }));
        assert_eq!(found.1, json!({ &said: { "m.read": { &bob.user_id: { "ts": 1234 } } } }));
        assert_eq!((&found.2["presence"], &found.2["status_msg"]), (&json!("unavailable"), &json!("at tea")));
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
// endpoint: GET /_matrix/client/v3/presence/{userId}/status
// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn whether_somebody_is_active_is_what_his_server_says() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let mut since = token(&sync(&alice, None).await);
        let path = format!("/_matrix/client/v3/presence/{}/status", encoded(&bob.user_id));
        for (n, active) in [None, Some(true), Some(false)].into_iter().enumerate() {
            let mut one = json!({ "user_id": bob.user_id, "presence": "online", "last_active_ago": 120_000 });
            if let Some(active) = active {
                one["currently_active"] = json!(active);
            }
            let edu = json!({ "edu_type": "m.presence", "content": { "push": [one] } });
            let (status, _) = transaction(&federation, 1, 0, &format!("p{n}"), json!([]), json!([edu])).await;
            assert_eq!(status, 200);
            let (wanted, before) = (active.unwrap_or(false), since.clone());
            let shown = hearth_testkit::until_some("it is news", async || {
                let answer = sync(&alice, Some(&before)).await;
                let shown = answer["presence"]["events"].as_array()?.iter().rfind(|it| it["sender"] == bob.user_id)?;
                Some((token(&answer), shown["content"].clone()))
            });
            let (next, content) = shown.await;
            since = next;
            assert_eq!((&content["presence"], &content["currently_active"]), (&json!("online"), &json!(wanted)));
            assert_eq!(alice.get(&path).await.1["currently_active"], json!(wanted));
        }
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_receipt_may_come_with_its_event() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        federation.links[0].cut();
        let said = send(&bob, &room, "I have read what I say").await;
        federation.links[0].heal();
        let event = pdu(&federation, 1, &room, &said).await;
        let receipt = json!({ &bob.user_id: { "event_ids": [said], "data": { "ts": 1234 } } });
        let edu = json!({ "edu_type": "m.receipt", "content": { &room: { "m.read": receipt } } });
        federation.time.advance(3_600_000);
        let (status, answer) = transaction(&federation, 1, 0, "t1", json!([event]), json!([edu])).await;
        assert_eq!(status, 200, "{answer}");
        until("the receipt shows", async || {
            let (_, answer) = alice.get("/_matrix/client/v3/sync").await;
            let ephemeral =
                answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
            ephemeral.iter().any(|event| event["content"][&said]["m.read"][&bob.user_id]["ts"] == 1234)
        })
        .await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_receipt_that_comes_before_its_event_waits_for_it_and_nothing_is_written_meanwhile() {
    on_each_backend_together(3, async |mut federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[2].user("carol").await;
        let room = public_room(&alice).await;
        for user in [&bob, &carol] {
            must_join_via(user, &room, &federation.name(0)).await;
        }
        federation.links[0].cut();
        let said = send(&bob, &room, "read me").await;
        arrives(&carol, &room, &said).await;
        let event = pdu(&federation, 1, &room, &said).await;
        // Nobody but the third server tells the first of it.
        federation.servers[1].stop().await;
        federation.links[0].heal();
        federation.time.advance(60_000);
        let store = &federation.servers[0].running().doors().store;
        let position = async || store.read(|tx| tx.position()).await.expect("the store answers");
        let before = position().await;
        let receipt = json!({ &carol.user_id: { "event_ids": [said], "data": { "ts": 1234 } } });
        let edu = json!({ "edu_type": "m.receipt", "content": { &room: { "m.read": receipt } } });
        let (status, _) = transaction(&federation, 2, 0, "early", json!([]), json!([edu])).await;
        assert_eq!((status, position().await), (200, before));
        let shown = async || {
            let ephemeral = sync(&alice, None).await["rooms"]["join"][&room]["ephemeral"]["events"].clone();
            let events = ephemeral.as_array().cloned().unwrap_or_default();
            events.iter().any(|event| event["content"][&said]["m.read"][&carol.user_id]["ts"] == 1234)
        };
        assert!(!shown().await);
        assert_eq!(transaction(&federation, 2, 0, "event", json!([event]), json!([])).await.0, 200);
        until("the receipt shows", shown).await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn presence_that_cannot_be_read_takes_no_other_along_and_ends_if_nothing_more_comes() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let eve = federation.servers[1].user("eve").await;
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    must_join_via(&eve, &room, &federation.name(0)).await;
    until("both are in", async || membership(&alice, &room, &eve.user_id).await == "join").await;
    let push = json!([
        { "user_id": "no user", "presence": "online" },
        { "user_id": eve.user_id, "presence": "unavailable", "last_active_ago": 5_000_000_000_i64 },
        { "user_id": bob.user_id, "presence": "busy with life" },
        { "user_id": bob.user_id, "presence": "unavailable", "last_active_ago": -1 },
    ]);
    let edu = json!({ "edu_type": "m.presence", "content": { "push": push } });
    assert_eq!(transaction(&federation, 1, 0, "p", json!([]), json!([edu])).await.0, 200);
    let state = async |of: &User| {
        let (_, told) = alice.get(&format!("/_matrix/client/v3/presence/{}/status", encoded(&of.user_id))).await;
        told["presence"].clone()
    };
    for user in [&bob, &eve] {
        until("he is seen", async || state(user).await == "unavailable").await;
    }
    federation.time.advance(29 * 60_000);
    assert_eq!(state(&eve).await, "unavailable");
    federation.time.advance(60_000);
    assert_eq!(state(&eve).await, "offline");
}
