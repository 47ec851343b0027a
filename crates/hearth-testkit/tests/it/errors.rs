//! What every door refuses alike, and what browsers need of every answer.

use hearth_testkit::{TestServer, json};

#[tokio::test]
async fn what_is_not_there_is_unrecognized() {
    let server = TestServer::start().await;
    for path in [
        "/_matrix/client/v3/nonsense",
        "/_matrix/client/v3",
        "/",
        "/_matrix/federation/v9/x",
        "/_matrix/client/versions/",
    ] {
        let answer = server.request("GET", path).send().await;
        assert_eq!(answer.refusal(), (404, "M_UNRECOGNIZED".to_owned()), "{path}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_named_and_the_right_ones_are_offered() {
    let server = TestServer::start().await;
    for method in ["POST", "PUT", "DELETE", "PATCH"] {
        let answer = server.request(method, "/_matrix/client/versions").json(&json!({})).send().await;
        assert_eq!(answer.refusal(), (405, "M_UNRECOGNIZED".to_owned()), "{method}");
        assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")), "{method}");
    }
}

/// endpoint: GET /_matrix/client/versions
#[tokio::test]
async fn versions_are_told_to_everybody() {
    let server = TestServer::start().await;
    let (status, body) = server.get("/_matrix/client/versions").await;
    assert_eq!(status, 200);
    assert!(body["versions"].as_array().is_some_and(|versions| versions.contains(&json!("v1.1"))), "{body}");
}

/// endpoint: GET /.well-known/matrix/client
#[tokio::test]
async fn the_public_url_is_advertised_if_it_is_known() {
    let server = TestServer::start().await;
    assert_eq!(server.get("/.well-known/matrix/client").await.0, 404);
    let server = TestServer::start_with(|settings| settings.public_url = "https://example.org/".parse().ok()).await;
    let (status, body) = server.get("/.well-known/matrix/client").await;
    assert_eq!((status, &body["m.homeserver"]["base_url"]), (200, &json!("https://example.org")));
}

#[tokio::test]
async fn browsers_of_any_origin_may_ask() {
    let server = TestServer::start().await;
    let requests = [
        ("OPTIONS", "/_matrix/client/versions", 204),
        ("OPTIONS", "/_matrix/client/v3/nonsense", 204),
        ("GET", "/_matrix/client/versions", 200),
        ("GET", "/_matrix/client/v3/nonsense", 404),
        ("PUT", "/_matrix/client/versions", 405),
        ("GET", "/.well-known/matrix/client", 404),
    ];
    for (method, path, status) in requests {
        let answer = server.request(method, path).send().await;
        assert_eq!(answer.status, status, "{method} {path}");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{method} {path}");
        assert!(answer.header("access-control-allow-methods").is_some_and(|methods| methods.contains("PUT")));
        assert!(answer.header("access-control-allow-headers").is_some_and(|headers| headers.contains("Authorization")));
    }
}

#[tokio::test]
async fn a_head_too_large_is_refused() {
    let server = TestServer::start().await;
    let path = |length| format!("/_matrix/client/versions?x={}", "y".repeat(length));
    assert_eq!(server.request("GET", &path(16_000)).send().await.status, 200);
    assert_eq!(server.request("GET", &path(20_000)).send().await.refusal(), (414, "M_TOO_LARGE".to_owned()));
    let answer =
        server.request("GET", "/_matrix/client/versions").header("x-large", &"y".repeat(70_000)).try_send().await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| answer.status == 431));
}
