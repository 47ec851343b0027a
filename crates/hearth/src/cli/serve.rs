//! `hearth serve`: runs the server until it is told to stop.

use hearth_api::serve::Bind;
use hearth_store::WallTime;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};
use toml::{Table, Value};

use super::{Failure, SettingsArguments};
use crate::settings::Settings;
use crate::{Homeserver, Running, telemetry};

#[derive(clap::Args, Debug)]
pub(super) struct ServeArguments {
    #[command(flatten)]
    settings: SettingsArguments,
    /// Address and port (or `unix:PATH`) to listen on, instead of the configured listeners.
    #[arg(long, value_name = "ADDR")]
    bind: Option<String>,
}

pub(super) fn run(arguments: &ServeArguments) -> Result<(), Failure> {
    let mut sources = arguments.settings.sources();
    if let Some(bind) = &arguments.bind {
        let listener = Table::from_iter([("bind".to_owned(), Value::String(bind.clone()))]);
        sources.command_line.push(("--bind", "listeners", Value::Array(vec![Value::Table(listener)])));
    }
    let settings = sources.load().map_err(|problems| Failure(problems.to_string()))?;
    let _log = telemetry::start_logging(&settings.logging)?;
    raise_open_files();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(&settings, arguments));
    // What still runs on it (a blocked resolver, say) must not hold up the end.
    runtime.shutdown_background();
    served
}

/// Every waiting client is an open file, and the usual soft limit is 1024: take what the system allows.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        let wanted = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, wanted) {
            tracing::warn!(%error, soft_limit = limit.current, "few files may be open at once");
        }
    }
}

async fn serve(settings: &Settings, arguments: &ServeArguments) -> Result<(), Failure> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // A signal while the server starts ends it, too; a half-open store is as after a crash.
    let running = tokio::select! {
        started = Homeserver::start(settings, WallTime::system()) => started?,
        _ = asked_to_stop(&mut terminate, &mut interrupt) => return Ok(()),
    };
    announce(settings, arguments, &running);
    let signal = asked_to_stop(&mut terminate, &mut interrupt).await;
    tracing::info!(signal, "stopping");
    tokio::select! {
        () = running.stop() => tracing::info!("stopped"),
        _ = asked_to_stop(&mut terminate, &mut interrupt) => tracing::warn!("stopped at once by a second signal"),
    }
    Ok(())
}

async fn asked_to_stop(terminate: &mut Signal, interrupt: &mut Signal) -> &'static str {
    tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    }
}

fn announce(settings: &Settings, arguments: &ServeArguments, running: &Running) {
    for bind in running.binds() {
        tracing::info!(%bind, "listening");
    }
    let database = settings.database();
    tracing::info!(server_name = %settings.server_name, %database, version = env!("CARGO_PKG_VERSION"), "ready");
    if running.is_first_start() {
        let address = running.binds().iter().find_map(|bind| match bind {
            Bind::Tcp(address) => Some(format!("http://{address}")),
            Bind::Unix(_) => None,
        });
        let url = settings.public_url.as_ref().map(|url| url.as_str().to_owned()).or(address).unwrap_or_default();
        println!(
            "\n{} is ready at {url}\n\nNow create the first account, in another terminal:\n\n    {} admin user create alice \
             --admin{}\n",
            settings.server_name,
            program_name(),
            same_settings(arguments)
        );
    }
}

/// The program as it was called.
fn program_name() -> String {
    std::env::args().next().unwrap_or_else(|| "hearth".to_owned())
}

/// The options by which another command finds the same settings.
fn same_settings(arguments: &ServeArguments) -> String {
    let SettingsArguments { config, data, server_name } = &arguments.settings;
    let mut options = String::new();
    let values = [
        ("--config", config.as_ref().map(|path| path.display().to_string())),
        ("--data", data.as_ref().map(|path| path.display().to_string())),
        ("--server-name", server_name.clone()),
    ];
    for (option, value) in values {
        if let Some(value) = value {
            let value = if value.contains([' ', '\'', '"', '$', '\\']) {
                format!("'{}'", value.replace('\'', r"'\''"))
            } else {
                value
            };
            options.push_str(&format!(" {option} {value}"));
        }
    }
    options
}
