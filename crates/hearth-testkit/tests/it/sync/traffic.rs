//! Random traffic: a client that applies every answer has the server's view of every room.

use std::collections::BTreeMap;

use hearth_testkit::{User, Value, json, on_each_backend};

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

// endpoint: GET /_matrix/client/v3/sync
#[tokio::test]
async fn a_client_that_applies_every_answer_has_the_servers_view() {
    on_each_backend(async |mut server| {
        let mut dice = Dice(42);
        let mut users = Vec::new();
        for name in ["alice", "bob", "carol"] {
            users.push(server.user(name).await);
        }
        let mut rooms = vec![public_room(&users[0]).await, public_room(&users[1]).await];
        let filters = [
            json!({}),
            json!({ "room": { "timeline": { "limit": 2 } } }),
            json!({ "room": { "timeline": { "limit": 5, "types": ["m.room.message"] } } }),
        ];
        let mut clients: Vec<Client> = Vec::new();
        for user in &users {
            for filter in &filters {
                clients.push(Client::new(user, filter.clone(), false));
            }
            clients.push(Client::new(user, filters[1].clone(), true));
        }
        for step in 0..150 {
            let user = &users[dice.roll(users.len())];
            let room = rooms[dice.roll(rooms.len())].clone();
            let is_in = is_joined(user, &room).await;
            match dice.roll(12) {
                0 if step % 3 == 0 => rooms.push(create_room(user, json!({ "preset": "public_chat" })).await),
                0..=2 if is_in && !is_creator(&users, user, &room, &rooms) => leave(user, &room).await,
                0..=2 if !is_in => join(user, &room).await,
                3 if is_in => {
                    let content = json!({ "membership": "join", "displayname": format!("name {step}") });
                    set_state(user, &room, "m.room.member", &user.user_id, content).await;
                }
                4..=8 if is_in => {
                    send(user, &room, &format!("s{step}"), &format!("{step}")).await;
                }
                9 if is_joined(&users[0], &room).await && room == rooms[0] => {
                    let key = format!("key{}", dice.roll(4));
                    set_state(&users[0], &room, "org.example.state", &key, json!({ "step": step })).await;
                }
                10 if step % 50 == 10 => {
                    server.restart().await;
                    for user in users.iter_mut().chain(clients.iter_mut().map(|client| &mut client.user)) {
                        *user = user.at(server.target().clone());
                    }
                }
                _ => {}
            }
            let client = dice.roll(clients.len());
            clients[client].catch_up().await;
        }
        for client in &mut clients {
            client.catch_up().await;
            let mut fresh = Client::new(&client.user, json!({ "room": { "timeline": { "limit": 100 } } }), false);
            fresh.catch_up().await;
            assert_eq!(client.rooms.keys().collect::<Vec<_>>(), fresh.rooms.keys().collect::<Vec<_>>());
            for (room_id, room) in &client.rooms {
                let whole = &fresh.rooms[room_id];
                assert_eq!(room.state, whole.state, "{room_id} of {} {}", client.user.user_id, client.filter);
                let known: Vec<&String> =
                    whole.timeline.iter().filter(|event_id| room.timeline.contains(event_id)).collect();
                assert_eq!(known, room.timeline.iter().collect::<Vec<_>>(), "{room_id}: order");
                if client.filter == json!({}) && !room.timeline.is_empty() {
                    let start = whole.timeline.iter().position(|id| Some(id) == room.timeline.first());
                    assert_eq!(&whole.timeline[start.unwrap()..], &room.timeline[..], "{room_id}: nothing is missing");
                }
            }
        }
    })
    .await;
}

async fn is_joined(user: &User, room: &str) -> bool {
    let (_, answer) = user.get("/_matrix/client/v3/joined_rooms").await;
    answer["joined_rooms"].as_array().unwrap().iter().any(|joined| joined == room)
}

/// Who made the first two rooms stays in them, so that there is always somebody who may change their state.
fn is_creator(users: &[User], user: &User, room: &str, rooms: &[String]) -> bool {
    (room == rooms[0] && user.user_id == users[0].user_id) || (room == rooms[1] && user.user_id == users[1].user_id)
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
