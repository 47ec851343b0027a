//! Stores to test with: one after another of each engine, empty, and gone afterwards.

use std::sync::atomic::{AtomicU32, Ordering};

use hearth_store::raw::{Raw, publish};
use hearth_store::{
    Announced, Change, DatabaseUrl, Publication, RoomNum, Store, StoreError, StoreOptions, StringNum, Tx,
};

/// A database that several stores can open, one after another or (PostgreSQL) at once.
pub enum Database {
    Inline,
    Sqlite(tempfile::TempDir),
    Postgres(Schema),
}

impl Database {
    pub fn url(&self) -> DatabaseUrl {
        match self {
            Self::Inline => DatabaseUrl::Inline,
            Self::Sqlite(directory) => DatabaseUrl::Sqlite(directory.path().join("hearth.db")),
            Self::Postgres(schema) => DatabaseUrl::Postgres(schema.url()),
        }
    }

    pub async fn open(&self) -> Store {
        Store::open(StoreOptions { url: self.url(), threads: 3 }).await.expect("opens")
    }
}

/// Each engine that can be tested here, with an empty database.
pub async fn on_each_database(test: impl AsyncFn(&Database)) {
    test(&Database::Inline).await;
    on_each_server(test).await;
}

/// Without the inline mode: where closures run at once, and a database can be opened again.
pub async fn on_each_server(test: impl AsyncFn(&Database)) {
    test(&Database::Sqlite(tempfile::tempdir().expect("a directory"))).await;
    if let Some(schema) = Schema::create().await {
        let database = Database::Postgres(schema);
        test(&database).await;
        let Database::Postgres(schema) = database else { return };
        schema.drop().await;
    }
}

/// The same with a store that is open already, and closed afterwards.
pub async fn on_each_engine(test: impl AsyncFn(&Store)) {
    on_each_database(async |database| {
        let store = database.open().await;
        test(&store).await;
        store.close().await;
    })
    .await;
}

/// A schema of its own on the PostgreSQL of the tests.
pub struct Schema {
    server: String,
    name: String,
}

impl Schema {
    pub async fn create() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let Ok(server) = std::env::var("HEARTH_TEST_POSTGRES") else {
            eprintln!("HEARTH_TEST_POSTGRES is not set: not tested on PostgreSQL");
            return None;
        };
        let name = format!("hearth_test_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let schema = Self { server, name };
        schema.run(&format!("CREATE SCHEMA {}", schema.name)).await;
        Some(schema)
    }

    fn url(&self) -> String {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-csearch_path%3D{1}&application_name={1}", self.server, self.name)
    }

    pub async fn drop(self) {
        self.run(&format!("DROP SCHEMA {} CASCADE", self.name)).await;
    }

    /// A connection beside all stores.
    pub async fn connect(&self) -> tokio_postgres::Client {
        let (client, connection) = tokio_postgres::connect(&self.url(), tokio_postgres::NoTls).await.expect("connects");
        tokio::spawn(connection);
        client
    }

    async fn run(&self, sql: &str) {
        self.connect().await.batch_execute(sql).await.expect("runs");
    }

    /// Cuts all connections of this schema's stores, as a restart of the server would.
    pub async fn terminate_connections(&self) {
        let sql = "SELECT count(pg_terminate_backend(pid, 10000)) FROM pg_stat_activity
                   WHERE application_name = $1 AND pid <> pg_backend_pid()";
        self.connect().await.query(sql, &[&self.name]).await.expect("cuts");
    }
}

/// Publishes one row: a piece of account data of user 1, whose kind is `name`.
pub fn publish_row(tx: &mut Tx<'_>, name: &str) -> Result<(), StoreError> {
    publish_row_of(tx, 1, name)
}

/// The same for any user.
pub fn publish_row_of(tx: &mut Tx<'_>, user: i64, name: &str) -> Result<(), StoreError> {
    let mut publication = Publication::new(Change::AccountData { user: StringNum(user), room: None, push: false });
    publish(
        &mut publication,
        "INSERT INTO account_data (usr, room, kind, content, position) VALUES ($1, 0, $2, $3, position($4))",
        &[user.into(), name.as_bytes().into(), b"{}".as_slice().into(), hearth_store::Value::Position],
    );
    tx.publish(publication);
    Ok(())
}

/// Published rows after a position: position and name, in order.
pub fn rows_after(tx: &mut Tx<'_>, position: i64) -> Result<Vec<(i64, String)>, StoreError> {
    tx.raw_query(
        "SELECT position, kind FROM account_data WHERE position > $1 ORDER BY position",
        &[position.into()],
        |row| Ok((row.int(0)?, row.utf8(1)?.to_owned())),
    )
}

/// Marks a room as published in the directory: a plain row without a position.
pub fn insert_row(tx: &mut Tx<'_>, number: i64) -> Result<(), StoreError> {
    tx.raw_exec("INSERT INTO published_rooms (room) VALUES ($1)", &[number.into()])
}

/// All rows that `insert_row` made.
pub fn rows(tx: &mut Tx<'_>) -> Result<Vec<i64>, StoreError> {
    tx.raw_query("SELECT room FROM published_rooms ORDER BY room", &[], |row| row.int(0))
}

/// Positions and users of what was announced.
pub fn summary(announced: &[Announced]) -> Vec<(i64, i64)> {
    let user = |change: &Change| match change {
        Change::AccountData { user, .. } => user.0,
        _ => 0,
    };
    announced.iter().map(|a| (a.position.0, user(&a.change))).collect()
}

/// A room as a noun.
pub fn room(number: i64) -> Vec<hearth_store::Noun> {
    vec![hearth_store::Noun::Room(RoomNum(number))]
}
