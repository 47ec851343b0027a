//! `kill -9` in a loop under load: every acknowledged event is there afterwards, once, in order.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{Sender as Tally, channel};

use serde_json::{Value, json};

use crate::process::{Server, hearth};

const ROUNDS: usize = 4;
const ROOMS: usize = 8;
const SENDERS: usize = 64;
/// Acknowledgements to wait for before each kill.
const ACKNOWLEDGED: usize = 400;

#[test]
fn what_was_acknowledged_survives_on_sqlite() {
    survives(None);
}

#[test]
fn what_was_acknowledged_survives_on_postgresql() {
    let Ok(url) = std::env::var("HEARTH_TEST_POSTGRES") else {
        eprintln!("HEARTH_TEST_POSTGRES is not set: not tested on PostgreSQL");
        return;
    };
    let schema = format!("hearth_kill_{}", std::process::id());
    let separator = if url.contains('?') { '&' } else { '?' };
    run_sql(&url, &format!("CREATE SCHEMA {schema}"));
    survives(Some(&format!("{url}{separator}options=-csearch_path%3D{schema}")));
    run_sql(&url, &format!("DROP SCHEMA {schema} CASCADE"));
}

/// One who sends messages to a room, one after the other, each until it is acknowledged.
struct Sender {
    name: usize,
    room: String,
    token: String,
    /// Event ids of acknowledged messages, in order.
    acknowledged: Vec<String>,
}

impl Sender {
    /// Sends until the server is gone. The message that was under way then is sent again in the next round.
    fn send(&mut self, address: SocketAddr, tally: &Tally<()>) {
        loop {
            let number = self.acknowledged.len();
            let path = format!("rooms/{}/send/m.room.message/{}-{number}", self.room, self.name);
            let body = json!({ "msgtype": "m.text", "body": format!("{} {number}", self.name) });
            let Some((status, answer)) = ask(address, "PUT", &path, &self.token, &body) else { return };
            assert_eq!(status, 200, "{answer}");
            self.acknowledged.push(answer["event_id"].as_str().expect("an event id").to_owned());
            // Nobody counts any more once the server is to be killed.
            let _ = tally.send(());
        }
    }
}

fn survives(database: Option<&str>) {
    let home = tempfile::tempdir().unwrap();
    let start = || {
        let mut command = hearth(home.path(), &["serve", "--bind", "127.0.0.1:0"]);
        let settings = [
            ("REGISTRATION__ENABLED", "true"),
            ("RATE_LIMITS__ENABLED", "false"),
            ("LOGGING__LEVEL", "\"info,http=warn\""),
        ];
        for (key, value) in settings {
            command.env(format!("HEARTH__{key}"), value);
        }
        if let Some(url) = database {
            command.env("HEARTH__DATABASE__URL", url);
        }
        Server::spawn(command)
    };

    let server = start();
    let token = register(server.address);
    let rooms: Vec<String> = (0..ROOMS).map(|_| create_room(server.address, &token)).collect();
    server.stop();
    let mut senders: Vec<Sender> = (0..SENDERS)
        .map(|name| Sender { name, room: rooms[name % ROOMS].clone(), token: token.clone(), acknowledged: Vec::new() })
        .collect();

    for _ in 0..ROUNDS {
        let server = start();
        let address = server.address;
        let (tally, acknowledged) = channel();
        std::thread::scope(|threads| {
            for sender in &mut senders {
                let tally = tally.clone();
                threads.spawn(move || sender.send(address, &tally));
            }
            drop(tally);
            assert_eq!(acknowledged.iter().take(ACKNOWLEDGED).count(), ACKNOWLEDGED, "the server ended by itself");
            server.signal("KILL");
        });
        drop(server.end());
    }

    let server = start();
    for room in &rooms {
        let timeline = read_room(server.address, &token, room);
        let mut ids: Vec<&str> = timeline.iter().map(|(id, _)| id.as_str()).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), timeline.len(), "an event is there twice");

        let mut found: HashMap<usize, Vec<(usize, &str)>> = HashMap::new();
        for (id, body) in &timeline {
            let (name, number) = body.split_once(' ').expect("a sender and a number");
            found.entry(name.parse().unwrap()).or_default().push((number.parse().unwrap(), id));
        }
        for sender in senders.iter().filter(|sender| sender.room == *room) {
            let messages = found.remove(&sender.name).unwrap_or_default();
            let numbers: Vec<usize> = messages.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, Vec::from_iter(0..messages.len()), "messages are in order, none twice");
            let acknowledged = &sender.acknowledged;
            // One more may be there: committed, but killed before the answer.
            assert!((acknowledged.len()..=acknowledged.len() + 1).contains(&messages.len()));
            for (id, (_, there)) in acknowledged.iter().zip(&messages) {
                assert_eq!(id, there, "the event is the one that was acknowledged");
            }
        }
    }
    server.stop();
}

fn register(address: SocketAddr) -> String {
    let body = json!({ "username": "alice", "password": "correct horse", "auth": { "type": "m.login.dummy" } });
    let (status, answer) = ask(address, "POST", "register", "", &body).expect("an answer");
    assert_eq!(status, 200, "{answer}");
    answer["access_token"].as_str().expect("a token").to_owned()
}

fn create_room(address: SocketAddr, token: &str) -> String {
    let (status, answer) = ask(address, "POST", "createRoom", token, &json!({})).expect("an answer");
    assert_eq!(status, 200, "{answer}");
    answer["room_id"].as_str().expect("a room id").to_owned()
}

/// All messages of a room, oldest first: event id and body.
fn read_room(address: SocketAddr, token: &str, room: &str) -> Vec<(String, String)> {
    let mut messages = Vec::new();
    let mut from = String::new();
    loop {
        let path = format!("rooms/{room}/messages?dir=f&limit=500{from}");
        let (status, answer) = ask(address, "GET", &path, token, &Value::Null).expect("an answer");
        assert_eq!(status, 200, "{answer}");
        for event in answer["chunk"].as_array().expect("a chunk") {
            if event["type"] == "m.room.message" {
                let text = |value: &Value| value.as_str().expect("text").to_owned();
                messages.push((text(&event["event_id"]), text(&event["content"]["body"])));
            }
        }
        match answer["end"].as_str() {
            Some(end) => from = format!("&from={end}"),
            None => return messages,
        }
    }
}

/// One request; none if the server went away meanwhile.
fn ask(address: SocketAddr, method: &str, path: &str, token: &str, body: &Value) -> Option<(u16, Value)> {
    let mut stream = TcpStream::connect(address).ok()?;
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let length = body.len();
    write!(
        stream,
        "{method} /_matrix/client/v3/{path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok()?;
    let answer = String::from_utf8(answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    // An answer cut off by the kill is none.
    Some((status, serde_json::from_str(body).ok()?))
}

fn run_sql(url: &str, sql: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await.unwrap();
        let driver = tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
        drop(client);
        let _ = driver.await;
    });
}
