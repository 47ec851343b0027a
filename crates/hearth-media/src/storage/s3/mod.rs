//! Blobs in a bucket of a store that speaks S3: `PREFIX/ab/abcd…`, named by their SHA-256 in hexadecimal digits.
//!
//! What comes waits in a directory here until its hash is known. A large blob goes there in parts, and is there when the last
//! one is; so under a name are all its bytes or nothing.

mod sign;

use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hearth_remote::{Arriving, HttpClient, Limits, Manner};
use hearth_store::WallTime;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, header};
use sha2::{Digest as _, Sha256};
use tokio::io::AsyncReadExt as _;
use url::Url;

use super::disk::{Disk, Incoming, aside, hexadecimal, parse_hexadecimal};
use crate::content::{Content, ContentError};
use sign::{Signer, Unsigned};

/// Larger blobs go in parts of this size.
const PART_BYTES: usize = 8 * 1024 * 1024;
const TIME: Duration = Duration::from_secs(120);
const HEAD_TIME: Duration = Duration::from_secs(30);
const ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// What is longer holds up others while it is hashed.
const HASHED_AT_ONCE: usize = 64 * 1024;
/// A store that is busy is asked again.
const TRIES: u32 = 4;
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Pages of unfinished uploads looked at in one go: a bucket may say for ever that there are more.
const PAGES: usize = 100;
/// What was kept a moment ago may not be in the database yet.
const LATELY_MS: i64 = 60 * 60 * 1000;
const CONTENT_SHA256: HeaderName = HeaderName::from_static("x-amz-content-sha256");
const DATE: HeaderName = HeaderName::from_static("x-amz-date");

/// A bucket, and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Config {
    /// Where the store is; nothing means that of Amazon.
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: String,
    /// What the names in the bucket begin with, with a slash at its end, or empty.
    pub prefix: String,
    /// Where the bucket is.
    pub region: String,
    /// Who asks.
    pub access_key: String,
    /// What the asker signs with.
    pub secret_key: String,
    /// A directory for what comes.
    pub incoming: PathBuf,
}

impl std::fmt::Debug for S3Config {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("S3Config")
            .field("endpoint", &self.endpoint)
            .field("bucket", &self.bucket)
            .finish_non_exhaustive()
    }
}

/// A bucket of blobs.
pub(crate) struct S3 {
    client: HttpClient,
    time: WallTime,
    signer: Signer,
    /// Scheme and host.
    origin: String,
    host: String,
    /// What paths begin with, as they are sent.
    base: String,
    prefix: String,
    incoming: Disk,
}

/// A request to be.
struct Ask<'a> {
    method: &'a str,
    key: &'a str,
    query: &'a [(&'a str, &'a str)],
    range: Option<String>,
    body: Bytes,
}

impl S3 {
    pub(crate) async fn open(config: &S3Config, client: HttpClient, time: WallTime) -> io::Result<Self> {
        let S3Config { endpoint, bucket, prefix, region, access_key, secret_key, incoming } = config.clone();
        // Amazon finds a bucket by its host, others by the path.
        let (url, base) = match endpoint {
            Some(endpoint) => (endpoint, format!("/{bucket}/")),
            None => (format!("https://{bucket}.s3.{region}.amazonaws.com"), "/".to_owned()),
        };
        let url = Url::parse(&url).map_err(|error| io::Error::new(ErrorKind::InvalidInput, error.to_string()))?;
        let host = url.host_str().unwrap_or_default();
        let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let s3 = Self {
            client,
            time,
            signer: Signer { access_key, secret_key, region },
            origin: format!("{}://{host}", url.scheme()),
            host,
            base,
            prefix,
            incoming: Disk::open(&incoming).await?,
        };
        // Whoever starts the server learns at once that the keys are wrong.
        s3.listed("", None, 1).await?;
        Ok(s3)
    }

    pub(crate) async fn receive(&self) -> io::Result<Incoming> {
        self.incoming.receive().await
    }

    pub(crate) async fn keep(&self, incoming: Incoming, sha256: &[u8; 32]) -> io::Result<()> {
        if self.size(sha256).await? == Some(incoming.size()) {
            return Ok(());
        }
        let key = self.key(sha256);
        let mut file = incoming.open().await?;
        let mut part = next_part(&mut file).await?;
        if part.len() < PART_BYTES {
            self.ask(&Ask { method: "PUT", key: &key, query: &[], range: None, body: part }).await?;
            return Ok(());
        }
        let begin = Ask { method: "POST", key: &key, query: &[("uploads", "")], range: None, body: Bytes::new() };
        let begun = self.ask(&begin).await?;
        let upload = element(&text(&begun), "UploadId").ok_or_else(|| odd("no UploadId"))?;
        let sent = async {
            let mut parts = String::from("<CompleteMultipartUpload>");
            for number in 1_u32.. {
                if part.is_empty() {
                    break;
                }
                let numbered = number.to_string();
                let query = [("partNumber", numbered.as_str()), ("uploadId", upload.as_str())];
                let body = std::mem::take(&mut part);
                let kept = self.ask(&Ask { method: "PUT", key: &key, query: &query, range: None, body }).await?;
                let tag = kept.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok());
                let tag = tag.ok_or_else(|| odd("no ETag"))?;
                parts += &format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>");
                part = next_part(&mut file).await?;
            }
            parts += "</CompleteMultipartUpload>";
            let query = [("uploadId", upload.as_str())];
            let complete = Ask { method: "POST", key: &key, query: &query, range: None, body: parts.into() };
            let answer = text(&self.ask(&complete).await?);
            // It may begin to answer before it knows.
            if answer.contains("<Error>") { Err(odd(&answer)) } else { Ok(()) }
        };
        let sent = sent.await;
        if sent.is_err() {
            // What is left over there costs, but harms nothing, and is given up later.
            let _ = self.give_up(&key, &upload).await;
        }
        sent
    }

    pub(crate) async fn read(&self, sha256: &[u8; 32], range: Range<u64>) -> io::Result<Content> {
        let told = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        let key = self.key(sha256);
        let get = Ask { method: "GET", key: &key, query: &[], range: Some(told), body: Bytes::new() };
        let request = self.signed(&get, &hash(&get.body))?;
        let response = self.client.open(Manner::Web, request, HEAD_TIME).await.map_err(unreachable)?;
        let (parts, body) = response.into_parts();
        match parts.status {
            StatusCode::PARTIAL_CONTENT | StatusCode::OK => Ok(content(body)),
            StatusCode::NOT_FOUND => Err(ErrorKind::NotFound.into()),
            status => Err(odd(&format!("it answers {status}"))),
        }
    }

    pub(crate) async fn delete(&self, sha256: &[u8; 32]) -> io::Result<()> {
        let key = self.key(sha256);
        let delete = Ask { method: "DELETE", key: &key, query: &[], range: None, body: Bytes::new() };
        match self.ask(&delete).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    pub(crate) async fn size(&self, sha256: &[u8; 32]) -> io::Result<Option<u64>> {
        let key = self.key(sha256);
        let head = Ask { method: "HEAD", key: &key, query: &[], range: None, body: Bytes::new() };
        match self.ask(&head).await {
            Ok(response) => {
                let length = response.headers().get(header::CONTENT_LENGTH);
                let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
                length.map(Some).ok_or_else(|| odd("no size"))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) async fn list(&self, shard: u8) -> io::Result<Vec<[u8; 32]>> {
        let lately = self.time.now_ms() - LATELY_MS;
        let mut found = Vec::new();
        let mut token = None;
        loop {
            let listed = self.listed(&format!("{shard:02x}/"), token.as_deref(), 1000).await?;
            for object in listed.split("<Contents>").skip(1) {
                let key = element(object, "Key").unwrap_or_default();
                let is_new = element(object, "LastModified").is_none_or(|modified| is_since(&modified, lately));
                found.extend(key.rsplit('/').next().filter(|_| !is_new).and_then(parse_hexadecimal));
            }
            token = element(&listed, "NextContinuationToken");
            if token.is_none() || element(&listed, "IsTruncated").as_deref() != Some("true") {
                return Ok(found);
            }
        }
    }

    /// Gives up what was begun in parts before a time and never finished, by a node that died meanwhile. How many it were.
    pub(crate) async fn give_up_unfinished(&self, before_ms: i64) -> io::Result<u64> {
        let (mut given_up, mut failed, mut page) = (0, None, None);
        for _ in 0..PAGES {
            let mut query = vec![("max-uploads", "1000"), ("prefix", self.prefix.as_str()), ("uploads", "")];
            if let Some((key, upload)) = &page {
                query.extend([("key-marker", String::as_str(key)), ("upload-id-marker", String::as_str(upload))]);
            }
            let list = Ask { method: "GET", key: "", query: &query, range: None, body: Bytes::new() };
            let listed = text(&self.ask(&list).await?);
            for begun in listed.split("<Upload>").skip(1) {
                let (Some(key), Some(upload)) = (element(begun, "Key"), element(begun, "UploadId")) else { continue };
                let is_old = element(begun, "Initiated").is_some_and(|begun| !is_since(&begun, before_ms));
                // Others may have their own in the same bucket.
                let is_ours =
                    key.rsplit('/').next().and_then(parse_hexadecimal).is_some_and(|name| self.key(&name) == key);
                if is_old && is_ours {
                    match self.give_up(&key, &upload).await {
                        Ok(()) => given_up += 1,
                        // It keeps nobody from the others.
                        Err(error) => failed = Some(error),
                    }
                }
            }
            page = element(&listed, "NextKeyMarker").zip(element(&listed, "NextUploadIdMarker"));
            if page.is_none() || element(&listed, "IsTruncated").as_deref() != Some("true") {
                break;
            }
        }
        failed.map_or(Ok(given_up), Err)
    }

    async fn give_up(&self, key: &str, upload: &str) -> io::Result<()> {
        let query = [("uploadId", upload)];
        match self.ask(&Ask { method: "DELETE", key, query: &query, range: None, body: Bytes::new() }).await {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    async fn listed(&self, within: &str, token: Option<&str>, most: u32) -> io::Result<String> {
        let (prefix, most) = (format!("{}{within}", self.prefix), most.to_string());
        let mut query = vec![("list-type", "2"), ("max-keys", most.as_str()), ("prefix", prefix.as_str())];
        query.extend(token.map(|token| ("continuation-token", token)));
        let list = Ask { method: "GET", key: "", query: &query, range: None, body: Bytes::new() };
        Ok(text(&self.ask(&list).await?))
    }

    fn key(&self, sha256: &[u8; 32]) -> String {
        let name = hexadecimal(sha256);
        format!("{}{}/{name}", self.prefix, &name[..2])
    }

    /// Asks, again if the store is busy. Only an answer that is a success is one.
    async fn ask(&self, ask: &Ask<'_>) -> io::Result<Response<Bytes>> {
        let limits = Limits { timeout: TIME, response_bytes: ANSWER_BYTES };
        let body = ask.body.clone();
        let body_sha256 = if body.len() > HASHED_AT_ONCE { aside(move || Ok(hash(&body))).await? } else { hash(&body) };
        let mut wait = FIRST_WAIT;
        let mut failed = io::Error::other("not asked");
        for _ in 0..TRIES {
            match self.client.send(Manner::Web, self.signed(ask, &body_sha256)?, limits).await {
                Ok(response) if response.status().is_success() => return Ok(response),
                Ok(response) if response.status() == StatusCode::NOT_FOUND => return Err(ErrorKind::NotFound.into()),
                Ok(response) => {
                    let code = element(&text(&response), "Code").unwrap_or_default();
                    failed = odd(&format!("it answers {} {code}", response.status()));
                    if !response.status().is_server_error() && response.status() != StatusCode::TOO_MANY_REQUESTS {
                        return Err(failed);
                    }
                }
                Err(error) => failed = unreachable(error),
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
        Err(failed)
    }

    fn signed(&self, ask: &Ask<'_>, body_sha256: &str) -> io::Result<Request<Bytes>> {
        let path = sign::path(&format!("{}{}", self.base, ask.key));
        let range: Vec<(&str, &str)> = ask.range.iter().map(|range| ("range", range.as_str())).collect();
        let signed = self.signer.sign(&Unsigned {
            method: ask.method,
            host: &self.host,
            path: &path,
            query: ask.query,
            headers: &range,
            body_sha256,
            now_ms: self.time.now_ms(),
        });
        let query = sign::query(ask.query);
        let separator = if query.is_empty() { "" } else { "?" };
        let value = |text: &str| HeaderValue::from_str(text).map_err(io::Error::other);
        let mut headers = HeaderMap::new();
        headers.insert(DATE, value(&signed.date)?);
        headers.insert(CONTENT_SHA256, value(body_sha256)?);
        headers.insert(header::AUTHORIZATION, value(&signed.authorization)?);
        if let Some(range) = &ask.range {
            headers.insert(header::RANGE, value(range)?);
        }
        let uri = format!("{}{path}{separator}{query}", self.origin);
        let mut request =
            Request::builder().method(ask.method).uri(uri).body(ask.body.clone()).map_err(io::Error::other)?;
        *request.headers_mut() = headers;
        Ok(request)
    }
}

/// Whether a time such as `2013-05-24T00:00:00.000Z` is after another.
fn is_since(time: &str, since_ms: i64) -> bool {
    let digits = |time: &str| time.chars().filter(char::is_ascii_digit).take(14).collect::<String>();
    digits(time) > digits(&sign::timestamp(since_ms))
}

fn hash(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes).into())
}

async fn next_part(file: &mut tokio::fs::File) -> io::Result<Bytes> {
    let mut part = BytesMut::with_capacity(PART_BYTES);
    while part.len() < PART_BYTES {
        let left = (PART_BYTES - part.len()) as u64;
        if file.take(left).read_buf(&mut part).await? == 0 {
            break;
        }
    }
    Ok(part.freeze())
}

fn content(body: Arriving) -> Content {
    body.map(|piece| piece.map_err(|error| ContentError(error.to_string()))).boxed()
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

/// What stands in the first element of a name. Its own are not escaped.
fn element(xml: &str, name: &str) -> Option<String> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.replace("&quot;", "\"").replace("&amp;", "&"))
}

fn odd(what: &str) -> io::Error {
    io::Error::other(format!("the object store: {what}"))
}

fn unreachable(error: hearth_remote::HttpError) -> io::Error {
    io::Error::other(format!("the object store: {error}"))
}
