//! Nobody says the same twice: a second annotation of one user, of one type and key, at one event.
//!
//! Only what our own users send is held back; other servers decide for theirs.
//! Spec: client-server API, "Avoiding duplicate annotations".

use hearth_matrix::ruma::{CanonicalJsonObject, EventId, OwnedEventId, UserId};
use hearth_matrix::{Draft, Pdu};
use hearth_store::StoreError;

use crate::append::Appender;

/// Whether the sender annotated the same event with the same before, and did not redact it.
pub(crate) fn is_duplicate(
    appender: &mut Appender<'_, '_>,
    sender: &UserId,
    draft: &Draft,
) -> Result<bool, StoreError> {
    let Some((parent, key)) = annotation(&draft.content) else { return Ok(false) };
    let same = |pdu: &Pdu| {
        let content = serde_json::from_str::<CanonicalJsonObject>(pdu.content.get()).unwrap_or_default();
        annotation(&content).is_some_and(|other| other == (parent.clone(), key))
    };
    let waiting = appender.pending_pdus().filter(|pdu| *pdu.kind == *draft.kind && *pdu.sender == *sender).any(same);
    if waiting {
        return Ok(true);
    }
    let room = appender.room.clone();
    let events = [appender.tx.string_num(sender.as_str())?, appender.tx.string_num(&draft.kind)?];
    let ([Some(sender), Some(kind)], Some(rel)) = (events, appender.tx.string_num("m.annotation")?) else {
        return Ok(false);
    };
    let Some(parent) = appender.tx.events().num(&room, &parent)? else { return Ok(false) };
    let known = appender.tx.events().relations_of(room.num, parent, rel, sender, kind)?;
    Ok(appender.tx.events().pdus(&room, &known)?.iter().any(|pdu| same(pdu)))
}

/// The event and the key of an annotation.
fn annotation(content: &CanonicalJsonObject) -> Option<(OwnedEventId, &str)> {
    let relation = content.get("m.relates_to")?.as_object()?;
    if relation.get("rel_type")?.as_str()? != "m.annotation" {
        return None;
    }
    let event_id = <&EventId>::try_from(relation.get("event_id")?.as_str()?).ok()?;
    Some((event_id.to_owned(), relation.get("key")?.as_str()?))
}
