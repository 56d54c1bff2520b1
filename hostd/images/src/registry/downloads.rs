//! Downloads that several pulls share: if one pull is fetching an object, the others wait for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use keelson_oci::digest::Digest;
use tokio::sync::{OnceCell, mpsc, watch};
use tokio::task::AbortHandle;

use super::layers::{LayerPull, Phase};
use super::{tell, tell_bytes};
use crate::disk::Staging;
use crate::error::ImageError;
use crate::types::{Progress, Step};

/// An image's configuration, as soon as one of the pulls has it.
type Config = OnceCell<Vec<u8>>;

/// The running downloads.
#[derive(Debug, Default)]
pub(crate) struct Downloads {
    /// By registry and diff-id. By registry, because a slow or broken one must not delay pulls from
    /// others.
    layers: Mutex<HashMap<(String, Digest), Weak<Download>>>,
    /// The same by registry and digest.
    configs: Mutex<HashMap<(String, Digest), Weak<Config>>>,
}

/// A running download of a layer. It continues as long as one holder of this exists.
#[derive(Debug)]
pub(super) struct Download {
    pub directory: PathBuf,
    phase: watch::Receiver<Phase>,
    /// For the pull that began it.
    error: Arc<Mutex<Option<ImageError>>>,
    task: AbortHandle,
    /// It contains the layer's directory, and outlives the pull that began this.
    _staging: Arc<Staging>,
}

impl Drop for Download {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Finds an object that others hold under a key, and forgets those that nobody holds any more.
fn shared<K: Eq + Hash, T>(known: &mut HashMap<K, Weak<T>>, key: &K) -> Option<Arc<T>> {
    known.retain(|_, held| held.strong_count() > 0);
    known.get(key)?.upgrade()
}

impl Downloads {
    /// Returns the running download of this layer, or begins this one. Also returns whether it was
    /// begun.
    pub(super) fn join(&self, pull: LayerPull) -> (Arc<Download>, bool) {
        let mut layers = locked(&self.layers);
        let key = (pull.repository.host().to_owned(), pull.diff_id);
        if let Some(running) = shared(&mut layers, &key)
            && *running.phase.borrow() != Phase::Failed
        {
            return (running, false);
        }
        let (told, phase) = watch::channel(Phase::Downloading(0));
        let error = Arc::new(Mutex::new(None));
        let directory = pull.directory.clone();
        let staging = Arc::clone(&pull.staging);
        let failure = Arc::clone(&error);
        let task = tokio::spawn(async move {
            let last = match pull.run(&told).await {
                Ok(()) => Phase::Done,
                Err(error) => {
                    *locked(&failure) = Some(error);
                    Phase::Failed
                }
            };
            told.send_replace(last);
        });
        let download = Arc::new(Download {
            directory,
            phase,
            error,
            task: task.abort_handle(),
            _staging: staging,
        });
        layers.insert(key, Arc::downgrade(&download));
        (download, true)
    }

    /// Stops offering this download to others.
    pub(super) fn forget(&self, download: &Arc<Download>) {
        let other = |held: &Weak<Download>| !std::ptr::eq(held.as_ptr(), Arc::as_ptr(download));
        locked(&self.layers).retain(|_, held| other(held));
    }

    /// The cell for a configuration. The first pull fills it.
    pub(super) fn config(&self, registry: &str, digest: &Digest) -> Arc<Config> {
        let mut configs = locked(&self.configs);
        let key = (registry.to_owned(), *digest);
        shared(&mut configs, &key).unwrap_or_else(|| {
            let cell = Arc::new(OnceCell::new());
            configs.insert(key, Arc::downgrade(&cell));
            cell
        })
    }
}

impl Download {
    /// Waits until the layer is complete, and reports progress. False if it failed.
    pub(super) async fn wait(
        &self,
        id: &str,
        size: u64,
        progress: &mpsc::Sender<Progress>,
    ) -> bool {
        let mut phase = self.phase.clone();
        let mut complete = false;
        loop {
            let now = *phase.borrow_and_update();
            match now {
                Phase::Downloading(0) => {}
                Phase::Downloading(at) => tell_bytes(progress, id, Step::Downloading, at, size),
                Phase::Failed => return false,
                Phase::Downloaded | Phase::Done => {
                    if !complete {
                        complete = true;
                        tell(progress, id, Step::Downloaded).await;
                    }
                    if now == Phase::Done {
                        tell(progress, id, Step::PullComplete).await;
                        return true;
                    }
                }
            }
            if phase.changed().await.is_err() {
                // Its task has ended; the last state counts.
                let last = *phase.borrow_and_update();
                if last != Phase::Done && last != Phase::Failed {
                    return false;
                }
            }
        }
    }

    /// Why it failed. Only the first caller gets it.
    pub(super) fn error(&self) -> ImageError {
        locked(&self.error)
            .take()
            .unwrap_or_else(|| ImageError::Interrupted("the download was given up".to_owned()))
    }
}
