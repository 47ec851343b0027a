//! What is told beside events: typing and presence, coalesced to the newest; receipts are found by position.
//!
//! Spec: server-server API, "Typing Notifications", "Presence", "Receipts".

use std::collections::BTreeMap;

use hearth_matrix::ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId};
use hearth_store::{OutboundReceipt, StoreError, Tx, UserNum};
use hearth_user::presence::Seen;
use rustc_hash::{FxHashMap, FxHashSet};
use serde_json::{Map, Value, json};

/// What has come for a server since its task looked last.
#[derive(Default)]
pub(crate) struct Pending {
    /// When the first of it came, or when the server was tried again.
    pub(crate) since_ms: i64,
    /// Since when the server lacks something, over all tries.
    pub(crate) lacking_since_ms: i64,
    /// There may be something after its position: events or receipts.
    pub(crate) look: bool,
    /// It did not answer when it was tried last.
    pub(crate) doubtful: bool,
    /// It has shown life since.
    pub(crate) lives: bool,
    /// Who types, or types no more.
    typing: FxHashMap<(OwnedRoomId, OwnedUserId), bool>,
    /// Whose presence changed.
    pub(crate) presence: FxHashSet<UserNum>,
}

impl Pending {
    pub(crate) fn is_empty(&self) -> bool {
        !self.look && !self.has_passing()
    }

    /// Whether there is something that no position tells of.
    pub(crate) fn has_passing(&self) -> bool {
        !self.typing.is_empty() || !self.presence.is_empty()
    }

    pub(crate) fn typing(&mut self, room_id: &RoomId, user: &UserId, typing: bool) {
        self.typing.insert((room_id.to_owned(), user.to_owned()), typing);
    }

    /// Typing notices, at most `most`; the others stay.
    pub(crate) fn take_typing(&mut self, most: usize) -> Vec<Value> {
        let keys: Vec<_> = self.typing.keys().take(most).cloned().collect();
        let notice = |key: (OwnedRoomId, OwnedUserId)| {
            let typing = self.typing.remove(&key)?;
            let (room_id, user_id) = key;
            Some(json!({
                "edu_type": "m.typing",
                "content": { "room_id": room_id, "user_id": user_id, "typing": typing },
            }))
        };
        keys.into_iter().filter_map(notice).collect()
    }

    /// Users whose presence changed, at most `most`; the others stay.
    pub(crate) fn take_presence(&mut self, most: usize) -> Vec<UserNum> {
        let users: Vec<UserNum> = self.presence.iter().take(most).copied().collect();
        for user in &users {
            self.presence.remove(user);
        }
        users
    }
}

/// One EDU for the presence of many.
pub(crate) fn presence(seen: &[Seen], now_ms: i64) -> Value {
    let one = |seen: &Seen| {
        let mut one = Map::new();
        one.insert("user_id".into(), json!(&*seen.shown.user_id));
        one.insert("presence".into(), seen.shown.state.as_str().into());
        if seen.shown.currently_active {
            one.insert("currently_active".into(), true.into());
        }
        // The specification wants it, also of those who did nothing yet.
        one.insert("last_active_ago".into(), seen.last_active_ago_ms(now_ms).unwrap_or(0).into());
        if let Some(status) = &seen.shown.status_msg {
            one.insert("status_msg".into(), json!(&**status));
        }
        Value::Object(one)
    };
    json!({ "edu_type": "m.presence", "content": { "push": seen.iter().map(one).collect::<Vec<_>>() } })
}

/// Receipts as at most so many EDUs, and how many of them found a place. A user has one unthreaded receipt and one per thread in a
/// room, but one place for it in an EDU: those that don't fit go into the next.
pub(crate) fn receipts(
    tx: &mut Tx<'_>,
    receipts: &[OutboundReceipt],
    most: usize,
) -> Result<(Vec<Value>, usize), StoreError> {
    /// By room and user.
    type Content = BTreeMap<String, BTreeMap<String, Value>>;
    let mut edus: Vec<Content> = Vec::new();
    let mut told = 0;
    for receipt in receipts {
        let room_id = tx.rooms().by_num(receipt.room)?.room_id.to_string();
        let user = tx.string(receipt.user)?.to_string();
        let mut data = json!({ "ts": receipt.ts });
        if !receipt.thread.is_empty() {
            data["thread_id"] = json!(receipt.thread);
        }
        let value = json!({ "event_ids": [tx.events().id(receipt.event)?], "data": data });
        let is_free = |content: &Content| content.get(&room_id).is_none_or(|users| !users.contains_key(&user));
        let at = match edus.iter().position(is_free) {
            Some(at) => at,
            None if edus.len() >= most => break,
            None => {
                edus.push(Content::new());
                edus.len() - 1
            }
        };
        edus[at].entry(room_id).or_default().insert(user, value);
        told += 1;
    }
    let edu = |content: Content| {
        let rooms: BTreeMap<String, Value> =
            content.into_iter().map(|(room, users)| (room, json!({ "m.read": users }))).collect();
        json!({ "edu_type": "m.receipt", "content": rooms })
    };
    Ok((edus.into_iter().map(edu).collect(), told))
}
