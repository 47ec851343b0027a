//! `hearth admin`, with and without a running server.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use crate::process::{Server, failure, hearth, run, stdout};

fn with_stdin(home: &Path, arguments: &[&str], input: &str) -> Output {
    let mut child = hearth(home, arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn manage_accounts(home: &Path) {
    let create = ["admin", "user", "create", "alice", "--admin", "--password-stdin"];
    assert_eq!(stdout(&with_stdin(home, &create, "a long password\n")), "Created @alice:localhost.\n");
    let generated = stdout(&run(home, &["admin", "user", "create", "@bob:localhost"]));
    let password = generated.lines().find_map(|line| line.strip_prefix("Password: ")).expect("a password");
    assert_eq!(password.len(), 24);
    assert_eq!(stdout(&run(home, &["admin", "user", "list"])), "@alice:localhost admin\n@bob:localhost\n");

    let reason = failure(&with_stdin(home, &create, "a long password\n"));
    assert!(reason.contains("the user name is taken"), "{reason}");
    let reason = failure(&run(home, &["admin", "user", "create", "@carol:example.org"]));
    assert!(reason.contains("is not a user of localhost"), "{reason}");
    let reason = failure(&run(home, &["admin", "user", "reset-password", "nobody"]));
    assert!(reason.contains("unknown user"), "{reason}");
    let reason = failure(&with_stdin(home, &create, ""));
    assert!(reason.contains("standard input holds no password"), "{reason}");

    let user = |verb: &str| stdout(&run(home, &["admin", "user", verb, "bob"]));
    assert_eq!(user("lock"), "@bob:localhost is locked now.\n");
    assert_eq!(user("suspend"), "@bob:localhost is suspended now.\n");
    assert_eq!(user("promote"), "@bob:localhost is an administrator now.\n");
    let listed = stdout(&run(home, &["admin", "user", "list"]));
    assert_eq!(listed, "@alice:localhost admin\n@bob:localhost admin locked suspended\n");
    for verb in ["unlock", "unsuspend", "demote"] {
        user(verb);
    }
    let reason = failure(&run(home, &["admin", "user", "lock", "nobody"]));
    assert!(reason.contains("unknown user"), "{reason}");

    let reset = ["admin", "user", "reset-password", "bob", "--password-stdin"];
    assert_eq!(stdout(&with_stdin(home, &reset, "another long password")), "@bob:localhost has a new password.\n");
    assert_eq!(stdout(&run(home, &["admin", "user", "deactivate", "bob"])), "Deactivated @bob:localhost.\n");
    assert_eq!(stdout(&run(home, &["admin", "user", "list"])), "@alice:localhost admin\n@bob:localhost deactivated\n");
    let reason = failure(&with_stdin(home, &reset, "another long password"));
    assert!(reason.contains("has been deactivated"), "{reason}");
}

#[test]
fn accounts_are_managed_through_the_running_server() {
    let home = tempfile::tempdir().unwrap();
    let server = Server::start(home.path(), &[]);
    manage_accounts(home.path());
    let log = server.stop();
    assert!(log.contains("route=/users"), "the server was asked: {log}");
    assert!(!log.contains("long password"), "{log}");
}

#[test]
fn accounts_are_managed_while_no_server_runs() {
    let home = tempfile::tempdir().unwrap();
    Server::start(home.path(), &[]).stop();
    manage_accounts(home.path());
    // What was done is there when the server is back.
    let server = Server::start(home.path(), &[]);
    let listed = stdout(&run(home.path(), &["admin", "user", "list"]));
    assert_eq!(listed, "@alice:localhost admin\n@bob:localhost deactivated\n");
    server.stop();
}

#[test]
fn a_data_directory_that_is_not_there_is_not_made() {
    let home = tempfile::tempdir().unwrap();
    let reason = failure(&run(home.path(), &["admin", "user", "list", "--data", "elsewhere"]));
    assert!(reason.contains("elsewhere does not exist"), "{reason}");
    assert!(!home.path().join("elsewhere").exists());
}

#[test]
fn files_are_managed_with_and_without_a_running_server() {
    let home = tempfile::tempdir().unwrap();
    let manage = || {
        let media = |arguments: &[&str]| stdout(&run(home.path(), &[&["admin", "media"], arguments].concat()));
        assert_eq!(media(&["delete", "mxc://localhost/x"]), "Deleted 0 files, 0 bytes.\n");
        assert_eq!(media(&["quarantine", "--server", "example.org"]), "Hid 0 files, 0 bytes.\n");
        assert_eq!(media(&["unquarantine", "--user", "alice"]), "Showed again 0 files, 0 bytes.\n");
        let hash = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(media(&["block", hash]), "Kept out from now on; deleted 0 files, 0 bytes.\n");
        assert_eq!(media(&["unblock", hash]), "Let in again.\n");
        assert!(media(&["check", "--repair"]).starts_with("0 files in the media storage.\n0 of them are missing"));
        let refused = |arguments: &[&str]| failure(&run(home.path(), &[&["admin", "media"], arguments].concat()));
        assert!(refused(&["block", "abc"]).contains("is no SHA-256"));
        assert!(refused(&["delete", "nonsense"]).contains("is no address"));
        refused(&["delete"]);
        refused(&["delete", "mxc://localhost/x", "--user", "alice"]);
    };
    let server = Server::start(home.path(), &[]);
    manage();
    drop(server);
    manage();
}
