//! What users do reaches the servers of those they share rooms with, sooner or later, whole and in order.

use hearth_testkit::{Federation, json, on_each_backend_together, until_some};

use super::*;

/// The bodies of a room's messages, oldest first.
async fn bodies(user: &User, room: &str) -> Vec<String> {
    let (status, page) = user.get(&room_path(room, "messages?dir=b&limit=1000")).await;
    assert_eq!(status, 200, "{page}");
    let events = page["chunk"].as_array().expect("a list").iter().rev();
    events.filter_map(|event| event["content"]["body"].as_str().map(str::to_owned)).collect()
}

async fn until_bodies(user: &User, room: &str, expected: &[String]) {
    until("all messages are there, in order", async || bodies(user, room).await == expected).await;
}

async fn until_member(user: &User, room: &str, of: &str, what: &str) {
    until(&format!("{of} is {what}"), async || membership(user, room, of).await == what).await;
}

async fn until_same_state(one: &User, other: &User, room: &str) {
    until("the same state", async || state(one, room).await == state(other, room).await).await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn two_servers_talk() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let mut expected = Vec::new();
        for n in 0..20 {
            let (from, to) = if n % 2 == 0 { (&alice, &bob) } else { (&bob, &alice) };
            expected.push(format!("message {n}"));
            let event_id = send(from, &room, &expected[n]).await;
            arrives(to, &room, &event_id).await;
        }
        until_bodies(&bob, &room, &expected).await;
        until_bodies(&alice, &room, &expected).await;
        set_state(&alice, &room, "m.room.name", json!({ "name": "Ours" })).await;
        until_same_state(&alice, &bob, &room).await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_third_server_hears_of_who_comes_and_goes() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[2].user("carol").await;
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        // The first server let the third one in, and tells the second.
        must_join_via(&carol, &room, &federation.name(0)).await;
        until_member(&bob, &room, &carol.user_id, "join").await;
        let event_id = send(&carol, &room, "hello").await;
        arrives(&bob, &room, &event_id).await;
        arrives(&alice, &room, &event_id).await;
        // The last member of a server still hears that he was shown out, and nothing afterwards.
        let (status, _) = alice.post(&room_path(&room, "kick"), &json!({ "user_id": carol.user_id })).await;
        assert_eq!(status, 200);
        until("carol is out", async || {
            let (_, rooms) = carol.get("/_matrix/client/v3/joined_rooms").await;
            rooms["joined_rooms"] == json!([])
        })
        .await;
        let after = send(&alice, &room, "after").await;
        arrives(&bob, &room, &after).await;
        let known = federation.servers[2]
            .running()
            .doors()
            .rooms
            .event(room.as_str().try_into().expect("a room id"), after.as_str().try_into().expect("an event id"));
        assert!(known.await.expect("the store answers").is_none());
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn what_is_said_while_a_server_is_away_arrives_later() {
    on_each_backend_together(3, async |mut federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[2].user("carol").await;
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        must_join_via(&carol, &room, &federation.name(0)).await;
        until_member(&bob, &room, &carol.user_id, "join").await;
        federation.links[1].cut();
        let mut expected: Vec<String> = Vec::new();
        for n in 0..70 {
            expected.push(format!("message {n}"));
            let event_id = send(&alice, &room, &expected[n]).await;
            // Who is there is not kept waiting by who is not.
            arrives(&carol, &room, &event_id).await;
        }
        // Over a restart nothing is forgotten.
        federation.restart(0).await;
        let alice = alice.at(federation.servers[0].target().clone());
        federation.links[1].heal();
        federation.time.advance(3_600_000);
        until_bodies(&bob, &room, &expected).await;
        assert_eq!(bodies(&carol, &room).await, expected);
        expected.push("and on".to_owned());
        send(&alice, &room, "and on").await;
        until_bodies(&bob, &room, &expected).await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn what_is_said_to_a_server_that_is_ill_or_slow_arrives() {
    let federation = Federation::start(3).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let carol = federation.servers[2].user("carol").await;
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    must_join_via(&carol, &room, &federation.name(0)).await;
    until_member(&bob, &room, &carol.user_id, "join").await;
    federation.links[1].fail();
    let first = send(&alice, &room, "while you are ill").await;
    arrives(&carol, &room, &first).await;
    let name = hearth_matrix::ruma::ServerName::parse(federation.name(1)).expect("a server name");
    until("the server is known to be ill", async || {
        let there = federation.servers[0].running().doors().remote.destination(&name).await;
        let there = there.expect("the store answers").filter(|there| there.failures > 0);
        there.and_then(|there| there.last_error).is_some_and(|error| error.contains("500"))
    })
    .await;
    federation.links[1].slow(std::time::Duration::from_millis(200));
    federation.time.advance(3_600_000);
    let second = send(&alice, &room, "while you are slow").await;
    // Who is well does not wait for who is slow.
    arrives(&carol, &room, &second).await;
    until_bodies(&bob, &room, &["while you are ill".to_owned(), "while you are slow".to_owned()]).await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_sign_of_life_ends_the_wait() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    federation.links[1].cut();
    let waited = send(&alice, &room, "can you hear me?").await;
    let remote = &federation.servers[0].running().doors().remote;
    let name = hearth_matrix::ruma::ServerName::parse(federation.name(1)).expect("a server name");
    until("the server is known to be away", async || {
        remote.destination(&name).await.expect("the store answers").is_some_and(|there| there.failures > 0)
    })
    .await;
    federation.links[1].heal();
    // The clock stands still: only what comes from there can end it.
    send(&bob, &room, "I am here").await;
    arrives(&bob, &room, &waited).await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn typing_receipts_and_presence_go_out() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let said = send(&alice, &room, "read me").await;
        arrives(&bob, &room, &said).await;
        let (_, begin) = alice.get("/_matrix/client/v3/sync").await;
        let path = format!("typing/{}", encoded(&bob.user_id));
        assert_eq!(bob.put(&room_path(&room, &path), &json!({ "typing": true, "timeout": 60000 })).await.0, 200);
        let path = format!("receipt/m.read/{}", encoded(&said));
        assert_eq!(bob.post(&room_path(&room, &path), &json!({ "thread_id": "main" })).await.0, 200);
        let path = format!("receipt/m.read.private/{}", encoded(&said));
        assert_eq!(bob.post(&room_path(&room, &path), &json!({})).await.0, 200);
        let path = format!("/_matrix/client/v3/presence/{}/status", encoded(&bob.user_id));
        assert_eq!(bob.put(&path, &json!({ "presence": "unavailable", "status_msg": "at tea" })).await.0, 200);

        let since = begin["next_batch"].as_str().expect("a token").to_owned();
        let found = until_some("all three arrive", async || {
            let (_, answer) = alice.get(&format!("/_matrix/client/v3/sync?since={since}")).await;
            let ephemeral = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array()?.clone();
            let of =
                |kind: &str| ephemeral.iter().find(|event| event["type"] == kind).map(|event| event["content"].clone());
            let mut presence = answer["presence"]["events"].as_array()?.iter();
            let shown = presence.find(|event| event["sender"] == bob.user_id.as_str())?["content"].clone();
            Some((of("m.typing")?, of("m.receipt")?, shown))
        })
        .await;
        assert_eq!(found.0, json!({ "user_ids": [bob.user_id] }));
        let receipts = &found.1[&said];
        assert_eq!(receipts["m.read"][&bob.user_id]["thread_id"], "main");
        assert!(receipts.get("m.read.private").is_none());
        assert_eq!((&found.2["presence"], &found.2["status_msg"]), (&json!("unavailable"), &json!("at tea")));

        let path = format!("typing/{}", encoded(&bob.user_id));
        assert_eq!(bob.put(&room_path(&room, &path), &json!({ "typing": false })).await.0, 200);
        until("he types no more", async || {
            let (_, answer) = alice.get(&format!("/_matrix/client/v3/sync?since={since}")).await;
            let ephemeral =
                answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
            ephemeral.iter().any(|event| event["type"] == "m.typing" && event["content"]["user_ids"] == json!([]))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_receipt_that_did_not_arrive_is_told_also_after_a_restart() {
    on_each_backend_together(2, async |mut federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let said = send(&alice, &room, "read me").await;
        arrives(&bob, &room, &said).await;
        let answered = send(&bob, &room, "I will").await;
        arrives(&alice, &room, &answered).await;
        let (_, begin) = alice.get("/_matrix/client/v3/sync").await;
        federation.links[0].cut();
        let path = format!("receipt/m.read/{}", encoded(&said));
        assert_eq!(bob.post(&room_path(&room, &path), &json!({})).await.0, 200);
        let name = hearth_matrix::ruma::ServerName::parse(federation.name(0)).expect("a server name");
        until("the server is known to be away", async || {
            let remote = &federation.servers[1].running().doors().remote;
            remote.destination(&name).await.expect("the store answers").is_some_and(|there| there.failures > 0)
        })
        .await;
        federation.restart(1).await;
        federation.links[0].heal();
        // No event follows: the receipt alone must be missed.
        federation.time.advance(3_600_000);
        let since = begin["next_batch"].as_str().expect("a token").to_owned();
        until("the receipt arrives", async || {
            let (_, answer) = alice.get(&format!("/_matrix/client/v3/sync?since={since}")).await;
            let events = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
            events.iter().any(|event| event["content"][&said]["m.read"][&bob.user_id].is_object())
        })
        .await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn what_two_servers_change_apart_is_resolved_alike() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        for version in ["6", "11", "12"] {
            let levels = json!({ "users": { &alice.user_id: 100, &bob.user_id: 50 } });
            let levels = if version == "12" { json!({ "users": { &bob.user_id: 50 } }) } else { levels };
            let options = json!({
                "preset": "public_chat", "room_version": version, "power_level_content_override": levels,
            });
            let room = create_room(&alice, options).await;
            must_join_via(&bob, &room, &federation.name(0)).await;
            federation.links.iter().for_each(|link| link.cut());
            for n in 0..3 {
                set_state(&alice, &room, "m.room.topic", json!({ "topic": format!("alice {n}") })).await;
                set_state(&bob, &room, "m.room.topic", json!({ "topic": format!("bob {n}") })).await;
            }
            set_state(&bob, &room, "m.room.name", json!({ "name": "Bob's" })).await;
            federation.links.iter().for_each(|link| link.heal());
            federation.time.advance(3_600_000);
            let (hers, his) = (send(&alice, &room, "again").await, send(&bob, &room, "here").await);
            arrives(&bob, &room, &hers).await;
            arrives(&alice, &room, &his).await;
            until_same_state(&alice, &bob, &room).await;
            assert_eq!(alice.get(&room_path(&room, "state/m.room.name/")).await.1["name"], "Bob's");
        }
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn the_last_of_a_server_hears_that_he_is_banned() {
    on_each_backend_together(2, async |federation| {
        let alice = federation.servers[0].user("alice").await;
        let (bob, carol) = (federation.servers[1].user("bob").await, federation.servers[1].user("carol").await);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        must_join_via(&carol, &room, &federation.name(0)).await;
        until_member(&alice, &room, &carol.user_id, "join").await;
        assert_eq!(bob.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
        until_member(&alice, &room, &bob.user_id, "leave").await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        until_member(&alice, &room, &bob.user_id, "join").await;
        for (user, action) in [(&bob, "kick"), (&carol, "ban")] {
            let (status, _) = alice.post(&room_path(&room, action), &json!({ "user_id": user.user_id })).await;
            assert_eq!(status, 200);
        }
        for user in [&bob, &carol] {
            until("he is out", async || {
                user.get("/_matrix/client/v3/joined_rooms").await.1["joined_rooms"] == json!([])
            })
            .await;
        }
        // And may come in again.
        assert_eq!(join_via(&carol, &room, &[federation.name(0)]).await.0, 403);
        let (status, _) = alice.post(&room_path(&room, "unban"), &json!({ "user_id": carol.user_id })).await;
        assert_eq!(status, 200);
        for user in [&carol, &bob] {
            must_join_via(user, &room, &federation.name(0)).await;
        }
        let event_id = send(&alice, &room, "all here again").await;
        arrives(&carol, &room, &event_id).await;
        until_same_state(&alice, &bob, &room).await;
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_room_with_a_long_past_is_no_hindrance() {
    let federation = Federation::start(3).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let carol = federation.servers[2].user("carol").await;
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    for n in 0..1_010 {
        send(&alice, &room, &format!("message {n}")).await;
    }
    must_join_via(&carol, &room, &federation.name(0)).await;
    let event_id = send(&alice, &room, "for all").await;
    arrives(&carol, &room, &event_id).await;
    arrives(&bob, &room, &event_id).await;
    until("all messages are there", async || bodies(&bob, &room).await.len() >= 990).await;
}

#[tokio::test]
async fn more_receipts_than_a_transaction_holds_arrive_all() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    let mut said = Vec::new();
    for n in 0..110 {
        let root = send(&alice, &room, &format!("thread {n}")).await;
        let path = room_path(&room, &format!("send/m.room.message/reply{n}"));
        let thread = json!({ "rel_type": "m.thread", "event_id": root });
        let (status, answer) =
            alice.put(&path, &json!({ "msgtype": "m.text", "body": "reply", "m.relates_to": thread })).await;
        assert_eq!(status, 200, "{answer}");
        said.push((root, answer["event_id"].as_str().expect("event_id").to_owned()));
    }
    for (_, reply) in &said {
        arrives(&bob, &room, reply).await;
    }
    let begin = sync(&alice, None).await;
    federation.links[0].cut();
    // One per thread: each needs an EDU of its own.
    for (root, reply) in &said {
        let path = format!("receipt/m.read/{}", encoded(reply));
        let (status, answer) = bob.post(&room_path(&room, &path), &json!({ "thread_id": root })).await;
        assert_eq!(status, 200, "{answer}");
    }
    let answered = send(&bob, &room, "I have read it all").await;
    until_away(&federation, 1, 0).await;
    federation.links[0].heal();
    federation.time.advance(3_600_000);
    arrives(&alice, &room, &answered).await;
    let since = token(&begin);
    until("all receipts are there", async || {
        let answer = sync(&alice, Some(&since)).await;
        let ephemeral = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
        let told =
            |reply: &String| ephemeral.iter().any(|event| event["content"][reply]["m.read"][&bob.user_id].is_object());
        said.iter().all(|(_, reply)| told(reply))
    })
    .await;
}

#[tokio::test]
async fn more_who_type_than_a_transaction_holds_arrive_all() {
    let federation = Federation::start(2).await;
    let alice = federation.servers[0].user("alice").await;
    let room = public_room(&alice).await;
    let mut writers = Vec::new();
    for n in 0..120 {
        let user = federation.servers[1].user(&format!("u{n}")).await;
        must_join_via(&user, &room, &federation.name(0)).await;
        writers.push(user.user_id.clone());
    }
    until_member(&alice, &room, &writers[119], "join").await;
    let doors = federation.servers[1].running().doors();
    let (room_id, names) = (room.as_str().try_into().expect("a room id"), writers.clone());
    let room_id: hearth_matrix::ruma::OwnedRoomId = room_id;
    let found = doors.store.read(move |tx| {
        let room = tx.rooms().by_id(&room_id)?.expect("the room is known").num;
        let users = names.iter().map(|name| Ok(tx.string_num(name)?.expect("the user is known")));
        Ok((room, users.collect::<Result<Vec<_>, hearth_store::StoreError>>()?))
    });
    let (room_num, users) = found.await.expect("the store answers");
    for (user, name) in users.into_iter().zip(&writers) {
        let name = name.as_str().try_into().expect("a user id");
        doors.rooms.typing().set(room_num, user, name, Some(std::time::Duration::from_secs(120)));
    }
    until("all are seen to type", async || {
        let answer = sync(&alice, None).await;
        let ephemeral = answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
        let typing = ephemeral.iter().find(|event| event["type"] == "m.typing");
        typing.is_some_and(|event| event["content"]["user_ids"].as_array().is_some_and(|users| users.len() == 120))
    })
    .await;
}

#[tokio::test]
async fn who_types_on_is_told_again() {
    let mut federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    let path = room_path(&room, &format!("typing/{}", encoded(&bob.user_id)));
    assert_eq!(bob.put(&path, &json!({ "typing": true, "timeout": 120_000 })).await.0, 200);
    let seen = async |alice: &User| {
        until("he is seen to type", async || {
            let answer = sync(alice, None).await;
            let ephemeral =
                answer["rooms"]["join"][&room]["ephemeral"]["events"].as_array().cloned().unwrap_or_default();
            let typing = json!({ "user_ids": [bob.user_id] });
            ephemeral.iter().any(|event| event["type"] == "m.typing" && event["content"] == typing)
        })
        .await;
    };
    seen(&alice).await;
    // What is known of him is gone with this.
    federation.restart(0).await;
    let alice = alice.at(federation.servers[0].target().clone());
    federation.time.advance(26_000);
    seen(&alice).await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn who_comes_into_a_room_and_who_is_there_see_each_others_presence() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let away = federation.servers[0].user("away").await;
        let room = public_room(&alice).await;
        must_join_via(&away, &room, &federation.name(0)).await;
        // Nothing of it changes after they meet.
        for (user, says) in [(&alice, "at home"), (&bob, "on my way")] {
            let path = format!("/_matrix/client/v3/presence/{}/status", encoded(&user.user_id));
            assert_eq!(user.put(&path, &json!({ "presence": "online", "status_msg": says })).await.0, 200);
        }
        must_join_via(&bob, &room, &federation.name(0)).await;
        let said = send(&alice, &room, "hello").await;
        arrives(&bob, &room, &said).await;
        federation.time.advance(5_000);
        for (user, sees, says) in [(&bob, &alice, "at home"), (&alice, &bob, "on my way")] {
            let path = format!("/_matrix/client/v3/presence/{}/status", encoded(&sees.user_id));
            until("he is seen", async || {
                let (_, told) = user.get(&path).await;
                told["presence"] == "online" && told["status_msg"] == says
            })
            .await;
        }
        // Of who is not there nothing is told.
        let doors = federation.servers[1].running().doors();
        let known = doors.store.read(move |tx| tx.string_num(&away.user_id)).await.expect("the store answers");
        assert!(!doors.presence.is_known(known.expect("a member's name is known")));
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn a_web_site_at_the_address_of_a_server_takes_nothing() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    let there = federation.name(1);
    let name = hearth_matrix::ruma::ServerName::parse(there.as_str()).expect("a server name");
    let remote = &federation.servers[0].running().doors().remote;
    let known = async || remote.destination(&name).await.expect("the store answers").unwrap_or_default();
    for (answer, told) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "404"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n<html>", "200 OK without a JSON object"),
    ] {
        federation.links[1].answer(answer);
        let said = send(&alice, &room, told).await;
        // Each wait is longer than the last.
        let mut waits = Vec::new();
        for failures in 1..=3 {
            until("it fails again", async || known().await.failures >= failures).await;
            waits.push(known().await.retry_ts - federation.time.now_ms());
            federation.time.advance(waits[waits.len() - 1]);
        }
        assert!(waits.is_sorted_by(|one, next| one < next), "{waits:?}");
        assert!(known().await.last_error.is_some_and(|error| error.contains(told)));
        federation.links[1].heal();
        federation.time.advance(3_600_000);
        arrives(&bob, &room, &said).await;
        until("it is well", async || known().await.failures == 0).await;
    }
}
