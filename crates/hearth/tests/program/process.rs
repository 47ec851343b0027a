//! Calls the program, and talks to a server that it runs.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};

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
    log: BufReader<ChildStderr>,
    pub address: SocketAddr,
    pub logged: String,
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
        let log = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut server = Self { child, log, address: ([0, 0, 0, 0], 0).into(), logged: String::new() };
        loop {
            let mut line = String::new();
            let length = server.log.read_line(&mut line).expect("the log can be read");
            assert_ne!(length, 0, "the server ended before it was ready: {}", server.logged);
            if let Some((_, bind)) = line.split_once("listening bind=") {
                server.address = bind.trim().parse().expect("an address");
            }
            let is_ready = line.contains(" ready ");
            server.logged.push_str(&line);
            if is_ready {
                return server;
            }
        }
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
        let mut logged = std::mem::take(&mut self.logged);
        self.log.read_to_string(&mut logged).expect("the log can be read");
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

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
