//! A user's membership in a room.
//!
//! Spec: client-server API, "Room membership".

use crate::Pdu;

/// What a user is to a room. Without a member event: [`Membership::Leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Membership {
    /// In the room.
    Join,
    /// Asked to come in.
    Invite,
    /// Gone, or never there.
    #[default]
    Leave,
    /// Kept out.
    Ban,
    /// Asking to come in.
    Knock,
    /// Something that no rule knows.
    Unknown,
}

impl Membership {
    /// The membership of this name.
    pub fn parse(name: &str) -> Self {
        match name {
            "join" => Self::Join,
            "invite" => Self::Invite,
            "leave" => Self::Leave,
            "ban" => Self::Ban,
            "knock" => Self::Knock,
            _ => Self::Unknown,
        }
    }

    /// The name in the specification; that of [`Membership::Unknown`] is empty.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Join => "join",
            Self::Invite => "invite",
            Self::Leave => "leave",
            Self::Ban => "ban",
            Self::Knock => "knock",
            Self::Unknown => "",
        }
    }

    /// What a member event makes of its target.
    pub fn of(event: &Pdu) -> Self {
        event.membership().map_or(Self::Unknown, Self::parse)
    }
}
