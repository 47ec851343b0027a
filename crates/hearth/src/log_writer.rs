//! Writes the log beside the work: a log that nobody reads (a full pipe, a stalled journal) costs lines, not the server.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that may wait. What comes beyond is dropped and counted.
const WAITING_LINES: usize = 10_000;

/// Bytes written at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// How long the end of the program waits for the last lines.
const LAST_LINES_TIME: Duration = Duration::from_millis(500);

/// Hands lines to the writing thread. Cheap to clone.
#[derive(Clone)]
pub(crate) struct LogWriter {
    lines: SyncSender<Message>,
    dropped: Arc<AtomicU64>,
}

/// Waits for the last lines when it is dropped.
pub struct LogGuard(LogWriter);

enum Message {
    Line(Vec<u8>),
    Written(SyncSender<()>),
}

impl LogWriter {
    /// Starts the thread that writes to `output`.
    pub(crate) fn start(output: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING_LINES);
        let dropped = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&dropped);
        std::thread::Builder::new().name("log".to_owned()).spawn(move || write(&waiting, &counted, output))?;
        Ok(Self { lines, dropped })
    }

    pub(crate) fn guard(&self) -> LogGuard {
        LogGuard(self.clone())
    }
}

/// Everything that waits goes out in one piece: under load that is one system call for many lines.
fn write(waiting: &Receiver<Message>, dropped: &AtomicU64, mut output: impl Write) {
    let (mut chunk, mut asked) = (Vec::new(), Vec::new());
    while let Ok(first) = waiting.recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Line(line) => chunk.extend_from_slice(&line),
                Message::Written(asks) => asked.push(asks),
            }
            next = if chunk.len() < CHUNK_BYTES { waiting.try_recv().ok() } else { None };
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            chunk.extend_from_slice(format!("{lost} lines of the log are lost: nobody read it in time\n").as_bytes());
        }
        // There is nowhere to say that the log can't be written.
        let _ = output.write_all(&chunk);
        chunk.clear();
        for asks in asked.drain(..) {
            let _ = asks.try_send(());
        }
    }
}

impl Write for &LogWriter {
    /// A whole line each time: the formatter writes once per event.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Message::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        let (written, is_written) = sync_channel(1);
        if self.0.lines.try_send(Message::Written(written)).is_ok() {
            let _ = is_written.recv_timeout(LAST_LINES_TIME);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Mutex, PoisonError};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_last_lines_are_there_at_the_end() {
        let output = Shared::default();
        let writer = LogWriter::start(output.clone()).unwrap();
        let guard = writer.guard();
        for number in 0..1000 {
            writeln!(writer.make_writer(), "{number}").unwrap();
        }
        drop(guard);
        let written = String::from_utf8(output.0.lock().unwrap().clone()).unwrap();
        assert_eq!(written.lines().collect::<Vec<_>>().concat(), (0..1000).map(|n| n.to_string()).collect::<String>());
    }
}
