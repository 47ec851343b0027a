//! What servers are told of a room's state, and what that costs.

use std::sync::Arc;

use hearth_matrix::ruma::{OwnedEventId, RoomVersionId};
use hearth_matrix::{Pdu, SUPPORTED_VERSIONS};
use hearth_room::{MemberAction, Rooms, RoomsConfig};
use hearth_store::raw::Raw as _;
use hearth_store::{DatabaseUrl, Noun, Store, StoreOptions, WallTime};
use serde_json::json;

use super::postgres::Schemas;
use super::{Net, key, name, public_room, user};

fn ids(pdus: &[Arc<Pdu>]) -> Vec<OwnedEventId> {
    pdus.iter().map(|pdu| pdu.event_id.clone()).collect()
}

/// Ids of a room's state, asked for where no event can be read any more.
async fn ids_without_bodies(url: DatabaseUrl, version: RoomVersionId) {
    let open = async || Store::open(StoreOptions { url: url.clone(), threads: 2 }).await.expect("opens");
    let net = Arc::new(Net::default());
    let store = open().await;
    net.move_in(0, store.clone(), 1).await;
    let house = net.house(0);
    let (who, room) = (user(0, 0), public_room(&house, version.clone()).await);
    house.set(&room, &who, "m.room.topic", "", json!({ "topic": "state" })).await.expect("may");
    house.set(&room, &who, "test.state", "key", json!({})).await.expect("may");
    let join = MemberAction::Join { guest: false };
    house.rooms.change_membership(&user(1, 0), &room, join, None).await.expect("may join");
    let said = house.send(&room, &user(1, 0), "hello").await.expect("may talk");
    let whole = house.rooms.state_before(&room, &said).await.expect("is known");
    store.close().await;

    let store = open().await;
    let bodies = vec![Noun::Name("bodies".into())];
    store.write_quiet(bodies, |tx| tx.raw_exec("DELETE FROM event_json", &[])).await.expect("writes");
    let config = RoomsConfig { server_name: name(0), signing_key: key(0).into(), default_version: RoomVersionId::V12 };
    let rooms = Rooms::seeded(config, store.clone(), WallTime::manual(1_000_000), 1);
    let told = rooms.state_ids_before(&room, &said).await.expect("is known");
    store.close().await;
    assert!(whole.state.len() > 7 && whole.auth_chain.len() > 3, "version {version}");
    assert_eq!(told.state, ids(&whole.state), "version {version}");
    assert_eq!(told.auth_chain, ids(&whole.auth_chain), "version {version}");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_state_are_told_without_a_look_at_its_events() {
    let directory = tempfile::tempdir().expect("a directory");
    for version in SUPPORTED_VERSIONS {
        ids_without_bodies(DatabaseUrl::Sqlite(directory.path().join(version.as_str())), version).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_state_are_told_without_a_look_at_its_events_on_postgres_too() {
    let versions = [RoomVersionId::V1, RoomVersionId::V10, RoomVersionId::V12];
    let Some(schemas) = Schemas::create(versions.len()).await else { return };
    for (n, version) in versions.into_iter().enumerate() {
        ids_without_bodies(DatabaseUrl::Postgres(schemas.url(n)), version).await;
    }
    schemas.drop().await;
}
