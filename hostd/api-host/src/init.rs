//! Questions to PID 1, over its control socket.

use std::path::Path;
use std::time::Duration;

use keelson_model::init::{Request, Response};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// How long PID 1 may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const MAX_ANSWER: u64 = 1 << 20;

/// Sends a request to PID 1 and returns its answer.
///
/// # Errors
/// A sentence for the caller: nobody listens, no answer came in time, or it can't be read.
pub(crate) async fn ask(socket: &Path, request: &Request) -> Result<Response, String> {
    tokio::time::timeout(TIMEOUT, exchange(socket, request))
        .await
        .unwrap_or_else(|_| {
            Err(format!(
                "init does not answer on {} within {} s",
                socket.display(),
                TIMEOUT.as_secs()
            ))
        })
}

async fn exchange(socket: &Path, request: &Request) -> Result<Response, String> {
    let fail = |what: &str, error: &dyn std::fmt::Display| {
        format!("{what} init on {}: {error}", socket.display())
    };
    let stream = UnixStream::connect(socket).await.map_err(|e| {
        fail(
            "this machine was not started by Keelson's init: can't reach",
            &e,
        )
    })?;
    let (reader, mut writer) = stream.into_split();
    let mut line = serde_json::to_vec(request).map_err(|e| fail("can't ask", &e))?;
    line.push(b'\n');
    writer
        .write_all(&line)
        .await
        .map_err(|e| fail("can't ask", &e))?;
    let mut answer = String::new();
    BufReader::new(reader.take(MAX_ANSWER))
        .read_line(&mut answer)
        .await
        .map_err(|e| fail("can't read the answer of", &e))?;
    serde_json::from_str(&answer).map_err(|e| fail("can't decode the answer of", &e))
}
