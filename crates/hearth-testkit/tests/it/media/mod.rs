//! The content repository.

mod blurhash;
mod download;
mod hostile;
mod policy;
mod preview;
mod remote;
mod remote_thumbnail;
mod s3;
mod thumbnail;
mod upload;

use hearth_testkit::{Answer, TestServer, User};

const UPLOAD: &str = "/_matrix/media/v3/upload";

/// An `mxc://` URI as it stands in paths: `server/media_id`.
fn path_of(uri: &str) -> String {
    uri.strip_prefix("mxc://").unwrap_or_else(|| panic!("{uri} is no mxc:// URI")).to_owned()
}

/// Uploads a file: `server/media_id`.
async fn upload(user: &User, content_type: &str, name: Option<&str>, bytes: &[u8]) -> String {
    let query = name.map(|name| format!("?filename={name}")).unwrap_or_default();
    let request = user.request("POST", &format!("{UPLOAD}{query}")).header("content-type", content_type);
    let answer = request.body(bytes.to_vec()).send().await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    path_of(answer.json()["content_uri"].as_str().expect("a URI"))
}

/// Downloads a file.
async fn download(user: &User, place: &str) -> Answer {
    user.request("GET", &format!("/_matrix/client/v1/media/download/{place}")).send().await
}

/// Downloads it without an access token.
async fn download_anonymously(server: &TestServer, place: &str) -> Answer {
    server.request("GET", &format!("/_matrix/media/v3/download/{place}")).send().await
}

/// Bytes that no compression makes small, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// A server of the web on loopback, until the task is aborted.
async fn web(
    doors: impl FnOnce(std::net::SocketAddr) -> axum::Router,
) -> (std::net::SocketAddr, tokio::task::JoinHandle<()>) {
    use hyper_util::rt::TokioIo;
    use hyper_util::service::TowerToHyperService;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let router = doors(address);
    let serving = tokio::spawn(async move {
        // They end with it.
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let service = TowerToHyperService::new(router.clone());
            connections
                .spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, serving)
}
