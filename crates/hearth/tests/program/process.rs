//! Calls the program, and talks to a server that it runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

/// A call of the program: no environment of ours, `directory` as its working directory.
pub fn hearth(directory: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hearth"));
    command.args(arguments).current_dir(directory).env_clear();
    command
}

/// Calls it and waits for its end.
pub fn run(directory: &Path, arguments: &[&str]) -> Output {
    hearth(directory, arguments).stdin(Stdio::null()).output().expect("the program runs")
}

/// What a call wrote to standard output, if it succeeded.
pub fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a call wrote to standard error, if it failed.
pub fn failure(output: &Output) -> String {
    assert!(!output.status.success(), "it should fail, but said {}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A server in a process of its own. Killed if the test ends without stopping it.
pub struct Server {
    child: Child,
    /// Reads the log all the time, as whoever runs a server does; its result is all that was logged.
    log: Option<JoinHandle<String>>,
    pub address: SocketAddr,
}

impl Server {
    /// Starts `hearth serve` on some free port and waits until it is ready.
    pub fn start(directory: &Path, arguments: &[&str]) -> Self {
        let mut command = hearth(directory, &["serve", "--bind", "127.0.0.1:0"]);
        command.args(arguments);
        Self::spawn(command)
    }

    pub fn spawn(mut command: Command) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program runs");
        let log = child.stderr.take().expect("a pipe");
        let (ready, is_ready) = mpsc::channel();
        let log = Some(std::thread::spawn(move || read_log(log, &ready)));
        let mut server = Self { child, log, address: ([0, 0, 0, 0], 0).into() };
        match is_ready.recv() {
            Ok(address) => server.address = address,
            Err(_) => panic!("the server ended before it was ready: {}", server.logged()),
        }
        server
    }

    fn logged(&mut self) -> String {
        self.log.take().expect("the log is read once").join().expect("the log can be read")
    }

    /// The status and the body of a `GET`.
    pub fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).expect("the server accepts");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head and a body");
        (head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status"), body.to_owned())
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").arg(format!("-{name}")).arg(self.child.id().to_string()).status();
        assert!(sent.is_ok_and(|status| status.success()));
    }

    /// Waits for the end: the status, all that was logged, all that was printed.
    pub fn end(mut self) -> (ExitStatus, String, String) {
        let logged = self.logged();
        let mut printed = String::new();
        self.child.stdout.take().expect("a pipe").read_to_string(&mut printed).expect("the output can be read");
        (self.child.wait().expect("it ends"), logged, printed)
    }

    /// SIGTERM, and the end.
    pub fn stop(self) -> String {
        self.signal("TERM");
        let (status, logged, _) = self.end();
        assert!(status.success(), "{status}: {logged}");
        logged
    }
}

/// Reads a log to its end, and says where the server listens once it is ready.
fn read_log(log: ChildStderr, ready: &mpsc::Sender<SocketAddr>) -> String {
    let (mut logged, mut address) = (String::new(), None);
    for line in BufReader::new(log).lines() {
        let line = line.expect("the log can be read");
        if let Some((_, bind)) = line.split_once("listening bind=") {
            address = bind.trim().parse().ok();
        }
        if line.contains(" ready ") {
            ready.send(address.expect("an address")).expect("the test waits");
        }
        logged.push_str(&line);
        logged.push('\n');
    }
    logged
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
