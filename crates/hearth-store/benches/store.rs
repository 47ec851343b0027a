//! What the store costs: CPU and time per append, page and state, on each engine.
//!
//! `cargo bench -p hearth-store` prints a table. PostgreSQL takes part if `HEARTH_TEST_POSTGRES` holds a URL of a server on
//! this machine (its CPU time is read from `/proc`); `HEARTH_BENCH_SECONDS` is the length of each append run. Figures are
//! of commits that wait for the disk. Read the CPU column first: it depends least on what else the machine does.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use hearth_matrix::Pdu;
use hearth_matrix::ruma::{OwnedEventId, OwnedRoomId, RoomVersionId};
use hearth_store::raw::Raw;
use hearth_store::{
    DatabaseUrl, EventNum, NewEvent, Noun, Position, RoomNum, RoomRecord, SnapshotNum, StateKey, Store, StoreError,
    StoreOptions, StringNum, Tip, Tx, Visibility,
};

static NEXT: AtomicI64 = AtomicI64::new(1);

fn main() {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        measure("SQLite", DatabaseUrl::Sqlite(directory.path().join("bench.db")), None).await;
        let Ok(server) = std::env::var("HEARTH_TEST_POSTGRES") else {
            return println!("HEARTH_TEST_POSTGRES is not set: PostgreSQL is left out");
        };
        let (client, connection) = tokio_postgres::connect(&server, tokio_postgres::NoTls).await.expect("connects");
        tokio::spawn(connection);
        let schema = format!("hearth_bench_{}", std::process::id());
        client.batch_execute(&format!("CREATE SCHEMA {schema}")).await.expect("a schema");
        let separator = if server.contains('?') { '&' } else { '?' };
        let url = format!("{server}{separator}options=-csearch_path%3D{schema}");
        measure("PostgreSQL", DatabaseUrl::Postgres(url), Some(&client)).await;
        client.batch_execute(&format!("DROP SCHEMA {schema} CASCADE")).await.expect("drops");
    });
}

async fn measure(engine: &str, url: DatabaseUrl, server: Option<&tokio_postgres::Client>) {
    let options = StoreOptions { url, threads: 4 };
    let store = Store::open(options.clone()).await.expect("opens");
    let mut rooms = Vec::new();
    for _ in 0..64 {
        rooms.push(create_room(&store).await);
    }
    println!("\n{engine:12} appends/s   CPU µs per append: process + database   p50 ms   p99 ms");
    for concurrency in [1, 8, 64] {
        appends(&store, &rooms[..concurrency], server).await;
    }
    let store = pages(store, &options, &rooms[0]).await;
    let store = state(store, &options, 500).await;
    let store = state(store, &options, 50_000).await;
    store.close().await;
}

async fn create_room(store: &Store) -> Arc<RoomRecord> {
    let id =
        OwnedRoomId::try_from(format!("!room{}:example.org", NEXT.fetch_add(1, Ordering::Relaxed))).expect("an id");
    store
        .write([Noun::Name(id.to_string())], move |tx| {
            let creator = tx.intern("@creator:example.org")?;
            let room = Arc::new(tx.rooms().prepare(&id, &RoomVersionId::V11, creator, None, true, 0)?);
            tx.rooms().insert(&room)?;
            Ok(room)
        })
        .await
        .expect("writes")
}

/// A message, about 740 bytes with hashes and signatures.
fn message(room: &RoomRecord) -> Arc<Pdu> {
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    let id = |n: i64| format!("$m4x7mT8fP0sNq1cGz5yQ{n:023}");
    let json = format!(
        r#"{{"auth_events":["{}","{}","{}"],"content":{{"body":"A message of some length, as people write them: number {n}.","m.mentions":{{}},"msgtype":"m.text"}},"depth":{n},"hashes":{{"sha256":"qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq"}},"origin_server_ts":1700000000000,"prev_events":["{}"],"room_id":"{}","sender":"@user{}:example.org","signatures":{{"example.org":{{"ed25519:abcdef":"{:086}"}}}},"type":"m.room.message"}}"#,
        id(1),
        id(2),
        id(3),
        id(n - 1),
        room.room_id,
        n % 50,
        n,
    );
    let event_id = OwnedEventId::try_from(id(n)).expect("an id");
    Arc::new(Pdu::from_stored(json.into(), &event_id, &room.room_id, room.rules).expect("an event"))
}

async fn append(store: &Store, room: &Arc<RoomRecord>) {
    let pdu = message(room);
    let noun = Noun::Room(room.num);
    let room = room.clone();
    let write = move |tx: &mut Tx<'_>| {
        let mut tip = tx.rooms().tip(room.num)?.unwrap_or_else(Tip::empty);
        let num = tx.events().next_num()?;
        let event = NewEvent {
            num,
            pdu: pdu.clone(),
            prev_events: tip.extremities.clone(),
            auth_events: Vec::new(),
            snapshot_before: Some(SnapshotNum(1)),
            snapshot_after: None,
            state_after: None,
            aside: false,
            outbound: false,
            visibility: Visibility::Shared,
            room_order: tip.room_order + 1,
            push: hearth_store::EventPush { outcome: 1, ..Default::default() },
            unread: tip.unread + 1,
            unread_thread: 0,
            reads: true,
            joins: None,
            txn: Some((hearth_store::DeviceNum(1), pdu.event_id.as_str().into())),
            redacts: None,
            redacted_by: None,
            relates_to: None,
            thread: None,
            replaces: None,
            member: None,
            decided: Vec::new(),
        };
        tip.extremities = vec![num];
        tip.depth += 1;
        tip.room_order += 1;
        tip.unread += 1;
        tx.events().append(&room, &[event], &tip)
    };
    store.write([noun], write).await.expect("writes");
}

async fn appends(store: &Store, rooms: &[Arc<RoomRecord>], server: Option<&tokio_postgres::Client>) {
    let seconds = std::env::var("HEARTH_BENCH_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(3.0);
    // Statements are prepared and caches filled before.
    for room in rooms {
        append(store, room).await;
    }
    let before = cpu(server).await;
    let start = Instant::now();
    let deadline = start + Duration::from_secs_f64(seconds);
    let mut tasks = Vec::new();
    for room in rooms {
        let (store, room) = (store.clone(), room.clone());
        tasks.push(tokio::spawn(async move {
            let mut took = Vec::new();
            while Instant::now() < deadline {
                let start = Instant::now();
                append(&store, &room).await;
                took.push(start.elapsed());
            }
            took
        }));
    }
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("no panic"));
    }
    let elapsed = start.elapsed();
    let after = cpu(server).await;
    took.sort_unstable();
    let ms = |part: f64| took[((took.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    println!(
        "{:3} rooms    {:9.0}   {:26.0} + {:8.0}   {:6.2}   {:6.2}",
        rooms.len(),
        took.len() as f64 / elapsed.as_secs_f64(),
        (after.0 - before.0) * 1e6 / took.len() as f64,
        (after.1 - before.1) * 1e6 / took.len() as f64,
        ms(0.5),
        ms(0.99)
    );
}

/// CPU seconds so far: of this process, and of a server's processes for this database's clients and in the background.
async fn cpu(server: Option<&tokio_postgres::Client>) -> (f64, f64) {
    let mut database = 0.0;
    if let Some(client) = server {
        let pids = client.query("SELECT pid FROM pg_stat_activity", &[]).await.expect("pids");
        database = pids.iter().map(|row| cpu_of(row.get::<_, i32>(0).unsigned_abs())).sum::<f64>();
    }
    (cpu_of(std::process::id()), database)
}

fn cpu_of(pid: u32) -> f64 {
    // All threads, also those that ended; in clock ticks of 10 ms, or finer where the scheduler tells.
    let ticks = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).unwrap_or_default();
    let fields: Vec<f64> =
        ticks.rsplit(") ").next().unwrap_or_default().split(' ').filter_map(|f| f.parse().ok()).collect();
    // The state, a letter, did not parse: utime and stime are fields 14 and 15 of the line, 10 and 11 here.
    fields.get(10).zip(fields.get(11)).map_or(0.0, |(user, system)| (user + system) / 100.0)
}

async fn pages(store: Store, options: &StoreOptions, room: &Arc<RoomRecord>) -> Store {
    for _ in 0..60 {
        append(&store, room).await;
    }
    let room = room.clone();
    let page = move |tx: &mut Tx<'_>| {
        let rows = tx.events().newest(room.num, Position(0), Position(i64::MAX), 50)?;
        let nums: Vec<EventNum> = rows.iter().map(|row| row.num).collect();
        Ok(tx.events().pdus(&room, &nums)?.len())
    };
    let times = 200;
    let start = Instant::now();
    for _ in 0..times {
        assert_eq!(store.read(page.clone()).await.expect("reads"), 50);
    }
    line("page of 50 events, JSON in memory, with the way to the thread and back", start.elapsed() / times, "");
    cold(store, options, "page of 50 events", page).await
}

/// Builds a room's state, changes it, and reads it with empty caches.
async fn state(store: Store, options: &StoreOptions, members: i64) -> Store {
    let room = create_room(&store).await.num;
    let key = |member| StateKey { kind: StringNum(1), state_key: StringNum(1_000_000 + member) };
    let mut snapshot = None;
    for first in (0..members).step_by(1_000) {
        let changes: Vec<_> =
            (first..members.min(first + 1_000)).map(|member| (key(member), Some(EventNum(member)))).collect();
        let before = snapshot;
        let write = move |tx: &mut Tx<'_>| tx.state().apply(room, before, &changes);
        snapshot = Some(store.write_quiet([Noun::Room(room)], write).await.expect("writes"));
    }

    let (nodes, bytes) = trie(&store, room).await;
    let times = 1_000;
    for n in 0..times {
        let before = snapshot;
        let member = (n * 7_919) % members;
        let write =
            move |tx: &mut Tx<'_>| tx.state().apply(room, before, &[(key(member), Some(EventNum(1_000_000 + n)))]);
        snapshot = Some(store.write_quiet([Noun::Room(room)], write).await.expect("writes"));
    }
    let (new_nodes, new_bytes) = trie(&store, room).await;
    println!(
        "one change in a room of {members:6}   {:8.0} bytes in {:.1} nodes",
        (new_bytes - bytes) as f64 / times as f64,
        (new_nodes - nodes) as f64 / times as f64
    );

    let Some(snapshot) = snapshot else { return store };
    let read = move |tx: &mut Tx<'_>| tx.state().load(room, snapshot).map(|entries| entries.len());
    let store = cold(store, options, &format!("whole state of a room of {members}"), read).await;
    let read =
        move |tx: &mut Tx<'_>| tx.state().get(room, snapshot, key(members / 2)).map(|found| found.iter().count());
    let store = cold(store, options, &format!("one key in a room of {members}"), read).await;
    let other = create_room(&store).await.num;
    let write = move |tx: &mut Tx<'_>| tx.state().apply(other, None, &[(key(0), Some(EventNum(1)))]);
    let small = store.write_quiet([Noun::Room(other)], write).await.expect("writes");
    let first = move |tx: &mut Tx<'_>| tx.state().get(other, small, key(0)).map(|found| found.iter().count());
    let what = format!("one key in a room of {members}, nothing of the room in memory, statements prepared");
    after(store, options, &what, first, read).await
}

/// Rows and bytes of a room's trie.
async fn trie(store: &Store, room: RoomNum) -> (i64, i64) {
    let sql = "SELECT CAST(count(*) AS BIGINT), CAST(sum(length(data)) AS BIGINT) FROM trie_nodes WHERE room = $1";
    let read = move |tx: &mut Tx<'_>| tx.raw_query(sql, &[room.into()], |row| Ok((row.int(0)?, row.int(1)?)));
    store.read(read).await.expect("reads")[0]
}

/// The first read of a store that was just opened: the median of some. The database's files are in memory.
async fn cold<F>(store: Store, options: &StoreOptions, what: &str, read: F) -> Store
where
    F: Fn(&mut Tx<'_>) -> Result<usize, StoreError> + Send + Clone + 'static,
{
    let nothing = |_: &mut Tx<'_>| Ok(0);
    after(store, options, &format!("{what}, nothing in memory, statements not yet prepared"), nothing, read).await
}

/// The same after another read by the same thread.
async fn after<A, F>(store: Store, options: &StoreOptions, what: &str, first: A, read: F) -> Store
where
    A: Fn(&mut Tx<'_>) -> Result<usize, StoreError> + Send + Clone + 'static,
    F: Fn(&mut Tx<'_>) -> Result<usize, StoreError> + Send + Clone + 'static,
{
    let mut store = store;
    let mut took = Vec::new();
    for _ in 0..7 {
        store.close().await;
        store = Store::open(options.clone()).await.expect("opens");
        let (first, read) = (first.clone(), read.clone());
        let timed = move |tx: &mut Tx<'_>| {
            first(tx)?;
            let start = Instant::now();
            read(tx)?;
            Ok(start.elapsed())
        };
        took.push(store.read(timed).await.expect("reads"));
    }
    took.sort_unstable();
    line(what, took[took.len() / 2], "");
    store
}

fn line(what: &str, took: Duration, how: &str) {
    println!("{what}{how}: {:.3} ms", took.as_secs_f64() * 1e3);
}
