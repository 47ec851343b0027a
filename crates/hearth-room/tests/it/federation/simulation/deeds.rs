//! What happens in a step. Whether somebody may do what he does is not asked before.

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedRoomId, OwnedServerName, OwnedUserId};
use hearth_room::MemberAction;
use serde_json::json;

use super::super::{House, lock, name, user};
use super::Simulation;
use super::plan::{Deed, Plan, Who};

impl Simulation {
    pub(super) async fn act(&mut self, deed: &Deed) {
        self.done += 1;
        let done = self.done;
        match deed {
            Deed::Cut(a, b) => {
                if a != b {
                    self.net.cut(*a, *b);
                }
            }
            Deed::Mute(n) => drop(lock(&self.net.mute).insert(name(*n))),
            Deed::Heal => self.heal(),
            Deed::Fly { at, fate } => self.fly(*at, *fate).await,
            Deed::Restart(n) => self.restart(*n).await,
            Deed::ReadBack(n) => drop(self.net.house(*n).rooms.backfill(&self.room, i64::MAX, 20).await),
            Deed::Say(who) => {
                let who = self.user(who);
                let said = self.home(&who).send(&self.room, &who, &format!("{done}")).await;
                self.events.extend(said);
            }
            Deed::Topic(who) => self.set(who, "m.room.topic", "", json!({ "topic": format!("{done}") })).await,
            Deed::State(who, key) => self.set(who, "test.state", &format!("{key}"), json!({ "done": done })).await,
            Deed::Level(who, whom, level) => {
                let whom = self.user(whom);
                self.change_levels(who, |levels| levels["users"][whom.as_str()] = json!(level)).await;
            }
            Deed::Ask(who, kind, level) => {
                self.change_levels(who, |levels| levels["events"][*kind] = json!(level)).await;
            }
            Deed::Name(who, name, level) => {
                self.change_levels(who, |levels| match (level, levels.as_object_mut()) {
                    (Some(level), _) => levels[*name] = json!(level),
                    (None, levels) => drop(levels.and_then(|levels| levels.remove(*name))),
                })
                .await;
            }
            Deed::JoinRule(who, rule) => self.set_join_rule(who, rule).await,
            Deed::Ban(who, whom) => self.change(who, MemberAction::Ban(self.user(whom))).await,
            Deed::Kick(who, whom) => self.change(who, MemberAction::Kick(self.user(whom))).await,
            Deed::Unban(who, whom) => self.change(who, MemberAction::Unban(self.user(whom))).await,
            Deed::Invite(who, whom) => self.change(who, MemberAction::Invite(self.user(whom))).await,
            Deed::Knock(who) => self.change(who, MemberAction::Knock).await,
            Deed::Leave(who) => self.change(who, MemberAction::Leave).await,
            Deed::Join(who, first) => {
                let who = self.user(who);
                self.come_in(&who, *first).await;
            }
            Deed::Enter(who, first) => self.enter(who, &self.room, *first).await,
            Deed::KnockThrough(who, first) => {
                let who = self.user(who);
                drop(self.home(&who).rooms.knock(&who, &self.room, &self.servers_from(*first), None).await);
            }
            Deed::Lobby(who, first) => {
                if let Some(lobby) = &self.lobby {
                    self.enter(who, lobby, *first).await;
                }
            }
            Deed::LeaveLobby(who) => {
                if let Some(lobby) = &self.lobby {
                    let who = self.user(who);
                    drop(self.home(&who).rooms.change_membership(&who, lobby, MemberAction::Leave, None).await);
                }
            }
            Deed::Redact(who, at) => {
                let who = self.user(who);
                let Some(target) = self.events.get(at % self.events.len().max(1)).cloned() else { return };
                let redacted = self.home(&who).rooms.redact(&who, &self.room, &target, None, None).await;
                self.events.extend(redacted);
            }
            Deed::Forge(forgery) => self.forge(forgery).await,
        }
    }

    pub(super) fn user(&self, (u, n): &Who) -> OwnedUserId {
        user(*u, *n)
    }

    pub(super) fn heal(&self) {
        self.net.heal();
        lock(&self.net.mute).clear();
    }

    async fn fly(&mut self, at: usize, fate: u8) {
        if self.flying.is_empty() {
            return;
        }
        let at = at % self.flying.len();
        match fate {
            0 => drop(self.flying.swap_remove(at)),
            1 => {
                let packet = self.flying[at].clone();
                self.net.deliver(&packet).await;
            }
            _ => {
                let packet = self.flying.swap_remove(at);
                self.net.deliver(&packet).await;
            }
        }
    }

    async fn restart(&mut self, n: usize) {
        self.flying.extend(self.net.packets().await);
        let (store, time) = {
            let house = self.net.house(n);
            (house.store.clone(), house.time.now_ms())
        };
        self.net.move_in(n, store, self.seed.wrapping_add(self.done as u64)).await;
        let house = self.net.house(n);
        house.time.advance(time - house.time.now_ms());
    }

    async fn set(&mut self, who: &Who, kind: &str, key: &str, content: serde_json::Value) {
        let who = self.user(who);
        let set = self.home(&who).set(&self.room, &who, kind, key, content).await;
        self.events.extend(set);
    }

    async fn change(&self, who: &Who, action: MemberAction) {
        let who = self.user(who);
        drop(self.home(&who).rooms.change_membership(&who, &self.room, action, None).await);
    }

    async fn levels(&self, house: &House) -> Option<serde_json::Value> {
        house.content(&self.room, "m.room.power_levels", "").await
    }

    async fn change_levels(&mut self, who: &Who, change: impl FnOnce(&mut serde_json::Value)) {
        let house = self.home(&self.user(who));
        let Some(mut levels) = self.levels(&house).await else { return };
        change(&mut levels);
        self.set(who, "m.room.power_levels", "", levels).await;
    }

    /// The first users of the residents get their levels.
    pub(super) async fn share_power(&mut self, plan: &Plan) {
        self.change_levels(&(0, 0), |levels| {
            for (n, level) in plan.residents.iter().zip(&plan.levels) {
                levels["users"][user(0, *n).as_str()] = json!(level);
            }
        })
        .await;
        self.net.calm_down().await;
    }

    /// A user joins: here if his server is in the room, else through another.
    pub(super) async fn come_in(&mut self, who: &OwnedUserId, first: usize) {
        let house = self.home(who);
        if house.tip(&self.room).await.is_some_and(|tip| tip.joined_local > 0) {
            drop(house.rooms.change_membership(who, &self.room, MemberAction::Join { guest: false }, None).await);
        } else {
            let servers = self.servers_from(first);
            drop(house.rooms.join_through(who, &self.room, &servers, CanonicalJsonObject::new()).await);
        }
    }

    /// A user comes into a room by himself, or else through others.
    pub(super) async fn enter(&self, who: &Who, room: &OwnedRoomId, first: usize) {
        let who = self.user(who);
        let servers = self.servers_from(first);
        drop(self.home(&who).rooms.enter(&who, room, false, CanonicalJsonObject::new(), servers).await);
    }

    /// All servers, that one first.
    fn servers_from(&self, first: usize) -> Vec<OwnedServerName> {
        (0..self.servers).map(|n| name((first + n) % self.servers)).collect()
    }

    /// Whoever is in the lobby may come in where the rule asks for such a room.
    pub(super) async fn set_join_rule(&mut self, who: &Who, rule: &str) {
        let mut content = json!({ "join_rule": rule });
        if let Some(lobby) = self.lobby.as_ref().filter(|_| rule.ends_with("restricted")) {
            content["allow"] = json!([{ "type": "m.room_membership", "room_id": lobby }]);
        }
        self.set(who, "m.room.join_rules", "", content).await;
    }
}
