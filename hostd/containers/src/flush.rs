//! Flushing files to the disk a moment after they were written, in one place and in batches.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use keelson_store::file;
use tokio::sync::{mpsc, oneshot};

/// How long files are collected. A power cut loses no more than this.
const WINDOW: Duration = Duration::from_millis(50);

/// Files to flush, each with what is done then.
type Files = BTreeMap<PathBuf, Option<Box<dyn FnOnce() + Send>>>;

enum Job {
    File(PathBuf),
    /// And then do this.
    Then(PathBuf, Box<dyn FnOnce() + Send>),
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
                let mut files = Files::new();
                let mut askers = Vec::new();
                sort(job, &mut files, &mut askers);
                if askers.is_empty() {
                    tokio::time::sleep(WINDOW).await;
                }
                while let Ok(job) = receiver.try_recv() {
                    sort(job, &mut files, &mut askers);
                }
                let flushed = tokio::task::spawn_blocking(move || flush(files)).await;
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

    /// Flushes a file and its name soon, and then does something.
    pub(crate) fn then(&self, path: PathBuf, work: impl FnOnce() + Send + 'static) {
        let _ = self.0.send(Job::Then(path, Box::new(work)));
    }

    /// Waits until everything written so far is on the disk.
    pub(crate) async fn now(&self) {
        let (sender, receiver) = oneshot::channel();
        if self.0.send(Job::Now(sender)).is_ok() {
            let _ = receiver.await;
        }
    }
}

fn sort(job: Job, files: &mut Files, askers: &mut Vec<oneshot::Sender<()>>) {
    match job {
        Job::File(path) => {
            files.entry(path).or_default();
        }
        Job::Then(path, work) => {
            files.insert(path, Some(work));
        }
        Job::Now(asker) => askers.push(asker),
    }
}

fn flush(files: Files) {
    for (path, then) in files {
        match file::flush(&path) {
            Ok(()) => {
                if let Some(work) = then {
                    work();
                }
            }
            // Removed in the meantime.
            Err(error) if error.is_not_found() => {}
            Err(error) => tracing::error!(path = %path.display(), %error, "file not flushed"),
        }
    }
}
