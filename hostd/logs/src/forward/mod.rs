//! Forwards lines to a target, in the order of the store and from where it ended before.
//!
//! The store is the queue: a batch is read from it, sent, and counted as sent when the target has
//! taken it. Over TCP that means that the target's kernel has acknowledged it, over HTTP that the
//! target answered with a status of success; datagrams are never acknowledged. A batch whose
//! connection broke is sent again, so lines may come twice, but none is lost while the store has it.
//!
//! - `position`: up to where lines were sent, in a file.
//! - `syslog`: messages by RFC 5424.
//! - `tls`: whom to trust, and what to show.
//! - `connection`: connections to targets.

mod connection;
mod position;
mod syslog;
mod tls;

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use keelson_blocking::blocking;
use keelson_journal::{BootId, Journal, JournalFilter, JournalReader, StoredEntry};
use keelson_model::host::{ForwardConfig, LogTarget};
use keelson_model::logs::{LogForward, LogForwardState};
use keelson_store::Era;
use tokio::sync::watch;

use self::connection::{Connection, ForwardError};
use self::position::Kept;
use crate::line;

/// Bytes of lines that are sent at once. More never wait in memory.
const BATCH: usize = 128 << 10;
/// Pause before a target is tried again. It doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How often the position is stored.
const SAVE_EVERY: Duration = Duration::from_secs(2);
/// How long the last save may take at a stop.
const STOP_LIMIT: Duration = Duration::from_secs(2);

/// A target, and what is known about it.
pub(crate) struct Forwarding {
    config: ForwardConfig,
    state: Mutex<LogForward>,
    /// True when it is to end.
    stop: watch::Sender<bool>,
    /// True when it has ended.
    ended: watch::Sender<bool>,
}

/// Where lines come from.
pub(crate) struct Source {
    pub(crate) journal: Journal,
    pub(crate) newest: watch::Receiver<u64>,
    pub(crate) boot: BootId,
    /// The directory of the positions.
    pub(crate) directory: PathBuf,
    pub(crate) era: Era,
}

impl Forwarding {
    pub(crate) fn new(config: ForwardConfig) -> Self {
        let state = LogForward {
            name: config.name.clone(),
            target: config.target.clone(),
            state: LogForwardState::Connecting,
            error: None,
            since: line::time(line::now()),
            sequence: 0,
            caught_up: false,
            sent: 0,
            missed: false,
        };
        Self {
            config,
            state: Mutex::new(state),
            stop: watch::Sender::new(false),
            ended: watch::Sender::new(false),
        }
    }

    pub(crate) fn status(&self) -> LogForward {
        self.state().clone()
    }

    /// Ends it, and keeps how far it came.
    pub(crate) async fn stop(&self) {
        self.stop.send_replace(true);
        let mut ended = self.ended.subscribe();
        let _ = tokio::time::timeout(STOP_LIMIT, ended.wait_for(|ended| *ended)).await;
    }

    fn state(&self) -> MutexGuard<'_, LogForward> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, new: LogForwardState, error: Option<String>) {
        let mut state = self.state();
        let (name, target) = (&self.config.name, &self.config.target);
        match &error {
            Some(error) if state.error.as_ref() != Some(error) => {
                tracing::warn!(name, target, error, "logs are not forwarded");
            }
            None if new == LogForwardState::Connected && state.error.is_some() => {
                tracing::info!(name, target, "logs are forwarded again");
            }
            _ => {}
        }
        if state.state != new {
            state.since = line::time(line::now());
        }
        state.state = new;
        // While it connects again, the reason is still of interest.
        if new != LogForwardState::Connecting {
            state.error = error;
        }
    }
}

/// Forwards until it is stopped.
pub(crate) async fn run(target: std::sync::Arc<Forwarding>, source: Source) {
    let mut stop = target.stop.subscribe();
    let path = source
        .directory
        .join(format!("forward-{}.json", target.config.name));
    let era = source.era;
    let mut kept = match blocking(move || Kept::open(path, era)).await {
        Ok(kept) => kept,
        Err(error) => {
            target.enter(LogForwardState::Failed, Some(error.to_string()));
            target.ended.send_replace(true);
            return;
        }
    };
    let mut sender = Sender::new(&target, source, &kept);
    tokio::select! {
        () = sender.work(&mut kept) => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
    kept.set(sender.position);
    let _ = blocking(move || kept.save()).await;
    target.ended.send_replace(true);
}

struct Sender<'a> {
    target: &'a Forwarding,
    source: Source,
    /// Lines up to this number were sent.
    position: u64,
    saved: Instant,
}

impl<'a> Sender<'a> {
    fn new(target: &'a Forwarding, source: Source, kept: &Kept) -> Self {
        // A new target gets what this boot has written.
        let boots = source.journal.boots();
        let this = boots.iter().find(|boot| boot.boot == source.boot);
        let first = this.map_or_else(|| source.journal.last(), |boot| boot.first - 1);
        let position = kept.sequence().unwrap_or(first);
        target.state().sequence = position;
        Self {
            target,
            source,
            position,
            saved: Instant::now(),
        }
    }

    async fn work(&mut self, kept: &mut Kept) {
        let mut pause = FIRST_PAUSE;
        loop {
            self.target.enter(LogForwardState::Connecting, None);
            let before = self.position;
            let error = match self.connect().await {
                Ok(connection) => self.forward(connection, kept).await,
                Err(error) => error,
            };
            self.target
                .enter(LogForwardState::Failed, Some(error.to_string()));
            if self.position > before {
                pause = FIRST_PAUSE;
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn connect(&self) -> Result<Connection, ForwardError> {
        let config = &self.target.config;
        let target: LogTarget = config
            .target
            .parse()
            .map_err(|why| ForwardError::Target(config.target.clone(), why))?;
        Connection::open(&target, config).await
    }

    /// Sends lines until that fails.
    async fn forward(&mut self, mut connection: Connection, kept: &mut Kept) -> ForwardError {
        self.target.enter(LogForwardState::Connected, None);
        if self.source.journal.removed() > self.position && !self.target.state().missed {
            tracing::warn!(
                name = self.target.config.name,
                "lines were removed from the store before they were forwarded"
            );
            self.target.state().missed = true;
        }
        let filter = JournalFilter {
            units: self.target.config.units.clone(),
            priority: Some(self.target.config.priority),
            after: self.position,
            ..JournalFilter::default()
        };
        let mut reader = JournalReader::new(self.source.journal.clone(), filter);
        loop {
            self.source.newest.mark_unchanged();
            let read = blocking(move || {
                let lines = reader.next(BATCH);
                (reader, lines)
            });
            let lines;
            (reader, lines) = match read.await {
                Ok((reader, Ok(lines))) => (reader, lines),
                Ok((_, Err(error))) => return ForwardError::Store(error.to_string()),
                Err(died) => return ForwardError::Store(died.to_string()),
            };
            let count = lines.len() as u64;
            if let Err(error) = send(&mut connection, lines).await {
                return error;
            }
            self.position = reader.position();
            {
                let mut state = self.target.state();
                state.sequence = self.position;
                state.sent += count;
                state.caught_up = count == 0;
            }
            self.save(kept).await;
            if count > 0 {
                continue;
            }
            tokio::select! {
                changed = self.source.newest.changed() => {
                    if changed.is_err() {
                        // The store has ended; so does hostd.
                        std::future::pending::<()>().await;
                    }
                }
                error = connection.closed() => return error,
            }
        }
    }

    async fn save(&mut self, kept: &mut Kept) {
        if self.saved.elapsed() < SAVE_EVERY {
            return;
        }
        self.saved = Instant::now();
        kept.set(self.position);
        let copy = kept.clone();
        if let Ok(saved) = blocking(move || copy.saved()).await {
            *kept = saved;
        }
    }
}

async fn send(connection: &mut Connection, lines: Vec<StoredEntry>) -> Result<(), ForwardError> {
    if lines.is_empty() {
        return Ok(());
    }
    connection.send(lines).await
}
