//! What must be so in the end: each server agrees with itself, and with those that it sees in the room.

use std::collections::{BTreeMap, BTreeSet};

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use hearth_store::{Membership, Standing};

use super::super::House;
use super::{Simulation, USERS};

/// Events of a store at most.
const EVENTS: i64 = 5_000;

impl Simulation {
    pub(super) async fn compare(&self, room: &OwnedRoomId) {
        let seed = self.seed;
        let mut there = Vec::new();
        for n in 0..self.servers {
            let house = self.net.house(n);
            if house.tip(room).await.is_some_and(|tip| tip.joined_local > 0) {
                house.check_itself(room, seed).await;
                while house.rooms.backfill(room, i64::MAX, 100).await.expect("the store works") > 0 {}
                house.check_itself(room, seed).await;
                there.push(house);
            }
        }
        for (at, first) in there.iter().enumerate() {
            for other in there.iter().skip(at + 1) {
                if self.hear_each_other(room, first, other).await {
                    self.compare_two(room, first, other).await;
                }
            }
        }
    }

    /// Whether each of two servers has somebody whom both take for a member.
    ///
    /// Who was shut out while his link was cut may not know it yet. And where two branches left others of a server in the room, it
    /// hears nothing of those whom it takes for gone: what they say fails softly, and so it never learns of their branch.
    async fn hear_each_other(&self, room: &OwnedRoomId, first: &House, other: &House) -> bool {
        for speaker in [first, other] {
            let mut is_heard = false;
            for user in (0..USERS).map(|u| OwnedUserId::try_from(format!("@u{u}:{}", speaker.name)).expect("a user id"))
            {
                let by_first = first.membership(room, &user).await;
                let by_other = other.membership(room, &user).await;
                is_heard |= [by_first, by_other].iter().all(|membership| membership.as_deref() == Some("join"));
            }
            if !is_heard {
                return false;
            }
        }
        true
    }

    async fn compare_two(&self, room: &OwnedRoomId, first: &House, other: &House) {
        let seed = self.seed;
        let state = first.state(room).await;
        let judged = first.judged(room).await;
        {
            let theirs = other.state(room).await;
            let differing: Vec<_> = state
                .iter()
                .filter(|(place, event)| theirs.get(*place) != Some(*event))
                .map(|(place, event)| (place, Some(event), theirs.get(place)))
                .chain(theirs.iter().filter(|(place, _)| !state.contains_key(*place)).map(|(p, e)| (p, None, Some(e))))
                .collect();
            if !differing.is_empty() {
                first.tell(room).await;
                other.tell(room).await;
            }
            assert!(
                differing.is_empty(),
                "seed {seed}: {} and {} disagree on the state: {differing:#?}",
                first.name,
                other.name
            );
            for (event, standing) in other.judged(room).await {
                let Some(here) = judged.get(&event) else { continue };
                let rejected = |standing: &Standing| *standing == Standing::Rejected;
                let differ = rejected(here) != rejected(&standing);
                if differ {
                    first.tell(room).await;
                    other.tell(room).await;
                }
                assert!(
                    !differ,
                    "seed {seed}: {event} is {here:?} at {} and {standing:?} at {}",
                    first.name, other.name
                );
            }
        }
    }
}

impl House {
    /// All events whose state is known, and how they stand.
    async fn judged(&self, room: &OwnedRoomId) -> BTreeMap<OwnedEventId, Standing> {
        let room = room.clone();
        let read = self.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room)? else { return Ok(BTreeMap::new()) };
            let nums: Vec<i64> = (1..EVENTS).collect();
            let rows = tx.events().rows(&nums)?;
            let rows = rows.into_iter().filter(|row| row.room == room.num && row.standing != Standing::Outlier);
            rows.map(|row| Ok((tx.events().id(row.num)?, row.standing))).collect()
        });
        read.await.expect("reads")
    }

    /// The whole graph, for whoever reads a failure.
    async fn tell(&self, room: &OwnedRoomId) {
        let (room, name) = (room.clone(), self.name.clone());
        let read = self.store.read(move |tx| {
            let Some(room) = tx.rooms().by_id(&room)? else { return Ok(()) };
            eprintln!("---- {name}, version {}", room.version);
            let nums: Vec<i64> = (1..EVENTS).collect();
            let mut rows = tx.events().rows(&nums)?;
            rows.retain(|row| row.room == room.num);
            rows.sort_by_key(|row| (row.position, row.num));
            let short = |id: &OwnedEventId| id.as_str()[1..7].to_owned();
            for row in rows {
                let pdu = tx.events().pdu(&room, row.num)?;
                let prev: Vec<_> = pdu.prev_events.iter().map(short).collect();
                let auth: Vec<_> = pdu.auth_events.iter().map(short).collect();
                eprintln!(
                    "{} {:?} {} d{} {} {} {:?} prev {prev:?} auth {auth:?} before {:?} after {:?} {}",
                    short(&pdu.event_id),
                    row.standing,
                    row.num.0,
                    pdu.depth,
                    pdu.sender,
                    pdu.kind,
                    pdu.state_key,
                    row.snapshot_before.map(|s| s.0),
                    row.snapshot_after.map(|s| s.0),
                    pdu.content.get().chars().take(150).collect::<String>(),
                );
            }
            let tip = tx.rooms().tip(room.num)?.expect("a tip");
            eprintln!("tip {:?} gaps {:?}", tip, tx.events().gaps(room.num)?);
            Ok(())
        });
        read.await.expect("reads");
    }

    /// What is derived from the state fits the state.
    pub(in crate::federation) async fn check_itself(&self, room: &OwnedRoomId, seed: u64) {
        let at = format!("seed {seed}, {}", self.name);
        let tip = self.tip(room).await.expect("a tip");
        let mut counts = BTreeMap::<String, i64>::new();
        let mut of_state = BTreeMap::new();
        for ((kind, target), _) in self.state(room).await {
            if kind == "m.room.member" {
                let membership = self.content(room, &kind, &target).await.expect("a member")["membership"].clone();
                let membership = membership.as_str().expect("a membership").to_owned();
                *counts.entry(membership.clone()).or_default() += 1;
                of_state.insert(target, membership);
            }
        }
        let count = |membership: &str| counts.get(membership).copied().unwrap_or(0);
        assert_eq!((tip.joined, tip.invited), (count("join"), count("invite")), "{at}: counts");
        let room_id = room.clone();
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room_id)?.expect("the room");
            let mut rows = BTreeMap::new();
            for membership in
                [Membership::Join, Membership::Invite, Membership::Leave, Membership::Ban, Membership::Knock]
            {
                for row in tx.members().of_room(room.num, membership, 1000)? {
                    let user = tx.string(row.user)?.to_string();
                    assert!(rows.insert(user, membership.as_str().to_owned()).is_none(), "two open intervals");
                }
            }
            Ok(rows)
        });
        let mut rows = read.await.expect("reads");
        // Of whom the state knows nothing any more has left.
        rows.retain(|user, membership| of_state.contains_key(user) || membership != "leave");
        assert_eq!(rows, of_state, "{at}: memberships");
        let joined = of_state.iter().filter(|(_, membership)| *membership == "join");
        let servers: BTreeSet<_> =
            joined.map(|(user, _)| user.split_once(':').expect("a user id").1.to_owned()).collect();
        let known: BTreeSet<_> = self.servers(room).await.iter().map(ToString::to_string).collect();
        assert_eq!(known, servers, "{at}: servers");
        self.check_order(room, &at).await;
        self.check_tip(room, &at).await;
    }

    /// Nothing that came later follows a forward extremity.
    async fn check_tip(&self, room: &OwnedRoomId, at: &str) {
        let tip = self.tip(room).await.expect("a tip");
        let room = room.clone();
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            let nums: Vec<i64> = (1..EVENTS).collect();
            let mut followed = Vec::new();
            for row in tx.events().rows(&nums)? {
                if row.room == room.num && row.standing == Standing::Live && row.position.is_some() {
                    for prev in &tx.events().pdu(&room, row.num)?.prev_events {
                        followed.extend(tx.events().num(&room, prev)?);
                    }
                }
            }
            Ok(followed)
        });
        let followed = read.await.expect("reads");
        assert!(!tip.extremities.is_empty(), "{at}: no extremity");
        assert!(tip.extremities.iter().all(|num| !followed.contains(num)), "{at}: {tip:?} has what others follow");
    }

    /// In the order of the room nothing comes before what it follows.
    async fn check_order(&self, room: &OwnedRoomId, at: &str) {
        let room = room.clone();
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            let nums: Vec<i64> = (1..EVENTS).collect();
            let (mut places, mut all) = (BTreeMap::new(), BTreeMap::new());
            for row in tx.events().rows(&nums)?.into_iter().filter(|row| row.room == room.num) {
                let pdu = tx.events().pdu(&room, row.num)?;
                all.insert(pdu.event_id.clone(), pdu.clone());
                if row.standing == Standing::Live {
                    places.insert(pdu.event_id.clone(), (row.room_order, pdu));
                }
            }
            Ok((places, all))
        });
        let (places, all) = read.await.expect("reads");
        let (mut todo, mut seen) = (places.keys().cloned().collect::<Vec<_>>(), BTreeSet::new());
        while let Some(pdu) = todo.pop().and_then(|id| all.get(&id)) {
            for prev in pdu.prev_events.iter().filter_map(|prev| all.get(prev)) {
                if prev.depth >= pdu.depth {
                    // Where stated depths are lies, also of events in between that are not shown, there may be no place left.
                    return;
                }
                if seen.insert(&prev.event_id) {
                    todo.push(prev.event_id.clone());
                }
            }
        }
        let before =
            |pdu: &Pdu| -> Vec<&(i64, _)> { pdu.prev_events.iter().filter_map(|prev| places.get(prev)).collect() };
        for (order, pdu) in places.values() {
            for (before, prev) in before(pdu) {
                assert!(before < order, "{at}: {} at {order} follows {} at {before}", pdu.event_id, prev.event_id);
            }
        }
    }
}
