//! Starts everything, and reads for clients.

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use hostd_containers::{Engine, LogPosition};
use keelson_blocking::blocking;
use keelson_journal::{
    BootId, Journal, JournalEntry, JournalFilter, JournalLimits, JournalReader, JournalWriter,
    StoredEntry,
};
use keelson_model::error::ErrorKind;
use keelson_model::host::LogsConfig;
use keelson_model::logs::{LogBoot, LogPriority, LogUnit, LogsStatus};
use keelson_store::Era;
use tokio::sync::{Semaphore, mpsc, oneshot, watch};

use crate::forward::{self, Forwarding};
use crate::kernel::{self, Stored};
use crate::line::{self, now};
use crate::own::OwnLines;
use crate::services::{self, Positions};
use crate::store::{self, Intake, Shared, Store};

/// How many clients may read at once.
const CLIENTS: usize = 32;
/// Bytes that are read for a client at once.
const BATCH: usize = 64 << 10;
/// How many lines from the end a client may ask for.
const MOST_TAIL: usize = 100_000;
/// Pause before a store that can't be opened is tried again.
const RETRY: Duration = Duration::from_secs(10);
/// How long the last lines may take at a stop.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// The store never takes more than this part of its file system.
const SHARE: u64 = 10;
/// The smallest bound of a store, on however small a disk.
const SMALLEST: u64 = 1 << 20;

/// What [`HostLogs::open`] needs.
pub struct LogsOptions {
    /// Directory of the store.
    pub directory: PathBuf,
    /// Bounds and targets.
    pub config: LogsConfig,
    /// The kernel's log. `None`: it is not read.
    pub kernel: Option<PathBuf>,
    /// The engine, whose system containers' logs are read.
    pub engine: Engine,
    /// hostd's own lines, if they are not in the kernel's log.
    pub own: Option<OwnLines>,
    /// Whether the running release may still be rolled back.
    pub era: Era,
}

/// The machine's logs. Clones share them.
#[derive(Clone)]
pub struct HostLogs {
    inner: Arc<Inner>,
}

struct Inner {
    directory: PathBuf,
    max_bytes: u64,
    shared: Arc<Shared>,
    newest: watch::Receiver<u64>,
    stop: mpsc::Sender<oneshot::Sender<()>>,
    clients: Arc<Semaphore>,
    forwarding: Vec<Arc<Forwarding>>,
}

/// Which boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootChoice {
    /// The newest is 0, the one before -1; the oldest is 1, the one after 2.
    Number(i64),
    /// The beginning of its identifier.
    Id(String),
}

/// What a client wants to read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogsQuery {
    /// Only these units; all if it is empty.
    pub units: Vec<String>,
    /// Only this boot.
    pub boot: Option<BootChoice>,
    /// Nothing earlier, in nanoseconds since 1970.
    pub since: Option<u64>,
    /// Nothing later.
    pub until: Option<u64>,
    /// Nothing less urgent.
    pub priority: Option<LogPriority>,
    /// Only lines with a higher number.
    pub after: u64,
    /// Only this many of the last lines.
    pub tail: Option<usize>,
    /// Go on with new lines.
    pub follow: bool,
}

/// Why logs can't be read.
#[derive(Debug, thiserror::Error)]
pub enum LogsError {
    /// The store is not open.
    #[error("the store of logs is not open: {0}")]
    NotOpen(String),
    /// Too many clients read.
    #[error("{CLIENTS} clients read logs already: try again when one has ended")]
    TooMany,
    /// There is no such boot.
    #[error("no boot {0} has lines in the store: see `hostctl logs --list-boots`")]
    NoBoot(String),
    /// More lines from the end than may be asked for.
    #[error("more than {MOST_TAIL} lines from the end: use `since`")]
    Tail,
    /// A file can't be read.
    #[error(transparent)]
    Journal(#[from] keelson_journal::JournalError),
    /// A task of this program died.
    #[error(transparent)]
    Died(#[from] keelson_blocking::TaskDied),
}

impl LogsError {
    /// The kind, which determines the status of an answer.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotOpen(_) | Self::TooMany => ErrorKind::Unavailable,
            Self::NoBoot(_) => ErrorKind::NotFound,
            Self::Tail => ErrorKind::InvalidInput,
            Self::Journal(_) | Self::Died(_) => ErrorKind::Internal,
        }
    }
}

impl HostLogs {
    /// Starts everything in the background. Never fails: why nothing is stored is in
    /// [`HostLogs::status`].
    #[must_use]
    pub fn open(options: LogsOptions) -> Self {
        let shared = Arc::new(Shared::default());
        let (newest, follow) = watch::channel(0);
        let (stop, stopped) = mpsc::channel(1);
        let max_bytes = bounded(&options.directory, options.config.max_size);
        let forwarding = options.config.forward.iter().cloned();
        let forwarding: Vec<_> = forwarding
            .map(|config| Arc::new(Forwarding::new(config)))
            .collect();
        let inner = Arc::new(Inner {
            directory: options.directory.clone(),
            max_bytes,
            shared: Arc::clone(&shared),
            newest: follow.clone(),
            stop,
            clients: Arc::new(Semaphore::new(CLIENTS)),
            forwarding: forwarding.clone(),
        });
        let limits = JournalLimits {
            size: max_bytes,
            age: match options.config.max_age {
                0 => None,
                days => Some(Duration::from_secs(86_400) * days),
            },
        };
        tokio::spawn(async move {
            let boot = store::boot();
            let writer = open_store(&options.directory, limits, boot, &shared).await;
            let journal = writer.journal().clone();
            let _ = shared.journal.set(journal.clone());
            let (intake, lines) = store::intake(&shared);
            collect(
                options.kernel,
                options.engine,
                options.own,
                &writer,
                boot,
                &intake,
            );
            for target in forwarding {
                let reader = forward::Source {
                    journal: journal.clone(),
                    newest: follow.clone(),
                    boot,
                    directory: options.directory.clone(),
                    era: options.era,
                };
                tokio::spawn(forward::run(target, reader));
            }
            Store::new(writer, shared, lines, newest, stopped)
                .run()
                .await;
        });
        Self { inner }
    }

    fn journal(&self) -> Result<&Journal, LogsError> {
        let shared = &self.inner.shared;
        shared.journal.get().ok_or_else(|| {
            let error = shared.error.read().unwrap_or_else(PoisonError::into_inner);
            LogsError::NotOpen(error.clone().unwrap_or_else(|| "hostd starts".to_owned()))
        })
    }

    /// Reads lines, in lists. The stream ends after the last one, or with the client if it follows.
    ///
    /// # Errors
    /// The store is not open, too many clients read, or there is no such boot.
    pub fn read(
        &self,
        query: LogsQuery,
    ) -> Result<mpsc::Receiver<Result<Vec<StoredEntry>, LogsError>>, LogsError> {
        if query.tail.is_some_and(|tail| tail > MOST_TAIL) {
            return Err(LogsError::Tail);
        }
        let journal = self.journal()?.clone();
        let boot = match &query.boot {
            Some(choice) => Some(find_boot(&journal, choice)?),
            None => None,
        };
        let clients = Arc::clone(&self.inner.clients);
        let permit = clients
            .try_acquire_owned()
            .map_err(|_| LogsError::TooMany)?;
        let reader = JournalReader::new(
            journal,
            JournalFilter {
                units: query.units,
                boot,
                since: query.since,
                until: query.until,
                priority: query.priority,
                after: query.after,
            },
        );
        let newest = self.inner.newest.clone();
        let (sender, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let _permit = permit;
            let follow = query.follow.then_some(newest);
            let reading = pass_on(reader, query.tail, query.until, follow, &sender);
            if let Err(error) = reading.await {
                let _ = sender.send(Err(error)).await;
            }
        });
        Ok(receiver)
    }

    /// The boots that have lines in the store, newest first.
    ///
    /// # Errors
    /// The store is not open.
    pub fn boots(&self) -> Result<Vec<LogBoot>, LogsError> {
        Ok(line::boots(&self.journal()?.boots()))
    }

    /// The state of the store and of forwarding.
    #[must_use]
    pub fn status(&self) -> LogsStatus {
        let Inner {
            directory,
            max_bytes,
            shared,
            forwarding,
            ..
        } = &*self.inner;
        let error = shared.error.read().unwrap_or_else(PoisonError::into_inner);
        let mut status = LogsStatus {
            directory: directory.display().to_string(),
            max_bytes: *max_bytes,
            suppressed: shared.suppressed.load(Ordering::Relaxed),
            lost: shared.lost.load(Ordering::Relaxed),
            error: error.clone(),
            forward: forwarding.iter().map(|target| target.status()).collect(),
            ..LogsStatus::default()
        };
        if let Some(journal) = shared.journal.get() {
            let units = journal.units();
            status.bytes = units.iter().map(|unit| unit.bytes).sum();
            status.oldest = units
                .iter()
                .filter_map(|unit| unit.earliest)
                .min()
                .map(line::time);
            status.last_sequence = journal.last();
            status.units = units
                .into_iter()
                .map(|unit| LogUnit {
                    unit: unit.unit,
                    bytes: unit.bytes,
                    oldest: unit.earliest.map(line::time),
                })
                .collect();
            let unreadable = journal.unreadable();
            status.unreadable = unreadable
                .iter()
                .map(|path| path.display().to_string())
                .collect();
        }
        status
    }

    /// Stores what waits, brings it to the disk, and ends.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        let stop = async {
            if self.inner.stop.send(done).await.is_ok() {
                let _ = stopped.await;
            }
        };
        let _ = tokio::time::timeout(STOP_LIMIT, stop).await;
        for target in &self.inner.forwarding {
            target.stop().await;
        }
    }
}

/// The configured size, or a part of the file system.
fn bounded(directory: &Path, size: u64) -> u64 {
    let existing = directory.ancestors().find(|path| path.exists());
    let system = existing.and_then(|path| rustix::fs::statvfs(path).ok());
    let most = system.map_or(u64::MAX, |system| {
        system.f_blocks.saturating_mul(system.f_frsize) / SHARE
    });
    size.min(most).max(SMALLEST)
}

async fn open_store(
    directory: &Path,
    limits: JournalLimits,
    boot: BootId,
    shared: &Shared,
) -> JournalWriter {
    loop {
        let directory = directory.to_owned();
        let opened = blocking(move || JournalWriter::open(&directory, limits, boot)).await;
        let error = match opened {
            Ok(Ok(writer)) => {
                for path in writer.journal().unreadable() {
                    tracing::warn!(path = %path.display(), "a file of the logs can't be read and is kept");
                }
                shared.set_error(None);
                return writer;
            }
            Ok(Err(error)) => error.to_string(),
            Err(died) => died.to_string(),
        };
        shared.set_error(Some(error));
        tokio::time::sleep(RETRY).await;
    }
}

/// Starts the sources, each after what is stored of it.
fn collect(
    kernel_log: Option<PathBuf>,
    engine: Engine,
    own: Option<OwnLines>,
    writer: &JournalWriter,
    boot: BootId,
    intake: &Intake,
) {
    let (mut stored, mut positions) = (Stored::new(), Positions::new());
    for (unit, of_boot, origin) in writer.origins() {
        if origin.source != kernel::SOURCE {
            let position = LogPosition {
                generation: origin.generation,
                offset: origin.offset,
            };
            positions.insert((unit.to_owned(), origin.source), position);
        } else if of_boot == boot {
            stored.insert(unit.to_owned(), origin.offset);
        }
    }
    if let Some(path) = kernel_log {
        let intake = intake.clone();
        tokio::spawn(async move {
            if let Err(error) = kernel::run(&path, boot, stored, &intake).await {
                tracing::warn!(%error, "the kernel's log is not stored");
            }
        });
    }
    if let Some(own) = own {
        tokio::spawn(take_own(own, boot, intake.clone()));
    }
    let intake = intake.clone();
    tokio::spawn(async move { services::run(&engine, boot, positions, &intake).await });
}

async fn take_own(mut own: OwnLines, boot: BootId, intake: Intake) {
    while let Some((priority, text)) = own.0.recv().await {
        let clock = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let uptime = Duration::new(
            u64::try_from(clock.tv_sec).unwrap_or_default(),
            u32::try_from(clock.tv_nsec).unwrap_or_default(),
        );
        let entry = JournalEntry {
            time: now(),
            uptime: u64::try_from(uptime.as_nanos()).unwrap_or_default(),
            boot,
            unit: "hostd".to_owned(),
            priority,
            continues: false,
            origin: None,
            text,
        };
        if intake.send(entry).await.is_err() {
            return;
        }
    }
}

fn find_boot(journal: &Journal, choice: &BootChoice) -> Result<BootId, LogsError> {
    let boots = journal.boots();
    let found = match choice {
        BootChoice::Number(number @ 1..) => usize::try_from(number - 1)
            .ok()
            .and_then(|index| boots.get(index)),
        BootChoice::Number(number) => usize::try_from(-number)
            .ok()
            .and_then(|back| boots.iter().nth_back(back)),
        BootChoice::Id(id) => {
            let id = id.to_ascii_lowercase().replace('-', "");
            let mut matching = boots
                .iter()
                .filter(|boot| id.len() >= 4 && boot.boot.to_string().starts_with(&id));
            matching.next().filter(|_| matching.next().is_none())
        }
    };
    let shown = match choice {
        BootChoice::Number(number) => number.to_string(),
        BootChoice::Id(id) => format!("{id:?}"),
    };
    found.map(|boot| boot.boot).ok_or(LogsError::NoBoot(shown))
}

async fn pass_on(
    mut reader: JournalReader,
    tail: Option<usize>,
    until: Option<u64>,
    mut follow: Option<watch::Receiver<u64>>,
    sender: &mpsc::Sender<Result<Vec<StoredEntry>, LogsError>>,
) -> Result<(), LogsError> {
    if let Some(tail) = tail {
        let lines;
        (reader, lines) = blocking(move || {
            let lines = reader.tail(tail);
            lines.map(|lines| (reader, lines))
        })
        .await??;
        if !lines.is_empty() && sender.send(Ok(lines)).await.is_err() {
            return Ok(());
        }
    }
    loop {
        // Seen before the read: what comes later wakes again.
        if let Some(newest) = &mut follow {
            newest.mark_unchanged();
        }
        let lines;
        (reader, lines) = blocking(move || {
            let lines = reader.next(BATCH);
            lines.map(|lines| (reader, lines))
        })
        .await??;
        if !lines.is_empty() {
            if sender.send(Ok(lines)).await.is_err() {
                return Ok(());
            }
            continue;
        }
        let (Some(newest), false) = (&mut follow, until.is_some_and(|until| now() > until)) else {
            return Ok(());
        };
        let left = until.map(|until| Duration::from_nanos(until.saturating_sub(now()) + 1_000_000));
        tokio::select! {
            changed = newest.changed() => {
                // The store has ended.
                if changed.is_err() {
                    return Ok(());
                }
            }
            () = sleep(left) => {}
            () = sender.closed() => return Ok(()),
        }
    }
}

async fn sleep(time: Option<Duration>) {
    match time {
        Some(time) => tokio::time::sleep(time).await,
        None => std::future::pending().await,
    }
}
