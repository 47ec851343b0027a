//! The members of a room.
//!
//! Spec: client-server API, `GET /rooms/{roomId}/members` and `…/joined_members`.

use hearth_matrix::canonical::write_string;
use hearth_matrix::ruma::OwnedRoomId;
use hearth_store::{EventNum, Membership, Position, SnapshotNum, StoreError, Tx};
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::access::Access;
use super::state::state_rows;
use super::{ViewError, Views};
use crate::{PageToken, Reader};

/// Which members.
#[derive(Clone, Debug, Default)]
pub struct MembershipFilter {
    /// Those of this membership.
    pub membership: Option<String>,
    /// Or those not of this one.
    pub not_membership: Option<String>,
}

impl MembershipFilter {
    fn passes(&self, membership: &str) -> bool {
        match (&self.membership, &self.not_membership) {
            (None, None) => true,
            (wanted, unwanted) => {
                wanted.as_deref() == Some(membership) || unwanted.as_deref().is_some_and(|it| it != membership)
            }
        }
    }

    fn is_all(&self) -> bool {
        self.membership.is_none() && self.not_membership.is_none()
    }
}

impl Views {
    /// Member events: of now, of when the reader left, or at a token.
    pub async fn members(
        &self,
        reader: Reader,
        room_id: OwnedRoomId,
        at: Option<String>,
        filter: MembershipFilter,
    ) -> Result<String, ViewError> {
        self.read(move |tx| {
            let access = Access::require(tx, &reader, &room_id)?;
            let snapshot = match &at {
                Some(at) => snapshot_at(tx, &access, at.parse()?)?,
                None => access.state_now(tx)?,
            };
            let nums = match snapshot {
                Some(snapshot) => member_events(tx, &access, snapshot, &filter)?,
                None => Vec::new(),
            };
            let rows = state_rows(tx, nums.into_iter().map(|num| num.0))?;
            let mut out = String::from("{\"chunk\":[");
            access.write(tx, &mut out, &rows)?;
            out.push_str("]}");
            Ok(out)
        })
        .await
    }

    /// Joined members with name and picture. Only for those who are joined.
    pub async fn joined_members(&self, reader: Reader, room_id: OwnedRoomId) -> Result<String, ViewError> {
        self.read(move |tx| {
            let access = Access::find(tx, &reader, &room_id)?.ok_or(ViewError::NotInRoom)?;
            if !access.is_joined() {
                return Err(ViewError::NotInRoom);
            }
            let members = tx.members().of_room(access.room.num, Membership::Join, i64::MAX)?;
            let nums: Vec<i64> = members.iter().map(|member| member.event.0).collect();
            let rows = tx.events().rows(&nums)?;
            let redacted: FxHashMap<EventNum, bool> =
                rows.iter().map(|row| (row.num, row.redacted_by.is_some())).collect();
            let mut out = String::from("{\"joined\":{");
            for (i, member) in members.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_string(&mut out, &tx.string(member.user)?);
                let is_redacted = redacted.get(&member.event).copied().unwrap_or(true);
                let pdu = match is_redacted {
                    false => tx.events().pdus(&access.room, &[member.event])?.pop(),
                    true => None,
                };
                write_profile(&mut out, pdu.as_deref().map(|pdu| pdu.content.get()));
            }
            out.push_str("}}");
            Ok(out)
        })
        .await
    }
}

/// The state at a token. A token of `/messages` is a place in room order: it means the newest event before it.
fn snapshot_at(tx: &mut Tx<'_>, access: &Access, token: PageToken) -> Result<Option<SnapshotNum>, StoreError> {
    let position = match token {
        PageToken::Sync(token) => token.position,
        PageToken::Place(place) | PageToken::Before(place, _) => {
            let before = tx.events().before(access.room.num, place, 1)?;
            before.first().and_then(|row| row.position).unwrap_or(Position(0))
        }
    };
    access.state_at(tx, position)
}

fn member_events(
    tx: &mut Tx<'_>,
    access: &Access,
    snapshot: SnapshotNum,
    filter: &MembershipFilter,
) -> Result<Vec<EventNum>, StoreError> {
    let kind = tx.string_num("m.room.member")?;
    let entries = tx.state().load(access.room.num, snapshot)?;
    let nums: Vec<EventNum> =
        entries.iter().filter(|entry| Some(entry.key.kind) == kind).map(|entry| entry.event).collect();
    if filter.is_all() {
        return Ok(nums);
    }
    // Into memory with one query; then one by one, since those without JSON are left out.
    tx.events().pdus(&access.room, &nums)?;
    let mut kept = Vec::new();
    for num in nums {
        let pdu = tx.events().pdus(&access.room, &[num])?.pop();
        if pdu.is_some_and(|pdu| pdu.membership().is_some_and(|membership| filter.passes(membership))) {
            kept.push(num);
        }
    }
    Ok(kept)
}

/// Name and picture from the content of a member event; `null` for what is not there.
fn write_profile(out: &mut String, content: Option<&str>) {
    #[derive(Default, Deserialize)]
    struct Profile<'a> {
        #[serde(borrow, default)]
        displayname: Option<&'a RawValue>,
        #[serde(borrow, default)]
        avatar_url: Option<&'a RawValue>,
    }
    let profile: Profile<'_> = content.and_then(|content| serde_json::from_str(content).ok()).unwrap_or_default();
    // A stranger's server may have put anything there.
    let text = |value: Option<&'_ RawValue>| {
        value.map(RawValue::get).filter(|value| value.starts_with('"')).unwrap_or("null").to_owned()
    };
    out.push_str(":{\"display_name\":");
    out.push_str(&text(profile.displayname));
    out.push_str(",\"avatar_url\":");
    out.push_str(&text(profile.avatar_url));
    out.push('}');
}

#[cfg(test)]
mod tests {
    use super::{MembershipFilter, write_profile};

    #[test]
    fn membership_and_not_membership_are_either_or() {
        let filter = |membership: Option<&str>, not_membership: Option<&str>| MembershipFilter {
            membership: membership.map(str::to_owned),
            not_membership: not_membership.map(str::to_owned),
        };
        let cases = [
            (filter(None, None), [true, true, true]),
            (filter(Some("join"), None), [true, false, false]),
            (filter(None, Some("leave")), [true, false, true]),
            (filter(Some("leave"), Some("join")), [false, true, true]),
        ];
        for (filter, expected) in cases {
            assert_eq!(["join", "leave", "ban"].map(|it| filter.passes(it)), expected, "{filter:?}");
        }
    }

    #[test]
    fn a_profile_is_of_strings() {
        let written = |content| {
            let mut out = String::new();
            write_profile(&mut out, content);
            out
        };
        let nothing = r#":{"display_name":null,"avatar_url":null}"#;
        assert_eq!(written(None), nothing);
        assert_eq!(written(Some(r#"{"displayname":5,"avatar_url":{}}"#)), nothing);
        let both = r#"{"displayname":"A \"B\"","avatar_url":"mxc://a/b"}"#;
        assert_eq!(written(Some(both)), r#":{"display_name":"A \"B\"","avatar_url":"mxc://a/b"}"#);
    }
}
