//! `hearth config`: check settings, print the reference.

use clap::Subcommand;

use super::{Failure, SettingsArguments};
use crate::settings;

#[derive(Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Say what is wrong with the settings, if anything.
    Check(CheckArguments),
    /// Print every key, what it allows, its default and its meaning.
    Reference {
        /// As a page of the book.
        #[arg(long)]
        markdown: bool,
    },
}

#[derive(clap::Args, Debug)]
pub(super) struct CheckArguments {
    #[command(flatten)]
    settings: SettingsArguments,
}

pub(super) fn run(command: &ConfigCommand) -> Result<(), Failure> {
    match command {
        ConfigCommand::Check(CheckArguments { settings }) => {
            let settings = settings.load()?;
            println!("The settings of {} are fine.", settings.server_name);
        }
        ConfigCommand::Reference { markdown: true } => print!("{}", settings::markdown()),
        ConfigCommand::Reference { markdown: false } => print!("{}", settings::text()),
    }
    Ok(())
}
