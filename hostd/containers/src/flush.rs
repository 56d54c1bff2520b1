//! Flushing files to the disk a moment after they were written, in one place and in batches.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use keelson_store::file;
use tokio::sync::{mpsc, oneshot};

/// How long files are collected. A power cut loses no more than this.
const WINDOW: Duration = Duration::from_millis(50);

enum Job {
    File(PathBuf),
    /// Flush what is waiting and answer.
    Now(oneshot::Sender<()>),
}

/// Flushes files in the background.
pub(crate) struct Flusher(mpsc::UnboundedSender<Job>);

impl Flusher {
    /// Starts the background task, which ends when this value is dropped.
    pub(crate) fn start() -> Self {
        let (sender, mut receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Some(job) = receiver.recv().await {
                let mut files = BTreeSet::new();
                let mut askers = Vec::new();
                sort(job, &mut files, &mut askers);
                if askers.is_empty() {
                    tokio::time::sleep(WINDOW).await;
                }
                while let Ok(job) = receiver.try_recv() {
                    sort(job, &mut files, &mut askers);
                }
                let flushed = tokio::task::spawn_blocking(move || flush(&files)).await;
                if let Err(error) = flushed {
                    tracing::error!(%error, "flush failed");
                }
                for asker in askers {
                    let _ = asker.send(());
                }
            }
        });
        Self(sender)
    }

    /// Flushes a file and its name soon.
    pub(crate) fn later(&self, path: PathBuf) {
        let _ = self.0.send(Job::File(path));
    }

    /// Waits until everything written so far is on the disk.
    pub(crate) async fn now(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.0.send(Job::Now(sender)).is_ok() {
            let _ = receiver.await;
        }
    }
}

fn sort(job: Job, files: &mut BTreeSet<PathBuf>, askers: &mut Vec<oneshot::Sender<()>>) {
    match job {
        Job::File(path) => {
            files.insert(path);
        }
        Job::Now(asker) => askers.push(asker),
    }
}

fn flush(files: &BTreeSet<PathBuf>) {
    for path in files {
        match file::flush(path) {
            Ok(()) => {}
            // Removed in the meantime.
            Err(error) if error.is_not_found() => {}
            Err(error) => tracing::error!(path = %path.display(), %error, "file not flushed"),
        }
    }
}
