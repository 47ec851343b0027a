//! Health and metrics, as the tools of operators ask for them.

use hearth_api::Resource;
use hearth_testkit::{TestServer, on_each_backend};

#[tokio::test]
async fn a_server_that_works_says_so() {
    on_each_backend(async |server| {
        assert_eq!(server.request("GET", "/health").send().await.status, 200);
        assert_eq!(server.request("GET", "/ready").send().await.status, 200);
    })
    .await;
}

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
async fn a_listener_offers_only_its_resources() {
    let server = TestServer::start_with(|settings| settings.listeners[0].resources = vec![Resource::Health]).await;
    assert_eq!(server.request("GET", "/health").send().await.status, 200);
    assert_eq!(server.get("/_matrix/client/versions").await.0, 404);
    assert_eq!(server.get("/metrics").await.0, 404);
}
