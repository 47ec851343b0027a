//! A server gets another signing key while it works.

use hearth_testkit::on_each_backend_together;

use super::*;

/// The ids of the keys with which a server signed an event.
fn signed_with(pdu: &Value, server: &str) -> Vec<String> {
    let keys = pdu["signatures"][server].as_object().expect("signatures");
    keys.keys().cloned().collect()
}

#[tokio::test]
async fn a_new_key_signs_at_once_and_the_old_one_still_vouches() {
    on_each_backend_together(3, async |mut federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[2].user("carol").await;
        let here = federation.name(0);
        let room = public_room(&alice).await;
        must_join_via(&bob, &room, &here).await;
        let before = send(&alice, &room, "before").await;
        arrives(&bob, &room, &before).await;
        let (_, told) = federation.servers[0].get("/_matrix/key/v2/server").await;
        let old = told["verify_keys"].as_object().expect("keys").keys().next().expect("a key").clone();

        federation.time.advance(60_000);
        let doors = federation.servers[0].running().doors();
        let (status, answer) = hearth_api::ask_local_door(doors, "POST", "/keys/rotate", "{}".to_owned()).await;
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert_eq!(status, 200, "{answer}");
        let new = answer["key_id"].as_str().expect("a key id").to_owned();
        assert_ne!(new, old);
        let both = async |federation: &Federation| {
            let (_, told) = federation.servers[0].get("/_matrix/key/v2/server").await;
            assert_eq!(told["verify_keys"].as_object().expect("keys").keys().collect::<Vec<_>>(), [&new], "{told}");
            assert!(told["old_verify_keys"][&old]["expired_ts"].is_i64(), "{told}");
        };
        both(&federation).await;
        // Events and requests are signed with it at once.
        let after = send(&alice, &room, "after").await;
        assert_eq!(signed_with(&pdu(&federation, 0, &room, &after).await, &here), [new.as_str()]);
        arrives(&bob, &room, &after).await;
        // Who comes in now, not through us, believes what the old key signed.
        must_join_via(&carol, &room, &federation.name(1)).await;
        let member = async || membership(&carol, &room, &alice.user_id).await == "join";
        until("alice is known to be in the room", member).await;
        let back = send(&bob, &room, "back").await;
        arrives(&alice, &room, &back).await;

        federation.restart(0).await;
        both(&federation).await;
        let alice = alice.at(federation.servers[0].target().clone());
        let last = send(&alice, &room, "still here").await;
        assert_eq!(signed_with(&pdu(&federation, 0, &room, &last).await, &here), [new.as_str()]);
        arrives(&carol, &room, &last).await;
    })
    .await;
}
