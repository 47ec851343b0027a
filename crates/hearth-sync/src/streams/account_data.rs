//! Account data: all of it, or what was written between two positions; and whom the user ignores.
//!
//! Spec: client-server API, "Client Config", "Ignoring users".

use hearth_matrix::canonical::write_string;
use hearth_matrix::ruma::UserId;
use hearth_store::{AccountDataEvent, Position, RoomNum, StoreError, Tx, UserNum};
use hearth_user::push_rules;
use rustc_hash::{FxHashMap, FxHashSet};

use crate::filter::EventMatch;

/// Account data to be told.
#[derive(Default)]
pub(crate) struct AccountData {
    pub(crate) global: Vec<AccountDataEvent>,
    pub(crate) by_room: FxHashMap<RoomNum, Vec<AccountDataEvent>>,
}

/// All of it (`after`: none; push rules are always there), or what changed in `after < position <= upto`.
pub(crate) fn account_data(
    tx: &mut Tx<'_>,
    user: UserNum,
    user_id: &UserId,
    after: Option<Position>,
    upto: Position,
) -> Result<AccountData, StoreError> {
    let events = match after {
        Some(after) => tx.account_data().changed_since(user, after, upto)?,
        None => tx.account_data().all(user)?,
    };
    let mut told = AccountData::default();
    for event in events {
        match event.room {
            None if event.kind == push_rules::ACCOUNT_DATA_TYPE => {
                let content = push_rules::content_of(tx, user, user_id)?;
                told.global.push(AccountDataEvent { content, ..event });
            }
            None => told.global.push(event),
            Some(room) => told.by_room.entry(room).or_default().push(event),
        }
    }
    if after.is_none() && !told.global.iter().any(|event| event.kind == push_rules::ACCOUNT_DATA_TYPE) {
        told.global.push(AccountDataEvent {
            room: None,
            kind: push_rules::ACCOUNT_DATA_TYPE.to_owned(),
            content: push_rules::content_of(tx, user, user_id)?,
            position: upto,
        });
    }
    Ok(told)
}

/// Everything of one room, for a client that hears of it for the first time.
pub(crate) fn of_room(tx: &mut Tx<'_>, user: UserNum, room: RoomNum) -> Result<Vec<AccountDataEvent>, StoreError> {
    tx.account_data().all_of(user, Some(room))
}

/// Appends those that pass, comma-separated. True if there were any.
pub(crate) fn write(out: &mut String, events: &[AccountDataEvent], filter: &EventMatch) -> bool {
    let mut any = false;
    for event in events.iter().filter(|event| filter.allows_type(&event.kind)) {
        if std::mem::replace(&mut any, true) {
            out.push(',');
        }
        out.push_str("{\"content\":");
        out.push_str(&event.content);
        out.push_str(",\"type\":");
        write_string(out, &event.kind);
        out.push('}');
    }
    any
}

/// Whom a user ignores.
pub(crate) fn ignored(tx: &mut Tx<'_>, user: UserNum) -> Result<FxHashSet<UserNum>, StoreError> {
    #[derive(serde::Deserialize)]
    struct Content {
        #[serde(default)]
        ignored_users: serde_json::Map<String, serde_json::Value>,
    }
    let mut ignored = FxHashSet::default();
    if let Some(content) = tx.account_data().get(user, None, "m.ignored_user_list")?
        && let Ok(content) = serde_json::from_str::<Content>(&content)
    {
        for user_id in content.ignored_users.keys() {
            ignored.extend(tx.string_num(user_id)?);
        }
    }
    // Nobody ignores himself.
    ignored.remove(&user);
    Ok(ignored)
}
