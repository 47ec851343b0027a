//! Random traffic: a client that applies every answer has the server's view of every room.

use std::collections::BTreeMap;

use hearth_testkit::{TestServer, User, Value, json, on_each_backend};

use super::{Ask, act, create_room, events, join, leave, public_room, send, set_state, sync, token};

/// Small steps of a seeded walk: no chance that a failure cannot be repeated.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % sides
    }
}

/// What a client knows of a room.
#[derive(Clone, Debug, Default, PartialEq)]
struct Room {
    state: BTreeMap<(String, String), String>,
    timeline: Vec<String>,
    senders: BTreeMap<String, String>,
}

/// A client as the specification wants it.
struct Client {
    user: User,
    since: Option<String>,
    filter: Value,
    state_after: bool,
    rooms: BTreeMap<String, Room>,
}

impl Client {
    fn new(user: &User, filter: Value, state_after: bool) -> Self {
        Self { user: user.clone(), since: None, filter, state_after, rooms: BTreeMap::new() }
    }

    async fn catch_up(&mut self) {
        let since = self.since.clone();
        let mut ask = Ask { since: since.as_deref(), ..Ask::default() }.filter(self.filter.clone());
        if self.state_after {
            ask = ask.extra("&use_state_after=true");
        }
        let answer = sync(&self.user, ask).await;
        for (room_id, part) in answer["rooms"]["join"].as_object().into_iter().flatten() {
            self.apply(room_id, part);
        }
        for (room_id, _) in answer["rooms"]["leave"].as_object().into_iter().flatten() {
            self.rooms.remove(room_id);
        }
        self.since = Some(token(&answer).to_owned());
    }

    fn apply(&mut self, room_id: &str, part: &Value) {
        let room = self.rooms.entry(room_id.to_owned()).or_default();
        let section = if self.state_after { "state_after" } else { "state" };
        assert!(part.get(section).is_some() || part.get("timeline").is_none(), "{part}");
        let mut state: Vec<&Value> = events(&part[section]).iter().collect();
        if part["timeline"]["limited"] == true {
            room.timeline.clear();
        }
        for event in events(&part["timeline"]) {
            let event_id = event["event_id"].as_str().unwrap().to_owned();
            assert!(!room.timeline.contains(&event_id), "{event_id} came twice");
            room.senders.insert(event_id.clone(), event["sender"].as_str().unwrap().to_owned());
            room.timeline.push(event_id);
            if !self.state_after && event.get("state_key").is_some() {
                state.push(event);
            }
        }
        for event in state {
            let key = (event["type"].as_str().unwrap().to_owned(), event["state_key"].as_str().unwrap().to_owned());
            room.state.insert(key, event["event_id"].as_str().unwrap().to_owned());
        }
    }
}

/// What clients ask for, and whether they want state apart from the timeline.
fn wishes() -> [(Value, bool); 8] {
    let timeline = |timeline: Value| json!({ "room": { "timeline": timeline } });
    let lazy = json!({ "room": { "timeline": { "limit": 3 }, "state": { "lazy_load_members": true } } });
    [
        (json!({}), false),
        (timeline(json!({ "limit": 2 })), false),
        (timeline(json!({ "limit": 5, "types": ["m.room.message"] })), false),
        (timeline(json!({ "limit": 4, "not_types": ["m.room.member", "org.example.*"] })), false),
        (timeline(json!({ "limit": 0 })), false),
        (timeline(json!({ "limit": 2 })), true),
        (lazy.clone(), false),
        (lazy, true),
    ]
}

/// A seeded walk of three users through their rooms.
struct Walk {
    dice: Dice,
    users: Vec<User>,
    /// Who made the first rooms stays in them, so that there is always somebody who may act there.
    rooms: Vec<String>,
    sent: Vec<(String, String)>,
}

impl Walk {
    async fn step(&mut self, step: usize) {
        let number = self.dice.roll(self.users.len());
        let (user, room) = (self.users[number].clone(), self.rooms[self.dice.roll(self.rooms.len())].clone());
        let stays = self.rooms.iter().take(2).position(|first| *first == room) == Some(number);
        let other = &self.users[(number + 1) % self.users.len()];
        let membership = membership(&user, &room).await;
        match (self.dice.roll(16), &*membership) {
            (0, _) if step.is_multiple_of(3) => {
                self.rooms.push(create_room(&user, json!({ "preset": "public_chat" })).await);
            }
            (0..=2, "join") if !stays => leave(&user, &room).await,
            // Unless he is banned, or needs an invite.
            (0..=3, "leave") => drop(user.post(&super::room_path(&room, "join"), &json!({})).await),
            (3, "join") => {
                let content = json!({ "membership": "join", "displayname": format!("name {step}") });
                set_state(&user, &room, "m.room.member", &user.user_id, content).await;
            }
            (4..=8, "join") => {
                let event_id = send(&user, &room, &format!("s{step}"), &format!("{step}")).await;
                self.sent.push((room, event_id));
            }
            (9..=10, "join") if stays => {
                let key = format!("key{}", self.dice.roll(4));
                set_state(&user, &room, "org.example.state", &key, json!({ "step": step })).await;
            }
            (11, "join") if stays => {
                // Whoever it is: there, gone, or locked out.
                let action = ["kick", "ban", "unban", "invite"][self.dice.roll(4)];
                user.post(&super::room_path(&room, action), &json!({ "user_id": other.user_id })).await;
            }
            (12, "join") => {
                if let Some((room, event_id)) = self.sent.last().cloned() {
                    let path = format!("redact/{}/r{step}", super::encoded(&event_id));
                    user.put(&super::room_path(&room, &path), &json!({})).await;
                }
            }
            _ => {}
        }
    }

    async fn restart(&mut self, server: &mut TestServer, clients: &mut [Client]) {
        server.restart().await;
        for user in self.users.iter_mut().chain(clients.iter_mut().map(|client| &mut client.user)) {
            *user = user.at(server.target().clone());
        }
    }
}

async fn membership(user: &User, room: &str) -> String {
    let path = super::room_path(room, &format!("state/m.room.member/{}", super::encoded(&user.user_id)));
    let (_, answer) = user.get(&path).await;
    answer["membership"].as_str().unwrap_or("leave").to_owned()
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_client_that_applies_every_answer_has_the_servers_view() {
    on_each_backend(async |mut server| {
        let mut users = Vec::new();
        for name in ["alice", "bob", "carol"] {
            users.push(server.user(name).await);
        }
        let rooms = vec![public_room(&users[0]).await, public_room(&users[1]).await];
        let mut clients: Vec<Client> = Vec::new();
        for user in &users {
            for (filter, state_after) in wishes() {
                // Which members a client was told of is remembered by device.
                clients.push(Client::new(&server.login(user).await, filter, state_after));
            }
        }
        // One failure names its seed; others are for those who look for more.
        let seed = std::env::var("HEARTH_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(42);
        let mut walk = Walk { dice: Dice(seed), users, rooms, sent: Vec::new() };
        for step in 0..200 {
            walk.step(step).await;
            if step % 70 == 40 {
                walk.restart(&mut server, &mut clients).await;
            }
            let client = walk.dice.roll(clients.len());
            clients[client].catch_up().await;
        }
        for client in &mut clients {
            client.catch_up().await;
            let mut fresh = Client::new(&client.user, json!({ "room": { "timeline": { "limit": 200 } } }), false);
            fresh.catch_up().await;
            compare(client, &fresh, seed);
        }
    })
    .await;
}

/// A client that followed step by step, and one that asked for everything at the end.
fn compare(client: &Client, fresh: &Client, seed: u64) {
    let who = format!("seed {seed}: {} {} {}", client.user.user_id, client.filter, client.state_after);
    assert_eq!(client.rooms.keys().collect::<Vec<_>>(), fresh.rooms.keys().collect::<Vec<_>>(), "{who}");
    let lazy = client.filter["room"]["state"]["lazy_load_members"] == true;
    for (room_id, room) in &client.rooms {
        let whole = &fresh.rooms[room_id];
        if lazy {
            for (key, event_id) in &whole.state {
                let known = room.state.get(key);
                assert!(known == Some(event_id) || (known.is_none() && key.0 == "m.room.member"), "{who}: {key:?}");
            }
            for event_id in &room.timeline {
                let member = ("m.room.member".to_owned(), whole.senders[event_id].clone());
                assert!(room.state.contains_key(&member), "{who}: {member:?} was never told");
            }
        } else {
            assert_eq!(room.state, whole.state, "{who}: {room_id}");
        }
        let known: Vec<&String> = whole.timeline.iter().filter(|event_id| room.timeline.contains(event_id)).collect();
        assert_eq!(known, room.timeline.iter().collect::<Vec<_>>(), "{who}: {room_id}: order");
        if client.filter == json!({}) && !room.timeline.is_empty() {
            let start = whole.timeline.iter().position(|id| Some(id) == room.timeline.first());
            assert_eq!(&whole.timeline[start.unwrap()..], &room.timeline[..], "{who}: {room_id}: nothing is missing");
        }
    }
}

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn many_events_at_once_come_once_and_in_order() {
    on_each_backend(async |server| {
        let (alice, bob) = (server.user("alice").await, server.user("bob").await);
        let room = public_room(&alice).await;
        join(&bob, &room).await;
        let mut client = Client::new(&bob, json!({ "room": { "timeline": { "limit": 100 } } }), false);
        client.catch_up().await;
        let senders: Vec<_> = (0..40)
            .map(|n| {
                let (alice, room) = (alice.clone(), room.clone());
                tokio::spawn(async move { send(&alice, &room, &format!("m{n}"), "x").await })
            })
            .collect();
        let mut sent = Vec::new();
        for sender in senders {
            sent.push(sender.await.unwrap());
            client.catch_up().await;
        }
        client.catch_up().await;
        let timeline = &client.rooms[&room].timeline;
        for event_id in &sent {
            assert_eq!(timeline.iter().filter(|id| *id == event_id).count(), 1);
        }
        act(&bob, &room, "leave", json!({})).await;
        client.catch_up().await;
        assert!(!client.rooms.contains_key(&room));
    })
    .await;
}
