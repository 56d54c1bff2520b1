//! One connection to a shim: requests, answers, and the streams that it may become.

use std::io;
use std::time::Duration;

use keelson_shim_protocol::{Decoder, Request, Response, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::Shim;
use super::failure::start_failed;
use crate::EngineError;

/// How long a shim may take to answer anything but a wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection to a shim.
#[derive(Debug)]
pub(crate) struct Connection {
    shim: Shim,
    stream: UnixStream,
}

impl Connection {
    pub(super) fn new(shim: Shim, stream: UnixStream) -> Self {
        Self { shim, stream }
    }

    /// Sends a request without reading its answer.
    pub(crate) async fn send(&mut self, request: &Request) -> Result<(), EngineError> {
        let mut frame = Vec::new();
        encode(request, &mut frame).map_err(|error| self.shim.error("encode request", error))?;
        self.stream
            .write_all(&frame)
            .await
            .map_err(|error| self.shim.error("send request", error))
    }

    /// Reads an answer, however long it takes. `None`: the shim has closed the connection.
    pub(crate) async fn receive(&mut self) -> Result<Option<Response>, EngineError> {
        let mut decoder = Decoder::new();
        let mut buffer = Vec::new();
        loop {
            if let Some(response) = decoder.take() {
                return response
                    .map(Some)
                    .map_err(|error| self.shim.error("read answer", error));
            }
            // No more than that: what follows an answer may be the container's output.
            buffer.resize(decoder.missing(), 0);
            let read = match self.stream.read(&mut buffer).await {
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
                other => other.map_err(|error| self.shim.error("read answer", error))?,
            };
            if read == 0 {
                return match decoder.finish() {
                    Ok(()) => Ok(None),
                    Err(error) => Err(self.shim.error("read answer", error)),
                };
            }
            decoder.feed(buffer.get(..read).unwrap_or_default());
        }
    }

    /// A request that is answered when something has happened. `None`: the shim has closed the
    /// connection.
    pub(crate) async fn wait(
        &mut self,
        request: &Request,
    ) -> Result<Option<Response>, EngineError> {
        self.send(request).await?;
        self.receive().await
    }

    /// A request and its answer, within a time.
    pub(crate) async fn request(&mut self, request: &Request) -> Result<Response, EngineError> {
        match tokio::time::timeout(ANSWER_TIMEOUT, self.wait(request)).await {
            Ok(Ok(Some(response))) => Ok(response),
            Ok(Ok(None)) => Err(self.shim.error("read answer", "the connection was closed")),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(self.shim.error("read answer", "no answer in time")),
        }
    }

    /// A request whose answer depends on the container: it may be frozen meanwhile.
    pub(crate) async fn request_unhurried(
        &mut self,
        request: &Request,
    ) -> Result<Response, EngineError> {
        self.wait(request)
            .await?
            .ok_or_else(|| self.shim.error("read answer", "the connection was closed"))
    }

    /// Lets the container's command be executed.
    pub(crate) async fn start(&mut self) -> Result<i32, EngineError> {
        match self.request(&Request::Start).await? {
            Response::Started { pid } => Ok(pid),
            Response::Failed { message, reason } => Err(start_failed(message, reason)),
            other => Err(self
                .shim
                .error("start", format!("unexpected answer {other:?}"))),
        }
    }

    /// Turns the connection into the container's streams.
    pub(crate) async fn attach(mut self, request: &Request) -> Result<UnixStream, EngineError> {
        match self.request(request).await? {
            Response::Done => Ok(self.stream),
            Response::Failed { message, .. } => Err(self.shim.error("attach", message)),
            other => Err(self
                .shim
                .error("attach", format!("unexpected answer {other:?}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn oversized_and_garbled_answers_are_errors() {
        for answer in [&u32::MAX.to_le_bytes()[..], b"\x02\0\0\0{}", b"\x05\0\0\0{"] {
            let (near, mut far) = UnixStream::pair().unwrap();
            far.write_all(answer).await.unwrap();
            drop(far);
            let mut connection = Connection {
                shim: Shim::new("x", Path::new("/nonexistent")),
                stream: near,
            };
            assert!(connection.receive().await.is_err(), "{answer:?}");
        }
    }
}
