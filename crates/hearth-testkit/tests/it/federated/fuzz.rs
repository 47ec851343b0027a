//! A server that signs whatever it says: bodies of requests that are nearly right. None is a failure of ours, and nothing that
//! was there before is gone.

use std::time::Instant;

use hearth_fuzz::{Dice, changed_json, drive};
use hearth_remote::RemoteError;
use hearth_testkit::json;

use super::*;

/// What the second server may say to the first, with a good body each.
struct Said {
    method: &'static str,
    path: String,
    body: Value,
}

async fn things_to_say(federation: &Federation, alice: &User, bob: &User, room: &str) -> Vec<Said> {
    let said = send(bob, room, "hello").await;
    let event = pdu(federation, 1, room, &said).await;
    let ours = federation.name(1);
    let edus = json!([
        { "edu_type": "m.typing", "content": { "room_id": room, "user_id": bob.user_id, "typing": true } },
        { "edu_type": "m.receipt", "content": { room: { "m.read": { &bob.user_id: {
            "event_ids": [said], "data": { "ts": 1234, "thread_id": "main" } } } } } },
        { "edu_type": "m.presence", "content": { "push": [{ "user_id": bob.user_id, "presence": "unavailable",
            "status_msg": "at tea", "last_active_ago": 5, "currently_active": true }] } },
        { "edu_type": "m.device_list_update", "content": { "user_id": bob.user_id, "device_id": "D", "stream_id": 6 } },
        { "edu_type": "m.direct_to_device", "content": { "sender": bob.user_id, "type": "m.test", "message_id": "i",
            "messages": { &alice.user_id: { "*": { "a": 1 } } } } },
        { "edu_type": "m.signing_key_update", "content": { "user_id": bob.user_id } },
    ]);
    let member = |membership: &str, target: &str| {
        json!({ "type": "m.room.member", "state_key": target, "sender": bob.user_id, "room_id": room, "depth": 9,
            "content": { "membership": membership, "displayname": "B" }, "prev_events": [said], "auth_events": [],
            "origin_server_ts": 5, "origin": ours, "hashes": { "sha256": "aaaa" },
            "signatures": { &ours: { "ed25519:a": "aaaa" } } })
    };
    let one = encoded(room);
    let id = encoded(&said);
    let said_to = |method, path: String, body| Said { method, path: format!("/_matrix/federation/{path}"), body };
    let missing = json!({ "earliest_events": [said], "latest_events": [said], "limit": 10, "min_depth": 1 });
    let invite =
        json!({ "room_version": "12", "event": member("invite", &alice.user_id), "invite_room_state": [event] });
    vec![
        said_to(
            "PUT",
            "v1/send/TXN".into(),
            json!({ "origin": ours, "origin_server_ts": 1, "pdus": [event], "edus": edus }),
        ),
        said_to(
            "PUT",
            "v1/send/TXN".into(),
            json!({ "origin": ours, "origin_server_ts": 1, "pdus": [], "edus": edus }),
        ),
        said_to("PUT", format!("v2/invite/{one}/{id}"), invite),
        said_to("PUT", format!("v1/invite/{one}/{id}"), member("invite", &alice.user_id)),
        said_to("PUT", format!("v2/send_join/{one}/{id}"), member("join", &bob.user_id)),
        said_to("PUT", format!("v2/send_leave/{one}/{id}"), member("leave", &bob.user_id)),
        said_to("PUT", format!("v1/send_knock/{one}/{id}"), member("knock", &bob.user_id)),
        said_to("POST", format!("v1/get_missing_events/{one}"), missing),
        said_to(
            "POST",
            "v1/publicRooms".into(),
            json!({ "limit": 5, "filter": { "generic_search_term": "x" }, "since": "y" }),
        ),
    ]
}

/// Says something that is nearly right: the status of the answer, or none if it can't even be signed.
async fn say(federation: &Federation, dice: &mut Dice, said: &Said, txn: usize) -> Option<(u16, String)> {
    let body = changed_json(dice, &said.body.to_string());
    let path = said.path.replace("TXN", &format!("t{txn}"));
    let request = Request::builder().method(said.method).uri(format!("https://matrix.invalid{path}"));
    let request = request.header("content-type", "application/json").body(body.clone().into()).expect("a request");
    let name = hearth_matrix::ruma::ServerName::parse(federation.name(0)).expect("a server name");
    let remote = &federation.servers[1].running().doors().remote;
    match remote.send_raw(&name, request, true, Default::default()).await {
        Ok(answer) => Some((answer.status().as_u16(), body)),
        Err(RemoteError::Refused { status, .. }) => Some((status.as_u16(), body)),
        Err(RemoteError::Request(_)) => None,
        Err(error) => panic!("no answer to {} {path} with {body}: {error}", said.method),
    }
}

#[tokio::test]
async fn no_body_of_another_server_is_a_failure_of_ours() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    let things = things_to_say(&federation, &alice, &bob, &room).await;
    let (mut dice, end) = drive("bodies of other servers");
    let (mut asked, mut failures) = (0, Vec::new());
    while Instant::now() < end {
        let said = &things[dice.below(things.len())];
        asked += 1;
        if let Some((status, body)) = say(&federation, &mut dice, said, asked).await
            && status >= 500
        {
            failures.push(format!("{status}: {} {} with {body}", said.method, said.path));
        }
    }
    eprintln!("{asked} requests");
    assert!(failures.is_empty(), "{} of {asked}:\n{}", failures.len(), failures.join("\n"));

    let event_id = send(&alice, &room, "still here").await;
    arrives(&bob, &room, &event_id).await;
    assert_eq!(state(&alice, &room).await, state(&bob, &room).await);
    sync(&alice, None).await;
}
