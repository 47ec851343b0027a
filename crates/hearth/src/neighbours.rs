//! Other servers as rooms see them: the questions of [`hearth_room::Neighbours`], put over HTTP.
//!
//! Events come and go as they are, byte for byte. What a server may answer is bounded in number and in size.
//! Spec: server-server API, "Retrieving events", "Joining Rooms", "Querying for information".

use std::time::Duration;

use bytes::Bytes;
use hearth_matrix::ruma::api::OutgoingRequest;
use hearth_matrix::ruma::api::federation::authorization::get_event_authorization;
use hearth_matrix::ruma::api::federation::backfill::get_backfill;
use hearth_matrix::ruma::api::federation::event::{get_event, get_missing_events, get_room_state, get_room_state_ids};
use hearth_matrix::ruma::api::federation::membership::{
    create_join_event, prepare_join_event, prepare_knock_event, prepare_leave_event,
};
use hearth_matrix::ruma::api::federation::query::get_room_information;
use hearth_matrix::ruma::api::path_builder::PathBuilder;
use hearth_matrix::ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomVersionId, ServerName, UInt, UserId,
};
use hearth_remote::{Limits, Remote, RemoteError, SendOptions, Signing};
use hearth_room::{
    Answer, Invitation, JoinAnswer, MissingEvents, Neighbours, Refusal, StateAt, StateIdsAt, Template, Unanswered,
    WantedKey,
};
use http::Request;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

#[cfg(test)]
mod fuzz;
mod lists;
mod turns;

use lists::{Events, List, texts};
use turns::Turns;

/// For an answer of a hundred events at most.
const FEW: SendOptions = options(30, 8);
/// For one event.
const EVENT: SendOptions = options(30, 2);
/// For all that allows an event.
const AUTH_CHAIN: SendOptions = options(120, 64);
/// For the state of a room.
const STATE: SendOptions = options(180, 256);
/// For a question that has a person waiting: it is put also to a server that failed lately, which may be well again.
const ASKED_FOR: SendOptions = SendOptions { despite_back_off: true, ..options(20, 1) };
/// For an invite, that a person sends.
const INVITE: SendOptions = SendOptions { despite_back_off: true, ..FEW };

const fn options(seconds: u64, mebibytes: usize) -> SendOptions {
    let limits = Limits { timeout: Duration::from_secs(seconds), response_bytes: mebibytes * 1024 * 1024 };
    SendOptions { limits, despite_back_off: false, is_aside: false, even_to_ourselves: false }
}

/// Events that are asked for at once.
const PAGE: usize = 100;
/// Events, or their ids, in the state of a room or in all that allows it.
const MOST: usize = 500_000;
/// Events that allow one event.
const CHAIN: usize = 20_000;
/// Servers that are named.
const NAMED: usize = 20_000;

/// Ids of a state.
const STATE_IDS: SendOptions = options(120, 64);

/// The answer of a policy server.
const SIGNATURE_BYTES: usize = 64 * 1024;

/// The other servers.
pub(crate) struct OverHttp {
    remote: Remote,
    /// How long a policy server may think.
    policy_server_timeout: Duration,
    turns: Turns,
}

#[derive(Deserialize)]
struct Pdus {
    pdus: Events<PAGE>,
}

#[derive(Deserialize)]
struct Missing {
    #[serde(default)]
    events: Events<PAGE>,
}

#[derive(Deserialize)]
struct StateIds {
    pdu_ids: List<OwnedEventId, MOST>,
    auth_chain_ids: List<OwnedEventId, MOST>,
}

#[derive(Deserialize)]
struct State {
    pdus: Events<MOST>,
    auth_chain: Events<MOST>,
}

#[derive(Deserialize)]
struct AuthChain {
    auth_chain: Events<CHAIN>,
}

#[derive(Deserialize)]
struct Made {
    room_version: Option<RoomVersionId>,
    event: Box<RawValue>,
}

impl From<Made> for Template {
    fn from(Made { room_version, event }: Made) -> Self {
        // Servers that name no version are older than versions.
        Self { version: room_version.unwrap_or(RoomVersionId::V1), event: text(event) }
    }
}

#[derive(Deserialize)]
struct Nothing {}

#[derive(Deserialize)]
struct SentKnock {
    #[serde(default)]
    knock_room_state: Events<PAGE>,
}

#[derive(Deserialize)]
struct Invited {
    event: Box<RawValue>,
}

#[derive(Deserialize)]
struct SentJoin {
    event: Option<Box<RawValue>>,
    #[serde(default)]
    state: Events<MOST>,
    #[serde(default)]
    auth_chain: Events<MOST>,
    #[serde(default)]
    members_omitted: bool,
    #[serde(default)]
    servers_in_room: List<OwnedServerName, NAMED>,
}

#[derive(Deserialize)]
struct Directory {
    room_id: OwnedRoomId,
    #[serde(default)]
    servers: List<OwnedServerName, NAMED>,
}

impl OverHttp {
    pub(crate) fn new(remote: Remote, policy_server_timeout: Duration) -> Self {
        Self { remote, policy_server_timeout, turns: Turns::default() }
    }

    /// Asks a question when it is its turn: nobody waits for it who could be held up by others that are slow.
    async fn ask_in_turn<R, T>(&self, server: &ServerName, request: R, options: SendOptions) -> Result<T, Unanswered>
    where
        R: OutgoingRequest,
        R::Authentication: Signing,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
        T: DeserializeOwned,
    {
        let _turn = self.turns.take(server, options.limits.response_bytes).await;
        self.ask(server, request, options).await
    }

    /// Asks a question; the answer is read as `T`.
    async fn ask<R, T>(&self, server: &ServerName, request: R, options: SendOptions) -> Result<T, Unanswered>
    where
        R: OutgoingRequest,
        R::Authentication: Signing,
        for<'a> R::PathBuilder: PathBuilder<Input<'a> = ()>,
        T: DeserializeOwned,
    {
        let answer = self.remote.ask(server, request, options).await.map_err(unanswered)?;
        read(answer.body())
    }

    /// Hands in an event as servers did before the second version, whose answers come in a list after the number 200.
    async fn put_first_version<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        path: &[&str],
        event: String,
        options: SendOptions,
    ) -> Result<T, Unanswered> {
        let path = [&["v1"], path].concat();
        let (_, answer): (u16, T) = self.put(server, &path, event, options).await?;
        Ok(answer)
    }

    /// Hands in JSON as it is.
    async fn put<T: DeserializeOwned>(
        &self,
        server: &ServerName,
        path: &[&str],
        body: String,
        options: SendOptions,
    ) -> Result<T, Unanswered> {
        let path: Vec<String> = path.iter().map(|part| segment(part)).collect();
        let request = Request::put(format!("https://matrix.invalid/_matrix/federation/{}", path.join("/")))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Bytes::from(body))
            .map_err(|error| Unanswered::Unreachable(error.to_string()))?;
        let answer = self.remote.send_raw(server, request, true, options).await.map_err(unanswered)?;
        read(answer.body())
    }
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unanswered> {
    serde_json::from_slice(body).map_err(|error| Unanswered::Unreachable(format!("malformed answer: {error}")))
}

/// A segment of a path.
fn segment(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

fn unanswered(error: RemoteError) -> Unanswered {
    match error {
        // Whoever asks later may be told.
        RemoteError::Refused { status, errcode, .. }
            if matches!(status.as_u16(), 408 | 425 | 429) || errcode == "M_LIMIT_EXCEEDED" =>
        {
            Unanswered::Unreachable(format!("answered {status} {errcode}"))
        }
        RemoteError::Refused { status, errcode, message, .. } if status.is_client_error() => {
            Unanswered::Refused(Refusal { status: status.as_u16(), errcode, message })
        }
        RemoteError::Forbidden(_) | RemoteError::Ourselves => Unanswered::Refused(Refusal::because(error.to_string())),
        _ => Unanswered::Unreachable(error.to_string()),
    }
}

/// Whether a server does not know an endpoint; it may know an older one.
fn is_unknown_endpoint(error: &Unanswered) -> bool {
    match error {
        Unanswered::Refused(refusal) => {
            refusal.errcode == "M_UNRECOGNIZED" || (matches!(refusal.status, 404 | 405) && refusal.errcode.is_empty())
        }
        Unanswered::Unreachable(_) => false,
    }
}

/// Whether a server that refuses an invite may know the first version of the endpoint only. Spec: server-server API,
/// `PUT /_matrix/federation/v2/invite/{roomId}/{eventId}`.
fn is_perhaps_older(error: &Unanswered) -> bool {
    let refused = |refusal: &Refusal| matches!(refusal.status, 400 | 404);
    is_unknown_endpoint(error) || matches!(error, Unanswered::Refused(refusal) if refused(refusal))
}

fn text(event: Box<RawValue>) -> String {
    String::from(Box::<str>::from(event))
}

fn at_most(events: Events<PAGE>, most: u32) -> Vec<String> {
    let mut events = texts(events.taken());
    events.truncate(most as usize);
    events
}

fn of_ring(key: &WantedKey) -> hearth_remote::WantedKey {
    hearth_remote::WantedKey { server: key.server.clone(), key_id: key.key_id.clone(), at: key.at }
}

impl Neighbours for OverHttp {
    fn resting<'a>(&'a self, servers: &'a [OwnedServerName]) -> Answer<'a, Vec<OwnedServerName>> {
        Box::pin(async move {
            let mut resting = Vec::new();
            for server in servers {
                // A server of which nothing can be read is tried like any other.
                if self.remote.is_resting(server).await.unwrap_or(false) {
                    resting.push(server.clone());
                }
            }
            resting
        })
    }

    fn keys(&self, wanted: Vec<WantedKey>) -> Answer<'_, Vec<(WantedKey, [u8; 32])>> {
        Box::pin(async move {
            let found = match self.remote.keys().find(wanted.iter().map(of_ring).collect()).await {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(%error, "keys of other servers can't be looked up");
                    return Vec::new();
                }
            };
            let key = |wanted: WantedKey| found.get(&wanted.server, &wanted.key_id, wanted.at).map(|key| (wanted, key));
            wanted.into_iter().filter_map(key).collect()
        })
    }

    fn keys_at_hand(&self, wanted: &[WantedKey]) -> Vec<(WantedKey, [u8; 32])> {
        let at_hand = |wanted: &WantedKey| Some((wanted.clone(), self.remote.keys().at_hand(&of_ring(wanted))?));
        wanted.iter().filter_map(at_hand).collect()
    }

    fn missing_events<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        question: MissingEvents,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        let limit = question.limit;
        let mut request = get_missing_events::v1::Request::new(room_id.to_owned(), question.earliest, question.latest);
        request.limit = UInt::from(limit);
        request.min_depth = UInt::try_from(question.min_depth).unwrap_or(UInt::MAX);
        Box::pin(async move {
            let Missing { events } = self.ask_in_turn(server, request, FEW).await?;
            Ok(at_most(events, limit))
        })
    }

    fn event<'a>(&'a self, server: &'a ServerName, event_id: &'a EventId) -> Answer<'a, Result<String, Unanswered>> {
        Box::pin(async move {
            let Pdus { pdus } =
                self.ask_in_turn(server, get_event::v1::Request::new(event_id.to_owned()), EVENT).await?;
            let none = || Unanswered::Refused(Refusal::because("it sent no event"));
            at_most(pdus, 1).pop().ok_or_else(none)
        })
    }

    fn state_ids<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<StateIdsAt, Unanswered>> {
        Box::pin(async move {
            let request = get_room_state_ids::v1::Request::new(event_id.to_owned(), room_id.to_owned());
            let StateIds { pdu_ids, auth_chain_ids } = self.ask_in_turn(server, request, STATE_IDS).await?;
            Ok(StateIdsAt { state: pdu_ids.whole()?, auth_chain: auth_chain_ids.whole()? })
        })
    }

    fn state<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<StateAt, Unanswered>> {
        Box::pin(async move {
            let request = get_room_state::v1::Request::new(event_id.to_owned(), room_id.to_owned());
            let State { pdus, auth_chain } = self.ask_in_turn(server, request, STATE).await?;
            Ok(StateAt { state: texts(pdus.whole()?), auth_chain: texts(auth_chain.whole()?) })
        })
    }

    fn event_auth<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        Box::pin(async move {
            let request = get_event_authorization::v1::Request::new(room_id.to_owned(), event_id.to_owned());
            let AuthChain { auth_chain } = self.ask_in_turn(server, request, AUTH_CHAIN).await?;
            Ok(texts(auth_chain.whole()?))
        })
    }

    fn backfill<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        from: Vec<OwnedEventId>,
        limit: u32,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        Box::pin(async move {
            let request = get_backfill::v1::Request::new(room_id.to_owned(), from, UInt::from(limit));
            let Pdus { pdus } = self.ask_in_turn(server, request, FEW).await?;
            Ok(at_most(pdus, limit))
        })
    }

    fn make_join<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
        versions: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>> {
        Box::pin(async move {
            let mut request = prepare_join_event::v1::Request::new(room_id.to_owned(), user.to_owned());
            request.ver = versions.to_vec();
            self.ask(server, request, ASKED_FOR).await.map(Made::into)
        })
    }

    fn send_join<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<JoinAnswer, Unanswered>> {
        Box::pin(async move {
            let event = RawValue::from_string(event)
                .map_err(|error| Unanswered::Refused(Refusal::because(format!("our join is no JSON: {error}"))))?;
            let (room_id, event_id) = (room_id.to_owned(), event_id.to_owned());
            let mut request = create_join_event::v2::Request::new(room_id.clone(), event_id.clone(), event.clone());
            request.omit_members = true;
            let answer = match self.ask(server, request, STATE).await {
                Err(error) if is_unknown_endpoint(&error) => {
                    let path = ["send_join", room_id.as_str(), event_id.as_str()];
                    self.put_first_version(server, &path, text(event), STATE).await?
                }
                answer => answer?,
            };
            let SentJoin { event, state, auth_chain, members_omitted, servers_in_room } = answer;
            let (state, auth_chain) = (texts(state.whole()?), texts(auth_chain.whole()?));
            let (event, servers) = (event.map(text), servers_in_room.taken());
            Ok(JoinAnswer { event, state, auth_chain, members_omitted, servers })
        })
    }

    fn alias<'a>(
        &'a self,
        server: &'a ServerName,
        alias: &'a RoomAliasId,
    ) -> Answer<'a, Result<(OwnedRoomId, Vec<OwnedServerName>), Unanswered>> {
        Box::pin(async move {
            let request = get_room_information::v1::Request::new(alias.to_owned());
            let Directory { room_id, servers } = self.ask(server, request, ASKED_FOR).await?;
            Ok((room_id, servers.taken()))
        })
    }

    fn make_leave<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
    ) -> Answer<'a, Result<Template, Unanswered>> {
        Box::pin(async move {
            let request = prepare_leave_event::v1::Request::new(room_id.to_owned(), user.to_owned());
            self.ask(server, request, ASKED_FOR).await.map(Made::into)
        })
    }

    fn send_leave<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<(), Unanswered>> {
        Box::pin(async move {
            let path = ["send_leave", room_id.as_str(), event_id.as_str()];
            let answer = self.put(server, &[&["v2"], &path[..]].concat(), event.clone(), ASKED_FOR).await;
            let Nothing {} = match answer {
                Err(error) if is_unknown_endpoint(&error) => {
                    self.put_first_version(server, &path, event, ASKED_FOR).await?
                }
                answer => answer?,
            };
            Ok(())
        })
    }

    fn make_knock<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
        versions: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>> {
        Box::pin(async move {
            let mut request = prepare_knock_event::v1::Request::new(room_id.to_owned(), user.to_owned());
            request.ver = versions.to_vec();
            self.ask(server, request, ASKED_FOR).await.map(Made::into)
        })
    }

    fn send_knock<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        Box::pin(async move {
            let path = ["v1", "send_knock", room_id.as_str(), event_id.as_str()];
            let SentKnock { knock_room_state } = self.put(server, &path, event, FEW).await?;
            Ok(texts(knock_room_state.taken()))
        })
    }

    fn policy_signature<'a>(&'a self, server: &'a ServerName, event: String) -> Answer<'a, Result<String, Unanswered>> {
        Box::pin(async move {
            let request = Request::post("https://matrix.invalid/_matrix/policy/v1/sign")
                .header(http::header::CONTENT_TYPE, "application/json")
                .body(Bytes::from(event))
                .map_err(|error| Unanswered::Unreachable(error.to_string()))?;
            let options = SendOptions {
                limits: Limits { timeout: self.policy_server_timeout, response_bytes: SIGNATURE_BYTES },
                despite_back_off: true,
                is_aside: true,
                even_to_ourselves: true,
            };
            let answer = self.remote.send_raw(server, request, true, options).await.map_err(unanswered)?;
            let answer: Box<RawValue> = read(answer.body())?;
            Ok(text(answer))
        })
    }

    fn invite<'a>(
        &'a self,
        server: &'a ServerName,
        invitation: &'a Invitation,
    ) -> Answer<'a, Result<String, Unanswered>> {
        Box::pin(async move {
            let Invitation { room_id, version, event_id, event, room_state } = invitation;
            let path = ["invite", room_id.as_str(), event_id.as_str()];
            let room_state = room_state.join(",");
            let body = format!(
                "{{\"room_version\":{},\"event\":{event},\"invite_room_state\":[{room_state}]}}",
                serde_json::json!(version)
            );
            let answer = self.put(server, &[&["v2"], &path[..]].concat(), body, INVITE).await;
            // Older servers know no other rooms.
            let is_old_room = matches!(version, RoomVersionId::V1 | RoomVersionId::V2);
            let Invited { event } = match answer {
                Err(error) if is_old_room && is_perhaps_older(&error) => {
                    let Some(event) = event.strip_suffix('}') else { return Err(error) };
                    let body = format!("{event},\"unsigned\":{{\"invite_room_state\":[{room_state}]}}}}");
                    let answer = self.put_first_version(server, &path, body, INVITE).await;
                    // Who knows the second version has said why not.
                    answer.map_err(|older| if is_unknown_endpoint(&error) { older } else { error })?
                }
                answer => answer?,
            };
            Ok(text(event))
        })
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn who_is_told_to_come_later_was_not_refused() {
        let answered = |status: u16, errcode: &str| {
            unanswered(RemoteError::Refused {
                status: StatusCode::from_u16(status).expect("a status"),
                errcode: errcode.to_owned(),
                message: String::new(),
                body: Bytes::new(),
            })
        };
        for (status, errcode) in [(429, "M_LIMIT_EXCEEDED"), (429, ""), (400, "M_LIMIT_EXCEEDED"), (408, ""), (503, "")]
        {
            assert!(matches!(answered(status, errcode), Unanswered::Unreachable(_)), "{status} {errcode}");
        }
        for (status, errcode) in [(404, "M_NOT_FOUND"), (403, "M_FORBIDDEN"), (400, "")] {
            assert!(matches!(answered(status, errcode), Unanswered::Refused(_)), "{status} {errcode}");
        }
    }
}
