//! Forwards a container's log to a syslog server.
//!
//! The lines are read from the engine's own files. These are the buffer, limited by their rotation,
//! and the container never waits for a server. The position is stored in the container's directory,
//! so that a later engine, or a later run, continues there. Lines that were sent in the last second
//! before an engine was killed may be sent again.
//!
//! * [`syslog`]: messages, and the connection to the server.

mod syslog;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keelson_blocking::blocking;
use keelson_log::{Next, Position, Reader, Record, Stream};
use keelson_model::spec::{LogSpec, SyslogServer};
use keelson_shim_protocol::FailReason;
use keelson_store::{Document, Durability, Era, Rest, document};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use self::syslog::{Format, Message, ServerConnection};
use crate::EngineError;
use crate::container::Container;
use crate::logs::DirectoryWatch;
use crate::tag::tag_of;
use crate::types::{Snapshot, WaitCondition};

/// Name of the file in a container's directory with the position up to which its log was sent.
const POSITION: &str = "forwarded.json";
/// How many bytes of the log are forwarded at once.
const BATCH: usize = 64 << 10;
/// A longer line is forwarded in pieces.
const LONGEST: usize = 16 << 10;
/// Pause before a server is tried again. It doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a server is tried after the end of a run.
const LINGER: Duration = Duration::from_secs(10);
/// How often the position in the log is stored.
const SAVE_EVERY: Duration = Duration::from_secs(1);

/// Fails if the container's log goes to a server that can't be reached.
pub(crate) async fn check_server(container: &Container) -> Result<(), EngineError> {
    let snapshot = container.snapshot();
    let LogSpec::Syslog { server, .. } = &snapshot.spec.log else {
        return Ok(());
    };
    match ServerConnection::open(server).await {
        Ok(_) => Ok(()),
        Err(error) => Err(EngineError::Start {
            message: format!("failed to initialize logging driver: {error}"),
            reason: FailReason::Internal,
        }),
    }
}

/// Forwards a run's log in the background, until its end.
pub(crate) fn start(container: &Arc<Container>, era: Era) {
    let snapshot = container.snapshot();
    let LogSpec::Syslog { server, .. } = &snapshot.spec.log else {
        return;
    };
    let server = server.clone();
    let container = Arc::clone(container);
    tokio::spawn(async move {
        // The end of an earlier run may still be in progress.
        let _only = container.forwarding.lock().await;
        // Keeps the log of a container that is removed meanwhile.
        let _held = container.readers.subscribe();
        if let Err(error) = pass_on(&container, &snapshot, &server, era).await {
            tracing::warn!(id = container.id, %error, "log not passed on");
        }
    });
}

async fn pass_on(
    container: &Container,
    snapshot: &Snapshot,
    server: &SyslogServer,
    era: Era,
) -> Result<(), EngineError> {
    let Some(format) = Format::of(&snapshot.spec.log, tag_of(snapshot)) else {
        return Ok(());
    };
    let directory = snapshot.log_path.parent().unwrap_or(Path::new("/"));
    // Watch before the first read: later changes wake this task.
    let watch = DirectoryWatch::new(directory)?;
    let ended = container.wait(WaitCondition::NotRunning).ok();
    let mut over = ended.is_none();
    let ended = async {
        match ended {
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(ended);
    let (log, kept) = (snapshot.log_path.clone(), snapshot.directory.join(POSITION));
    let mut source = blocking(move || Source::open(&log, kept, era)).await??;
    let mut server = Server::new(server.clone());
    loop {
        let (back, messages) = blocking(move || {
            let messages = source.read(over)?;
            Ok::<_, EngineError>((source, messages))
        })
        .await??;
        source = back;
        if !messages.is_empty() {
            let formatted: Vec<_> = messages.iter().map(|m| format.render(m)).collect();
            if !server.send(&formatted, &mut over, &mut ended).await {
                // The next run continues at the end of the last batch that was sent.
                return Ok(());
            }
            source.sent();
        }
        if source.caught_up {
            source = blocking(move || {
                source.save();
                source
            })
            .await?;
            if over {
                return Ok(());
            }
            tokio::select! {
                changed = watch.changed() => changed?,
                () = &mut ended => over = true,
            }
        } else if source.saved.elapsed() > SAVE_EVERY {
            source = blocking(move || {
                source.save();
                source
            })
            .await?;
        }
    }
}

/// A server that may be unreachable at times.
struct Server {
    address: SyslogServer,
    connection: Option<ServerConnection>,
}

impl Server {
    fn new(address: SyslogServer) -> Self {
        Self {
            address,
            connection: None,
        }
    }

    /// Sends messages, as long as the container runs and a while longer. False if the server did
    /// not accept them in this time.
    async fn send(
        &mut self,
        messages: &[Vec<u8>],
        over: &mut bool,
        ended: &mut (impl Future<Output = ()> + Unpin),
    ) -> bool {
        let mut pause = FIRST_PAUSE;
        let mut give_up = over.then(|| Instant::now() + LINGER);
        loop {
            let sent = async {
                let connection = match &mut self.connection {
                    Some(connection) => connection,
                    none => none.insert(ServerConnection::open(&self.address).await?),
                };
                connection.send(messages).await
            };
            let Err(error) = sent.await else {
                return true;
            };
            self.connection = None;
            if give_up.is_some_and(|at| Instant::now() >= at) {
                tracing::warn!(%error, "syslog server given up");
                return false;
            }
            tracing::debug!(%error, "syslog server not reached; it is tried again");
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = &mut *ended, if !*over => {
                    *over = true;
                    give_up = Some(Instant::now() + LINGER);
                }
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
}

/// The log, and how far it was forwarded.
struct Source {
    reader: Reader,
    kept: PathBuf,
    /// Incomplete lines, by stream.
    open: [Line; 2],
    caught_up: bool,
    /// Where the sent lines end; `None` if a line is cut there.
    position: Option<Position>,
    written: Option<Position>,
    saved: Instant,
    era: Era,
    /// Members that a newer release wrote.
    rest: Rest,
}

/// `forwarded.json`: how far a log was forwarded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Forwarded {
    /// [`Position::generation`].
    generation: u64,
    /// [`Position::offset`].
    offset: u64,
    #[serde(flatten)]
    rest: Rest,
}

impl Document for Forwarded {
    const VERSION: u32 = 1;
}

/// The beginning of a line.
#[derive(Default)]
struct Line {
    time: u64,
    bytes: Vec<u8>,
}

impl Source {
    fn open(log: &Path, kept: PathBuf, era: Era) -> Result<Self, EngineError> {
        let mut reader = Reader::open(log)?;
        // Without it the whole log is sent. Sending lines twice is better than never.
        let read = document::read::<Forwarded>(&kept).unwrap_or_else(|error| {
            tracing::warn!(%error, "the whole log is passed on again");
            None
        });
        let written = read.as_ref().map(|read| Position {
            generation: read.generation,
            offset: read.offset,
        });
        if let Some(position) = written {
            reader.seek_position(position)?;
        }
        Ok(Self {
            reader,
            kept,
            open: [Line::default(), Line::default()],
            caught_up: false,
            position: None,
            written,
            saved: Instant::now(),
            era,
            rest: read.map(|read| read.rest).unwrap_or_default(),
        })
    }

    /// The next messages; at the end also incomplete lines.
    fn read(&mut self, over: bool) -> Result<Vec<Message>, EngineError> {
        let (mut messages, mut size) = (Vec::new(), 0);
        self.caught_up = false;
        while size < BATCH {
            match self.reader.next()? {
                Next::Record(record) => {
                    size += record.payload.len() + 64;
                    push(&mut self.open, &record, &mut messages);
                }
                Next::CaughtUp { .. } => {
                    self.caught_up = true;
                    break;
                }
            }
        }
        if over && self.caught_up {
            for (line, stream) in self.open.iter_mut().zip([Stream::Stdout, Stream::Stderr]) {
                finish(line, stream, &mut messages);
            }
        }
        Ok(messages)
    }

    /// Everything that was read has been sent.
    fn sent(&mut self) {
        if self.open.iter().all(|line| line.bytes.is_empty()) {
            self.position = self.reader.position();
        }
    }

    /// Stores how far the log was forwarded.
    fn save(&mut self) {
        self.saved = Instant::now();
        let Some(position) = self.position.filter(|_| self.position != self.written) else {
            return;
        };
        let forwarded = Forwarded {
            generation: position.generation,
            offset: position.offset,
            rest: self.rest.clone(),
        };
        let written = document::write(&self.kept, &forwarded, self.era, Durability::Relaxed);
        match written {
            Ok(()) => self.written = Some(position),
            // The directory of a removed container is missing.
            Err(error) => tracing::debug!(%error, "how far a log was passed on is not kept"),
        }
    }
}

/// Joins the parts of lines.
fn push(open: &mut [Line; 2], record: &Record<'_>, messages: &mut Vec<Message>) {
    let [out, error] = open;
    let line = match record.stream {
        Stream::Stdout => out,
        Stream::Stderr => error,
    };
    if line.bytes.is_empty() {
        line.time = record.time;
    }
    line.bytes.extend_from_slice(record.payload);
    if !record.partial || line.bytes.len() >= LONGEST {
        finish(line, record.stream, messages);
    }
}

fn finish(line: &mut Line, stream: Stream, messages: &mut Vec<Message>) {
    let mut text = std::mem::take(&mut line.bytes);
    while text.ends_with(b"\n") || text.ends_with(b"\r") {
        text.pop();
    }
    // As Docker: an empty line is no message.
    if !text.is_empty() {
        let time = line.time;
        messages.push(Message { stream, time, text });
    }
}

#[cfg(test)]
mod tests {
    use keelson_store::document::assert_goes_back;

    use super::*;

    #[test]
    fn forwarded_json_goes_back() {
        let golden = include_str!("../tests/golden/forwarded.1.json");
        assert_goes_back::<Forwarded>(&[(1, golden)]);
    }
}
