//! Who may do what: levels of users, and levels that actions take.
//!
//! Absent values have the defaults of the specification; the creators of a version 12 room stand
//! above every number.
//! Spec: client-server API, `m.room.power_levels`.

use std::{fmt, sync::Arc};

use ruma::UserId;

use crate::{
    Pdu, RoomVersionRules,
    auth::{Facts, Named, PowerFacts},
};

/// A user's power level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A number.
    Finite(i64),
    /// A creator of a version 12 room.
    Infinite,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Finite(level) => level.fmt(f),
            Self::Infinite => f.write_str("infinite"),
        }
    }
}

/// The power levels of a room. Cheap to make and to clone.
#[derive(Debug, Clone)]
pub struct PowerLevels {
    create: Option<Arc<Pdu>>,
    event: Option<Arc<Pdu>>,
    /// `explicitly_privilege_room_creators`
    creators_are_infinite: bool,
    /// `use_room_create_sender`
    sender_is_creator: bool,
}

impl PowerLevels {
    /// The levels in a state.
    pub fn of(state: impl Fn(&str, &str) -> Option<Arc<Pdu>>, rules: &RoomVersionRules) -> Self {
        Self::new(state("m.room.create", ""), state("m.room.power_levels", ""), rules)
    }

    /// The levels that follow from these two events.
    pub fn new(create: Option<Arc<Pdu>>, power_levels: Option<Arc<Pdu>>, rules: &RoomVersionRules) -> Self {
        Self {
            create,
            event: power_levels,
            creators_are_infinite: rules.authorization.explicitly_privilege_room_creators,
            sender_is_creator: rules.authorization.use_room_create_sender,
        }
    }

    fn facts(&self) -> Option<&PowerFacts> {
        match self.event.as_deref()?.facts() {
            Facts::PowerLevels(facts) => Some(facts),
            _ => None,
        }
    }

    fn named(&self, name: Named) -> Level {
        Level::Finite(self.facts().map_or(name.default_level(), |facts| facts.named(name)))
    }

    /// Whether this user is a creator: the one who made the room, and from version 12 on those named.
    pub fn is_creator(&self, user: &UserId) -> bool {
        let Some(create) = self.create.as_deref() else { return false };
        let Facts::Create(facts) = create.facts() else { return false };
        let made_it = match self.sender_is_creator {
            true => create.sender == user,
            false => facts.creator.as_deref() == Some(user.as_str()),
        };
        made_it
            || self.creators_are_infinite
                && facts.additional_creators.as_ref().is_some_and(|users| users.iter().any(|named| named == user))
    }

    /// The level of a user.
    pub fn user(&self, user: &UserId) -> Level {
        if self.creators_are_infinite && self.is_creator(user) {
            return Level::Infinite;
        }
        match self.facts() {
            Some(facts) => {
                let own = facts.users.levels.get(user.as_str()).copied();
                Level::Finite(own.unwrap_or(facts.named(Named::UsersDefault)))
            }
            None if self.is_creator(user) => Level::Finite(100),
            None => self.named(Named::UsersDefault),
        }
    }

    /// The level that a message event of this type takes.
    pub fn message(&self, kind: &str) -> Level {
        self.event(kind).unwrap_or_else(|| self.named(Named::EventsDefault))
    }

    /// The level that a state event of this type takes.
    pub fn state(&self, kind: &str) -> Level {
        self.event(kind).unwrap_or_else(|| self.named(Named::StateDefault))
    }

    fn event(&self, kind: &str) -> Option<Level> {
        self.facts()?.events.levels.get(kind).map(|level| Level::Finite(*level))
    }

    /// The level of a user without one of his own.
    pub fn users_default(&self) -> Level {
        self.named(Named::UsersDefault)
    }

    /// The level that inviting takes.
    pub fn invite(&self) -> Level {
        self.named(Named::Invite)
    }

    /// The level that kicking takes.
    pub fn kick(&self) -> Level {
        self.named(Named::Kick)
    }

    /// The level that banning takes.
    pub fn ban(&self) -> Level {
        self.named(Named::Ban)
    }

    /// The level that redacting others' events takes.
    pub fn redact(&self) -> Level {
        self.named(Named::Redact)
    }

    /// The level that a notification of this kind takes (`room` for `@room`): 50 by default.
    pub fn notification(&self, key: &str) -> Level {
        Level::Finite(self.facts().and_then(|facts| facts.notifications.levels.get(key)).copied().unwrap_or(50))
    }

    /// Whether a redaction by this user may be applied to an event of that sender and server.
    /// From room version 3 on this is asked when the redaction arrives, not by the auth rules.
    ///
    /// Spec: room version 3, "Handling redactions".
    pub fn may_redact(&self, redactor: &UserId, sender: &UserId) -> bool {
        redactor.server_name() == sender.server_name() || self.user(redactor) >= self.redact()
    }
}

#[cfg(test)]
mod tests;
