//! ClamAV looks at files before anybody else does: over its own protocol, with the file streamed to it.
//!
//! Encrypted files look harmless to it. If it can't be asked, nothing comes in.
//! Protocol: clamd(8), `INSTREAM`.

use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::Media;
use crate::receive::{Received, ReceivedBytes};

/// How long it may take.
const TIME: Duration = Duration::from_secs(120);
const PIECE: usize = 128 * 1024;
const ANSWER_BYTES: u64 = 4096;

/// Where ClamAV is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanner {
    /// A unix socket.
    Unix(PathBuf),
    /// Host and port.
    Tcp(String),
}

/// What it says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Clean,
    Infected(String),
}

impl Media {
    /// Has what has come looked at.
    pub(crate) async fn scan(&self, received: &Received) -> Result<Verdict, String> {
        let Some(scanner) = &self.config().scanner else { return Ok(Verdict::Clean) };
        let asked = tokio::time::timeout(TIME, async {
            match scanner {
                Scanner::Unix(path) => ask(UnixStream::connect(path).await?, received).await,
                Scanner::Tcp(address) => ask(TcpStream::connect(address).await?, received).await,
            }
        });
        let answer = asked.await.unwrap_or_else(|_| Err(std::io::Error::other("no answer in time")));
        let verdict = answer.map_err(|error| error.to_string()).and_then(|answer| understand(&answer));
        let name = match &verdict {
            Ok(Verdict::Clean) => "clean",
            Ok(Verdict::Infected(name)) => {
                tracing::warn!(virus = name, "a file was refused");
                "infected"
            }
            Err(error) => {
                tracing::error!(error, "the virus scanner can't be asked");
                "failed"
            }
        };
        metrics::counter!("hearth_media_scans_total", "outcome" => name).increment(1);
        verdict
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, received: &Received) -> std::io::Result<String> {
    stream.write_all(b"zINSTREAM\0").await?;
    match &received.bytes {
        ReceivedBytes::Small(bytes) => send(&mut stream, bytes).await?,
        ReceivedBytes::Large(file) => {
            let mut file = file.open().await?;
            let mut piece = vec![0; PIECE];
            loop {
                let length = file.read(&mut piece).await?;
                if length == 0 {
                    break;
                }
                send(&mut stream, &Bytes::copy_from_slice(&piece[..length])).await?;
            }
        }
    }
    stream.write_all(&0_u32.to_be_bytes()).await?;
    stream.flush().await?;
    let mut answer = String::new();
    stream.take(ANSWER_BYTES).read_to_string(&mut answer).await?;
    Ok(answer)
}

async fn send<S: AsyncWrite + Unpin>(stream: &mut S, bytes: &Bytes) -> std::io::Result<()> {
    // An empty piece would be the end.
    if bytes.is_empty() {
        return Ok(());
    }
    let length = u32::try_from(bytes.len()).map_err(std::io::Error::other)?;
    stream.write_all(&length.to_be_bytes()).await?;
    stream.write_all(bytes).await
}

fn understand(answer: &str) -> Result<Verdict, String> {
    let answer = answer.trim_end_matches(['\0', '\n']).trim();
    let said = answer.strip_prefix("stream:").map(str::trim).unwrap_or(answer);
    if said == "OK" {
        return Ok(Verdict::Clean);
    }
    match said.strip_suffix(" FOUND") {
        Some(name) => Ok(Verdict::Infected(name.to_owned())),
        None => Err(format!("it answers {answer:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_understood() {
        assert_eq!(understand("stream: OK\0"), Ok(Verdict::Clean));
        let found = understand("stream: Eicar-Test-Signature FOUND\0");
        assert_eq!(found, Ok(Verdict::Infected("Eicar-Test-Signature".to_owned())));
        assert!(understand("INSTREAM size limit exceeded. ERROR\0").is_err());
        assert!(understand("").is_err());
    }
}
