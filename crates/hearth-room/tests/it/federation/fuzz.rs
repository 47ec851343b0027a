//! A server that lies: its events are signed as they should be and say anything, and so do its answers. Whatever it tells, our
//! store works, our picture of the room is whole, and who may talk goes on talking.

use std::cell::RefCell;

use hearth_fuzz::{Dice, changed_json, drive};
use hearth_matrix::ruma::{CanonicalJsonObject, OwnedRoomId, RoomVersionId};
use hearth_matrix::{Completion, complete, rules};
use hearth_room::RoomError;
use serde_json::json;

use super::{House, Net, key, name, public_room, user};

thread_local! {
    static LIES: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// What is told instead of a text.
pub(super) fn told(text: &str) -> String {
    LIES.with_borrow_mut(|dice| {
        let Some(dice) = dice else { return text.to_owned() };
        if dice.below(4) == 0 { changed_json(dice, text) } else { text.to_owned() }
    })
}

fn lie(dice: Option<Dice>) {
    LIES.set(dice);
}

const VERSIONS: [RoomVersionId; 5] =
    [RoomVersionId::V1, RoomVersionId::V5, RoomVersionId::V8, RoomVersionId::V11, RoomVersionId::V12];
/// Lies of one room.
const STEPS: usize = 10;

struct Liar {
    dice: Dice,
    net: std::sync::Arc<Net>,
    room: OwnedRoomId,
    version: RoomVersionId,
    told: usize,
    seed: u64,
}

impl Liar {
    async fn new(seed: u64) -> Self {
        let mut dice = Dice::new(seed);
        let version = dice.one_of(&VERSIONS).clone();
        let net = Net::of(2, seed).await;
        let room = public_room(&net.house(0), version.clone()).await;
        Self { dice, net, room, version, told: 0, seed }
    }

    /// Any event that the liar has, or one of a kind that rooms listen to.
    async fn pattern(&mut self) -> String {
        let state = self.net.house(0).state(&self.room).await;
        let ids: Vec<_> = state.values().cloned().collect();
        let found = self.net.house(0).rooms.event(&self.room, &ids[self.dice.below(ids.len())]).await.expect("reads");
        found.map(|(pdu, _)| pdu.json.to_string()).unwrap_or_default()
    }

    /// An event that the liar signs: a pattern at the room's end, changed.
    async fn event(&mut self) -> String {
        let mut pattern: serde_json::Value = serde_json::from_str(&self.pattern().await).expect("JSON");
        if let Some(tip) = self.net.house(self.dice.below(2)).tip(&self.room).await {
            let ids = tip.extremities.clone();
            let read = self
                .net
                .house(0)
                .store
                .read(move |tx| ids.iter().map(|num| tx.events().id(*num)).collect::<Result<Vec<_>, _>>());
            if let Ok(ids) = read.await
                && !matches!(self.version, RoomVersionId::V1)
            {
                pattern["prev_events"] = json!(ids);
            }
            pattern["depth"] = json!(tip.depth.saturating_add(1));
        }
        if self.dice.below(3) == 0 {
            pattern["content"] = match self.dice.below(5) {
                0 => json!({ "membership": *self.dice.one_of(&["join", "leave", "ban", "invite", "knock"]) }),
                1 => json!({ "users": { user(0, 0): 100, user(0, 1): 50 }, "events": { "m.room.name": "7" } }),
                2 => {
                    json!({ "join_rule": "knock_restricted", "allow": [{ "type": "m.room_membership", "room_id": self.room }] })
                }
                3 => json!({ "m.relates_to": { "rel_type": "m.thread", "event_id": "$t" }, "redacts": "$t" }),
                _ => json!({ "allow": ["*"], "deny": ["s?.test"], "history_visibility": "joined", "aliases": [] }),
            };
        }
        let changed = changed_json(&mut self.dice, &pattern.to_string());
        let server = name(0);
        let opaque = format!("o{}", self.told);
        let with = Completion {
            content: &CanonicalJsonObject::new(),
            origin_server_ts: 1_000_000 + self.told as i64,
            server_name: &server,
            key: &key(0),
            opaque: &opaque,
        };
        // Once in a while what its signature does not fit.
        match complete(&changed, &with, rules(&self.version).expect("known")) {
            Ok(pdu) if self.dice.below(20) > 0 => pdu.json.to_string(),
            _ => changed,
        }
    }

    async fn tell(&mut self) {
        let events: Vec<String> = {
            let mut events = Vec::new();
            for _ in 0..=self.dice.below(3) {
                events.push(self.event().await);
                self.told += 1;
            }
            events
        };
        for n in [1, 0] {
            // The liar takes its own word, so that others find what they ask for.
            let house = self.net.house(n);
            house.rooms.receive(&name(0), &events).await.expect("the store works");
            self.settle(&house).await;
        }
    }

    /// Waits for what goes on about the room, as long as that may take.
    async fn settle(&self, house: &House) {
        for _ in 0..500 {
            house.let_work().await;
            if house.rooms.is_idle() {
                return;
            }
            // Passes at once, as the clock is paused.
            tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        }
    }

    async fn run(mut self) {
        let ours = self.net.house(1);
        lie(Some(Dice::new(self.dice.any())));
        let mut is_in = false;
        for _ in 0..4 {
            let via = [name(0)];
            match ours.rooms.join_through(&user(0, 1), &self.room, &via, CanonicalJsonObject::new()).await {
                Ok(_) => is_in = true,
                Err(RoomError::Store(error)) => panic!("a lie breaks the store: {error}"),
                Err(_) => {}
            }
            if self.dice.below(2) == 0 {
                // In the end it may tell the truth.
                lie(None);
            }
        }
        lie(Some(Dice::new(self.dice.any())));
        for _ in 0..STEPS {
            self.tell().await;
        }
        lie(None);
        self.settle(&ours).await;
        if is_in {
            // All of the state can be read, and each membership is as the state says.
            ours.check_itself(&self.room, self.seed).await;
        }
        if let Err(RoomError::Store(error)) = ours.send(&self.room, &user(0, 1), "still here").await {
            panic!("a lie broke the store: {error}");
        }
        // Another room is as good as ever.
        let other = ours.rooms.create(super::CreateRoom {
            creator: user(0, 1),
            ..super::new_room(self.version, super::Preset::PublicChat)
        });
        let other = other.await.expect("a room");
        ours.send(&other, &user(0, 1), "here, too").await.expect("may talk");
    }
}

#[test]
fn a_server_that_lies_breaks_nothing() {
    let (mut dice, end) = drive("a server that lies");
    while std::time::Instant::now() < end {
        let seed = dice.any() >> 16;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.expect("a runtime").block_on(async { Liar::new(seed).await.run().await });
        }));
        if let Err(panic) = outcome {
            eprintln!("the room of seed {seed}");
            std::panic::resume_unwind(panic);
        }
    }
}
