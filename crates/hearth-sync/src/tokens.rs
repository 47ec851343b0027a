//! Tokens that clients hand back: opaque to them, versioned, and naming their kind.
//!
//! `s1_POSITION_START_TYPING_PRESENCE` is a place on the clock (and in the typing notices and presence of one start of one
//! node), given by `/sync`.
//! `t1_ORDER_NUM` is a place in room order, given by `/messages` and `/context`; `t1_ORDER_NUM_POSITION`, given as `prev_batch`,
//! leaves out what came after that position: the client has it.

use std::fmt;
use std::str::FromStr;

use hearth_store::{EventNum, Position, RoomNum, RoomPlace, StoreError, Tx};

/// The text is no token of the kind that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is no token that this server gave")]
pub struct BadToken;

/// Where a client stands that syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncToken {
    /// Everything at or before it was sent.
    pub position: Position,
    /// The start of the node that counted typing notices and presence.
    pub start: i64,
    /// The typing notices at or before it were sent, if `start` is this node's.
    pub typing: i64,
    /// So was presence.
    pub presence: i64,
}

impl fmt::Display for SyncToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "s1_{}_{}_{}_{}", self.position.0, self.start, self.typing, self.presence)
    }
}

impl FromStr for SyncToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let mut parts = text.strip_prefix("s1_").ok_or(BadToken)?.split('_');
        let token = Self {
            position: Position(number(parts.next())?),
            start: number(parts.next())?,
            typing: number(parts.next())?,
            presence: number(parts.next())?,
        };
        (parts.next().is_none() && token.position.0 >= 0).then_some(token).ok_or(BadToken)
    }
}

/// Where a client stands that pages through a room. A sync token will do, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageToken {
    /// A place in room order.
    Place(RoomPlace),
    /// A place in room order, for who has seen all that came after a position.
    Before(RoomPlace, Position),
    /// What a client had seen that synced.
    Sync(SyncToken),
}

impl PageToken {
    /// The place in a room that it means.
    pub fn place(self, tx: &mut Tx<'_>, room: RoomNum) -> Result<RoomPlace, StoreError> {
        match self {
            Self::Place(place) | Self::Before(place, _) => Ok(place),
            Self::Sync(token) => tx.events().place_at(room, token.position),
        }
    }
}

impl PageToken {
    /// Who pages back from it has seen what came after this position.
    pub(crate) fn upto(self) -> Option<Position> {
        match self {
            Self::Place(_) => None,
            Self::Before(_, upto) => Some(upto),
            Self::Sync(token) => Some(token.position),
        }
    }

    /// A place at which somebody has read back to who began at a token.
    pub(crate) fn at(place: RoomPlace, upto: Option<Position>) -> Self {
        upto.map_or(Self::Place(place), |upto| Self::Before(place, upto))
    }
}

impl fmt::Display for PageToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Place(place) => write!(f, "t1_{}_{}", place.room_order, place.num.0),
            Self::Before(place, upto) => write!(f, "t1_{}_{}_{}", place.room_order, place.num.0, upto.0),
            Self::Sync(token) => token.fmt(f),
        }
    }
}

impl From<RoomPlace> for PageToken {
    fn from(place: RoomPlace) -> Self {
        Self::Place(place)
    }
}

impl FromStr for PageToken {
    type Err = BadToken;

    fn from_str(text: &str) -> Result<Self, BadToken> {
        let Some(rest) = text.strip_prefix("t1_") else {
            return text.parse().map(Self::Sync);
        };
        let mut parts = rest.split('_');
        let place = RoomPlace { room_order: number(parts.next())?, num: EventNum(number(parts.next())?) };
        let upto = match parts.next() {
            Some(upto) => Some(Position(number(Some(upto))?)),
            None => None,
        };
        parts.next().is_none().then_some(Self::at(place, upto)).ok_or(BadToken)
    }
}

fn number(part: Option<&str>) -> Result<i64, BadToken> {
    part.and_then(|part| part.parse().ok()).ok_or(BadToken)
}

#[cfg(test)]
mod tests {
    use hearth_store::{EventNum, Position, RoomPlace};

    use super::{BadToken, PageToken, SyncToken};

    #[test]
    fn tokens_survive_the_client() {
        let sync = SyncToken { position: Position(57), start: 1_700_000_000_000, typing: 3, presence: 4 };
        assert_eq!(sync.to_string().parse(), Ok(sync));
        assert_eq!(sync.to_string().parse(), Ok(PageToken::Sync(sync)));
        for place in [RoomPlace::START, RoomPlace::END, RoomPlace { room_order: -4, num: EventNum(12) }] {
            assert_eq!(PageToken::from(place).to_string().parse(), Ok(PageToken::Place(place)));
            let before = PageToken::Before(place, Position(57));
            assert_eq!(before.to_string().parse(), Ok(before));
        }
    }

    #[test]
    fn what_is_no_token_is_refused() {
        for text in [
            "",
            "s1",
            "s1_",
            "s1_1_2",
            "s1_1_2_3",
            "s1_1_2_3_4_5",
            "s1_x_2_3_4",
            "s1_-1_2_3_4",
            "s2_1_2_3_4",
            "t1_1_2",
            "57",
        ] {
            assert_eq!(text.parse::<SyncToken>(), Err(BadToken), "{text}");
        }
        for text in ["", "t1_", "t1_1", "t1_1_2_3_4", "t1_1_2_x", "t1_1_x", "t2_1_2", "s1_1"] {
            assert_eq!(text.parse::<PageToken>(), Err(BadToken), "{text}");
        }
    }
}
