//! Files go out.

use hearth_testkit::{Settings, TestServer, on_each_backend, on_each_backend_with};

use super::{download, download_anonymously, noise, upload};

#[tokio::test]
async fn browsers_are_told_to_do_nothing_but_show() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let place = upload(&alice, "text/html", Some("evil.html"), b"<script>alert(1)</script>").await;
        let answer = download(&alice, &place).await;
        for (name, value) in [
            ("content-type", "text/html"),
            ("content-disposition", "attachment; filename=evil.html"),
            (
                "content-security-policy",
                "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; \
                 style-src 'unsafe-inline'; object-src 'self';",
            ),
            ("x-content-type-options", "nosniff"),
            ("cross-origin-resource-policy", "cross-origin"),
            ("cache-control", "private, max-age=86400, immutable"),
            ("access-control-allow-origin", "*"),
        ] {
            assert_eq!(answer.header(name), Some(value), "{name}");
        }
    })
    .await;
}

// endpoint: GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}
#[tokio::test]
async fn a_file_has_the_name_that_was_given_or_is_asked_for() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for (given, told) in [
        (None, "inline"),
        (Some("ascii"), "inline; filename=ascii"),
        (Some("name%20with%20spaces"), "inline; filename=\"name with spaces\""),
        (Some("name;with;semicolons"), "inline; filename=\"name;with;semicolons\""),
        (Some("%F0%9F%90%94"), "inline; filename*=utf-8''%F0%9F%90%94"),
    ] {
        let place = upload(&alice, "image/png", given, b"x").await;
        assert_eq!(download(&alice, &place).await.header("content-disposition"), Some(told));
        let renamed = download(&alice, &format!("{place}/%E2%98%95")).await;
        assert_eq!(renamed.header("content-disposition"), Some("inline; filename*=utf-8''%E2%98%95"));
    }
    let long = format!("{}?filename={}", super::UPLOAD, "x".repeat(1025));
    assert_eq!(alice.request("POST", &long).body("x").send().await.refusal().1, "M_INVALID_PARAM");
}

#[tokio::test]
async fn parts_of_a_file_are_given() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        for size in [1000_usize, 500_000] {
            let bytes = noise(11, size);
            let place = upload(&alice, "video/mp4", None, &bytes).await;
            let path = format!("/_matrix/client/v1/media/download/{place}");
            let part = async |range: &str| alice.request("GET", &path).header("range", range).send().await;
            let answer = part("bytes=100-299").await;
            assert_eq!(answer.status, 206);
            assert_eq!(answer.header("content-range"), Some(format!("bytes 100-299/{size}").as_str()));
            assert!(answer.body == bytes[100..300]);
            let answer = part("bytes=-50").await;
            assert_eq!((answer.status, answer.body == bytes[size - 50..]), (206, true));
            let answer = part(&format!("bytes={size}-")).await;
            assert_eq!(
                (answer.status, answer.header("content-range")),
                (416, Some(format!("bytes */{size}").as_str()))
            );
            let answer = part("bytes=0-1,5-6").await;
            assert_eq!((answer.status, answer.body == bytes), (200, true));
            let tag = answer.header("etag").expect("a tag").to_owned();
            let known = alice.request("GET", &path).header("if-none-match", &tag).send().await;
            assert_eq!((known.status, known.body.len(), known.header("etag")), (304, 0, Some(tag.as_str())));
            let head = alice.request("HEAD", &path).send().await;
            assert_eq!((head.status, head.header("content-length")), (200, Some(size.to_string().as_str())));
            let head = alice.request("HEAD", &path).header("range", "bytes=0-9").send().await;
            assert_eq!((head.status, head.header("content-length")), (200, Some(size.to_string().as_str())));
            let of_another = alice.request("GET", &path).header("range", "bytes=0-9").header("if-range", "\"x\"");
            assert_eq!(of_another.send().await.status, 200);
            let of_this = alice.request("GET", &path).header("range", "bytes=0-9").header("if-range", &tag);
            assert_eq!(of_this.send().await.status, 206);
        }
    })
    .await;
}

// endpoint: GET /_matrix/media/v3/download/{serverName}/{mediaId}
// endpoint: GET /_matrix/media/v1/download/{serverName}/{mediaId}
// endpoint: GET /_matrix/media/v1/download/{serverName}/{mediaId}/{fileName}
// endpoint: GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}
#[tokio::test]
async fn the_old_paths_know_what_was_uploaded_while_they_were_open() {
    let open = |settings: &mut Settings| settings.media.unauthenticated_legacy = true;
    on_each_backend_with(open, async |mut server| {
        let alice = server.user("alice").await;
        let place = upload(&alice, "image/png", None, b"x").await;
        for version in ["v3", "r0", "v1"] {
            for name in ["", "/name"] {
                let path = format!("/_matrix/media/{version}/download/{place}{name}");
                let answer = server.request("GET", &path).send().await;
                assert_eq!((answer.status, answer.text()), (200, "x".to_owned()));
                assert_eq!(answer.header("cache-control"), Some("public, max-age=86400, immutable"));
            }
        }
        server.restart_with(|settings| settings.media.unauthenticated_legacy = false).await;
        let alice = alice.at(server.target().clone());
        assert_eq!(download_anonymously(&server, &place).await.status, 200);
        let newer = upload(&alice, "image/png", None, b"x").await;
        assert_eq!(download_anonymously(&server, &newer).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
        assert_eq!(download(&alice, &newer).await.status, 200);
        server.restart_with(|settings| settings.media.unauthenticated_legacy = true).await;
        assert_eq!(download_anonymously(&server, &newer).await.status, 200);
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for nowhere in ["hearth.test/unknown", "hearth.test/..%2F..%2Fetc%2Fpasswd", "hearth.test/%00"] {
        assert_eq!(download(&alice, nowhere).await.refusal(), (404, "M_NOT_FOUND".to_owned()), "{nowhere}");
        let old = download_anonymously(&server, nowhere).await;
        assert_eq!(old.refusal(), (404, "M_NOT_FOUND".to_owned()), "{nowhere}");
    }
    let refused = server.request("GET", "/_matrix/client/v1/media/download/hearth.test/x").send().await;
    assert_eq!(refused.refusal(), (401, "M_MISSING_TOKEN".to_owned()));
}

#[tokio::test]
async fn files_survive_a_restart() {
    on_each_backend(async |mut server| {
        let alice = server.user("alice").await;
        let bytes = noise(13, 200_000);
        let (small, large) = (upload(&alice, "a/b", None, b"small").await, upload(&alice, "a/b", None, &bytes).await);
        server.restart().await;
        let alice = alice.at(server.target().clone());
        assert_eq!(download(&alice, &small).await.text(), "small");
        assert!(download(&alice, &large).await.body == bytes);
    })
    .await;
}
