//! Other servers: their keys, and how it goes with them.

use hearth_store::raw::Raw;
use hearth_store::{Backlog, Destination, KeyDocument, Noun, OwnKey, RoomNum, ServerKey, Store};

use crate::harness::on_each_engine;

fn key(id: &str, byte: u8, valid_until_ts: i64, from_itself: bool) -> ServerKey {
    ServerKey { key_id: id.to_owned(), public_key: [byte; 32], valid_until_ts, expired_ts: None, from_itself }
}

async fn keep(store: &Store, keys: Vec<ServerKey>, json: &str, valid_until_ts: i64) {
    let document = KeyDocument { json: json.to_owned(), valid_until_ts, fetched_ts: 1 };
    let noun = Noun::Name("server:a.org".to_owned());
    let kept =
        store.write([noun], move |tx| tx.server_keys().keep("a.org", &keys, Some(&document))).await.expect("kept");
    let read = store.read(|tx| tx.server_keys().of_servers(&["a.org"])).await.expect("read");
    assert_eq!(sorted(kept), sorted(read.into_iter().map(|(_, key)| key).collect()));
}

fn sorted(mut keys: Vec<ServerKey>) -> Vec<ServerKey> {
    keys.sort_by(|a, b| a.key_id.cmp(&b.key_id));
    keys
}

async fn known(store: &Store) -> (Vec<ServerKey>, String) {
    let read = store.read(|tx| {
        let keys = tx.server_keys().of_servers(&["a.org", "b.org"])?;
        Ok((keys, tx.server_keys().documents_of(&["b.org", "a.org"])?))
    });
    let (keys, documents) = read.await.expect("read");
    assert!(keys.iter().all(|(server, _)| server == "a.org"));
    (sorted(keys.into_iter().map(|(_, key)| key).collect()), documents[0].1.json.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_speaks_for_itself_and_others_only_add() {
    on_each_engine(async |store| {
        keep(store, vec![key("ed25519:1", 1, 100, false)], "first", 100).await;
        keep(store, vec![key("ed25519:1", 9, 200, false), key("ed25519:2", 2, 50, false)], "other", 50).await;
        assert_eq!(known(store).await.0, [key("ed25519:1", 1, 100, false), key("ed25519:2", 2, 50, false)]);
        assert_eq!(known(store).await.1, "first");
        keep(store, vec![key("ed25519:1", 1, 300, false)], "longer", 300).await;
        assert_eq!(known(store).await.0[0].valid_until_ts, 300);
        assert_eq!(known(store).await.1, "longer");
        keep(store, vec![key("ed25519:1", 3, 70, true)], "itself", 70).await;
        assert_eq!(
            known(store).await,
            (vec![key("ed25519:1", 3, 70, true), key("ed25519:2", 2, 50, false)], "itself".to_owned())
        );
        let old = ServerKey { expired_ts: Some(60), ..key("ed25519:2", 2, 50, true) };
        keep(store, vec![old.clone()], "itself", 70).await;
        assert_eq!(known(store).await.0[1], old);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_always_has_other_keys_fills_nothing() {
    on_each_engine(async |store| {
        // What it says itself, and what is told of it: more each time.
        let id = |round: i64, n: usize| format!("ed25519:{round}_{n}");
        for round in 0..5 {
            let mut own: Vec<_> = (0..30).map(|n| key(&id(round, n), 1, 1_000 + round, true)).collect();
            // Old, and still named by the server.
            own.push(ServerKey { expired_ts: Some(1), ..key("ed25519:old", 7, 1_000 + round, true) });
            keep(store, own, "itself", 1_000 + round).await;
            let told = (0..30).map(|n| key(&format!("ed25519:told_{round}_{n}"), 2, 9_000 + round, false)).collect();
            keep(store, told, "other", 1).await;
        }
        let (kept, document) = known(store).await;
        assert_eq!((kept.len(), document.as_str()), (100, "itself"));
        let has = |key_id: &str| kept.iter().any(|key| key.key_id == key_id);
        assert!(kept.iter().all(|key| key.from_itself), "others are believed less than the server itself");
        assert!(has("ed25519:old"), "what the newest document names stays");
        for round in 2..5 {
            assert!((0..30).all(|n| has(&id(round, n))), "{round}: the newest stay");
        }
        assert!((0..30).all(|n| !has(&id(0, n))));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_strangers_are_forgotten_and_their_keys_stay() {
    on_each_engine(async |store| {
        for (server, fetched_ts) in [("old.org", 1), ("older.org", 0), ("new.org", 5), ("member.org", 1)] {
            let document = KeyDocument { json: server.to_owned(), valid_until_ts: i64::MAX, fetched_ts };
            let keep = store.write([Noun::Name(format!("server:{server}"))], move |tx| {
                tx.server_keys().keep(server, &[key("ed25519:1", 1, 100, true)], Some(&document))?;
                if server == "member.org" {
                    let member = tx.intern(server)?;
                    tx.raw_exec(
                        "INSERT INTO room_servers (room, server, since, until, joined) VALUES (1, $1, 1, 2, 0)",
                        &[member.into()],
                    )?;
                }
                Ok(())
            });
            keep.await.expect("kept");
        }
        let sweep = async || store.write(Vec::new(), |tx| tx.server_keys().sweep_documents(5, 1)).await.expect("swept");
        assert_eq!([sweep().await, sweep().await, sweep().await], [1, 1, 0]);
        let servers = ["old.org", "older.org", "new.org", "member.org"];
        let read = store.read(move |tx| {
            let documents = tx.server_keys().documents_of(&servers)?;
            Ok((documents, tx.server_keys().of_servers(&servers)?.len()))
        });
        let (documents, keys) = read.await.expect("read");
        let mut left: Vec<String> = documents.into_iter().map(|(server, _)| server).collect();
        left.sort_unstable();
        assert_eq!((left, keys), (vec!["member.org".to_owned(), "new.org".to_owned()], 4));
        // What comes without a document leaves the one that is there.
        let none = store.write([Noun::Name("server:new.org".to_owned())], |tx| {
            tx.server_keys().keep("new.org", &[key("ed25519:1", 1, 200, true)], None)?;
            tx.server_keys().documents_of(&["new.org"])
        });
        assert_eq!(none.await.expect("kept")[0].1.json, "new.org");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn our_keys_become_old_when_others_take_their_place() {
    on_each_engine(async |store| {
        let sign_with = async |id: &'static str, byte: u8, now: i64| {
            let noun = Noun::Name("identity".to_owned());
            store.write([noun], move |tx| tx.server_keys().sign_with(id, &[byte; 32], now)).await.expect("noted");
            let own = store.read(|tx| tx.server_keys().own()).await.expect("read");
            own.into_iter().map(|OwnKey { key_id, expired_ts, .. }| (key_id, expired_ts)).collect::<Vec<_>>()
        };
        let (one, two) = ("ed25519:1".to_owned(), "ed25519:2".to_owned());
        assert_eq!(sign_with("ed25519:1", 1, 10).await, [(one.clone(), None)]);
        assert_eq!(sign_with("ed25519:1", 1, 20).await, [(one.clone(), None)]);
        assert_eq!(sign_with("ed25519:2", 2, 30).await, [(one.clone(), Some(30)), (two.clone(), None)]);
        assert_eq!(sign_with("ed25519:2", 2, 40).await, [(one.clone(), Some(30)), (two.clone(), None)]);
        assert_eq!(sign_with("ed25519:1", 1, 50).await, [(one, None), (two, Some(50))]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_destination_is_remembered() {
    on_each_engine(async |store| {
        assert_eq!(store.read(|tx| tx.destinations().get("a.org")).await.expect("read"), None);
        let failing = Destination {
            failures: 3,
            failing_since_ts: Some(5),
            retry_ts: 100,
            last_success_ts: None,
            last_error: Some("no answer".to_owned()),
        };
        let fine = Destination { last_success_ts: Some(200), ..Destination::default() };
        for state in [failing, fine] {
            let put = state.clone();
            let noun = Noun::Name("server:a.org".to_owned());
            store.write([noun], move |tx| tx.destinations().put("a.org", &put)).await.expect("written");
            assert_eq!(store.read(|tx| tx.destinations().get("a.org")).await.expect("read"), Some(state));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rooms_in_which_most_waits_are_found() {
    on_each_engine(async |store| {
        let none = store.read(|tx| tx.longest_backlogs(20)).await.expect("read");
        assert_eq!(none, []);
        // In room n wait n events, the first of which came at n.
        let stage = store.write([Noun::Room(RoomNum(1))], |tx| {
            for (num, room) in (1..=30_i64).flat_map(|room| std::iter::repeat_n(room, room as usize)).enumerate() {
                let id = format!("${num}");
                tx.raw_exec(
                    "INSERT INTO staged (num, room, origin, event_id, json, received_ts, verified)
                     VALUES ($1, $2, 1, $3, $3, $2, 0)",
                    &[(num as i64).into(), room.into(), id.as_bytes().into()],
                )?;
            }
            Ok(())
        });
        stage.await.expect("written");
        let expected = |room| Backlog { room: RoomNum(room), staged: room, oldest_ts: room };
        let found = store.read(|tx| tx.longest_backlogs(20)).await.expect("read");
        assert_eq!(found, (11..=30).rev().map(expected).collect::<Vec<_>>());
    })
    .await;
}
