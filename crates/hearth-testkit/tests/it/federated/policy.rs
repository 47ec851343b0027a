//! Rooms with a policy server: what is not ours to sign, nobody sees.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use hearth_matrix::ruma::{RoomVersionId, ServerName};
use hearth_matrix::signatures::sign_event;
use hearth_matrix::{SigningKey, rules};
use hearth_testkit::Federation;

use super::*;

/// Asked so far: who, and about what.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

#[derive(Clone)]
struct Desk {
    name: String,
    asked: Asked,
}

fn policy_key() -> SigningKey {
    SigningKey::from_seed([77; 32], "policy_server").expect("a key")
}

async fn sign(State(desk): State<Desk>, headers: HeaderMap, body: String) -> (StatusCode, String) {
    let authorization = headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default();
    desk.asked.lock().unwrap().push((authorization.to_owned(), serde_json::from_str(&body).expect("JSON")));
    if body.contains("spam!") {
        let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "The message appears to contain possible spam" });
        return (StatusCode::BAD_REQUEST, refusal.to_string());
    }
    let server = ServerName::parse(&*desk.name).expect("a name");
    let signed = sign_event(&body, &server, &policy_key(), rules(&RoomVersionId::V10).unwrap()).expect("signs");
    let signed: Value = serde_json::from_str(&signed).expect("JSON");
    let signature = &signed["signatures"][&desk.name]["ed25519:policy_server"];
    (StatusCode::OK, json!({ &desk.name: { "ed25519:policy_server": signature } }).to_string())
}

fn policy_content(federation: &Federation) -> Value {
    json!({ "via": federation.name(2), "public_keys": { "ed25519": policy_key().public_key_base64() } })
}

/// Two servers in a room, and a third that is the policy server there.
async fn with_policy() -> (Federation, hearth_api::serve::Serving, Asked, [User; 2], String) {
    let federation = Federation::start(3).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let warden = federation.servers[2].user("warden").await;
    let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": "10" })).await;
    for user in [&bob, &warden] {
        must_join_via(user, &room, &federation.name(0)).await;
    }
    let name = federation.name(2);
    let policy = set_state(&alice, &room, "m.room.policy", policy_content(&federation)).await;
    arrives(&bob, &room, &policy).await;
    let asked = Asked::default();
    let desk = Desk { name, asked: asked.clone() };
    let serving =
        federation.answer_for(2, Router::new().route("/_matrix/policy/v1/sign", post(sign)).with_state(desk)).await;
    (federation, serving, asked, [alice, bob], room)
}

async fn try_to_send(user: &User, room: &str, text: &str) -> (u16, Value) {
    let path = room_path(room, &format!("send/m.room.message/{}", encoded(text)));
    user.put(&path, &json!({ "msgtype": "m.text", "body": text })).await
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}
#[tokio::test]
async fn what_a_policy_server_refuses_is_not_sent_and_what_it_signs_arrives_signed() {
    let (federation, _serving, asked, [alice, bob], room) = with_policy().await;
    let (status, answer) = try_to_send(&alice, &room, "spam!").await;
    assert_eq!(status, 403, "{answer}");
    let refusal = json!({ "errcode": "M_FORBIDDEN", "error": "The message appears to contain possible spam" });
    assert_eq!(answer, refusal, "in the policy server's own words");

    let said = send(&alice, &room, "hello").await;
    arrives(&bob, &room, &said).await;
    for server in [0, 1] {
        let event = pdu(&federation, server, &room, &said).await;
        assert!(event["signatures"][federation.name(2)]["ed25519:policy_server"].is_string(), "{event}");
        assert!(event["signatures"][federation.name(0)].is_object(), "{event}");
    }
    let again = send(&alice, &room, "hello").await;
    assert_eq!(again, said, "the same transaction");
    let asked = asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "once each: {asked:?}");
    assert!(asked.iter().all(|(authorization, _)| authorization.starts_with("X-Matrix ")), "{asked:?}");
    let (_, page) = bob.get(&room_path(&room, "messages?dir=b&limit=50")).await;
    assert!(!page.to_string().contains("spam!"), "{page}");
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn what_comes_unsigned_is_shown_only_if_the_policy_server_signs_it() {
    let (federation, _serving, asked, [alice, bob], room) = with_policy().await;
    // The room does without for a while, and only the second server hears that it is over.
    let (_, mut levels) = alice.get(&room_path(&room, "state/m.room.power_levels/")).await;
    levels["users"][&bob.user_id] = json!(100);
    let levels = set_state(&alice, &room, "m.room.power_levels", levels).await;
    let without = set_state(&alice, &room, "m.room.policy", json!({})).await;
    arrives(&bob, &room, &levels).await;
    arrives(&bob, &room, &without).await;
    federation.links[..2].iter().for_each(|link| link.cut());
    // Of two changes on two branches the later one stands.
    federation.time.advance(1_000);
    set_state(&bob, &room, "m.room.policy", policy_content(&federation)).await;
    let (ham, spam, more) =
        (send(&alice, &room, "ham").await, send(&alice, &room, "spam!").await, send(&alice, &room, "more ham").await);
    let about = |text: &str| asked.lock().unwrap().iter().filter(|(_, event)| event["content"]["body"] == text).count();
    assert_eq!(about("ham"), 0, "the first server knows of no policy server");
    federation.links[..2].iter().for_each(|link| link.heal());
    federation.time.advance(3_600_000);
    let before = token(&sync(&bob, None).await);
    let last = send(&bob, &room, "back").await;
    arrives(&alice, &room, &last).await;
    arrives(&bob, &room, &more).await;
    arrives(&bob, &room, &ham).await;
    let signed = pdu(&federation, 1, &room, &ham).await;
    assert!(signed["signatures"][federation.name(2)]["ed25519:policy_server"].is_string(), "{signed}");
    assert_eq!(event(&bob, &room, &spam).await, None);
    let after = sync(&bob, Some(&before)).await.to_string();
    assert!(after.contains("more ham") && !after.contains("spam!"), "{after}");
    let (_, page) = bob.get(&room_path(&room, "messages?dir=b&limit=50")).await;
    assert!(page.to_string().contains("more ham") && !page.to_string().contains("spam!"), "{page}");
    // It was asked about once, and is there, unseen.
    assert_eq!((about("ham"), about("spam!"), about("more ham")), (1, 1, 1));
    assert_eq!(pdu(&federation, 1, &room, &spam).await["content"]["body"], "spam!");
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}
#[tokio::test]
async fn our_own_server_is_no_policy_server() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    let key = policy_key().public_key_base64();
    let content = json!({ "via": federation.name(0), "public_keys": { "ed25519": key } });
    let policy = set_state(&alice, &room, "m.room.policy", content).await;
    arrives(&bob, &room, &policy).await;
    for user in [&alice, &bob] {
        let (status, answer) = try_to_send(user, &room, "hello").await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        assert!(answer["error"].as_str().unwrap().contains("M_UNRECOGNIZED"), "{answer}");
    }
    let (status, answer) = ask(&federation, 1, 0, "POST", "/_matrix/policy/v1/sign", Some(json!({}))).await;
    assert_eq!((status, &answer["errcode"]), (404, &json!("M_UNRECOGNIZED")));
    // The room can be helped.
    set_state(&alice, &room, "m.room.policy", json!({})).await;
    let said = send(&alice, &room, "hello again").await;
    arrives(&bob, &room, &said).await;
}
