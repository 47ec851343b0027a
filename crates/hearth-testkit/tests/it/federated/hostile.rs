//! Servers that send what makes others stumble: what they do to us goes no further.

use hearth_matrix::ruma::{CanonicalJsonObject, CanonicalJsonValue, RoomId, RoomVersionId, ServerName, UserId};
use hearth_matrix::{Draft, Place, SigningKey, seal};
use hearth_testkit::{Federation, TestServer, json, on_each_backend_together};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::*;
use crate::federation::Peer;

fn key() -> SigningKey {
    SigningKey::from_seed([7; 32], "known").expect("a key")
}

/// An event made from a template of another server, of somebody at the server that signs with [`key`].
fn made_from(template: &Value, content: CanonicalJsonObject) -> hearth_matrix::Pdu {
    let event = &template["event"];
    let text = |field: &str| event[field].as_str().expect("a string").to_owned();
    let ids = |field: &str| {
        let all = event[field].as_array().expect("a list").iter();
        all.map(|id| id.as_str().expect("an id").try_into().expect("an id")).collect::<Vec<_>>()
    };
    let (room_id, sender) = (text("room_id"), text("sender"));
    let sender = <&UserId>::try_from(sender.as_str()).expect("a user id");
    let place = Place {
        room_id: Some(<&RoomId>::try_from(room_id.as_str()).expect("a room id")),
        sender,
        prev_events: &ids("prev_events"),
        auth_events: &ids("auth_events"),
        depth: event["depth"].as_u64().expect("a depth"),
        origin_server_ts: event["origin_server_ts"].as_i64().expect("a time"),
        server_name: sender.server_name(),
        v1: None,
    };
    let draft = Draft { kind: text("type"), state_key: Some(sender.to_string()), content, redacts: None };
    seal(draft, &place, &key(), hearth_matrix::rules(&RoomVersionId::V11).expect("rules")).expect("an event")
}

fn nested(depth: usize) -> CanonicalJsonValue {
    (0..depth).fold(CanonicalJsonValue::Null, |inner, _| CanonicalJsonValue::Array(vec![inner]))
}

// endpoint: PUT /_matrix/federation/v2/send_join/{roomId}/{eventId}
#[tokio::test]
async fn a_deeply_nested_event_stops_nothing() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": "11" })).await;
        must_join_via(&bob, &room, &federation.name(0)).await;

        let carol = format!("@carol:{}", federation.name(2));
        federation.servers[2].running().doors().remote.sign_with(key()).await.expect("the store answers");
        let path = format!("/_matrix/federation/v1/make_join/{}/{}?ver=11", encoded(&room), encoded(&carol));
        let (status, template) = ask(&federation, 2, 0, "GET", &path, None).await;
        assert_eq!(status, 200, "{template}");
        let content = CanonicalJsonObject::from([
            ("membership".to_owned(), CanonicalJsonValue::String("join".to_owned())),
            ("deep".to_owned(), nested(124)),
        ]);
        let join = made_from(&template, content);
        let path = format!("/_matrix/federation/v2/send_join/{}/{}", encoded(&room), encoded(join.event_id.as_str()));
        let body = serde_json::from_str(&join.json).expect("JSON");
        let (status, answer) = ask(&federation, 2, 0, "PUT", &path, Some(body)).await;
        assert_eq!(status, 200, "{answer}");
        let said = send(&alice, &room, "still here").await;
        arrives(&bob, &room, &said).await;
        until("the third is in", async || membership(&bob, &room, &carol).await == "join").await;
    })
    .await;
}

/// What a server may not build as a value: a transaction as text, signed by one server for another.
// endpoint: GET /_matrix/federation/v1/event/{eventId}
#[tokio::test]
async fn what_was_rejected_is_told_to_nobody() {
    on_each_backend_together(3, async |federation| {
        let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
        let room = create_room(&alice, json!({ "preset": "public_chat", "room_version": "11" })).await;
        must_join_via(&bob, &room, &federation.name(0)).await;
        let carol = format!("@carol:{}", federation.name(2));
        federation.servers[2].running().doors().remote.sign_with(key()).await.expect("the store answers");
        let path = format!("/_matrix/federation/v1/make_join/{}/{}?ver=11", encoded(&room), encoded(&carol));
        let (_, mut template) = ask(&federation, 2, 0, "GET", &path, None).await;
        // Nothing says that one may come in.
        let (_, state) = alice.get(&room_path(&room, "state")).await;
        let create = state.as_array().expect("state").iter().find(|event| event["type"] == "m.room.create");
        let create = create.expect("a create event")["event_id"].as_str().expect("an id").to_owned();
        template["event"]["auth_events"] = json!([create]);
        let content = [("membership".to_owned(), CanonicalJsonValue::String("join".to_owned()))].into();
        let join = made_from(&template, content);
        let path = format!("/_matrix/federation/v2/send_join/{}/{}", encoded(&room), encoded(join.event_id.as_str()));
        let body = serde_json::from_str(&join.json).expect("JSON");
        assert_eq!(ask(&federation, 2, 0, "PUT", &path, Some(body)).await.1["errcode"], "M_FORBIDDEN");
        let known = async |event_id: &str| {
            let path = format!("/_matrix/federation/v1/event/{}", encoded(event_id));
            ask(&federation, 1, 0, "GET", &path, None).await
        };
        assert_eq!(known(&create).await.0, 200);
        assert_eq!(known(join.event_id.as_str()).await.1["errcode"], "M_NOT_FOUND");
    })
    .await;
}

async fn transaction_of_text(federation: &Federation, from: usize, to: usize, txn: &str, body: String) -> (u16, Value) {
    let name = ServerName::parse(federation.name(to)).expect("a server name");
    let request = Request::put(format!("https://matrix.invalid/_matrix/federation/v1/send/{txn}"))
        .header("content-type", "application/json")
        .body(body.into())
        .expect("a request");
    let remote = &federation.servers[from].running().doors().remote;
    match remote.send_raw(&name, request, true, Default::default()).await {
        Ok(answer) => (answer.status().as_u16(), serde_json::from_slice(answer.body()).expect("JSON")),
        Err(hearth_remote::RemoteError::Refused { status, body, .. }) => {
            (status.as_u16(), serde_json::from_slice(&body).unwrap_or_default())
        }
        Err(error) => panic!("no answer: {error}"),
    }
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn what_is_too_deep_or_unknown_in_a_large_transaction_keeps_nothing_else_out() {
    let federation = Federation::start(2).await;
    let (alice, bob) = (federation.servers[0].user("alice").await, federation.servers[1].user("bob").await);
    let room = public_room(&alice).await;
    must_join_via(&bob, &room, &federation.name(0)).await;
    federation.links[0].cut();
    let said = send(&bob, &room, "hello").await;
    let good = pdu(&federation, 1, &room, &said).await.to_string();
    federation.links[0].heal();
    federation.time.advance(3_600_000);
    let deep = good.replace("\"hello\"", &format!("{}1{}", "[".repeat(200), "]".repeat(200)));
    assert_ne!(deep, good);
    // As much as a server may send: fifty events and ninety EDUs of 60 KiB each.
    let large = |kind: &str| format!(r#"{{"{kind}":"x","content":{{"x":"{}"}}}}"#, "x".repeat(60 * 1024));
    // One with the id of the good one, and one with an id of its own.
    let other = good.replace("\"origin_server_ts\":", "\"origin_server_ts\":1");
    let version = hearth_matrix::rules(&RoomVersionId::V12).expect("rules");
    let other_id = hearth_matrix::Pdu::from_remote(&other, version).expect("an event").event_id;
    let deeper = deep.replace("\"origin_server_ts\":", "\"origin_server_ts\":1");
    let mut pdus = vec![good, deep, deeper];
    pdus.resize(50, large("type"));
    let edus = vec![large("edu_type"); 90];
    let body = format!(
        r#"{{"origin":"{}","origin_server_ts":1,"pdus":[{}],"edus":[{}]}}"#,
        federation.name(1),
        pdus.join(","),
        edus.join(",")
    );
    assert!(body.len() > 8 * 1024 * 1024);
    let (status, answer) = transaction_of_text(&federation, 1, 0, "large", body).await;
    assert_eq!((status, &answer["pdus"][&said]), (200, &json!({})), "{answer}");
    let refused = &answer["pdus"][other_id.as_str()]["error"];
    assert!(refused.as_str().is_some_and(|error| error.contains("recursion")), "{answer}");
    arrives(&alice, &room, &said).await;
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn who_does_not_say_who_he_is_is_not_heard_out() {
    let server = TestServer::start().await;
    let elsewhere = r#"X-Matrix origin="a.test",destination="other.test",key="ed25519:a",sig="aaaa""#;
    for header in ["", "X-Matrix rubbish", elsewhere] {
        let mut stream = TcpStream::connect(address_of(&server)).await.expect("a connection");
        // The body never comes.
        let head = format!(
            "PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nHost: x\r\nAuthorization: {header}\r\nContent-Length: 1000\r\n\r\n{{"
        );
        stream.write_all(head.as_bytes()).await.expect("a request");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 401", "{header}");
    }
}

/// Where a server hears plain HTTP.
fn address_of(server: &TestServer) -> std::net::SocketAddr {
    match server.running().binds().first() {
        Some(hearth_api::serve::Bind::Tcp(address)) => *address,
        other => panic!("no TCP listener: {other:?}"),
    }
}

/// Begins a request that another server seems to have signed, from an address, with a part of its body.
async fn forge(server: &TestServer, from: &str, length: usize, part: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address_of(server)).await.expect("a connection");
    let (origin, us) = (from.replace(':', "-"), server.name());
    let signature = format!(r#"X-Matrix origin="{origin}.test",destination="{us}",key="ed25519:a",sig="aaaa""#);
    let head = format!(
        "PUT /_matrix/federation/v1/send/1 HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {from}\r\n\
         Authorization: {signature}\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("a head");
    // Who is refused meanwhile does not read on.
    let _ = stream.write_all(part).await;
    stream
}

/// The beginning of an answer, up to its body.
async fn answered(mut stream: TcpStream) -> String {
    let mut answer = vec![0; 4096];
    let read = stream.read(&mut answer).await.expect("an answer");
    String::from_utf8_lossy(&answer[..read]).into_owned()
}

// endpoint: PUT /_matrix/federation/v1/send/{txnId}
#[tokio::test]
async fn bodies_without_an_end_take_no_more_than_some_memory() {
    const MIB: usize = 1024 * 1024;
    let (peer, server) = Peer::with_server(|settings, _| {
        settings.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().expect("a range")];
    })
    .await;
    let proof = peer.request(&server, "/_matrix/federation/v1/query/directory?room_alias=%23none:hearth.test");
    assert_eq!(proof.header("x-forwarded-for", "203.0.113.1").send().await.status, 404);
    let bodies = &server.running().doors().bodies;
    let held = async |bytes: usize| until(&format!("{bytes} are held"), async || bodies.bytes() == bytes).await;
    let part = vec![b' '; 8 * MIB - 1];
    let mut slow = Vec::new();
    for address in ["192.0.2.1", "192.0.2.2", "192.0.2.3", "2001:db8:1:1::1"] {
        let before = bodies.bytes();
        let mut of_address = Vec::new();
        for _ in 0..2 {
            of_address.push(forge(&server, address, 8 * MIB, &part).await);
        }
        held(before + 16 * MIB).await;
        let refused = answered(forge(&server, address, 8 * MIB, b"{").await).await;
        assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("M_LIMIT_EXCEEDED"), "{refused}");
        slow.push(of_address);
    }
    // Together they leave nothing to others who have proved nothing, but they don't take more, and what one gives back is there
    // for them.
    let from = async |address: &str| answered(forge(&server, address, 8, b"not JSON").await).await;
    let honest = async || from("198.51.100.1").await;
    assert!(honest().await.starts_with("HTTP/1.1 429"));
    // From where somebody proved who he is, he is heard, for an hour.
    assert!(from("203.0.113.1").await.starts_with("HTTP/1.1 400"));
    server.time.advance(61 * 60 * 1000);
    assert!(from("203.0.113.1").await.starts_with("HTTP/1.1 429"));
    drop(slow.remove(0));
    held(48 * MIB).await;
    let heard = honest().await;
    assert!(heard.starts_with("HTTP/1.1 400") && heard.contains("M_NOT_JSON"), "{heard}");
    // Nor are several networks of one customer several.
    let refused = answered(forge(&server, "2001:db8:1:2::1", 8 * MIB, b"{").await).await;
    assert!(refused.starts_with("HTTP/1.1 429"), "{refused}");
    // Nor does it stay when all has been heard.
    drop(slow);
    held(0).await;
    assert!(answered(forge(&server, "192.0.2.1", part.len(), &part).await).await.starts_with("HTTP/1.1 400"));
    held(0).await;
    peer.serving.drain().await;
}
