//! `/.well-known/matrix/server`: to whom a server name delegates, and how long to remember.
//!
//! Spec: server-server API, "Resolving server names", step 3, and "Well-known URIs".

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hearth_matrix::canonical::Object;
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_store::WallTime;
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use quick_cache::sync::Cache;
use tokio::sync::Mutex;

use crate::{HttpClient, Limits, Manner};

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
/// Without a word from the server.
const DEFAULT_LIFETIME: i64 = 24 * HOUR;
const MIN_LIFETIME: i64 = 5 * MINUTE;
const MAX_LIFETIME: i64 = 48 * HOUR;
/// A first failure is remembered so long, each further one twice as long.
const FIRST_FAILURE: i64 = 2 * MINUTE;
const MAX_FAILURE: i64 = HOUR;
const MOST_REDIRECTS: usize = 5;
const MOST_HOSTS: usize = 20_000;
const LIMITS: Limits = Limits { timeout: WHOLE, response_bytes: 50 * 1024 };
/// So long a host has for its answer, redirects and all. Others wait for it who have time for more than this; and many servers
/// have nobody at port 443.
const WHOLE: Duration = Duration::from_secs(5);
/// So long a delegation outlives a host that says nothing of it any more: one bad answer is often a mishap.
const AFTERLIFE: i64 = 10 * MINUTE;

/// What hosts delegate to, remembered.
pub(crate) struct WellKnowns {
    client: HttpClient,
    time: WallTime,
    /// One question at a time per host.
    hosts: Cache<String, Arc<Mutex<Remembered>>>,
}

#[derive(Default)]
struct Remembered {
    delegated: Option<OwnedServerName>,
    until: i64,
    /// Until when `delegated` may serve although the server does not answer.
    good_until: i64,
    /// Since when the host says nothing of `delegated`.
    silent_since: Option<i64>,
    failures: u32,
    /// The last failure was no answer at all.
    unasked: bool,
}

/// What asking brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// A server to go to, and how long that holds.
    Delegated(OwnedServerName, i64),
    /// The host decidedly says nothing.
    Nothing,
    /// The host could not be asked.
    Unknown,
}

impl WellKnowns {
    pub(crate) fn new(client: HttpClient, time: WallTime) -> Self {
        Self { client, time, hosts: Cache::new(MOST_HOSTS) }
    }

    /// To whom a host delegates, if it does.
    pub(crate) async fn delegated(self: &Arc<Self>, host: &str) -> Option<OwnedServerName> {
        let host = host.to_ascii_lowercase();
        let entry = self.entry(&host)?;
        if let Ok(remembered) = entry.try_lock()
            && self.time.now_ms() < remembered.until
        {
            return remembered.delegated.clone();
        }
        // A task of its own: what comes of it is remembered also if nobody waits so long.
        let this = self.clone();
        let asked = tokio::spawn(async move {
            let mut remembered = entry.lock().await;
            if this.time.now_ms() >= remembered.until {
                let (answer, _) = this.ask(&host).await;
                remembered.learn(answer, this.time.now_ms());
            }
            remembered.delegated.clone()
        });
        asked.await.ok().flatten()
    }

    /// The server that a host leads to could not be reached: if it could not be asked where that is, it is asked anew next time.
    pub(crate) fn doubt(&self, host: &str) {
        let host = host.to_ascii_lowercase();
        if let Some(entry) = self.hosts.get(&host)
            && let Ok(mut remembered) = entry.try_lock()
            && remembered.unasked
        {
            remembered.until = 0;
        }
    }

    fn entry(&self, host: &str) -> Option<Arc<Mutex<Remembered>>> {
        self.hosts.get_or_insert_with(host, || Ok::<_, ()>(Arc::default())).ok()
    }

    /// Asks a host whatever is remembered, learns from it, and tells in words what it said.
    pub(crate) async fn examine(&self, host: &str) -> (Answer, String) {
        let host = host.to_ascii_lowercase();
        let (answer, words) = self.ask(&host).await;
        if let Some(entry) = self.entry(&host) {
            entry.lock().await.learn(answer.clone(), self.time.now_ms());
        }
        (answer, words)
    }

    /// What a host says, and that in words.
    async fn ask(&self, host: &str) -> (Answer, String) {
        let late = || (Answer::Unknown, format!("{host} did not say within {} s", WHOLE.as_secs()));
        tokio::time::timeout(WHOLE, self.follow(host)).await.unwrap_or_else(|_| late())
    }

    async fn follow(&self, host: &str) -> (Answer, String) {
        let Ok(mut uri) = format!("https://{host}/.well-known/matrix/server").parse::<Uri>() else {
            return (Answer::Nothing, "the name makes no URL".to_owned());
        };
        for _ in 0..=MOST_REDIRECTS {
            let mut request = Request::new(Bytes::new());
            *request.uri_mut() = uri.clone();
            let response = match self.client.send(Manner::Discovery, request, LIMITS).await {
                Ok(response) => response,
                Err(error) => return (Answer::Unknown, format!("{uri} can't be asked: {error}")),
            };
            let status = response.status();
            if status.is_redirection() {
                match redirected(&uri, response.headers()) {
                    Some(next) => uri = next,
                    None => return (Answer::Nothing, format!("{uri} answered {status}, which leads nowhere over TLS")),
                }
                continue;
            }
            let answer = read(&response, self.time.now_ms());
            let words = match &answer {
                Answer::Delegated(to, lifetime) => format!("{uri} names {to}, good for {} s", lifetime / 1000),
                _ if status == StatusCode::OK => format!("{uri} answered 200, but not with {{\"m.server\": \"…\"}}"),
                _ => format!("{uri} answered {status}"),
            };
            return (answer, words);
        }
        (Answer::Nothing, format!("{uri} is one redirect too many"))
    }
}

impl Remembered {
    fn learn(&mut self, answer: Answer, now: i64) {
        match answer {
            Answer::Delegated(server, lifetime) => {
                *self = Self {
                    delegated: Some(server),
                    until: now + lifetime,
                    good_until: now + lifetime.max(DEFAULT_LIFETIME) + DEFAULT_LIFETIME,
                    ..Self::default()
                };
                return;
            }
            Answer::Nothing => {
                self.unasked = false;
                if now >= *self.silent_since.get_or_insert(now) + AFTERLIFE {
                    self.delegated = None;
                }
            }
            Answer::Unknown => {
                self.unasked = true;
                // A server that is down for a while has not moved back.
                if now >= self.good_until {
                    self.delegated = None;
                }
            }
        }
        let wait = FIRST_FAILURE << self.failures.min(5);
        self.until = now + wait.min(MAX_FAILURE);
        self.failures = self.failures.saturating_add(1);
    }
}

/// Where a redirect leads: over TLS only.
fn redirected(from: &Uri, headers: &HeaderMap) -> Option<Uri> {
    let location = headers.get(header::LOCATION)?.to_str().ok()?;
    let location = location.split('#').next().unwrap_or_default();
    let target = if location.starts_with("//") {
        format!("https:{location}")
    } else if location.starts_with('/') {
        format!("https://{}{location}", from.authority()?)
    } else if location.is_empty() || has_scheme(location) {
        location.to_owned()
    } else {
        // Beside what was asked for.
        let folder = from.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        format!("https://{}{folder}/{location}", from.authority()?)
    };
    let target: Uri = target.parse().ok()?;
    let leads_to_a_host = target.authority().is_some_and(|to| !to.host().is_empty() && !to.as_str().contains('@'));
    (target.scheme_str() == Some("https") && leads_to_a_host).then_some(target)
}

fn has_scheme(location: &str) -> bool {
    let before_path = location.split(['/', '?']).next().unwrap_or_default();
    before_path.contains(':')
}

fn read(response: &Response<Bytes>, now: i64) -> Answer {
    match response.status() {
        StatusCode::OK => match parse(response.body()) {
            Some(server) => Answer::Delegated(server, lifetime(response.headers(), now)),
            None => Answer::Nothing,
        },
        status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => Answer::Unknown,
        _ => Answer::Nothing,
    }
}

/// The server that a document names.
pub(crate) fn parse(body: &[u8]) -> Option<OwnedServerName> {
    let document = Object::parse(std::str::from_utf8(body).ok()?).ok()?;
    ServerName::parse(document.get_str("m.server")?).ok()
}

/// How long an answer holds, in milliseconds.
fn lifetime(headers: &HeaderMap, now: i64) -> i64 {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let directives: Vec<String> = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|directive| directive.trim().to_ascii_lowercase())
        .collect();
    let max_age = directives.iter().find_map(|directive| {
        let seconds = directive.strip_prefix("max-age")?.trim_start().strip_prefix('=')?;
        seconds.trim().trim_matches('"').parse::<u32>().ok()
    });
    let uncached = directives.iter().any(|directive| directive == "no-store" || directive == "no-cache");
    let told = if uncached {
        0
    } else if let Some(seconds) = max_age {
        let age = text(header::AGE).and_then(|age| age.trim().parse::<u32>().ok()).unwrap_or(0);
        i64::from(seconds.saturating_sub(age)) * 1000
    } else if let Some(expires) = text(header::EXPIRES) {
        // What is no date is in the past.
        expires_ms(expires).map_or(0, |expires| expires.saturating_sub(now))
    } else {
        DEFAULT_LIFETIME
    };
    told.clamp(MIN_LIFETIME, MAX_LIFETIME)
}

fn expires_ms(date: &str) -> Option<i64> {
    let since = httpdate::parse_http_date(date).ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    i64::try_from(since.as_millis()).ok()
}

/// Reads an answer in every way, for the fuzzer: what holds is within bounds, and leads nowhere without TLS.
#[cfg(test)]
pub(crate) fn try_answer(response: &Response<Bytes>) {
    let now = 1_700_000_000_000;
    if let Answer::Delegated(_, lifetime) = read(response, now) {
        assert!((MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime));
    }
    let from = Uri::from_static("https://one.test/.well-known/matrix/server");
    if let Some(to) = redirected(&from, response.headers()) {
        assert!(to.scheme_str() == Some("https") && to.host().is_some_and(|host| !host.is_empty()), "{to}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (http::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn documents() {
        for (body, server) in [
            (r#"{"m.server":"matrix.example.org:443"}"#, Some("matrix.example.org:443")),
            (r#"{"m.server":"[2001:db8::1]:8448","more":[1]}"#, Some("[2001:db8::1]:8448")),
            (r#"{"m.server":"example.org"}"#, Some("example.org")),
            (r#"{"m.server":""}"#, None),
            (r#"{"m.server":"https://example.org"}"#, None),
            (r#"{"m.server":"example.org:99999"}"#, None),
            (r#"{"m.server":"a b"}"#, None),
            (r#"{"m.server":7}"#, None),
            (r#"{"server":"example.org"}"#, None),
            (r#"["example.org"]"#, None),
            ("<html>", None),
            ("", None),
        ] {
            assert_eq!(parse(body.as_bytes()).as_deref().map(ServerName::as_str), server, "{body}");
        }
    }

    #[test]
    fn lifetimes_follow_the_headers_within_bounds() {
        let now = 1_445_412_480_000; // Wed, 21 Oct 2015 07:28:00 GMT
        for (list, expected) in [
            (headers(&[]), DEFAULT_LIFETIME),
            (headers(&[("cache-control", "public, Max-Age=7200")]), 2 * HOUR),
            (headers(&[("cache-control", "max-age=7200"), ("age", "3600")]), HOUR),
            (headers(&[("cache-control", "max-age=1")]), MIN_LIFETIME),
            (headers(&[("cache-control", "max-age=4294967295")]), MAX_LIFETIME),
            (headers(&[("cache-control", "max-age=99999999999999")]), DEFAULT_LIFETIME),
            (headers(&[("cache-control", "no-store"), ("expires", "Wed, 21 Oct 2015 09:28:00 GMT")]), MIN_LIFETIME),
            (headers(&[("expires", "Wed, 21 Oct 2015 09:28:00 GMT")]), 2 * HOUR),
            (headers(&[("expires", "Wed, 21 Oct 2014 09:28:00 GMT")]), MIN_LIFETIME),
            (headers(&[("expires", "0")]), MIN_LIFETIME),
        ] {
            assert_eq!(lifetime(&list, now), expected, "{list:?}");
        }
    }

    #[test]
    fn redirects_stay_on_tls() {
        let from: Uri = "https://example.org/.well-known/matrix/server".parse().unwrap();
        for (location, expected) in [
            ("https://www.example.org/x", Some("https://www.example.org/x")),
            ("/other", Some("https://example.org/other")),
            ("//www.example.org/x", Some("https://www.example.org/x")),
            ("http://www.example.org/x", None),
            ("https://user@www.example.org/x", None),
            ("relative", Some("https://example.org/.well-known/matrix/relative")),
            ("../x?y:z", Some("https://example.org/.well-known/matrix/../x?y:z")),
            ("mailto:x", None),
            ("", None),
        ] {
            let list = headers(&[("location", location)]);
            assert_eq!(redirected(&from, &list).map(|uri| uri.to_string()).as_deref(), expected, "{location}");
        }
        assert_eq!(redirected(&from, &HeaderMap::new()), None);
    }

    #[test]
    fn failures_are_remembered_longer_and_longer_and_a_silent_server_has_not_moved() {
        let mut remembered = Remembered::default();
        remembered.learn(Answer::Unknown, 0);
        assert_eq!((remembered.until, &remembered.delegated), (FIRST_FAILURE, &None));
        for _ in 0..10 {
            remembered.learn(Answer::Nothing, 0);
        }
        assert_eq!(remembered.until, MAX_FAILURE);
        let server = ServerName::parse("matrix.example.org").unwrap();
        remembered.learn(Answer::Delegated(server.clone(), HOUR), 0);
        assert_eq!((remembered.until, remembered.failures), (HOUR, 0));
        remembered.learn(Answer::Unknown, HOUR);
        assert_eq!(remembered.delegated.as_ref(), Some(&server));
        remembered.learn(Answer::Unknown, 3 * DEFAULT_LIFETIME);
        assert_eq!(remembered.delegated, None);
    }

    #[test]
    fn one_bad_answer_ends_no_delegation() {
        let server = ServerName::parse("matrix.example.org").unwrap();
        let mut remembered = Remembered::default();
        remembered.learn(Answer::Delegated(server.clone(), HOUR), 0);
        remembered.learn(Answer::Nothing, HOUR);
        assert_eq!((remembered.delegated.as_ref(), remembered.until), (Some(&server), HOUR + FIRST_FAILURE));
        remembered.learn(Answer::Nothing, HOUR + AFTERLIFE - 1);
        assert_eq!(remembered.delegated.as_ref(), Some(&server));
        remembered.learn(Answer::Delegated(server.clone(), HOUR), HOUR + AFTERLIFE);
        remembered.learn(Answer::Nothing, 2 * HOUR);
        assert_eq!(remembered.delegated.as_ref(), Some(&server));
        remembered.learn(Answer::Nothing, 2 * HOUR + AFTERLIFE);
        assert_eq!(remembered.delegated, None);
    }

    proptest::proptest! {
        #[test]
        fn no_document_or_header_panics(body: Vec<u8>, value in "[ -~]{0,60}", now: i32) {
            let _ = parse(&body);
            let mut list = HeaderMap::new();
            let value = http::HeaderValue::from_str(&value).unwrap();
            for name in [header::CACHE_CONTROL, header::EXPIRES, header::AGE, header::LOCATION] {
                list.insert(name, value.clone());
            }
            let lifetime = lifetime(&list, i64::from(now));
            proptest::prop_assert!((MIN_LIFETIME..=MAX_LIFETIME).contains(&lifetime));
            let _ = redirected(&Uri::from_static("https://example.org/"), &list);
        }
    }
}
