//! `hearth admin`: asks the running server through its socket; only if none runs, opens the data itself and asks the same
//! functions in this process.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use clap::Subcommand;
use hearth_store::WallTime;
use serde_json::{Value, json};

use super::admin_federation::{self, FederationCommand};
use super::admin_media::{self, MediaCommand};
use super::{Failure, SettingsArguments};
use crate::data_dir::{DataDirError, admin_socket};
use crate::settings::Settings;
use crate::{Homeserver, StartError};

#[derive(clap::Args, Debug)]
pub(super) struct AdminArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    #[command(subcommand)]
    command: AdminCommand,
}

#[derive(Debug, Subcommand)]
enum AdminCommand {
    /// Users of this server.
    #[command(subcommand)]
    User(UserCommand),
    /// Files of users and of other servers.
    #[command(subcommand)]
    Media(MediaCommand),
    /// Other servers.
    #[command(subcommand)]
    Federation(FederationCommand),
    /// The key with which this server signs.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Show what users reported, newest first.
    Reports,
}

#[derive(Debug, Subcommand)]
enum KeysCommand {
    /// Sign with a new key from now on. What the old one signed stays good.
    Rotate,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Make an account. Asks for its password, or makes one and prints it.
    Create {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
        /// The account administers the server.
        #[arg(long)]
        admin: bool,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Give an account another password, and end its sessions.
    ResetPassword {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
        /// Leave the account's sessions alone.
        #[arg(long)]
        keep_sessions: bool,
        #[command(flatten)]
        password: PasswordArguments,
    },
    /// Close an account for good: it leaves its rooms, and its name is never given again.
    Deactivate {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
    },
    /// Keep an account from everything but logging out. It keeps its sessions.
    Lock {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
    },
    /// Take a lock away.
    Unlock {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
    },
    /// Let an account only look: it can't send, join or invite.
    Suspend {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
    },
    /// Let a suspended account act again.
    Unsuspend {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
    },
    /// Let an account administer the server.
    Promote {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
    },
    /// Take an account's administration rights.
    Demote {
        /// The name, as `alice` or `@alice:example.org`.
        name: String,
    },
    /// List all accounts.
    List,
}

#[derive(clap::Args, Debug)]
struct PasswordArguments {
    /// Read the password from the first line of standard input.
    #[arg(long, conflicts_with = "generate_password")]
    password_stdin: bool,
    /// Make a password and print it.
    #[arg(long)]
    generate_password: bool,
}

pub(super) fn run(arguments: &AdminArguments) -> Result<(), Failure> {
    let settings = arguments.settings.load()?;
    let command = match &arguments.command {
        AdminCommand::User(command) => command,
        AdminCommand::Media(command) => return admin_media::run(&settings, command),
        AdminCommand::Federation(command) => return admin_federation::run(&settings, command),
        AdminCommand::Keys(KeysCommand::Rotate) => {
            let made = ask(&settings, "POST", "/keys/rotate", Some(&json!({})))?;
            println!(
                "This server signs with {} now. Back up `signing.key` in the data directory.",
                text(&made, "key_id")
            );
            return Ok(());
        }
        AdminCommand::Reports => return show_reports(&settings),
    };
    match command {
        UserCommand::Create { name, admin, password } => {
            let (password, generated) = password.get()?;
            let body = json!({ "name": name, "password": password, "admin": admin });
            let created = ask(&settings, "POST", "/users", Some(&body))?;
            println!("Created {}.", text(&created, "user_id"));
            tell_generated(&password, generated);
        }
        UserCommand::ResetPassword { name, keep_sessions, password } => {
            let (password, generated) = password.get()?;
            let body = json!({ "name": name, "password": password, "logout_devices": !keep_sessions });
            let changed = ask(&settings, "POST", "/users/reset-password", Some(&body))?;
            println!("{} has a new password.", text(&changed, "user_id"));
            tell_generated(&password, generated);
        }
        UserCommand::Deactivate { name } => {
            let closed = ask(&settings, "POST", "/users/deactivate", Some(&json!({ "name": name })))?;
            println!("Deactivated {}.", text(&closed, "user_id"));
        }
        UserCommand::Lock { name } => set(&settings, name, "locked", true, "is locked")?,
        UserCommand::Unlock { name } => set(&settings, name, "locked", false, "is not locked")?,
        UserCommand::Suspend { name } => set(&settings, name, "suspended", true, "is suspended")?,
        UserCommand::Unsuspend { name } => set(&settings, name, "suspended", false, "is not suspended")?,
        UserCommand::Promote { name } => set(&settings, name, "admin", true, "is an administrator")?,
        UserCommand::Demote { name } => set(&settings, name, "admin", false, "is no administrator")?,
        UserCommand::List => {
            let listed = ask(&settings, "GET", "/users", None)?;
            for user in listed["users"].as_array().into_iter().flatten() {
                let is = |field: &str| user[field].as_bool() == Some(true);
                let marks: Vec<&str> = ["admin", "guest", "locked", "suspended", "deactivated"]
                    .into_iter()
                    .filter(|mark| is(mark))
                    .collect();
                println!("{}", [&[text(user, "user_id")], &marks[..]].concat().join(" "));
            }
        }
    }
    Ok(())
}

/// A line each: when, by whom, about what, and the reason in quotes, so that nobody writes lines of his own.
fn show_reports(settings: &Settings) -> Result<(), Failure> {
    let listed = ask(settings, "GET", "/reports", None)?;
    for report in listed["reports"].as_array().into_iter().flatten() {
        let about = [text(report, "subject"), text(report, "event_id")].join(" ");
        println!("{} {} {}: {}", report["ts"], text(report, "reporter"), about.trim_end(), report["reason"]);
    }
    Ok(())
}

fn set(settings: &Settings, name: &str, flag: &str, value: bool, outcome: &str) -> Result<(), Failure> {
    let changed = ask(settings, "POST", "/users/set", Some(&json!({ "name": name, flag: value })))?;
    println!("{} {outcome} now.", text(&changed, "user_id"));
    Ok(())
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn tell_generated(password: &str, generated: bool) {
    if generated {
        println!("Password: {password}");
    }
}

impl PasswordArguments {
    /// The password, and whether we made it.
    fn get(&self) -> Result<(String, bool), Failure> {
        if self.password_stdin {
            let mut line = String::new();
            std::io::stdin().lock().read_line(&mut line)?;
            let password = line.trim_end_matches(['\r', '\n']).to_owned();
            return if password.is_empty() {
                Err(Failure("standard input holds no password".to_owned()))
            } else {
                Ok((password, false))
            };
        }
        if self.generate_password || !std::io::stdin().is_terminal() {
            return Ok((generated_password()?, true));
        }
        let password = rpassword::prompt_password("Password (empty to have one made): ")?;
        if password.is_empty() {
            return Ok((generated_password()?, true));
        }
        if rpassword::prompt_password("Again: ")? != password {
            return Err(Failure("the passwords differ".to_owned()));
        }
        Ok((password, false))
    }
}

/// 24 letters and digits that can't be mistaken for each other: about 139 bits.
fn generated_password() -> Result<String, Failure> {
    const ALPHABET: &[u8] = b"abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut password = String::new();
    while password.len() < 24 {
        let mut bytes = [0; 32];
        rand::TryRng::try_fill_bytes(&mut rand::rngs::SysRng, &mut bytes)?;
        // Bytes beyond the alphabet are dropped, not folded: each letter is equally likely.
        let letters = bytes.iter().filter_map(|byte| ALPHABET.get(usize::from(byte & 63)));
        password.extend(letters.take(24 - password.len()).map(|byte| char::from(*byte)));
    }
    Ok(password)
}

/// Asks the local door, wherever it is.
pub(super) fn ask(settings: &Settings, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Failure> {
    let body = body.map(Value::to_string).unwrap_or_default();
    let (status, answer) = match UnixStream::connect(admin_socket(&settings.data_dir)) {
        Ok(socket) => ask_socket(socket, method, path, &body)?,
        Err(_) => ask_ourselves(settings, method, path, body)?,
    };
    let answer: Value = serde_json::from_slice(&answer)
        .map_err(|_| Failure(format!("the server answered {status} without a reason; its log has more")))?;
    if (200..300).contains(&status) {
        Ok(answer)
    } else {
        Err(Failure(answer["error"].as_str().unwrap_or("the server refused without a reason").to_owned()))
    }
}

/// How long the server may take. Leaving many rooms takes time.
const ANSWER_TIME: Duration = Duration::from_secs(600);

fn ask_socket(mut socket: UnixStream, method: &str, path: &str, body: &str) -> Result<(u16, Vec<u8>), Failure> {
    socket.set_read_timeout(Some(ANSWER_TIME))?;
    write!(
        socket,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    parse_answer(&answer).ok_or_else(|| Failure("the server ended the connection without an answer".to_owned()))
}

/// Status and body of an answer that ends with its connection.
fn parse_answer(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    Some((status, answer[end + 4..].to_vec()))
}

/// No server runs: be one for a moment, without listening.
fn ask_ourselves(settings: &Settings, method: &str, path: &str, body: String) -> Result<(u16, Vec<u8>), Failure> {
    if !settings.data_dir.exists() {
        return Err(Failure(format!(
            "{} does not exist; is it the data directory of the server?",
            settings.data_dir.display()
        )));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    runtime.block_on(async {
        let homeserver = Homeserver::open(settings, WallTime::system()).await.map_err(|error| match error {
            StartError::DataDir(DataDirError::InUse(path)) => unreachable_server(&path),
            error => Failure(error.to_string()),
        })?;
        let answer = hearth_api::ask_local_door(homeserver.doors(), method, path, body).await;
        homeserver.close().await;
        Ok(answer)
    })
}

fn unreachable_server(data_dir: &Path) -> Failure {
    Failure(format!(
        "a server runs on {}, but its admin socket can't be opened; run this as the server's user",
        data_dir.display()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_passwords_are_long_and_differ() {
        let passwords: Vec<String> = (0..2).filter_map(|_| generated_password().ok()).collect();
        assert!(passwords.iter().all(|password| password.len() == 24));
        assert_ne!(passwords[0], passwords[1]);
    }

    #[test]
    fn answers_are_taken_apart() {
        assert_eq!(parse_answer(b"HTTP/1.1 200 OK\r\na: b\r\n\r\n{}"), Some((200, b"{}".to_vec())));
        assert_eq!(parse_answer(b"HTTP/1.1 404 Not Found\r\n\r\n"), Some((404, Vec::new())));
        assert_eq!(parse_answer(b"rubbish"), None);
        assert_eq!(parse_answer(b""), None);
    }
}
