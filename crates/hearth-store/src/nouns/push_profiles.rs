//! Users with push rules of their own, or who ignore somebody: by whom messages are judged apart.
//!
//! A user's rules are a fact by the position of their last change, and cached as such. Who of a room's members has any is
//! cached with the position up to which it is known, and brought up to date in the closure that asks: two looks into
//! indexes, whatever the size of the room.

use std::sync::Arc;

use hearth_matrix::push::PushProfile;
use hearth_matrix::ruma::OwnedUserId;

use super::account_data::PUSH_KINDS;
use crate::{Membership, Position, RoomNum, StoreError, StringNum, Tx, UserNum};

/// Members of a room with rules of their own, as of a position.
#[derive(Debug, Default)]
pub(crate) struct Listeners {
    pub(crate) at: Position,
    /// And when they changed them last.
    pub(crate) users: Vec<(UserNum, Position)>,
}

/// After so many positions what is known is written down anew, even if nothing changed.
const FRESH: i64 = 1_000;

/// Access to push profiles.
pub struct PushProfiles<'t, 'c> {
    tx: &'t mut Tx<'c>,
}

impl<'c> Tx<'c> {
    /// Push rules and ignored users, ready to judge by.
    pub fn push_profiles(&mut self) -> PushProfiles<'_, 'c> {
        PushProfiles { tx: self }
    }
}

impl PushProfiles<'_, '_> {
    /// A user's profile; none if he changed nothing.
    pub fn of(&mut self, user: UserNum) -> Result<Option<Arc<PushProfile>>, StoreError> {
        let version = self.changed_at(user)?;
        version.map(|version| self.at(user, version)).transpose()
    }

    /// When a user changed his rules, or whom he ignores, last.
    pub fn changed_at(&mut self, user: UserNum) -> Result<Option<Position>, StoreError> {
        self.tx
            .one("SELECT position FROM push_profiles WHERE usr = $1", &[user.into()], |row| Ok(Position(row.int(0)?)))
    }

    /// A user's profile as he changed it last.
    fn at(&mut self, user: UserNum, version: Position) -> Result<Arc<PushProfile>, StoreError> {
        let tx = &mut *self.tx;
        if let Some(profile) = tx.learned.profile(user, version).or_else(|| tx.caches.profile(user, version)) {
            return Ok(profile);
        }
        let user_id = OwnedUserId::try_from(&*tx.string(user)?)
            .map_err(|_| StoreError::Damaged(format!("user {} has no valid id", user.0)))?;
        let [rules, ignored] = PUSH_KINDS;
        let rules = tx.account_data().get(user, None, rules)?;
        let ignored = tx.account_data().get(user, None, ignored)?;
        let profile = Arc::new(PushProfile::new(&user_id, rules.as_deref(), ignored.as_deref()));
        tx.learned.learn_profile(user, version, profile.clone());
        Ok(profile)
    }

    /// Our users who are joined to a room and have profiles.
    pub fn of_members(&mut self, room: RoomNum) -> Result<Vec<(UserNum, Arc<PushProfile>)>, StoreError> {
        let listeners = self.listeners(room)?;
        listeners.users.iter().map(|(user, version)| Ok((*user, self.at(*user, *version)?))).collect()
    }

    fn listeners(&mut self, room: RoomNum) -> Result<Arc<Listeners>, StoreError> {
        let tx = &mut *self.tx;
        // Before looking, so that what comes in between is looked at again.
        let at = tx.position()?;
        let Some(known) = tx.learned.listeners(room).or_else(|| tx.caches.listeners(room)) else {
            let users = tx.query(
                "SELECT p.usr, p.position FROM memberships m CROSS JOIN push_profiles p
                 WHERE m.room = $1 AND m.membership = 2 AND m.until IS NULL AND p.usr = m.usr",
                &[room.into()],
                |row| Ok((StringNum(row.int(0)?), Position(row.int(1)?))),
            )?;
            let listeners = Arc::new(Listeners { at, users });
            tx.learned.learn_listeners(room, listeners.clone());
            return Ok(listeners);
        };
        let changed: Vec<(UserNum, Position)> = tx.query(
            "SELECT p.usr, p.position FROM push_profiles p CROSS JOIN memberships m
             WHERE p.position > $1 AND m.room = $2 AND m.usr = p.usr AND m.membership = 2 AND m.until IS NULL",
            &[known.at.into(), room.into()],
            |row| Ok((StringNum(row.int(0)?), Position(row.int(1)?))),
        )?;
        let moved: Vec<(UserNum, bool)> = tx.query(
            "SELECT usr, membership FROM memberships
             WHERE room = $1 AND membership IN (0, 2, 4) AND since > $2 AND until IS NULL AND local = 1",
            &[room.into(), known.at.into()],
            |row| Ok((StringNum(row.int(0)?), row.int(1)? == Membership::Join as i64)),
        )?;
        if changed.is_empty() && moved.is_empty() && at.0 - known.at.0 < FRESH {
            return Ok(known);
        }
        let came: Vec<i64> = moved.iter().filter(|(_, joined)| *joined).map(|(user, _)| user.0).collect();
        let mut fresh = changed;
        if !came.is_empty() {
            fresh.extend(tx.query(
                "SELECT usr, position FROM push_profiles WHERE usr IN ints($1)",
                &[came[..].into()],
                |row| Ok((StringNum(row.int(0)?), Position(row.int(1)?))),
            )?);
        }
        fresh.sort_unstable();
        fresh.dedup_by_key(|(user, _)| *user);
        let is_fresh = |user: &UserNum| fresh.binary_search_by_key(user, |(user, _)| *user).is_ok();
        let stays = |user: &UserNum| !is_fresh(user) && !moved.iter().any(|(moved, joined)| moved == user && !joined);
        let mut users: Vec<(UserNum, Position)> = known.users.iter().filter(|(user, _)| stays(user)).copied().collect();
        users.append(&mut fresh);
        let listeners = Arc::new(Listeners { at, users });
        tx.learned.learn_listeners(room, listeners.clone());
        Ok(listeners)
    }
}
