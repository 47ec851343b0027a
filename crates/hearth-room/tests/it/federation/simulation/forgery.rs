//! What a server sends that none of its users made: it may follow anything, be allowed by anything, and come to some only.

use base64::Engine as _;
use hearth_matrix::ruma::{EventId, OwnedEventId, RoomVersionId};
use hearth_matrix::{Draft, Place, V1Place, canonical, hash, rules, seal};
use rustc_hash::FxHashMap;
use serde_json::json;

use super::super::{House, Packet, key, name, object};
use super::Simulation;
use super::plan::Forgery;

/// A join which says that somebody lets one in.
const VOUCHED: u8 = 7;

impl Simulation {
    pub(super) async fn forge(&mut self, forgery: &Forgery) {
        let house = self.net.house(forgery.by.1);
        let Some(tip) = house.tip(&self.room).await else { return };
        let prev: Vec<OwnedEventId> = match forgery.follows {
            Some(at) if !self.events.is_empty() => vec![self.events[at % self.events.len()].clone()],
            _ => {
                let ids = tip.extremities.clone();
                house.store.read(move |tx| ids.iter().map(|num| tx.events().id(*num)).collect()).await.expect("reads")
            }
        };
        let draft = self.draft(forgery).await;
        let state = house.state(&self.room).await;
        let (sender, whom) = (self.user(&forgery.by), self.user(&forgery.whom));
        let mut places = vec![("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", sender.as_str())];
        if let Some(target) = draft.state_key.as_deref().filter(|_| draft.kind == "m.room.member") {
            places.extend((target != sender).then_some(("m.room.member", target)));
            places.extend((target == sender).then_some(("m.room.join_rules", "")));
            places.extend((forgery.kind == VOUCHED).then_some(("m.room.member", whom.as_str())));
        }
        match forgery.auth {
            0 => drop(places.pop()),
            1 => drop(places.remove(1)),
            2 => places.push(("m.room.topic", "")),
            3 => places[2].1 = whom.as_str(),
            _ => {}
        }
        let version = house.version(&self.room).await;
        let rules = rules(&version).expect("known");
        places.retain(|(kind, _)| !(rules.authorization.room_create_event_id_as_room_id && *kind == "m.room.create"));
        let auth: Vec<OwnedEventId> =
            places.iter().filter_map(|(kind, key)| state.get(&((*kind).into(), (*key).into())).cloned()).collect();
        let hashes = house.hashes(&self.room, prev.iter().chain(&auth)).await;
        let reference_hash = |id: &EventId| hashes.get(id).cloned();
        let opaque = format!("forged{}", self.done);
        let is_old = matches!(version, RoomVersionId::V1 | RoomVersionId::V2);
        let place = Place {
            room_id: Some(&self.room),
            sender: &sender,
            prev_events: &prev,
            auth_events: &auth,
            depth: u64::try_from(tip.depth + forgery.depth).unwrap_or(1),
            origin_server_ts: house.time.now_ms(),
            server_name: &house.name,
            v1: is_old.then_some(V1Place { opaque: &opaque, reference_hash: &reference_hash }),
        };
        let Ok(pdu) = seal(draft, &place, &key(forgery.by.1), rules) else { return };
        self.events.push(pdu.event_id.clone());
        let to = (0..self.servers).filter(|n| *n != forgery.by.1 && forgery.to & (1 << n) != 0);
        let packet = |n| Packet { from: house.name.clone(), to: name(n), json: pdu.json.to_string() };
        self.flying.extend(to.map(packet));
    }

    async fn draft(&self, forgery: &Forgery) -> Draft {
        let (sender, whom) = (self.user(&forgery.by), self.user(&forgery.whom));
        let member = |who: &str, membership: &str| {
            Draft::state("m.room.member", who, object(json!({ "membership": membership })))
        };
        match forgery.kind {
            0 => Draft::state("m.room.topic", "", object(json!({ "topic": "forged" }))),
            1 => member(whom.as_str(), "ban"),
            2 => member(whom.as_str(), "leave"),
            3 => member(sender.as_str(), "join"),
            4 => {
                let levels = self.net.house(forgery.by.1).content(&self.room, "m.room.power_levels", "").await;
                let mut levels = levels.unwrap_or_else(|| json!({ "users": {} }));
                levels["users"][sender.as_str()] = json!(100);
                Draft::state("m.room.power_levels", "", object(levels))
            }
            5 => Draft::state("m.room.join_rules", "", object(json!({ "join_rule": "invite" }))),
            VOUCHED => {
                let content = json!({ "membership": "join", "join_authorised_via_users_server": whom });
                Draft::state("m.room.member", sender.as_str(), object(content))
            }
            8 => member(sender.as_str(), "knock"),
            9 => Draft::state("m.room.join_rules", "", object(json!({ "join_rule": "restricted" }))),
            _ => Draft::message("m.room.message", object(json!({ "msgtype": "m.text", "body": "forged" }))),
        }
    }
}

impl House {
    async fn version(&self, room: &hearth_matrix::ruma::RoomId) -> RoomVersionId {
        let room = room.to_owned();
        let read = self.store.read(move |tx| Ok(tx.rooms().by_id(&room)?.map(|room| room.version.clone())));
        read.await.expect("reads").expect("the room")
    }

    /// Reference hashes, for versions whose events carry them.
    async fn hashes(
        &self,
        room: &hearth_matrix::ruma::RoomId,
        ids: impl Iterator<Item = &OwnedEventId>,
    ) -> FxHashMap<OwnedEventId, String> {
        let rules = rules(&self.version(room).await).expect("known");
        let mut hashes = FxHashMap::default();
        for id in ids {
            let hash = match self.rooms.event(room, id).await.expect("reads") {
                Some((pdu, _)) => {
                    let event = canonical::Object::parse(&pdu.json).expect("JSON");
                    hash::BASE64.encode(hash::reference_hash(&event, rules))
                }
                None => hash::BASE64.encode([0; 32]),
            };
            hashes.insert(id.clone(), hash);
        }
        hashes
    }
}
