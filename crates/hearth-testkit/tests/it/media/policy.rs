//! What whoever runs the server may do to media, and what goes by itself.

use std::path::{Path, PathBuf};

use hearth_testkit::{
    Federation, Settings, TestServer, User, Value, json, on_each_backend, on_each_backend_together,
    on_each_backend_together_with, on_each_backend_with,
};
use image::ImageFormat;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::thumbnail::{encoded, halves, thumbnail};
use super::{UPLOAD, download, noise, path_of, upload};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// Asks the local door.
async fn admin(server: &TestServer, path: &str, body: Value) -> (u16, Value) {
    let (status, answer) = hearth_api::ask_local_door(server.running().doors(), "POST", path, body.to_string()).await;
    (status, serde_json::from_slice(&answer).unwrap_or_default())
}

async fn touched(server: &TestServer, path: &str, body: Value) -> (u64, u64) {
    let (status, answer) = admin(server, path, body).await;
    assert_eq!(status, 200, "{answer}");
    (answer["files"].as_u64().expect("a number"), answer["bytes"].as_u64().expect("a number"))
}

async fn keep_house(server: &TestServer) {
    server.running().doors().media.keep_house_once().await.expect("keeps house");
}

/// Files in the media storage.
fn files(server: &TestServer) -> Vec<PathBuf> {
    fn below(path: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(path).expect("a directory").flatten() {
            if entry.path().is_dir() { below(&entry.path(), found) } else { found.push(entry.path()) }
        }
    }
    let mut found = Vec::new();
    below(&server.settings().data_dir.join("media").join("blobs"), &mut found);
    found
}

fn uri(place: &str) -> String {
    format!("mxc://{place}")
}

#[tokio::test]
async fn deleted_files_are_gone_with_their_thumbnails() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let picture = [encoded(halves(700, 500), ImageFormat::Png), noise(1, 100_000)].concat();
        let (one, same) =
            (upload(&alice, "image/png", None, &picture).await, upload(&alice, "image/png", None, &picture).await);
        assert_eq!(thumbnail(&alice, &one, "width=320&height=240").await.status, 200);
        assert_eq!(files(&server).len(), 1);
        let size = picture.len() as u64;
        assert_eq!(touched(&server, "/media/delete", json!({ "uri": uri(&one) })).await, (1, size));
        assert_eq!(download(&alice, &one).await.status, 404);
        assert_eq!(thumbnail(&alice, &one, "width=320&height=240").await.status, 404);
        // Somebody else has uploaded the same.
        assert_eq!(download(&alice, &same).await.status, 200);
        assert_eq!(thumbnail(&alice, &same, "width=320&height=240").await.status, 200);
        assert_eq!(files(&server).len(), 1);
        assert_eq!(touched(&server, "/media/delete", json!({ "uri": uri(&same) })).await, (1, size));
        assert!(files(&server).is_empty());
        assert_eq!(touched(&server, "/media/delete", json!({ "uri": uri(&same) })).await, (0, 0));
        for nonsense in [json!({}), json!({ "uri": "nonsense" }), json!({ "uri": "mxc://a/b", "user": "alice" })] {
            assert_eq!(admin(&server, "/media/delete", nonsense).await.0, 400);
        }
    })
    .await;
}

#[tokio::test]
async fn all_files_of_a_user_can_be_deleted_or_hidden() {
    let few = |settings: &mut Settings| settings.media.user_quota_files = Some(3);
    on_each_backend_with(few, async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let mut places = Vec::new();
        for n in 0..3_u8 {
            places.push(upload(&alice, "text/plain", None, &[n]).await);
        }
        let other = upload(&bob, "text/plain", None, b"bob").await;
        let hide = |hidden: bool| json!({ "user": "@alice:hearth.test", "hidden": hidden });
        assert_eq!(touched(&server, "/media/quarantine", hide(true)).await, (3, 3));
        for place in &places {
            assert_eq!(download(&bob, place).await.status, 404);
        }
        assert_eq!(touched(&server, "/media/quarantine", hide(false)).await, (3, 3));
        for place in &places {
            assert_eq!(download(&bob, place).await.status, 200);
        }
        assert_eq!(alice.request("POST", UPLOAD).body("x").send().await.status, 403);
        assert_eq!(touched(&server, "/media/delete", json!({ "user": "alice" })).await, (3, 3));
        assert_eq!(download(&bob, &other).await.status, 200);
        // Her quota is hers again.
        upload(&alice, "text/plain", None, b"new").await;
        assert_eq!(admin(&server, "/media/delete", json!({ "user": "@x:elsewhere.test" })).await.0, 400);
    })
    .await;
}

#[tokio::test]
async fn all_files_named_in_a_room_can_be_hidden() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let (_, created) = alice.post("/_matrix/client/v3/createRoom", &json!({})).await;
        let room = created["room_id"].as_str().expect("a room").to_owned();
        let (named, other) =
            (upload(&alice, "text/plain", None, b"named").await, upload(&alice, "text/plain", None, b"other").await);
        let message = json!({ "msgtype": "m.file", "body": "x", "url": uri(&named) });
        let path = format!("/_matrix/client/v3/rooms/{room}/send/m.room.message/1");
        assert_eq!(alice.put(&path, &message).await.0, 200);
        for n in 0..250 {
            let path = format!("/_matrix/client/v3/rooms/{room}/send/org.example/{n}");
            assert_eq!(alice.put(&path, &json!({})).await.0, 200);
        }
        let hide = json!({ "room": room, "hidden": true });
        assert_eq!(touched(&server, "/media/quarantine", hide).await, (1, 5));
        assert_eq!((download(&bob, &named).await.status, download(&bob, &other).await.status), (404, 200));
        let nowhere = json!({ "room": "!nowhere:hearth.test", "hidden": true });
        assert_eq!(admin(&server, "/media/quarantine", nowhere).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn a_file_that_is_kept_out_stays_out() {
    on_each_backend_together(2, async |federation| {
        let (near, far) = (&federation.servers[0], &federation.servers[1]);
        let (alice, bob) = (near.user("alice").await, far.user("bob").await);
        // SHA-256 of "abc".
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let place = upload(&bob, "text/plain", None, b"abc").await;
        let again = upload(&bob, "text/plain", None, b"abc").await;
        assert_eq!(download(&alice, &place).await.status, 200);
        let block = |blocked: bool| json!({ "sha256": hash, "blocked": blocked });
        assert_eq!(touched(near, "/media/block", block(true)).await, (1, 3));
        for place in [&place, &again] {
            assert_eq!(download(&alice, place).await.status, 404);
        }
        let refused = alice.request("POST", UPLOAD).body("abc").send().await;
        assert_eq!(refused.refusal(), (403, "M_FORBIDDEN".to_owned()));
        touched(near, "/media/block", block(false)).await;
        federation.time.advance(DAY_MS);
        assert_eq!(download(&alice, &place).await.status, 200);
        assert_eq!(admin(near, "/media/block", json!({ "sha256": "abc", "blocked": true })).await.0, 400);
    })
    .await;
}

#[tokio::test]
async fn files_of_a_server_are_fetched_again_after_they_were_deleted_but_not_when_hidden() {
    on_each_backend_together(2, async |federation| {
        let (near, far) = (&federation.servers[0], &federation.servers[1]);
        let (alice, bob) = (near.user("alice").await, far.user("bob").await);
        let place = upload(&bob, "text/plain", None, &noise(1, 100_000)).await;
        assert_eq!(download(&alice, &place).await.status, 200);
        let server = federation.name(1);
        assert_eq!(touched(near, "/media/delete", json!({ "server": server })).await, (1, 100_000));
        assert!(files(near).is_empty());
        assert_eq!(download(&alice, &place).await.status, 200);
        let hide = json!({ "server": server, "hidden": true });
        assert_eq!(touched(near, "/media/quarantine", hide).await, (1, 100_000));
        assert_eq!(download(&alice, &place).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn hidden_bytes_are_hidden_under_every_name() {
    on_each_backend_together(2, async |federation| {
        let (near, far) = (&federation.servers[0], &federation.servers[1]);
        let (alice, bob) = (near.user("alice").await, far.user("bob").await);
        let picture = encoded(halves(400, 300), ImageFormat::Png);
        let ours = upload(&alice, "image/png", None, &picture).await;
        let again = upload(&alice, "image/png", None, &picture).await;
        let theirs = upload(&bob, "image/png", None, &picture).await;
        assert_eq!(thumbnail(&alice, &theirs, "width=32&height=32&method=crop").await.status, 200);
        let hide = |place: &str, hidden: bool| json!({ "uri": uri(place), "hidden": hidden });
        assert_eq!(touched(near, "/media/quarantine", hide(&ours, true)).await.0, 1);
        let later = upload(&alice, "image/png", None, &picture).await;
        for place in [&ours, &again, &theirs, &later] {
            assert_eq!(download(&alice, place).await.status, 404, "{place}");
            assert_eq!(thumbnail(&alice, place, "width=32&height=32&method=crop").await.status, 404, "{place}");
        }
        touched(near, "/media/quarantine", hide(&again, false)).await;
        assert_eq!(download(&alice, &ours).await.status, 404);
        for place in [&again, &theirs, &later] {
            assert_eq!(download(&alice, place).await.status, 200, "{place}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_hidden_stays_so_before_it_comes_and_when_it_grows_old() {
    let keep = |settings: &mut Settings| settings.media.keep_remote = "30d".parse().ok();
    on_each_backend_together_with(2, keep, async |federation| {
        let (near, far) = (&federation.servers[0], &federation.servers[1]);
        let (alice, bob) = (near.user("alice").await, far.user("bob").await);
        let (first, second) = (upload(&bob, "a/b", None, b"first").await, upload(&bob, "a/b", None, b"second").await);
        let hide = |place: &str, hidden: bool| json!({ "uri": uri(place), "hidden": hidden });
        assert_eq!(touched(near, "/media/quarantine", hide(&first, true)).await, (1, 0));
        assert_eq!(download(&alice, &first).await.refusal(), (404, "M_NOT_FOUND".to_owned()));
        assert_eq!(download(&alice, &second).await.status, 200);
        assert_eq!(touched(near, "/media/quarantine", hide(&second, true)).await, (1, 6));
        federation.time.advance(70 * DAY_MS);
        keep_house(near).await;
        federation.time.advance(DAY_MS);
        keep_house(near).await;
        for place in [&first, &second] {
            assert_eq!(download(&alice, place).await.status, 404, "{place}");
            touched(near, "/media/quarantine", hide(place, false)).await;
            assert_eq!(download(&alice, place).await.status, 200, "{place}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_nobody_looks_at_goes_after_its_time() {
    let keep = |settings: &mut Settings| {
        settings.media.keep_remote = "30d".parse().ok();
        settings.media.keep_local = "60d".parse().ok();
    };
    on_each_backend_together_with(2, keep, async |federation| {
        let (near, far) = (&federation.servers[0], &federation.servers[1]);
        let (alice, bob) = (near.user("alice").await, far.user("bob").await);
        let (seen, unseen) =
            (upload(&bob, "a/b", None, b"seen").await, upload(&bob, "a/b", None, &noise(1, 100_000)).await);
        let ours = upload(&alice, "a/b", None, b"ours").await;
        for place in [&seen, &unseen] {
            assert_eq!(download(&alice, place).await.status, 200);
        }
        federation.time.advance(20 * DAY_MS);
        assert_eq!(download(&alice, &seen).await.status, 200);
        keep_house(near).await;
        federation.time.advance(20 * DAY_MS);
        keep_house(near).await;
        federation.links[1].cut();
        assert_eq!((download(&alice, &seen).await.status, download(&alice, &ours).await.status), (200, 200));
        assert_eq!(download(&alice, &unseen).await.status, 502);
        // Its bytes are kept a little longer, for those who have just begun to read them.
        assert_eq!(files(near).len(), 1);
        federation.time.advance(DAY_MS);
        keep_house(near).await;
        assert!(files(near).is_empty());
        federation.time.advance(70 * DAY_MS);
        keep_house(near).await;
        assert_eq!(download(&alice, &ours).await.status, 404);
    })
    .await;
}

#[tokio::test]
async fn files_of_others_take_no_more_room_than_they_may() {
    let small = |settings: &mut Settings| settings.media.max_remote_cache = "250 KiB".parse().ok();
    on_each_backend_together_with(2, small, async |federation: Federation| {
        let (near, far) = (&federation.servers[0], &federation.servers[1]);
        let (alice, bob) = (near.user("alice").await, far.user("bob").await);
        let mut places = Vec::new();
        for n in 0..4 {
            let place = upload(&bob, "a/b", None, &noise(n, 100_000)).await;
            assert_eq!(download(&alice, &place).await.status, 200);
            federation.time.advance(DAY_MS);
            places.push(place);
        }
        keep_house(near).await;
        federation.links[1].cut();
        let mut there = Vec::new();
        for place in &places {
            there.push(download(&alice, place).await.status == 200);
        }
        assert_eq!(there, [false, false, true, true]);
    })
    .await;
}

#[tokio::test]
async fn database_and_files_are_compared() {
    on_each_backend(async |server| {
        let alice = server.user("alice").await;
        let (lost, _kept) = (
            upload(&alice, "a/b", None, &noise(1, 100_000)).await,
            upload(&alice, "a/b", None, &noise(2, 100_000)).await,
        );
        let found = admin(&server, "/media/check", json!({ "repair": false })).await;
        let fine = json!({ "blobs": 2, "missing": 0, "missing_named": [], "unknown": 0, "deleted": 0 });
        assert_eq!(found, (200, fine));

        let tag = alice.request("HEAD", &format!("/_matrix/client/v1/media/download/{lost}")).send().await;
        let hash = tag.header("etag").expect("a tag").trim_matches('"').to_owned();
        let file = files(&server).into_iter().find(|path| path.ends_with(&hash)).expect("a file");
        std::fs::remove_file(&file).expect("removed");
        let stranger = file.with_file_name(hash[..4].to_owned() + &"0".repeat(60));
        std::fs::write(&stranger, "nobody knows me").expect("written");
        // What came a moment ago may be about to be known.
        let before = std::time::SystemTime::now() - std::time::Duration::from_secs(7200);
        let (_, found) = admin(&server, "/media/check", json!({ "repair": true })).await;
        assert_eq!((&found["missing"], &found["unknown"]), (&json!(1), &json!(0)));
        assert_eq!(found["missing_named"], json!([hash]));
        std::fs::File::options().write(true).open(&stranger).and_then(|file| file.set_modified(before)).expect("aged");
        let (_, found) = admin(&server, "/media/check", json!({ "repair": false })).await;
        assert_eq!((&found["unknown"], &found["deleted"]), (&json!(1), &json!(0)));
        let (_, found) = admin(&server, "/media/check", json!({ "repair": true })).await;
        assert_eq!((&found["unknown"], &found["deleted"]), (&json!(1), &json!(1)));
        assert!(!stranger.exists());
        assert_eq!(download(&alice, &lost).await.status, 404);
        // Whoever has it can bring it back.
        upload(&alice, "a/b", None, &noise(1, 100_000)).await;
        assert_eq!(download(&alice, &lost).await.status, 200);
    })
    .await;
}

/// Something that speaks as ClamAV does.
async fn scanner() -> (String, tokio::task::JoinHandle<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    let serving = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut command = [0; 10];
            stream.read_exact(&mut command).await.expect("a command");
            assert_eq!(&command, b"zINSTREAM\0");
            let mut file = Vec::new();
            loop {
                let length = stream.read_u32().await.expect("a length") as usize;
                if length == 0 {
                    break;
                }
                let mut piece = vec![0; length];
                stream.read_exact(&mut piece).await.expect("a piece");
                file.extend(piece);
            }
            let is_evil = file.windows(4).any(|window| window == b"EVIL");
            let answer = if is_evil { "stream: Test FOUND\0" } else { "stream: OK\0" };
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (format!("tcp:{address}"), serving)
}

#[tokio::test]
async fn files_are_looked_at_before_they_come_in() {
    let (address, serving) = scanner().await;
    let scanned = |settings: &mut Settings| {
        let (_, address) = address.split_once(':').expect("an address");
        settings.media.clamav = Some(hearth::settings::ClamAv::Tcp(address.to_owned()));
    };
    let server = TestServer::start_with(scanned).await;
    let alice = server.user("alice").await;
    let post = async |user: &User, bytes: Vec<u8>| user.request("POST", UPLOAD).body(bytes).send().await;
    for size in [0, 100, 500_000] {
        assert_eq!(post(&alice, noise(1, size)).await.status, 200);
        let evil = [noise(1, size), b"EVIL".to_vec(), noise(2, size)].concat();
        assert_eq!(post(&alice, evil).await.refusal(), (403, "M_FORBIDDEN".to_owned()));
    }
    assert_eq!(files(&server).len(), 1);
    serving.abort();
    let _ = serving.await;
    assert_eq!(post(&alice, b"new".to_vec()).await.status, 503);
    let (_, created) = alice.post("/_matrix/media/v1/create", &json!({})).await;
    let place = path_of(created["content_uri"].as_str().expect("a URI"));
    let put = alice.request("PUT", &format!("/_matrix/media/v3/upload/{place}")).body("x").send().await;
    assert_eq!(put.status, 503);
}
