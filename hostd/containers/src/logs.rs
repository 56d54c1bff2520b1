//! Reads logs, and follows them without polling.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use keelson_log::Reader;
use keelson_log::shape::{BatchEnd, Selection, Shaper};
use keelson_model::spec::LogSpec;
use rustix::fs::inotify;
use tokio::net::unix::pipe;
use tokio::sync::{Semaphore, mpsc};

use crate::types::{LogPart, LogQuery, Logs, Receiver, Scope, Status, WaitCondition};
use crate::{Engine, EngineError};

/// How many reads run at once. Each is short, but hundreds of clients would occupy the threads that
/// starts use.
static READS: Semaphore = Semaphore::const_new(16);

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
        // Prepare both before the first read, so that later changes wake the follower.
        let watch = if query.follow {
            path.parent().map(DirectoryWatch::new).transpose()?
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
        })
    }
}

/// A reader and its state, moved to the blocking threads and back.
struct Job {
    reader: Reader,
    shaper: Shaper,
}

async fn read(
    path: &Path,
    query: LogQuery,
    watch: Option<DirectoryWatch>,
    ended: Option<tokio::sync::oneshot::Receiver<crate::WaitResult>>,
    sender: &mpsc::Sender<Result<LogPart, EngineError>>,
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
        let (back, part, state) = blocking(move || {
            let mut job = job;
            let (batch, state) = job.shaper.batch(&mut job.reader)?;
            let part = LogPart {
                bytes: Bytes::from(batch.bytes),
                pieces: batch.pieces,
            };
            Ok((job, part, state))
        })
        .await?;
        job = back;
        // Even if no line of a long log matches, this notices that the client has left.
        if sender.is_closed() || !part.bytes.is_empty() && sender.send(Ok(part)).await.is_err() {
            return Ok(());
        }
        match state {
            BatchEnd::More => continue,
            BatchEnd::Over => return Ok(()),
            BatchEnd::CaughtUp => {}
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
    keelson_blocking::blocking(work).await?
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
    let selection = Selection {
        stdout: query.stdout,
        stderr: query.stderr,
        since: query.since,
        until: query.until,
        times: query.timestamps.then_some(second),
        prefix: query.prefix,
        header: query.header,
        joined: query.joined,
    };
    Ok(Job {
        reader,
        shaper: Shaper::new(selection),
    })
}

/// `2026-11-21T01:02:03`, in UTC.
fn second(seconds: u64) -> String {
    let time = i64::try_from(seconds).ok();
    let time = time.and_then(|seconds| Timestamp::from_second(seconds).ok());
    let mut text = time.unwrap_or_default().to_string();
    text.pop();
    text
}

/// Notifies about changes in a directory.
///
/// An inotify descriptor is read like a pipe, and tokio's pipe can register a descriptor without
/// `unsafe`.
pub struct DirectoryWatch(pipe::Receiver);

impl DirectoryWatch {
    /// Watches a directory from now on.
    ///
    /// # Errors
    /// It does not exist, or the kernel refuses.
    pub fn new(directory: &Path) -> Result<Self, EngineError> {
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
    ///
    /// # Errors
    /// The kernel's notices can't be read.
    pub async fn changed(&self) -> Result<(), EngineError> {
        let error = || EngineError::io("inotify", Path::new("directory"));
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
