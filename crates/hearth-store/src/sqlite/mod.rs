//! SQLite: one file, one writer thread, some reader threads, a checkpointer; or one connection in memory.

mod connection;
mod writer;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;

use rusqlite::OpenFlags;

use self::connection::Connection;
use self::writer::Writer;
use crate::engine::Engine;
use crate::group::GROUP;
use crate::job::{Job, Kind, Lanes, Queue, Shared};
use crate::{StoreError, migrate};

/// Pages that the writer keeps in memory: it changes the same ones again and again.
const WRITER_CACHE_KIB: u32 = 32 * 1024;
/// The same of each reader, which finds most pages in the mapped file: only those of the log are kept here.
const READER_CACHE_KIB: u32 = 4 * 1024;
/// Rows written before the log is worth a checkpoint.
const CHECKPOINT_ROWS: u64 = 4_000;
/// Pages in the log (4 KiB each) after which the writer itself restarts it.
const LOG_PAGES: i64 = 16_000;

/// The queues of a database file and the threads behind them.
pub(crate) struct Threads {
    writes: Arc<Queue>,
    reads: Arc<Queue>,
    handles: Mutex<Vec<JoinHandle<()>>>,
}

impl Threads {
    /// Opens the file, or creates it.
    pub(crate) fn open(path: &Path, readers: usize, shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let lock = Arc::new(lock(path)?);
        let writer = open_writer(path, shared)?;
        let writes = Arc::new(Queue::new(shared.meters.writes_waiting.clone()));
        let reads = Arc::new(Queue::new(shared.meters.reads_waiting.clone()));
        let mut handles = Vec::new();

        let checkpoints = Arc::new(Checkpoints::default());
        let (wish, wishes) = mpsc::sync_channel(1);
        let database =
            Connection::open(path, OpenFlags::SQLITE_OPEN_READ_WRITE, 256, shared.meters.statements.clone())?;
        handles.push(spawn("store-log", &lock, {
            let checkpoints = checkpoints.clone();
            move || checkpoints.work(&database, &wishes)
        })?);
        for _ in 0..readers.max(1) {
            let flags = OpenFlags::SQLITE_OPEN_READ_ONLY;
            let mut connection = Connection::open(path, flags, READER_CACHE_KIB, shared.meters.statements.clone())?;
            let (reads, shared) = (reads.clone(), shared.clone());
            handles.push(spawn("store-read", &lock, move || {
                while let Some(job) = reads.take_one() {
                    writer::read(&mut connection, &shared, job);
                }
            })?);
        }
        handles.push(spawn("store-write", &lock, {
            let writes = writes.clone();
            move || write_all(writer, &writes, &checkpoints, &wish)
        })?);
        Ok(Self { writes, reads, handles: Mutex::new(handles) })
    }

    pub(crate) fn submit(&self, job: Job) {
        if job.kind == Kind::Read { &self.reads } else { &self.writes }.push(job);
    }

    /// Lets the threads work off what is queued and end.
    pub(crate) fn close(&self) -> Vec<JoinHandle<()>> {
        self.writes.close();
        self.reads.close();
        std::mem::take(&mut *self.handles.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn open_writer(path: &Path, shared: &Arc<Shared>) -> Result<Writer, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let mut connection = Connection::open(path, flags, WRITER_CACHE_KIB, shared.meters.statements.clone())?;
    // Checkpoints are the checkpointer's.
    connection.database().execute_batch("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0;")?;
    migrate(&mut connection)?;
    Writer::new(connection, shared.clone())
}

/// The lock that keeps a second process (or a second store of this one) away, as long as the file is open.
fn lock(path: &Path) -> Result<File, StoreError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let broken = |error| StoreError::Database(format!("{}: {error}", path.display()));
    let file = private_file(&PathBuf::from(name)).map_err(broken)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(StoreError::Locked(path.display().to_string())),
        Err(TryLockError::Error(error)) => return Err(broken(error)),
    }
    // SQLite gives its other files the rights of this one.
    private_file(path).map_err(broken)?;
    Ok(file)
}

/// Opens a file, or creates it for its owner only.
fn private_file(path: &Path) -> std::io::Result<File> {
    let mut options = File::options();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// A thread that holds the process lock until it ends.
fn spawn(name: &str, lock: &Arc<File>, work: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>, StoreError> {
    let lock = lock.clone();
    let work = move || {
        work();
        drop(lock);
    };
    let spawned = std::thread::Builder::new().name(name.to_owned()).spawn(work);
    spawned.map_err(|error| StoreError::Database(format!("no thread: {error}")))
}

fn write_all(mut writer: Writer, writes: &Queue, checkpoints: &Checkpoints, wish: &mpsc::SyncSender<()>) {
    let mut rows = 0;
    while let Some(jobs) = writes.take(take_group) {
        writer.write(jobs);
        if writer.rows_written() >= rows + CHECKPOINT_ROWS {
            rows = writer.rows_written();
            // If one is under way, it will do.
            let _ = wish.try_send(());
        }
        if checkpoints.overdue.swap(false, Ordering::Relaxed) {
            writer.restart_log();
        }
    }
}

/// Everything that waits, up to the limits.
fn take_group(lanes: &mut Lanes) -> Option<Vec<Job>> {
    let quick = lanes.quick.len().min(GROUP);
    let bulk = lanes.bulk.len().min(writer::GROUP_BULK);
    let mut jobs: Vec<Job> = lanes.quick.drain(..quick).collect();
    jobs.extend(lanes.bulk.drain(..bulk));
    (!jobs.is_empty()).then_some(jobs)
}

/// Copies the log into the database beside the writer. Only when it can't keep up, the writer stops for a moment.
#[derive(Default)]
struct Checkpoints {
    /// The log has grown so long that the writer has to restart it.
    overdue: AtomicBool,
}

impl Checkpoints {
    fn work(&self, connection: &Connection, wishes: &mpsc::Receiver<()>) {
        while wishes.recv().is_ok() {
            let pages =
                connection.database().query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| row.get::<_, i64>(1));
            match pages {
                Ok(pages) if pages > LOG_PAGES => self.overdue.store(true, Ordering::Relaxed),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "a checkpoint failed"),
            }
        }
    }
}

/// A database in memory, used by whichever thread calls.
pub(crate) struct Inline {
    writer: Mutex<Option<Writer>>,
}

impl Inline {
    pub(crate) fn open(shared: &Arc<Shared>) -> Result<Self, StoreError> {
        let writer = open_writer(Path::new(":memory:"), shared)?;
        Ok(Self { writer: Mutex::new(Some(writer)) })
    }

    /// Runs the job before it returns.
    pub(crate) fn submit(&self, job: Job) {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        match writer.as_mut() {
            None => job.fail(StoreError::Closed),
            Some(writer) if job.kind == Kind::Read => writer.read(job),
            Some(writer) => writer.write(vec![job]),
        }
    }

    pub(crate) fn close(&self) {
        *self.writer.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn migrate(connection: &mut Connection) -> Result<(), StoreError> {
    // SQLite waits here if somebody else writes; the transaction is the lock.
    connection.begin_write()?;
    let result = migrate::run(connection).and_then(|()| connection.commit());
    if result.is_err() {
        connection.roll_back();
    }
    result
}

impl migrate::Schema for Connection {
    const DIALECT: crate::sql::Dialect = crate::sql::Dialect::Sqlite;

    fn batch(&mut self, sql: &str) -> Result<(), StoreError> {
        Ok(self.database().execute_batch(sql)?)
    }

    fn engine(&mut self) -> &mut dyn Engine {
        self
    }
}
