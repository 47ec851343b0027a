//! What servers may ask of rooms, and which of them.

use hearth_testkit::{json, on_each_backend_together, on_each_backend_together_with, until_some};

use super::*;

fn federation_path(rest: &str) -> String {
    format!("/_matrix/federation/v1/{rest}")
}

// endpoint: GET /_matrix/federation/v1/event/{eventId}
// endpoint: GET /_matrix/federation/v1/state/{roomId}
// endpoint: GET /_matrix/federation/v1/state_ids/{roomId}
// endpoint: GET /_matrix/federation/v1/event_auth/{roomId}/{eventId}
// endpoint: GET /_matrix/federation/v1/backfill/{roomId}
// endpoint: POST /_matrix/federation/v1/get_missing_events/{roomId}
#[tokio::test]
async fn members_servers_get_events_and_others_do_not() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = public_room(&alice).await;
        let first = send(&alice, &room, "first").await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let last = send(&alice, &room, "last").await;
        let (r, f, l) = (encoded(&room), encoded(&first), encoded(&last));
        let missing = json!({ "earliest_events": [first], "latest_events": [last], "limit": 10 });
        let questions = [
            ("GET", format!("event/{f}"), None),
            ("GET", format!("state/{r}?event_id={l}"), None),
            ("GET", format!("state_ids/{r}?event_id={l}"), None),
            ("GET", format!("event_auth/{r}/{l}"), None),
            ("GET", format!("backfill/{r}?v={l}&limit=10"), None),
            ("POST", format!("get_missing_events/{r}"), Some(missing)),
        ];
        let put = async |from: usize| {
            let mut answers = Vec::new();
            for (method, path, body) in &questions {
                answers.push(ask(&federation, from, 0, method, &federation_path(path), body.clone()).await);
            }
            answers
        };
        let answers = put(1).await;
        assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
        let [event, state, ids, auth, backfill, missing] = answers.try_into().expect("six answers");
        assert_eq!(event.1["pdus"][0]["content"]["body"], "first");
        assert_eq!(event.1["origin"], json!(federation.name(0)));
        let kinds = |list: &Value| {
            list.as_array().unwrap().iter().map(|pdu| pdu["type"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert!(kinds(&state.1["pdus"]).contains(&"m.room.create".to_owned()));
        assert!(kinds(&state.1["auth_chain"]).contains(&"m.room.create".to_owned()));
        assert_eq!(state.1["pdus"].as_array().unwrap().len(), ids.1["pdu_ids"].as_array().unwrap().len());
        assert_eq!(state.1["auth_chain"].as_array().unwrap().len(), ids.1["auth_chain_ids"].as_array().unwrap().len());
        assert!(kinds(&auth.1["auth_chain"]).contains(&"m.room.create".to_owned()));
        assert_eq!(backfill.1["pdus"][0]["content"]["body"], "last");
        assert_eq!(backfill.1["pdus"].as_array().unwrap().len(), 10.min(backfill.1["pdus"].as_array().unwrap().len()));
        assert_eq!(kinds(&missing.1["events"]), ["m.room.member"]);
        let (_, known) = alice.get(&room_path(&room, "state")).await;
        let create = known.as_array().unwrap().iter().find(|event| event["type"] == "m.room.create").unwrap();
        let create = encoded(create["event_id"].as_str().unwrap());
        let path = federation_path(&format!("state_ids/{r}?event_id={create}"));
        let nothing = json!({ "pdu_ids": [], "auth_chain_ids": [] });
        assert_eq!(ask(&federation, 1, 0, "GET", &path, None).await, (200, nothing));

        for (status, answer) in put(2).await {
            assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        }
        // Named twice it is told once.
        let path = federation_path(&format!("backfill/{r}?v={l}&v={l}&limit=10"));
        let twice = ask(&federation, 1, 0, "GET", &path, None).await;
        assert_eq!(twice.1["pdus"], backfill.1["pdus"]);
        let nowhere = encoded("!nowhere:other.test");
        for path in [format!("state/{nowhere}?event_id={l}"), format!("backfill/{nowhere}?v={l}&limit=1")] {
            let (status, answer) = ask(&federation, 1, 0, "GET", &federation_path(&path), None).await;
            assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");
        }
        for path in
            ["event/%24none".to_owned(), format!("state/{r}?event_id=%24none"), format!("event_auth/{r}/%24none")]
        {
            let (status, answer) = ask(&federation, 1, 0, "GET", &federation_path(&path), None).await;
            assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");
        }

        // A server that the room shuts out is no member's server any more.
        let acl = json!({ "allow": ["*"], "deny": ["127.0.0.2", 5], "allow_ip_literals": "yes" });
        set_state(&alice, &room, "m.room.server_acl", acl).await;
        for (status, answer) in put(1).await {
            assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        }
        let path = format!("make_join/{r}/{}?ver=12", encoded(&bob.user_id));
        let (status, answer) = ask(&federation, 1, 0, "GET", &federation_path(&path), None).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/state/{roomId}
// endpoint: PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}
// endpoint: GET /_matrix/client/v3/publicRooms
// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn redacted_state_is_told_without_content() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let (carol, dave) = (federation.servers[0].user("carol").await, federation.servers[1].user("dave").await);
        let room = create_room(&alice, json!({ "preset": "public_chat", "visibility": "public" })).await;
        set_state(&alice, &room, "m.room.name", json!({ "name": "Room" })).await;
        let topic = set_state(&alice, &room, "m.room.topic", json!({ "topic": "abuse" })).await;
        let path = room_path(&room, &format!("redact/{}/1", encoded(&topic)));
        assert_eq!(alice.put(&path, &json!({})).await.0, 200);
        must_join_via(&bob, &room, &federation.name(0)).await;
        let (status, told) = bob.get(&room_path(&room, "state/m.room.topic/")).await;
        assert_eq!((status, told), (200, json!({})));

        let last = send(&alice, &room, "last").await;
        let path = federation_path(&format!("state/{}?event_id={}", encoded(&room), encoded(&last)));
        let (_, state) = ask(&federation, 1, 0, "GET", &path, None).await;
        let of_kind = |kind: &str| {
            let pdus = state["pdus"].as_array().expect("pdus");
            pdus.iter().find(|pdu| pdu["type"] == kind).expect("it is in the state")["content"].clone()
        };
        assert_eq!((of_kind("m.room.topic"), of_kind("m.room.name")), (json!({}), json!({ "name": "Room" })));

        for invited in [&carol, &dave] {
            let invite = json!({ "user_id": invited.user_id });
            assert_eq!(alice.post(&room_path(&room, "invite"), &invite).await.0, 200);
            let shown = until_some("the invite shows", async || {
                let (_, news) = invited.get("/_matrix/client/v3/sync").await;
                news["rooms"]["invite"][&room]["invite_state"]["events"].as_array().cloned()
            });
            let told = shown.await.into_iter().find(|event| event["type"] == "m.room.topic");
            assert_eq!(told.expect("a topic is told")["content"], json!({}));
        }

        let (_, listed) = alice.get("/_matrix/client/v3/publicRooms").await;
        let listed = &listed["chunk"][0];
        assert_eq!((&listed["name"], &listed["topic"]), (&json!("Room"), &json!(null)));
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/event/{eventId}
// endpoint: GET /_matrix/federation/v1/backfill/{roomId}
#[tokio::test]
async fn what_a_server_may_not_see_comes_without_content() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let joined = json!({ "type": "m.room.history_visibility", "content": { "history_visibility": "joined" } });
        let room = create_room(&alice, json!({ "preset": "public_chat", "initial_state": [joined] })).await;
        let secret = send(&alice, &room, "secret").await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let open = send(&alice, &room, "open").await;
        let regretted = send(&alice, &room, "regretted").await;
        let (status, _) = alice.put(&room_path(&room, &format!("redact/{}/t", encoded(&regretted))), &json!({})).await;
        assert_eq!(status, 200);
        let path = format!("/_matrix/federation/v1/backfill/{}?v={}&limit=20", encoded(&room), encoded(&regretted));
        let (status, answer) = ask(&federation, 1, 0, "GET", &path, None).await;
        assert_eq!(status, 200, "{answer}");
        let contents = answer["pdus"].as_array().unwrap().iter().filter(|pdu| pdu["type"] == "m.room.message");
        let bodies: Vec<&Value> = contents.map(|pdu| &pdu["content"]["body"]).collect();
        assert_eq!(bodies, [&Value::Null, &json!("open"), &Value::Null]);
        for (event_id, body) in [(secret, Value::Null), (open, json!("open")), (regretted, Value::Null)] {
            let path = format!("/_matrix/federation/v1/event/{}", encoded(&event_id));
            let (status, answer) = ask(&federation, 1, 0, "GET", &path, None).await;
            assert_eq!((status, &answer["pdus"][0]["content"]["body"]), (200, &body), "{answer}");
        }
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/publicRooms
// endpoint: POST /_matrix/federation/v1/publicRooms
// endpoint: GET /_matrix/client/v3/publicRooms
// endpoint: POST /_matrix/client/v3/publicRooms
#[tokio::test]
async fn the_directory_is_open_to_other_servers_if_the_settings_say_so() {
    on_each_backend_together_with(
        2,
        |settings| settings.directory.open_to_federation = true,
        async |federation| {
            let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
            let room =
                create_room(&alice, json!({ "preset": "public_chat", "visibility": "public", "name": "Chess" })).await;
            create_room(&alice, json!({ "preset": "public_chat", "visibility": "public", "name": "Go" })).await;
            let path = format!("/_matrix/client/v3/publicRooms?server={}", encoded(&federation.name(0)));
            let (status, all) = bob.get(&path).await;
            assert_eq!((status, all["chunk"].as_array().unwrap().len()), (200, 2), "{all}");
            let (status, one) = bob.get(&format!("{path}&limit=1")).await;
            assert_eq!((status, one["chunk"].as_array().unwrap().len()), (200, 1), "{one}");
            let next = format!("{path}&limit=1&since={}", one["next_batch"].as_str().unwrap());
            assert_eq!(bob.get(&next).await.1["chunk"].as_array().unwrap().len(), 1);
            let (status, found) = bob.post(&path, &json!({ "filter": { "generic_search_term": "chess" } })).await;
            assert_eq!((status, &found["chunk"][0]["room_id"]), (200, &json!(room)), "{found}");
            assert_eq!(found["chunk"].as_array().unwrap().len(), 1);
            // No bridge lists rooms.
            let path = "/_matrix/federation/v1/publicRooms";
            let rooms = async |method: &str, query: &str, body: Option<Value>| {
                let (status, page) = ask(&federation, 1, 0, method, &format!("{path}{query}"), body).await;
                assert_eq!(status, 200, "{page}");
                page["chunk"].as_array().map(Vec::len)
            };
            let bridged = json!({ "third_party_instance_id": "irc-freenode" });
            assert_eq!(rooms("POST", "", Some(bridged)).await, Some(0));
            assert_eq!(rooms("GET", "?third_party_instance_id=irc-freenode", None).await, Some(0));
            let of_bridge = "?include_all_networks=false&third_party_instance_id=irc-freenode";
            assert_eq!(rooms("GET", of_bridge, None).await, Some(0));
            assert_eq!(rooms("POST", "", Some(json!({ "include_all_networks": true }))).await, Some(2));
            assert_eq!(rooms("GET", "?include_all_networks=true", None).await, Some(2));
            assert_eq!(rooms("GET", "?limit=1", None).await, Some(1));
        },
    )
    .await;
    on_each_backend_together(2, async |federation| {
        let bob = federation.servers[1].user("bob").await;
        for (method, body) in [("GET", None), ("POST", Some(json!({})))] {
            let (status, answer) = ask(&federation, 1, 0, method, "/_matrix/federation/v1/publicRooms", body).await;
            assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")));
        }
        let path = format!("/_matrix/client/v3/publicRooms?server={}", encoded(&federation.name(0)));
        assert_eq!(bob.get(&path).await.0, 403);
        federation.links[0].cut();
        assert_eq!(bob.get(&path).await.0, 502);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/profile/{userId}
// endpoint: GET /_matrix/client/v3/profile/{userId}/{keyName}
// endpoint: GET /_matrix/federation/v1/query/profile
#[tokio::test]
async fn profiles_of_other_servers_are_asked_for() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let path = format!("/_matrix/client/v3/profile/{}", encoded(&alice.user_id));
        assert_eq!(bob.get(&path).await, (200, json!({ "displayname": "alice" })));
        assert_eq!(bob.get(&format!("{path}/displayname")).await, (200, json!({ "displayname": "alice" })));
        let query = federation_path(&format!("query/profile?user_id={}&field=", encoded(&alice.user_id)));
        let field = async |name: &str| ask(&federation, 1, 0, "GET", &format!("{query}{name}"), None).await;
        assert_eq!(field("displayname").await, (200, json!({ "displayname": "alice" })));
        let (status, answer) = field("avatar_url").await;
        assert_eq!((status, &answer["errcode"]), (404, &json!("M_NOT_FOUND")), "{answer}");
        assert_eq!(bob.get(&format!("{path}/avatar_url")).await.0, 404);
        assert_eq!(federation.servers[1].get(&path).await.0, 200);
        let nobody = format!("/_matrix/client/v3/profile/@nobody:{}", federation.name(0));
        assert_eq!(bob.get(&nobody).await.1["errcode"], "M_NOT_FOUND");
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/query/{queryType}
#[tokio::test]
async fn servers_ask_nothing_else_of_us() {
    on_each_backend_together(2, async |federation| {
        for query in ["query/client_keys", "query/org.example.weather?at=here", "query/Profile"] {
            let (status, answer) = ask(&federation, 1, 0, "GET", &federation_path(query), None).await;
            assert_eq!((status, &answer["errcode"]), (404, &json!("M_UNRECOGNIZED")), "{query}: {answer}");
        }
        // Strangers learn as little as of what is known.
        for query in ["query/client_keys", "query/profile"] {
            let (status, answer) = federation.servers[0].get(&federation_path(query)).await;
            assert_eq!((status, &answer["errcode"]), (401, &json!("M_UNAUTHORIZED")), "{query}: {answer}");
        }
    })
    .await;
}
