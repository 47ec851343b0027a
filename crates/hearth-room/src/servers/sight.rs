//! What a server sees of events: those of one answer, at a cost that neither the room's size nor the question decides.
//!
//! Where the room shows its history to members of then alone, the state before each event is asked for users of that server, one
//! by one, until one was there. What takes too long to find out is not told at all: who is told an event without its content keeps
//! that for ever, though it may have a right to all of it.
//! Spec: client-server API, "Room History Visibility"; server-server API, "Backfilling and retrieving missing events".

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedServerName, ServerName, UserId};
use hearth_matrix::visibility::{HistoryVisibility, ServerView, server_may_see};
use hearth_store::{
    EventRow, Membership, RoomNum, RoomRecord, SnapshotNum, StateKey, StoreError, Tx, UserNum, Visibility,
};
use rustc_hash::FxHashMap;

/// Places of states looked at for one answer.
const LOOKS: usize = 5_000;
/// Users of a server who are looked for: one more than all looks reach.
const USERS: i64 = LOOKS as i64 + 1;

/// What one server sees of the events of one answer.
pub(super) struct Sight {
    server: OwnedServerName,
    /// Its users who ever were in, or invited to, the rooms of the answer.
    users: FxHashMap<(RoomNum, Membership), Vec<UserNum>>,
    /// Who was in a state, as far as that was looked for.
    known: FxHashMap<(SnapshotNum, Membership), bool>,
    /// Places that may still be looked at.
    looks: usize,
}

impl Sight {
    pub(super) fn of(server: &ServerName) -> Self {
        let (users, known) = (FxHashMap::default(), FxHashMap::default());
        Self { server: server.to_owned(), users, known, looks: LOOKS }
    }

    /// Whether the server, which is in the room, may see an event whole; none if that takes too long to find out.
    pub(super) fn may_see(
        &mut self,
        tx: &mut Tx<'_>,
        room: &RoomRecord,
        row: &EventRow,
        pdu: &Pdu,
    ) -> Result<Option<bool>, StoreError> {
        let visibility = match row.visibility {
            Visibility::WorldReadable | Visibility::Shared => return Ok(Some(true)),
            Visibility::Invited => HistoryVisibility::Invited,
            Visibility::Joined => HistoryVisibility::Joined,
        };
        let of_event = match pdu.state_pair() {
            Some(("m.room.member", target)) if self.is_theirs(target) => {
                pdu.membership().and_then(Membership::from_spec)
            }
            _ => None,
        };
        let mut view = ServerView {
            visibility,
            visibility_after: pdu.is_state("m.room.history_visibility", "").then(|| HistoryVisibility::of(Some(pdu))),
            has_joined: of_event == Some(Membership::Join),
            has_invited: of_event == Some(Membership::Invite),
        };
        if !server_may_see(&view) {
            let Some(had) = self.had(tx, room, row.snapshot_before, Membership::Join)? else { return Ok(None) };
            view.has_joined = had;
        }
        let is_asked = |visibility| visibility == HistoryVisibility::Invited;
        if !server_may_see(&view) && (is_asked(visibility) || view.visibility_after.is_some_and(is_asked)) {
            let Some(had) = self.had(tx, room, row.snapshot_before, Membership::Invite)? else { return Ok(None) };
            view.has_invited = had;
        }
        Ok(Some(server_may_see(&view)))
    }

    fn is_theirs(&self, target: &str) -> bool {
        <&UserId>::try_from(target).is_ok_and(|user| user.server_name() == self.server)
    }

    /// Whether a user of the server has a membership in a state; none if that takes too long to find out.
    fn had(
        &mut self,
        tx: &mut Tx<'_>,
        room: &RoomRecord,
        snapshot: Option<SnapshotNum>,
        membership: Membership,
    ) -> Result<Option<bool>, StoreError> {
        let Some(snapshot) = snapshot else { return Ok(Some(false)) };
        if let Some(known) = self.known.get(&(snapshot, membership)) {
            return Ok(Some(*known));
        }
        let Some(kind) = tx.string_num("m.room.member")? else { return Ok(Some(false)) };
        if !self.users.contains_key(&(room.num, membership)) {
            let users = match tx.string_num(self.server.as_str())? {
                Some(server) => tx.members().ever_of_server(room.num, server, membership, USERS)?,
                None => Vec::new(),
            };
            self.users.insert((room.num, membership), users);
        }
        let Some(users) = self.users.get_mut(&(room.num, membership)) else { return Ok(Some(false)) };
        let mut found = None;
        for (at, user) in users.iter().enumerate() {
            if self.looks == 0 {
                return Ok(None);
            }
            self.looks -= 1;
            if let Some(event) = tx.state().get(room.num, snapshot, StateKey { kind, state_key: *user })?
                && tx.events().pdu(room, event)?.membership().and_then(Membership::from_spec) == Some(membership)
            {
                found = Some(at);
                break;
            }
        }
        // Whoever was there then was there at the next event, too, more likely than others.
        if let Some(at) = found {
            users.swap(0, at);
        }
        self.known.insert((snapshot, membership), found.is_some());
        Ok(Some(found.is_some()))
    }
}
