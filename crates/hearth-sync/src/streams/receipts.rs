//! Receipts as clients get them: one `m.receipt` event for all that changed in a room.
//!
//! Spec: client-server API, "Receipts". Private receipts reach their own user only.

use std::fmt::Write;
use std::sync::Arc;

use hearth_matrix::canonical::write_string;
use hearth_store::{Position, RoomNum, StoreError, Tx, UserNum};
use rustc_hash::FxHashMap;

/// A receipt to be told.
#[derive(Clone)]
pub(crate) struct Told {
    pub(crate) user_id: Arc<str>,
    pub(crate) event_id: String,
    pub(crate) private: bool,
    pub(crate) thread: String,
    pub(crate) ts: i64,
}

/// What changed in `after < position <= upto`, by room.
pub(crate) fn receipts(
    tx: &mut Tx<'_>,
    rooms: &[i64],
    after: Position,
    upto: Position,
    reader: UserNum,
) -> Result<FxHashMap<RoomNum, Vec<Told>>, StoreError> {
    let mut by_room: FxHashMap<RoomNum, Vec<Told>> = FxHashMap::default();
    for (receipt, event_id) in tx.receipts().changed_in(rooms, after, upto, reader)? {
        let told = Told {
            user_id: tx.string(receipt.user)?,
            event_id: event_id.to_string(),
            private: receipt.private,
            thread: receipt.thread,
            ts: receipt.ts,
        };
        by_room.entry(receipt.room).or_default().push(told);
    }
    Ok(by_room)
}

/// Appends the `m.receipt` event. Of two receipts of a user at one event the less threaded one is told.
pub(crate) fn write(out: &mut String, receipts: &[Told]) {
    let mut sorted: Vec<&Told> = receipts.iter().collect();
    sorted.sort_by(|a, b| {
        (&a.event_id, a.private, &a.user_id, &a.thread).cmp(&(&b.event_id, b.private, &b.user_id, &b.thread))
    });
    sorted.dedup_by(|b, a| a.event_id == b.event_id && a.private == b.private && a.user_id == b.user_id);
    out.push_str("{\"content\":{");
    let mut before: Option<&Told> = None;
    for told in sorted {
        let same_event = before.is_some_and(|before| before.event_id == told.event_id);
        let same_kind = same_event && before.is_some_and(|before| before.private == told.private);
        match (same_event, same_kind) {
            (_, true) => out.push(','),
            (true, false) => out.push_str("},"),
            (false, _) if before.is_some() => out.push_str("}},"),
            _ => {}
        }
        if !same_event {
            write_string(out, &told.event_id);
            out.push_str(":{");
        }
        if !same_kind {
            out.push_str(if told.private { "\"m.read.private\":{" } else { "\"m.read\":{" });
        }
        write_string(out, &told.user_id);
        // Writing to a string does not fail.
        let _ = write!(out, ":{{\"ts\":{}", told.ts);
        if !told.thread.is_empty() {
            out.push_str(",\"thread_id\":");
            write_string(out, &told.thread);
        }
        out.push('}');
        before = Some(told);
    }
    if before.is_some() {
        out.push_str("}}");
    }
    out.push_str("},\"type\":\"m.receipt\"}");
}

#[cfg(test)]
mod tests {
    use super::{Told, write};

    #[test]
    fn receipts_are_grouped_by_event_and_kind() {
        let told = |event_id: &str, private, user_id: &str, thread: &str| Told {
            user_id: user_id.into(),
            event_id: event_id.into(),
            private,
            thread: thread.into(),
            ts: 5,
        };
        let mut out = String::new();
        write(
            &mut out,
            &[
                told("$b", false, "@a:x", ""),
                told("$a", true, "@a:x", "main"),
                told("$a", false, "@b:x", "$root"),
                told("$a", false, "@a:x", "main"),
                told("$a", false, "@a:x", ""),
            ],
        );
        let expected = serde_json::json!({
            "type": "m.receipt",
            "content": {
                "$a": {
                    "m.read": {"@a:x": {"ts": 5}, "@b:x": {"ts": 5, "thread_id": "$root"}},
                    "m.read.private": {"@a:x": {"ts": 5, "thread_id": "main"}},
                },
                "$b": {"m.read": {"@a:x": {"ts": 5}}},
            },
        });
        assert_eq!(serde_json::from_str::<serde_json::Value>(&out).unwrap(), expected);
    }
}
