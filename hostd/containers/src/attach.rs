//! Clients' connections to a container's streams.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use keelson_model::spec::Stdin;
use keelson_shim_protocol::{Request, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, oneshot};

use crate::container::{Container, PendingAttach};
use crate::types::{
    AttachOptions, Attached, ContainerAction, Frame, LogQuery, Logs, Receiver, Scope, Status,
};
use crate::{Engine, EngineError};

/// How many bytes of standard input are read before the container takes them.
const INPUT_BUFFER: usize = 64 << 10;
/// How many frames are read before the client takes them.
pub(crate) const OUTPUT_BUFFER: usize = 8;
/// Bytes read at once.
const CHUNK: usize = 64 << 10;

impl Engine {
    /// Connects to a container's streams. If it has not started yet, no output is missed.
    ///
    /// # Errors
    /// When there is no such container, it is paused, or its shim does not answer.
    pub async fn attach(
        &self,
        scope: Scope,
        name: &str,
        options: AttachOptions,
    ) -> Result<Attached, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        // Hold the lock during the decision: a start must either see this client among the waiting
        // ones, or be finished.
        let guard = container.lock().await?;
        let snapshot = container.snapshot();
        if snapshot.state.status == Status::Paused {
            return Err(EngineError::Conflict(format!(
                "container {} is paused, unpause the container before attach",
                container.id
            )));
        }
        let tty = snapshot.spec.process.terminal.is_some();
        if options.logs {
            return self.attach_with_log(scope, name, options, guard).await;
        }
        let (sender, output) = mpsc::channel(OUTPUT_BUFFER);
        let (input, reader) =
            input_pipe(options.stdin && snapshot.spec.process.stdin != Stdin::Closed);
        if options.stream {
            let (connected, stream) = oneshot::channel();
            if snapshot.state.status.has_process() {
                let connection = container.shim().connect().await?;
                let stream = connection.attach(&attach_request(options)).await?;
                let _ = connected.send(stream);
            } else {
                let mut live = container.live();
                live.pending.retain(|other| !other.connected.is_closed());
                live.pending.push(PendingAttach { options, connected });
            }
            let reading = container.readers.subscribe();
            let carrying = container.carriers.subscribe();
            tokio::spawn(async move {
                carry(stream, sender, reader).await;
                drop((reading, carrying));
            });
        }
        drop(guard);
        self.inner.emit(&container, ContainerAction::Attach);
        Ok(Attached {
            input,
            output: Receiver(output),
            tty,
        })
    }

    /// Takes all output from the log, so that nothing is missed or doubled between earlier and
    /// later output. For a stopped container, earlier output comes from the log, and later output
    /// from its next run.
    async fn attach_with_log(
        &self,
        scope: Scope,
        name: &str,
        options: AttachOptions,
        guard: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Attached, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        let snapshot = container.snapshot();
        let running = snapshot.state.status.has_process();
        if options.stream && !running {
            return self.attach_to_next_run(&container, options, guard).await;
        }
        let (input, reader) = input_pipe(options.stdin && options.stream && running);
        if input.is_some() {
            let only_input = AttachOptions {
                stdin: true,
                stdout: false,
                stderr: false,
                ..options
            };
            let connection = container.shim().connect().await?;
            let stream = connection.attach(&attach_request(only_input)).await?;
            let (connected, stream_later) = oneshot::channel();
            let _ = connected.send(stream);
            let (sender, _) = mpsc::channel(1);
            tokio::spawn(pump(stream_later, sender, reader));
        }
        drop(guard);
        let query = LogQuery {
            follow: options.stream,
            stdout: options.stdout,
            stderr: options.stderr,
            ..LogQuery::default()
        };
        let mut logs = self.logs(scope, name, query).await?;
        let (sender, output) = mpsc::channel(OUTPUT_BUFFER);
        let id = container.id.clone();
        tokio::spawn(async move { forward(&mut logs, &sender, &id).await });
        self.inner.emit(&container, ContainerAction::Attach);
        Ok(Attached {
            input,
            output: Receiver(output),
            tty: snapshot.spec.process.terminal.is_some(),
        })
    }

    /// The log up to now, then the streams of the next run. The guard prevents a start until the
    /// client is registered, and the time limit excludes the next run's output from the first part.
    async fn attach_to_next_run(
        &self,
        container: &Arc<Container>,
        options: AttachOptions,
        guard: tokio::sync::MutexGuard<'_, ()>,
    ) -> Result<Attached, EngineError> {
        let process = container.snapshot().spec.process.clone();
        let until = u64::try_from(jiff::Timestamp::now().as_nanosecond()).ok();
        let past = match options.stdout || options.stderr {
            true => {
                let query = LogQuery {
                    stdout: options.stdout,
                    stderr: options.stderr,
                    until,
                    ..LogQuery::default()
                };
                Some(self.logs(container.scope, &container.id, query).await?)
            }
            false => None,
        };
        let (connected, stream) = oneshot::channel();
        {
            let mut live = container.live();
            live.pending.retain(|other| !other.connected.is_closed());
            live.pending.push(PendingAttach { options, connected });
        }
        drop(guard);
        let (input, reader) = input_pipe(options.stdin && process.stdin != Stdin::Closed);
        let (sender, output) = mpsc::channel(OUTPUT_BUFFER);
        let (id, reading) = (container.id.clone(), container.readers.subscribe());
        let carrying = container.carriers.subscribe();
        tokio::spawn(async move {
            let whole = match past {
                Some(mut past) => forward(&mut past, &sender, &id).await,
                None => true,
            };
            if whole {
                carry(stream, sender, reader).await;
            }
            drop((reading, carrying));
        });
        self.inner.emit(container, ContainerAction::Attach);
        Ok(Attached {
            input,
            output: Receiver(output),
            tty: process.terminal.is_some(),
        })
    }
}

/// The requests to the shim for a client that attaches.
pub(crate) fn attach_request(options: AttachOptions) -> Request {
    Request::Attach {
        exec: None,
        stdin: options.stdin,
        stdout: options.stdout,
        stderr: options.stderr,
    }
}

/// Forwards the frames of a log. Returns false if it could not be read to its end, or the client is
/// gone.
async fn forward(logs: &mut Logs, sender: &mpsc::Sender<Frame>, id: &str) -> bool {
    while let Some(batch) = logs.records.recv().await {
        let part = match batch {
            Ok(part) => part,
            Err(error) => {
                tracing::warn!(id, %error, "log not read for an attached client");
                return false;
            }
        };
        for frame in part.frames() {
            if sender.send(frame).await.is_err() {
                return false;
            }
        }
    }
    true
}

type Input = Option<Box<dyn tokio::io::AsyncWrite + Send + Unpin>>;

pub(crate) fn input_pipe(wanted: bool) -> (Input, Option<DuplexStream>) {
    if !wanted {
        return (None, None);
    }
    let (writer, reader) = tokio::io::duplex(INPUT_BUFFER);
    (Some(Box::new(writer)), Some(reader))
}

/// Forwards a container's streams until the client has received everything.
async fn carry(
    stream: oneshot::Receiver<UnixStream>,
    output: mpsc::Sender<Frame>,
    input: Option<DuplexStream>,
) {
    let held = output.clone();
    pump(stream, output, input).await;
    // All places are free when nothing is left to send. An error means that the client is gone.
    let _ = held.reserve_many(OUTPUT_BUFFER).await;
}

/// Forwards bytes between a client and a shim, once the shim runs.
pub(crate) async fn pump(
    stream: oneshot::Receiver<UnixStream>,
    output: mpsc::Sender<Frame>,
    input: Option<DuplexStream>,
) {
    // Without a stream the start failed or the container was removed: the client sees the end.
    let Ok(stream) = stream.await else {
        return;
    };
    let (from_shim, to_shim) = stream.into_split();
    let feeding = tokio::spawn(feed(input, to_shim));
    if let Err(error) = drain(from_shim, output).await {
        tracing::warn!(%error, "attached stream ended early");
    }
    feeding.abort();
}

/// Forwards standard input and its end. A client that sends none keeps the connection open.
async fn feed(input: Option<DuplexStream>, mut to_shim: OwnedWriteHalf) {
    let Some(mut input) = input else {
        std::future::pending::<()>().await;
        return;
    };
    let mut buffer = vec![0; CHUNK];
    loop {
        match input.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(length) => {
                let Some(bytes) = buffer.get(..length) else {
                    break;
                };
                // The container ended; input that it did not read is lost, as in a pipe.
                if to_shim.write_all(bytes).await.is_err() {
                    return;
                }
            }
        }
    }
    let _ = to_shim.shutdown().await;
}

/// Forwards output: parses the frames.
async fn drain(mut from_shim: OwnedReadHalf, output: mpsc::Sender<Frame>) -> std::io::Result<()> {
    let mut buffer = BytesMut::with_capacity(CHUNK);
    loop {
        while let Some(frame) = next_frame(&mut buffer)? {
            if output.send(frame).await.is_err() {
                return Ok(());
            }
        }
        buffer.reserve(CHUNK);
        tokio::select! {
            read = from_shim.read_buf(&mut buffer) => if read? == 0 {
                return Ok(());
            },
            // Without this, a client of a silent container would be noticed too late.
            () = output.closed() => return Ok(()),
        }
    }
}

/// Takes a whole frame out of the buffer.
fn next_frame(buffer: &mut BytesMut) -> std::io::Result<Option<Frame>> {
    let Some(header) = buffer.first_chunk::<{ stream::HEADER }>() else {
        return Ok(None);
    };
    let header = stream::StreamHeader::from_bytes(*header)
        .map_err(|error| std::io::Error::new(std::io::ErrorKind::InvalidData, error))?;
    let whole = stream::HEADER + header.length as usize;
    if buffer.len() < whole {
        buffer.reserve(whole - buffer.len());
        return Ok(None);
    }
    let mut frame: Bytes = buffer.split_to(whole).freeze();
    let bytes = frame.split_off(stream::HEADER);
    Ok(Some(Frame {
        stream: header.stream.number(),
        bytes,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn frames_are_taken_apart_and_input_ends() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (connected, stream) = oneshot::channel();
        let (sender, mut output) = mpsc::channel(4);
        let (mut input, reader) = input_pipe(true);
        tokio::spawn(pump(stream, sender, reader));
        let input = input.as_mut().unwrap();
        // Before the shim runs.
        input.write_all(b"early").await.unwrap();
        connected.send(near).unwrap();
        let mut five = [0; 5];
        far.read_exact(&mut five).await.unwrap();
        assert_eq!(&five, b"early");
        far.write_all(b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0")
            .await
            .unwrap();
        let frame = output.recv().await.unwrap();
        assert_eq!((frame.stream, &frame.bytes[..]), (1, &b"hi"[..]));
        far.write_all(b"\0\x01!").await.unwrap();
        let frame = output.recv().await.unwrap();
        assert_eq!((frame.stream, &frame.bytes[..]), (2, &b"!"[..]));
        input.shutdown().await.unwrap();
        assert_eq!(far.read(&mut five).await.unwrap(), 0, "end of input");
        drop(far);
        assert_eq!(output.recv().await, None);
    }

    #[tokio::test]
    async fn garbage_ends_the_stream() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let (sender, mut output) = mpsc::channel(4);
        far.write_all(b"garbage!").await.unwrap();
        let (half, _other) = near.into_split();
        assert!(drain(half, sender).await.is_err());
        assert_eq!(output.recv().await, None);
    }
}
