//! The table of history visibility.

use super::{HistoryVisibility::*, *};
use crate::Membership::*;

#[test]
fn who_may_see_an_event() {
    // visibility; allowed for a member, an invited user, a knocking one, one who left, a banned one.
    for (visibility, table, after_joining_later) in [
        (WorldReadable, [true, true, true, true, true], true),
        (Shared, [true, false, false, false, false], true),
        (Invited, [true, true, false, false, false], false),
        (Joined, [true, false, false, false, false], false),
    ] {
        for (membership, allowed) in [Join, Invite, Knock, Leave, Ban].into_iter().zip(table) {
            let view = UserView { visibility, membership, ..UserView::default() };
            assert_eq!(user_may_see(&view), allowed, "{visibility:?} {membership:?}");
            let later = UserView { joined_since: true, ..view };
            assert_eq!(
                user_may_see(&later),
                allowed || after_joining_later,
                "{visibility:?} {membership:?}, joined later"
            );
        }
    }
}

#[test]
fn a_change_of_visibility_is_seen_if_either_side_allows() {
    let view = |visibility, after| UserView { visibility, visibility_after: Some(after), ..UserView::default() };
    assert!(user_may_see(&view(WorldReadable, Joined)));
    assert!(user_may_see(&view(Joined, WorldReadable)));
    assert!(!user_may_see(&view(Joined, Invited)));
}

#[test]
fn ones_own_member_event_is_seen_if_either_side_allows() {
    let view = |before, after| UserView {
        visibility: Joined,
        membership: before,
        membership_after: Some(after),
        ..UserView::default()
    };
    assert!(user_may_see(&view(Leave, Join)));
    assert!(user_may_see(&view(Join, Ban)));
    assert!(!user_may_see(&view(Leave, Invite)));
}

#[test]
fn what_a_server_may_have() {
    // visibility; allowed with a joined user, an invited one, none.
    for (visibility, table) in [
        (WorldReadable, [true, true, true]),
        (Shared, [true, true, true]),
        (Invited, [true, true, false]),
        (Joined, [true, false, false]),
    ] {
        for ((has_joined, has_invited), allowed) in
            [(true, false), (false, true), (false, false)].into_iter().zip(table)
        {
            let view = ServerView { visibility, visibility_after: None, has_joined, has_invited };
            assert_eq!(server_may_see(&view), allowed, "{view:?}");
        }
    }
}

#[test]
fn names_are_read_and_written() {
    for visibility in [WorldReadable, Shared, Invited, Joined] {
        assert_eq!(HistoryVisibility::parse(visibility.as_str()), visibility);
    }
    assert_eq!(HistoryVisibility::parse("other"), Shared);
    assert_eq!(HistoryVisibility::of(None), Shared);
}
