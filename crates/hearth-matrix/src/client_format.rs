//! Writing events in client format, straight into the response.
//!
//! What only the caller knows (age, relations, the transaction id of the asking device) comes as
//! members of `unsigned` that are serialized already.
//! Spec: client-server API, "Room event format"; room version 11, "Redactions" (where `redacts` stands).

use ruma::UserId;

use crate::{
    MAX_ID_BYTES, Pdu, RoomVersionRules,
    canonical::{Object, write_display, write_string},
};

/// What goes around an event in client format.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClientFormat<'a> {
    /// Whether to name the room; `/sync` leaves it out.
    pub room_id: bool,
    /// Members of `unsigned`, without braces: `"age":5,"transaction_id":"m1"`. Nothing if empty.
    pub unsigned: &'a str,
    /// A content to write instead of the event's own: that of the redacted form.
    pub content: Option<&'a str>,
}

/// Appends an event in client format.
pub fn write_event(out: &mut String, pdu: &Pdu, rules: &RoomVersionRules, format: ClientFormat<'_>) {
    out.reserve(pdu.content.get().len() + format.unsigned.len() + 384);
    out.push_str("{\"content\":");
    write_content(out, format.content.unwrap_or(pdu.content.get()), redacts_for_content(pdu, rules, format));
    out.push_str(",\"event_id\":");
    write_string(out, pdu.event_id.as_str());
    out.push_str(",\"origin_server_ts\":");
    write_display(out, pdu.origin_server_ts);
    if (format.content.is_none() || rules.redaction.keep_room_redaction_redacts)
        && let Some(redacts) = &pdu.redacts
    {
        out.push_str(",\"redacts\":");
        write_string(out, redacts.as_str());
    }
    if format.room_id {
        out.push_str(",\"room_id\":");
        write_string(out, pdu.room_id.as_str());
    }
    out.push_str(",\"sender\":");
    write_string(out, pdu.sender.as_str());
    if let Some(state_key) = &pdu.state_key {
        out.push_str(",\"state_key\":");
        write_string(out, state_key);
    }
    out.push_str(",\"type\":");
    write_string(out, &pdu.kind);
    if !format.unsigned.is_empty() {
        out.push_str(",\"unsigned\":{");
        out.push_str(format.unsigned);
        out.push('}');
    }
    out.push('}');
}

/// Appends the stripped form, as in `invite_state`: content, sender, state key and type.
pub fn write_stripped(out: &mut String, pdu: &Pdu) {
    out.push_str("{\"content\":");
    out.push_str(pdu.content.get());
    out.push_str(",\"sender\":");
    write_string(out, pdu.sender.as_str());
    out.push_str(",\"state_key\":");
    write_string(out, pdu.state_key.as_deref().unwrap_or_default());
    out.push_str(",\"type\":");
    write_string(out, &pdu.kind);
    out.push('}');
}

/// Appends the stripped form of what another server told of a room: an event of whatever version, or stripped already. False,
/// and nothing is appended, if it is no state.
pub fn write_told(out: &mut String, json: &str) -> bool {
    let Ok(event) = Object::parse(json) else { return false };
    let text = |field: &str| event.get_str(field).filter(|text| text.len() <= MAX_ID_BYTES);
    let (Some(sender), Some(state_key), Some(kind)) = (text("sender"), text("state_key"), text("type")) else {
        return false;
    };
    let Some(content) = event.get("content").and_then(|content| content.as_object()) else { return false };
    if <&UserId>::try_from(sender).is_err() {
        return false;
    }
    out.push_str("{\"content\":");
    content.write(out);
    out.push_str(",\"sender\":");
    write_string(out, sender);
    out.push_str(",\"state_key\":");
    write_string(out, state_key);
    out.push_str(",\"type\":");
    write_string(out, kind);
    out.push('}');
    true
}

/// Before version 11 `redacts` is on the top level; newer clients look for it in the content.
fn redacts_for_content<'p>(pdu: &'p Pdu, rules: &RoomVersionRules, format: ClientFormat<'_>) -> Option<&'p str> {
    if rules.redaction.content_field_redacts || format.content.is_some() {
        return None;
    }
    // A cheap refusal to write a key twice: a client may have put it there itself.
    let redacts = pdu.redacts.as_deref()?;
    (!pdu.content.get().contains("\"redacts\"")).then_some(redacts.as_str())
}

fn write_content(out: &mut String, content: &str, redacts: Option<&str>) {
    let (Some(redacts), Some(members)) = (redacts, content.strip_suffix('}')) else {
        out.push_str(content);
        return;
    };
    out.push_str(members);
    if members != "{" {
        out.push(',');
    }
    out.push_str("\"redacts\":");
    write_string(out, redacts);
    out.push('}');
}

#[cfg(test)]
mod tests;
