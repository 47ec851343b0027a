//! Servers that answer with what is not so, or with more than anybody needs.

use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};
use hearth_matrix::{Draft, Pdu, Place, rules, seal};
use hearth_room::{MemberAction, StateIdsAt};
use hearth_store::Standing;

use super::{House, Lies, Net, key, lock, name, public_room, text, user};

const VERSION: RoomVersionId = RoomVersionId::V10;

/// Two servers in a room of the first; what the second says is made up.
async fn two() -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(2, 1).await;
    let room = public_room(&net.house(0), VERSION).await;
    let joined = net.house(1).rooms.join_through(&user(0, 1), &room, &[name(0)], CanonicalJsonObject::new()).await;
    joined.expect("joins");
    net.calm_down().await;
    (net, room)
}

fn lie(net: &Net, lies: Lies) {
    lock(&net.lies).insert(name(1), lies);
}

/// An event of the second server that stands nowhere.
fn forged(
    room: &OwnedRoomId,
    sender: &OwnedUserId,
    draft: Draft,
    prev_events: &[OwnedEventId],
    auth_events: &[OwnedEventId],
    depth: u64,
) -> Pdu {
    let place = Place {
        room_id: Some(room),
        sender,
        prev_events,
        auth_events,
        depth,
        origin_server_ts: 1_000_001,
        server_name: &name(1),
        v1: None,
    };
    seal(draft, &place, &key(1), rules(&VERSION).expect("known")).expect("seals")
}

fn made_up(n: usize) -> OwnedEventId {
    OwnedEventId::try_from(format!("${n:0>43}")).expect("an event id")
}

impl House {
    async fn tips(&self, room: &OwnedRoomId) -> Vec<OwnedEventId> {
        let tip = self.tip(room).await.expect("a tip").extremities;
        self.store.read(move |tx| tip.iter().map(|num| tx.events().id(*num)).collect()).await.expect("reads")
    }

    async fn places(&self, room: &OwnedRoomId, places: &[(&str, &str)]) -> Vec<OwnedEventId> {
        let state = self.state(room).await;
        places.iter().filter_map(|(kind, key)| state.get(&((*kind).into(), (*key).into())).cloned()).collect()
    }
}

const TALKS: [(&str, &str); 3] = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", "@u0:s1.test")];

async fn receive(net: &Net, pdu: &Pdu) {
    net.house(0).rooms.receive(&name(1), &[pdu.json.to_string()]).await.expect("the store works");
    net.calm_down().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_told_does_not_decide_over_what_we_know() {
    let (net, room) = two().await;
    let here = net.house(0);
    let banned = user(1, 1);
    let come = MemberAction::Join { guest: false };
    net.house(1).rooms.change_membership(&banned, &room, come, None).await.expect("may");
    net.calm_down().await;
    let told = here.state(&room).await.into_values().collect();
    here.rooms.change_membership(&user(0, 0), &room, MemberAction::Ban(banned.clone()), None).await.expect("may");
    net.calm_down().await;
    let auth = here.places(&room, &TALKS).await;
    let mut prev = here.tips(&room).await;
    prev.push(made_up(1));
    let event = forged(&room, &user(0, 1), text("a lie"), &prev, &auth, 20);
    let told = StateIdsAt { state: told, auth_chain: Vec::new() };
    let state_ids = [(event.event_id.clone(), told.clone()), (made_up(1), told)].into();
    lie(&net, Lies { state_ids, ..Lies::default() });
    receive(&net, &event).await;
    assert_eq!(here.standing(&room, &event.event_id).await, Some(Standing::Live));
    assert_eq!(here.membership(&room, &banned).await.as_deref(), Some("ban"));
}
