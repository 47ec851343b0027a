//! What a room asks of other servers. Whoever answers knows HTTP, addresses and keys; the room does not.

use std::pin::Pin;

use hearth_matrix::ruma::{
    EventId, OwnedEventId, OwnedRoomId, OwnedServerName, RoomAliasId, RoomId, RoomVersionId, ServerName, UserId,
};

/// An answer that takes its time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// No answer came.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unanswered {
    /// The server cannot be reached now; it may be asked again.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// It said that it doesn't have it, or won't tell.
    #[error("refused: {0}")]
    Refused(Refusal),
}

/// What another server said when it refused something.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{errcode} {message}")]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The Matrix error code; empty if it named none.
    pub errcode: String,
    /// What it said about it.
    pub message: String,
}

impl Refusal {
    /// A refusal without more about it: 403 `M_FORBIDDEN`.
    pub fn because(message: impl Into<String>) -> Self {
        Self { status: 403, errcode: "M_FORBIDDEN".to_owned(), message: message.into() }
    }
}

/// A key that a signature needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct WantedKey {
    /// Whose.
    pub server: OwnedServerName,
    /// Which, with the algorithm: `ed25519:…`.
    pub key_id: String,
    /// When it must have been valid; none where that doesn't matter (room versions 1 to 4).
    pub at: Option<i64>,
}

/// A question for events between two edges of the room.
#[derive(Clone, Debug)]
pub struct MissingEvents {
    /// What we have.
    pub earliest: Vec<OwnedEventId>,
    /// What we want to know the events before of.
    pub latest: Vec<OwnedEventId>,
    /// At most so many.
    pub limit: u32,
    /// None of less depth.
    pub min_depth: u64,
}

/// State before an event, by ids.
#[derive(Clone, Debug, Default)]
pub struct StateIdsAt {
    /// The state.
    pub state: Vec<OwnedEventId>,
    /// All that allows it.
    pub auth_chain: Vec<OwnedEventId>,
}

/// State before an event, as JSON.
#[derive(Clone, Debug, Default)]
pub struct StateAt {
    /// The state.
    pub state: Vec<String>,
    /// All that allows it.
    pub auth_chain: Vec<String>,
}

/// A member event that another server drafted for us.
#[derive(Clone, Debug)]
pub struct Template {
    /// The room's version.
    pub version: RoomVersionId,
    /// The event, neither hashed nor signed.
    pub event: String,
}

/// A room that another server let us into.
#[derive(Clone, Debug, Default)]
pub struct JoinAnswer {
    /// Our join with more signatures, if it needed them.
    pub event: Option<String>,
    /// The state before it.
    pub state: Vec<String>,
    /// All that allows that state.
    pub auth_chain: Vec<String>,
    /// Member events are left out of the state.
    pub members_omitted: bool,
    /// Servers with members in the room, if any were named.
    pub servers: Vec<OwnedServerName>,
}

/// An invite on its way to the server of who is invited.
#[derive(Clone, Debug)]
pub struct Invitation {
    /// The room.
    pub room_id: OwnedRoomId,
    /// Its version.
    pub version: RoomVersionId,
    /// The invite's id.
    pub event_id: OwnedEventId,
    /// The invite, signed by the inviter's server.
    pub event: String,
    /// What is told of the room: events, or what others make of them.
    pub room_state: Vec<String>,
}

/// The answer of a server to which nothing leads.
fn not_asked<'a, T: Send + 'a>(server: &ServerName) -> Answer<'a, Result<T, Unanswered>> {
    let error = Unanswered::Unreachable(format!("{server} is not asked"));
    Box::pin(std::future::ready(Err(error)))
}

/// Other servers. Events come as JSON in federation format, unchecked.
pub trait Neighbours: Send + Sync + 'static {
    /// Public keys, many at once; those that are not to be had are left out.
    fn keys(&self, wanted: Vec<WantedKey>) -> Answer<'_, Vec<(WantedKey, [u8; 32])>>;

    /// The same without asking anybody.
    fn keys_at_hand(&self, wanted: &[WantedKey]) -> Vec<(WantedKey, [u8; 32])> {
        let _ = wanted;
        Vec::new()
    }

    /// Those of some servers that failed lately. They are asked for a person, but after the others.
    fn resting<'a>(&'a self, servers: &'a [OwnedServerName]) -> Answer<'a, Vec<OwnedServerName>> {
        let _ = servers;
        Box::pin(std::future::ready(Vec::new()))
    }

    /// `POST /get_missing_events/{roomId}`
    fn missing_events<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        question: MissingEvents,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>>;

    /// `GET /event/{eventId}`
    fn event<'a>(&'a self, server: &'a ServerName, event_id: &'a EventId) -> Answer<'a, Result<String, Unanswered>>;

    /// `GET /state_ids/{roomId}`
    fn state_ids<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<StateIdsAt, Unanswered>>;

    /// `GET /state/{roomId}`
    fn state<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<StateAt, Unanswered>>;

    /// `GET /event_auth/{roomId}/{eventId}`
    fn event_auth<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>>;

    /// `GET /backfill/{roomId}`
    fn backfill<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        from: Vec<OwnedEventId>,
        limit: u32,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>>;

    /// `GET /make_join/{roomId}/{userId}`
    fn make_join<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
        versions: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>>;

    /// `PUT /send_join/{roomId}/{eventId}`, with `omit_members`
    fn send_join<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<JoinAnswer, Unanswered>>;

    /// `GET /query/directory`: the room that an alias leads to, and servers that are in it.
    fn alias<'a>(
        &'a self,
        server: &'a ServerName,
        alias: &'a RoomAliasId,
    ) -> Answer<'a, Result<(OwnedRoomId, Vec<OwnedServerName>), Unanswered>> {
        let _ = alias;
        not_asked(server)
    }

    /// `GET /make_leave/{roomId}/{userId}`
    fn make_leave<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
    ) -> Answer<'a, Result<Template, Unanswered>> {
        let _ = (room_id, user);
        not_asked(server)
    }

    /// `PUT /send_leave/{roomId}/{eventId}`
    fn send_leave<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<(), Unanswered>> {
        let _ = (room_id, event_id, event);
        not_asked(server)
    }

    /// `GET /make_knock/{roomId}/{userId}`
    fn make_knock<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        user: &'a UserId,
        versions: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>> {
        let _ = (room_id, user, versions);
        not_asked(server)
    }

    /// `PUT /send_knock/{roomId}/{eventId}`: what is told of the room.
    fn send_knock<'a>(
        &'a self,
        server: &'a ServerName,
        room_id: &'a RoomId,
        event_id: &'a EventId,
        event: String,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        let _ = (room_id, event_id, event);
        not_asked(server)
    }

    /// `POST /_matrix/policy/v1/sign`: the policy server's signature of an event, as JSON: by server and key. The one server that
    /// may be ourselves: what serves this need not be what serves the rest. It is asked also if it failed lately.
    fn policy_signature<'a>(&'a self, server: &'a ServerName, event: String) -> Answer<'a, Result<String, Unanswered>> {
        let _ = event;
        not_asked(server)
    }

    /// `PUT /invite/{roomId}/{eventId}`: the invite with the signature of the server asked.
    fn invite<'a>(
        &'a self,
        server: &'a ServerName,
        invitation: &'a Invitation,
    ) -> Answer<'a, Result<String, Unanswered>> {
        let _ = invitation;
        not_asked(server)
    }
}
