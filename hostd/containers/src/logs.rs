//! Reading logs, and following them without polling.

use std::path::Path;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use jiff::Timestamp;
use keelson_log::{Next, Reader, Record, Stream};
use keelson_model::spec::LogSpec;
use rustix::fs::inotify;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, mpsc};

use crate::types::{Frame, LogQuery, Logs, Receiver, Scope, Status, WaitCondition};
use crate::{Engine, EngineError};

/// Bytes of output that are gathered before they are passed on.
const BATCH: usize = 128 << 10;
/// Reads at once. Each is short, but hundreds of clients would fill the threads that starts use.
static READS: Semaphore = Semaphore::const_new(16);
/// Bytes of one frame, about: a longer line is passed on in pieces, as Docker's drivers do.
const FRAME: usize = 16 << 10;

impl Engine {
    /// Reads a container's log.
    ///
    /// # Errors
    /// When there is no such container, or the query asks for neither stream.
    pub async fn logs(
        &self,
        scope: Scope,
        name: &str,
        query: LogQuery,
    ) -> Result<Logs, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        if !query.stdout && !query.stderr {
            return Err(EngineError::Invalid(
                "Bad parameters: you must choose at least one stream".to_owned(),
            ));
        }
        let snapshot = container.snapshot();
        if matches!(snapshot.state.status, Status::Dead | Status::Removing) {
            return Err(EngineError::Conflict(
                "can not get logs from container which is dead or marked for removal".to_owned(),
            ));
        }
        if snapshot.spec.log == LogSpec::Nowhere {
            return Err(EngineError::NotImplemented(
                "configured logging driver does not support reading".to_owned(),
            ));
        }
        let path = snapshot.log_path.clone();
        // Both before the first read: what happens after it wakes the follower.
        let watch = if query.follow {
            path.parent().map(Watch::new).transpose()?
        } else {
            None
        };
        let ended = container.wait(WaitCondition::NotRunning).ok();
        let (sender, records) = mpsc::channel(1);
        let held = container.readers.subscribe();
        tokio::spawn(async move {
            let _held = held;
            let reading = read(&path, query, watch, ended, &sender);
            if let Err(error) = reading.await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(Logs {
            records: Receiver(records),
            tty: snapshot.spec.process.terminal.is_some(),
        })
    }
}

/// A reader and what it has to remember, moved to the blocking threads and back.
struct Job {
    reader: Reader,
    shaper: Shaper,
}

async fn read(
    path: &Path,
    query: LogQuery,
    watch: Option<Watch>,
    ended: Option<tokio::sync::oneshot::Receiver<crate::WaitResult>>,
    sender: &mpsc::Sender<Result<Vec<Frame>, EngineError>>,
) -> Result<(), EngineError> {
    let mut over = ended.is_none();
    let ended = async {
        match ended {
            Some(ended) => drop(ended.await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(ended);
    let until = query.until;
    let mut job = blocking({
        let path = path.to_owned();
        move || open(&path, query)
    })
    .await?;
    loop {
        let (back, batch, state) = blocking(move || {
            let mut job = job;
            let (batch, state) = job.batch()?;
            Ok((job, batch, state))
        })
        .await?;
        job = back;
        if !batch.is_empty() && sender.send(Ok(batch)).await.is_err() {
            return Ok(());
        }
        match state {
            Progress::More => continue,
            Progress::Over => return Ok(()),
            Progress::CaughtUp => {}
        }
        // Caught up after the end: there is nothing more.
        let Some(watch) = watch.as_ref().filter(|_| !over) else {
            return Ok(());
        };
        tokio::select! {
            changed = watch.changed() => changed?,
            () = &mut ended => over = true,
            () = sleep_until(until) => over = true,
            () = sender.closed() => return Ok(()),
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, EngineError> + Send + 'static,
) -> Result<T, EngineError> {
    // Never closed.
    let _place = READS.acquire().await;
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(EngineError::Internal(format!("task failed: {error}"))))
}

async fn sleep_until(time: Option<u64>) {
    let Some(time) = time else {
        return std::future::pending().await;
    };
    let now = u64::try_from(Timestamp::now().as_nanosecond()).unwrap_or_default();
    tokio::time::sleep(Duration::from_nanos(time.saturating_sub(now))).await;
}

fn open(path: &Path, query: LogQuery) -> Result<Job, EngineError> {
    let mut reader = Reader::open(path)?;
    match (query.tail, query.since) {
        (Some(lines), _) => reader.seek_tail(lines)?,
        (None, Some(since)) => reader.seek_since(since)?,
        (None, None) => {}
    }
    Ok(Job {
        reader,
        shaper: Shaper {
            query,
            frames: Vec::new(),
            current: BytesMut::new(),
            current_stream: 0,
            inside_line: [false; 2],
            size: 0,
        },
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// The batch is full.
    More,
    /// Everything recorded so far was read.
    CaughtUp,
    /// What follows is newer than asked for.
    Over,
}

impl Job {
    fn batch(&mut self) -> Result<(Vec<Frame>, Progress), EngineError> {
        let mut progress = Progress::More;
        while self.shaper.size < BATCH {
            match self.reader.next()? {
                Next::Record(record) => {
                    if self
                        .shaper
                        .query
                        .until
                        .is_some_and(|until| record.time > until)
                    {
                        progress = Progress::Over;
                        break;
                    }
                    self.shaper.push(&record);
                }
                Next::CaughtUp { .. } => {
                    progress = Progress::CaughtUp;
                    break;
                }
            }
        }
        Ok((self.shaper.take(), progress))
    }
}

/// Turns records into frames, one for each line however the process wrote it; times are put before
/// lines.
struct Shaper {
    query: LogQuery,
    frames: Vec<Frame>,
    current: BytesMut,
    current_stream: u8,
    /// Whether the last record of standard output and of standard error goes on.
    inside_line: [bool; 2],
    size: usize,
}

impl Shaper {
    fn push(&mut self, record: &Record<'_>) {
        let (number, wanted) = match record.stream {
            Stream::Stdout => (1, self.query.stdout),
            Stream::Stderr => (2, self.query.stderr),
        };
        let [out, error] = &mut self.inside_line;
        let inside = if number == 1 { out } else { error };
        let begins = !std::mem::replace(inside, record.partial);
        if !wanted || self.query.since.is_some_and(|since| record.time < since) {
            return;
        }
        if self.current_stream != number || begins || self.current.len() >= FRAME {
            self.finish();
            self.current_stream = number;
        }
        if self.query.timestamps && begins {
            self.current
                .extend_from_slice(time_text(record.time).as_bytes());
        }
        if begins {
            self.current.extend_from_slice(self.query.prefix.as_bytes());
        }
        self.current.extend_from_slice(record.payload);
        self.size += record.payload.len() + 32;
    }

    fn finish(&mut self) {
        if !self.current.is_empty() {
            let bytes: Bytes = self.current.split().freeze();
            self.frames.push(Frame {
                stream: self.current_stream,
                bytes,
            });
        }
    }

    fn take(&mut self) -> Vec<Frame> {
        self.finish();
        self.size = 0;
        std::mem::take(&mut self.frames)
    }
}

/// `2026-11-21T01:02:03.000000004Z `: nine digits always, so that the texts sort like the times.
fn time_text(nanoseconds: u64) -> String {
    let time = Timestamp::from_nanosecond(i128::from(nanoseconds)).unwrap_or_default();
    format!("{time:.9} ")
}

/// Tells when something changes in a directory.
///
/// An inotify descriptor is read like a pipe, and tokio's pipe is what registers a descriptor
/// without `unsafe`.
pub(crate) struct Watch(pipe::Receiver);

impl Watch {
    pub(crate) fn new(directory: &Path) -> Result<Self, EngineError> {
        let error = || EngineError::io("inotify", directory);
        let handle = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)
            .map_err(|errno| error()(errno.into()))?;
        inotify::add_watch(
            &handle,
            directory,
            inotify::WatchFlags::MODIFY
                | inotify::WatchFlags::CREATE
                | inotify::WatchFlags::MOVED_TO
                | inotify::WatchFlags::DELETE_SELF,
        )
        .map_err(|errno| error()(errno.into()))?;
        Ok(Self(
            pipe::Receiver::from_owned_fd_unchecked(handle).map_err(error())?,
        ))
    }

    /// Returns after a change, and takes all notices of changes up to now.
    pub(crate) async fn changed(&self) -> Result<(), EngineError> {
        let error = || EngineError::io("inotify", Path::new("log"));
        let mut buffer = [0; 4096];
        let mut seen = false;
        loop {
            match self.0.try_read(&mut buffer) {
                Ok(_) => seen = true,
                Err(reason) if reason.kind() == std::io::ErrorKind::WouldBlock => {
                    if seen {
                        return Ok(());
                    }
                    self.0.readable().await.map_err(error())?;
                }
                Err(reason) => return Err(error()(reason)),
            }
        }
    }
}

#[cfg(test)]
mod tests;
