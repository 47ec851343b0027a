//! `hearth admin media`: files are deleted, hidden, kept out, checked.

use clap::Subcommand;
use serde_json::{Value, json};

use super::Failure;
use super::admin::ask;
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum MediaCommand {
    /// Delete files. Those of other servers are fetched again when somebody asks for them.
    Delete {
        #[command(flatten)]
        which: WhichArguments,
    },
    /// Hide files from everybody, and don't fetch them again.
    Quarantine {
        #[command(flatten)]
        which: WhichArguments,
    },
    /// Show hidden files again.
    Unquarantine {
        #[command(flatten)]
        which: WhichArguments,
    },
    /// Keep a file out: nobody can upload or fetch it any more, and where it is, it is deleted.
    Block {
        /// SHA-256 of the file, in hexadecimal digits.
        sha256: String,
    },
    /// Let a file in again.
    Unblock {
        /// SHA-256 of the file, in hexadecimal digits.
        sha256: String,
    },
    /// Compare the database with the files.
    Check {
        /// Delete files that the database does not know.
        #[arg(long)]
        repair: bool,
    },
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
pub(super) struct WhichArguments {
    /// The file's address, `mxc://SERVER/ID`.
    uri: Option<String>,
    /// All that a user of this server has uploaded.
    #[arg(long)]
    user: Option<String>,
    /// All files of a server.
    #[arg(long)]
    server: Option<String>,
    /// All files that are named in a room. Those named in encrypted messages can't be found.
    #[arg(long)]
    room: Option<String>,
}

impl WhichArguments {
    fn json(&self) -> Value {
        json!({ "uri": self.uri, "user": self.user, "server": self.server, "room": self.room })
    }
}

pub(super) fn run(settings: &Settings, command: &MediaCommand) -> Result<(), Failure> {
    match command {
        MediaCommand::Delete { which } => {
            tell(&ask(settings, "POST", "/media/delete", Some(&which.json()))?, "Deleted")
        }
        MediaCommand::Quarantine { which } => hide(settings, which, true, "Hid")?,
        MediaCommand::Unquarantine { which } => hide(settings, which, false, "Showed again")?,
        MediaCommand::Block { sha256 } => {
            let body = json!({ "sha256": sha256, "blocked": true });
            tell(&ask(settings, "POST", "/media/block", Some(&body))?, "Kept out from now on; deleted");
        }
        MediaCommand::Unblock { sha256 } => {
            ask(settings, "POST", "/media/block", Some(&json!({ "sha256": sha256, "blocked": false })))?;
            println!("Let in again.");
        }
        MediaCommand::Check { repair } => {
            let found = ask(settings, "POST", "/media/check", Some(&json!({ "repair": repair })))?;
            println!("{} files in the media storage.", found["blobs"]);
            println!("{} of them are missing or damaged.", found["missing"]);
            for hash in found["missing_named"].as_array().into_iter().flatten() {
                println!("  {}", hash.as_str().unwrap_or_default());
            }
            println!(
                "{} more are there that the database does not know; {} were deleted.",
                found["unknown"], found["deleted"]
            );
        }
    }
    Ok(())
}

fn hide(settings: &Settings, which: &WhichArguments, hidden: bool, outcome: &str) -> Result<(), Failure> {
    let mut body = which.json();
    body["hidden"] = hidden.into();
    tell(&ask(settings, "POST", "/media/quarantine", Some(&body))?, outcome);
    Ok(())
}

fn tell(touched: &Value, outcome: &str) {
    println!("{outcome} {} files, {} bytes.", touched["files"], touched["bytes"]);
}
