//! Random traffic between servers whose links break, lose, repeat and reorder: in the end all agree.
//!
//! `HEARTH_SIMULATIONS` says how many seeds are tried, `HEARTH_SIMULATION_SEED` names a single one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedEventId, OwnedRoomId, OwnedUserId, RoomVersionId};
use hearth_room::MemberAction;
use hearth_store::{Membership, Standing};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::json;

use super::{House, Net, Packet, name, public_room, user};

const VERSIONS: [RoomVersionId; 5] =
    [RoomVersionId::V1, RoomVersionId::V6, RoomVersionId::V10, RoomVersionId::V11, RoomVersionId::V12];

#[test]
fn servers_agree_after_any_partition() {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u64>().ok());
    let seeds = match number("HEARTH_SIMULATION_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("HEARTH_SIMULATIONS").unwrap_or(8),
    };
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.expect("a runtime").block_on(Simulation::run(seed))
        }));
        if let Err(panic) = outcome {
            eprintln!("HEARTH_SIMULATION_SEED={seed} shows it again");
            std::panic::resume_unwind(panic);
        }
    }
}

struct Simulation {
    seed: u64,
    chance: StdRng,
    net: Arc<Net>,
    servers: usize,
    room: OwnedRoomId,
    flying: Vec<Packet>,
    said: usize,
}

impl Simulation {
    async fn run(seed: u64) {
        let mut chance = StdRng::seed_from_u64(seed);
        let servers = chance.random_range(3..=5);
        let version = VERSIONS[chance.random_range(0..VERSIONS.len())].clone();
        let net = Net::of(servers, seed).await;
        let room = public_room(&net.house(0), version).await;
        let mut simulation = Self { seed, chance, net, servers, room, flying: Vec::new(), said: 0 };
        for n in 1..servers {
            if simulation.chance.random_bool(0.8) {
                simulation.come_in(&user(0, n)).await;
            }
        }
        simulation.net.calm_down().await;
        for _ in 0..120 {
            simulation.step().await;
        }
        simulation.end().await;
    }

    async fn step(&mut self) {
        for n in 0..self.servers {
            self.net.house(n).time.advance(self.chance.random_range(0..20));
        }
        match self.chance.random_range(0..100) {
            0..3 => {
                let (a, b) = (self.chance.random_range(0..self.servers), self.chance.random_range(0..self.servers));
                if a != b {
                    self.net.cut(a, b);
                }
            }
            3..5 => self.net.heal(),
            5..50 => self.act().await,
            _ => self.fly().await,
        }
        self.flying.extend(self.net.packets().await);
    }

    /// A packet arrives, is lost, or arrives and stays for another time.
    async fn fly(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.chance.random_range(0..self.flying.len());
        let packet = self.flying[at].clone();
        match self.chance.random_range(0..20) {
            0 => drop(self.flying.swap_remove(at)),
            1 => self.net.deliver(&packet).await,
            _ => {
                self.flying.swap_remove(at);
                self.net.deliver(&packet).await;
            }
        }
    }

    fn anybody(&mut self) -> OwnedUserId {
        user(self.chance.random_range(0..2), self.chance.random_range(0..self.servers))
    }

    fn home(&self, user: &OwnedUserId) -> Arc<House> {
        self.net.by_name(user.server_name()).expect("a server")
    }

    /// Somebody does something; whether he may is not asked before.
    async fn act(&mut self) {
        let (who, whom) = (self.anybody(), self.anybody());
        let house = self.home(&who);
        self.said += 1;
        let said = self.said;
        let room = self.room.clone();
        let change = async |action| drop(house.rooms.change_membership(&who, &room, action, None).await);
        match self.chance.random_range(0..20) {
            0..5 => drop(house.send(&self.room, &who, &format!("{said}")).await),
            5..7 => drop(house.set(&self.room, &who, "m.room.topic", "", json!({ "topic": format!("{said}") })).await),
            7..9 => {
                let key = format!("{}", self.chance.random_range(0..3));
                drop(house.set(&self.room, &who, "test.state", &key, json!({ "said": said })).await);
            }
            9..11 => self.power(&who, &whom).await,
            11 => {
                let rule = if self.chance.random_bool(0.5) { "public" } else { "invite" };
                drop(house.set(&self.room, &who, "m.room.join_rules", "", json!({ "join_rule": rule })).await);
            }
            12 => change(MemberAction::Ban(whom)).await,
            13 => change(MemberAction::Kick(whom)).await,
            14 => change(MemberAction::Unban(whom)).await,
            15 => change(MemberAction::Leave).await,
            _ => self.come_in(&who).await,
        }
    }

    async fn power(&mut self, who: &OwnedUserId, whom: &OwnedUserId) {
        let house = self.home(who);
        let Some(mut levels) = house.content(&self.room, "m.room.power_levels", "").await else { return };
        let level = [0, 25, 50, 75, 100][self.chance.random_range(0..5)];
        if self.chance.random_bool(0.8) {
            levels["users"][whom.as_str()] = json!(level);
        } else {
            levels["events"]["m.room.topic"] = json!(level);
        }
        drop(house.set(&self.room, who, "m.room.power_levels", "", levels).await);
    }

    /// A user joins: here if his server is in the room, else through another.
    async fn come_in(&mut self, who: &OwnedUserId) {
        let house = self.home(who);
        if house.tip(&self.room).await.is_some_and(|tip| tip.joined_local > 0) {
            drop(house.rooms.change_membership(who, &self.room, MemberAction::Join { guest: false }, None).await);
        } else {
            let first = self.chance.random_range(0..self.servers);
            let servers: Vec<_> = (0..self.servers).map(|n| name((first + n) % self.servers)).collect();
            let joined = house.rooms.join_through(who, &self.room, &servers, CanonicalJsonObject::new()).await;
            drop(joined);
        }
    }

    /// Everything arrives, everybody says a last word, and all agree.
    async fn end(mut self) {
        self.net.heal();
        while !self.flying.is_empty() {
            let at = self.chance.random_range(0..self.flying.len());
            let packet = self.flying.swap_remove(at);
            self.net.deliver(&packet).await;
            self.flying.extend(self.net.packets().await);
        }
        self.net.calm_down().await;
        for round in 0..4 {
            for n in (0..self.servers).rev() {
                for u in 0..2 {
                    drop(self.net.house(n).send(&self.room, &user(u, n), &format!("last {round}")).await);
                }
                self.net.calm_down().await;
            }
        }
        self.compare().await;
    }

    async fn compare(&self) {
        let seed = self.seed;
        let mut there = Vec::new();
        for n in 0..self.servers {
            let house = self.net.house(n);
            if house.tip(&self.room).await.is_some_and(|tip| tip.joined_local > 0) {
                house.check_itself(&self.room, seed).await;
                while house.rooms.backfill(&self.room, i64::MAX, 100).await.expect("the store works") > 0 {}
                house.check_itself(&self.room, seed).await;
                there.push(house);
            }
        }
        // Who was shut out while his link was cut may not know it yet: those agree who see each other in the room.
        for (at, first) in there.iter().enumerate() {
            let seen = first.servers(&self.room).await;
            for other in there.iter().skip(at + 1).filter(|other| seen.contains(&other.name)) {
                if other.servers(&self.room).await.contains(&first.name) {
                    self.compare_two(first, other).await;
                }
            }
        }
    }

    async fn compare_two(&self, first: &House, other: &House) {
        let seed = self.seed;
        let state = first.state(&self.room).await;
        let judged = first.judged(&self.room).await;
        {
            let theirs = other.state(&self.room).await;
            let differing: Vec<_> = state
                .iter()
                .filter(|(place, event)| theirs.get(*place) != Some(*event))
                .map(|(place, event)| (place, Some(event), theirs.get(place)))
                .chain(theirs.iter().filter(|(place, _)| !state.contains_key(*place)).map(|(p, e)| (p, None, Some(e))))
                .collect();
            if !differing.is_empty() {
                first.tell(&self.room).await;
                other.tell(&self.room).await;
            }
            assert!(
                differing.is_empty(),
                "seed {seed}: {} and {} disagree on the state: {differing:#?}",
                first.name,
                other.name
            );
            for (event, standing) in other.judged(&self.room).await {
                let Some(here) = judged.get(&event) else { continue };
                let rejected = |standing: &Standing| *standing == Standing::Rejected;
                let differ = rejected(here) != rejected(&standing);
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
            let nums: Vec<i64> = (1..5_000).collect();
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
            let nums: Vec<i64> = (1..5_000).collect();
            let mut rows = tx.events().rows(&nums)?;
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
    async fn check_itself(&self, room: &OwnedRoomId, seed: u64) {
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
    }

    /// In the order of the room nothing comes before what it follows.
    async fn check_order(&self, room: &OwnedRoomId, at: &str) {
        let room = room.clone();
        let read = self.store.read(move |tx| {
            let room = tx.rooms().by_id(&room)?.expect("the room");
            let nums: Vec<i64> = (1..5_000).collect();
            let mut places = BTreeMap::new();
            for row in tx.events().rows(&nums)?.into_iter().filter(|row| row.standing == Standing::Live) {
                let pdu = tx.events().pdu(&room, row.num)?;
                places.insert(pdu.event_id.clone(), (row.room_order, pdu));
            }
            Ok(places)
        });
        let places = read.await.expect("reads");
        for (order, pdu) in places.values() {
            for prev in &pdu.prev_events {
                if let Some((before, _)) = places.get(prev) {
                    assert!(before < order, "{at}: {} at {order} follows {prev} at {before}", pdu.event_id);
                }
            }
        }
    }
}
