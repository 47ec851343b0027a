//! Files that are named in a room: for those who run the server.

use std::collections::BTreeSet;

use hearth_matrix::ruma::RoomId;
use hearth_store::{EventNum, RoomPlace};

use crate::{RoomError, Rooms};

const PAGE: i64 = 200;
/// So many are found; a room with more is done in several rounds.
const MOST: usize = 100_000;

impl Rooms {
    /// What stands behind `mxc://` in the events of a room, each once. What is encrypted names nothing.
    pub async fn media_named_in(&self, room_id: &RoomId) -> Result<BTreeSet<(String, String)>, RoomError> {
        let room_id = room_id.to_owned();
        let room = self.inner.store.read(move |tx| tx.rooms().by_id(&room_id)).await?.ok_or(RoomError::UnknownRoom)?;
        let mut named = BTreeSet::new();
        let mut place = RoomPlace { room_order: i64::MIN, num: EventNum(i64::MIN) };
        loop {
            let room = room.clone();
            let read = self.inner.store.read(move |tx| {
                let rows = tx.events().from(room.num, place, PAGE)?;
                let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
                let pdus = tx.events().pdus(&room, &nums)?;
                Ok((rows.len() as i64, rows.last().map(RoomPlace::after), pdus))
            });
            let (count, next, pdus) = read.await?;
            named.extend(pdus.iter().flat_map(|pdu| uris(&pdu.json)));
            match next {
                Some(next) if count == PAGE && named.len() < MOST => place = next,
                _ => return Ok(named),
            }
        }
    }
}

/// Server and media id of each `mxc://` URI in a text.
fn uris(text: &str) -> impl Iterator<Item = (String, String)> {
    text.split("mxc://").skip(1).filter_map(|rest| {
        let (server, rest) = rest.split_once('/')?;
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '-')).unwrap_or(rest.len());
        let is_name = !server.is_empty() && server.len() <= 255 && !server.contains(['"', '\\', ' ']);
        (is_name && end > 0).then(|| (server.to_owned(), rest[..end].to_owned()))
    })
}

#[cfg(test)]
mod tests {
    use super::uris;

    #[test]
    fn uris_are_found_wherever_they_stand() {
        let text = r#"{"url":"mxc://a.org/abc","body":"see mxc://b.org:8448/x-_Y1 and mxc://nothing","html":"<img src=\"mxc://c.org/1\">","x":"mxc://\"/y","file":{"url":"mxc://d.org/2"}}"#;
        let found: Vec<String> = uris(text).map(|(server, id)| format!("{server}/{id}")).collect();
        assert_eq!(found, ["a.org/abc", "b.org:8448/x-_Y1", "c.org/1", "d.org/2"]);
    }
}
