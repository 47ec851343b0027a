//! History visibility: may this user, may that server see an event?
//!
//! Pure: the caller knows the visibility and the memberships at the event and what came later.
//! Forgotten rooms, ignored senders and erased users are not this module's.
//! Spec: client-server API, "Room History Visibility"; server-server API, "Backfilling".

use serde::Deserialize;

use crate::{Membership, Pdu};

/// Who may see events sent while this was set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum HistoryVisibility {
    /// Everybody.
    WorldReadable,
    /// Members, also those who join later.
    #[default]
    Shared,
    /// Who was invited or joined when it was sent.
    Invited,
    /// Who was joined when it was sent.
    Joined,
}

impl HistoryVisibility {
    /// The visibility of this name; `shared` if there is none of it.
    pub fn parse(name: &str) -> Self {
        match name {
            "world_readable" => Self::WorldReadable,
            "invited" => Self::Invited,
            "joined" => Self::Joined,
            _ => Self::Shared,
        }
    }

    /// The name in the specification.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WorldReadable => "world_readable",
            Self::Shared => "shared",
            Self::Invited => "invited",
            Self::Joined => "joined",
        }
    }

    /// What an `m.room.history_visibility` event sets, or its absence.
    pub fn of(event: Option<&Pdu>) -> Self {
        #[derive(Deserialize)]
        struct Content<'a> {
            #[serde(borrow)]
            history_visibility: std::borrow::Cow<'a, str>,
        }
        let content = event.and_then(|event| serde_json::from_str::<Content<'_>>(event.content.get()).ok());
        content.map_or(Self::default(), |content| Self::parse(&content.history_visibility))
    }
}

/// An event as seen by one user.
#[derive(Debug, Clone, Copy, Default)]
pub struct UserView {
    /// The visibility in the state before the event.
    pub visibility: HistoryVisibility,
    /// If the event sets the visibility: to what.
    pub visibility_after: Option<HistoryVisibility>,
    /// The user's membership in the state before the event.
    pub membership: Membership,
    /// If the event is the user's own member event: what it makes of him.
    pub membership_after: Option<Membership>,
    /// Whether the user joined at any time after the event was sent.
    pub joined_since: bool,
}

/// Whether a user may see an event.
pub fn user_may_see(view: &UserView) -> bool {
    let allows = |visibility: HistoryVisibility| {
        let by_membership = |membership: Membership| match (visibility, membership) {
            (HistoryVisibility::WorldReadable, _) | (_, Membership::Join) => true,
            (HistoryVisibility::Invited, Membership::Invite) => true,
            (HistoryVisibility::Shared, _) => view.joined_since,
            _ => false,
        };
        by_membership(view.membership) || view.membership_after.is_some_and(by_membership)
    };
    allows(view.visibility) || view.visibility_after.is_some_and(allows)
}

/// An event as seen by another server.
#[derive(Debug, Clone, Copy, Default)]
pub struct ServerView {
    /// The visibility in the state before the event.
    pub visibility: HistoryVisibility,
    /// If the event sets the visibility: to what.
    pub visibility_after: Option<HistoryVisibility>,
    /// Whether a user of that server was joined, before or after the event.
    pub has_joined: bool,
    /// Whether a user of that server was invited, before or after the event.
    pub has_invited: bool,
}

/// Whether a server that is in the room may have an event. What it may not have it can get redacted.
pub fn server_may_see(view: &ServerView) -> bool {
    let allows = |visibility| match visibility {
        HistoryVisibility::WorldReadable | HistoryVisibility::Shared => true,
        HistoryVisibility::Invited => view.has_joined || view.has_invited,
        HistoryVisibility::Joined => view.has_joined,
    };
    allows(view.visibility) || view.visibility_after.is_some_and(allows)
}

#[cfg(test)]
mod tests;
