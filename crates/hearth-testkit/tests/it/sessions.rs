//! Sessions at the door: tokens in header and query, missing, wrong, after a restart.

use hearth_testkit::on_each_backend;

const WHOAMI: &str = "/_matrix/client/v3/account/whoami";

/// endpoint: GET /_matrix/client/v3/account/whoami
#[tokio::test]
async fn a_token_opens_by_header_and_by_query() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let (status, body) = alice.get(WHOAMI).await;
        assert_eq!((status, body["user_id"].as_str()), (200, Some("@alice:hearth.test")));
        let (status, body) = server.get(&format!("{WHOAMI}?access_token={}", alice.access_token)).await;
        assert_eq!((status, body["device_id"].as_str()), (200, Some(&*alice.device_id)));
        assert_eq!(server.get("/_matrix/client/r0/account/whoami").await.0, 401);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_asked_for_before_the_body_is_read() {
    on_each_backend(async |server| {
        let answer = server.request("GET", WHOAMI).send().await;
        assert_eq!(answer.refusal(), (401, "M_MISSING_TOKEN".to_owned()));
        let answer = server.request("GET", WHOAMI).token("nobody's").send().await;
        assert_eq!(answer.refusal(), (401, "M_UNKNOWN_TOKEN".to_owned()));
        assert_eq!(answer.json()["soft_logout"], false);
        let path = "/_matrix/client/v3/user/@a:hearth.test/filter";
        let answer = server.request("POST", path).body("no json").send().await;
        assert_eq!(answer.refusal(), (401, "M_MISSING_TOKEN".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_session_outlives_a_restart() {
    on_each_backend(async |mut server| {
        let alice = server.user("alice").await;
        server.restart().await;
        assert_eq!(alice.get(WHOAMI).await.0, 200);
        let phone = server.login(&alice).await;
        assert_ne!(phone.device_id, alice.device_id);
        assert_eq!(phone.get(WHOAMI).await.0, 200);
    })
    .await;
}
