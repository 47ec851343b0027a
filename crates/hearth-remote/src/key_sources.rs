//! Where keys come from: a server itself, or notaries that vouch for what it said.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hearth_matrix::ruma::{OwnedServerName, ServerName};
use hearth_matrix::signatures::verify_json;
use http::{Request, StatusCode};
use serde_json::json;
use serde_json::value::RawValue;

use crate::key_document::{BASE64, DocumentError, ToldKeys, signed_with};
use crate::{Discovery, HttpClient, HttpError, KeyRing, Limits, Manner};

const LIMITS: Limits = Limits { timeout: Duration::from_secs(20), response_bytes: 64 * 1024 };
const NOTARY_LIMITS: Limits = Limits { timeout: Duration::from_secs(20), response_bytes: 8 * 1024 * 1024 };
/// A notary is asked about so many servers in one request.
const MOST_PER_QUERY: usize = 100;

/// A server that vouches for the keys of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notary {
    /// Its name.
    pub server: OwnedServerName,
    /// Its keys by id. If there are none here, what it says of itself is believed.
    pub keys: BTreeMap<String, [u8; 32]>,
}

impl Notary {
    /// Reads a key as settings have it: an id and base64.
    pub fn key(id: &str, base64: &str) -> Option<[u8; 32]> {
        let key = BASE64.decode(base64).ok()?.try_into().ok()?;
        id.starts_with("ed25519:").then_some(key)
    }
}

/// Why a server's own word is not to be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Document(#[from] DocumentError),
    #[error("a name that makes no URL")]
    Name,
    #[error("no server to talk to")]
    Forbidden,
}

/// Asks servers and notaries.
pub(crate) struct KeySources {
    pub(crate) client: HttpClient,
    pub(crate) discovery: Discovery,
    pub(crate) notaries: Vec<Notary>,
    /// Whether the settings let us talk to a server.
    pub(crate) may_ask: Box<dyn Fn(&ServerName) -> bool + Send + Sync>,
}

impl KeySources {
    pub(crate) fn has_notaries(&self) -> bool {
        !self.notaries.is_empty()
    }

    /// A server's word of itself, and that as it came.
    pub(crate) async fn ask_itself(&self, server: &ServerName) -> Result<(ToldKeys, String), SourceError> {
        let body = self.fetch(server, "/_matrix/key/v2/server", None, LIMITS).await?;
        let json = String::from_utf8(body.to_vec()).map_err(|_| DocumentError::Malformed)?;
        Ok((ToldKeys::parse_of(&json, server)?, json))
    }

    /// What all notaries know of some servers' keys, by key id with the time until which they must be good.
    pub(crate) async fn ask_notaries(
        &self,
        ring: &KeyRing,
        wanted: BTreeMap<OwnedServerName, BTreeMap<String, i64>>,
    ) -> Vec<(ToldKeys, String)> {
        let wanted: Vec<_> = wanted.into_iter().collect();
        let mut queries: FuturesUnordered<_> = self
            .notaries
            .iter()
            .flat_map(|notary| wanted.chunks(MOST_PER_QUERY).map(move |part| (notary, part)))
            .map(|(notary, part)| async move {
                let answer = self.query(ring, notary, part).await;
                answer.unwrap_or_else(|error| {
                    tracing::debug!(notary = %notary.server, %error, "a notary has no answer");
                    Vec::new()
                })
            })
            .collect();
        let mut told = Vec::new();
        while let Some(mut part) = queries.next().await {
            told.append(&mut part);
        }
        told.retain(|(told, _)| wanted.iter().any(|(server, _)| *server == told.server));
        told
    }

    async fn query(
        &self,
        ring: &KeyRing,
        notary: &Notary,
        wanted: &[(OwnedServerName, BTreeMap<String, i64>)],
    ) -> Result<Vec<(ToldKeys, String)>, SourceError> {
        let criteria = |keys: &BTreeMap<String, i64>| -> serde_json::Map<String, serde_json::Value> {
            keys.iter().map(|(id, until)| (id.clone(), json!({ "minimum_valid_until_ts": until }))).collect()
        };
        let servers: serde_json::Map<String, serde_json::Value> =
            wanted.iter().map(|(server, keys)| (server.to_string(), criteria(keys).into())).collect();
        let body = json!({ "server_keys": servers }).to_string();
        let answer = self.fetch(&notary.server, "/_matrix/key/v2/query", Some(body.into()), NOTARY_LIMITS).await?;
        let mut told = Vec::new();
        for document in documents(&answer)? {
            let json = document.get();
            if !self.is_vouched_for(ring, notary, json).await {
                tracing::debug!(notary = %notary.server, "a notary has not signed what it says");
                continue;
            }
            match ToldKeys::parse(json) {
                Ok(keys) => told.push((keys, json.to_owned())),
                Err(error) => tracing::debug!(notary = %notary.server, %error, "a notary tells what can't be believed"),
            }
        }
        Ok(told)
    }

    async fn is_vouched_for(&self, ring: &KeyRing, notary: &Notary, json: &str) -> bool {
        let name = &notary.server;
        for key_id in signed_with(json, name) {
            let key = if notary.keys.is_empty() {
                // The notary itself is never asked about through notaries: that would go round in circles.
                ring.of_notary(name, &key_id).await
            } else {
                notary.keys.get(&key_id).copied()
            };
            if key.is_some_and(|key| verify_json(json, name.as_str(), &key_id, &key)) {
                return true;
            }
        }
        false
    }

    async fn fetch(
        &self,
        server: &ServerName,
        path: &str,
        body: Option<Bytes>,
        limits: Limits,
    ) -> Result<Bytes, SourceError> {
        if !(self.may_ask)(server) {
            return Err(SourceError::Forbidden);
        }
        let whole = async {
            let host = self.discovery.answering_for(server).await;
            let request = match body {
                None => Request::get(format!("https://{host}{path}")).body(Bytes::new()),
                Some(body) => Request::post(format!("https://{host}{path}"))
                    .header(http::header::CONTENT_TYPE, "application/json")
                    .body(body),
            };
            let response = self.client.send(Manner::Keys, request.map_err(|_| SourceError::Name)?, limits).await?;
            match response.status() {
                StatusCode::OK => Ok(response.into_body()),
                status => Err(SourceError::Status(status)),
            }
        };
        // Discovery's time counts, too.
        tokio::time::timeout(limits.timeout, whole).await.unwrap_or(Err(HttpError::Timeout.into()))
    }
}

/// The documents in a notary's answer.
pub(crate) fn documents(answer: &[u8]) -> Result<Vec<Box<RawValue>>, DocumentError> {
    #[derive(serde::Deserialize)]
    struct Answer {
        server_keys: Vec<Box<RawValue>>,
    }
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| DocumentError::Malformed)?;
    Ok(answer.server_keys)
}
