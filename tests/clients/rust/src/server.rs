//! The homeserver as a process that the flow starts, stops and kills.
//!
//! `HOMESERVER_COMMAND` runs it in the foreground, `HOMESERVER_URL` is where it answers, `HOMESERVER_LOG` takes its
//! output.

use std::{env, fs::File, future::Future, process::Command as StdCommand, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

const PATIENCE: Duration = Duration::from_secs(60);

/// Polls `condition` until it holds; after a minute the flow has failed.
pub async fn until<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        if Instant::now() > deadline {
            bail!("waited {PATIENCE:?} in vain: {what}");
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Where the homeserver answers.
pub fn url() -> Result<String> {
    env::var("HOMESERVER_URL").context("HOMESERVER_URL is not set")
}

pub struct Server {
    command: String,
    log: File,
    process: Child,
}

impl Server {
    pub async fn start() -> Result<Self> {
        let command = env::var("HOMESERVER_COMMAND").context("HOMESERVER_COMMAND is not set")?;
        let log = env::var("HOMESERVER_LOG").context("HOMESERVER_LOG is not set")?;
        let log = File::options().create(true).append(true).open(log)?;
        let process = spawn(&command, &log)?;
        let mut server = Self { command, log, process };
        server.is_ready().await?;
        Ok(server)
    }

    /// Asks the server to finish, then starts it again on the same data.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start_again().await
    }

    /// Ends the server on the spot with SIGKILL, then starts it again on the same data.
    pub async fn crash(&mut self) -> Result<()> {
        self.process.kill().await?;
        self.start_again().await
    }

    pub async fn stop(&mut self) -> Result<()> {
        let pid = self.process.id().context("the server has gone away")?;
        StdCommand::new("kill").arg(pid.to_string()).status()?;
        self.process.wait().await?;
        Ok(())
    }

    async fn start_again(&mut self) -> Result<()> {
        self.process = spawn(&self.command, &self.log)?;
        self.is_ready().await
    }

    async fn is_ready(&mut self) -> Result<()> {
        let url = url()?;
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        until("the server accepts connections", || async { TcpStream::connect(address).await.is_ok() }).await?;
        if let Some(status) = self.process.try_wait()? {
            bail!("the server went away while starting: {status}");
        }
        Ok(())
    }
}

fn spawn(command: &str, log: &File) -> Result<Child> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("exec {command}")).stdout(log.try_clone()?).stderr(log.try_clone()?);
    Ok(shell.kill_on_drop(true).spawn()?)
}
