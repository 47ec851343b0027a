//! Profiles: display name, avatar, time zone and free fields.
//!
//! Spec: client-server API, "Profiles". Fields are JSON values; a whole profile stays under 64 KiB.

use hearth_matrix::ruma::UserId;
use hearth_store::{Noun, StoreError, Tx, UserNum};
use serde_json::{Map, Value};

use crate::Users;

/// A profile takes less than so many bytes as JSON.
const PROFILE_SIZE_BYTES: usize = 64 * 1024;
/// Longest name of a field.
const KEY_SIZE_BYTES: usize = 255;
/// Longest display name, in characters. It goes into every member event.
const DISPLAYNAME_CHARS: usize = 256;
/// Longest avatar address.
const AVATAR_URL_BYTES: usize = 1000;

/// Why a profile can't be shown.
#[derive(Debug, thiserror::Error)]
pub enum GetProfileError {
    /// No such user here, or no such field.
    #[error("no such profile")]
    NotFound,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a profile can't be changed that way.
#[derive(Debug, thiserror::Error)]
pub enum SetProfileError {
    /// The field's name is no name for a field.
    #[error("invalid profile key")]
    InvalidKey,
    /// The field's name is too long.
    #[error("the profile key is longer than 255 bytes")]
    KeyTooLarge,
    /// The value does not fit the field.
    #[error("{0}")]
    InvalidValue(&'static str),
    /// The profile would grow beyond 64 KiB.
    #[error("the profile would exceed 64 KiB")]
    ProfileTooLarge,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Users {
    /// The whole profile of a local user.
    pub async fn profile(&self, user_id: &UserId) -> Result<Map<String, Value>, GetProfileError> {
        let user_id = user_id.to_owned();
        let fields = self
            .store
            .read(move |tx| match tx.accounts().by_id(user_id.as_str())? {
                Some(account) if !account.state.deactivated => profile_of(tx, account.user).map(Some),
                _ => Ok(None),
            })
            .await?;
        fields.ok_or(GetProfileError::NotFound)
    }

    /// One field of a local user's profile.
    pub async fn profile_field(&self, user_id: &UserId, field: &str) -> Result<Value, GetProfileError> {
        let (user_id, field) = (user_id.to_owned(), field.to_owned());
        let value = self
            .store
            .read(move |tx| match tx.accounts().by_id(user_id.as_str())? {
                Some(account) if !account.state.deactivated => tx.profiles().field(account.user, &field),
                _ => Ok(None),
            })
            .await?;
        value.map_or(Err(GetProfileError::NotFound), |value| Ok(parse(&value)?))
    }

    /// Sets a field. An empty display name or avatar removes it. `false` if nothing changed.
    pub async fn set_profile_field(&self, user: UserNum, field: &str, value: Value) -> Result<bool, SetProfileError> {
        check_key(field)?;
        if is_shown_in_rooms(field) && value.as_str() == Some("") {
            return self.remove_profile_field(user, field).await;
        }
        check_value(field, &value)?;
        let (field, value) = (field.to_owned(), value.to_string());
        let outcome = self
            .store
            .write(vec![Noun::User(user)], move |tx| {
                let fields = tx.profiles().all(user)?;
                if fields.iter().any(|(name, known)| *name == field && *known == value) {
                    return Ok(Some(false));
                }
                let others = fields.iter().filter(|(name, _)| *name != field);
                let size: usize = others.map(|(name, value)| entry_size(name, value)).sum();
                if 2 + size + entry_size(&field, &value) > PROFILE_SIZE_BYTES {
                    return Ok(None);
                }
                tx.profiles().set(user, &field, &value)?;
                if is_shown_in_rooms(&field) {
                    tx.profiles().set_unshown(user)?;
                }
                Ok(Some(true))
            })
            .await?;
        outcome.ok_or(SetProfileError::ProfileTooLarge)
    }

    /// Removes a field, if it is there. `false` if it was not.
    pub async fn remove_profile_field(&self, user: UserNum, field: &str) -> Result<bool, SetProfileError> {
        check_key(field)?;
        let field = field.to_owned();
        let removed = self.store.write(vec![Noun::User(user)], move |tx| {
            if tx.profiles().field(user, &field)?.is_none() {
                return Ok(false);
            }
            tx.profiles().remove(user, &field)?;
            if is_shown_in_rooms(&field) {
                tx.profiles().set_unshown(user)?;
            }
            Ok(true)
        });
        Ok(removed.await?)
    }
}

/// A local user's profile as a JSON object.
pub fn profile_of(tx: &mut Tx<'_>, user: UserNum) -> Result<Map<String, Value>, StoreError> {
    tx.profiles().all(user)?.into_iter().map(|(field, value)| Ok((field, parse(&value)?))).collect()
}

/// Whether a field is part of the user's memberships of rooms, which must follow when it changes.
pub fn is_shown_in_rooms(field: &str) -> bool {
    matches!(field, "displayname" | "avatar_url")
}

fn parse(value: &str) -> Result<Value, StoreError> {
    serde_json::from_str(value).map_err(|error| StoreError::Damaged(format!("profile field: {error}")))
}

/// `"name":value,` without escapes in the name, which its grammar excludes.
fn entry_size(name: &str, value: &str) -> usize {
    name.len() + value.len() + 4
}

/// The common namespaced identifier grammar; the fields of the specification fit it or are named.
fn check_key(field: &str) -> Result<(), SetProfileError> {
    if field.len() > KEY_SIZE_BYTES {
        return Err(SetProfileError::KeyTooLarge);
    }
    let starts_well = field.starts_with(|first: char| first.is_ascii_lowercase());
    let is_well = field.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_.".contains(&b));
    (starts_well && is_well).then_some(()).ok_or(SetProfileError::InvalidKey)
}

fn check_value(field: &str, value: &Value) -> Result<(), SetProfileError> {
    let refuse = |reason| Err(SetProfileError::InvalidValue(reason));
    match (field, value.as_str()) {
        ("displayname", None) => refuse("displayname must be a string"),
        ("displayname", Some(name)) if name.chars().count() > DISPLAYNAME_CHARS => {
            refuse("displayname is longer than 256 characters")
        }
        ("avatar_url", None) => refuse("avatar_url must be a string"),
        ("avatar_url", Some(url)) if url.len() > AVATAR_URL_BYTES => refuse("avatar_url is longer than 1000 bytes"),
        ("m.tz", None) => refuse("m.tz must be a string"),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{SetProfileError, check_key, check_value};

    #[test]
    fn keys_follow_the_grammar() {
        for good in ["displayname", "avatar_url", "m.tz", "org.example.field", "us.cloke.msc4175.tz", "a-b_c.1"] {
            assert!(check_key(good).is_ok(), "{good}");
        }
        for bad in ["", "Upper", "1st", ".dot", "sp ace", "ü", "a/b"] {
            assert!(matches!(check_key(bad), Err(SetProfileError::InvalidKey)), "{bad}");
        }
        assert!(check_key(&"a".repeat(255)).is_ok());
        assert!(matches!(check_key(&"a".repeat(256)), Err(SetProfileError::KeyTooLarge)));
    }

    #[test]
    fn values_of_known_fields_have_a_type() {
        assert!(check_value("displayname", &json!("Alice")).is_ok());
        assert!(check_value("displayname", &json!(5)).is_err());
        assert!(check_value("displayname", &json!("x".repeat(257))).is_err());
        assert!(check_value("avatar_url", &json!("mxc://example.com/SEsf")).is_ok());
        assert!(check_value("avatar_url", &json!(5)).is_err());
        assert!(check_value("m.tz", &json!({})).is_err());
        assert!(check_value("org.example.any", &json!(null)).is_ok());
    }
}
