//! What clients leave here has limits, each with its code.

use hearth_testkit::{TestServer, User, Value, json, on_each_backend};

fn refused(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["errcode"].as_str().unwrap_or_default())
}

async fn create_room(user: &User) -> String {
    let (status, created) = user.post("/_matrix/client/v3/createRoom", &json!({})).await;
    assert_eq!(status, 200, "{created}");
    created["room_id"].as_str().expect("a room id").to_owned()
}

/// An object with so many objects within each other.
fn nested(depth: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth))
}

#[tokio::test]
async fn what_is_kept_is_not_nested_without_end() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let room = create_room(&alice).await;
        let user = format!("/_matrix/client/v3/user/{}", alice.user_id);
        let of_room = format!("/_matrix/client/v3/rooms/{room}");
        let places = [
            ("PUT", format!("{user}/account_data/org.example"), ""),
            ("PUT", format!("{user}/rooms/{room}/account_data/org.example"), ""),
            ("PUT", format!("{user}/rooms/{room}/tags/u.deep"), ""),
            ("PUT", format!("{of_room}/send/org.example/deep"), ""),
            ("PUT", format!("{of_room}/state/org.example"), ""),
            ("PUT", format!("/_matrix/client/v3/profile/{}/org.example", alice.user_id), "org.example"),
            ("POST", format!("{user}/filter"), "org.example"),
            ("POST", "/_matrix/client/v3/createRoom".to_owned(), "creation_content"),
        ];
        for (method, path, within) in &places {
            let ask = async |depth: usize| {
                let body =
                    if within.is_empty() { nested(depth) } else { format!(r#"{{"{within}":{}}}"#, nested(depth - 1)) };
                let answer = alice.request(method, path).body(body).send().await;
                (answer.status, answer.json())
            };
            assert_eq!(refused(&ask(101).await), (400, "M_BAD_JSON"), "{method} {path}");
            assert_eq!(refused(&ask(10_000).await), (400, "M_BAD_JSON"), "{method} {path}");
            let answer = ask(100).await;
            assert_eq!(answer.0, 200, "{method} {path}: {}", answer.1);
        }
        // And what was taken can be read again, wherever it shows.
        assert_eq!(alice.request("GET", "/_matrix/client/v3/sync").send().await.status, 200);
        for path in [
            format!("{user}/account_data/org.example"),
            format!("{user}/rooms/{room}/tags"),
            format!("{of_room}/messages?dir=b"),
            format!("{of_room}/state"),
            format!("/_matrix/client/v3/profile/{}", alice.user_id),
        ] {
            assert_eq!(alice.request("GET", &path).send().await.status, 200, "{path}");
        }
        let send = format!("{of_room}/send/m.room.message/after");
        assert_eq!(alice.put(&send, &json!({ "msgtype": "m.text", "body": "x" })).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn what_is_kept_is_not_large_without_end() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let user = format!("/_matrix/client/v3/user/{}", alice.user_id);
    let profile = format!("/_matrix/client/v3/profile/{}", alice.user_id);
    let x = |count: usize| "x".repeat(count);
    for (path, body, refusal) in [
        (format!("{user}/account_data/org.example"), json!({ "a": x(600_000) }), (413, "M_TOO_LARGE")),
        (format!("{user}/account_data/{}", x(256)), json!({}), (400, "M_INVALID_PARAM")),
        (format!("{profile}/org.example"), json!({ "org.example": x(65_000) }), (200, "")),
        (format!("{profile}/org.other"), json!({ "org.other": x(1_000) }), (400, "M_PROFILE_TOO_LARGE")),
        (format!("{profile}/{}", x(256)), json!({ x(256): "a" }), (400, "M_KEY_TOO_LARGE")),
    ] {
        assert_eq!(refused(&alice.put(&path, &body).await), refusal, "{path:.80}");
    }
    let filter = json!({ "room": { "rooms": [x(70_000)] } });
    let answer = alice.post(&format!("{user}/filter"), &filter).await;
    assert_eq!(refused(&answer), (413, "M_TOO_LARGE"));
    let search = json!({ "filter": { "generic_search_term": x(2_000) } });
    assert_eq!(refused(&alice.post("/_matrix/client/v3/publicRooms", &search).await), (400, "M_INVALID_PARAM"));
    let device = format!("/_matrix/client/v3/devices/{}", alice.device_id);
    assert_eq!(refused(&alice.put(&device, &json!({ "display_name": x(300) })).await), (413, "M_TOO_LARGE"));
    let long = server.request("GET", &format!("/_matrix/client/versions?{}", x(20_000))).send().await;
    assert_eq!(long.refusal(), (414, "M_TOO_LARGE".to_owned()));
    assert_eq!(server.get("/_matrix/client/versions").await.0, 200);
}
