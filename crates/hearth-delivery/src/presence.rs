//! Whom our users' presence is told: the servers in their rooms, when it changes and when they meet.
//!
//! Spec: server-server API, "Presence".

use std::sync::Arc;

use hearth_matrix::ruma::UserId;
use hearth_store::{Membership, StoreError, Tx, UserNum};
use rustc_hash::FxHashSet;

use crate::Inner;
use crate::board::{Newcomer, SERVERS};

/// Of so many users a server is told when it comes into a room. It hears of the others when it is told anew that they are there.
const TOLD: usize = 1_000;

/// What a newcomer means for presence.
enum Meeting {
    /// One of ours is new to these servers.
    OfOurs(UserNum, Vec<Arc<str>>),
    /// A server is new to these users of ours.
    OfServer(Arc<str>, Vec<UserNum>),
}

impl Inner {
    /// What our users are, for the servers of those they share rooms with.
    pub(crate) async fn tell_presence(&self, users: FxHashSet<UserNum>) -> Result<(), StoreError> {
        for seen in self.presence.of_all(users.into_iter()) {
            let is_own = <&UserId>::try_from(&*seen.shown.user_id).is_ok_and(|user| self.is_own(user.server_name()));
            if !is_own {
                continue;
            }
            let user = seen.user;
            let read = self.store.read(move |tx| {
                let mut servers: FxHashSet<Arc<str>> = FxHashSet::default();
                for row in tx.members().rooms_of_user(user, Membership::Join)? {
                    servers.extend(tx.rooms().servers(row.room, SERVERS)?);
                }
                Ok(servers.into_iter().collect::<Vec<_>>())
            });
            let servers = read.await?;
            for server in self.served(&servers) {
                self.board.tell(server, &[user], self.time.now_ms());
            }
        }
        Ok(())
    }

    /// What our users are, for the servers that they have just met.
    pub(crate) async fn greet(&self, newcomers: Vec<Newcomer>) -> Result<(), StoreError> {
        for newcomer in newcomers {
            let own = self.own.clone();
            let meeting = self.store.read(move |tx| meeting(tx, own.as_str(), &newcomer)).await?;
            let (users, servers) = match meeting {
                Some(Meeting::OfOurs(user, servers)) => (vec![user], servers),
                Some(Meeting::OfServer(server, users)) => (users, vec![server]),
                None => continue,
            };
            let online = self.presence.online_among(users.into_iter());
            let users: Vec<UserNum> = online.into_iter().take(TOLD).map(|seen| seen.user).collect();
            for server in self.served(&servers) {
                self.board.tell(server, &users, self.time.now_ms());
            }
        }
        Ok(())
    }
}

fn meeting(tx: &mut Tx<'_>, own: &str, newcomer: &Newcomer) -> Result<Option<Meeting>, StoreError> {
    let Newcomer { room, user, position } = *newcomer;
    let user_id = tx.string(user)?;
    let Some((_, server)) = user_id.split_once(':') else { return Ok(None) };
    if server == own {
        let is_there = tx.members().current(room, user)?.is_some_and(|row| row.membership == Membership::Join);
        return Ok(match is_there {
            true => Some(Meeting::OfOurs(user, tx.rooms().servers(room, SERVERS)?)),
            false => None,
        });
    }
    let Some(num) = tx.string_num(server)? else { return Ok(None) };
    // Where others of its users were before, it has been told.
    let came_with_him =
        tx.deliveries().stays(room, num)?.last().is_some_and(|stay| stay.since == position && stay.until.is_none());
    Ok(match came_with_him {
        true => Some(Meeting::OfServer(server.into(), tx.members().local_joined(room)?)),
        false => None,
    })
}
