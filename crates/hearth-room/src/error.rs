//! The ways in which something about a room can be refused.

use hearth_matrix::auth::AuthRefusal;
use hearth_matrix::ruma::{OwnedServerName, OwnedUserId, RoomVersionId, ServerName};
use hearth_matrix::{DraftError, SealError};
use hearth_store::StoreError;

use crate::{Refusal, Unanswered};

/// Why something about a room was not done. Nothing of it remains.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RoomError {
    /// The room is not there, or not for this asker.
    #[error("unknown room")]
    UnknownRoom,
    /// The thing in the room is not there, or not for this asker.
    #[error("{0}")]
    NotFound(&'static str),
    /// The rules of the room refuse it.
    #[error("{0}")]
    Forbidden(String),
    /// A restricted room whose conditions the user meets, but no member of ours may let him in.
    #[error("no member of this server may let the user in")]
    UnableToGrantJoin,
    /// A restricted room of which this server can't know whether the user meets its conditions.
    #[error("this server can't tell whether the user may join")]
    UnableToAuthoriseJoin,
    /// The user lets nobody invite him.
    #[error("{0} does not accept invites")]
    InviteBlocked(OwnedUserId),
    /// Guests may not enter.
    #[error("guests may not enter this room")]
    GuestsForbidden,
    /// The event would be too large.
    #[error("the event is larger than 65536 bytes")]
    TooLarge,
    /// The event's type, key or content can be no event.
    #[error("{0}")]
    BadEvent(String),
    /// The sender said the same about the same event before.
    #[error("you have annotated this event in this way already")]
    DuplicateAnnotation,
    /// A canonical alias that doesn't point to the room.
    #[error("{0}")]
    BadAlias(String),
    /// The alias points to a room already.
    #[error("the alias {0} is taken")]
    AliasInUse(String),
    /// A room can only be forgotten by who is not in it.
    #[error("{0} is still in the room")]
    StillInRoom(String),
    /// A request that makes no sense.
    #[error("{0}")]
    InvalidParam(String),
    /// The room version is not one of ours.
    #[error("room version {0} is not supported")]
    UnsupportedVersion(RoomVersionId),
    /// The initial state of a new room contradicts itself or the rules.
    #[error("{0}")]
    InvalidRoomState(String),
    /// It takes another server, and this one doesn't talk to others.
    #[error("{0} is on another server, and this server does not federate")]
    Remote(String),
    /// Another server that had to be asked refused.
    #[error("{server}: {refusal}")]
    RefusedBy {
        /// Which.
        server: OwnedServerName,
        /// What it said.
        refusal: Refusal,
    },
    /// The room's policy server does not sign the event.
    #[error("{refusal}")]
    NotSigned {
        /// The policy server.
        server: OwnedServerName,
        /// What it said.
        refusal: Refusal,
    },
    /// No server that had to be asked could be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The store failed.
    #[error("store: {0}")]
    Store(String),
}

impl RoomError {
    /// Another server did not do what it had to.
    pub(crate) fn by(server: &ServerName, error: Unanswered) -> Self {
        match error {
            Unanswered::Refused(refusal) => Self::RefusedBy { server: server.to_owned(), refusal },
            Unanswered::Unreachable(why) => Self::Unreachable(format!("{server} can't be reached: {why}")),
        }
    }

    /// What somebody hears who wants something in a room: one that is not there is like one that he is not in.
    pub(crate) fn unless_known(self) -> Self {
        match self {
            Self::UnknownRoom => Self::Forbidden("You are not in the room".into()),
            other => other,
        }
    }
}

impl From<StoreError> for RoomError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.to_string())
    }
}

impl From<AuthRefusal> for RoomError {
    fn from(refusal: AuthRefusal) -> Self {
        Self::Forbidden(refusal.0)
    }
}

impl From<DraftError> for RoomError {
    fn from(error: DraftError) -> Self {
        match error {
            DraftError::TooLarge => Self::TooLarge,
            other => Self::BadEvent(other.to_string()),
        }
    }
}

impl From<SealError> for RoomError {
    fn from(error: SealError) -> Self {
        match error {
            SealError::TooLarge => Self::TooLarge,
            other => Self::BadEvent(other.to_string()),
        }
    }
}
