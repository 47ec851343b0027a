//! What push rules and badges cost a message in a room of 2,000 members, of whom some have rules of their own.
//!
//! Run with `cargo bench -p hearth-room --bench push`. The store is in memory and on the calling thread, so that time is CPU.

#![allow(clippy::print_stdout, reason = "a benchmark prints")]

use std::time::Instant;

use hearth_matrix::ruma::{CanonicalJsonObject, OwnedRoomId, OwnedUserId, RoomVersionId, UserId, server_name, user_id};
use hearth_matrix::{Draft, SigningKey};
use hearth_room::{CreateRoom, MemberAction, Preset, Rooms, RoomsConfig};
use hearth_store::{DatabaseUrl, Noun, Store, StoreOptions, WallTime};
use serde_json::{Value, json};

const MESSAGES: u32 = 200;

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let (few, many) = (house(2).await, house(2_000).await);
        let message = json!({ "msgtype": "m.text", "body": "Some words that somebody says to all the others here." });
        println!("a message, microseconds in all");
        println!("  2 members                                    {:8.0}", time(&few, &message).await);
        println!("  2000 members                                 {:8.0}", time(&many, &message).await);
        let muted = json!({ "room": [{ "rule_id": many.room, "default": false, "enabled": true, "actions": [] }] });
        many.set_rules(0..200, &muted).await;
        println!("  2000 members, 200 of them mentions only      {:8.0}", time(&many, &message).await);
        let keywords: Vec<Value> = (0..5)
            .map(|n| {
                json!({ "rule_id": format!("k{n}"), "default": false, "enabled": true, "pattern": format!("cake{n}"),
                             "actions": ["notify", { "set_tweak": "highlight" }] })
            })
            .collect();
        many.set_rules(200..300, &json!({ "content": keywords })).await;
        println!("  and 100 of them with five keywords           {:8.0}", time(&many, &message).await);
        let all: Vec<OwnedUserId> = (0..100).map(member).collect();
        let mention = json!({ "msgtype": "m.text", "body": "you", "m.mentions": { "user_ids": all } });
        println!("  a message that mentions 100                  {:8.0}", time(&many, &mention).await);
    });
}

struct House {
    store: Store,
    rooms: Rooms,
    room: OwnedRoomId,
}

fn alice() -> &'static UserId {
    user_id!("@alice:hearth.test")
}

fn member(n: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@member{n}:hearth.test")).expect("a user id")
}

async fn house(members: usize) -> House {
    let store = Store::open(StoreOptions { url: DatabaseUrl::Inline, threads: 1 }).await.expect("a store");
    for user in [alice().to_owned()].into_iter().chain((0..members).map(member)) {
        let intern = move |tx: &mut hearth_store::Tx<'_>| tx.intern(user.as_str());
        store.write(vec![Noun::Name("a user".into())], intern).await.expect("writes");
    }
    let config = RoomsConfig {
        server_name: server_name!("hearth.test").to_owned(),
        signing_key: SigningKey::from_seed([7; 32], "abcdef").expect("a key").into(),
        default_version: RoomVersionId::V12,
    };
    let rooms = Rooms::new(config, store.clone(), WallTime::manual(1_000));
    let create = CreateRoom {
        creator: alice().to_owned(),
        version: None,
        preset: Preset::PublicChat,
        creation_content: CanonicalJsonObject::new(),
        power_levels: None,
        initial_state: Vec::new(),
        name: None,
        topic: None,
        alias_localpart: None,
        invite: Vec::new(),
        is_direct: false,
        published: false,
    };
    let room = rooms.create(create).await.expect("a room");
    for n in 1..members {
        rooms.change_membership(&member(n - 1), &room, MemberAction::Join { guest: false }, None).await.expect("joins");
    }
    House { store, rooms, room }
}

impl House {
    async fn set_rules(&self, members: std::ops::Range<usize>, rules: &Value) {
        let content = json!({ "global": rules }).to_string();
        for n in members {
            let (user, content) = (member(n), content.clone());
            let write = move |tx: &mut hearth_store::Tx<'_>| {
                let user = tx.intern(user.as_str())?;
                tx.account_data().set(user, None, "m.push_rules", &content)
            };
            self.store.write(vec![Noun::Name(format!("rules {n}"))], write).await.expect("writes");
        }
    }
}

/// Microseconds a message.
async fn time(house: &House, content: &Value) -> f64 {
    let send = || {
        let content = serde_json::from_value(content.clone()).expect("an object");
        house.rooms.send(alice(), &house.room, Draft::message("m.room.message", content), None, None)
    };
    for _ in 0..5 {
        send().await.expect("sends");
    }
    let start = Instant::now();
    for _ in 0..MESSAGES {
        send().await.expect("sends");
    }
    start.elapsed().as_secs_f64() * 1e6 / f64::from(MESSAGES)
}
