//! The databases that a test runs on: SQLite always, PostgreSQL if `HEARTH_TEST_POSTGRES` holds a URL.

use std::sync::atomic::{AtomicU32, Ordering};

use hearth::settings::Settings;
use tokio_postgres::error::SqlState;

use crate::TestServer;

/// A database to test on.
#[derive(Debug)]
pub enum Backend {
    /// A file in the data directory.
    Sqlite,
    /// A schema of its own on the PostgreSQL of the tests.
    Postgres(Schema),
}

/// A schema of its own on the PostgreSQL of the tests.
#[derive(Debug)]
pub struct Schema {
    server: String,
    name: String,
}

/// Runs a test on a fresh server over each database.
pub async fn on_each_backend(test: impl AsyncFn(TestServer)) {
    on_each_backend_with(|_| {}, test).await;
}

/// The same with settings of the test's own.
pub async fn on_each_backend_with(adjust: impl Fn(&mut Settings), test: impl AsyncFn(TestServer)) {
    eprintln!("on SQLite");
    test(TestServer::start_on(Backend::Sqlite, &adjust).await).await;
    match Schema::create().await {
        Some(schema) => {
            eprintln!("on PostgreSQL");
            let dropped = schema.twin();
            test(TestServer::start_on(Backend::Postgres(schema), &adjust).await).await;
            dropped.drop().await;
        }
        None => eprintln!("HEARTH_TEST_POSTGRES is not set: not tested on PostgreSQL"),
    }
}

impl Schema {
    /// Makes one, if there is a PostgreSQL for tests.
    pub async fn create() -> Option<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let server = std::env::var("HEARTH_TEST_POSTGRES").ok()?;
        let name = format!("hearth_it_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let schema = Self { server, name };
        schema.run(&format!("CREATE SCHEMA {}", schema.name)).await;
        Some(schema)
    }

    /// Its URL, as the settings want it.
    pub fn url(&self) -> String {
        let separator = if self.server.contains('?') { '&' } else { '?' };
        format!("{}{separator}options=-csearch_path%3D{}", self.server, self.name)
    }

    pub(crate) fn twin(&self) -> Self {
        Self { server: self.server.clone(), name: self.name.clone() }
    }

    pub(crate) async fn drop(self) {
        let sql = format!("DROP SCHEMA {} CASCADE", self.name);
        // The server that used it may still be at work on its last statements, and PostgreSQL then sees a deadlock.
        let mut outcome = self.try_run(&sql).await;
        for _ in 0..20 {
            if outcome.as_ref().is_err_and(|error| error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED)) {
                outcome = self.try_run(&sql).await;
            }
        }
        outcome.expect("the schema goes");
    }

    async fn run(&self, sql: &str) {
        self.try_run(sql).await.expect("SQL of the tests");
    }

    async fn try_run(&self, sql: &str) -> Result<(), tokio_postgres::Error> {
        let (client, connection) =
            tokio_postgres::connect(&self.server, tokio_postgres::NoTls).await.expect("PostgreSQL of the tests");
        let driver = tokio::spawn(connection);
        let outcome = client.batch_execute(sql).await;
        drop(client);
        let _ = driver.await;
        outcome
    }
}
