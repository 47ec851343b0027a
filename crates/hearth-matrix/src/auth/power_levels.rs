//! The auth rules for `m.room.power_levels` events.
//!
//! A named level that is absent is no value, so nobody stands too low to give it one, or to take it away: the specification
//! compares the values that were "added, changed or removed", and says nothing of defaults there. Most servers of the
//! federation read it so; see "Where the specification can be read in two ways" in `ARCHITECTURE.md`.
//! Spec: rooms, "Authorization rules", "If type is `m.room.power_levels`".

use ruma::UserId;

use super::{
    AuthRefusal, Facts,
    facts::{Form, Levels, Named, PowerFacts},
    refuse,
};
use crate::{Level, Pdu, PowerLevels, RoomVersionRules};

pub(super) fn check(
    rules: &RoomVersionRules,
    pdu: &Pdu,
    current: Option<&Pdu>,
    levels: &PowerLevels,
    sender_level: Level,
) -> Result<(), AuthRefusal> {
    let Facts::PowerLevels(new) = pdu.facts() else {
        return refuse("not an m.room.power_levels event");
    };
    check_form(rules, new)?;
    if rules.authorization.explicitly_privilege_room_creators
        && new.users.levels.keys().any(|user| <&UserId>::try_from(&**user).is_ok_and(|user| levels.is_creator(user)))
    {
        return refuse("users must not name a creator of the room");
    }
    let Some(Facts::PowerLevels(current)) = current.map(Pdu::facts) else {
        return Ok(());
    };

    for (name, field, _) in Named::ALL {
        let (current, new) = (current.named[name as usize], new.named[name as usize]);
        let too_high = current.max(new).is_some_and(|level| Level::Finite(level) > sender_level);
        if current != new && too_high {
            return refuse(format!("the sender's power level is too low to change {field}"));
        }
    }
    check_map(&current.events, &new.events, sender_level, |_, level| level > sender_level)?;
    if rules.authorization.limit_notifications_power_levels {
        check_map(&current.notifications, &new.notifications, sender_level, |_, level| level > sender_level)?;
    }
    check_map(&current.users, &new.users, sender_level, |user, level| {
        user != pdu.sender.as_str() && level >= sender_level
    })
}

fn check_form(rules: &RoomVersionRules, new: &PowerFacts) -> Result<(), AuthRefusal> {
    let worst_allowed = if rules.authorization.integer_power_levels { Form::Integer } else { Form::Lax };
    let checked_maps = [&new.users, &new.events, &new.notifications];
    // Before version 6 nothing reads `notifications`, before version 10 nothing asks for its form.
    let checked_maps =
        if rules.authorization.limit_notifications_power_levels { &checked_maps[..] } else { &checked_maps[..2] };
    if new.named_form > worst_allowed || checked_maps.iter().any(|map| map.form > worst_allowed) {
        return refuse("a power level is not an integer");
    }
    if !new.users_are_ids {
        return refuse("a key of users is not a user id");
    }
    Ok(())
}

/// Entries that were added, changed or removed: may the old one be touched, and is the new one not
/// above the sender?
fn check_map(
    current: &Levels,
    new: &Levels,
    sender_level: Level,
    untouchable: impl Fn(&str, Level) -> bool,
) -> Result<(), AuthRefusal> {
    for (key, level) in &current.levels {
        if new.levels.get(key) != Some(level) && untouchable(key, Level::Finite(*level)) {
            return refuse(format!("the sender's power level is too low to change {key}"));
        }
    }
    for (key, level) in &new.levels {
        if current.levels.get(key) != Some(level) && Level::Finite(*level) > sender_level {
            return refuse(format!("the sender's power level is too low to give {key} {level}"));
        }
    }
    Ok(())
}
