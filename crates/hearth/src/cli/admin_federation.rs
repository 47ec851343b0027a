//! `hearth admin federation`: how it stands with other servers.

use clap::Subcommand;
use serde_json::{Value, json};

use super::Failure;
use super::admin::ask;
use crate::settings::Settings;

#[derive(Debug, Subcommand)]
pub(super) enum FederationCommand {
    /// Tell why a message has not arrived at a server; without one, list those that lack something or don't answer.
    Status {
        /// The server's name.
        server: Option<String>,
        /// Print JSON.
        #[arg(long)]
        json: bool,
    },
}

pub(super) fn run(settings: &Settings, command: &FederationCommand) -> Result<(), Failure> {
    let FederationCommand::Status { server, json } = command;
    let told = ask(settings, "POST", "/federation/status", Some(&json!({ "server": server })))?;
    if *json {
        println!("{told:#}");
        return Ok(());
    }
    let servers = told["servers"].as_array().map(Vec::as_slice).unwrap_or_default();
    if servers.is_empty() {
        println!("Every server that shares a room with this one has everything.");
    }
    for (n, status) in servers.iter().enumerate() {
        if n > 0 {
            println!();
        }
        for sentence in status["sentences"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            println!("{sentence}");
        }
    }
    Ok(())
}
