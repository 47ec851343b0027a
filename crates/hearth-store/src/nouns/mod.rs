//! The nouns that the store remembers, a file each.

mod account_data;
mod accounts;
mod events;
mod filters;
mod members;
mod profiles;
mod receipts;
mod rooms;
mod state;

pub use account_data::AccountDataEvent;
pub use accounts::{
    Account, Device, Interactive, IssuedTokens, LockState, NewAccount, RefreshToken, RegistrationToken, Session,
    TokenHash, UserKind,
};
pub use members::Membership;
