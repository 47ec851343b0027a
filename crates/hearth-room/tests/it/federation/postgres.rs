//! The same on PostgreSQL, where closures of several rooms and servers run at once.

use hearth_matrix::ruma::{CanonicalJsonObject, RoomVersionId};
use hearth_room::{MemberAction, Rooms, RoomsConfig};
use hearth_store::{DatabaseUrl, Store, StoreOptions, WallTime};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{Net, joins, key, name, public_room, user};

/// Schemas on the PostgreSQL of the tests, one a server.
pub(super) struct Schemas {
    server: String,
    names: Vec<String>,
}

impl Schemas {
    pub(super) async fn create(count: usize) -> Option<Self> {
        let Ok(server) = std::env::var("HEARTH_TEST_POSTGRES") else {
            eprintln!("HEARTH_TEST_POSTGRES is not set: not tested on PostgreSQL");
            return None;
        };
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let next = || format!("hearth_rooms_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let names = (0..count).map(|_| next()).collect();
        let schemas = Self { server, names };
        for name in &schemas.names {
            schemas.run(&format!("CREATE SCHEMA {name}")).await;
        }
        Some(schemas)
    }

    pub(super) fn url(&self, n: usize) -> String {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-csearch_path%3D{}", self.server, self.names[n])
    }

    pub(super) async fn drop(self) {
        for name in &self.names {
            self.run(&format!("DROP SCHEMA {name} CASCADE")).await;
        }
    }

    async fn run(&self, sql: &str) {
        let (client, connection) =
            tokio_postgres::connect(&self.server, tokio_postgres::NoTls).await.expect("connects");
        tokio::spawn(connection);
        client.batch_execute(sql).await.expect("runs");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn branches_and_gaps_are_closed_on_postgres_too() {
    let Some(schemas) = Schemas::create(3).await else { return };
    let net = Arc::new(Net::default());
    let mut stores = Vec::new();
    for n in 0..3 {
        let url = DatabaseUrl::Postgres(schemas.url(n));
        let store = Store::open(StoreOptions { url, threads: 4 }).await.expect("opens");
        net.move_in(n, store.clone(), 3).await;
        stores.push(store);
    }
    for version in [RoomVersionId::V1, RoomVersionId::V10, RoomVersionId::V12] {
        let room = public_room(&net.house(0), version.clone()).await;
        for n in 1..3 {
            let house = net.house(n);
            let joined = house.rooms.join_through(&user(0, n), &room, &[name(0)], CanonicalJsonObject::new()).await;
            joined.expect("joins");
            net.calm_down().await;
        }
        let mut levels = net.house(0).content(&room, "m.room.power_levels", "").await.expect("levels");
        levels["users"]["@u0:s1.test"] = json!(75);
        net.house(0).set(&room, &user(0, 0), "m.room.power_levels", "", levels).await.expect("may");
        net.calm_down().await;
        net.cut(0, 1);
        let topic = |topic: &str| json!({ "topic": topic });
        net.house(0).set(&room, &user(0, 0), "m.room.topic", "", topic("ours")).await.expect("may");
        net.house(1).set(&room, &user(0, 1), "m.room.topic", "", topic("theirs")).await.expect("may");
        let ban = MemberAction::Ban(user(0, 2));
        net.house(1).rooms.change_membership(&user(0, 1), &room, ban, None).await.expect("may");
        drop(net.house(2).send(&room, &user(0, 2), "still here").await);
        for n in 0..40 {
            net.house(1).send(&room, &user(0, 1), &format!("{n}")).await.expect("may talk");
        }
        // Only the last of it arrives.
        let packets = net.packets().await;
        net.heal();
        for from in [name(0), name(1)] {
            if let Some(last) = packets.iter().rfind(|packet| packet.from == from && packet.to != name(2)) {
                net.deliver(last).await;
            }
        }
        net.calm_down().await;
        net.house(0).send(&room, &user(0, 0), "together").await.expect("may talk");
        net.calm_down().await;
        let state = net.house(0).state(&room).await;
        assert_eq!(net.house(1).state(&room).await, state, "version {version}");
        assert_eq!(net.house(0).membership(&room, &user(0, 2)).await.as_deref(), Some("ban"), "version {version}");
        let tip = net.house(0).tip(&room).await.expect("a tip");
        assert_eq!((tip.joined, tip.extremities.len()), (2, 1), "version {version}");
    }
    for store in stores {
        store.close().await;
    }
    schemas.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_numbered_above_what_allows_it_whichever_node_made_that() {
    let Some(schemas) = Schemas::create(1).await else { return };
    let open = async || {
        let url = DatabaseUrl::Postgres(schemas.url(0));
        Store::open(StoreOptions { url, threads: 2 }).await.expect("opens")
    };
    let net = Arc::new(Net::default());
    let (store, other_store) = (open().await, open().await);
    net.move_in(0, store.clone(), 1).await;
    let one = net.house(0).rooms.clone();
    let config = RoomsConfig { server_name: name(0), signing_key: key(0).into(), default_version: RoomVersionId::V10 };
    let other = Rooms::seeded(config, other_store.clone(), WallTime::manual(1_000_000), 2);
    let room = public_room(&net.house(0), RoomVersionId::V10).await;
    let who = user(1, 0);
    other.change_membership(&who, &room, MemberAction::Join { guest: false }, None).await.expect("may join");
    for n in 0..4 {
        let node = if n % 2 == 0 { &one } else { &other };
        node.set_state(&who, &room, joins(&format!("{n}"), &who), None).await.expect("may be called so");
    }
    let all: Vec<i64> = (1..10_000).collect();
    let edges = store.read(move |tx| tx.events().auth_edges(&all)).await.expect("reads");
    assert!(edges.len() > 10, "{edges:?}");
    let wrong: Vec<_> = edges.into_iter().filter(|(event, auth)| event <= auth).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    for store in [store, other_store] {
        store.close().await;
    }
    schemas.drop().await;
}
