//! Joins whose answer leaves members out: the room is used at once, and whole in the end.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, RoomVersionId};
use hearth_matrix::{Draft, Pdu, Place, SUPPORTED_VERSIONS, rules, seal};
use hearth_room::{CreateRoom, MemberAction, Preset, RoomError, StateIdsAt};
use hearth_store::Standing;
use serde_json::json;

use super::strangers::TALKS;
use super::{Lies, Net, key, lock, name, new_room, object, public_room, text, user};

/// A room of three servers, into which somebody of the fourth comes while nobody tells him who else is there.
async fn partial(version: RoomVersionId) -> (Arc<Net>, OwnedRoomId) {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), version).await;
    for n in 1..3 {
        join(&net, n, &room).await;
    }
    name_it(&net, &room).await;
    net.omit_members.store(true, Relaxed);
    for n in 0..3 {
        lock(&net.stateless).insert(name(n));
    }
    let house = net.house(3);
    house.rooms.join_through(&user(0, 3), &room, &[name(0)], CanonicalJsonObject::new()).await.expect("joins");
    deliver_all(&net).await;
    assert!(house.rooms.is_partial(&room).await.expect("reads"));
    (net, room)
}

/// A room without a name is called by some of its members: of those one would be told.
async fn name_it(net: &Net, room: &OwnedRoomId) {
    net.house(0).set(room, &user(0, 0), "m.room.name", "", json!({ "name": "The room" })).await.expect("may set");
    net.calm_down().await;
}

async fn join(net: &Net, n: usize, room: &OwnedRoomId) {
    let joined = net.house(n).rooms.join_through(&user(0, n), room, &[name(0)], CanonicalJsonObject::new()).await;
    joined.expect("joins");
    net.calm_down().await;
}

/// Delivers what there is, and does not wait for whom nobody answers.
async fn deliver_all(net: &Net) {
    loop {
        let packets = net.packets().await;
        if packets.is_empty() {
            return;
        }
        for packet in &packets {
            net.deliver(packet).await;
        }
    }
}

/// Now they tell, and the room is whole like everywhere.
async fn complete(net: &Net, room: &OwnedRoomId) {
    lock(&net.stateless).clear();
    net.calm_down().await;
    let house = net.house(3);
    assert!(!house.rooms.is_partial(room).await.expect("reads"));
    assert_eq!(house.state(room).await, net.house(0).state(room).await);
    let (here, there) = (house.tip(room).await.expect("a tip"), net.house(0).tip(room).await.expect("a tip"));
    assert_eq!((here.joined, here.invited, here.knocked), (there.joined, there.invited, there.knocked));
    assert_eq!(house.servers(room).await, net.house(0).servers(room).await);
}

#[tokio::test(start_paused = true)]
async fn a_room_without_a_name_is_called_by_members() {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V12).await;
    join(&net, 1, &room).await;
    net.omit_members.store(true, Relaxed);
    lock(&net.stateless).extend([name(0), name(1)]);
    net.house(3).rooms.join_through(&user(0, 3), &room, &[name(0)], CanonicalJsonObject::new()).await.expect("joins");
    assert!(net.house(3).rooms.is_partial(&room).await.expect("reads"));
    assert_eq!(net.house(3).membership(&room, &user(0, 1)).await.as_deref(), Some("join"));
}

#[tokio::test(start_paused = true)]
async fn a_room_is_used_before_its_members_are_known() {
    for version in SUPPORTED_VERSIONS {
        let (net, room) = partial(version.clone()).await;
        let house = net.house(3);
        assert_eq!(house.membership(&room, &user(0, 1)).await, None, "{version}");
        // One of whom nothing is known speaks, and is known by it.
        let heard = net.house(1).send(&room, &user(0, 1), "hello").await.expect("may talk");
        deliver_all(&net).await;
        assert_eq!(house.standing(&room, &heard).await, Some(Standing::Live), "{version}");
        assert_eq!(house.membership(&room, &user(0, 1)).await.as_deref(), Some("join"), "{version}");
        // And hears.
        let said = house.send(&room, &user(0, 3), "hi").await.expect("may talk");
        let topic = net.house(0).set(&room, &user(0, 0), "m.room.topic", "", json!({ "topic": "t" })).await;
        deliver_all(&net).await;
        for n in 0..3 {
            assert_eq!(net.house(n).standing(&room, &said).await, Some(Standing::Live), "{version}, {n}");
        }
        let topic = topic.expect("may set");
        assert_eq!(house.standing(&room, &topic).await, Some(Standing::Live), "{version}");
        assert!(house.rooms.is_partial(&room).await.expect("reads"), "{version}");
        complete(&net, &room).await;
        let tip = house.tip(&room).await.expect("a tip");
        assert_eq!((tip.joined, tip.joined_local), (4, 1), "{version}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_is_told_to_nobody() {
    let (net, room) = partial(RoomVersionId::V11).await;
    let house = net.house(3);
    let said = house.send(&room, &user(0, 3), "hi").await.expect("may talk");
    let state = house.rooms.state_before(&room, &said).await;
    assert!(matches!(state, Err(RoomError::Forbidden(_))), "{state:?}");
    let template = house.rooms.join_template(&room, &user(1, 1), &SUPPORTED_VERSIONS).await;
    assert!(matches!(template, Err(RoomError::UnknownRoom)), "{template:?}");
    let template = house.rooms.knock_template(&room, &user(1, 1), &SUPPORTED_VERSIONS).await;
    assert!(matches!(template, Err(RoomError::UnknownRoom)), "{template:?}");
    // Another user of ours comes in through those who know whether he may.
    let content = CanonicalJsonObject::new();
    house.rooms.enter(&user(1, 3), &room, false, content, vec![name(1)]).await.expect("comes in");
    deliver_all(&net).await;
    complete(&net, &room).await;
    let state = house.rooms.state_before(&room, &said).await.expect("is known by now");
    assert!(state.state.iter().any(|pdu| pdu.is_state("m.room.member", "@u0:s1.test")));
    house.rooms.join_template(&room, &user(1, 1), &SUPPORTED_VERSIONS).await.expect("is known by now");
}

#[tokio::test(start_paused = true)]
async fn any_server_may_tell_the_rest() {
    let (net, room) = partial(RoomVersionId::V10).await;
    // The one that let him in never does.
    for n in 1..3 {
        lock(&net.stateless).remove(&name(n));
    }
    net.calm_down().await;
    assert!(!net.house(3).rooms.is_partial(&room).await.expect("reads"));
    complete(&net, &room).await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_takes_it_up_again() {
    let (net, room) = partial(RoomVersionId::V12).await;
    let heard = net.house(1).send(&room, &user(0, 1), "hello").await.expect("may talk");
    deliver_all(&net).await;
    net.move_in_again(3, 2).await;
    assert!(net.house(3).rooms.is_partial(&room).await.expect("reads"));
    complete(&net, &room).await;
    assert_eq!(net.house(3).standing(&room, &heard).await, Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_before_it_is_whole_finds_it_whole_in_the_end() {
    let (net, room) = partial(RoomVersionId::V10).await;
    let house = net.house(3);
    let me = user(0, 3);
    house.rooms.change_membership(&me, &room, MemberAction::Leave, None).await.expect("leaves");
    deliver_all(&net).await;
    assert_eq!(net.house(0).membership(&room, &me).await.as_deref(), Some("leave"));
    house.rooms.enter(&me, &room, false, CanonicalJsonObject::new(), vec![name(0)]).await.expect("comes back");
    deliver_all(&net).await;
    assert!(house.rooms.is_partial(&room).await.expect("reads"));
    complete(&net, &room).await;
    assert_eq!(house.membership(&room, &me).await.as_deref(), Some("join"));
}

/// A room into which somebody of the fourth server came while nobody tells him who is there. Somebody of the second, who had
/// all power, is out; the fourth does not know.
struct Believed {
    net: Arc<Net>,
    room: OwnedRoomId,
    /// The state while the liar was in.
    before: std::collections::BTreeMap<(String, String), OwnedEventId>,
    own_join: OwnedEventId,
    depth: u64,
}

const LIAR: usize = 1;
const VICTIM: usize = 2;

impl Believed {
    async fn new() -> Self {
        let net = Net::of(4, 1).await;
        let room = public_room(&net.house(0), RoomVersionId::V10).await;
        for n in 1..3 {
            join(&net, n, &room).await;
        }
        name_it(&net, &room).await;
        let levels = json!({ "users": { user(0, 0): 100, user(0, LIAR): 100, user(0, VICTIM): 50 } });
        net.house(0).set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may set");
        net.calm_down().await;
        let before = net.house(0).state(&room).await;
        let leave = MemberAction::Leave;
        net.house(1).rooms.change_membership(&user(0, LIAR), &room, leave, None).await.expect("leaves");
        net.calm_down().await;
        net.omit_members.store(true, Relaxed);
        for n in 0..3 {
            lock(&net.stateless).insert(name(n));
        }
        let house = net.house(3);
        house.rooms.join_through(&user(0, 3), &room, &[name(0)], CanonicalJsonObject::new()).await.expect("joins");
        deliver_all(&net).await;
        let own_join = net.house(0).state(&room).await[&at("m.room.member", user(0, 3).as_str())].clone();
        let depth = net.house(0).tip(&room).await.expect("a tip").depth as u64;
        Self { net, room, before, own_join, depth }
    }

    /// An event of the first user of a server that claims what was true once.
    fn claiming(&self, server: usize, draft: Draft, prev: &[OwnedEventId], auth: &[(&str, &str)], later: u64) -> Pdu {
        let auth: Vec<OwnedEventId> =
            TALKS[..2].iter().chain(auth).map(|(kind, key)| self.before[&at(kind, key)].clone()).collect();
        let sender = user(0, server);
        let place = Place {
            room_id: Some(&self.room),
            sender: &sender,
            prev_events: prev,
            auth_events: &auth,
            depth: self.depth + later,
            origin_server_ts: 1_000_000 + later as i64,
            server_name: sender.server_name(),
            v1: None,
        };
        seal(draft, &place, &key(server), rules(&RoomVersionId::V10).expect("known")).expect("seals")
    }

    fn kick(&self, prev: &[OwnedEventId], later: u64) -> Pdu {
        let victim = user(0, VICTIM);
        let kick = Draft::state("m.room.member", victim.as_str(), object(json!({ "membership": "leave" })));
        let members = [("m.room.member", "@u0:s1.test"), ("m.room.member", "@u0:s2.test")];
        self.claiming(LIAR, kick, prev, &members, later)
    }

    fn topic(&self, prev: &[OwnedEventId], later: u64) -> Pdu {
        let topic = Draft::state("m.room.topic", "", object(json!({ "topic": "mine" })));
        self.claiming(VICTIM, topic, prev, &[("m.room.member", "@u0:s2.test")], later)
    }

    async fn receive(&self, from: usize, events: &[Pdu]) {
        let events: Vec<String> = events.iter().map(|event| event.json.to_string()).collect();
        let house = self.net.house(3);
        house.rooms.receive(&name(from), &events).await.expect("the store works");
        deliver_all(&self.net).await;
        house.let_work().await;
    }

    async fn complete(&self) {
        lock(&self.net.stateless).clear();
        while self.net.house(3).rooms.is_partial(&self.room).await.expect("reads") {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        self.net.house(3).let_work().await;
    }

    async fn standing(&self, event: &Pdu) -> Option<Standing> {
        self.net.house(3).standing(&self.room, &event.event_id).await
    }
}

fn at(kind: &str, key: &str) -> (String, String) {
    (kind.to_owned(), key.to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_whole_state_decides_over_what_was_believed() {
    let believed = Believed::new().await;
    let (house, room) = (believed.net.house(3), &believed.room);
    let (liar, victim) = (user(0, LIAR), user(0, VICTIM));
    let kick = believed.kick(std::slice::from_ref(&believed.own_join), 1);
    believed.receive(1, std::slice::from_ref(&kick)).await;
    assert_eq!(believed.standing(&kick).await, Some(Standing::Live));
    assert_eq!(house.membership(room, &victim).await.as_deref(), Some("leave"));

    // What the victim does then is refused for now: for all that is known he is out.
    let topic = believed.topic(std::slice::from_ref(&kick.event_id), 2);
    believed.receive(2, std::slice::from_ref(&topic)).await;
    assert_eq!(believed.standing(&topic).await, Some(Standing::Rejected));

    believed.complete().await;
    assert_eq!(believed.standing(&kick).await, Some(Standing::Rejected));
    assert_eq!(believed.standing(&topic).await, Some(Standing::Live));
    assert_eq!(house.membership(room, &victim).await.as_deref(), Some("join"));
    assert_eq!(house.membership(room, &liar).await.as_deref(), Some("leave"));
    assert_eq!(house.content(room, "m.room.topic", "").await, Some(json!({ "topic": "mine" })));
    let tip = house.tip(room).await.expect("a tip");
    assert_eq!((tip.joined, tip.extremities.len()), (3, 1));
    house.rooms.send(&user(0, 3), room, text("on"), None, None).await.expect("may talk");
}

#[tokio::test(start_paused = true)]
async fn what_stands_after_all_stands_also_behind_a_gap() {
    let believed = Believed::new().await;
    let net = &believed.net;
    let kick = believed.kick(std::slice::from_ref(&believed.own_join), 1);
    believed.receive(1, std::slice::from_ref(&kick)).await;
    // Beside the kick comes what nobody gives; of the state there the third server tells what is believed here.
    let second = net.house(2);
    let beside = second.send(&believed.room, &user(0, 2), "beside").await.expect("may talk");
    drop(net.packets().await);
    let state = net.house(3).state(&believed.room).await.into_values().collect();
    let told = StateIdsAt { state, auth_chain: Vec::new() };
    let (own_join, _) = second.rooms.event(&believed.room, &believed.own_join).await.expect("reads").expect("is there");
    let nothing = StateIdsAt { state: Vec::new(), auth_chain: Vec::new() };
    let edges = own_join.prev_events.iter().map(|id| (id.clone(), nothing.clone()));
    let lies = Lies {
        missing_events: Some(Vec::new()),
        state_ids: edges.chain([(beside.clone(), told)]).collect(),
        events: [(beside.clone(), "{}".to_owned())].into(),
        ..Lies::default()
    };
    for n in 0..3 {
        lock(&net.lies).insert(name(n), lies.clone());
    }
    lock(&net.stateless).remove(&name(2));
    let topic = believed.topic(&[kick.event_id.clone(), beside], 3);
    believed.receive(2, std::slice::from_ref(&topic)).await;
    for _ in 0..1_000 {
        if believed.standing(&topic).await.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    assert_eq!(believed.standing(&topic).await, Some(Standing::Rejected));
    assert!(net.house(3).rooms.is_partial(&believed.room).await.expect("reads"));
    lock(&net.lies).clear();
    believed.complete().await;
    assert_eq!(believed.standing(&kick).await, Some(Standing::Rejected));
    assert_eq!(believed.standing(&topic).await, Some(Standing::Live));
}

#[tokio::test(start_paused = true)]
async fn many_rejected_events_behind_one_that_does_not_stand_are_walked_once() {
    let believed = Believed::new().await;
    let mut layer = vec![believed.own_join.clone()];
    for n in 0..6 {
        // Join rules allow no message.
        let auth = [("m.room.member", "@u0:s2.test"), ("m.room.join_rules", "")];
        let next: Vec<Pdu> =
            (0..20).map(|m| believed.claiming(VICTIM, text(&format!("{n} {m}")), &layer, &auth, n + 1)).collect();
        believed.receive(2, &next).await;
        for event in &next {
            assert_eq!(believed.standing(event).await, Some(Standing::Rejected));
        }
        layer = next.into_iter().map(|event| event.event_id).collect();
    }
    let kick = believed.kick(&layer, 10);
    believed.receive(1, std::slice::from_ref(&kick)).await;
    assert_eq!(believed.standing(&kick).await, Some(Standing::Live));
    let (done, ends) = std::sync::mpsc::channel();
    // What walks without end does not end by itself.
    std::thread::spawn(move || {
        if ends.recv_timeout(std::time::Duration::from_secs(120)).is_err() {
            eprintln!("rejected events are walked without end");
            std::process::abort();
        }
    });
    believed.complete().await;
    done.send(()).expect("is awaited");
    assert_eq!(believed.standing(&kick).await, Some(Standing::Rejected));
    let tip = believed.net.house(3).tip(&believed.room).await.expect("a tip");
    assert_eq!(tip.extremities.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn who_came_in_on_a_branch_alone_is_not_there_when_the_state_is_whole() {
    let net = Net::of(4, 1).await;
    let (here, second, fourth) = (net.house(0), net.house(1), net.house(3));
    let room = public_room(&here, RoomVersionId::V10).await;
    join(&net, 1, &room).await;
    name_it(&net, &room).await;
    let invite = MemberAction::Invite(user(0, 3));
    here.rooms.change_membership(&user(0, 0), &room, invite, None).await.expect("may invite");
    net.calm_down().await;
    net.cut(0, 1);
    here.set(&room, &user(0, 0), "m.room.join_rules", "", json!({ "join_rule": "invite" })).await.expect("may");
    let come = MemberAction::Join { guest: false };
    second.rooms.change_membership(&user(1, 1), &room, come, None).await.expect("may for all that is known there");
    let packets = net.packets().await;
    net.heal();
    for packet in &packets {
        net.deliver(packet).await;
    }
    net.calm_down().await;
    assert_eq!(second.membership(&room, &user(1, 1)).await, None);
    assert_eq!(second.tip(&room).await.expect("a tip").extremities.len(), 2);
    net.omit_members.store(true, Relaxed);
    lock(&net.stateless).extend([name(0), name(1)]);
    fourth.rooms.join_through(&user(0, 3), &room, &[name(1)], CanonicalJsonObject::new()).await.expect("joins");
    deliver_all(&net).await;
    assert!(fourth.rooms.is_partial(&room).await.expect("reads"));
    lock(&net.stateless).clear();
    net.calm_down().await;
    assert_eq!(fourth.state(&room).await, second.state(&room).await);
    let told = fourth.told(&room, &user(1, 1)).await.map(|row| row.membership);
    assert!(!matches!(told, Some(hearth_store::Membership::Join)), "{told:?}");
    let joined = |tip: Option<hearth_store::Tip>| tip.expect("a tip").joined;
    assert_eq!(joined(fourth.tip(&room).await), joined(second.tip(&room).await));
}

#[tokio::test(start_paused = true)]
async fn what_one_server_does_not_give_is_asked_of_another() {
    let net = Net::of(4, 1).await;
    let room = public_room(&net.house(0), RoomVersionId::V10).await;
    for n in 1..3 {
        join(&net, n, &room).await;
    }
    name_it(&net, &room).await;
    let come = MemberAction::Join { guest: false };
    net.house(1).rooms.change_membership(&user(1, 1), &room, come, None).await.expect("may join");
    net.calm_down().await;
    let last = net.house(0).state(&room).await[&at("m.room.member", "@u1:s1.test")].clone();
    let lies = Lies { events: [(last, "{}".to_owned())].into(), ..Lies::default() };
    lock(&net.lies).insert(name(0), lies);
    net.omit_members.store(true, Relaxed);
    let content = CanonicalJsonObject::new();
    net.house(3).rooms.join_through(&user(0, 3), &room, &[name(0)], content).await.expect("joins");
    complete(&net, &room).await;
}

#[tokio::test(start_paused = true)]
async fn who_comes_back_after_the_rest_was_given_up_finds_it_whole_in_the_end() {
    let (net, room) = partial(RoomVersionId::V10).await;
    let (house, me) = (net.house(3), user(0, 3));
    net.breaks.store(true, Relaxed);
    while net.breaks.load(Relaxed) {
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    house.rooms.change_membership(&me, &room, MemberAction::Leave, None).await.expect("leaves");
    deliver_all(&net).await;
    house.rooms.enter(&me, &room, false, CanonicalJsonObject::new(), vec![name(0)]).await.expect("comes back");
    deliver_all(&net).await;
    lock(&net.stateless).clear();
    for _ in 0..1_000 {
        if !house.rooms.is_partial(&room).await.expect("reads") {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    complete(&net, &room).await;
}

#[tokio::test(start_paused = true)]
async fn a_ban_from_an_earlier_stay_does_not_hold_in_the_next() {
    let net = Net::of(2, 1).await;
    let (here, there) = (net.house(0), net.house(1));
    let room = public_room(&here, RoomVersionId::V12).await;
    name_it(&net, &room).await;
    join(&net, 1, &room).await;
    let (host, first, second) = (user(0, 0), user(0, 1), user(1, 1));
    there.rooms.enter(&second, &room, false, CanonicalJsonObject::new(), vec![name(0)]).await.expect("comes in");
    net.calm_down().await;
    here.rooms.change_membership(&host, &room, MemberAction::Ban(second.clone()), None).await.expect("may");
    net.calm_down().await;
    there.rooms.change_membership(&first, &room, MemberAction::Leave, None).await.expect("leaves");
    net.calm_down().await;
    // Nobody there hears of it.
    here.rooms.change_membership(&host, &room, MemberAction::Unban(second.clone()), None).await.expect("may");
    drop(net.packets().await);
    net.omit_members.store(true, Relaxed);
    lock(&net.stateless).insert(name(0));
    for user in [&first, &second] {
        let content = CanonicalJsonObject::new();
        there.rooms.enter(user, &room, false, content, vec![name(0)]).await.expect("comes back");
    }
    assert!(there.rooms.is_partial(&room).await.expect("reads"));
    lock(&net.stateless).clear();
    net.calm_down().await;
    assert_eq!(there.membership(&room, &second).await.as_deref(), Some("join"));
    assert_eq!(there.state(&room).await, here.state(&room).await);
}

#[tokio::test(start_paused = true)]
async fn a_room_whose_members_are_not_known_opens_no_other_and_shuts_none() {
    let (net, gate) = partial(RoomVersionId::V11).await;
    let house = net.house(3);
    let request = CreateRoom { creator: user(0, 3), ..new_room(RoomVersionId::V11, Preset::PublicChat) };
    let room = house.rooms.create(request).await.expect("a room");
    let allow = json!([{ "type": "m.room_membership", "room_id": gate }]);
    let rules = json!({ "join_rule": "restricted", "allow": allow });
    house.set(&room, &user(0, 3), "m.room.join_rules", "", rules).await.expect("may");
    // He is in the room, and has been heard there, which may be from an earlier stay.
    net.house(1).send(&gate, &user(0, 1), "hello").await.expect("may talk");
    deliver_all(&net).await;
    assert_eq!(house.membership(&gate, &user(0, 1)).await.as_deref(), Some("join"));
    for n in [1, 2] {
        let asked = house.rooms.join_template(&room, &user(0, n), &SUPPORTED_VERSIONS).await;
        assert!(matches!(asked, Err(RoomError::UnableToAuthoriseJoin)), "{n}: {asked:?}");
    }
    complete(&net, &gate).await;
    for n in [1, 2] {
        house.rooms.join_template(&room, &user(0, n), &SUPPORTED_VERSIONS).await.expect("he is in the room");
    }
}
