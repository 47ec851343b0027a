//! The form of `m.room.power_levels` that users of ours may send.
//!
//! Old room versions let through what other servers then stumble over at every event of the room. Clients hear that the content is
//! wrong, and not that they lack power.
//! Spec: client-server API, `m.room.power_levels`; rooms, "Authorization rules".

use hearth_matrix::RoomVersionRules;
use hearth_matrix::ruma::{CanonicalJsonObject, CanonicalJsonValue, UserId};

const LEVELS: [&str; 7] = ["ban", "events_default", "invite", "kick", "redact", "state_default", "users_default"];
const MAPS: [&str; 3] = ["events", "notifications", "users"];

/// Why a content has levels that are none, if so.
pub(crate) fn check(content: &CanonicalJsonObject, rules: &RoomVersionRules) -> Result<(), String> {
    let wrong = |what: &str| Err(format!("{what} of m.room.power_levels is no power level"));
    let is_level = |value: &CanonicalJsonValue| match value {
        CanonicalJsonValue::Integer(_) => true,
        // Until room version 10 it may be written as a string.
        CanonicalJsonValue::String(level) if !rules.authorization.integer_power_levels => {
            level.trim().parse::<i64>().is_ok()
        }
        _ => false,
    };
    for name in LEVELS {
        if content.get(name).is_some_and(|level| !is_level(level)) {
            return wrong(name);
        }
    }
    for name in MAPS {
        let levels = match content.get(name) {
            None => continue,
            Some(CanonicalJsonValue::Object(levels)) => levels,
            Some(_) => return Err(format!("{name} of m.room.power_levels is no object")),
        };
        if let Some((key, _)) = levels.iter().find(|(_, level)| !is_level(level)) {
            return wrong(&format!("{key:?} in {name}"));
        }
        if name == "users"
            && let Some(key) = levels.keys().find(|key| <&UserId>::try_from(key.as_str()).is_err())
        {
            return Err(format!("{key:?} in users of m.room.power_levels is no user id"));
        }
    }
    Ok(())
}
