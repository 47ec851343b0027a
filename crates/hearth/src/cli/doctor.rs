//! `hearth doctor`: walks through what must work, and says of each step what was found and how to mend it.

use clap::Subcommand;
use serde_json::json;

use super::admin::ask;
use super::{Failure, SettingsArguments};

#[derive(clap::Args, Debug)]
pub(super) struct DoctorArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    #[command(subcommand)]
    command: DoctorCommand,
}

#[derive(Debug, Subcommand)]
enum DoctorCommand {
    /// Walk the way to another server, or to this one as others see it. Fails if a step does.
    Federation {
        /// The server's name.
        server: String,
    },
}

pub(super) fn run(arguments: &DoctorArguments) -> Result<(), Failure> {
    let settings = arguments.settings.load()?;
    let DoctorCommand::Federation { server } = &arguments.command;
    let told = ask(&settings, "POST", "/federation/doctor", Some(&json!({ "server": server })))?;
    let mut bad = 0;
    for step in told["steps"].as_array().into_iter().flatten() {
        let text = |field: &str| step[field].as_str().unwrap_or_default();
        let mark = match text("verdict") {
            "good" => "ok  ",
            "bad" => {
                bad += 1;
                "BAD "
            }
            _ => "?   ",
        };
        println!("{mark}{}: {}", text("about"), text("found"));
        if !text("mend").is_empty() {
            println!("      {}", text("mend"));
        }
    }
    match bad {
        0 => Ok(()),
        1 => Err(Failure("one step failed".to_owned())),
        bad => Err(Failure(format!("{bad} steps failed"))),
    }
}
