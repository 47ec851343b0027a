//! The nouns that the store remembers, a file each.

mod account_data;
mod accounts;
mod backlogs;
mod blobs;
mod deliveries;
mod destinations;
mod events;
mod filters;
mod graph;
mod identity;
mod media;
mod members;
mod notifications;
mod partials;
mod presence;
mod previews;
mod profiles;
mod push_profiles;
mod receipts;
mod reports;
mod rooms;
mod server_keys;
mod staged;
mod state;

pub use account_data::AccountDataEvent;
pub use accounts::{
    Account, Device, Interactive, IssuedTokens, LockState, NewAccount, RefreshToken, RegistrationToken, Session,
    TokenHash, UserKind,
};
pub use backlogs::Backlog;
pub use blobs::{Blob, BlobClaim, Blobs, Collected, Thumbnail, ThumbnailKind};
pub use deliveries::{Delivered, Deliveries, OutboundReceipt, ServerStay, UnderWay};
pub use destinations::{Destination, Destinations};
pub use events::{DecidedMember, EventRow, Events, MemberChange, NewEvent, RoomPlace, Standing, Visibility};
pub use graph::{KeptEvent, OpenGap};
pub use media::{Media, MediaFile, MediaPage, MediaPlace, MediaTable, NewMedia, Usage};
pub use members::{MemberElsewhere, Members, Membership, MembershipRow, TakenMember, ToldBy};
pub use notifications::{EventPush, Notification, Notifications, ReadUpto, RoomNote, Told, UnreadRow};
pub use partials::{PartialRoom, Partials};
pub use previews::Previews;
pub use receipts::{Receipt, Receipts};
pub use reports::Report;
pub use rooms::{PublishedRoom, RoomHead, RoomNouns, RoomRecord, Tip};
pub use server_keys::{KeyDocument, OwnKey, ServerKey, ServerKeys};
pub use staged::{StagedEvent, StagedNum};
pub use state::{Garbage, State, StateChange, StateDifference, StateEntry, StateKey};

pub(crate) use push_profiles::Listeners;
pub(crate) use state::Node;
