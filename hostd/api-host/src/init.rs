//! Questions to PID 1, over its control socket.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_model::init::{Request, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long PID 1 may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Why PID 1 has not answered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AskError {
    #[error("init does not answer on {} within {} s", .0.display(), TIMEOUT.as_secs())]
    Timeout(PathBuf),
    #[error("{what} init on {}: {source}", socket.display())]
    Io {
        what: &'static str,
        socket: PathBuf,
        source: io::Error,
    },
    #[error("{what} init on {}: {source}", socket.display())]
    Json {
        what: &'static str,
        socket: PathBuf,
        source: serde_json::Error,
    },
}

/// Sends a request to PID 1 and returns its answer.
///
/// # Errors
/// Nobody listens, no answer came in time, or it can't be read.
pub(crate) async fn ask(socket: &Path, request: &Request) -> Result<Response, AskError> {
    tokio::time::timeout(TIMEOUT, exchange(socket, request))
        .await
        .unwrap_or_else(|_| Err(AskError::Timeout(socket.to_owned())))
}

async fn exchange(socket: &Path, request: &Request) -> Result<Response, AskError> {
    let io = |what| {
        let socket = socket.to_owned();
        move |source| AskError::Io {
            what,
            socket,
            source,
        }
    };
    let json = |what| {
        let socket = socket.to_owned();
        move |source| AskError::Json {
            what,
            socket,
            source,
        }
    };
    let stream = UnixStream::connect(socket).await.map_err(io(
        "this machine was not started by Keelson's init: can't reach",
    ))?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(request).map_err(json("can't ask"))?;
    line.push(b'\n');
    writer.write_all(&line).await.map_err(io("can't ask"))?;
    let mut answer = String::new();
    BufReader::new(reader.take(MAX_ANSWER))
        .read_line(&mut answer)
        .await
        .map_err(io("can't read the answer of"))?;
    serde_json::from_str(&answer).map_err(json("can't decode the answer of"))
}
