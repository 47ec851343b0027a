//! Many writers at once, several stores on one database, connections that break.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, mpsc};
use std::task::Poll;

use hearth_store::raw::Raw;
use hearth_store::{Noun, Position, Store, StoreError, StringNum, Tx};

use crate::harness::{
    Database, Schema, insert_row, on_each_database, on_each_server, publish_row, publish_row_of, room, rows,
    rows_after, summary,
};

const WRITERS: i64 = 8;
const WRITES: i64 = 40;

/// One store, or two on the same database where the engine allows it.
async fn stores(database: &Database) -> Vec<Store> {
    let mut stores = vec![database.open().await];
    if matches!(database, Database::Postgres(_)) {
        stores.push(database.open().await);
    }
    stores
}

async fn close(stores: Vec<Store>) {
    for store in stores {
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_who_follows_the_clock_misses_nothing() {
    on_each_database(async |database| {
        let stores = stores(database).await;
        let heard: Vec<_> = stores
            .iter()
            .map(|store| {
                let heard = Arc::new(Mutex::new(Vec::new()));
                let mine = heard.clone();
                store.on_commit(move |announced| mine.lock().expect("lock").extend(summary(announced)));
                heard
            })
            .collect();
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            for (node, store) in stores.iter().enumerate() {
                let store = store.clone();
                let user = 1 + writer * 2 + node as i64;
                tasks.push(tokio::spawn(async move {
                    for n in 0..WRITES {
                        let write = move |tx: &mut Tx<'_>| publish_row_of(tx, user, &format!("{n}"));
                        store.write([Noun::User(StringNum(user))], write).await.expect("writes");
                    }
                }));
            }
        }

        let expected = stores.len() as i64 * WRITERS * WRITES;
        let mut seen = Vec::new();
        let mut position = 0;
        while (seen.len() as i64) < expected {
            let (clock, new) =
                stores[0].read(move |tx| Ok((tx.position()?.0, rows_after(tx, position)?))).await.expect("reads");
            assert!(new.iter().all(|(at, _)| *at <= clock), "rows lie behind the clock that was read with them");
            seen.extend(new.into_iter().map(|(at, _)| at));
            position = clock;
            tokio::task::yield_now().await;
            // A reader that missed a row would wait for ever.
            if clock >= expected {
                break;
            }
        }
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(seen, (1..=expected).collect::<Vec<_>>());

        let mut all = Vec::new();
        for heard in &heard {
            let heard = heard.lock().expect("lock");
            assert!(heard.is_sorted(), "announced in order");
            all.extend(heard.iter().copied());
        }
        all.sort_unstable();
        let stored = stores[0]
            .read(|tx| {
                tx.raw_query("SELECT position, usr FROM account_data ORDER BY position", &[], |row| {
                    Ok((row.int(0)?, row.int(1)?))
                })
            })
            .await
            .expect("reads");
        assert_eq!(all, stored, "announced what is stored");
        close(stores).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_of_the_same_noun_see_each_other() {
    on_each_database(async |database| {
        let stores = stores(database).await;
        stores[0].write(room(1), |tx| insert_row(tx, 0)).await.expect("writes");
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            for store in &stores {
                let store = store.clone();
                tasks.push(tokio::spawn(async move {
                    let increment = |tx: &mut Tx<'_>| {
                        let now = rows(tx)?[0];
                        tx.raw_exec("UPDATE published_rooms SET room = $1", &[(now + 1).into()])
                    };
                    for _ in 0..10 {
                        // Both lanes: bulk work takes the same locks.
                        if writer % 2 == 0 {
                            store.write(room(1), increment).await.expect("writes");
                        } else {
                            store.write_quiet(room(1), increment).await.expect("writes");
                        }
                    }
                }));
            }
        }
        let expected = tasks.len() as i64 * 10;
        for task in tasks {
            task.await.expect("no panic");
        }
        assert_eq!(stores[0].read(rows).await.expect("reads"), [expected]);
        close(stores).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_string_has_one_number_everywhere() {
    on_each_database(async |database| {
        let stores = stores(database).await;
        let mut tasks = Vec::new();
        for writer in 0..WRITERS {
            for store in &stores {
                let store = store.clone();
                tasks.push(tokio::spawn(async move {
                    let mut found = Vec::new();
                    for n in 0..20_i64 {
                        // Each walks the strings in another order: locks held until COMMIT would meet in circles.
                        let first = (n * (2 * writer + 1)) % 20;
                        let second = (first + 7) % 20;
                        let intern = move |tx: &mut Tx<'_>| {
                            Ok([(first, tx.intern(&format!("s{first}"))?), (second, tx.intern(&format!("s{second}"))?)])
                        };
                        found.extend(store.write(room(writer), intern).await.expect("writes"));
                    }
                    found
                }));
            }
        }
        let mut all = Vec::new();
        for task in tasks {
            all.extend(task.await.expect("no panic"));
        }
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 20, "one number for each string: {all:?}");
        for store in &stores {
            for &(n, num) in &all {
                let text = store.read(move |tx| tx.string(num)).await.expect("reads");
                assert_eq!(*text, format!("s{n}"));
            }
        }
        close(stores).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writes_that_wait_together_are_committed_together() {
    on_each_server(async |database| {
        let store = database.open().await;
        let commits = Arc::new(Mutex::new(Vec::new()));
        store.on_commit({
            let commits = commits.clone();
            move |announced| commits.lock().expect("lock").push(announced.len())
        });
        // The first holds the writer until the others are queued.
        let (release, held) = mpsc::channel();
        let (started, running) = tokio::sync::oneshot::channel();
        let held = Mutex::new((held, Some(started)));
        let first = tokio::spawn(store.write(room(0), move |_| {
            let mut held = held.lock().expect("lock");
            if let Some(started) = held.1.take() {
                let _ = started.send(());
                held.0.recv().expect("released");
            }
            Ok(())
        }));
        running.await.expect("started");
        let mut waiting = Vec::new();
        for n in 1..=20 {
            let mut write = Box::pin(store.write(room(n), move |tx| publish_row(tx, &format!("{n}"))));
            // The first poll queues.
            assert!(poll_fn(|context| Poll::Ready(write.as_mut().poll(context))).await.is_pending());
            waiting.push(write);
        }
        release.send(()).expect("waits");
        first.await.expect("no panic").expect("writes");
        for write in waiting {
            write.await.expect("writes");
        }
        assert_eq!(*commits.lock().expect("lock"), [20]);
        let names: Vec<_> =
            store.read(|tx| rows_after(tx, 0)).await.expect("reads").into_iter().map(|row| row.1).collect();
        assert_eq!(names, (1..=20).map(|n| n.to_string()).collect::<Vec<_>>(), "in the order they came");
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_sees_one_snapshot() {
    on_each_server(async |database| {
        let store = database.open().await;
        let (looked, look) = tokio::sync::oneshot::channel();
        let (written, wrote) = mpsc::channel();
        let held = Mutex::new((wrote, Some(looked)));
        let read = tokio::spawn(store.read(move |tx| {
            let before = (tx.position()?, rows(tx)?);
            let mut held = held.lock().expect("lock");
            if let Some(looked) = held.1.take() {
                let _ = looked.send(());
                held.0.recv().expect("written");
            }
            Ok((before, (tx.position()?, rows(tx)?)))
        }));
        look.await.expect("looked");
        let write = |tx: &mut Tx<'_>| {
            insert_row(tx, 1)?;
            publish_row(tx, "a")
        };
        store.write(room(1), write).await.expect("writes");
        written.send(()).expect("waits");
        let (before, after) = read.await.expect("no panic").expect("reads");
        assert_eq!(before, (Position(0), vec![]));
        assert_eq!(after, before);
        assert_eq!(store.read(rows).await.expect("reads"), [1]);
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_handle_may_be_dropped_on_a_database_thread() {
    on_each_database(async |database| {
        let store = database.open().await;
        let (held, gone) = tokio::sync::oneshot::channel::<()>();
        let captured = (store.clone(), held);
        let mut write = Box::pin(store.write(room(1), move |tx| {
            let _ = &captured;
            insert_row(tx, 1)
        }));
        // The first poll queues; nobody waits for the outcome.
        poll_fn(|context| Poll::Ready(write.as_mut().poll(context).is_ready())).await;
        drop((write, store));
        assert!(gone.await.is_err(), "the closure ran and is gone, and the store with it");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lost_connections_are_replaced() {
    let Some(schema) = Schema::create().await else { return };
    let database = Database::Postgres(schema);
    let store = database.open().await;
    let Database::Postgres(schema) = &database else { return };
    store.write(room(1), |tx| insert_row(tx, 1)).await.expect("writes");

    // Between two statements of one closure, so that the connection is surely in use.
    let (looked, look) = tokio::sync::oneshot::channel();
    let (cut, wait) = mpsc::channel();
    let held = Mutex::new((wait, Some(looked)));
    let write = tokio::spawn(store.write(room(2), move |tx| {
        let before = rows(tx)?;
        let mut held = held.lock().expect("lock");
        if let Some(looked) = held.1.take() {
            let _ = looked.send(());
            held.0.recv().expect("cut");
        }
        insert_row(tx, 2)?;
        Ok((before, rows(tx)?))
    }));
    look.await.expect("looked");
    schema.terminate_connections().await;
    cut.send(()).expect("waits");
    assert_eq!(write.await.expect("no panic").expect("writes"), (vec![1], vec![1, 2]));

    assert_eq!(store.read(rows).await.expect("reads"), [1, 2]);
    store.write(room(3), |tx| tx.intern("new")).await.expect("writes");
    store.close().await;
    let Database::Postgres(schema) = database else { return };
    schema.drop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_schema_is_refused() {
    on_each_server(async |database| {
        let store = database.open().await;
        store
            .write(room(1), |tx| tx.raw_exec("INSERT INTO schema_migrations (number, checksum) VALUES (999, 0)", &[]))
            .await
            .expect("writes");
        store.close().await;
        let options = hearth_store::StoreOptions { url: database.url(), threads: 1 };
        assert!(matches!(Store::open(options).await, Err(StoreError::TooNew { found: 999, .. })));
    })
    .await;
}
