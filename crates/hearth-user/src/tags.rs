//! Room tags: room account data of type `m.tag`.
//!
//! Spec: client-server API, "Room Tagging".

use hearth_matrix::ruma::RoomId;
use hearth_store::{Noun, StoreError, UserNum};
use serde_json::{Map, Value};

use crate::Users;
use crate::account_data::{scope, to_json};

const ACCOUNT_DATA_TYPE: &str = "m.tag";
/// Longest tag.
const TAG_SIZE_BYTES: usize = 255;
/// A room has at most so many tags.
const MOST: usize = 1000;

/// Why tags can't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum TagError {
    /// No such room for this user.
    #[error("unknown room")]
    UnknownRoom,
    /// The tag is longer than 255 bytes, or there are too many.
    #[error("too long a tag, or too many of them")]
    TooLarge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Users {
    /// All tags of a room, with their contents.
    pub async fn tags(&self, user: UserNum, room_id: &RoomId) -> Result<Map<String, Value>, TagError> {
        let room_id = room_id.to_owned();
        let content = self
            .store
            .read(move |tx| match scope(tx, user, Some(&room_id))? {
                Some(room) => tx.account_data().get(user, room, ACCOUNT_DATA_TYPE).map(Some),
                None => Ok(None),
            })
            .await?;
        Ok(parse(content.ok_or(TagError::UnknownRoom)?.as_deref()))
    }

    /// Adds a tag to a room, or changes its content.
    pub async fn set_tag(
        &self,
        user: UserNum,
        room_id: &RoomId,
        tag: &str,
        content: Map<String, Value>,
    ) -> Result<(), TagError> {
        if tag.len() > TAG_SIZE_BYTES {
            return Err(TagError::TooLarge);
        }
        self.change_tags(user, room_id, tag, Some(content)).await
    }

    /// Takes a tag from a room.
    pub async fn remove_tag(&self, user: UserNum, room_id: &RoomId, tag: &str) -> Result<(), TagError> {
        self.change_tags(user, room_id, tag, None).await
    }

    async fn change_tags(
        &self,
        user: UserNum,
        room_id: &RoomId,
        tag: &str,
        content: Option<Map<String, Value>>,
    ) -> Result<(), TagError> {
        let (room_id, tag) = (room_id.to_owned(), tag.to_owned());
        self.store
            .write(vec![Noun::User(user)], move |tx| {
                let Some(room) = scope(tx, user, Some(&room_id))? else { return Ok(Err(TagError::UnknownRoom)) };
                let known = tx.account_data().get(user, room, ACCOUNT_DATA_TYPE)?;
                let mut tags = parse(known.as_deref());
                let before = match &content {
                    Some(content) => tags.insert(tag.clone(), Value::Object(content.clone())),
                    None => tags.remove(&tag),
                };
                if tags.len() > MOST {
                    return Ok(Err(TagError::TooLarge));
                }
                if before.as_ref().and_then(Value::as_object) != content.as_ref() {
                    let whole = Map::from_iter([("tags".to_owned(), Value::Object(tags))]);
                    tx.account_data().set(user, room, ACCOUNT_DATA_TYPE, &to_json(&whole))?;
                }
                Ok(Ok(()))
            })
            .await?
    }
}

/// The tags in an `m.tag` event. Clients may have written anything there: what is no tag is none.
fn parse(content: Option<&str>) -> Map<String, Value> {
    let content = content.and_then(|content| serde_json::from_str::<Map<String, Value>>(content).ok());
    match content.and_then(|mut content| content.remove("tags")) {
        Some(Value::Object(tags)) => tags,
        _ => Map::new(),
    }
}
