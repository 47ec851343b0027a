//! What it costs to take in remote events: 10,000 of 50 rooms from 20 servers, checked in full and durable.
//!
//! `cargo bench -p hearth-room` prints events a second and CPU time an event, on SQLite on this disk, and on PostgreSQL if
//! `HEARTH_TEST_POSTGRES` is set (its CPU time is not counted then).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hearth_matrix::ruma::{
    CanonicalJsonObject, EventId, OwnedEventId, OwnedRoomId, OwnedServerName, OwnedUserId, RoomId, RoomVersionId,
    ServerName, UserId,
};
use hearth_matrix::{
    Completion, Draft, Place, RoomVersionRules, SUPPORTED_VERSIONS, SigningKey, complete, rules, seal,
};
use hearth_room::{
    Answer, CreateRoom, JoinAnswer, MissingEvents, Neighbours, Preset, Rooms, RoomsConfig, StateAt, StateIdsAt,
    Template, Unanswered, WantedKey,
};
use hearth_store::{DatabaseUrl, Noun, Store, StoreOptions, WallTime};

const EVENTS: usize = 10_000;
const ROOMS: usize = 50;
const ORIGINS: usize = 20;
/// Events that a server sends at once.
const TRANSACTION: usize = 50;

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        measure("SQLite", DatabaseUrl::Sqlite(directory.path().join("bench.db"))).await;
        let Ok(server) = std::env::var("HEARTH_TEST_POSTGRES") else { return };
        let (client, connection) = tokio_postgres::connect(&server, tokio_postgres::NoTls).await.expect("connects");
        tokio::spawn(connection);
        let schema = format!("hearth_bench_{}", std::process::id());
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.expect("a schema");
        let separator = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{separator}options=-csearch_path%3D{schema}");
        measure("PostgreSQL", DatabaseUrl::Postgres(url)).await;
        client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.expect("drops");
    });
}

fn origin(n: usize) -> OwnedServerName {
    OwnedServerName::try_from(format!("o{n}.test")).expect("a server name")
}

fn sender(n: usize) -> OwnedUserId {
    OwnedUserId::try_from(format!("@u:o{n}.test")).expect("a user id")
}

fn key(n: usize) -> SigningKey {
    SigningKey::from_seed([n as u8 + 1; 32], "a").expect("a key")
}

/// A room as its remote members see it.
struct Far {
    room: OwnedRoomId,
    last: OwnedEventId,
    depth: u64,
    auth: Vec<Vec<OwnedEventId>>,
}

async fn measure(engine: &str, url: DatabaseUrl) {
    let store = Store::open(StoreOptions { url, threads: 4 }).await.expect("opens");
    let host = OwnedUserId::try_from("@host:here.test").expect("a user id");
    let host_id = host.clone();
    store.write(vec![Noun::Name("host".into())], move |tx| tx.intern(host_id.as_str())).await.expect("writes");
    let config = RoomsConfig {
        server_name: OwnedServerName::try_from("here.test").expect("a server name"),
        signing_key: key(200).into(),
        default_version: RoomVersionId::V11,
    };
    let rooms = Rooms::new(config, store.clone(), WallTime::system());
    rooms.connect(Arc::new(KeysOnly((0..ORIGINS).map(|n| key(n).public_key()).collect()))).await.expect("connects");
    let version = RoomVersionId::V11;
    let rules = rules(&version).expect("known");
    let mut far = Vec::new();
    for _ in 0..ROOMS {
        far.push(prepare(&store, &rooms, &host, rules).await);
    }
    let transactions = traffic(&mut far, rules);

    let (start, cpu) = (Instant::now(), cpu_time());
    let mut sent = Vec::new();
    for n in 0..ORIGINS {
        let rooms = rooms.clone();
        let mine: Vec<Vec<String>> =
            transactions.iter().filter(|(origin, _)| *origin == n).map(|(_, pdus)| pdus.clone()).collect();
        sent.push(tokio::spawn(async move {
            for pdus in mine {
                for received in rooms.receive(&origin(n), &pdus).await.expect("the store works") {
                    received.outcome.expect("taken");
                }
            }
        }));
    }
    for sent in sent {
        sent.await.expect("sends");
    }
    let accepted = start.elapsed();
    while !rooms.is_idle() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (elapsed, cpu) = (start.elapsed(), cpu_time() - cpu);
    let last = far.iter().map(|far| (far.room.clone(), far.last.clone())).collect::<Vec<_>>();
    for (room, last) in last {
        assert!(rooms.event(&room, &last).await.expect("reads").is_some(), "the last event of each room is there");
    }
    println!(
        "{engine:12} {:8.0} events/s, {:6.0} µs of CPU an event; answered after {accepted:.2?}, judged after {elapsed:.2?}",
        EVENTS as f64 / elapsed.as_secs_f64(),
        cpu.as_micros() as f64 / EVENTS as f64,
    );
    store.close().await;
}

/// A room of ours with a member of each origin.
async fn prepare(store: &Store, rooms: &Rooms, host: &UserId, rules: &RoomVersionRules) -> Far {
    let request = CreateRoom {
        creator: host.to_owned(),
        version: Some(RoomVersionId::V11),
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
    let room = rooms.create(request).await.expect("a room");
    let mut last = None;
    for n in 0..ORIGINS {
        let template = rooms.join_template(&room, &sender(n), &SUPPORTED_VERSIONS).await.expect("a template");
        let with = Completion {
            content: &CanonicalJsonObject::new(),
            origin_server_ts: 1_000_000,
            server_name: &origin(n),
            key: &key(n),
            opaque: "",
        };
        let join = complete(&template.event, &with, rules).expect("a join");
        let welcomed = rooms.welcome(&origin(n), &room, &join.event_id, &join.json, false).await.expect("comes in");
        last = Some(welcomed.event);
    }
    let last = last.expect("somebody came in");
    let state = state(store, &room).await;
    let auth = (0..ORIGINS).map(|n| {
        let places = [("m.room.create", ""), ("m.room.power_levels", ""), ("m.room.member", sender(n).as_str())]
            .map(|(kind, key)| state[&(kind.to_owned(), key.to_owned())].clone());
        places.to_vec()
    });
    Far { room, last: last.event_id.clone(), depth: last.depth, auth: auth.collect() }
}

async fn state(store: &Store, room: &OwnedRoomId) -> BTreeMap<(String, String), OwnedEventId> {
    let room = room.clone();
    let read = store.read(move |tx| {
        let room = tx.rooms().by_id(&room)?.expect("the room");
        let snapshot = tx.rooms().tip(room.num)?.and_then(|tip| tip.snapshot).expect("a state");
        let entries = tx.state().load(room.num, snapshot)?;
        let entries = entries.into_iter().map(|entry| {
            let key = (tx.string(entry.key.kind)?.to_string(), tx.string(entry.key.state_key)?.to_string());
            Ok((key, tx.events().id(entry.event)?))
        });
        entries.collect()
    });
    read.await.expect("reads")
}

/// Messages of all origins in all rooms, in transactions as a busy hour would bring them.
fn traffic(far: &mut [Far], rules: &RoomVersionRules) -> Vec<(usize, Vec<String>)> {
    let mut transactions = Vec::new();
    let mut n = 0;
    while n < EVENTS {
        let from = (n / TRANSACTION) % ORIGINS;
        let mut pdus = Vec::with_capacity(TRANSACTION);
        for _ in 0..TRANSACTION {
            let far = &mut far[n * 7 % ROOMS];
            let body = format!("message {n} {}", "and some words more, as people write them ".repeat(1 + n % 4));
            let content = serde_json::json!({ "msgtype": "m.text", "body": body });
            let draft = Draft::message("m.room.message", serde_json::from_value(content).expect("an object"));
            let place = Place {
                room_id: Some(&far.room),
                sender: &sender(from),
                prev_events: std::slice::from_ref(&far.last),
                auth_events: &far.auth[from],
                depth: far.depth + 1,
                origin_server_ts: 2_000_000 + n as i64,
                server_name: &origin(from),
                v1: None,
            };
            let pdu = seal(draft, &place, &key(from), rules).expect("seals");
            (far.last, far.depth) = (pdu.event_id.clone(), pdu.depth);
            pdus.push(pdu.json.to_string());
            n += 1;
        }
        transactions.push((from, pdus));
    }
    transactions
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(") ").next().unwrap_or_default().split(' ').collect();
    let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    Duration::from_millis((ticks(11) + ticks(12)) * 10)
}

/// Other servers of which nothing is known but their keys.
struct KeysOnly(Vec<[u8; 32]>);

fn nobody<'a, T: Send + 'a>() -> Answer<'a, Result<T, Unanswered>> {
    Box::pin(async { Err(Unanswered::Unreachable("nobody is there".into())) })
}

impl Neighbours for KeysOnly {
    fn keys(&self, wanted: Vec<WantedKey>) -> Answer<'_, Vec<(WantedKey, [u8; 32])>> {
        Box::pin(async move { self.keys_at_hand(&wanted) })
    }

    fn keys_at_hand(&self, wanted: &[WantedKey]) -> Vec<(WantedKey, [u8; 32])> {
        let number = |server: &ServerName| server.as_str()[1..].split('.').next()?.parse::<usize>().ok();
        let find = |wanted: &WantedKey| Some((wanted.clone(), *self.0.get(number(&wanted.server)?)?));
        wanted.iter().filter_map(find).collect()
    }

    fn missing_events<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: MissingEvents,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        nobody()
    }

    fn event<'a>(&'a self, _: &'a ServerName, _: &'a EventId) -> Answer<'a, Result<String, Unanswered>> {
        nobody()
    }

    fn state_ids<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Answer<'a, Result<StateIdsAt, Unanswered>> {
        nobody()
    }

    fn state<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Answer<'a, Result<StateAt, Unanswered>> {
        nobody()
    }

    fn event_auth<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        nobody()
    }

    fn backfill<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: Vec<OwnedEventId>,
        _: u32,
    ) -> Answer<'a, Result<Vec<String>, Unanswered>> {
        nobody()
    }

    fn make_join<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a UserId,
        _: &'a [RoomVersionId],
    ) -> Answer<'a, Result<Template, Unanswered>> {
        nobody()
    }

    fn send_join<'a>(
        &'a self,
        _: &'a ServerName,
        _: &'a RoomId,
        _: &'a EventId,
        _: String,
    ) -> Answer<'a, Result<JoinAnswer, Unanswered>> {
        nobody()
    }
}
