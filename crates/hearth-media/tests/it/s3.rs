//! The media storage against a server that really speaks S3: signatures, parts, ranges, lists, and what it answers if it
//! can't.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use hearth_matrix::ruma::{ServerName, UserId};
use hearth_media::{
    Description, Media, MediaConfig, S3Config, Selection, StorageConfig, UploadError, Uploader, Wanted,
};
use hearth_remote::{AddressFilter, FixedNames, HttpClient, TlsRoots};
use hearth_store::{StringNum, WallTime};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::task::JoinSet;

use crate::world::store;

/// A bucket `files`, and what it can't do.
struct Bucket {
    address: SocketAddr,
    directory: tempfile::TempDir,
    faults: Arc<Mutex<Vec<Fault>>>,
    asked: Arc<AtomicUsize>,
    begun: Begun,
    _serving: JoinSet<()>,
}

/// Uploads in parts that the bucket says were begun: key, id and time. The server at hand can't list them itself.
type Begun = Arc<Mutex<Vec<(String, String, &'static str)>>>;

/// Requests that are answered with a status instead: those whose line contains a text, so many times.
struct Fault {
    line: &'static str,
    status: StatusCode,
    times: usize,
}

impl Bucket {
    async fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(directory.path().join("files")).expect("a bucket");
        let mut builder = S3ServiceBuilder::new(FileSystem::new(directory.path()).expect("a file system"));
        builder.set_auth(SimpleAuth::from_single("key", "secret"));
        let service = builder.build();
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (faults, asked) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (own_faults, counted, begun) = (faults.clone(), asked.clone(), Begun::default());
        let listed = begun.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (service, faults, counted) = (service.clone(), own_faults.clone(), counted.clone());
                let listed = listed.clone();
                let answer = hyper::service::service_fn(move |request| {
                    counted.fetch_add(1, Ordering::SeqCst);
                    answer(service.clone(), faults.clone(), listed.clone(), request)
                });
                open.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(tcp), answer).await;
                });
            }
        });
        Self { address, directory, faults, asked, begun, _serving: serving }
    }

    fn fails(&self, line: &'static str, status: StatusCode, times: usize) {
        self.faults.lock().expect("no panic before").push(Fault { line, status, times });
    }

    async fn media(&self, incoming: &Path, secret: &str) -> Result<Media, hearth_media::OpenError> {
        let client = HttpClient::new(Arc::new(FixedNames::new()), AddressFilter::default(), TlsRoots::empty());
        let config = S3Config {
            endpoint: Some(format!("http://{}", self.address)),
            bucket: "files".to_owned(),
            prefix: "some where/".to_owned(),
            region: "us-east-1".to_owned(),
            access_key: "key".to_owned(),
            secret_key: secret.to_owned(),
            incoming: incoming.to_owned(),
        };
        let storage = StorageConfig::S3(Box::new(config), Box::new(client.expect("a client")));
        let config = MediaConfig::new(ServerName::parse("us.test").expect("a name"), storage);
        Media::open(config, store().await, WallTime::system(), None).await
    }

    /// Files in the bucket, and what lies about of parts.
    fn files(&self) -> Vec<PathBuf> {
        fn below(path: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(path).expect("a directory").flatten() {
                if entry.path().is_dir() { below(&entry.path(), found) } else { found.push(entry.path()) }
            }
        }
        let mut found = Vec::new();
        below(self.directory.path(), &mut found);
        // What the server notes about objects for itself.
        found.retain(|path| !path.to_string_lossy().ends_with(".json"));
        found
    }
}

async fn answer(
    service: S3Service,
    faults: Arc<Mutex<Vec<Fault>>>,
    begun: Begun,
    request: Request<Incoming>,
) -> Result<Response<s3s::Body>, s3s::HttpError> {
    let line = format!("{} {}", request.method(), request.uri());
    let fault = {
        let mut faults = faults.lock().expect("no panic before");
        faults.iter_mut().find(|fault| fault.times > 0 && line.contains(fault.line)).map(|fault| {
            fault.times -= 1;
            fault.status
        })
    };
    match fault {
        Some(status) => {
            let body = s3s::Body::from("<Error><Code>Fault</Code></Error>".to_owned());
            Ok(Response::builder().status(status).body(body).expect("an answer"))
        }
        None => {
            let answer = service.call(request.map(s3s::Body::from)).await?;
            // Only who has signed well comes so far.
            if answer.status() == StatusCode::NOT_IMPLEMENTED && line.contains("uploads=") {
                return Ok(Response::new(s3s::Body::from(page_of_begun(&begun, &line))));
            }
            Ok(answer)
        }
    }
}

/// Two of the uploads that were begun, behind those that are known.
fn page_of_begun(begun: &Begun, line: &str) -> String {
    let begun = begun.lock().expect("no panic before");
    let known = begun.iter().position(|(_, upload, _)| line.contains(&format!("upload-id-marker={upload}")));
    let from = known.map_or(0, |known| known + 1);
    let page = &begun[from..begun.len().min(from + 2)];
    let listed: String = page
        .iter()
        .map(|(key, upload, time)| {
            format!("<Upload><Key>{key}</Key><UploadId>{upload}</UploadId><Initiated>{time}</Initiated></Upload>")
        })
        .collect();
    let (key, upload, _) = page.last().cloned().unwrap_or_default();
    let is_cut = from + page.len() < begun.len();
    format!(
        "<ListMultipartUploadsResult><NextKeyMarker>{key}</NextKeyMarker><NextUploadIdMarker>{upload}\
         </NextUploadIdMarker><IsTruncated>{is_cut}</IsTruncated>{listed}</ListMultipartUploadsResult>"
    )
}

/// Bytes that no compression makes small.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

async fn upload(media: &Media, bytes: &[u8]) -> Result<Wanted, UploadError> {
    let uploader = Uploader { user_id: UserId::parse("@alice:us.test").expect("an id"), user: StringNum(1) };
    let pieces: Vec<_> = bytes.chunks(100_000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    let uri = media.upload(&uploader, Description::default(), stream::iter(pieces).boxed()).await?;
    let media_id = uri.strip_prefix("mxc://us.test/").expect("an address of ours");
    Ok(crate::world::wanted("us.test", media_id))
}

async fn read(media: &Media, wanted: &Wanted, range: std::ops::Range<u64>) -> std::io::Result<Vec<u8>> {
    let mut content = media.file(wanted).await.expect("a file").content(range).await?;
    let mut whole = Vec::new();
    while let Some(piece) = content.next().await {
        whole.extend_from_slice(&piece.map_err(std::io::Error::other)?);
    }
    Ok(whole)
}

#[tokio::test]
async fn files_go_to_a_bucket_and_come_back_whole_or_in_part() {
    let (bucket, incoming) = (Bucket::start().await, tempfile::tempdir().expect("a directory"));
    let media = bucket.media(incoming.path(), "secret").await.expect("media");
    // In one piece; in parts of which the last one is whole; in parts.
    for size in [70_000_u64, 16 * 1024 * 1024, 20_000_000] {
        let bytes = noise(size, size as usize);
        let wanted = upload(&media, &bytes).await.expect("an upload");
        let again = upload(&media, &bytes).await.expect("an upload");
        assert_eq!(bucket.files().len(), 1, "{size}");
        assert!(read(&media, &wanted, 0..size).await.expect("bytes") == bytes, "{size}");
        for range in [0..1, 65_000..69_999, size - 1..size, size - 5..size + 100] {
            let part = &bytes[range.start as usize..range.end.min(size) as usize];
            assert!(read(&media, &again, range.clone()).await.expect("bytes") == part, "{size}: {range:?}");
        }
        let found = media.check(true).await.expect("is checked");
        assert_eq!((found.blobs, found.missing, found.unknown), (1, 0, 0), "{size}");
        media.delete(Selection::OfServer("us.test".to_owned())).await.expect("is deleted");
        assert_eq!(bucket.files(), Vec::<PathBuf>::new(), "{size}");
        assert!(media.file(&wanted).await.is_err());
    }
    assert_eq!(std::fs::read_dir(incoming.path().join("incoming")).expect("a directory").count(), 0);
}

#[tokio::test]
async fn a_bucket_that_fails_keeps_nothing_by_halves() {
    let (bucket, incoming) = (Bucket::start().await, tempfile::tempdir().expect("a directory"));
    let media = bucket.media(incoming.path(), "secret").await.expect("media");
    let bytes = noise(1, 20_000_000);
    for line in ["partNumber=2", "POST /files/some%20where"] {
        bucket.fails(line, StatusCode::BAD_REQUEST, 1);
        let refused = upload(&media, &bytes).await.err();
        assert!(matches!(refused, Some(UploadError::Internal(_))), "{line}: {refused:?}");
        assert_eq!(bucket.files(), Vec::<PathBuf>::new(), "{line}: parts are left");
    }
    // One that is only busy is asked again.
    bucket.fails("partNumber=1", StatusCode::SERVICE_UNAVAILABLE, 2);
    let wanted = upload(&media, &bytes).await.expect("an upload");
    assert!(read(&media, &wanted, 0..20_000_000).await.expect("bytes") == bytes);
    bucket.fails("GET /files/some%20where", StatusCode::NOT_FOUND, 1);
    let gone = read(&media, &wanted, 0..10).await.map(drop).expect_err("a refusal");
    assert_eq!(gone.kind(), std::io::ErrorKind::NotFound);
    assert_eq!(std::fs::read_dir(incoming.path().join("incoming")).expect("a directory").count(), 0);
}

#[tokio::test]
async fn a_bucket_is_compared_with_the_database_page_by_page() {
    let (bucket, incoming) = (Bucket::start().await, tempfile::tempdir().expect("a directory"));
    let media = bucket.media(incoming.path(), "secret").await.expect("media");
    let bytes = noise(1, 100_000);
    upload(&media, &bytes).await.expect("an upload");
    let file = bucket.files().pop().expect("a file");
    // Damaged: the next upload of the same bytes mends it.
    std::fs::write(&file, &bytes[..50_000]).expect("is cut");
    let found = media.check(false).await.expect("is checked");
    assert_eq!((found.blobs, found.missing), (1, 1));
    upload(&media, &bytes).await.expect("an upload");
    assert_eq!(media.check(false).await.expect("is checked").missing, 0);
    // More that nobody knows than come in one list, long ago or a moment ago.
    let shard = bucket.directory.path().join("files/some where/ab");
    std::fs::create_dir_all(&shard).expect("a directory");
    let long_ago = SystemTime::now() - Duration::from_secs(7200);
    for number in 0..1_100 {
        let file = std::fs::File::create(shard.join(format!("ab{number:062x}"))).expect("a file");
        if number >= 5 {
            file.set_modified(long_ago).expect("is aged");
        }
    }
    let asked = bucket.asked.load(Ordering::SeqCst);
    let found = media.check(false).await.expect("is checked");
    assert_eq!((found.unknown, found.deleted), (1_095, 0));
    assert_eq!(
        bucket.asked.load(Ordering::SeqCst) - asked,
        1 + 256 + 1,
        "a size, and a list more than there are shards"
    );
    let found = media.check(true).await.expect("is checked");
    assert_eq!((found.unknown, found.deleted, found.missing), (1_095, 1_095, 0));
    assert_eq!(bucket.files().len(), 1 + 5);
}

#[tokio::test]
async fn a_key_that_is_wrong_is_told_of_at_the_start() {
    let (bucket, incoming) = (Bucket::start().await, tempfile::tempdir().expect("a directory"));
    let refused = bucket.media(incoming.path(), "another").await.map(drop).expect_err("a refusal");
    assert!(refused.to_string().contains("403"), "{refused}");
}

#[tokio::test]
async fn what_a_node_left_unfinished_in_the_bucket_is_given_up_after_a_day() {
    const LONG_AGO: &str = "2013-05-24T00:00:00.000Z";
    const LATER: &str = "2999-01-01T00:00:00.000Z";
    let (bucket, incoming) = (Bucket::start().await, tempfile::tempdir().expect("a directory"));
    let media = bucket.media(incoming.path(), "secret").await.expect("media");
    let unfinished = async |seed: u64| {
        // Neither the second part nor that it is given up comes through.
        bucket.fails("partNumber=2", StatusCode::BAD_REQUEST, 1);
        bucket.fails("DELETE /files/some%20where", StatusCode::BAD_REQUEST, 1);
        let before = bucket.files();
        assert!(upload(&media, &noise(seed, 9_000_000)).await.is_err());
        let part = bucket.files().into_iter().find(|file| !before.contains(file)).expect("a part");
        let name = part.file_name().expect("a name").to_string_lossy().into_owned();
        let upload = name.strip_prefix(".upload_id-").and_then(|rest| rest.split_once(".part-"));
        (part, upload.unwrap_or_else(|| panic!("{name} is no part")).0.to_owned())
    };
    let key = |digit: &str| format!("some where/{}/{}", digit.repeat(2), digit.repeat(64));
    let (old, young, strange) = (unfinished(1).await, unfinished(2).await, unfinished(3).await);
    bucket.begun.lock().expect("no panic before").extend([
        (key("c"), "nobody-knows-it".to_owned(), LONG_AGO),
        ("some where/of somebody else".to_owned(), strange.1, LONG_AGO),
        (key("b"), young.1, LATER),
        (key("a"), old.1, LONG_AGO),
    ]);
    media.keep_house_once().await.expect("keeps house");
    let left = bucket.files();
    assert!(!left.contains(&old.0), "{left:?}");
    assert!(left.contains(&young.0) && left.contains(&strange.0), "{left:?}");
}
