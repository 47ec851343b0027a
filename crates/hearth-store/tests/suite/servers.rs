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
    store.write([noun], move |tx| tx.server_keys().keep("a.org", &keys, &document)).await.expect("kept");
}

async fn known(store: &Store) -> (Vec<ServerKey>, String) {
    let read = store.read(|tx| {
        let keys = tx.server_keys().of_servers(&["a.org", "b.org"])?;
        Ok((keys, tx.server_keys().documents_of(&["b.org", "a.org"])?))
    });
    let (mut keys, documents) = read.await.expect("read");
    keys.sort_by(|a, b| a.1.key_id.cmp(&b.1.key_id));
    assert!(keys.iter().all(|(server, _)| server == "a.org"));
    (keys.into_iter().map(|(_, key)| key).collect(), documents[0].1.json.clone())
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
