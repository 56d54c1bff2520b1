//! The records of a container's log with their positions, for those who keep them elsewhere.

use std::path::Path;

use keelson_blocking::blocking;
use keelson_log::{Next, Position, Reader};
use tokio::sync::mpsc;

use crate::logs::DirectoryWatch;
use crate::types::{LogRecord, Receiver, Scope, WaitCondition};
use crate::{Engine, EngineError};

/// How many bytes are read at once.
const BATCH: usize = 64 << 10;

impl Engine {
    /// Follows a container's log through all its runs, until the container is removed and its log
    /// was read. `from`: continues at the position of a record that an earlier call returned.
    ///
    /// # Errors
    /// When there is no such container, or its directory can't be watched.
    pub fn records(
        &self,
        scope: Scope,
        name: &str,
        from: Option<Position>,
    ) -> Result<Receiver<Vec<LogRecord>>, EngineError> {
        let container = self.inner.resolve(scope, name)?;
        let path = container.snapshot().log_path.clone();
        // Watch before the first read: later changes wake this task.
        let watch = DirectoryWatch::new(path.parent().unwrap_or(Path::new("/")))?;
        let removed = container.wait(WaitCondition::Removed).ok();
        let held = container.readers.subscribe();
        let (sender, records) = mpsc::channel(1);
        tokio::spawn(async move {
            let _held = held;
            if let Err(error) = follow(&path, from, &watch, removed, &sender).await {
                tracing::warn!(log = %path.display(), %error, "a log is not followed any more");
            }
        });
        Ok(Receiver(records))
    }
}

async fn follow(
    path: &Path,
    from: Option<Position>,
    watch: &DirectoryWatch,
    removed: Option<tokio::sync::oneshot::Receiver<crate::WaitResult>>,
    sender: &mpsc::Sender<Vec<LogRecord>>,
) -> Result<(), EngineError> {
    let mut over = removed.is_none();
    let removed = async {
        match removed {
            Some(removed) => drop(removed.await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(removed);
    let log = path.to_owned();
    let mut reader = blocking(move || {
        let mut reader = Reader::open(&log)?;
        if let Some(position) = from {
            reader.seek_position(position)?;
        }
        Ok::<_, EngineError>(reader)
    })
    .await??;
    loop {
        let (back, records, caught_up) = blocking(move || {
            let (records, caught_up) = batch(&mut reader)?;
            Ok::<_, EngineError>((reader, records, caught_up))
        })
        .await??;
        reader = back;
        if !records.is_empty() && sender.send(records).await.is_err() {
            return Ok(());
        }
        if !caught_up {
            continue;
        }
        if over {
            return Ok(());
        }
        tokio::select! {
            changed = watch.changed() => changed?,
            () = &mut removed => over = true,
            () = sender.closed() => return Ok(()),
        }
    }
}

/// The next records, and whether there are no more now.
fn batch(reader: &mut Reader) -> Result<(Vec<LogRecord>, bool), EngineError> {
    let (mut records, mut size) = (Vec::new(), 0);
    while size < BATCH {
        let mut record = match reader.next()? {
            Next::CaughtUp { .. } => return Ok((records, true)),
            Next::Record(record) => LogRecord {
                time: record.time,
                partial: record.partial,
                stream: record.stream,
                payload: record.payload.to_vec(),
                end: Position {
                    generation: 0,
                    offset: 0,
                },
            },
        };
        if let Some(end) = reader.position() {
            record.end = end;
        }
        size += record.payload.len() + 64;
        records.push(record);
    }
    Ok((records, false))
}
