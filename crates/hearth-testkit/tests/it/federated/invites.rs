//! Invites from server to server: accepted, declined, taken back, refused.

use axum::extract::Request;
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::IntoResponse;
use hearth_api::Resource;
use hearth_api::serve::Serving;
use hearth_testkit::{Federation, json, on_each_backend_together};

use super::*;

const VERSIONS: [&str; 5] = ["1", "7", "10", "11", "12"];

async fn invite(inviter: &User, room: &str, target: &str) -> (u16, Value) {
    inviter.post(&room_path(room, "invite"), &json!({ "user_id": target, "reason": "come" })).await
}

async fn must_invite(inviter: &User, room: &str, target: &User) {
    let (status, answer) = invite(inviter, room, &target.user_id).await;
    assert_eq!(status, 200, "{answer}");
}

async fn private_room(user: &User, version: &str, invited: &[&User]) -> String {
    let invited: Vec<&str> = invited.iter().map(|user| user.user_id.as_str()).collect();
    let preset = json!({ "preset": "private_chat", "room_version": version, "name": "Hall", "invite": invited });
    create_room(user, preset).await
}

async fn join(user: &User, room: &str) -> (u16, Value) {
    user.post(&room_path(room, "join"), &json!({})).await
}

// endpoint: PUT /_matrix/federation/v2/invite/{roomId}/{eventId}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/invite
// endpoint: POST /_matrix/client/v3/createRoom
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/join
#[tokio::test]
async fn an_invite_tells_of_the_room_and_leads_into_it() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        for version in VERSIONS {
            let since = token(&sync(&bob, None).await);
            let waiting = sync_waiting(&bob, &since);
            let made = async {
                let room = private_room(&alice, version, &[]).await;
                must_invite(&alice, &room, &bob).await;
                room
            };
            let (told, room) = tokio::join!(waiting, made);
            let events = told["rooms"]["invite"][&room]["invite_state"]["events"].clone();
            let of = |kind: &str, key: &str| {
                let mut events = events.as_array().expect("stripped state").iter();
                events.find(|event| event["type"] == kind && event["state_key"] == key).cloned().unwrap_or_default()
            };
            assert_eq!(of("m.room.name", "")["content"]["name"], "Hall", "version {version}: {told}");
            assert_eq!(of("m.room.name", "").as_object().unwrap().len(), 4, "it is stripped");
            assert_eq!(of("m.room.join_rules", "")["content"]["join_rule"], "invite");
            assert_eq!(of("m.room.member", &alice.user_id)["content"]["membership"], "join");
            assert_eq!(of("m.room.member", &bob.user_id)["content"]["reason"], "come");
            assert_eq!(of("m.room.create", "")["sender"], json!(alice.user_id));
            assert!(of("m.room.create", "")["origin_server_ts"].is_i64(), "{events}");
            assert_eq!(membership(&alice, &room, &bob.user_id).await, "invite");
            assert_eq!(bob.get(&room_path(&room, "members")).await.0, 403, "he is not in yet");

            let (status, answer) = join(&bob, &room).await;
            assert_eq!(status, 200, "version {version}: {answer}");
            until("the same state", async || state(&alice, &room).await == state(&bob, &room).await).await;
            let told = sync(&bob, None).await;
            assert!(told["rooms"]["invite"][&room].is_null());
            assert!(told["rooms"]["join"][&room].is_object());
            arrives(&alice, &room, &send(&bob, &room, "hello").await).await;
        }
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/invite
#[tokio::test]
async fn nobody_far_away_is_invited_into_a_room_for_its_own_server() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[0].user("carol").await;
        for version in VERSIONS {
            let create = json!({ "m.federate": false });
            let room = create_room(&alice, json!({ "room_version": version, "creation_content": create })).await;
            let (status, answer) = invite(&alice, &room, &bob.user_id).await;
            assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
            assert_eq!(membership(&alice, &room, &bob.user_id).await, Value::Null);
            must_invite(&alice, &room, &carol).await;
        }
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/createRoom
#[tokio::test]
async fn a_direct_chat_with_somebody_far_away_begins_with_its_room() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        for version in VERSIONS {
            let gone = format!("@gone:{}", federation.name(1));
            let body = json!({
                "preset": "trusted_private_chat",
                "room_version": version,
                "is_direct": true,
                "invite": [bob.user_id, gone],
            });
            let room = create_room(&alice, body).await;
            let told = sync(&bob, None).await;
            let events = told["rooms"]["invite"][&room]["invite_state"]["events"].as_array().cloned();
            let own = events.and_then(|events| events.last().cloned()).unwrap_or_default();
            assert_eq!(own["content"]["is_direct"], true, "version {version}: {told}");
            assert_eq!(membership(&alice, &room, &gone).await, Value::Null, "nobody of this name is there");
            assert_eq!(join(&bob, &room).await.0, 200);
            // As powerful as who created it.
            set_state(&bob, &room, "m.room.topic", json!({ "topic": "ours" })).await;
            let (_, event) =
                bob.get(&room_path(&room, &format!("state/m.room.member/{}", encoded(&bob.user_id)))).await;
            assert_eq!(event["membership"], "join");
        }
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/make_leave/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/leave
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/forget
#[tokio::test]
async fn an_invite_is_declined_and_may_come_again() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        for version in VERSIONS {
            let room = private_room(&alice, version, &[&bob]).await;
            for _ in 0..2 {
                let since = token(&sync(&bob, None).await);
                let (status, answer) = bob.post(&room_path(&room, "forget"), &json!({})).await;
                assert_eq!(status, 400, "{answer}");
                let (status, answer) = bob.post(&room_path(&room, "leave"), &json!({ "reason": "no" })).await;
                assert_eq!(status, 200, "version {version}: {answer}");
                let member = room_path(&room, &format!("state/m.room.member/{}", encoded(&bob.user_id)));
                let (_, content) = alice.get(&member).await;
                assert_eq!((&content["membership"], &content["reason"]), (&json!("leave"), &json!("no")));
                let left = hearth_testkit::until_some("his leave is shown", async || {
                    let told = sync(&bob, Some(&since)).await;
                    told["rooms"]["leave"][&room]["timeline"]["events"].as_array().cloned()
                })
                .await;
                assert_eq!(left[0]["content"]["membership"], "leave", "{left:?}");
                assert_eq!(left[0]["sender"], json!(bob.user_id));
                assert!(sync(&bob, None).await["rooms"]["invite"][&room].is_null());
                let (status, answer) = join(&bob, &room).await;
                assert_eq!(status, 403, "{answer}");
                must_invite(&alice, &room, &bob).await;
                assert!(sync(&bob, None).await["rooms"]["invite"][&room].is_object());
            }
            assert_eq!(bob.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
            assert_eq!(bob.post(&room_path(&room, "leave"), &json!({})).await.0, 200, "once more changes nothing");
            assert_eq!(bob.post(&room_path(&room, "forget"), &json!({})).await.0, 200);
        }
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/rooms/{roomId}/leave
#[tokio::test]
async fn an_invite_is_declined_while_nobody_hears_it() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = private_room(&alice, "12", &[&bob]).await;
        let since = token(&sync(&bob, None).await);
        federation.links[0].cut();
        let (status, answer) = bob.post(&room_path(&room, "leave"), &json!({})).await;
        assert_eq!(status, 200, "{answer}");
        let told = sync_waiting(&bob, &since).await;
        let left = &told["rooms"]["leave"][&room]["timeline"]["events"][0];
        assert_eq!(
            (&left["content"]["membership"], &left["state_key"]),
            (&json!("leave"), &json!(bob.user_id)),
            "{told}"
        );
        assert!(sync(&bob, None).await["rooms"]["invite"][&room].is_null());
        federation.links[0].heal();
        // A room that its last member left.
        let room = private_room(&alice, "11", &[&bob]).await;
        assert_eq!(alice.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
        assert_eq!(bob.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
        assert!(sync(&bob, None).await["rooms"]["invite"][&room].is_null());
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/kick
#[tokio::test]
async fn an_invite_is_taken_back_by_who_made_it() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let (anna, ben) = (federation.servers[0].user("anna").await, federation.servers[1].user("ben").await);
        for version in VERSIONS {
            let room = private_room(&alice, version, &[&anna, &bob]).await;
            assert_eq!(join(&anna, &room).await.0, 200);
            must_invite(&anna, &room, &ben).await;
            let since = token(&sync(&bob, None).await);
            for target in [&ben, &bob] {
                let kick = json!({ "user_id": target.user_id, "reason": "a mistake" });
                assert_eq!(alice.post(&room_path(&room, "kick"), &kick).await.0, 200);
            }
            let told = sync_waiting(&bob, &since).await;
            let left = &told["rooms"]["leave"][&room]["timeline"]["events"][0];
            assert_eq!(left["content"]["reason"], "a mistake", "version {version}: {told}");
            assert_eq!(left["sender"], json!(alice.user_id));
            assert!(sync(&bob, None).await["rooms"]["invite"][&room].is_null());
            // Who made no invite can't take it back either, as nobody here knows what he may.
            assert!(sync(&ben, None).await["rooms"]["invite"][&room].is_object(), "version {version}");
            assert_eq!(ben.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
        }
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v2/invite/{roomId}/{eventId}
// endpoint: POST /_matrix/client/v3/rooms/{roomId}/invite
// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
#[tokio::test]
async fn a_refused_invite_leaves_the_room_as_it_was() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = private_room(&alice, "12", &[]).await;
        let before = state(&alice, &room).await;
        let config =
            format!("/_matrix/client/v3/user/{}/account_data/m.invite_permission_config", encoded(&bob.user_id));
        assert_eq!(bob.put(&config, &json!({ "default_action": "block" })).await.0, 200);
        let (status, answer) = invite(&alice, &room, &bob.user_id).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_INVITE_BLOCKED")), "{answer}");
        let path = room_path(&room, &format!("state/m.room.member/{}", encoded(&bob.user_id)));
        let (status, answer) = alice.put(&path, &json!({ "membership": "invite" })).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_INVITE_BLOCKED")), "{answer}");
        let nobody = format!("@nobody:{}", federation.name(1));
        let (status, answer) = invite(&alice, &room, &nobody).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        federation.links[1].cut();
        let (status, answer) = invite(&alice, &room, &bob.user_id).await;
        assert_eq!((status, &answer["errcode"]), (502, &json!("M_UNKNOWN")), "{answer}");
        assert_eq!(state(&alice, &room).await, before);
        assert_eq!(sync(&bob, None).await["rooms"]["invite"], Value::Null);
        let stranger = federation.servers[0].user("stranger").await;
        let (status, answer) = invite(&stranger, &room, &bob.user_id).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
    })
    .await;
}

/// How a server answers invites, by the version of the endpoint; with none as it does.
type Old = fn(&str) -> Option<(u16, &'static str)>;

/// Lets a server answer invites as old ones do.
async fn grow_old(federation: &Federation, n: usize, answers: Old) -> Serving {
    let router = hearth_api::router(federation.servers[n].running().doors().clone(), &[Resource::Federation]);
    let router = router.layer(middleware::from_fn(move |request: Request, next: Next| async move {
        let version = request.uri().path().strip_prefix("/_matrix/federation/").and_then(|path| path.split_once('/'));
        match version.filter(|(_, rest)| rest.starts_with("invite/")).and_then(|(version, _)| answers(version)) {
            Some((status, body)) => (StatusCode::from_u16(status).expect("a status"), body.to_owned()).into_response(),
            None => next.run(request).await,
        }
    }));
    federation.answer_for(n, router).await
}

// endpoint: PUT /_matrix/federation/v1/invite/{roomId}/{eventId}
// endpoint: PUT /_matrix/federation/v2/invite/{roomId}/{eventId}
#[tokio::test]
async fn who_may_know_the_old_way_to_invite_only_is_invited_that_way() {
    const UNKNOWN: &str = r#"{"errcode":"M_UNRECOGNIZED","error":"What?"}"#;
    const INVALID: &str = r#"{"errcode":"M_INVALID_PARAM","error":"Not so"}"#;
    const FORBIDDEN: &str = r#"{"errcode":"M_FORBIDDEN","error":"No"}"#;
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    // Only in rooms that such a server can know; what it hears otherwise is what the inviter hears.
    let cases: [(Old, &str, u16, &str); 8] = [
        (|version| (version == "v2").then_some((404, "")), "1", 200, ""),
        (|version| (version == "v2").then_some((400, "<html>")), "2", 200, ""),
        (|version| (version == "v2").then_some((400, UNKNOWN)), "1", 200, ""),
        (|version| (version == "v2").then_some((400, INVALID)), "1", 200, ""),
        (|version| (version == "v2").then_some((400, INVALID)), "3", 502, "M_UNKNOWN"),
        (|version| (version == "v2").then_some((403, FORBIDDEN)), "1", 403, "M_FORBIDDEN"),
        (|version| Some(if version == "v2" { (404, UNKNOWN) } else { (403, FORBIDDEN) }), "1", 403, "M_FORBIDDEN"),
        (|version| Some(if version == "v2" { (400, INVALID) } else { (403, FORBIDDEN) }), "1", 502, "M_UNKNOWN"),
    ];
    for (n, (answers, version, expected, errcode)) in cases.into_iter().enumerate() {
        let _serving = grow_old(&federation, 1, answers).await;
        let room = private_room(&alice, version, &[]).await;
        let (status, answer) = invite(&alice, &room, &bob.user_id).await;
        assert_eq!((status, answer["errcode"].as_str().unwrap_or_default()), (expected, errcode), "{n}: {answer}");
        if expected == 200 {
            until("he is invited", async || sync(&bob, None).await["rooms"]["invite"][&room].is_object()).await;
        }
    }
}

// endpoint: PUT /_matrix/federation/v2/invite/{roomId}/{eventId}
// endpoint: POST /_matrix/client/v3/join/{roomIdOrAlias}
#[tokio::test]
async fn others_see_an_invite_and_let_in_when_the_inviter_is_gone() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[2].user("carol").await;
        for version in ["10", "12"] {
            let room = private_room(&alice, version, &[&bob]).await;
            assert_eq!(join(&bob, &room).await.0, 200);
            must_invite(&bob, &room, &carol).await;
            until("alice sees it", async || membership(&alice, &room, &carol.user_id).await == "invite").await;
            assert_eq!(carol.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
            until("alice sees it", async || membership(&alice, &room, &carol.user_id).await == "leave").await;
            must_invite(&bob, &room, &carol).await;
            until("alice sees it", async || membership(&alice, &room, &carol.user_id).await == "invite").await;
            assert_eq!(bob.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
            until("alice sees it", async || membership(&alice, &room, &bob.user_id).await == "leave").await;
            // The inviter's server is not in the room any more; ids of rooms name another until version 12.
            let (status, answer) = join(&carol, &room).await;
            assert_eq!(status, if version == "12" { 404 } else { 200 }, "{answer}");
            must_join_via(&carol, &room, &federation.name(0)).await;
            until("the same state", async || state(&alice, &room).await == state(&carol, &room).await).await;
        }
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v2/invite/{roomId}/{eventId}
#[tokio::test]
async fn a_second_user_of_a_server_is_invited_and_answers() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let (ben, bert) = (federation.servers[1].user("ben").await, federation.servers[1].user("bert").await);
        for version in VERSIONS {
            let room = private_room(&alice, version, &[&bob, &ben]).await;
            let (status, answer) = join(&bob, &room).await;
            assert_eq!(status, 200, "{version}: {answer}");
            assert_eq!(join(&ben, &room).await.0, 200, "the room is here by now");
            must_invite(&alice, &room, &bert).await;
            let invited = async || sync(&bert, None).await["rooms"]["invite"][&room].is_object();
            until("bert is invited", invited).await;
            assert_eq!(bert.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
            until("bert is gone", async || membership(&alice, &room, &bert.user_id).await == "leave").await;
            until("the same state", async || state(&alice, &room).await == state(&bob, &room).await).await;
        }
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/account/deactivate
#[tokio::test]
async fn whose_account_ends_declines_all_invites() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let (one, other) = (private_room(&alice, "12", &[&bob]).await, private_room(&alice, "1", &[&bob]).await);
        let body = json!({ "auth": {
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": bob.user_id },
            "password": "correct horse battery staple",
        } });
        let (status, answer) = bob.post("/_matrix/client/v3/account/deactivate", &body).await;
        assert_eq!(status, 200, "{answer}");
        for room in [&one, &other] {
            until("bob is gone", async || membership(&alice, room, &bob.user_id).await == "leave").await;
        }
        let (status, answer) = invite(&alice, &one, &bob.user_id).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/invite/{roomId}/{eventId}
// endpoint: PUT /_matrix/federation/v2/invite/{roomId}/{eventId}
#[tokio::test]
async fn an_invite_must_be_what_it_says() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = private_room(&alice, "1", &[&bob]).await;
        let of_state = async |user: &User, room: &str, kind: &str, key: &str| {
            let (_, state) = user.get(&room_path(room, "state")).await;
            let found = state.as_array().unwrap().iter().find(|it| it["type"] == kind && it["state_key"] == key);
            pdu(&federation, 0, room, found.unwrap()["event_id"].as_str().unwrap()).await
        };
        let invite = of_state(&alice, &room, "m.room.member", &bob.user_id).await;
        let create = of_state(&alice, &room, "m.room.create", "").await;
        let path = |version: &str, room: &str, event_id: &Value| {
            let event_id = encoded(event_id.as_str().unwrap_or("$none"));
            format!("/_matrix/federation/{version}/invite/{}/{event_id}", encoded(room))
        };
        let id = invite["event_id"].clone();
        // As the first version has it.
        let mut old = invite.clone();
        old["unsigned"] = json!({ "invite_room_state": [create] });
        let (status, answer) = ask(&federation, 0, 1, "PUT", &path("v1", &room, &id), Some(old)).await;
        assert_eq!((status, &answer[0]), (200, &json!(200)), "{answer}");
        let signatures = answer[1]["event"]["signatures"].as_object().unwrap();
        assert!(signatures.contains_key(&federation.name(1)), "{answer}");

        let body = |version: &str, event: &Value| json!({ "room_version": version, "event": event, "invite_room_state": [create] });
        let put = async |from: usize, path: &str, body: Value| ask(&federation, from, 1, "PUT", path, Some(body)).await;
        let good = path("v2", &room, &id);
        let (status, answer) = put(0, &good, body("1", &invite)).await;
        assert_eq!(status, 200, "{answer}");
        let (status, answer) = put(0, &good, body("org.example", &invite)).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!("M_INCOMPATIBLE_ROOM_VERSION")), "{answer}");
        assert_eq!(answer["room_version"], "org.example");
        for (from, path, body, why) in [
            (2, good.clone(), body("1", &invite), "another server sends it"),
            (0, path("v2", "!other:a.test", &id), body("1", &invite), "another room"),
            (0, path("v2", &room, &json!("$other")), body("1", &invite), "another event"),
            (0, path("v2", &room, &create["event_id"]), body("1", &create), "no invite"),
            (0, good.clone(), body("6", &invite), "of another version"),
        ] {
            let (status, answer) = put(from, &path, body).await;
            assert_eq!((status, &answer["errcode"]), (400, &json!("M_INVALID_PARAM")), "{why}: {answer}");
        }
        for body in [json!({}), json!({ "room_version": "1" }), json!({ "room_version": 1, "event": {} })] {
            let (status, answer) = put(0, &good, body).await;
            assert_eq!((status, &answer["errcode"]), (400, &json!("M_BAD_JSON")), "{answer}");
        }
        for version in ["v1", "v2"] {
            let (status, answer) = put(0, &path(version, &room, &id), json!({ "event": 1, "room_version": "1" })).await;
            assert_eq!(status, 400, "{answer}");
        }
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/invite/{roomId}/{eventId}
#[tokio::test]
async fn an_old_invite_into_a_room_that_is_known_need_not_say_its_version() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let carol = federation.servers[1].user("carol").await;
        for version in ["1", "2"] {
            let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": version })).await;
            must_join_via(&bob, &room, &federation.name(0)).await;
            must_invite(&alice, &room, &carol).await;
            let (_, state) = alice.get(&room_path(&room, "state")).await;
            let invite = state.as_array().unwrap().iter().find(|event| event["state_key"] == carol.user_id);
            let id = invite.expect("it is in the state")["event_id"].as_str().unwrap().to_owned();
            let invite = pdu(&federation, 0, &room, &id).await;
            let path = format!("/_matrix/federation/v1/invite/{}/{}", encoded(&room), encoded(&id));
            let (status, answer) = ask(&federation, 0, 1, "PUT", &path, Some(invite)).await;
            assert_eq!((status, &answer[0]), (200, &json!(200)), "{version}: {answer}");
        }
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/make_leave/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}
// endpoint: PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}
#[tokio::test]
async fn a_leave_must_be_what_it_says() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = private_room(&alice, "11", &[&bob]).await;
        let make =
            |room: &str, user: &str| format!("/_matrix/federation/v1/make_leave/{}/{}", encoded(room), encoded(user));
        let (status, made) = ask(&federation, 1, 0, "GET", &make(&room, &bob.user_id), None).await;
        assert_eq!((status, &made["room_version"]), (200, &json!("11")), "{made}");
        assert_eq!(made["event"]["content"], json!({ "membership": "leave" }));
        let nobody = format!("@nobody:{}", federation.name(1));
        for (room, user, expected) in [
            (room.as_str(), alice.user_id.as_str(), (403, "M_FORBIDDEN")),
            (&room, &nobody, (403, "M_FORBIDDEN")),
            ("!nowhere:a.test", &bob.user_id, (404, "M_NOT_FOUND")),
        ] {
            let (status, answer) = ask(&federation, 1, 0, "GET", &make(room, user), None).await;
            assert_eq!((status, answer["errcode"].as_str().unwrap()), expected, "{user} in {room}: {answer}");
        }
        let send =
            |version: &str, room: &str| format!("/_matrix/federation/{version}/send_leave/{}/$some", encoded(room));
        for version in ["v1", "v2"] {
            let (status, answer) =
                ask(&federation, 1, 0, "PUT", &send(version, &room), Some(made["event"].clone())).await;
            assert_eq!((status, &answer["errcode"]), (400, &json!("M_BAD_JSON")), "unsigned: {answer}");
            let (status, answer) = ask(&federation, 1, 0, "PUT", &send(version, "!no:a.test"), Some(json!({}))).await;
            assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");
        }
        assert_eq!(membership(&alice, &room, &bob.user_id).await, "invite");
        // Whole and signed, the first version takes it as the second does.
        assert_eq!(bob.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
        let (_, left) = alice.get(&room_path(&room, "state")).await;
        let left = left.as_array().unwrap().iter().find(|it| it["state_key"] == json!(bob.user_id)).unwrap();
        let id = left["event_id"].as_str().unwrap();
        let leave = pdu(&federation, 0, &room, id).await;
        for (version, expected) in [("v1", json!([200, {}])), ("v2", json!({}))] {
            let path = format!("/_matrix/federation/{version}/send_leave/{}/{}", encoded(&room), encoded(id));
            let answer = ask(&federation, 1, 0, "PUT", &path, Some(leave.clone())).await;
            assert_eq!(answer, (200, expected));
            let (status, answer) = ask(&federation, 2, 0, "PUT", &path, Some(leave.clone())).await;
            assert_eq!((status, &answer["errcode"]), (400, &json!("M_INVALID_PARAM")), "{answer}");
        }
    })
    .await;
}

// endpoint: PUT /_matrix/federation/v1/invite/{roomId}/{eventId}
// endpoint: PUT /_matrix/federation/v2/invite/{roomId}/{eventId}
// endpoint: GET /_matrix/federation/v1/make_leave/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v1/send_leave/{roomId}/{eventId}
// endpoint: PUT /_matrix/federation/v2/send_leave/{roomId}/{eventId}
// endpoint: GET /_matrix/federation/v1/make_knock/{roomId}/{userId}
// endpoint: PUT /_matrix/federation/v1/send_knock/{roomId}/{eventId}
#[tokio::test]
async fn who_does_not_sign_is_not_heard() {
    let federation = Federation::start(1).await;
    let server = &federation.servers[0];
    for (method, path) in [
        ("PUT", "v1/invite/!r:a/$e"),
        ("PUT", "v2/invite/!r:a/$e"),
        ("GET", "v1/make_leave/!r:a/@u:a"),
        ("PUT", "v1/send_leave/!r:a/$e"),
        ("PUT", "v2/send_leave/!r:a/$e"),
        ("GET", "v1/make_knock/!r:a/@u:a"),
        ("PUT", "v1/send_knock/!r:a/$e"),
    ] {
        let request = server.request(method, &format!("/_matrix/federation/{path}")).json(&json!({}));
        assert_eq!(request.send().await.refusal(), (401, "M_UNAUTHORIZED".to_owned()), "{method} {path}");
    }
}

#[tokio::test]
async fn who_came_by_an_invite_sees_whose_it_was() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = private_room(&alice, "11", &[&bob]).await;
        let (status, answer) = join(&bob, &room).await;
        assert_eq!(status, 200, "{answer}");
        until("alice hears of it", async || membership(&alice, &room, &bob.user_id).await == "join").await;
        for user in [&alice, &bob] {
            // A room whose members are not all known yet is not there for who wants them all.
            let joined = hearth_testkit::until_some("his join is shown", async || {
                let told = sync(user, None).await;
                let here = &told["rooms"]["join"][&room];
                let lists = [&here["state"]["events"], &here["timeline"]["events"]];
                let mut events = lists.into_iter().filter_map(Value::as_array).flatten();
                let his = |event: &&Value| {
                    event["state_key"] == bob.user_id.as_str() && event["content"]["membership"] == "join"
                };
                events.find(his).cloned()
            })
            .await;
            assert_eq!(joined["unsigned"]["prev_content"]["membership"], "invite", "{joined}");
            assert_eq!(joined["unsigned"]["prev_sender"], alice.user_id.as_str(), "{joined}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_server_can_not_flood_a_user_with_invites() {
    let backends = (0..2).map(|_| hearth_testkit::Backend::Sqlite).collect();
    let federation = Federation::start_on(backends, |settings| {
        settings.rate_limits.enabled = true;
        settings.rate_limits.server_invites_to_user = hearth_api::Rate { burst: 2, per_minute: 1 };
        settings.rate_limits.server_invites = hearth_api::Rate { burst: 3, per_minute: 60 };
    })
    .await;
    let alice = federation.servers[0].user("alice").await;
    let (bob, carol) = (federation.servers[1].user("bob").await, federation.servers[1].user("carol").await);
    let room = async || private_room(&alice, "11", &[]).await;
    for _ in 0..2 {
        must_invite(&alice, &room().await, &bob).await;
    }
    let (refused, refused_too) = (room().await, room().await);
    let (status, answer) = invite(&alice, &refused, &bob.user_id).await;
    assert_ne!(status, 200, "{answer}");
    // Others don't suffer from it, until it is too much for all of them.
    must_invite(&alice, &refused, &carol).await;
    let (status, answer) = invite(&alice, &refused_too, &carol.user_id).await;
    assert_ne!(status, 200, "{answer}");
    assert_eq!(sync(&bob, None).await["rooms"]["invite"].as_object().map(serde_json::Map::len), Some(2));
    federation.time.advance(60_000);
    must_invite(&alice, &refused, &bob).await;
    must_invite(&alice, &refused_too, &carol).await;
}
