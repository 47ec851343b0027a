//! The content of member events, with the user's profile in it.

use hearth_matrix::ruma::{CanonicalJsonObject, CanonicalJsonValue, UserId};
use hearth_store::{StoreError, Tx};

/// `{"membership": …}`, with a reason.
pub(crate) fn bare(membership: &str, reason: Option<&str>) -> CanonicalJsonObject {
    let mut content = CanonicalJsonObject::new();
    content.insert("membership".into(), CanonicalJsonValue::String(membership.into()));
    if let Some(reason) = reason {
        content.insert("reason".into(), CanonicalJsonValue::String(reason.into()));
    }
    content
}

/// The same with the display name and the avatar of a local user.
pub(crate) fn with_profile(
    tx: &mut Tx<'_>,
    membership: &str,
    user: &UserId,
    reason: Option<&str>,
) -> Result<CanonicalJsonObject, StoreError> {
    let mut content = bare(membership, reason);
    add_profile(tx, &mut content, user)?;
    Ok(content)
}

/// Puts the display name and the avatar of a local user into a content that lacks them.
pub(crate) fn add_profile(tx: &mut Tx<'_>, content: &mut CanonicalJsonObject, user: &UserId) -> Result<(), StoreError> {
    let Some(num) = tx.string_num(user.as_str())? else { return Ok(()) };
    for field in ["displayname", "avatar_url"] {
        if content.contains_key(field) {
            continue;
        }
        let value = tx.profiles().field(num, field)?;
        let value = value.and_then(|json| serde_json::from_str::<CanonicalJsonValue>(&json).ok());
        if let Some(value @ CanonicalJsonValue::String(_)) = value {
            content.insert(field.into(), value);
        }
    }
    Ok(())
}
