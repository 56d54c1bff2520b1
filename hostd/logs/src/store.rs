//! The one task that writes: it collects lines, stores them in batches, and keeps the bounds.
//!
//! While nothing can be stored, for example because the disk is full, the lines that wait stay in
//! memory, and no more are taken: the sources keep them for as long as they can.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::{Duration, Instant};

use keelson_blocking::blocking;
use keelson_journal::{BootId, Journal, JournalEntry, JournalError, JournalWriter};
use keelson_model::logs::LogPriority;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch};

use crate::limit::Limits;
use crate::line::now;

/// How many lines may wait for the store, and how many bytes they may take.
const WAITING: usize = 4096;
const WAITING_BYTES: u32 = 2 << 20;
/// Bytes that a line takes beside its text, approximately.
const BESIDE_TEXT: usize = 256;
/// How many lines are stored at once.
const BATCH: usize = 2048;
/// How long a batch may grow after its first line.
const LINGER: Duration = Duration::from_millis(20);
/// How long a line may be only in memory of the kernel. Errors are synchronised at once.
const SYNC_EVERY: Duration = Duration::from_secs(5);
/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// What the store leaves free on its file system, for those who must write to repair it: this much,
/// or a fiftieth of a small one.
const LEFT_FREE: u64 = 16 << 20;
const SMALL: u64 = 50;

/// Why a batch waits.
#[derive(Debug, thiserror::Error)]
enum BatchError {
    #[error("less than {0} bytes are free on the file system of {path}: make room", path = .1.display())]
    NoRoom(u64, PathBuf),
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// What clients may know at any time.
#[derive(Default)]
pub(crate) struct Shared {
    pub(crate) journal: OnceLock<Journal>,
    /// Why nothing can be stored now.
    pub(crate) error: RwLock<Option<String>>,
    pub(crate) suppressed: AtomicU64,
    pub(crate) lost: AtomicU64,
}

impl Shared {
    pub(crate) fn set_error(&self, error: Option<String>) {
        let mut current = self.error.write().unwrap_or_else(PoisonError::into_inner);
        match (&*current, &error) {
            (None, Some(error)) => tracing::warn!(error, "logs can't be stored"),
            (Some(_), None) => tracing::info!("logs are stored again"),
            _ => {}
        }
        *current = error;
    }
}

/// The entrance of the store. Clones share it.
#[derive(Clone)]
pub(crate) struct Intake {
    sender: mpsc::Sender<Waiting>,
    room: Arc<Semaphore>,
    shared: Arc<Shared>,
}

/// A line that waits, and its share of the room for such lines.
pub(crate) struct Waiting {
    line: JournalEntry,
    _room: OwnedSemaphorePermit,
}

/// The store takes nothing any more.
#[derive(Debug, thiserror::Error)]
#[error("the store of logs was closed")]
pub(crate) struct Closed;

impl Intake {
    /// Waits until the store takes a line.
    pub(crate) async fn send(&self, line: JournalEntry) -> Result<(), Closed> {
        let bytes = u32::try_from(line.text.len() + BESIDE_TEXT).unwrap_or(WAITING_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(bytes.min(WAITING_BYTES));
        let _room = room.await.map_err(|_| Closed)?;
        let waiting = Waiting { line, _room };
        self.sender.send(waiting).await.map_err(|_| Closed)
    }

    /// Counts lines that are gone.
    pub(crate) fn lost(&self, lines: u64) {
        self.shared.lost.fetch_add(lines, Ordering::Relaxed);
    }
}

/// The store's task.
pub(crate) struct Store {
    writer: JournalWriter,
    limits: Limits,
    shared: Arc<Shared>,
    lines: mpsc::Receiver<Waiting>,
    /// The number of the newest line, for those who follow.
    newest: watch::Sender<u64>,
    stop: mpsc::Receiver<oneshot::Sender<()>>,
}

/// The entrance, and the task's receiving end.
pub(crate) fn intake(shared: &Arc<Shared>) -> (Intake, mpsc::Receiver<Waiting>) {
    let (sender, lines) = mpsc::channel(WAITING);
    let intake = Intake {
        sender,
        room: Arc::new(Semaphore::new(WAITING_BYTES as usize)),
        shared: Arc::clone(shared),
    };
    (intake, lines)
}

/// The boot of now.
pub(crate) fn boot() -> BootId {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id");
    text.ok()
        .and_then(|text| BootId::parse(&text))
        .unwrap_or_default()
}

impl Store {
    pub(crate) fn new(
        writer: JournalWriter,
        shared: Arc<Shared>,
        lines: mpsc::Receiver<Waiting>,
        newest: watch::Sender<u64>,
        stop: mpsc::Receiver<oneshot::Sender<()>>,
    ) -> Self {
        newest.send_replace(writer.journal().last());
        Self {
            writer,
            limits: Limits::default(),
            shared,
            lines,
            newest,
            stop,
        }
    }

    /// Stores lines until it is stopped.
    pub(crate) async fn run(mut self) {
        let mut pending: Vec<JournalEntry> = Vec::new();
        let mut synced = Instant::now();
        let mut dirty = false;
        loop {
            let mut waiting = Vec::new();
            tokio::select! {
                count = self.lines.recv_many(&mut waiting, BATCH), if pending.is_empty() => {
                    if count == 0 {
                        return;
                    }
                    tokio::time::sleep(LINGER).await;
                    while waiting.len() < BATCH && let Ok(line) = self.lines.try_recv() {
                        waiting.push(line);
                    }
                }
                () = tokio::time::sleep(RETRY), if !pending.is_empty() => {}
                () = tokio::time::sleep(SYNC_EVERY.saturating_sub(synced.elapsed())), if dirty => {}
                Some(done) = self.stop.recv() => {
                    while let Ok(line) = self.lines.try_recv() {
                        pending.push(line.line);
                    }
                    self = self.write(&mut pending, true).await;
                    let _ = done.send(());
                    return;
                }
            }
            let lines = waiting.into_iter().map(|waiting| waiting.line);
            let mut batch: Vec<JournalEntry> = lines.collect();
            self.limits.apply(&mut batch, Instant::now());
            self.shared
                .suppressed
                .store(self.limits.suppressed, Ordering::Relaxed);
            pending.append(&mut batch);
            let urgent = pending
                .iter()
                .any(|line| line.priority <= LogPriority::Error);
            let sync = urgent || dirty && synced.elapsed() >= SYNC_EVERY;
            dirty |= !pending.is_empty();
            self = self.write(&mut pending, sync).await;
            if sync {
                synced = Instant::now();
                dirty = false;
            }
        }
    }

    /// Writes and synchronises outside the threads that serve requests. What could not be stored stays
    /// in `pending`.
    async fn write(mut self, pending: &mut Vec<JournalEntry>, sync: bool) -> Self {
        let mut lines = std::mem::take(pending);
        let written = blocking(move || {
            let mut result = append(&mut self.writer, &mut lines);
            if result.is_ok() && sync {
                result = self.writer.sync().map_err(Into::into);
            }
            (self, lines, result.map_err(|error| error.to_string()))
        });
        match written.await {
            Ok((store, left, result)) => {
                *pending = left;
                let last = store.writer.journal().last();
                store.newest.send_if_modified(|newest| {
                    let more = *newest != last;
                    *newest = last;
                    more
                });
                store.shared.set_error(result.err());
                store
            }
            // Only a defect ends it. The daemon goes on, and the supervisor sees the message.
            Err(died) => {
                tracing::error!(error = %died, "logs are not stored any more");
                std::future::pending().await
            }
        }
    }
}

/// Appends lines, and removes what is too much. On a disk without room, the store's own oldest lines
/// make way for new ones, as long as it has more than a few.
fn append(writer: &mut JournalWriter, lines: &mut Vec<JournalEntry>) -> Result<(), BatchError> {
    loop {
        let full = match has_room(writer.journal().directory()) {
            Err(error) if !lines.is_empty() => error,
            _ => match writer.append(lines) {
                Ok(()) => break,
                Err(error) if error.is_full() => error.into(),
                Err(error) => return Err(error.into()),
            },
        };
        if !writer.make_room()? {
            return Err(full);
        }
    }
    writer.trim(now())?;
    Ok(())
}

fn has_room(directory: &Path) -> Result<(), BatchError> {
    // A file system that does not say counts as one with room.
    let Ok(system) = rustix::fs::statvfs(directory) else {
        return Ok(());
    };
    let wanted = LEFT_FREE.min(system.f_blocks.saturating_mul(system.f_frsize) / SMALL);
    match system.f_bavail.saturating_mul(system.f_frsize) < wanted {
        true => Err(BatchError::NoRoom(wanted, directory.to_owned())),
        false => Ok(()),
    }
}
