//! Files in an object store that speaks S3.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hearth::settings::{MediaStorage, Secret};
use hearth_testkit::{Settings, TestServer, json, on_each_backend_with};
use http::{HeaderMap, Method, StatusCode, header};

use super::{UPLOAD, download, noise, upload, web};

type Objects = Arc<Mutex<BTreeMap<String, Vec<u8>>>>;

/// A bucket in memory. Parts of uploads are objects whose name begins with a `#`.
async fn bucket(
    State(objects): State<Objects>,
    method: Method,
    path: Option<Path<String>>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let signed = text("authorization");
    let is_signed =
        signed.starts_with("AWS4-HMAC-SHA256 Credential=key/") && signed.contains("/us-east-1/s3/aws4_request,");
    if !is_signed || text("x-amz-date").len() != 16 || text("x-amz-content-sha256").len() != 64 {
        return (StatusCode::FORBIDDEN, "<Error><Code>AccessDenied</Code></Error>").into_response();
    }
    let key = path.map(|Path(key)| key).unwrap_or_default();
    let mut objects = objects.lock().expect("no panic before");
    match (method.as_str(), query.get("uploadId")) {
        ("GET", _) if key.is_empty() => {
            let prefix = query.get("prefix").cloned().unwrap_or_default();
            let listed: String = objects
                .keys()
                .filter(|key| key.starts_with(&prefix))
                .map(|key| {
                    format!(
                        "<Contents><Key>{key}</Key><LastModified>2013-05-24T00:00:00.000Z</LastModified></Contents>"
                    )
                })
                .collect();
            format!("<ListBucketResult><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>").into_response()
        }
        ("POST", None) => "<X><UploadId>an id</UploadId></X>".into_response(),
        ("PUT", Some(_)) => {
            let number: u32 = query["partNumber"].parse().expect("a number");
            objects.insert(format!("#{number:05}"), body.to_vec());
            [(header::ETAG, format!("\"tag-{number}\""))].into_response()
        }
        ("POST", Some(_)) => {
            let names: Vec<String> = objects.keys().filter(|name| name.starts_with('#')).cloned().collect();
            let told = String::from_utf8_lossy(&body).matches("<ETag>\"tag-").count();
            assert_eq!(told, names.len());
            let whole = names.iter().filter_map(|name| objects.remove(name)).flatten().collect();
            objects.insert(key, whole);
            "<CompleteMultipartUploadResult/>".into_response()
        }
        ("PUT", None) => {
            objects.insert(key, body.to_vec());
            StatusCode::OK.into_response()
        }
        ("DELETE", None) => {
            objects.remove(&key);
            StatusCode::NO_CONTENT.into_response()
        }
        ("GET" | "HEAD", _) => match objects.get(&key) {
            None => StatusCode::NOT_FOUND.into_response(),
            Some(bytes) => match text("range").strip_prefix("bytes=").and_then(|range| range.split_once('-')) {
                Some((from, to)) => {
                    let (from, to): (usize, usize) = (from.parse().expect("a number"), to.parse().expect("a number"));
                    (StatusCode::PARTIAL_CONTENT, bytes[from..=to].to_vec()).into_response()
                }
                None => bytes.clone().into_response(),
            },
        },
        _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
}

async fn store() -> (Objects, std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    let objects = Objects::default();
    let router = Router::new()
        .route("/files/", get(bucket).put(bucket).post(bucket).delete(bucket))
        .route("/files/{*key}", get(bucket).put(bucket).post(bucket).delete(bucket))
        .layer(axum::extract::DefaultBodyLimit::disable())
        .with_state(objects.clone());
    let (address, serving) = web(|_| router).await;
    (objects, address, serving)
}

fn in_bucket(address: std::net::SocketAddr) -> impl Fn(&mut Settings) {
    move |settings| {
        settings.media.storage =
            Some(MediaStorage::Bucket { name: "files".to_owned(), prefix: "some where/".to_owned() });
        settings.media.s3.endpoint = format!("http://{address}").parse().ok();
        settings.media.s3.access_key = Some(Secret::new("key"));
        settings.media.s3.secret_key = Some(Secret::new("secret"));
    }
}

#[tokio::test]
async fn files_are_kept_in_a_bucket() {
    let (objects, address, serving) = store().await;
    on_each_backend_with(in_bucket(address), async |server| {
        let alice = server.user("alice").await;
        // In one piece, in several, and in several of which the last one is whole.
        for size in [70_000, 20_000_000, 16 * 1024 * 1024] {
            let bytes = noise(size as u64, size);
            let place = upload(&alice, "video/mp4", None, &bytes).await;
            let answer = download(&alice, &place).await;
            assert!(answer.status == 200 && answer.body == bytes, "{size}: {}", answer.status);
            let path = format!("/_matrix/client/v1/media/download/{place}");
            let part = alice.request("GET", &path).header("range", "bytes=60000-69999").send().await;
            assert!(part.status == 206 && part.body == bytes[60_000..70_000]);
            assert_eq!(objects.lock().expect("no panic before").len(), 1);
            let media = &server.running().doors().media;
            let found = media.check(true).await.expect("is checked");
            assert_eq!((found.blobs, found.missing, found.unknown), (1, 0, 0));
            let selection = hearth_media::Selection::OfUser(alice.user_id.parse().expect("an id"));
            media.delete(selection).await.expect("is deleted");
            assert!(objects.lock().expect("no panic before").is_empty());
            assert_eq!(download(&alice, &place).await.status, 404);
        }
        let stranger = format!("some where/ab/ab{}", "0".repeat(62));
        objects.lock().expect("no panic before").insert(stranger, b"nobody knows me".to_vec());
        let found = server.running().doors().media.check(true).await.expect("is checked");
        assert_eq!((found.unknown, found.deleted, objects.lock().expect("no panic before").len()), (1, 1, 0));
        assert_eq!(
            std::fs::read_dir(server.settings().data_dir.join("media/incoming")).expect("a directory").count(),
            0
        );
    })
    .await;
    serving.abort();
}

#[tokio::test]
async fn a_bucket_that_is_away_is_told_of_and_nothing_is_half_kept() {
    let (_, address, serving) = store().await;
    let server = TestServer::start_with(in_bucket(address)).await;
    let alice = server.user("alice").await;
    let place = upload(&alice, "a/b", None, &noise(1, 100_000)).await;
    let small = upload(&alice, "a/b", None, b"small").await;
    serving.abort();
    let _ = serving.await;
    assert_eq!(download(&alice, &place).await.status, 500);
    assert_eq!(download(&alice, &small).await.status, 200);
    let refused = alice.request("POST", UPLOAD).body(noise(2, 100_000)).send().await;
    assert_eq!(refused.refusal(), (500, "M_UNKNOWN".to_owned()));
    assert_eq!(alice.get("/_matrix/client/v1/media/config").await.1, json!({ "m.upload.size": 100 * 1024 * 1024 }));
}
