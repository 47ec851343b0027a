//! The command line.

mod admin;
mod admin_federation;
mod admin_media;
mod config;
mod doctor;
mod serve;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use toml::Value;

use crate::settings::{Settings, Sources};

/// Hearth, a Matrix homeserver.
#[derive(Debug, Parser)]
#[command(name = "hearth", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server.
    Serve(serve::ServeArguments),
    /// Accounts of this server.
    Admin(admin::AdminArguments),
    /// Find out what is wrong, and how to mend it.
    Doctor(doctor::DoctorArguments),
    /// Settings: check them, or read what there is to set.
    #[command(subcommand)]
    Config(config::ConfigCommand),
}

/// Where settings come from, beside the environment.
#[derive(Args, Debug)]
struct SettingsArguments {
    /// Configuration file (TOML); without it every key has its default.
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Data directory, instead of the configured one.
    #[arg(long, value_name = "DIR", global = true)]
    data: Option<PathBuf>,
    /// Name of the server, instead of the configured one.
    #[arg(long, value_name = "NAME", global = true)]
    server_name: Option<String>,
}

impl SettingsArguments {
    fn sources(&self) -> Sources {
        let mut sources = Sources::of_process(self.config.clone());
        if let Some(data) = &self.data {
            sources.command_line.push(("--data", "data_dir", Value::String(data.to_string_lossy().into_owned())));
        }
        if let Some(server_name) = &self.server_name {
            sources.command_line.push(("--server-name", "server_name", Value::String(server_name.clone())));
        }
        sources
    }

    fn load(&self) -> Result<Settings, Failure> {
        self.sources().load().map_err(|problems| Failure(problems.to_string()))
    }
}

/// Why a command failed, in words for whoever typed it.
struct Failure(String);

impl<E: std::error::Error> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.to_string())
    }
}

/// Runs the program.
pub fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Serve(arguments) => serve::run(&arguments),
        Command::Admin(arguments) => admin::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Config(command) => config::run(&command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure(reason)) => {
            for line in reason.lines() {
                eprintln!("hearth: {line}");
            }
            ExitCode::FAILURE
        }
    }
}
