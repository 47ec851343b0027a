//! Files come in.

use hearth_testkit::{Settings, TestServer, User, json, on_each_backend, on_each_backend_with};

use super::{UPLOAD, download, noise, path_of, upload};

const CREATE: &str = "/_matrix/media/v1/create";

fn quiet(settings: &mut Settings) {
    settings.media.max_upload_size = hearth::settings::ByteSize::new(1_000_000);
}

// endpoint: POST /_matrix/media/v3/upload
// endpoint: GET /_matrix/client/v1/media/download/{serverName}/{mediaId}
#[tokio::test]
async fn what_is_uploaded_can_be_downloaded() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        // In the database, at its edge, and in the storage.
        for size in [0, 1, 65_536, 65_537, 3_000_000] {
            let bytes = noise(size as u64, size);
            let place = upload(&alice, "application/x-noise", Some("noise.bin"), &bytes).await;
            assert!(place.starts_with("hearth.test/"), "{place}");
            let answer = download(&bob, &place).await;
            assert_eq!((answer.status, answer.body == bytes), (200, true), "{size}: {}", answer.body.len());
            assert_eq!(answer.header("content-type"), Some("application/x-noise"));
            assert_eq!(answer.header("content-disposition"), Some("attachment; filename=noise.bin"));
            assert_eq!(answer.header("content-length"), Some(size.to_string().as_str()));
        }
    })
    .await;
}

#[tokio::test]
async fn the_same_bytes_are_kept_once_and_all_their_names() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        for size in [1000, 300_000] {
            let bytes = noise(7, size);
            let one = upload(&alice, "text/plain", Some("one"), &bytes).await;
            let other = upload(&alice, "image/png", Some("other"), &bytes).await;
            assert_ne!(one, other);
            assert_eq!(download(&alice, &one).await.header("content-disposition"), Some("inline; filename=one"));
            let answer = download(&alice, &other).await;
            assert_eq!(answer.header("content-type"), Some("image/png"));
            assert!(answer.body == bytes);
        }
        assert_eq!(stored_files(&server), 1);
    })
    .await;
}

/// Files in the media storage; nothing is left where they come in.
fn stored_files(server: &TestServer) -> usize {
    let media = server.settings().data_dir.join("media");
    assert_eq!(std::fs::read_dir(media.join("incoming")).expect("a directory").count(), 0);
    let below = |path: std::path::PathBuf| std::fs::read_dir(path).expect("a directory").flatten();
    let outer = below(media.join("blobs")).flat_map(|entry| below(entry.path()));
    outer.flat_map(|entry| below(entry.path())).count()
}

// endpoint: GET /_matrix/client/v1/media/config
// endpoint: GET /_matrix/media/v3/config
// endpoint: GET /_matrix/media/v1/config
#[tokio::test]
async fn files_may_be_as_large_as_is_said() {
    on_each_backend_with(quiet, async |server| {
        let alice = server.user("alice").await;
        for path in ["client/v1/media/config", "media/v3/config", "media/r0/config", "media/v1/config"] {
            let told = alice.get(&format!("/_matrix/{path}")).await;
            assert_eq!(told, (200, json!({ "m.upload.size": 1_000_000 })));
        }
        upload(&alice, "a/b", None, &noise(1, 1_000_000)).await;
        let answer = alice.request("POST", UPLOAD).body(noise(1, 1_000_001)).send().await;
        assert_eq!(answer.refusal(), (413, "M_TOO_LARGE".to_owned()));
        assert_eq!(stored_files(&server), 1);
    })
    .await;
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    use tokio::io::AsyncWriteExt;
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    let hearth_testkit::Target::Tcp(address) = server.target() else { panic!("no address") };
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST {UPLOAD} HTTP/1.1\r\nHost: hearth.test\r\nAuthorization: Bearer {}\r\nContent-Length: 500000\r\n\r\n",
        alice.access_token
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&noise(3, 200_000)).await.unwrap();
    let incoming = server.settings().data_dir.join("media").join("incoming");
    let files = || std::fs::read_dir(&incoming).unwrap().count();
    hearth_testkit::until("the upload begins", async || files() == 1).await;
    drop(stream);
    hearth_testkit::until("it is cleaned up", async || files() == 0).await;
    assert_eq!(stored_files(&server), 0);
}

#[tokio::test]
async fn a_user_uploads_no_more_than_his_quota() {
    let few = |settings: &mut Settings| {
        settings.media.user_quota = Some(hearth::settings::ByteSize::new(1000));
        settings.media.user_quota_files = Some(3);
    };
    on_each_backend_with(few, async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let refused = async |user: &User, size: usize| {
            let answer = user.request("POST", UPLOAD).body(noise(5, size)).send().await;
            let (refusal, body) = (answer.refusal(), answer.json());
            assert_eq!(refusal, (403, "M_USER_LIMIT_EXCEEDED".to_owned()));
            assert!(body["info_uri"].is_string(), "{body}");
        };
        upload(&alice, "a/b", None, &noise(1, 600)).await;
        refused(&alice, 401).await;
        upload(&alice, "a/b", None, &noise(2, 400)).await;
        refused(&alice, 1).await;
        for _ in 0..3 {
            upload(&bob, "a/b", None, b"x").await;
        }
        refused(&bob, 1).await;
        assert_eq!(bob.post(CREATE, &json!({})).await.0, 403);
    })
    .await;
}

#[tokio::test]
async fn suspended_users_and_guests_upload_nothing() {
    let server = TestServer::start_with(|settings| settings.registration.guests = true).await;
    let alice = server.user("alice").await;
    let place = upload(&alice, "image/png", None, b"x").await;
    let (_, guest) = server.post("/_matrix/client/v3/register?kind=guest", &json!({})).await;
    let guest = alice.with_session(guest["access_token"].as_str().unwrap(), "");
    assert_eq!(guest.request("POST", UPLOAD).body("x").send().await.refusal().1, "M_GUEST_ACCESS_FORBIDDEN");
    assert_eq!(download(&guest, &place).await.status, 200);

    let id = alice.user_id.parse::<hearth_matrix::ruma::OwnedUserId>();
    server.running().doors().accounts.set_suspended(&id.unwrap(), true).await.unwrap();
    for (method, path) in [("POST", UPLOAD), ("POST", CREATE), ("PUT", "/_matrix/media/v3/upload/hearth.test/x")] {
        let answer = alice.request(method, path).body("x").send().await;
        assert_eq!(answer.refusal(), (403, "M_USER_SUSPENDED".to_owned()), "{path}");
    }
    assert_eq!(download(&alice, &place).await.status, 200);
}

// endpoint: POST /_matrix/media/v1/create
// endpoint: PUT /_matrix/media/v3/upload/{serverName}/{mediaId}
#[tokio::test]
async fn a_reserved_place_is_filled_once_and_by_whom_it_belongs_to() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let (status, created) = alice.post(CREATE, &json!({})).await;
        assert_eq!(status, 200, "{created}");
        let expires = created["unused_expires_at"].as_i64().expect("a time");
        assert_eq!(expires, server.time.now_ms() + 24 * 60 * 60 * 1000);
        let place = path_of(created["content_uri"].as_str().expect("a URI"));
        let path = format!("/_matrix/media/v3/upload/{place}");
        let put = async |user: &User| {
            user.request("PUT", &path).header("content-type", "image/png").body(noise(9, 100_000)).send().await
        };
        let early = download(&bob, &format!("{place}?timeout_ms=0")).await;
        assert_eq!(early.refusal(), (504, "M_NOT_YET_UPLOADED".to_owned()));
        let old = server.request("GET", &format!("/_matrix/media/v3/download/{place}?timeout_ms=0")).send().await;
        assert_eq!(old.refusal(), (504, "M_NOT_YET_UPLOADED".to_owned()));
        assert_eq!(put(&bob).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
        assert_eq!(put(&alice).await.status, 200);
        assert_eq!(put(&alice).await.refusal(), (409, "M_CANNOT_OVERWRITE_MEDIA".to_owned()));
        let answer = download(&bob, &place).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, Some("image/png")));
        assert!(answer.body == noise(9, 100_000));
        for nowhere in ["hearth.test/unknown", "other.test/unknown", "hearth.test/..%2f"] {
            let path = format!("/_matrix/media/v3/upload/{nowhere}");
            let answer = alice.request("PUT", &path).body("x").send().await;
            assert_eq!(answer.refusal(), (404, "M_NOT_FOUND".to_owned()), "{nowhere}");
        }
    })
    .await;
}

#[tokio::test]
async fn who_waits_for_an_upload_gets_it() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let (_, created) = alice.post(CREATE, &json!({})).await;
        let place = path_of(created["content_uri"].as_str().expect("a URI"));
        let waiting = tokio::spawn({
            let (bob, place) = (bob.clone(), place.clone());
            async move { download(&bob, &place).await }
        });
        let answer = alice.request("PUT", &format!("/_matrix/media/v3/upload/{place}")).body("at last").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        let answer = waiting.await.expect("an answer");
        assert_eq!((answer.status, answer.text()), (200, "at last".to_owned()));
    })
    .await;
}

#[tokio::test]
async fn a_reserved_place_that_is_not_used_expires() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        for _ in 0..100 {
            assert_eq!(alice.post(CREATE, &json!({})).await.0, 200);
        }
        let refused = alice.request("POST", CREATE).send().await;
        assert_eq!(refused.refusal(), (429, "M_LIMIT_EXCEEDED".to_owned()));
        server.time.advance(24 * 60 * 60 * 1000);
        let (status, created) = alice.post(CREATE, &json!({})).await;
        assert_eq!(status, 200, "{created}");
        let place = path_of(created["content_uri"].as_str().expect("a URI"));
        server.time.advance(24 * 60 * 60 * 1000);
        let late = alice.request("PUT", &format!("/_matrix/media/v3/upload/{place}")).body("x").send().await;
        assert_eq!(late.refusal(), (404, "M_NOT_FOUND".to_owned()));
        assert_eq!(download(&alice, &place).await.status, 404);
    })
    .await;
}

// endpoint: POST /_matrix/media/v1/upload
// endpoint: POST /_matrix/media/v3/create
// endpoint: PUT /_matrix/media/v1/upload/{serverName}/{mediaId}
#[tokio::test]
async fn older_names_of_the_paths_lead_to_the_same() {
    let server = TestServer::start().await;
    let alice = server.user("alice").await;
    for version in ["v1", "r0"] {
        let path = format!("/_matrix/media/{version}/upload");
        let answer = alice.request("POST", &path).body("x").send().await.json();
        let place = path_of(answer["content_uri"].as_str().expect("a URI"));
        assert_eq!(download(&alice, &place).await.header("content-type"), Some("application/octet-stream"));
        let (_, created) = alice.post("/_matrix/media/v3/create", &json!({})).await;
        let place = path_of(created["content_uri"].as_str().expect("a URI"));
        assert_eq!(alice.request("PUT", &format!("{path}/{place}")).body("y").send().await.status, 200);
        assert_eq!(download(&alice, &place).await.text(), "y");
    }
}
