//! Account data, global and per room.
//!
//! Spec: client-server API, "Client Config". Some types belong to the server and have endpoints of their own.

use hearth_matrix::ruma::{RoomId, UserId};
use hearth_store::{Noun, RoomNum, StoreError, Tx, UserNum};
use serde_json::{Map, Value};

use crate::{Users, push_rules};

/// Longest event type.
const TYPE_SIZE_BYTES: usize = 255;

/// Largest content of one piece.
const CONTENT_SIZE_BYTES: usize = 512 * 1024;
/// Most pieces of a user, in all rooms together.
const MOST: i64 = 50_000;

/// Why account data can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum AccountDataError {
    /// The server alone writes this type.
    #[error("account data of this type can't be set through this endpoint")]
    ServerControlled,
    /// The type is too long.
    #[error("the type is longer than 255 bytes")]
    TypeTooLong,
    /// The content is too large.
    #[error("the content is larger than 512 KiB")]
    TooLarge,
    /// The user has too many pieces already.
    #[error("this account has as much account data as it may")]
    TooMany,
    /// Nothing of that type, or no such room for this user.
    #[error("no such account data")]
    NotFound,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Users {
    /// The content of one piece of account data. Push rules are always there.
    pub async fn account_data(
        &self,
        user: UserNum,
        user_id: &UserId,
        room_id: Option<&RoomId>,
        kind: &str,
    ) -> Result<Value, AccountDataError> {
        let (user_id, room_id, kind) = (user_id.to_owned(), room_id.map(ToOwned::to_owned), kind.to_owned());
        let content = self
            .store
            .read(move |tx| {
                if room_id.is_none() && kind == push_rules::ACCOUNT_DATA_TYPE {
                    return Ok(Some(push_rules::content_of(tx, user, &user_id)?));
                }
                let Some(room) = scope(tx, user, room_id.as_deref())? else { return Ok(None) };
                tx.account_data().get(user, room, &kind)
            })
            .await?;
        let content = content.ok_or(AccountDataError::NotFound)?;
        serde_json::from_str(&content).map_err(|error| StoreError::Damaged(format!("account data: {error}")).into())
    }

    /// Writes a piece of account data.
    pub async fn set_account_data(
        &self,
        user: UserNum,
        room_id: Option<&RoomId>,
        kind: &str,
        content: &Map<String, Value>,
    ) -> Result<(), AccountDataError> {
        if matches!(kind, "m.fully_read" | push_rules::ACCOUNT_DATA_TYPE) {
            return Err(AccountDataError::ServerControlled);
        }
        if kind.len() > TYPE_SIZE_BYTES {
            return Err(AccountDataError::TypeTooLong);
        }
        let content = to_json(content);
        if content.len() > CONTENT_SIZE_BYTES {
            return Err(AccountDataError::TooLarge);
        }
        let (room_id, kind) = (room_id.map(ToOwned::to_owned), kind.to_owned());
        let written = self.store.write(vec![Noun::User(user)], move |tx| {
            let Some(room) = scope(tx, user, room_id.as_deref())? else { return Ok(Err(AccountDataError::NotFound)) };
            let known = tx.account_data().get(user, room, &kind)?;
            if known.is_none() && tx.account_data().count(user)? >= MOST {
                return Ok(Err(AccountDataError::TooMany));
            }
            // A client that repeats itself wakes nobody.
            if known.as_deref() != Some(&content) {
                tx.account_data().set(user, room, &kind, &content)?;
            }
            Ok(Ok(()))
        });
        written.await?
    }
}

/// The room's number, `Some(None)` for global data; `None` if the user never had to do with such a room.
pub(crate) fn scope(
    tx: &mut Tx<'_>,
    user: UserNum,
    room_id: Option<&RoomId>,
) -> Result<Option<Option<RoomNum>>, StoreError> {
    match room_id {
        None => Ok(Some(None)),
        Some(room_id) => Ok(tx.account_data().room_of(user, room_id.as_str())?.map(Some)),
    }
}

pub(crate) fn to_json(content: &Map<String, Value>) -> String {
    // A map of JSON values has nothing that could fail.
    serde_json::to_string(content).unwrap_or_else(|_| "{}".to_owned())
}
