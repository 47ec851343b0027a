//! Health and metrics, as the tools of operators ask for them.

use hearth_api::Resource;
use hearth_testkit::{TestServer, json, on_each_backend, until_some};

// endpoint: GET /health
// endpoint: GET /ready
#[tokio::test]
async fn a_server_that_works_says_so() {
    on_each_backend(async |server| {
        assert_eq!(server.request("GET", "/health").send().await.status, 200);
        assert_eq!(server.request("GET", "/ready").send().await.status, 200);
    })
    .await;
}

// endpoint: GET /metrics
#[tokio::test]
async fn requests_are_counted_by_route_and_status() {
    let server = TestServer::start().await;
    // Metrics are the process's: other tests count along.
    server.get("/_matrix/client/versions?access_token=secret_token").await;
    let page = server.request("GET", "/metrics").send().await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/plain")));
    let text = page.text();
    let line = r#"hearth_http_requests_total{method="GET",route="/_matrix/client/versions",status="200"}"#;
    assert!(text.contains(line), "{text}");
    assert!(text.contains("hearth_http_request_duration_seconds_bucket{"), "{text}");
    assert!(text.contains("process_resident_memory_bytes"), "{text}");
    assert!(!text.contains("secret_token"));
}

#[tokio::test]
async fn the_store_the_caches_and_those_who_wait_are_measured() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    assert_eq!(alice.post("/_matrix/client/v3/createRoom", &json!({})).await.0, 200);
    let (_, synced) = alice.get("/_matrix/client/v3/sync").await;
    let since = synced["next_batch"].as_str().expect("a token").to_owned();
    let poll = alice.clone();
    let path = format!("/_matrix/client/v3/sync?timeout=30000&since={since}");
    let waits = tokio::spawn(async move { poll.get(&path).await });
    let text = until_some("somebody waits", async || {
        let text = server.request("GET", "/metrics").send().await.text();
        // Metrics are the process's: other tests count along.
        let waits = |line: &str| line.starts_with("hearth_sync_waiting ") && !line.ends_with(" 0");
        text.lines().any(waits).then_some(text)
    })
    .await;
    for name in [
        "hearth_events_appended_total ",
        "hearth_store_cache_entries{cache=\"events\"}",
        "hearth_store_statements_total{",
        "hearth_store_waiting{",
        "hearth_store_commits_total{",
    ] {
        assert!(text.contains(name), "{name} is not among {text}");
    }
    waits.abort();
}

#[tokio::test]
async fn a_listener_offers_only_its_resources() {
    let server = TestServer::start_with(|settings| settings.listeners[0].resources = vec![Resource::Health]).await;
    assert_eq!(server.request("GET", "/health").send().await.status, 200);
    assert_eq!(server.get("/_matrix/client/versions").await.0, 404);
    assert_eq!(server.get("/metrics").await.0, 404);
}
