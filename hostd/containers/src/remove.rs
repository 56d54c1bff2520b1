//! Removing containers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use keelson_blocking::blocking;
use keelson_store::objects::remove_tree;

use crate::container::Container;
use crate::engine::{Inner, off_workers};
use crate::machine::Ask;
use crate::types::Scope;
use crate::volumes::end_uses;
use crate::{Engine, EngineError};

/// How long the output of a removed container is kept for its readers. The shim drops a reader that
/// reads nothing for ten seconds; the size is limited by the log's size.
const READERS_TIME: Duration = Duration::from_secs(300);

impl Engine {
    /// Removes a container; with `force` also a running one, and with `volumes` also its anonymous
    /// volumes that no other container has.
    ///
    /// # Errors
    /// [`EngineError::Refused`] when it runs and `force` is not given.
    pub async fn remove(
        &self,
        scope: Scope,
        name: &str,
        force: bool,
        volumes: bool,
    ) -> Result<(), EngineError> {
        let inner = Arc::clone(&self.inner);
        let container = inner.resolve(scope, name)?;
        container.live().volumes.remove = volumes;
        Self::whole(async move { inner.ask(&container, Ask::Remove { force }).await }).await
    }
}

fn delete(id: &str, path: &Path) {
    if let Err(error) = remove_tree(path) {
        tracing::warn!(id, %error, "files of a removed container not deleted");
    }
}

impl Inner {
    /// Forgets a container that was removed; its files are deleted in the background.
    pub(crate) fn release(self: &Arc<Self>, container: &Container, trash: Option<PathBuf>) {
        let name = container.snapshot().name.clone();
        self.with_mut(container.scope, |registry| {
            registry.remove(&container.id);
            registry.release(&name);
        });
        self.executions.forget(&container.id);
        self.networks.forget(&container.id);
        self.linkers.forget(&container.id);
        // There is none if it had ended before.
        off_workers(|| end_uses(container));
        let snapshot = container.snapshot();
        let (layers, image, volumes) = {
            let mut live = container.live();
            let volumes = std::mem::take(&mut live.volumes);
            (live.layers.take(), live.image.take(), volumes)
        };
        // Drop them before the answer: the next request may remove the image and the volumes.
        drop((image, volumes.leases, volumes.images));
        if volumes.remove || snapshot.spec.auto_remove {
            off_workers(|| self.drop_anonymous(&snapshot.spec.volumes));
        }
        let (run, id) = (container.run_directory.clone(), container.id.clone());
        let (readers, gate) = (container.readers.clone(), Arc::clone(&container.gate));
        tokio::spawn(async move {
            let deleting = blocking(move || {
                delete(&id, &run);
                // This may unmount the image's layers.
                drop(layers);
                (id, trash)
            });
            let Ok((id, Some(trash))) = deleting.await else {
                return;
            };
            // The log is in it.
            if tokio::time::timeout(READERS_TIME, readers.closed())
                .await
                .is_err()
            {
                tracing::warn!(id, "output of a removed container was not read in time");
            }
            // Nothing more may be written to the deleted directory.
            let _closed = gate.close().await;
            let _ = blocking(move || delete(&id, &trash)).await;
        });
    }
}
