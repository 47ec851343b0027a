//! Aliases and the directory, where other servers have a part in them.

use hearth_testkit::{json, on_each_backend_together, on_each_backend_together_with};

use super::*;

const LIST: &str = "/_matrix/client/v3/publicRooms";
const LIST_FOR_SERVERS: &str = "/_matrix/federation/v1/publicRooms";

async fn point(user: &User, alias: &str, room: &str) {
    let path = format!("/_matrix/client/v3/directory/room/{}", encoded(alias));
    assert_eq!(user.put(&path, &json!({ "room_id": room })).await, (200, json!({})));
}

fn names(page: &Value) -> Vec<&str> {
    page["chunk"].as_array().expect("rooms").iter().map(|room| room["name"].as_str().expect("a name")).collect()
}

// endpoint: PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}
// endpoint: GET /_matrix/federation/v1/query/directory
#[tokio::test]
async fn aliases_of_other_servers_may_be_canonical_if_they_lead_to_the_room() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let (room, other) = (public_room(&alice).await, public_room(&bob).await);
        must_join_via(&bob, &room, &federation.name(0)).await;
        let of_bob = |name: &str| format!("#{name}:{}", federation.name(1));
        let (here, also, elsewhere, nowhere) = (of_bob("here"), of_bob("also"), of_bob("elsewhere"), of_bob("nowhere"));
        point(&bob, &here, &room).await;
        point(&bob, &also, &room).await;
        point(&bob, &elsewhere, &other).await;
        let path = room_path(&room, "state/m.room.canonical_alias/");
        let set = async |content: Value| alice.put(&path, &content).await;
        for wrong in [
            json!({ "alias": elsewhere }),
            json!({ "alias": nowhere }),
            json!({ "alias": here, "alt_aliases": [also, elsewhere] }),
        ] {
            let (status, answer) = set(wrong).await;
            assert_eq!((status, &answer["errcode"]), (400, &json!("M_BAD_ALIAS")), "{answer}");
        }
        let (status, answer) = bob.put(&path, &json!({ "alias": here })).await;
        assert_eq!((status, &answer["errcode"]), (403, &json!("M_FORBIDDEN")), "{answer}");
        assert_eq!(set(json!({ "alias": here, "alt_aliases": [here] })).await.0, 200);
        federation.links[1].cut();
        assert_eq!(set(json!({ "alias": here })).await.0, 200, "what stood is not asked about");
        let (status, answer) = set(json!({ "alias": here, "alt_aliases": [also] })).await;
        assert_eq!((status, &answer["errcode"]), (502, &json!("M_UNKNOWN")), "{answer}");
        federation.links[1].heal();
        assert_eq!(set(json!({ "alias": here, "alt_aliases": [also] })).await.0, 200);
        let many: Vec<String> = (0..21).map(|n| of_bob(&format!("many{n}"))).collect();
        let (status, answer) = set(json!({ "alt_aliases": many })).await;
        assert_eq!((status, &answer["errcode"]), (400, &json!("M_INVALID_PARAM")), "{answer}");
    })
    .await;
}

// endpoint: GET /_matrix/federation/v1/publicRooms
// endpoint: POST /_matrix/federation/v1/publicRooms
// endpoint: GET /_matrix/client/v3/publicRooms
#[tokio::test]
async fn rooms_that_other_servers_cannot_come_into_are_not_listed_to_them() {
    on_each_backend_together_with(
        2,
        |settings| settings.directory.open_to_federation = true,
        async |federation| {
            let alice = federation.servers[0].user("alice").await;
            let published = |name: &str| json!({ "preset": "public_chat", "visibility": "public", "name": name });
            create_room(&alice, published("For all")).await;
            let mut request = published("For us");
            request["creation_content"] = json!({ "m.federate": false });
            create_room(&alice, request).await;
            let mut all = names(&alice.get(LIST).await.1).join(", ");
            assert!(all.contains("For all") && all.contains("For us"), "{all}");
            for (method, body) in [("GET", None), ("POST", Some(json!({})))] {
                let (status, page) = ask(&federation, 1, 0, method, LIST_FOR_SERVERS, body).await;
                all = names(&page).join(", ");
                assert_eq!((status, all.as_str(), &page["total_room_count_estimate"]), (200, "For all", &json!(1)));
            }
        },
    )
    .await;
}

// endpoint: GET /_matrix/client/v3/publicRooms
// endpoint: GET /_matrix/federation/v1/query/directory
#[tokio::test]
async fn a_room_that_we_left_is_neither_listed_nor_said_to_be_here() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let request =
            json!({ "preset": "public_chat", "visibility": "public", "name": "Hall", "room_alias_name": "hall" });
        let room = create_room(&alice, request).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let alias = encoded(&format!("#hall:{}", federation.name(0)));
        let path = format!("/_matrix/federation/v1/query/directory?room_alias={alias}");
        let servers = async || ask(&federation, 1, 0, "GET", &path, None).await.1["servers"].clone();
        assert_eq!(servers().await, json!([federation.name(0), federation.name(1)]));
        assert_eq!(names(&alice.get(LIST).await.1), ["Hall"]);
        assert_eq!(alice.post(&room_path(&room, "leave"), &json!({})).await.0, 200);
        let page = alice.get(LIST).await.1;
        assert_eq!((&page["chunk"], &page["total_room_count_estimate"]), (&json!([]), &json!(0)));
        assert_eq!(servers().await, json!([federation.name(1)]));
        until("the leave is known there", async || membership(&bob, &room, &alice.user_id).await == "leave").await;
        must_join_via(&alice, &room, &federation.name(1)).await;
        assert_eq!(names(&alice.get(LIST).await.1), ["Hall"], "it is here again");
    })
    .await;
}

// endpoint: POST /_matrix/client/v3/publicRooms
#[tokio::test]
async fn networks_of_another_servers_directory_are_for_that_server_to_list() {
    let federation = hearth_testkit::Federation::start(2).await;
    let bob = federation.servers[1].user("bob").await;
    let path = format!("{LIST}?server={}", encoded(&federation.name(0)));
    for wanted in [json!({ "third_party_instance_id": "irc" }), json!({ "include_all_networks": true })] {
        // It tells nobody of its rooms: so it was asked.
        assert_eq!(bob.post(&path, &wanted).await.1["errcode"], "M_FORBIDDEN");
    }
    federation.links[0].answer(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{\"chunk\":[]}",
    );
    assert_eq!(bob.post(&path, &json!({ "third_party_instance_id": "irc" })).await.0, 200);
}

// endpoint: GET /_matrix/client/v3/publicRooms
// endpoint: GET /_matrix/client/v3/profile/{userId}
#[tokio::test]
async fn what_somebody_waits_for_is_asked_of_a_server_that_failed_lately() {
    on_each_backend_together(2, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let list = format!("{LIST}?server={}", encoded(&federation.name(0)));
        let profile = format!("/_matrix/client/v3/profile/{}", encoded(&alice.user_id));
        federation.links[0].cut();
        for path in [&list, &profile] {
            assert_eq!(bob.get(path).await.0, 502);
            assert_eq!(bob.get(path).await.0, 502);
        }
        federation.links[0].heal();
        assert_eq!(bob.get(&list).await.0, 403, "it tells nobody, but it says so");
        assert_eq!(bob.get(&profile).await.0, 200);
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/directory/room/{roomAlias}
#[tokio::test]
async fn a_name_that_is_none_does_not_spoil_an_alias() {
    let federation = hearth_testkit::Federation::start(2).await;
    let bob = federation.servers[1].user("bob").await;
    federation.links[0].answer(concat!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 53\r\nConnection: close\r\n\r\n",
        r#"{"room_id":"!room:a.test","servers":["a b","a.test"]}"#
    ));
    let alias = encoded(&format!("#any:{}", federation.name(0)));
    let (status, answer) = bob.get(&format!("/_matrix/client/v3/directory/room/{alias}")).await;
    assert_eq!((status, &answer["room_id"]), (200, &json!("!room:a.test")), "{answer}");
    assert_eq!(answer["servers"], json!(["a.test", federation.name(0)]));
}
