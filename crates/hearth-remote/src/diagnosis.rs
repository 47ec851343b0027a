//! Why a server can't be reached: the way to it walked step by step, each with what was found and how a fault is mended.
//!
//! The way is that of every request, through the same discovery, connector and client; only more is told of it.
//! Spec: server-server API, "Server discovery", "Retrieving server keys", "Request Authentication".

use std::time::Duration;

use bytes::Bytes;
use hearth_matrix::ruma::ServerName;
use http::Request;
use serde_json::Value;

use crate::certificate::{date, shake};
use crate::connector::{MOST_ADDRESSES, TARGET_TIMEOUT, Target, dial, tls_name};
use crate::host::Host;
use crate::key_document::ToldKeys;
use crate::well_known::Answer;
use crate::{Limits, Manner, Remote, RemoteError, SendOptions};

const LIMITS: Limits = Limits { timeout: Duration::from_secs(15), response_bytes: 256 * 1024 };
/// So long an address may take to answer.
const DIAL: Duration = Duration::from_secs(5);
/// After this no further target is tried.
const PLACES: Duration = Duration::from_secs(60);
/// So much of what a server says is repeated.
const WORDS: usize = 300;

/// How a step went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// As it should.
    Good,
    /// Not as usual, but it need not be the reason.
    Doubtful,
    /// This keeps messages from arriving.
    Bad,
}

/// A step of the way to a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What was looked at.
    pub about: &'static str,
    /// How it went.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    pub mend: Option<String>,
}

impl Step {
    fn good(about: &'static str, found: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Good, found: found.into(), mend: None }
    }

    fn doubtful(about: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Doubtful, found: found.into(), mend: Some(mend.into()) }
    }

    fn bad(about: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { about, verdict: Verdict::Bad, found: found.into(), mend: Some(mend.into()) }
    }
}

impl Remote {
    /// Walks the way to a server. One that answers is not left alone any longer. Our own name is looked at as others see it.
    pub async fn diagnose(&self, server: &ServerName) -> Vec<Step> {
        let mut steps = Vec::new();
        if let Some(refusal) = self.refusal(server) {
            let mend = "Change the setting and start the server again.";
            steps.push(Step::bad("settings", format!("Nothing is sent to {server}: {refusal}."), mend));
            return steps;
        }
        steps.push(Step::good("settings", format!("The settings let this server talk with {server}.")));
        steps.push(self.delegation(server).await);
        let host = self.0.discovery.answering_for(server).await;
        if !self.places(&host, &mut steps).await {
            return steps;
        }
        steps.push(self.version(server).await);
        steps.push(self.told_keys(server).await);
        if server != self.server_name() {
            steps.push(self.signed_request(server).await);
        }
        steps
    }

    async fn delegation(&self, server: &ServerName) -> Step {
        const ABOUT: &str = "well-known";
        const MEND: &str = "If the server is at another host or port, its operator must have the file there answer \
                            {\"m.server\": \"HOST:PORT\"} over HTTPS. Without that, SRV records and port 8448 count.";
        match self.0.discovery.examine(server).await {
            None => Step::good(ABOUT, format!("{server} has a port or is an address, so it is taken as it is.")),
            Some((Answer::Delegated(..), words)) => Step::good(ABOUT, format!("{words}.")),
            Some((Answer::Nothing, words)) if words.contains("answered 404") => {
                Step::good(ABOUT, format!("{words}: {server} delegates to nobody."))
            }
            Some((_, words)) => Step::doubtful(ABOUT, format!("{words}."), MEND),
        }
    }

    /// Whether anybody who may answers where a host is looked for.
    async fn places(&self, host: &ServerName, steps: &mut Vec<Step>) -> bool {
        let certified = Host::parse(host.host());
        let connector = self.0.client.connector.shared();
        let targets = match connector.targets(Manner::Federation, &certified, host.port(), true).await {
            Ok(targets) => targets,
            Err(error) => {
                let mend = "Its SRV record says that there is no server. Its operator must change that.";
                steps.push(Step::bad("place", format!("{error}."), mend));
                return false;
            }
        };
        let list: Vec<String> = targets.list.iter().map(|target| format!("{}:{}", target.host, target.port)).collect();
        let how = match (&targets.service, host.port()) {
            (Some(service), _) => format!("The SRV records of {service} lead to {}.", list.join(", ")),
            (None, Some(_)) => format!("The name has a port: {}.", list.join(", ")),
            (None, None) => format!("No SRV records, so port 8448: {}.", list.join(", ")),
        };
        steps.push(Step::good("place", how));
        let mut reached = false;
        let begun = tokio::time::Instant::now();
        for target in &targets.list {
            if begun.elapsed() >= PLACES {
                let mend = "Those before it take long to not answer; see to them first.";
                steps.push(Step::doubtful("place", format!("{}:{} was not tried.", target.host, target.port), mend));
                continue;
            }
            reached |= self.target(target, &certified, steps).await;
        }
        reached
    }

    /// Whether a target answers at one of its addresses, with a good certificate.
    async fn target(&self, target: &Target, certified: &Host, steps: &mut Vec<Step>) -> bool {
        let connector = self.0.client.connector.shared();
        let found = tokio::time::timeout(TARGET_TIMEOUT, connector.addresses(target)).await;
        let addresses = match found {
            Ok(Ok(addresses)) => addresses,
            Ok(Err(error)) => {
                let mend =
                    "The name needs an A or AAAA record. If it has one, this machine's name server does not know it.";
                steps.push(Step::bad("name", format!("{error}."), mend));
                return false;
            }
            Err(_) => {
                let found = format!("{}: the name server did not answer in time.", target.host);
                steps.push(Step::bad("name", found, "See to the name server of this machine."));
                return false;
            }
        };
        let mut reached = false;
        for address in addresses.into_iter().take(MOST_ADDRESSES) {
            if !connector.filter.allows(address.ip()) {
                let found = format!("{address} is an address to which this server does not connect.");
                let mend = "If it is meant to, put its range into `outbound.ip_range_allow`.";
                steps.push(Step::bad("address", found, mend));
                continue;
            }
            let tcp = match tokio::time::timeout(DIAL, dial(address)).await {
                Ok(Ok(tcp)) => tcp,
                failed => {
                    let error = match failed {
                        Ok(Err(error)) => error.to_string(),
                        _ => format!("{address}: no answer in {} s", DIAL.as_secs()),
                    };
                    let mend = "Is the server running, and does every firewall on the way let that port through? If only \
                                IPv6 fails, this machine or that one has no working IPv6.";
                    steps.push(Step::bad("address", format!("{error}."), mend));
                    continue;
                }
            };
            steps.push(Step::good("address", format!("{address} answers.")));
            let Ok(name) = tls_name(certified) else { continue };
            let Ok(handshake) = tokio::time::timeout(TARGET_TIMEOUT, shake(&self.0.client.roots, name, tcp)).await
            else {
                let found = format!("{address} does not speak TLS in time.");
                steps.push(Step::bad("certificate", found, "Something else may listen at that port."));
                continue;
            };
            let chain = match handshake.chain.is_empty() {
                true => "none was shown".to_owned(),
                false => cut(&handshake.chain.join("; above it: "), 3 * WORDS),
            };
            match handshake.wrong {
                None => {
                    reached = true;
                    steps.push(Step::good("certificate", format!("For {chain}.")));
                }
                Some((error, mend)) => {
                    steps.push(Step::bad("certificate", format!("{error}. The certificate: {chain}."), mend));
                }
            }
        }
        reached
    }

    async fn version(&self, server: &ServerName) -> Step {
        const ABOUT: &str = "version";
        match self.plain(server, "/_matrix/federation/v1/version").await {
            Ok(body) => {
                let told: Value = serde_json::from_slice(&body).unwrap_or_default();
                let text = |field: &str| cut(told["server"][field].as_str().unwrap_or("?"), WORDS);
                match told["server"].is_object() {
                    true => Step::good(ABOUT, format!("It says that it is {} {}.", text("name"), text("version"))),
                    false => Step::doubtful(
                        ABOUT,
                        "What answers does not say which Matrix server it is.",
                        "Something else may answer there; a proxy must pass /_matrix on to the server.",
                    ),
                }
            }
            Err(error) => Step::doubtful(
                ABOUT,
                format!("/_matrix/federation/v1/version: {error}."),
                "Something else may answer there; a proxy must pass /_matrix on to the server.",
            ),
        }
    }

    async fn told_keys(&self, server: &ServerName) -> Step {
        const ABOUT: &str = "keys";
        const MEND: &str =
            "A proxy must pass /_matrix/key on to the server, and that must have the name by which it is asked.";
        let body = match self.plain(server, "/_matrix/key/v2/server").await {
            Ok(body) => body,
            Err(error) => return Step::bad(ABOUT, format!("/_matrix/key/v2/server: {error}."), MEND),
        };
        let told = match ToldKeys::parse_of(&String::from_utf8_lossy(&body), server) {
            Ok(told) => told,
            Err(error) => return Step::bad(ABOUT, format!("/_matrix/key/v2/server: {error}."), MEND),
        };
        let keys: Vec<&str> = told.verify_keys.iter().map(|(id, _)| id.as_str()).collect();
        let found = format!("{}, good until {}.", cut(&keys.join(", "), WORDS), date(told.valid_until_ts / 1000));
        if told.valid_until_ts <= self.0.time.now_ms() {
            return Step::bad(ABOUT, found, "They are good no longer. Compare both servers' clocks.");
        }
        if server == self.server_name() && !told.verify_keys.iter().any(|(id, key)| self.signs_with(id, key)) {
            let mend = "Another server answers at this server's name, or an earlier copy of this one.";
            return Step::bad(ABOUT, format!("{found} This server signs with another one."), mend);
        }
        Step::good(ABOUT, found)
    }

    /// Asks for an alias that nobody has: only who believes our signature says that it isn't there.
    async fn signed_request(&self, server: &ServerName) -> Step {
        const ABOUT: &str = "signed request";
        let unbelieved = format!(
            "It must be able to fetch this server's key: try `hearth doctor federation {}` from a machine outside, and compare \
             both servers' clocks.",
            self.server_name()
        );
        let alias: String = format!("#hearth-doctor:{server}").bytes().map(|byte| format!("%{byte:02X}")).collect();
        let url = format!("https://matrix.invalid/_matrix/federation/v1/query/directory?room_alias={alias}");
        let request = match Request::get(url).body(Bytes::new()) {
            Ok(request) => request,
            Err(error) => return Step::bad(ABOUT, error.to_string(), "Is that a server's name?"),
        };
        let options = SendOptions { limits: LIMITS, despite_back_off: true, ..SendOptions::default() };
        match self.send_raw(server, request, true, options).await {
            Err(RemoteError::Refused { status, message, .. }) if status.as_u16() == 401 => {
                let found = format!("It does not believe this server's signature: {}.", cut(&message, WORDS));
                Step::bad(ABOUT, found, unbelieved)
            }
            Err(RemoteError::Refused { status, message, .. }) if status.as_u16() == 403 => {
                let found = format!("It refuses this server: {}.", cut(&message, WORDS));
                Step::bad(ABOUT, found, "Ask its operator whether this server is denied there.")
            }
            Err(error) if error.is_failure() => {
                Step::bad(ABOUT, format!("{}.", cut(&error.to_string(), WORDS)), "Its operator finds more in its log.")
            }
            _ => {
                self.tell_life(server);
                Step::good(ABOUT, "It believes this server's signature. What waits for it is sent now.")
            }
        }
    }

    /// A request without signature, of which nothing is learned.
    async fn plain(&self, server: &ServerName, path: &str) -> Result<Bytes, RemoteError> {
        let request = Request::get(format!("https://matrix.invalid{path}")).body(Bytes::new());
        let request = request.map_err(|error| RemoteError::Request(error.to_string()))?;
        let request = self.addressed(server, request, false).await?;
        let answer = self.0.client.send(Manner::Federation, request, LIMITS).await?;
        match answer.status().is_success() {
            true => Ok(answer.into_body()),
            false => Err(RemoteError::Malformed(format!("it answered {}", answer.status()))),
        }
    }
}

/// What strangers say goes to a terminal: not too much of it, and no control characters.
fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(most).collect()
}
