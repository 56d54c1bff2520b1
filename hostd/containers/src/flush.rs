//! Synchronises files a moment after they were written, in one place and in batches.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use keelson_store::file;
use tokio::sync::{Notify, oneshot};

/// How long files are collected. A power cut loses no more than this.
const WINDOW: Duration = Duration::from_millis(50);

/// Files to synchronise, each with the work to do afterwards.
type Files = BTreeMap<PathBuf, Option<Box<dyn FnOnce() + Send>>>;

/// Flushes files in the background.
pub(crate) struct Flusher(Arc<Shared>);

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Notify,
}

/// The waiting work. A file waits only once, however often it was written.
#[derive(Default)]
struct Waiting {
    files: Files,
    /// They are answered once all waiting files are synchronised.
    askers: Vec<oneshot::Sender<()>>,
    closed: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn work(&self) {
        loop {
            self.changed.notified().await;
            if self.lock().askers.is_empty() {
                tokio::time::sleep(WINDOW).await;
            }
            let Waiting {
                files,
                askers,
                closed,
            } = std::mem::take(&mut *self.lock());
            let flushed = keelson_blocking::blocking(move || flush(files)).await;
            if let Err(error) = flushed {
                tracing::error!(%error, "flush failed");
            }
            for asker in askers {
                // The caller may be gone.
                let _ = asker.send(());
            }
            if closed {
                return;
            }
        }
    }
}

impl Flusher {
    /// Starts the background task, which ends when this value is dropped.
    pub(crate) fn start() -> Self {
        let shared = Arc::new(Shared::default());
        let background = Arc::clone(&shared);
        tokio::spawn(async move { background.work().await });
        Self(shared)
    }

    /// Synchronises a file and its name soon.
    pub(crate) fn later(&self, path: PathBuf) {
        self.0.lock().files.entry(path).or_default();
        self.0.changed.notify_one();
    }

    /// Flushes a file and its name soon, and then does something.
    pub(crate) fn then(&self, path: PathBuf, work: impl FnOnce() + Send + 'static) {
        self.0.lock().files.insert(path, Some(Box::new(work)));
        self.0.changed.notify_one();
    }

    /// Waits until everything written so far is on the disk.
    pub(crate) async fn now(&self) {
        let (sender, receiver) = oneshot::channel();
        self.0.lock().askers.push(sender);
        self.0.changed.notify_one();
        // The task answers unless the runtime ends.
        let _ = receiver.await;
    }
}

impl Drop for Flusher {
    fn drop(&mut self) {
        self.0.lock().closed = true;
        self.0.changed.notify_one();
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
