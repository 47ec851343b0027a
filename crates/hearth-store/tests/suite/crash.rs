//! `kill -9` while many write: what was acknowledged is there, and the clock has no hole.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use hearth_store::{DatabaseUrl, Noun, Store, StoreOptions, StringNum};

use crate::harness::{on_each_server, publish_row_of, rows_after};

const URL: &str = "HEARTH_TEST_CRASH_URL";
/// Acknowledgements to wait for before the kill.
const ACKNOWLEDGED: usize = 300;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() {
    on_each_server(async |database| {
        let url = match database.url() {
            DatabaseUrl::Sqlite(path) => format!("sqlite:{}", path.display()),
            DatabaseUrl::Postgres(url) => url,
            DatabaseUrl::Inline => return,
        };
        let mut child = Command::new(std::env::current_exe().expect("a path"))
            .args(["--exact", "crash::child_that_writes_until_it_is_killed", "--ignored", "--nocapture"])
            .env(URL, url)
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let mut acknowledged = Vec::new();
        let lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        for line in lines {
            let line = line.expect("reads");
            if let Some((_, name)) = line.split_once("acknowledged ") {
                acknowledged.push(name.to_owned());
            }
            if acknowledged.len() == ACKNOWLEDGED {
                child.kill().expect("kills");
            }
        }
        child.wait().expect("ends");
        assert!(acknowledged.len() >= ACKNOWLEDGED, "the child wrote");

        let store = database.open().await;
        let (clock, rows) = store.read(|tx| Ok((tx.position()?.0, rows_after(tx, 0)?))).await.expect("reads");
        assert_eq!(rows.iter().map(|row| row.0).collect::<Vec<_>>(), (1..=clock).collect::<Vec<_>>());
        for name in &acknowledged {
            assert_eq!(rows.iter().filter(|row| row.1 == *name).count(), 1, "{name} is there, once");
        }
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "runs as a child of the test above"]
async fn child_that_writes_until_it_is_killed() {
    let Ok(url) = std::env::var(URL) else { return };
    let url = match url.strip_prefix("sqlite:") {
        Some(path) => DatabaseUrl::Sqlite(path.into()),
        None => DatabaseUrl::Postgres(url),
    };
    let store = Store::open(StoreOptions { url, threads: 2 }).await.expect("opens");
    let mut writers = Vec::new();
    for user in 1..=16 {
        let store = store.clone();
        writers.push(tokio::spawn(async move {
            for n in 0.. {
                let name = format!("{user}:{n}");
                let written = name.clone();
                store
                    .write([Noun::User(StringNum(user))], move |tx| publish_row_of(tx, user, &written))
                    .await
                    .expect("writes");
                // A line at once, or the parent counts what it was never told.
                let line = format!("acknowledged {name}\n");
                std::io::stdout().write_all(line.as_bytes()).expect("tells");
            }
        }));
    }
    for writer in writers {
        writer.await.expect("no panic");
    }
}
