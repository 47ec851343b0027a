//! Closures: durable when acknowledged, all or nothing, each with its own error.

use std::sync::{Arc, Mutex};

use hearth_store::raw::Raw;
use hearth_store::{Position, StoreError, Value};

use crate::harness::{
    Database, insert_row, on_each_database, on_each_engine, on_each_server, publish_row, room, rows, rows_after,
    summary,
};

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_is_there_after_reopening() {
    on_each_server(async |database| {
        let store = database.open().await;
        store.write(room(1), |tx| insert_row(tx, 1)).await.expect("writes");
        store.write(room(1), |tx| publish_row(tx, "a")).await.expect("writes");
        store.close().await;
        assert!(matches!(store.read(rows).await, Err(StoreError::Closed)));

        let store = database.open().await;
        assert_eq!(store.position(), Position(1));
        assert_eq!(store.read(rows).await.expect("reads"), [1]);
        assert_eq!(store.read(|tx| rows_after(tx, 0)).await.expect("reads"), [(1, "a".to_owned())]);
        store.close().await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_member_of_a_group_fails_alone() {
    on_each_engine(async |store| {
        let mut writes = Vec::new();
        for number in 0..200 {
            let store = store.clone();
            writes.push(tokio::spawn(async move {
                let write = move |tx: &mut hearth_store::Tx<'_>| {
                    insert_row(tx, number)?;
                    // Every tenth violates the primary key, every seventh gives up after its write, every ninth panics.
                    if number % 10 == 0 {
                        insert_row(tx, number)?;
                    }
                    if number % 7 == 0 {
                        return Err(StoreError::Damaged("on purpose".into()));
                    }
                    assert!(number % 9 != 0, "on purpose");
                    Ok(number)
                };
                (number, store.write(room(number), write).await)
            }));
        }
        let mut kept = Vec::new();
        for write in writes {
            let (number, result) = write.await.expect("no panic");
            let fails = number % 10 == 0 || number % 9 == 0 || number % 7 == 0;
            assert_eq!(result.is_err(), fails, "{number}: {result:?}");
            if number % 9 == 0 && number % 10 != 0 && number % 7 != 0 {
                assert!(matches!(result, Err(StoreError::Panicked(message)) if message.contains("on purpose")));
            }
            if !fails {
                kept.push(number);
            }
        }
        assert_eq!(store.read(rows).await.expect("reads"), kept);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn publications_get_positions_in_order_and_are_announced_before_the_writer_hears() {
    on_each_engine(async |store| {
        let heard = Arc::new(Mutex::new(Vec::new()));
        store.on_commit({
            let heard = heard.clone();
            move |announced| heard.lock().expect("lock").extend(summary(announced))
        });
        store
            .write(room(1), |tx| {
                publish_row(tx, "a")?;
                publish_row(tx, "b")
            })
            .await
            .expect("writes");
        assert_eq!(*heard.lock().expect("lock"), [(1, 1), (2, 1)]);
        assert_eq!(store.position(), Position(2));
        let seen = store.read(|tx| Ok((tx.position()?, rows_after(tx, 0)?))).await.expect("reads");
        assert_eq!(seen, (Position(2), vec![(1, "a".to_owned()), (2, "b".to_owned())]));

        // A write that fails takes no position.
        let failed = store.write(room(1), |tx| publish_row(tx, "a"));
        assert!(failed.await.is_err());
        store.write(room(1), |tx| publish_row(tx, "c")).await.expect("writes");
        let seen = store.read(|tx| rows_after(tx, 2)).await.expect("reads");
        assert_eq!(seen.len(), 1);
        assert_eq!(store.position().0, seen[0].0);
        assert_eq!(heard.lock().expect("lock").len(), 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quiet_writes_and_reads_may_not_publish() {
    on_each_engine(async |store| {
        let quiet = store.write_quiet(room(1), |tx| {
            insert_row(tx, 1)?;
            publish_row(tx, "a")
        });
        assert!(matches!(quiet.await, Err(StoreError::Misuse(_))));
        let read = store.read(|tx| publish_row(tx, "a"));
        assert!(matches!(read.await, Err(StoreError::Misuse(_))));
        assert!(store.read(|tx| insert_row(tx, 1)).await.is_err());
        assert!(
            store.write(room(1), |tx| tx.raw_exec("UPDATE clock SET position = $1", &[Value::Position])).await.is_err()
        );
        assert_eq!(store.read(rows).await.expect("reads"), [0; 0]);

        store.write_quiet(room(1), |tx| insert_row(tx, 2)).await.expect("writes");
        assert_eq!(store.read(rows).await.expect("reads"), [2]);
        assert_eq!(store.position(), Position(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn strings_of_a_rolled_back_write_are_not_remembered() {
    on_each_engine(async |store| {
        let failed = store.write(room(1), |tx| {
            tx.intern("lost")?;
            Err::<(), _>(StoreError::Conflict)
        });
        assert!(failed.await.is_err());
        let (found, lost) = store
            .write(room(1), |tx| {
                let found = tx.intern("found")?;
                Ok((found, tx.intern("lost")?))
            })
            .await
            .expect("writes");
        assert_ne!(found, lost);
        let texts = store.read(move |tx| Ok((tx.string(found)?, tx.string(lost)?))).await.expect("reads");
        assert_eq!((&*texts.0, &*texts.1), ("found", "lost"));
        let nums = store.read(|tx| Ok((tx.string_num("found")?, tx.string_num("lost")?))).await.expect("reads");
        assert_eq!(nums, (Some(found), Some(lost)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_is_never_handed_out_twice() {
    on_each_database(async |database| {
        let mut all = Vec::new();
        for _ in 0..if matches!(database, Database::Inline) { 1 } else { 2 } {
            let store = database.open().await;
            let handed_out = Arc::new(Mutex::new(Vec::new()));
            for round in 0..6 {
                let handed_out = handed_out.clone();
                let write = store.write(room(1), move |tx| {
                    for _ in 0..700 {
                        handed_out.lock().expect("lock").push(tx.raw_number()?);
                    }
                    if round % 2 == 0 { Err(StoreError::Damaged("on purpose".into())) } else { Ok(()) }
                });
                assert_eq!(write.await.is_ok(), round % 2 == 1);
            }
            all.append(&mut handed_out.lock().expect("lock"));
            store.close().await;
        }
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_parameters() {
    on_each_engine(async |store| {
        for number in [1, 2, 3, 5] {
            store.write(room(number), move |tx| insert_row(tx, number)).await.expect("writes");
            let name = format!("name {number}");
            store.write(room(number), move |tx| publish_row(tx, &name)).await.expect("writes");
        }
        let found = store
            .read(|tx| {
                let wanted = [1_i64, 3, 4].as_slice();
                let names = [b"name 2".as_slice(), b"name 5", b"\0"];
                Ok((
                    tx.raw_query(
                        "SELECT room FROM published_rooms WHERE room IN ints($1) ORDER BY room",
                        &[wanted.into()],
                        |row| row.int(0),
                    )?,
                    tx.raw_query(
                        "SELECT room FROM published_rooms WHERE room NOT IN ints($1) ORDER BY room",
                        &[wanted.into()],
                        |row| row.int(0),
                    )?,
                    tx.raw_query(
                        "SELECT position FROM account_data WHERE usr = $2 AND kind IN blobs($1) ORDER BY position",
                        &[names.as_slice().into(), 1_i64.into()],
                        |row| row.int(0),
                    )?,
                    tx.raw_query(
                        "SELECT value FROM ints($1) WHERE value > 1 ORDER BY value",
                        &[wanted.into()],
                        |row| row.int(0),
                    )?,
                    tx.raw_query(
                        "SELECT room FROM published_rooms JOIN ints($1) AS wanted ON wanted.value = room ORDER BY room",
                        &[wanted.into()],
                        |row| row.int(0),
                    )?,
                    tx.raw_query(
                        "SELECT value FROM blobs($1) AS given ORDER BY value",
                        &[names.as_slice().into()],
                        |row| Ok(row.bytes(0)?.to_vec()),
                    )?,
                    tx.raw_query(
                        "SELECT room FROM published_rooms WHERE room IN ints($1)",
                        &[Value::Ints(&[])],
                        |row| row.int(0),
                    )?,
                ))
            })
            .await
            .expect("reads");
        assert_eq!(found.0, [1, 3]);
        assert_eq!(found.1, [2, 5]);
        assert_eq!(found.2, [2, 4]);
        assert_eq!(found.3, [3, 4]);
        assert_eq!(found.4, [1, 3]);
        assert_eq!(found.5, [b"\0".to_vec(), b"name 2".to_vec(), b"name 5".to_vec()]);
        assert_eq!(found.6, [0; 0]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_store_on_the_same_file_is_refused() {
    let directory = tempfile::tempdir().expect("a directory");
    let database = Database::Sqlite(directory);
    let store = database.open().await;
    let options = hearth_store::StoreOptions { url: database.url(), threads: 1 };
    assert!(matches!(hearth_store::Store::open(options.clone()).await, Err(StoreError::Locked(_))));
    store.close().await;
    hearth_store::Store::open(options).await.expect("opens").close().await;
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn only_the_owner_can_read_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let database = Database::Sqlite(tempfile::tempdir().expect("a directory"));
    let store = database.open().await;
    store.write(room(1), |tx| insert_row(tx, 1)).await.expect("writes");
    let hearth_store::DatabaseUrl::Sqlite(path) = database.url() else { return };
    let mut files = 0;
    for entry in std::fs::read_dir(path.parent().expect("a directory")).expect("lists") {
        let entry = entry.expect("an entry");
        let mode = entry.metadata().expect("metadata").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{}", entry.path().display());
        files += 1;
    }
    assert!(files >= 3, "the database, its log and the lock");
    store.close().await;
}
