//! Random traffic between servers whose links break, lose, repeat and reorder, and some of which lie: in the end all agree.
//!
//! `HEARTH_SIMULATIONS` says how many seeds are tried, `HEARTH_SIMULATION_SEED` names the first, or a single one. What fails is shrunk: steps
//! are left out as long as it still fails, and those that are needed are told; `HEARTH_SIMULATION_SHRINKING` bounds the tries.

mod agreement;
mod deeds;
mod forgery;
mod plan;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use hearth_matrix::Draft;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, OwnedUserId};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng};
use serde_json::json;

use super::{House, Net, Packet, object, public_room, user};
use plan::{Plan, Step};

/// Users of each server.
const USERS: usize = 2;
/// Runs to make a failure small.
const SHRINKING: u64 = 400;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|value| value.parse().ok())
}

#[test]
fn servers_agree_after_any_partition() {
    let (first, count) = match (number("HEARTH_SIMULATION_SEED"), number("HEARTH_SIMULATIONS")) {
        (Some(first), count) => (first, count.unwrap_or(1)),
        (None, count) => (0, count.unwrap_or(12)),
    };
    let mut failed = Vec::new();
    for seed in first..first.saturating_add(count) {
        if let Err(why) = run(&Plan::of(seed)) {
            eprintln!("HEARTH_SIMULATION_SEED={seed} shows it again: {why}");
            failed.push(seed);
        }
    }
    let Some(first) = failed.first() else { return };
    let plan = shrunk(Plan::of(*first));
    eprintln!("{plan}");
    let why = run(&plan);
    panic!("{} seeds failed: {failed:?}; of {first} {} steps are enough: {why:?}", failed.len(), plan.steps.len());
}

/// What others are judged by was told redacted to those who came in; somebody was heard of whom the other took for gone; an
/// event fetched by itself, because it was missing right before another, waited for its place in vain.
#[test]
fn seeds_that_once_failed_do_so_no_more() {
    for plan in [Plan::narrow(905), Plan::narrow(3092), Plan::of(307)] {
        run(&plan).unwrap_or_else(|why| panic!("{why}"));
    }
}

/// Runs a plan; what was not as it should be.
fn run(plan: &Plan) -> Result<(), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime");
    let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(Simulation::run(plan))));
    outcome.map_err(|panic| match panic.downcast::<String>() {
        Ok(why) => *why,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "a panic".to_owned(), |why| (*why).to_owned()),
    })
}

/// The steps that are needed for a plan to fail.
fn shrunk(mut plan: Plan) -> Plan {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let limit = number("HEARTH_SIMULATION_SHRINKING").unwrap_or(SHRINKING);
    let (mut size, mut runs) = (plan.steps.len().div_ceil(2), 0);
    while size > 0 && runs < limit {
        let (mut at, mut is_smaller) = (0, false);
        while at < plan.steps.len() && runs < limit {
            let mut smaller = plan.clone();
            smaller.steps.drain(at..(at + size).min(plan.steps.len()));
            runs += 1;
            if run(&smaller).is_err() {
                (plan, is_smaller) = (smaller, true);
            } else {
                at += size;
            }
        }
        if size == 1 && !is_smaller {
            break;
        }
        size = (size / 2).max(1);
    }
    std::panic::set_hook(hook);
    plan
}

struct Simulation {
    seed: u64,
    net: Arc<Net>,
    servers: usize,
    room: OwnedRoomId,
    /// The room whose members may come into the other one where its join rule says so.
    lobby: Option<OwnedRoomId>,
    flying: Vec<Packet>,
    /// What was said so far.
    events: Vec<OwnedEventId>,
    /// Counts what is done.
    done: usize,
}

impl Simulation {
    async fn run(plan: &Plan) {
        let servers = plan.servers;
        let net = Net::of(servers, plan.seed).await;
        for (n, ahead) in plan.clocks.iter().enumerate() {
            net.house(n).time.advance(*ahead);
        }
        let room = public_room(&net.house(0), plan.version.clone()).await;
        let lobby = match plan.lobby.is_empty() {
            true => None,
            false => Some(public_room(&net.house(0), plan.version.clone()).await),
        };
        let (seed, flying, events) = (plan.seed, Vec::new(), Vec::new());
        let mut simulation = Self { seed, net, servers, room, lobby, flying, events, done: 0 };
        for n in plan.residents.iter().copied() {
            simulation.come_in(&user(0, n), 0).await;
        }
        if let Some(lobby) = &simulation.lobby {
            for who in &plan.lobby {
                simulation.enter(who, lobby, 0).await;
            }
        }
        simulation.net.calm_down().await;
        simulation.share_power(plan).await;
        if let Some(join_rule) = plan.join_rule {
            simulation.set_join_rule(&(0, 0), join_rule).await;
            simulation.net.calm_down().await;
        }
        for step in &plan.steps {
            simulation.step(step).await;
        }
        simulation.end().await;
    }

    async fn step(&mut self, step: &Step) {
        for (n, ms) in step.ticks.iter().enumerate() {
            self.net.house(n).time.advance(*ms);
        }
        self.act(&step.deed).await;
        self.flying.extend(self.net.packets().await);
    }

    fn home(&self, user: &OwnedUserId) -> Arc<House> {
        self.net.by_name(user.server_name()).expect("a server")
    }

    /// Everything arrives, everybody says a last word, and all agree.
    async fn end(mut self) {
        self.heal();
        let mut chance = StdRng::seed_from_u64(self.seed);
        while !self.flying.is_empty() {
            let at = chance.random_range(0..self.flying.len());
            let packet = self.flying.swap_remove(at);
            self.net.deliver(&packet).await;
            self.flying.extend(self.net.packets().await);
        }
        self.net.calm_down().await;
        for round in 0..4 {
            for n in (0..self.servers).rev() {
                for (u, room) in (0..USERS).flat_map(|u| self.rooms().map(move |room| (u, room))) {
                    let house = self.net.house(n);
                    // Of a type that nobody asks a level for: else a room may have nobody left who can say anything.
                    let word = Draft::message("test.last", object(json!({ "round": round })));
                    drop(house.rooms.send(&user(u, n), room, word, None, None).await);
                }
                self.net.calm_down().await;
            }
        }
        for room in self.rooms() {
            self.compare(room).await;
        }
    }

    fn rooms(&self) -> impl Iterator<Item = &OwnedRoomId> {
        std::iter::once(&self.room).chain(&self.lobby)
    }
}
