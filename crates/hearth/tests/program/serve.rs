//! `hearth serve`.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::process::{Server, failure, hearth, run, stdout};

#[test]
fn it_serves_with_nothing_but_a_directory_to_stand_in() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &[]);
    assert_eq!(server.get("/_matrix/client/versions").0, 200);
    assert_eq!(server.get("/ready").0, 200);
    let data = home.path().join("hearth-data");
    for (name, mode) in [("signing.key", 0o600), ("admin.sock", 0o600), ("", 0o700)] {
        let found = std::fs::metadata(data.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!(found, mode, "{name}");
    }
    let key = std::fs::read_to_string(data.join("signing.key")).unwrap();
    assert!(key.starts_with("ed25519 "), "{key}");
    server.signal("TERM");
    let (status, _, printed) = server.end();
    assert!(status.success());
    assert!(printed.contains("admin user create"), "{printed}");
    assert!(!data.join("admin.sock").exists());
}

#[test]
fn only_the_first_start_explains_what_to_do_next() {
    let home = tempfile::tempdir().unwrap();
    Server::start(home.path(), &[]).stop();
    let key = std::fs::read(home.path().join("hearth-data/signing.key")).unwrap();
    let server = Server::start(home.path(), &[]);
    server.signal("INT");
    let (status, _, printed) = server.end();
    assert!(status.success());
    assert_eq!(printed, "");
    assert_eq!(std::fs::read(home.path().join("hearth-data/signing.key")).unwrap(), key);
}

#[test]
fn a_second_server_on_the_same_data_is_refused() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &[]);
    let reason = failure(&run(home.path(), &["serve", "--bind", "127.0.0.1:0"]));
    assert!(reason.contains("another hearth runs on the data directory"), "{reason}");
    // Another data directory, but the same database.
    let database = format!("sqlite:{}", home.path().join("hearth-data/hearth.db").display());
    let mut second = hearth(home.path(), &["serve", "--bind", "127.0.0.1:0", "--data", "other"]);
    let reason = failure(&second.env("HEARTH__DATABASE__URL", database).output().unwrap());
    assert!(reason.contains("in use by another process"), "{reason}");
    assert_eq!(server.get("/ready").0, 200);
    server.stop();
}

#[test]
fn after_a_kill_the_next_start_needs_no_help() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &[]);
    server.signal("KILL");
    let _ = server.end();
    assert!(home.path().join("hearth-data/admin.sock").exists());
    let server = Server::start(home.path(), &[]);
    assert_eq!(server.get("/ready").0, 200);
    // The socket that was left is in use again.
    stdout(&run(home.path(), &["admin", "user", "list"]));
    server.stop();
}

#[test]
fn it_ends_soon_though_clients_are_connected() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &[]);
    let _connected: Vec<_> = (0..10).map(|_| std::net::TcpStream::connect(server.address).unwrap()).collect();
    let began = Instant::now();
    server.stop();
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[test]
fn as_many_files_may_be_open_as_the_system_allows() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &[]);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    let numbers: Vec<&str> = line.trim_start_matches("Max open files").split_whitespace().collect();
    assert_eq!(numbers[0], numbers[1], "{line}");
    server.stop();
}

#[test]
fn the_server_name_can_not_be_changed() {
    let home = tempfile::tempdir().unwrap();
    Server::start(home.path(), &["--server-name", "one.example"]).stop();
    let reason = failure(&run(home.path(), &["serve", "--bind", "127.0.0.1:0", "--server-name", "two.example"]));
    assert!(reason.contains("is that of one.example; `server_name` can't become two.example"), "{reason}");
    Server::start(home.path(), &["--server-name", "one.example"]).stop();
}

#[test]
fn a_port_that_is_taken_is_named() {
    let home = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let reason = failure(&run(home.path(), &["serve", "--bind", &address]));
    assert!(reason.contains(&format!("can't listen on {address}")), "{reason}");
}

#[test]
fn a_log_that_nobody_reads_does_not_stop_the_server() {
    let home = tempfile::tempdir().unwrap();
    let socket = home.path().join("hearth.sock");
    let bind = format!("unix:{}", socket.display());
    let mut command = hearth(home.path(), &["serve", "--bind", &bind]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut first = Vec::new();
    BufReader::new(child.stderr.as_mut().unwrap()).read_until(b'\n', &mut first).unwrap();
    let mut stream = (0..).find_map(|_| UnixStream::connect(&socket).ok()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    // Far more lines than a pipe holds.
    for _ in 0..2000 {
        stream.write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"OK\n") {
            let mut some = [0; 1024];
            let length = stream.read(&mut some).expect("the server answers");
            answer.extend_from_slice(&some[..length]);
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn the_log_has_a_line_per_request_and_no_tokens() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &[]);
    server.get("/_matrix/client/versions?access_token=secret_token");
    server.get("/_matrix/client/v3/nonsense?access_token=secret_token");
    let log = server.stop();
    assert!(log.contains("method=GET route=/_matrix/client/versions status=200"), "{log}");
    assert!(log.contains("method=GET route=/_matrix/client/v3/nonsense status=404"), "{log}");
    assert!(!log.contains("secret_token"), "{log}");
}

#[test]
fn it_says_its_version() {
    let home = tempfile::tempdir().unwrap();
    assert_eq!(stdout(&run(home.path(), &["--version"])), format!("hearth {}\n", env!("CARGO_PKG_VERSION")));
}
