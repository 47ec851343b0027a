//! Aliases and the public directory.

use hearth_testkit::{Request, TestServer, json, on_each_backend};

use super::{act, create_room, fine};

// endpoint: PUT /_matrix/client/v3/directory/room/{roomAlias}
// endpoint: GET /_matrix/client/v3/directory/room/{roomAlias}
// endpoint: DELETE /_matrix/client/v3/directory/room/{roomAlias}
// endpoint: GET /_matrix/client/v3/rooms/{roomId}/aliases
#[tokio::test]
async fn aliases_come_and_go() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = create_room(&alice, json!({ "preset": "public_chat" })).await;
        let path = format!("/_matrix/client/v3/directory/room/%23hall:{}", server.name());
        assert_eq!(bob.get(&path).await.0, 404);
        assert_eq!(bob.put(&path, &json!({ "room_id": room })).await.0, 403, "not in the room");
        assert_eq!(alice.put(&path, &json!({ "room_id": room })).await.0, 200);
        assert_eq!(alice.put(&path, &json!({ "room_id": room })).await.0, 409);
        let elsewhere = "/_matrix/client/v3/directory/room/%23hall:elsewhere.test";
        assert_eq!(alice.put(elsewhere, &json!({ "room_id": room })).await.1["errcode"], "M_INVALID_PARAM");
        let found = Request::new(server.target(), "GET", &path).send().await.json();
        assert_eq!(found, json!({ "room_id": room, "servers": [server.name()] }));
        let aliases = format!("/_matrix/client/v3/rooms/{room}/aliases");
        assert_eq!(alice.get(&aliases).await.1["aliases"], json!([format!("#hall:{}", server.name())]));
        assert_eq!(bob.get(&aliases).await.0, 403);
        assert_eq!(act(&bob, &room, "join", json!({})).await, fine());
        assert_eq!(bob.delete(&path).await.0, 403, "neither his nor in his power");
        let canonical = format!("/_matrix/client/v3/rooms/{room}/state/m.room.canonical_alias");
        let alias = format!("#hall:{}", server.name());
        let named = json!({ "alias": alias, "alt_aliases": [alias], "org.example": 1 });
        assert_eq!(alice.put(&canonical, &named).await.0, 200);
        assert_eq!(alice.delete(&path).await.0, 200);
        assert_eq!(alice.delete(&path).await.0, 404);
        assert_eq!(alice.get(&canonical).await.1, json!({ "org.example": 1 }), "the room no longer names it");
    })
    .await;
}

// endpoint: GET /_matrix/client/v3/directory/list/room/{roomId}
// endpoint: PUT /_matrix/client/v3/directory/list/room/{roomId}
// endpoint: GET /_matrix/client/v3/publicRooms
// endpoint: POST /_matrix/client/v3/publicRooms
#[tokio::test]
async fn the_directory_lists_what_was_published_page_by_page() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let mut rooms = Vec::new();
        for name in ["Garden", "Kitchen", "Attic"] {
            rooms.push(create_room(&alice, json!({ "visibility": "public", "name": name })).await);
        }
        let space = json!({ "visibility": "public", "name": "House", "creation_content": { "type": "m.space" } });
        create_room(&alice, space).await;
        let private = create_room(&alice, json!({ "name": "Cellar" })).await;
        assert_eq!(act(&bob, &rooms[2], "join", json!({})).await, fine());

        let page = alice.get("/_matrix/client/v3/publicRooms?limit=3").await.1;
        assert_eq!(page["total_room_count_estimate"], 4);
        assert_eq!(page["chunk"][0]["room_id"], json!(rooms[2]), "the largest first");
        assert_eq!(page["chunk"].as_array().map(Vec::len), Some(3));
        let next = page["next_batch"].as_str().expect("there is more");
        let rest = alice.get(&format!("/_matrix/client/v3/publicRooms?limit=3&since={next}")).await.1;
        assert_eq!(rest["chunk"].as_array().map(Vec::len), Some(1));
        assert_eq!(rest.get("next_batch"), None);
        assert_eq!(alice.get("/_matrix/client/v3/publicRooms?since=nonsense").await.1["errcode"], "M_INVALID_PARAM");

        let search = async |filter| {
            let (_, page) = alice.post("/_matrix/client/v3/publicRooms", &json!({ "filter": filter })).await;
            let names = page["chunk"].as_array().expect("a chunk").iter().map(|room| room["name"].to_string());
            names.collect::<Vec<_>>()
        };
        assert_eq!(search(json!({ "generic_search_term": "KITCH" })).await, ["\"Kitchen\""]);
        assert_eq!(search(json!({ "room_types": ["m.space"] })).await, ["\"House\""]);
        assert_eq!(search(json!({ "room_types": [null] })).await.len(), 3);

        let listed = format!("/_matrix/client/v3/directory/list/room/{private}");
        assert_eq!(bob.get(&listed).await.1["visibility"], "private");
        assert_eq!(bob.put(&listed, &json!({ "visibility": "public" })).await.0, 403);
        assert_eq!(alice.put(&listed, &json!({ "visibility": "public" })).await.0, 200);
        assert_eq!(bob.get(&listed).await.1["visibility"], "public");
        assert_eq!(bob.get("/_matrix/client/v3/directory/list/room/!none:hearth.test").await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn the_directory_is_read_backwards_and_without_bridges() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        for n in 0..5 {
            create_room(&alice, json!({ "visibility": "public", "name": format!("Room {n}") })).await;
        }
        let page = async |body| alice.post("/_matrix/client/v3/publicRooms", &body).await.1;
        let first = page(json!({ "limit": 2 })).await;
        assert_eq!(first.get("prev_batch"), None);
        let second = page(json!({ "limit": 2, "since": first["next_batch"] })).await;
        let third = page(json!({ "limit": 2, "since": second["next_batch"] })).await;
        assert_eq!((third["chunk"].as_array().map(Vec::len), third.get("next_batch")), (Some(1), None));
        assert_eq!(page(json!({ "limit": 2, "since": third["prev_batch"] })).await["chunk"], second["chunk"]);
        assert_eq!(page(json!({ "limit": 2, "since": second["prev_batch"] })).await["chunk"], first["chunk"]);
        assert_eq!(page(json!({ "third_party_instance_id": "irc" })).await["chunk"], json!([]));
        assert_eq!(page(json!({ "include_all_networks": true })).await["chunk"].as_array().map(Vec::len), Some(5));
    })
    .await;
}

#[tokio::test]
async fn a_closed_directory_is_for_those_with_an_account() {
    let server = TestServer::start_with(|settings| settings.directory.open = false).await;
    let alice = server.user("alice").await;
    assert_eq!(server.get("/_matrix/client/v3/publicRooms").await.1["errcode"], "M_MISSING_TOKEN");
    assert_eq!(alice.get("/_matrix/client/v3/publicRooms").await.0, 200);
}
