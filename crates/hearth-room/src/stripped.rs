//! Stripped state: what somebody who is invited or knocks is told of a room before he is in.
//!
//! Spec: client-server API, "Stripped state".

use hearth_matrix::{
    Pdu,
    client_format::{self, ClientFormat},
};
use hearth_store::StoreError;

use crate::append::Appender;

const TYPES: [&str; 7] = [
    "m.room.create",
    "m.room.name",
    "m.room.avatar",
    "m.room.topic",
    "m.room.join_rules",
    "m.room.canonical_alias",
    "m.room.encryption",
];

/// The stripped state that goes with a member event, a JSON array: the room's looks, the sender, the event itself.
///
/// The event itself is whole: clients show when somebody was invited, and sort by it.
pub(crate) fn stripped_state(appender: &mut Appender<'_, '_>, member: &Pdu) -> Result<String, StoreError> {
    let mut out = String::from("[");
    for kind in TYPES {
        if let Some((_, pdu)) = appender.state(kind, "")? {
            client_format::write_stripped(&mut out, &pdu);
            out.push(',');
        }
    }
    if member.state_key.as_deref() != Some(member.sender.as_str())
        && let Some((_, pdu)) = appender.state("m.room.member", member.sender.as_str())?
    {
        client_format::write_stripped(&mut out, &pdu);
        out.push(',');
    }
    client_format::write_event(&mut out, member, appender.room_rules(), ClientFormat::default());
    out.push(']');
    Ok(out)
}
