//! Previews of linked pages: fetched from where nobody's house is, read within limits, remembered for a while.
//!
//! The connector refuses private addresses, also behind a redirect. A picture of a page becomes media of ours that nobody
//! has uploaded, and goes when it is not looked at.
//! Spec: client-server API, `GET /_matrix/client/v1/media/preview_url`.

pub(crate) mod page;
pub(crate) mod text;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use hearth_remote::{Arriving, ConnectError, HttpError, Manner, Remote};
use hearth_store::{BlobNum, NewMedia, StoreError};
use http::{HeaderValue, Request, header};
use quick_cache::sync::Cache;
use serde_json::{Map, Value, json};
use url::Url;

use crate::Media;
use crate::content::ContentError;
use crate::flights::Flights;
use crate::receive::{Pace, receive};
use crate::scan::Verdict;
use crate::turns::Turns;
use crate::upload::uri;

/// Longest address.
const URL_BYTES: usize = 2048;
const MOST_REDIRECTS: usize = 5;
/// So much of a page is read.
const PAGE_BYTES: usize = 1024 * 1024;
const OEMBED_BYTES: usize = 256 * 1024;
const IMAGE_BYTES: u64 = 10 * 1024 * 1024;
/// Pictures of a page that are tried.
const MOST_IMAGES: usize = 3;
/// So many pages are fetched at once, in all and of one host, and so many more of one may wait.
const AT_ONCE: usize = 64;
const AT_ONCE_OF_HOST: usize = 4;
const MOST_OF_HOST: usize = 32;
/// So many may be under way or wait.
const MOST: usize = 512;
/// A preview is good for so long.
const GOOD_FOR_MS: i64 = 60 * 60 * 1000;
/// And kept for those who ask for an older one.
pub(crate) const KEPT_FOR_MS: i64 = 30 * 24 * 60 * 60 * 1000;
/// A page that could not be read is not tried again for so long.
const FAILED_FOR_MS: i64 = 5 * 60 * 1000;
const MOST_FAILURES: usize = 10_000;

/// Why there is no preview.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum PreviewError {
    /// They are turned off.
    #[error("previews are turned off")]
    Disabled,
    /// That is no address of a page.
    #[error("not the address of a page")]
    Invalid,
    /// It is an address that this server does not connect to.
    #[error("that address is not fetched")]
    Forbidden,
    /// The page is not to be had.
    #[error("{0}")]
    Failed(String),
    /// Too many are being fetched.
    #[error("too many pages are being fetched")]
    Busy,
    /// Our own storage or database.
    #[error("{0}")]
    Internal(String),
}

impl From<StoreError> for PreviewError {
    fn from(error: StoreError) -> Self {
        Self::Internal(error.to_string())
    }
}

impl From<HttpError> for PreviewError {
    fn from(error: HttpError) -> Self {
        match error {
            HttpError::Connect(ConnectError::Forbidden { .. }) => Self::Forbidden,
            error => Self::Failed(error.to_string()),
        }
    }
}

/// What is being fetched, and what could not be.
pub(crate) struct Previews {
    flights: Flights<String, Result<Bytes, PreviewError>>,
    turns: Turns,
    failures: Cache<String, (PreviewError, i64)>,
}

impl Default for Previews {
    fn default() -> Self {
        let turns = Turns::new(AT_ONCE, AT_ONCE_OF_HOST, MOST_OF_HOST);
        Self { flights: Flights::new(MOST), turns, failures: Cache::new(MOST_FAILURES) }
    }
}

/// Who fetches pages, where from, and how long it may take.
#[derive(Clone)]
struct Reader {
    remote: Remote,
    denied: Arc<[String]>,
    time: Duration,
}

/// What came from an address.
struct Fetched {
    /// Where it was in the end.
    url: Url,
    content_type: String,
    body: Arriving,
}

impl Media {
    /// What a page says of itself, as a JSON object; as it was at a time, if that is known.
    pub async fn preview(&self, url: &str, ts: Option<i64>) -> Result<Bytes, PreviewError> {
        let config = self.config();
        let (Some(remote), true) = (self.fetches().remote.clone(), config.previews) else {
            return Err(PreviewError::Disabled);
        };
        let reader = Reader { remote, denied: config.previews_denied.clone().into(), time: config.times.page };
        let parsed = parse(url).ok_or(PreviewError::Invalid)?;
        reader.check(&parsed)?;
        let url = parsed.as_str().to_owned();
        let (now, asked) = (self.now(), url.clone());
        let (at, fresh) = (ts.filter(|ts| *ts < now), now - GOOD_FOR_MS);
        let known = self.store().read(move |tx| match at {
            Some(ts) => match tx.previews().at(&asked, ts)? {
                Some(found) => Ok(Some(found)),
                None => tx.previews().since(&asked, fresh),
            },
            None => tx.previews().since(&asked, fresh),
        });
        if let Some(json) = known.await? {
            return Ok(json.into());
        }
        let previews = self.previews();
        if let Some((error, until)) = previews.failures.get(&url)
            && now < until
        {
            return Err(error);
        }
        let media = self.clone();
        let fetch = async move { media.make_preview(&reader, parsed).await };
        let flight = previews.flights.join(url, fetch).ok_or(PreviewError::Busy)?;
        flight.await.unwrap_or_else(|| Err(PreviewError::Internal("the work was given up".to_owned())))
    }

    async fn make_preview(&self, reader: &Reader, url: Url) -> Result<Bytes, PreviewError> {
        let turn = self.previews().turns.turn(url.host_str().unwrap_or_default(), self.config().times.turn).await;
        let _turn = turn.ok_or(PreviewError::Busy)?;
        let key = url.as_str().to_owned();
        let made = tokio::time::timeout(3 * reader.time, self.read_page(reader, url)).await;
        let made = made.unwrap_or_else(|_| Err(PreviewError::Failed("it took too long".to_owned())));
        let now = self.now();
        let properties = match made {
            Ok(properties) => properties,
            Err(error) => {
                tracing::debug!(%error, "a page can't be previewed");
                self.previews().failures.insert(key, (error.clone(), now + FAILED_FOR_MS));
                return Err(error);
            }
        };
        let json = Value::Object(properties).to_string();
        let kept = json.clone();
        self.store().write(Vec::new(), move |tx| tx.previews().keep(&key, now, kept.as_bytes())).await?;
        Ok(json.into())
    }

    async fn read_page(&self, reader: &Reader, url: Url) -> Result<Map<String, Value>, PreviewError> {
        let fetched = reader.fetch(url, "text/html,application/xhtml+xml;q=0.9,image/*;q=0.8,*/*;q=0.5").await?;
        let essence = fetched.content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        if essence.starts_with("image/") {
            let name = fetched.url.path_segments().and_then(|mut path| path.next_back()).unwrap_or_default();
            let mut properties = Map::from_iter([("og:title".to_owned(), name.into())]);
            properties.extend(self.keep_image(fetched.body).await?.unwrap_or_default());
            return Ok(properties);
        }
        if essence != "text/html" && essence != "application/xhtml+xml" {
            return Ok(Map::new());
        }
        let Fetched { url, content_type, body } = fetched;
        let bytes = reader.gather(body, PAGE_BYTES).await?;
        let is_cut = bytes.len() == PAGE_BYTES;
        let read = move || page::read(&text::decode(&bytes, &content_type, is_cut));
        let page = tokio::task::spawn_blocking(read).await;
        let mut page = page.map_err(|error| PreviewError::Failed(error.to_string()))?;
        let base = page.base.as_deref().and_then(|base| url.join(base).ok()).unwrap_or(url);
        if let Some(oembed) = page.oembed.as_deref().and_then(|oembed| base.join(oembed).ok())
            && (!page.properties.contains_key("og:title") || page.images.is_empty())
            && let Ok(told) = reader.oembed(oembed).await
        {
            for (name, value) in told.properties {
                page.properties.entry(name).or_insert(value);
            }
            page.images.splice(0..0, told.images);
        }
        let mut properties: Map<String, Value> =
            page.properties.into_iter().map(|(name, value)| (name, value.into())).collect();
        for image in page.images.iter().take(MOST_IMAGES).filter_map(|image| base.join(image).ok()) {
            let Ok(fetched) = reader.fetch(image, "image/*").await else { continue };
            if let Ok(Some(image)) = self.keep_image(fetched.body).await {
                properties.extend(image);
                break;
            }
        }
        Ok(properties)
    }

    /// Keeps a picture as media, and says what it is. Nothing if it is no picture.
    async fn keep_image(&self, body: Arriving) -> Result<Option<Map<String, Value>>, PreviewError> {
        let content = body.map(|piece| piece.map_err(|error| ContentError(error.to_string()))).boxed();
        let internal = |error: &dyn std::fmt::Display| PreviewError::Internal(error.to_string());
        let time = self.config().times.page;
        let pace = Pace { whole: time, ..self.config().times.fetches };
        let received = tokio::time::timeout(time, receive(self.storage(), content, IMAGE_BYTES, pace)).await;
        let received = received
            .map_err(|_| PreviewError::Failed("it took too long".to_owned()))?
            .map_err(|error| PreviewError::Failed(error.to_string()))?;
        let measured = self.measure_in_turn(&received).await.map_err(|error| internal(&error))?;
        let Some((content_type, (width, height))) = measured else { return Ok(None) };
        if !matches!(self.scan(&received).await, Ok(Verdict::Clean)) {
            return Ok(None);
        }
        let (size, place, now) = (received.size, self.new_place(), self.now());
        let kept = self.keep(received).await.map_err(|error| internal(&error))?;
        let new = NewMedia {
            place: place.clone(),
            blob: BlobNum(0),
            size: kept.size,
            content_type: content_type.to_owned(),
            file_name: None,
            uploader: None,
            created_ts: now,
            is_frozen: self.config().is_frozen,
        };
        let keep = self.store().write([kept.noun()], move |tx| {
            if tx.blobs().is_blocked(&kept.sha256)? {
                return Ok(false);
            }
            let Some(blob) = kept.settle(tx)? else { return Ok(false) };
            tx.media().keep(&NewMedia { blob, ..new.clone() })?;
            Ok(true)
        });
        if !keep.await? {
            return Ok(None);
        }
        let content_uri = uri(&place);
        let blurhash = self.blurhash(&content_uri).await;
        let told = [
            ("og:image", json!(content_uri)),
            ("og:image:type", json!(content_type)),
            ("og:image:width", json!(width)),
            ("og:image:height", json!(height)),
            ("matrix:image:size", json!(size)),
        ];
        let told = told.into_iter().chain(blurhash.map(|blurhash| ("matrix:image:blurhash", json!(blurhash))));
        Ok(Some(told.map(|(name, value)| (name.to_owned(), value)).collect()))
    }
}

/// The address of a page, without what is not sent.
fn parse(url: &str) -> Option<Url> {
    if url.len() > URL_BYTES {
        return None;
    }
    let mut url = Url::parse(url).ok()?;
    let is_of_the_web = matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
    let has_password = !url.username().is_empty() || url.password().is_some();
    url.set_fragment(None);
    (is_of_the_web && !has_password).then_some(url)
}

/// Whether a host is a domain, or below it.
fn is_within(host: &str, domain: &str) -> bool {
    let (host, domain) = (host.trim_end_matches('.').to_ascii_lowercase(), domain.to_ascii_lowercase());
    host.strip_suffix(&domain).is_some_and(|below| below.is_empty() || below.ends_with('.'))
}

impl Reader {
    /// Whether pages there are fetched at all, as far as the address says it.
    fn check(&self, url: &Url) -> Result<(), PreviewError> {
        let host = url.host_str().unwrap_or_default();
        if self.denied.iter().any(|denied| is_within(host, denied)) { Err(PreviewError::Forbidden) } else { Ok(()) }
    }

    /// Fetches what is at an address, or where that leads to.
    async fn fetch(&self, mut url: Url, accept: &'static str) -> Result<Fetched, PreviewError> {
        for _ in 0..=MOST_REDIRECTS {
            self.check(&url)?;
            let failed = |error: &dyn std::fmt::Display| PreviewError::Failed(error.to_string());
            let request = Request::get(url.as_str())
                .header(header::ACCEPT, HeaderValue::from_static(accept))
                .header(header::ACCEPT_LANGUAGE, "en;q=0.8, *;q=0.5")
                .header(header::USER_AGENT, concat!("Hearth/", env!("CARGO_PKG_VERSION"), " (bot; previews of links)"))
                .body(Bytes::new())
                .map_err(|error| failed(&error))?;
            let (parts, body) = self.remote.client().open(Manner::Web, request, self.time / 2).await?.into_parts();
            let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok());
            if parts.status.is_success() {
                let content_type = text(header::CONTENT_TYPE).unwrap_or_default().to_owned();
                return Ok(Fetched { url, content_type, body });
            }
            let next = text(header::LOCATION).filter(|_| parts.status.is_redirection());
            let next = next.and_then(|location| url.join(location).ok());
            match next.and_then(|next| parse(next.as_str())) {
                Some(next) => url = next,
                None => return Err(PreviewError::Failed(format!("the page answers {}", parts.status))),
            }
        }
        Err(PreviewError::Failed("too many redirects".to_owned()))
    }

    /// The beginning of a body, up to so many bytes.
    async fn gather(&self, mut body: Arriving, most: usize) -> Result<Bytes, PreviewError> {
        let mut bytes = BytesMut::new();
        let all = async {
            while let Some(piece) = body.next().await {
                bytes.extend_from_slice(&piece?);
                if bytes.len() >= most {
                    break;
                }
            }
            Ok::<_, PreviewError>(())
        };
        match tokio::time::timeout(self.time, all).await {
            Ok(outcome) => outcome?,
            Err(_) => return Err(PreviewError::Failed("the page came too slowly".to_owned())),
        }
        bytes.truncate(most);
        Ok(bytes.freeze())
    }

    /// What oEmbed tells of a page.
    ///
    /// Spec: <https://oembed.com>.
    async fn oembed(&self, url: Url) -> Result<page::Page, PreviewError> {
        let fetched = self.fetch(url, "application/json").await?;
        let bytes = self.gather(fetched.body, OEMBED_BYTES).await?;
        read_oembed(&bytes)
    }
}

fn read_oembed(bytes: &[u8]) -> Result<page::Page, PreviewError> {
    let told: Value = serde_json::from_slice(bytes).map_err(|error| PreviewError::Failed(error.to_string()))?;
    let text = |name: &str| told[name].as_str().map(|text| text.chars().take(500).collect::<String>());
    let mut properties = BTreeMap::new();
    for (name, field) in [("og:title", "title"), ("og:site_name", "provider_name"), ("og:author", "author_name")] {
        if let Some(text) = text(field).filter(|text| !text.is_empty()) {
            properties.insert(name.to_owned(), text);
        }
    }
    if let Some(html) = told["html"].as_str().filter(|_| told["type"] == "rich") {
        let description = page::read(html).properties.remove("og:description");
        properties.extend(description.map(|text| ("og:description".to_owned(), text)));
    }
    let photo = if told["type"] == "photo" { text("url") } else { None };
    let images = photo.or_else(|| text("thumbnail_url")).into_iter().collect();
    Ok(page::Page { properties, images, ..page::Page::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_pages_of_the_web_have_previews() {
        for good in ["https://a.org", "http://a.org:8080/x?y#z", "HTTPS://A.org/ä"] {
            assert!(parse(good).is_some(), "{good}");
        }
        assert_eq!(parse("https://a.org/x#secret").unwrap().as_str(), "https://a.org/x");
        let long = format!("https://a.org/{}", "x".repeat(URL_BYTES));
        for bad in ["", "a.org", "ftp://a.org", "file:///etc/passwd", "https://u:p@a.org", "data:text/html,x", &long] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_denied_domain_is_denied_with_all_below() {
        assert!(is_within("a.org", "a.org") && is_within("b.A.org.", "a.org"));
        assert!(!is_within("ba.org", "a.org") && !is_within("org", "a.org"));
    }
}
