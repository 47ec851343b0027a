//! Stripped state: what somebody who is invited or knocks is told of a room before he is in.
//!
//! Clients get it stripped, but for the create event, which is whole: clients tell a room's version and id by it, and
//! Complement asks for it. Other servers get events as they are.
//! Spec: client-server API, "Stripped state"; server-server API, "Inviting to a room", "Knocking upon a room".

use std::sync::Arc;

use hearth_matrix::{
    Pdu, RoomVersionRules,
    client_format::{self, ClientFormat},
    redact::redact,
};
use hearth_store::StoreError;

use crate::append::Appender;
use crate::servers::redacted;

/// Pieces of state that another server may tell of a room, and their bytes in all; the rest is let go. The eight or so that there
/// are of a room have some 4 KiB; a topic of several pages in two formats fits, too.
const TOLD: usize = 100;
const TOLD_BYTES: usize = 32 << 10;
/// A larger invite is told without what it says beside.
const MEMBER_BYTES: usize = 16 << 10;

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
    for pdu in events(appender, member)? {
        match &*pdu.kind {
            "m.room.create" => {
                client_format::write_event(&mut out, &pdu, appender.room_rules(), ClientFormat::default());
            }
            _ => client_format::write_stripped(&mut out, &pdu),
        }
        out.push(',');
    }
    client_format::write_event(&mut out, member, appender.room_rules(), ClientFormat::default());
    out.push(']');
    Ok(out)
}

/// The same for another server: events as JSON, without the member event.
pub(crate) fn federation_state(appender: &mut Appender<'_, '_>, member: &Pdu) -> Result<Vec<String>, StoreError> {
    Ok(events(appender, member)?.iter().map(|pdu| pdu.json.to_string()).collect())
}

fn events(appender: &mut Appender<'_, '_>, member: &Pdu) -> Result<Vec<Arc<Pdu>>, StoreError> {
    let mut events = Vec::with_capacity(TYPES.len() + 1);
    for kind in TYPES {
        events.extend(appender.state(kind, "")?);
    }
    if member.state_key.as_deref() != Some(member.sender.as_str()) {
        events.extend(appender.state("m.room.member", member.sender.as_str())?);
    }
    // Those that are not written yet are not redacted either.
    let nums: Vec<i64> = events.iter().map(|(num, _)| num.0).collect();
    let among = appender.tx.events().redacted_among(&nums)?;
    for (_, pdu) in events.iter_mut().filter(|(num, _)| among.contains(num)) {
        *pdu = redacted(pdu, &appender.room)?;
    }
    Ok(events.into_iter().map(|(_, pdu)| pdu).collect())
}

/// What another server told of a room, for clients; with the member event to which it belongs, if there is one.
pub(crate) fn told(state: &[String], member: Option<&Pdu>, rules: &RoomVersionRules) -> String {
    let mut out = String::from("[");
    for json in state.iter().take(TOLD) {
        let before = out.len();
        // What does not fit its hash is pruned as it is read.
        match Pdu::from_remote(json, rules) {
            Ok(create) if create.is_state("m.room.create", "") => {
                client_format::write_event(&mut out, &create, rules, ClientFormat::default());
            }
            Ok(pdu) if pdu.state_key.is_some() => client_format::write_stripped(&mut out, &pdu),
            Err(_) if client_format::write_told(&mut out, json) => {}
            _ => continue,
        }
        if out.len() > TOLD_BYTES {
            out.truncate(before);
            continue;
        }
        out.push(',');
    }
    match member {
        Some(member) => {
            let bare = (member.json.len() > MEMBER_BYTES).then(|| bare(member, rules)).flatten();
            client_format::write_event(&mut out, bare.as_ref().unwrap_or(member), rules, ClientFormat::default());
        }
        None => out.truncate(out.trim_end_matches(',').len()),
    }
    out.push(']');
    out
}

fn bare(member: &Pdu, rules: &RoomVersionRules) -> Option<Pdu> {
    let json = redact(&member.json, rules, None).ok()?;
    Pdu::from_stored(json.into(), &member.event_id, &member.room_id, rules).ok()
}
